"""The page from outside: who gets in, who may what, what is said of an old number, and what a stranger can do."""

import json
import socket
import ssl
import time

import pytest

from tests.runtime.web.conftest import PASSWORD, eventually, fault, half_open, notes
from tidegate.runtime.api import messages
from tidegate.runtime.gateway.ops import OPS
from tidegate.runtime.web.acceptor import OF_AN_ADDRESS_MAX
from tidegate.runtime.web.access_tokens import grant
from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.openapi import SERVED, document

BODIES = {
    "lease": {"action": "acquire"}, "mode": {"mode": "stop"}, "note": {"name": "x"}, "limit": {"for_ms": 1000},
    "schedule": {"steps": [], "end_utc_s": 0}, "grid_operator": {"action": "release"}, "replay": {"stream": "event"},
    "lock": {"action": "unlock", "name": "x"}, "control": {"place": "remote"}, "policy": {"name": "peak_w_max"},
    "jobs": {"jobs": [{"job": "j", "start_utc_s": 1, "end_utc_s": 2}]},
    "shelve": {"unit": "cabinet", "alarm": "bms_silent", "for_ms": 1000, "reason": "r"},
    "setpoint": {"lease": "0" * 32, "seq": 0, "setpoint_w": 0.0, "for_ms": 1},
}  # fmt: skip
PRIVATE = (
    "/api/v1/get",
    "/api/v1/describe",
    "/live",
    "/history?series=site.grid_w",
    "/history/series",
    "/setup/file",
    "/setup/job",
)


def test_what_a_stranger_sees_and_does(page):
    stranger = page.visitor()
    status, headers, body = stranger.ask("/")
    assert status == 200 and b"app.js" in body
    assert (
        "script-src 'self'" in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
    )
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    for path in PRIVATE:
        status, _, body = stranger.ask(path)
        assert (status, body["code"]) == (401, "not-allowed"), path
    for path in ("/orders/prepare", "/session/arm", "/api/v1/mode"):
        assert stranger.ask(path, {"mode": "stop"})[0] == 401, path
    assert stranger.ask("/session")[2]["user"] is None
    assert stranger.ask("/..%2f..%2fetc%2fpasswd")[0] == 404
    # Another name (a page of somebody else that points its name here), another method, a body that is too large.
    assert stranger.ask("/", host="evil.example")[0] == 421
    assert stranger.ask("/", method="DELETE")[0] == 405
    assert stranger.ask("/session/login", b"{" + b" " * 20_000)[0] == 413
    for body in (b"[1]", b"{", b"\xff", {"user": 1, "password": "x"}, {"user": "a", "password": "b", "more": 1}):
        assert stranger.ask("/session/login", body)[0] == 400
    # The certificate is for these names only, and whoever does not know the authority is warned.
    with socket.create_connection(("127.0.0.1", page.port)) as plain, pytest.raises(ssl.SSLCertVerificationError):
        stranger.context.wrap_socket(plain, server_hostname="evil.example")
    stranger.context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger.ask("/")


