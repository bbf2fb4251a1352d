"""Passkeys at the page: an authenticator made here signs what it should, and what it should not."""

import hashlib
import json
import secrets

import pytest

pytest.importorskip("webauthn", reason="the extra web is not installed")
import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.runtime.web.conftest import PASSWORD, Visitor, eventually, notes
from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.passkeys import (
    GOOD_S,
    OF_AN_ADDRESS_MAX,
    Challenges,
    PasskeyError,
    encoded,
    rp_id_of,
)

NAME = "localhost"


class Authenticator:
    """A key of P-256 as a security key has it, with all that can be wrong about its answers."""

    def __init__(self, rp_id=NAME):
        self.rp_id, self.count = rp_id, 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = secrets.token_bytes(16)

    def _data(self, rp_id, flags, more=b""):
        self.count += 1
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big") + more

    def _said(self, kind, challenge, origin):
        return json.dumps({"type": f"webauthn.{kind}", "challenge": challenge, "origin": origin}).encode()

    def made(self, options, origin, rp_id=None):
        point = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
        more = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor2.dumps(public)
        whole = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": self._data(rp_id or self.rp_id, 0x45, more)})
        said = self._said("create", options["challenge"], origin)
        return self._answer(clientDataJSON=encoded(said), attestationObject=encoded(whole))

    def signed(self, challenge, origin, rp_id=None, flags=0x05):
        data, said = self._data(rp_id or self.rp_id, flags), self._said("get", challenge, origin)
        signature = self.key.sign(data + hashlib.sha256(said).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            clientDataJSON=encoded(said), authenticatorData=encoded(data), signature=encoded(signature), userHandle=None
        )

    def _answer(self, **response):
        return {"id": encoded(self.id), "rawId": encoded(self.id), "type": "public-key", "response": response}


def origin_of(page):
    return f"https://{NAME}:{page.port}"


def person(page, user="", role="maintain"):
    """A visitor who calls the page by its name."""
    made = Visitor(page.port, page.ca, NAME)
    if user:
        code = Pairing(page.state / "web").make(role)
        assert made.ask("/session/pair", {"code": code, "user": user, "password": PASSWORD})[0] == 200
    return made


def asked(visitor, kind, **more):
    status, _, options = visitor.ask("/session/passkey/options", {"kind": kind, **more})
    assert status == 200, options
    return options


def registered(page, visitor, name="phone"):
    key = Authenticator()
    credential = key.made(asked(visitor, "register", password=PASSWORD), origin_of(page))
    status, _, body = visitor.ask("/session/passkey/register", {"credential": credential, "name": name})
    assert (status, body) == (200, {"name": name})
    return key


def logged_in(page, key, visitor=None, **wrong):
    """(status, body) of a login with a passkey."""
    visitor = visitor or person(page)
    challenge = asked(visitor, "login")["challenge"]
    credential = key.signed(challenge, wrong.pop("origin", origin_of(page)), **wrong)
    status, _, body = visitor.ask("/session/passkey/login", {"credential": credential})
    return status, body


def test_a_passkey_logs_in_arms_and_is_taken_and_the_journal_has_it(page):
    anna = person(page, "anna")
    key = registered(page, anna)
    visitor = person(page)
    assert logged_in(page, key, visitor) == (200, {"user": "anna", "role": "maintain"})
    assert visitor.ask("/orders/prepare", {"action": "run"})[2]["text"] == "this page only reads until it is armed"
    credential = key.signed(asked(visitor, "arm")["challenge"], origin_of(page))
    status, _, body = visitor.ask("/session/passkey/arm", {"credential": credential})
    assert status == 200 and body["armed_s"] == 300
    assert visitor.ask("/orders/prepare", {"action": "run"})[0] == 200
    listed = anna.ask("/session/passkeys")[2]
    assert listed["here"] == 1 and [one["name"] for one in listed["passkeys"]] == ["phone"]
    assert listed["passkeys"][0]["used_utc_s"] > listed["passkeys"][0]["made_utc_s"]
    bert = person(page, "bert", "operate")
    assert bert.ask("/session/passkeys")[2] == {"passkeys": [], "here": 0}
    assert bert.ask("/session/passkey/remove", {"id": listed["passkeys"][0]["id"]})[0] == 400, "not his"
    assert anna.ask("/session/passkey/remove", {"id": listed["passkeys"][0]["id"]})[0] == 200
    assert visitor.ask("/api/v1/get")[0] == 401, "what was opened with it has ended"
    assert anna.ask("/api/v1/get")[0] == 200
    assert logged_in(page, key)[0] == 403
    rows = eventually(lambda: [one for one in notes(page) if one[0] == "web passkey refused"] and notes(page))
    found = [name for name, _ in rows if name.startswith("web") and "paired" not in name]
    assert found == ["web passkey added", "web login", "web passkey removed", "web passkey refused"]
    assert any("passkey phone" in detail for name, detail in rows if name == "web login")


def test_what_was_signed_wrongly_is_not_believed(page):
    anna = person(page, "anna")
    key = registered(page, anna)
    for wrong, words in (
        ({"origin": "https://evil.example"}, "origin"),
        ({"origin": f"https://localhost:{page.port + 1}"}, "origin"),
        ({"rp_id": "evil.example"}, "RP ID"),
        ({"flags": 0x01}, "verif"),  # nobody gave a finger or a PIN
    ):
        status, body = logged_in(page, key, **wrong)
        assert status == 403 and words.lower() in body["text"].lower(), (wrong, body)
    other = Authenticator()
    other.id = key.id  # the id alone is not the key
    status, body = logged_in(page, other)
    assert status == 403 and "not believed" in body["text"]
    # Five in a row from one address: it is locked, as after wrong passwords.
    visitor = person(page)
    credential = key.signed(asked(visitor, "login")["challenge"], origin_of(page))
    assert visitor.ask("/session/passkey/login", {"credential": credential})[2]["code"] == "locked"
    assert anna.ask("/api/v1/get")[0] == 200, "who is in stays in"


