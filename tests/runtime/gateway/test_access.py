"""Who gets in from outside, and what they may do there."""

import contextlib
import socket
import subprocess
import sys
import time

import pytest
import zmq

from tidegate.ext.abi import shared
from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.api import curve_keys, messages
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.gateway.sockets import SAID


def free_port() -> int:
    """A port with a free one above it."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
def remote(core, start_gateway, tmp_path):
    """(gateway over TCP with CURVE, its endpoint, its key folder)."""
    core.values["site.mode"] = (3.0, 1)
    core.step()
    core.beat()
    folder = curve_keys.folder_of(tmp_path / "state")
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    return start_gateway(endpoint=endpoint), endpoint, folder


def key_of(folder, tmp_path, name, role):
    return curve_keys.client_keys(curve_keys.make(folder, name, role, tmp_path / f"{name}.key"))


def eventually(ask, seconds=10.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return ask()
        except clients.ClientError:
            time.sleep(0.05)
    return ask()


def test_a_granted_key_gets_in_and_reads(remote, tmp_path):
    _, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "scada", "read")
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        assert eventually(lambda: site.get("site.mode")) == {"site.mode": (3.0, 1)}


def test_a_granted_key_hears_the_stream(remote, core, tmp_path):
    _, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "scada", "read")
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        eventually(lambda: site.get("site.mode"))
        heard = site.subscribe("meter")
        until = time.monotonic() + 10
        got = None
        while got is None and time.monotonic() < until:
            core.meter()
            got = heard.receive(0.1)
        assert got is not None and got["kind"] == "meter"


@pytest.mark.parametrize("who", ["no key", "unknown key", "wrong server key"])
def test_nobody_else_gets_in(remote, tmp_path, who):
    gateway, endpoint, folder = remote
    public, secret, server = key_of(folder, tmp_path, "good", "maintain")
    stranger = tuple(key.decode() for key in zmq.curve_keypair())
    given = {"no key": None, "unknown key": (*stranger, server), "wrong server key": (public, secret, stranger[0])}[who]
    with Client(endpoint, keys=(public, secret, server), timeout_s=1) as site:
        eventually(site.health)
    before = gateway.gateway.server.counts["requests"]
    with Client(endpoint, keys=given, timeout_s=0.7) as site, pytest.raises(clients.NoAnswer):
        site.health()
    assert gateway.gateway.server.counts["requests"] == before


def test_the_role_read_cannot_command_and_is_locked_for_trying(remote, core, tmp_path):
    _, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "viewer", "read")
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        eventually(site.health)
        codes = []
        for _ in range(11):
            with pytest.raises(clients.ClientError) as refused:
                site.stop()
            codes.append(refused.value.code)
        assert codes == ["not-allowed"] * 10 + ["locked"]
        with pytest.raises(clients.ClientError) as refused:
            site.health()
        assert refused.value.code == "locked"
    assert core.memory.order(0).value == 0.0


def test_the_role_operate_takes_a_lease_but_acknowledges_nothing(remote, tmp_path):
    _, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "ems", "operate")
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        eventually(site.health)
        with site.lease() as lease:
            assert lease.setpoint(0.0, 1)["status"] == "applied"
        for ask in (site.ack, lambda: site.ask("lease", action="acquire", priority="maintenance")):
            with pytest.raises(clients.ClientError) as refused:
                ask()
            assert refused.value.code == "not-allowed"


def test_a_policy_is_tighter_at_once_for_operate_and_wider_only_for_maintain(remote, core, tmp_path):
    _, endpoint, folder = remote
    kind = shared.ORDER_POLICY_FIRST + shared.POLICY_NAMES_BY_NUMBER.index("peak_w_max")
    ems, hand = key_of(folder, tmp_path, "ems", "operate"), key_of(folder, tmp_path, "hand", "maintain")
    with Client(endpoint, keys=ems, timeout_s=5) as site:
        eventually(site.health)
        assert site.policy("peak_w_max", 30e3, for_s=600)["status"] == "applied"
        assert core.memory.order(kind).value == 30e3
        for wider in ({"value": 40e3}, {"value": None}, {"off": True}):
            with pytest.raises(clients.ClientError) as refused:
                site.policy("peak_w_max", **wider)
            assert refused.value.code == "not-allowed"
        assert core.memory.order(kind).value == 30e3
    with Client(endpoint, keys=hand, timeout_s=5) as site:
        eventually(site.health)
        assert site.policy("peak_w_max", 40e3, for_s=600)["status"] == "applied"
        assert core.memory.order(kind).value == 40e3


def test_a_revoked_key_is_cut_within_five_seconds_and_the_others_stay(remote, tmp_path):
    _, endpoint, folder = remote
    one = key_of(folder, tmp_path, "one", "read")
    two = key_of(folder, tmp_path, "two", "read")
    with Client(endpoint, keys=one, timeout_s=1) as first, Client(endpoint, keys=two, timeout_s=1) as second:
        eventually(first.health)
        eventually(second.health)
        heard = first.subscribe("head")
        assert heard.receive(5.0) is not None
        curve_keys.revoke(folder, "one")
        time.sleep(5.0)
        while heard.receive(0.0) is not None:
            pass
        assert heard.receive(2.5) is None, "a revoked key still hears the stream"
        with pytest.raises(clients.NoAnswer):
            first.health()
        assert eventually(second.health)["core"]["running"]


def test_a_priority_above_pre_empts_and_an_equal_one_does_not(remote, core, tmp_path):
    _, endpoint, folder = remote
    peers = {name: key_of(folder, tmp_path, name, "maintain") for name in ("a", "b")}
    with Client(endpoint, keys=peers["a"], timeout_s=1) as a, Client(endpoint, keys=peers["b"], timeout_s=1) as b:
        eventually(a.health)
        eventually(b.health)
        lease = a.ask("lease", action="acquire", priority="ems", period_ms=3000)["lease"]
        a.ask("setpoint", lease=lease, seq=0, setpoint_w=500.0, for_ms=60_000)
        with pytest.raises(clients.ClientError) as refused:
            b.ask("lease", action="acquire", priority="ems")
        assert refused.value.code == "lease-held" and refused.value.answer["holder"] == "key:a"
        b.ask("lease", action="acquire", priority="maintenance")
        assert core.memory.order(1).expires_t_ns == 0
        with pytest.raises(clients.ClientError) as refused:
            a.ask("setpoint", lease=lease, seq=1, setpoint_w=500.0, for_ms=60_000)
        assert refused.value.code == "no-lease"


def test_a_table_of_roles_that_is_not_understood_lets_nobody_in(remote, tmp_path):
    gateway, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "good", "read")
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        eventually(site.health)
        (folder / "roles.toml").write_text("[[key]]\nname = 'good'\n")
        time.sleep(2.5)
        with pytest.raises(clients.NoAnswer):
            site.health()
    assert "key[0]" in gateway.gateway.transports.roles.problem


def test_without_curve_only_loopback_is_served(core, start_gateway):
    core.step()
    with pytest.raises(OSError, match="loopback"):
        start_gateway(endpoint="tcp://0.0.0.0:5999", plain_loopback=True)


def test_plain_loopback_is_served_when_the_site_says_so(core, start_gateway):
    core.step()
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    start_gateway(endpoint=endpoint, plain_loopback=True, local_role="read")
    with Client(endpoint, timeout_s=2) as site:
        assert site.health()["core"]["running"]
        with pytest.raises(clients.ClientError) as refused:
            site.stop()
    assert refused.value.code == "not-allowed"


def test_the_server_key_is_made_once_and_kept_from_others(tmp_path):
    folder = curve_keys.folder_of(tmp_path)
    first = curve_keys.server_keys(folder)
    assert curve_keys.server_keys(folder) == first
    assert (folder / "server.key").stat().st_mode & 0o077 == 0
    assert curve_keys.server_keys(curve_keys.folder_of(tmp_path / "other")) != first
    (folder / "server.key").chmod(0o644)
    with pytest.raises(curve_keys.KeyProblem, match="chmod 600"):
        curve_keys.server_keys(folder)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense = ",
        "x = 1",
        "[[key]]\nname = 'a'\nrole = 'read'\n",
        "[[key]]\nname = 'a'\nrole = 'root'\npublic = '" + "a" * 40 + "'\n",
        "[[key]]\nname = 'a'\nrole = 'read'\npublic = 'short'\n",
        "[[key]]\nname = '../a'\nrole = 'read'\npublic = '" + "a" * 40 + "'\n",
        ("[[key]]\nname = 'a'\nrole = 'read'\npublic = '" + "a" * 40 + "'\n") * 2,
    ],
)
def test_a_bad_table_of_roles_is_refused_by_place(tmp_path, text):
    path = tmp_path / "roles.toml"
    path.write_text(text)
    path.chmod(0o640)
    with pytest.raises(curve_keys.KeyProblem, match=r"roles\.toml"):
        curve_keys.read_roles(path)


HOARD = """
import sys, time, zmq
public, secret, server, stream, size = sys.argv[1:]
hoard = zmq.Context().socket(zmq.SUB)
hoard.setsockopt(zmq.SNDHWM, 0)
hoard.curve_publickey, hoard.curve_secretkey, hoard.curve_serverkey = public.encode(), secret.encode(), server.encode()
hoard.connect(stream)
for number in range(20_000):
    hoard.setsockopt(zmq.SUBSCRIBE, b"%d" % number + b"x" * int(size))