def test_a_code_makes_one_login_and_wrong_ones_lock(page):
    first = page.visitor()
    assert first.ask("/session")[2]["has_users"] is False
    assert page.command("pair", "--no-qr").returncode == 64, "the first login must have the role maintain"
    done = page.command("pair", "--no-qr", "--role", "maintain")
    assert done.returncode == 0, done.stderr
    code = done.stdout.split("#pair=")[1].split()[0]
    # A password that anybody tries first leaves the code good; it is used up by the login that it makes.
    easy = first.ask("/session/pair", {"code": code, "user": "anna", "password": "password1"})
    assert easy[0] == 400 and "first that anybody tries" in easy[2]["text"]
    status, headers, _ = first.ask("/session/pair", {"code": code, "user": "anna", "password": PASSWORD})
    assert status == 200
    cookie = next(value for name, value in headers.items() if name.lower() == "set-cookie")
    for word in ("__Host-", "Secure", "HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert first.ask("/session")[2]["role"] == "maintain"
    again = page.visitor()
    assert again.ask("/session/pair", {"code": code, "user": "eve", "password": PASSWORD})[0] == 403
    # Wrong passwords: the address is locked, and then the right one is of no use either.
    for _ in range(5):
        status, _, body = again.ask("/session/login", {"user": "anna", "password": "wrong wrong wrong"})
    status, headers, body = again.ask("/session/login", {"user": "anna", "password": PASSWORD})
    assert (status, body["code"]) == (429, "locked") and "retry-after" in headers
    assert first.ask("/api/v1/get?points=site.grid_w")[0] == 200, "who is logged in stays so"
    eventually(lambda: {"web paired", "web login refused"} <= {name for name, _ in notes(page)})
    assert any(PASSWORD in detail or "wrong wrong" in detail for _, detail in notes(page)) is False


def test_orders_are_shown_first_armed_and_given_in_the_persons_name(page):
    anna = page.visitor("anna")
    bert = page.visitor("bert", "read")
    assert anna.ask("/orders/prepare", {"action": "run"})[2]["text"] == "this page only reads until it is armed"
    assert bert.ask("/orders/prepare", {"action": "stop"})[0] == 403
    assert bert.ask("/session/arm", {"password": PASSWORD})[0] == 403
    assert anna.ask("/session/arm", {"password": "not it at all"})[0] == 403
    # Orders by the session through the API are refused: there nobody was shown what they do.
    assert anna.ask("/api/v1/mode", {"mode": "stop"})[0] == 403
    # From another site's page: the browser says where it came from.
    for headers in ({"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}, {"origin": "null"}):
        assert anna.ask("/orders/prepare", {"action": "stop"}, **headers)[0] == 403
    assert anna.ask("/orders/prepare")[0] == 405, "no GET changes anything"
    # A stop needs no arming; it does what it said, once, and only for who asked.
    prepared = anna.ask("/orders/prepare", {"action": "stop"})[2]
    assert prepared["effect"] == {"name": "effect.stop"} and prepared["site"] == "test-site"
    assert bert.ask("/orders/confirm", {"token": prepared["token"]})[2]["code"] == "late"
    status, _, answer = anna.ask("/orders/confirm", {"token": prepared["token"]})
    assert (status, answer["status"]) == (200, "applied"), answer
    assert anna.ask("/orders/confirm", {"token": prepared["token"]})[0] in (403, 409)
    assert anna.ask("/api/v1/why")[2]["why"]["stopped"] is True
    assert anna.ask("/session/arm", {"password": PASSWORD})[2]["armed_s"] > 0
    prepared = anna.ask("/orders/prepare", {"action": "limit", "import_w_max": 5000.0, "for_ms": 60_000})[2]
    assert prepared["effect"]["import_w_max"] == 5000.0
    assert anna.ask("/orders/confirm", {"token": prepared["token"]})[2]["status"] in ("applied", "clamped")
    for wrong in (
        {"action": "limit"},
        {"action": "limit", "import_w_max": -1.0, "for_ms": 1000},
        {"action": "explode"},
    ):
        assert anna.ask("/orders/prepare", wrong)[0] in (400, 404)
    page.core.step()
    from tidegate.runtime.api.blocking_client import Client

    with Client(f"ipc://{page.env['TIDEGATE_RUNTIME_DIR']}/test-site") as client:
        said = json.dumps(client.replay("event")[0])
    assert " for anna" in said


def test_a_stop_that_was_given_on_site_is_lifted_there_only(page):
    from tidegate.runtime.api.blocking_client import Client

    anna = page.visitor("anna")
    with Client(f"ipc://{page.env['TIDEGATE_RUNTIME_DIR']}/test-site") as client:
        client.mode("stop")
    anna.ask("/session/arm", {"password": PASSWORD})
    token = anna.ask("/orders/prepare", {"action": "run"})[2]["token"]
    status, _, body = anna.ask("/orders/confirm", {"token": token})
    assert (status, body["code"]) == (409, "local")


def test_live_values_have_ages_and_a_silent_site_is_named_so(page):
    anna = page.visitor("anna")
    events = anna.events()
    kind, first = next(events)
    while kind != "values" or first["silent"] or not first["points"]:
        kind, first = next(events)
    kind, state = next(events)
    while kind != "state" or "ages_ms" not in state:
        kind, state = next(events)
    assert state["ages_ms"]["site.grid_w"] is not None and state["asked_age_ms"] is not None
    page.core.values["site.grid_w"] = (-4_000.0, 1)
    for kind, frame in events:
        if kind == "values" and frame["points"].get("site.grid_w") == [-4000.0, 1]:
            assert frame["full"] is False and frame["age_ms"] < 60_000
            break
    page.core.values["site.grid_w"] = (0.0, 3)  # stale: no number goes with it
    for kind, frame in events:
        if kind == "values" and frame["points"].get("site.grid_w", [0, 0])[1] == 3:
            assert frame["points"]["site.grid_w"][0] is None
            break
    page.paused.set()  # the core stands still
    ages = [frame["age_ms"] for kind, frame in until_silent(events)]
    assert ages[-1] > 1000.0


def until_silent(events):
    """Frames up to the first that says that the site is silent."""
    for kind, frame in events:
        if kind == "values":
            yield kind, frame
            if frame["silent"]:
                return


def test_a_right_that_is_taken_ends_what_is_open(page):
    page.visitor("anna")
    bert = page.visitor("bert", "operate")
    events = bert.events()
    assert next(events)[0] == "values"
    assert page.command("revoke", "bert", "--login").returncode == 0
    assert [kind for kind, _ in events][-1] == "ended"
    assert bert.ask("/api/v1/get")[0] == 401
    assert page.command("revoke", "anna", "--login").returncode == 65, "the last who may maintain stays"


@pytest.mark.parametrize("role", messages.ROLES)
def test_a_token_may_what_its_role_may(page, role):
    folder = page.state / "web"
    token = grant(folder / "tokens.json", "scada", role)
    program = page.visitor()
    bearer = {"authorization": f"Bearer {token}"}
    assert program.ask("/api/v1/get", authorization="Bearer nothing")[0] == 401
    refused = set()
    for op in SERVED:
        status, _, body = eventually(
            lambda op=op: busy_is_none(program.ask(f"/api/v1/{op}", {"nonsense": 1}, **bearer))
        )
        assert (status, body["code"]) == (400, "invalid-field"), "fields are looked at first, by the same classes"
        status, _, body = eventually(
            lambda op=op: busy_is_none(program.ask(f"/api/v1/{op}", BODIES.get(op, {}), **bearer))
        )
        if status == 403 and "needs the role" in body["text"]:
            refused.add(op)
    assert refused == {op for op in SERVED if messages.ROLES.index(OPS[op]) > messages.ROLES.index(role)}
    known, unknown = (
        eventually(lambda point=point: busy_is_none(program.ask(f"/api/v1/get?points={point}", **bearer)))[2]
        for point in ("site.grid_w", "no.such")
    )
    assert known["points"]["site.grid_w"][1] == 1 and unknown["code"] == "unknown-point"
    assert eventually(lambda: busy_is_none(program.ask("/api/v1/nothing", **bearer)))[0] == 404
    # On whose behalf it asks is not its to name, nor where it is.
    for field in ({"user": "boss"}, {"for_remote": False}, {"id": "1"}):
        assert (
            eventually(lambda f=field: busy_is_none(program.ask("/api/v1/mode", {"mode": "stop", **f}, **bearer)))[0]
            == 400
        )


def busy_is_none(answer):
    return None if answer[0] == 429 else answer


def test_the_document_is_openapi_and_answers_are_as_it_says(page):
    import jsonschema

    program = page.visitor()
    token = grant(page.state / "web" / "tokens.json", "scada", "read")
    fault(page.core)
    status, _, told = program.ask("/openapi.json")
    assert status == 200 and told == document()
    assert {path.rpartition("/")[2] for path in told["paths"]} == set(SERVED)
    assert set(SERVED) == set(OPS) - {"show_carbon", "account", "logins"}
    for op, kind in SERVED.items():
        if kind.role != "read" or op == "carbon":  # no sidecar runs here
            continue
        query = "?stream=event" if op == "replay" else ""
        status, _, answer = program.ask(f"/api/v1/{op}{query}", authorization=f"Bearer {token}")
        assert status == 200, answer
        schema = {"$ref": f"#/components/schemas/{op}.Answer", "components": told["components"]}
        jsonschema.validate(answer, schema)
        broken = {key: 7 for key in answer}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_generators_of_clients_read_the_document():
    """openapi-python-client ended at a schema that is `false`, where openapi-typescript did not."""
    text = json.dumps(document())
    assert '"prefixItems"' in text and '"items": false' not in text


def test_the_document_is_valid_openapi():
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    validator.validate(document())
    with pytest.raises(Exception, match="openapi"):
        validator.validate({"openapi": "3.1.0"} | {"paths": {}})


def test_connections_of_one_address_are_bounded_and_the_silent_go(page):
    """Handshakes that never come, from one address: others of it wait for a place and get one."""
    held = [half_open(page.port) for _ in range(OF_AN_ADDRESS_MAX)]
    try:
        late = half_open(page.port)
        late.settimeout(60)
        assert late.recv(1) == b"", "one more is closed at once"
        late.close()
        eventually(lambda: page.visitor().ask("/")[0] == 200 if not refuses(page) else None, "no place became free")
    finally:
        for one in held:
            one.close()


def refuses(page):
    try:
        page.visitor().ask("/")
        return False
    except OSError:
        return True


def test_history_is_served_and_given_as_csv(page):
    anna = page.visitor("anna")
    said = eventually(
        lambda: (lambda body: body if "site.grid_w" in body["series"] else None)(anna.ask("/history/series")[2])
    )
    now = int(said["now_utc_s"])
    path = f"/history?series=site.grid_w&since={now - 3600}&until={now + 60}"
    slots = eventually(lambda: anna.ask(path)[2]["series"]["site.grid_w"]["slots"])
    assert slots[0][1:] == [12500.0, 12500.0, 12500.0]
    status, headers, text = anna.ask(f"{path}&format=csv")
    assert status == 200 and headers["content-type"].startswith("text/csv")
    lines = text.decode().splitlines()
    assert lines[0] == "utc,slot_s,site.grid_w least,site.grid_w mean,site.grid_w most" and lines[1].endswith(
        "12500,12500,12500"
    )
    for wrong in ("series=no.such", "series=site.grid_w&since=5&until=4", "series=site.grid_w&width=1e9", "series="):
        assert anna.ask(f"/history?{wrong}")[0] == 400, wrong


def test_the_gateway_may_go_and_come_back(page):
    """While nobody answers, the page says so in the API's own words; it does not end."""
    anna = page.visitor("anna")
    page.paused.set()
    status, _, body = anna.ask("/api/v1/health")
    assert status == 200 and body["health"]["core"] is not None
    assert page.process.poll() is None


def test_a_code_is_over_after_its_time_and_after_too_many_tries(tmp_path):
    from tidegate.runtime.web.login_codes import GOOD_S, TRIES_MAX, PairingError, shown

    codes, now = Pairing(tmp_path), time.time()
    code = codes.make("read", now_utc_s=now)
    assert codes.look(shown(code).lower(), now + 1) == ("read", ""), "as a person types it"
    with pytest.raises(PairingError, match="is over"):
        codes.look(code, now + GOOD_S)
    code = codes.make("read", now_utc_s=now)
    for _ in range(TRIES_MAX):
        with pytest.raises(PairingError, match="not the code"):
            codes.look("AAAAAAAAAA", now)
    with pytest.raises(PairingError, match="is over"):
        codes.look(code, now)
    with pytest.raises(PairingError, match="tidegate web pair"):
        codes.look(code, now)