def test_a_challenge_is_good_once_for_one_thing_and_one_session(page):
    anna, bert = person(page, "anna"), person(page, "bert", "operate")
    key, visitor = registered(page, anna), person(page)
    credential = key.signed(asked(visitor, "login")["challenge"], origin_of(page))
    assert visitor.ask("/session/passkey/login", {"credential": credential})[0] == 200
    status, _, body = person(page).ask("/session/passkey/login", {"credential": credential})
    assert status == 409 and "nothing waits" in body["text"], "replayed"
    invented = key.signed(encoded(secrets.token_bytes(32)), origin_of(page))
    assert person(page).ask("/session/passkey/login", {"credential": invented})[0] == 409
    for_login = key.signed(asked(anna, "login")["challenge"], origin_of(page))
    assert anna.ask("/session/passkey/arm", {"credential": for_login})[0] == 409
    of_anna = key.signed(asked(anna, "arm")["challenge"], origin_of(page))
    assert bert.ask("/session/passkey/arm", {"credential": of_anna})[0] == 409
    assert bert.ask("/session/passkey/options", {"kind": "arm"})[0] == 400, "bert has none"
    for broken in (
        {},
        {"response": 1},
        {"response": {"clientDataJSON": "%%"}},
        {"response": {"clientDataJSON": "W10"}},
    ):
        assert person(page).ask("/session/passkey/login", {"credential": broken})[0] in (400, 429)


def test_a_count_that_goes_back_ends_the_passkey(page):
    key = registered(page, person(page, "anna"))
    assert logged_in(page, key)[0] == 200
    key.count -= 2
    status, body = logged_in(page, key)
    assert status == 403 and "it was copied" in body["text"]
    key.count += 1000
    status, body = logged_in(page, key)
    assert status == 403 and "was copied" in body["text"], "neither copy is good any more"
    eventually(lambda: any("it was copied" in one[1] for one in notes(page) if one[0] == "web passkey refused"))


def test_a_passkey_is_made_with_the_password_and_a_new_password_ends_it(page):
    anna = person(page, "anna")
    assert anna.ask("/session/passkey/options", {"kind": "register", "password": "no"})[0] == 403
    assert person(page).ask("/session/passkey/options", {"kind": "register", "password": PASSWORD})[0] == 401
    key = registered(page, anna)
    again = key.made(asked(anna, "register", password=PASSWORD), origin_of(page))
    status, _, body = anna.ask("/session/passkey/register", {"credential": again, "name": "twice"})
    assert status == 400 and "there already" in body["text"]
    foreign = Authenticator().made(asked(anna, "register", password=PASSWORD), "https://evil.example")
    assert anna.ask("/session/passkey/register", {"credential": foreign, "name": "foreign"})[0] == 403
    code = Pairing(page.state / "web").make("maintain", "anna")
    assert person(page).ask("/session/pair", {"code": code, "user": "anna", "password": PASSWORD + " x"})[0] == 200
    status, body = logged_in(page, key)
    assert status == 403 and "new password" in body["text"]


def test_an_address_has_no_passkeys_and_says_so(page):
    anna = page.visitor("anna")
    status, _, body = anna.ask("/session/passkey/options", {"kind": "login"})
    assert status == 503 and "needs a name" in body["text"]
    said = anna.ask("/session")[2]["passkeys"]
    assert said["rp_id"] == "" and any(name.endswith(".local") for name in said["names"])
    assert person(page).ask("/session")[2]["passkeys"]["rp_id"] == NAME


def test_a_file_that_is_damaged_lets_nobody_in_and_is_named(page):
    anna = person(page, "anna")
    key = registered(page, anna)
    (page.state / "web" / "passkeys.json").write_text("{")
    status, body = logged_in(page, key)
    assert status == 500 and "passkeys.json is damaged" in body["text"]
    assert person(page).ask("/session/login", {"user": "anna", "password": PASSWORD})[0] == 200


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.0.0.5:8443", ""),
        ("[::1]:8443", ""),
        ("[fe80::1]", ""),
        ("Hall.local:8443", "hall.local"),
        ("localhost", NAME),
    ],
)
def test_a_name_is_what_is_no_address(host, name):
    assert rp_id_of(host) == name


def test_a_crowd_makes_only_its_own_challenges_forgotten():
    now = [0.0]
    open_ones = Challenges(lambda: now[0])
    mine = open_ones.make("login", "", "10.0.0.1", NAME, "https://x")
    for _ in range(1000):
        last = open_ones.make("login", "", "10.0.0.2", NAME, "https://x")
    assert open_ones.take(mine, "login", "").address == "10.0.0.1"
    assert open_ones.take(last, "login", "")
    kept = [open_ones.make("login", "", "10.0.0.3", NAME, "https://x") for _ in range(OF_AN_ADDRESS_MAX + 1)]
    with pytest.raises(PasskeyError, match="nothing waits"):
        open_ones.take(kept[0], "login", "")
    now[0] = GOOD_S
    with pytest.raises(PasskeyError, match="too late"):
        open_ones.take(kept[-1], "login", "")