time.sleep(60)
"""


@pytest.mark.parametrize("size", [10, 400, 4000])
def test_a_key_that_hoards_subscriptions_is_cut_and_costs_no_memory(remote, core, tmp_path, size):
    gateway, endpoint, folder = remote
    keys = key_of(folder, tmp_path, "hoarder", "read")
    honest = key_of(folder, tmp_path, "honest", "read")
    time.sleep(1.2)
    with Client(endpoint, keys=honest, timeout_s=3) as site:
        site.health()
        before_kib = gateway.gateway._health()["gateway"]["rss_max_kib"]
        words = [sys.executable, "-c", HOARD, *keys, clients.Endpoint.of(endpoint).stream, str(size)]
        with subprocess.Popen(words) as hoarder:
            try:
                zap = gateway.remote.zap
                until = time.monotonic() + 20
                while "hoarder" not in zap.banned and size < 1000 and time.monotonic() < until:
                    time.sleep(0.05)
                time.sleep(1.0)
                assert ("hoarder" in zap.banned) == (size < 1000), "what is longer than any topic does not even arrive"
                assert "honest" not in zap.banned
                heard = site.subscribe("snapshot")
                until = time.monotonic() + 10
                got = None
                while got is None and time.monotonic() < until:
                    core.snapshot()
                    got = heard.receive(0.2)
                assert got is not None, "the honest key comes back"
                assert eventually(site.health)["core"]["running"]
            finally:
                hoarder.kill()
        assert gateway.gateway._health()["gateway"]["rss_max_kib"] - before_kib < 64_000


def test_on_the_box_a_hoarder_is_cut_too(core, gateway):
    with zmq.Context() as context, context.socket(zmq.SUB) as hoard, gateway.client() as site:
        hoard.setsockopt(zmq.LINGER, 0)
        hoard.connect(f"{gateway.endpoint}/stream")
        for number in range(200):
            hoard.setsockopt(zmq.SUBSCRIBE, b"nothing %d" % number)
        before = gateway.gateway.transports.local
        until = time.monotonic() + 10
        while gateway.gateway.transports.local is before and time.monotonic() < until:
            time.sleep(0.05)
        assert gateway.gateway.transports.local is not before
        hoard.close(0)
        assert eventually(site.health)["core"]["running"]


def half_open(endpoint, count):
    """Connections that say nothing."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    held = []
    for _ in range(count):
        one = socket.socket()
        one.settimeout(5.0)
        with contextlib.suppress(OSError):
            one.connect((host, int(port)))
        held.append(one)
    return held


