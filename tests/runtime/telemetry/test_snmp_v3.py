"""SNMP v3 against net-snmp's snmpd and the vectors of RFC 3414; what a false answer does."""

import asyncio
import contextlib
import random
import socket
import time

import pytest
from pydantic import ValidationError

from tests.runtime.telemetry.agents import apc, snmpd
from tidegate.config.telemetry_sources import Telemetry
from tidegate.runtime.telemetry.pdu_models import MODELS
from tidegate.runtime.telemetry.poller import HostState, SourceError, source_of
from tidegate.runtime.telemetry.snmp_codec import SnmpError, bindings_of
from tidegate.runtime.telemetry.snmp_source import SecureUser, SnmpPdu, SnmpSocket
from tidegate.runtime.telemetry.snmp_usm import UsmAgent, UsmUser, password_key

ENGINE = bytes(11) + b"\x02"
USERS = [("plain", "SHA", "authenticate1", ""), ("monitor", "SHA-256", "authenticate2", "encrypt-it-2"),
         ("strong", "SHA-512", "authenticate3", "encrypt-it-3")]  # fmt: skip
OBJECT = bindings_of([(1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 4, 3, 1, 5, 1)])


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    with snmpd(tmp_path_factory.mktemp("snmpd"), apc(outlets=42), users=USERS) as host:
        yield host


async def heard(host, user, before=lambda speaker: None):
    wire = SnmpSocket()
    await wire.open()
    try:
        speaker = SecureUser(user)
        pdu = SnmpPdu(wire, host, MODELS["apc-rpdu2"], speaker, "A01")
        first = await pdu.hear()
        before(speaker)
        return first, await pdu.hear()
    finally:
        wire.close()


def heard_of(host, user, before=lambda speaker: None):
    until = time.monotonic() + 60
    while True:
        try:
            return asyncio.run(heard(host, user, before))
        except TimeoutError:
            if time.monotonic() > until:
                raise


def user_of(row):
    return UsmUser(row[0], {"SHA": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}[row[1]], row[2], row[3])


def test_keys_are_those_of_the_rfc():
    """RFC 3414, A.3.2 (SHA), and its first step for SHA-256 beside an addition of our own."""
    assert password_key(b"maplesyrup", "sha1", ENGINE).hex() == "6695febc9288e36282235fc7151f128497b38f3f"
    assert len(password_key(b"maplesyrup", "sha256", ENGINE)) == 32


@pytest.mark.parametrize("row", USERS, ids=lambda row: row[0])
def test_a_pdu_is_read_with_each_hash_in_plain_and_encrypted(agent, row):
    for one in heard_of(agent, user_of(row)):
        assert [sample.watts for sample in one.samples] == [10_500.0] and not one.problems


def test_what_is_wrong_of_user_and_passwords_is_named(agent):
    heard_of(agent, user_of(USERS[1]))
    for user, words in (
        (UsmUser("nobody", "sha256", "authenticate2", "encrypt-it-2"), "does not know this user"),
        (UsmUser("monitor", "sha256", "another-pass", "encrypt-it-2"), "password or the hash"),
        (UsmUser("monitor", "sha1", "authenticate2", "encrypt-it-2"), "password or the hash"),
        (UsmUser("plain", "sha1", "authenticate1", "encrypt-it-2"), "this kind of authentication"),
    ):
        with pytest.raises(SnmpError, match=words):
            asyncio.run(heard(agent, user))
    # A wrong password of AES decrypts to noise: net-snmp says nothing, or that it cannot.
    with pytest.raises((SnmpError, TimeoutError)):
        asyncio.run(heard(agent, UsmUser("monitor", "sha256", "authenticate2", "another-pass")))


def test_an_agent_that_restarted_is_asked_again_at_once(agent):
    def set_back(speaker):
        speaker._agent._boots -= 1

    assert heard_of(agent, user_of(USERS[1]), set_back)[1].samples


def test_no_changed_answer_is_believed_and_nothing_but_a_refusal_comes_of_any(agent):
    host, port = agent.split(":")
    heard_of(agent, user_of(USERS[1]))
    speaker = UsmAgent(user_of(USERS[1]))
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(30)
        one.connect((host, int(port)))

        def ask(data):
            one.send(data)
            return one.recv(65_507)

        speaker.discovered(ask(speaker.discovery(1)))
        good = ask(speaker.request(2, OBJECT))
    assert speaker.answer(good)[1][0][1] == 1050
    rng = random.Random(3)
    for turn in range(4_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if bytes(data) == good:
            continue
        with pytest.raises(SnmpError):
            speaker.answer(bytes(data[: rng.randint(0, len(data))] if turn % 4 == 0 else data))
            raise AssertionError(f"believed: {data.hex()}")
        with contextlib.suppress(SnmpError):
            UsmAgent(user_of(USERS[1])).discovered(bytes(data))


def test_an_old_answer_is_not_believed(agent):
    now = [1000.0]
    host, port = agent.split(":")
    speaker = UsmAgent(user_of(USERS[1]), lambda: now[0])
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(30)
        one.connect((host, int(port)))
        one.send(speaker.discovery(1))
        speaker.discovered(one.recv(65_507))
        one.send(speaker.request(2, OBJECT))
        good = one.recv(65_507)
    assert speaker.answer(good)
    now[0] += 151.5
    with pytest.raises(SnmpError, match="from before"):
        speaker.answer(good)


def test_a_dead_agent_costs_its_own_time_and_a_live_one_is_heard(agent, tmp_path):
    with socket.socket(type=socket.SOCK_DGRAM) as dead:
        dead.bind(("127.0.0.1", 0))
        (tmp_path / "auth").write_text("authenticate2\n")
        (tmp_path / "priv").write_text("encrypt-it-2\n")
        wanted = Telemetry(name="pdus", kind="snmp", model="apc-rpdu2", user="monitor", password_file="auth",
                           privacy_file="priv", hosts=(f"127.0.0.1:{dead.getsockname()[1]}", agent))  # fmt: skip

        async def run():
            wire = SnmpSocket()
            source = source_of(wanted, tmp_path, wire)
            await wire.open()
            silent, live = source.states
            slow = asyncio.create_task(source.ask(silent))
            while live.trouble:
                await source.ask(live)
            done_first = not slow.done()
            await slow
            wire.close()
            return done_first, silent, live

        heard_of(agent, user_of(USERS[1]))
        done_first, silent, live = asyncio.run(run())
    assert isinstance(silent, HostState) and silent.failures == 1 and "no answer" in silent.trouble
    assert done_first and not live.trouble


BASE = {"name": "pdus", "kind": "snmp", "model": "apc-rpdu2", "hosts": ["h"]}


@pytest.mark.parametrize(("more", "words"), [
    ({"user": "m"}, "user and password_file belong together"),
    ({"user": "m", "password_file": "f", "community_file": "c"}, "community_file is not for snmp v3"),
    ({"privacy_file": "f"}, "privacy_file is not for snmp"), ({"auth": "sha1"}, "auth is for snmp with a user"),
    ({"user": "m", "password_file": "f", "auth": "md5"}, "auth"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(more, words):
    with pytest.raises(ValidationError, match=words):
        Telemetry(**{**BASE, "hosts": ("h",), **more})


def test_a_password_that_snmp_does_not_allow_is_refused_by_name(tmp_path):
    (tmp_path / "short").write_text("seven77\n")
    with pytest.raises(SourceError, match="password_file short: shorter than 8"):
        source_of(Telemetry(**{**BASE, "hosts": ("h",), "user": "m", "password_file": "short"}), tmp_path, SnmpSocket())
