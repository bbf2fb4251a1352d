"""Who gets in from outside, and what they may do there."""

import socket
import time

import pytest
import zmq

from tidegate.ext.abi import shared
from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.api import curve_keys
from tidegate.runtime.api.blocking_client import Client


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