def test_half_open_connections_reach_neither_the_gateway_nor_libzmq_and_a_key_still_gets_in(remote, tmp_path):
    gateway, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "scada", "operate")
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        eventually(site.health)
    front = gateway.remote.front
    held = half_open(endpoint, 1024)
    try:
        assert front.connections <= front.per_peer_max, "one address never holds more than its share"
        with Client(endpoint, keys=mine, timeout_s=1) as site, gateway.client() as local:
            assert eventually(site.health)["core"]["running"], "who speaks takes the place of who is silent"
            assert local.stop()["status"] == "applied"
        assert front.connections <= front.per_peer_max
    finally:
        for one in held:
            one.close()


def test_an_address_that_is_not_the_flood_s_has_its_own_places(remote):
    gateway, _, _ = remote
    front = gateway.remote.front
    front._peers["10.0.0.1"] = front.in_all_max  # as many speak as may
    assert not front._room("10.0.0.2") and not front._room("10.0.0.1")
    front._peers["10.0.0.1"] = front.per_peer_max
    assert front._room("10.0.0.2") and not front._room("10.0.0.1")
    del front._peers["10.0.0.1"]


def test_nobody_but_our_own_user_speaks_at_the_door(remote):
    gateway, _, _ = remote
    assert (gateway.runtime / "door").stat().st_mode & 0o077 == 0
    trusted = gateway.gateway.transports.trusted
    frame = zmq.Frame(b"x")
    assert not trusted(frame), "a frame of which the kernel says nothing is nobody's"


LONG, CONTROL = messages.encode({"problem": "x" * 300}), messages.encode({"detail": "\x1b[2J"})


@pytest.mark.parametrize(
    "said",
    [b"", b"\xc1", b"nonsense", LONG, CONTROL, b"\x93" * 60],
    ids=["nothing", "no type", "bytes", "long", "control", "deep"],
)
def test_whatever_comes_through_the_door_this_machine_is_served(remote, said):
    gateway, _, _ = remote
    before = gateway.gateway.server.counts["malformed"]
    with zmq.Context() as context, context.socket(zmq.DEALER) as other:
        other.linger = 0
        other.connect(f"ipc://{gateway.runtime}/door")
        other.send_multipart([SAID, said])
        until = time.monotonic() + 20
        while gateway.gateway.server.counts["malformed"] == before and time.monotonic() < until:
            time.sleep(0.02)
    assert gateway.gateway.server.counts["malformed"] > before
    with gateway.client() as site:
        assert site.stop()["status"] == "applied"


def test_ports_whose_thread_has_ended_are_opened_anew_and_told(remote, tmp_path):
    gateway, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "scada", "read")
    front = gateway.remote.front

    def fail(now_ns):
        raise OSError(28, "no room for another watch")

    front._sweep = fail
    until = time.monotonic() + 20
    while gateway.remote.front is front and time.monotonic() < until:
        time.sleep(0.02)
    assert "no room" in gateway.remote.problem and gateway.remote.front is not front
    with Client(endpoint, keys=mine, timeout_s=1) as site:
        assert eventually(site.health, 20.0)["core"]["running"]
    assert gateway.remote.problem == ""


def test_a_gateway_says_when_the_process_for_other_machines_is_silent(remote):
    gateway, _, _ = remote
    transports = gateway.gateway.transports
    gateway.remote.stopping = True
    gateway.remote_thread.join(10)
    transports._heard_ns -= 20 * 10**9
    until = time.monotonic() + 20
    while "silent" not in transports.problem and time.monotonic() < until:
        time.sleep(0.05)
    assert "silent" in transports.problem


def test_a_socket_whose_file_somebody_took_away_is_opened_anew(remote, tmp_path):
    gateway, endpoint, folder = remote
    mine = key_of(folder, tmp_path, "scada", "read")
    for name in ("api", "stream", "door"):
        (gateway.runtime / name).unlink()
    until = time.monotonic() + 20
    while not all((gateway.runtime / name).exists() for name in ("api", "stream", "door")) and time.monotonic() < until:
        time.sleep(0.05)
    with gateway.client(timeout_s=5) as site, Client(endpoint, keys=mine, timeout_s=1) as far:
        assert site.health()["core"]["running"]
        assert eventually(far.health, 20.0)["core"]["running"], "the door is found again too"


def test_keys_elsewhere_need_no_right_to_write_into_the_state_folder(tmp_path, monkeypatch):
    """Landlock leaves gateway and remote none: a site whose keys lay elsewhere served no other machine."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    assert curve_keys.one_store(state, str(elsewhere)) == elsewhere  # as the supervisor does it, before they start
    key_of(elsewhere, tmp_path, "scada", "read")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    for name in ("symlink", "unlink", "mkdir", "rename"):
        monkeypatch.setattr(f"os.{name}", refuse)
    with pytest.raises(PermissionError):
        curve_keys.one_store(state, str(tmp_path / "another"))
    assert curve_keys.one_store(state, str(elsewhere)) == elsewhere
    assert curve_keys.named(elsewhere) == {"scada"}
