"""Three brokers with the files of `tidegate hub cluster`, on loopback addresses: who is let in, and who is not."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
import pytest
from click.testing import CliRunner

from tests.runtime.fleet.conftest import Unit
from tests.runtime.fleet.test_hub import same, until_all_is_there
from tests.tools.fleet_cluster import server_at
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.cli.fleet_commands import hub
from tidegate.runtime.fleet.hub import broker_cluster
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.broker_cluster import (
    Cluster,
    Member,
    broker_from,
    members_in,
    server_warning,
    write_cluster,
)
from tidegate.runtime.fleet.hub.hub_authority import AUTHORITY, AUTHORITY_KEY, PAIR, PAIR_KEY, issue
from tidegate.runtime.fleet.hub.hub_ingest import Ingest
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import HubError, Invitation
from tidegate.runtime.fleet.unit.site_sender import Sender

HOSTS = {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.3"}
BROKERS = [word for name, host in HOSTS.items() for word in ("--broker", f"{name}={host}")]
PATIENCE_S = 120.0


def command(*words, wrong=False):
    done = CliRunner().invoke(hub, [str(word) for word in words])
    assert bool(done.exit_code) == wrong, done.output
    return done.output


def until(condition, what, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


class Running:
    """`tidegate hub broker` over a folder."""

    def __init__(self, folder):
        self.folder = folder
        path = f"{Path(server_at(None)).parent}:{os.environ['PATH']}"
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidegate.runtime.cli", "hub", "broker", "--folder", str(folder)],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PATH": path},
            )  # fmt: skip

    def text(self):
        return "".join(
            (self.folder / name).read_text(errors="replace")
            for name in ("log", "broker.log")
            if (self.folder / name).exists()
        )

    def end(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        self.process.wait(60)


def opens(invitation, host):
    """What a site's login gets at one broker: "" or why not."""

    async def go():
        context = ssl.create_default_context(cadata=invitation.certificate)
        client = await nats.connect(
            f"tls://{host}:{invitation.address.rpartition(':')[2]}", user=invitation.user, password=invitation.word,
            tls=context, allow_reconnect=False, max_reconnect_attempts=0, connect_timeout=20, error_cb=quiet,
        )  # fmt: skip
        await client.close()

    async def quiet(_):
        pass

    try:
        asyncio.run(go())
    except (nats.errors.Error, OSError) as why:
        return f"{type(why).__name__} {why}"
    return ""


@pytest.fixture
def made(tmp_path, broker_folder, shared_url):
    """A hub with a cluster on free ports, and its three brokers' folders. -> hub folder, cluster folder, words."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1], other.getsockname()[1]]
    folder, out = broker_folder / "hub", broker_folder / "cluster"
    command("init", "--folder", folder, "--database", shared_url)
    words = ["cluster", "--folder", folder, "--out", out, "--port", ports[0], "--route-port", ports[1], *BROKERS]
    said = command(*words)
    assert "tidegate hub broker --folder a" in said and "anew" in said
    yield folder, out, words
    shutil.rmtree(out, ignore_errors=True)


def test_a_cluster_lets_in_whom_its_hub_let_in_and_nobody_else(made, tmp_path, shared_url, monkeypatch):
    folder, out, words = made
    running = {name: Running(out / name) for name in HOSTS}
    try:
        cluster = broker_from(folder, json.loads((folder / "hub.json").read_text()))
        assert isinstance(cluster, Cluster) and cluster.replicas == 3
        # ---- a site is invited once the brokers are there, and all of them know it
        unit = Unit(tmp_path, "hall")
        unit.write(blocks=2)
        invite = ["invite", "hall", "--folder", folder, "--key", unit.key.public, "--out", tmp_path / "hall.join"]
        until(lambda: CliRunner().invoke(hub, [str(word) for word in invite]).exit_code == 0, running["a"].text())
        invited = Invitation.read(tmp_path / "hall.join")
        assert invited.address.count("tls://") == 3
        assert invited.certificate == (folder / AUTHORITY).read_text() and "PRIVATE" not in invited.certificate
        for host in HOSTS.values():
            until(lambda host=host: opens(invited, host) == "", f"{host}: {opens(invited, host)}")
        # ---- a broker is lost: entries go on, and a login that ends meanwhile ends there too when it is back
        running["c"].end()
        asyncio.run(carry(cluster, shared_url, unit, invited))
        same(unit, shared_url)
        cluster.put_login("hall", "another word")
        away = subprocess.run([sys.executable, "-c", RELOAD, str(folder)], capture_output=True, text=True, timeout=120)
        assert away.returncode == 0 and "hub: c: has not taken the logins" in away.stderr, away.stderr
        assert "Authorization" in opens(invited, HOSTS["a"]) and "Authorization" in opens(invited, HOSTS["b"])
        running["c"] = Running(out / "c")
        until(lambda: "Authorization" in opens(invited, HOSTS["c"]), "the old login opens at c for ever")
        now = Invitation("hall", invited.address, invited.user, "another word", invited.certificate)
        until(lambda: opens(now, HOSTS["c"]) == "", "the new login does not open at c")
        running["c"].end()

        # ---- a broker with a certificate of another authority gets nowhere, and neither do sites to it
        other = tmp_path / "other"
        write_cluster(other, HOSTS, tmp_path / "foreign")
        for name in (AUTHORITY, PAIR, PAIR_KEY):
            shutil.copy(tmp_path / "foreign" / "c" / name, out / "c" / name)
        before = len(running["a"].text() + running["b"].text())
        running["c"] = Running(out / "c")
        until(lambda: "unknown authority" in (running["a"].text() + running["b"].text())[before:], running["a"].text())
        until(lambda: "CERTIFICATE_VERIFY_FAILED" in opens(now, HOSTS["c"]), opens(now, HOSTS["c"]))
        running["c"].end()

        # ---- one that ended is named with what to do, and one that comes is taken without a new start
        issue(folder, out / "c", [HOSTS["c"]], days=30, now=datetime.now(UTC) - timedelta(days=100))
        running["c"] = Running(out / "c")
        until(lambda: "the certificate ended 70 days ago" in running["c"].text()
              or "the certificate ended 71 days ago" in running["c"].text(), running["c"].text())  # fmt: skip
        assert "tidegate hub cluster, and carry the folder c" in running["c"].text()
        until(lambda: "expired" in opens(now, HOSTS["c"]), opens(now, HOSTS["c"]))
        assert "its certificate is new" in command(*words)
        until(lambda: opens(now, HOSTS["c"]) == "", f"{opens(now, HOSTS['c'])}\n{running['c'].text()[-2000:]}")

        # ---- all brokers there, and nothing finds a place: they are asked to forget, and do
        asyncio.run(nothing_is_kept(cluster, monkeypatch))
        until(lambda: all(list((out / name).glob("broker.damaged-*")) for name in HOSTS), running["a"].text())
        for host in HOSTS.values():
            until(lambda host=host: opens(now, host) == "", f"{host}: {opens(now, host)}")
    finally:
        for one in running.values():
            one.end()


RELOAD = """
import json, sys
from pathlib import Path
from tidegate.runtime.fleet.hub.broker_cluster import broker_from
folder = Path(sys.argv[1])
broker_from(folder, json.loads((folder / "hub.json").read_text())).reload()
"""


async def carry(cluster, url, unit, invited):
    """What a site has, through the cluster into the database."""
    store = HubStore(url)
    ingest, stop = Ingest(store, cluster.replicas), asyncio.Event()
    for _ in range(60):
        try:
            await ingest.open(cluster.address, *cluster.own_login(), cluster.context())
            break
        except (nats.errors.Error, TimeoutError):  # no leader yet
            await ingest.close()
            await asyncio.sleep(0.5)
    running = asyncio.create_task(ingest.run(stop))
    sender = Sender(unit.path, invited, report=lambda _: None)
    await sender.open()
    await until_all_is_there(sender, tries=300)
    await sender.close()
    stop.set()
    await running
    await ingest.close()
    store.close()


async def nothing_is_kept(cluster, monkeypatch):
    """As after a power cut from which brokers came back with parts of their memory."""

    async def refused(*_):
        raise HubError("no suitable peers for placement")

    monkeypatch.setattr(broker_cluster, "STUCK_S", -1.0)
    monkeypatch.setattr(cluster, "_keep_message", refused)
    monkeypatch.setattr(broker_cluster, "_kept_number", lambda _: nothing())
    stop = asyncio.Event()
    keeping = asyncio.create_task(cluster.keep(stop))
    await asyncio.sleep(4 * broker_cluster.LOOK_S)
    stop.set()
    await keeping


async def nothing():
    return -1


def test_a_single_hub_checks_its_own_broker_by_the_certificate_that_it_was_given(broker_folder, port, shared_url, unit):
    """Its own authority, which no system knows: the hub and the site still find each other."""
    issue(broker_folder, broker_folder, ["127.0.0.1"])
    whole = broker_folder / "whole.pem"
    whole.write_bytes((broker_folder / PAIR).read_bytes() + (broker_folder / AUTHORITY).read_bytes())
    broker = Broker(broker_folder, port=port, tls=(whole, broker_folder / PAIR_KEY))
    broker.start()
    one = unit("hall")
    one.write()
    store = HubStore(shared_url)
    store.enrol(one.site, one.key.public)
    store.close()
    try:
        asyncio.run(carry(broker, shared_url, one, broker.invite(one.site)))
    finally:
        broker.stop()
    assert list(Ledger(shared_url, "hall", read_only=True).raw_rows(0)) == one.rows()


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("a=1.1.1.1", "b=1.1.1.2"), "2 brokers: a cluster has 3, or 5"),
        (("a=1.1.1.1", "b=1.1.1.2", "c=1.1.1.2"), "c=1.1.1.2: expected NAME=HOST, each name and host once"),
        (("a=1.1.1.1", "a=1.1.1.2", "c=1.1.1.3"), "a=1.1.1.2: expected"),
        (("a", "b=1.1.1.2", "c=1.1.1.3"), "--broker a: expected"),
        (("../x=1.1.1.1", "b=1.1.1.2", "c=1.1.1.3"), r"--broker \.\./x=1"),
    ],
)
def test_brokers_that_make_no_cluster_are_named(words, wrong):
    with pytest.raises(HubError, match=wrong):
        members_in(words)


def test_without_a_hub_there_is_no_cluster_and_without_its_folder_no_broker(tmp_path):
    out = ["--out", tmp_path / "out"]
    assert "tidegate hub init" in command("cluster", "--folder", tmp_path / "none", *out, *BROKERS, wrong=True)
    assert not (tmp_path / "out").exists()
    assert "`tidegate hub cluster` on the hub makes it" in command("broker", "--folder", tmp_path / "none", wrong=True)
    write_cluster(tmp_path, HOSTS, tmp_path / "out")
    (tmp_path / "out" / "b" / PAIR_KEY).unlink()
    with pytest.raises(HubError, match=r"broker-key\.pem missing; carry the whole folder"):
        Member(tmp_path / "out" / "b")
    (tmp_path / "out" / "c" / "member.json").write_text('{"name": "x", "members": {}, "port": 1, "route_port": 2}')
    with pytest.raises(HubError, match=r"member\.json: .*carry the folder"):
        Member(tmp_path / "out" / "c")
    (tmp_path / AUTHORITY_KEY).unlink()
    with pytest.raises(HubError, match="without it nothing can be signed"):
        write_cluster(tmp_path, HOSTS, tmp_path / "again")


def message(number, logins):
    return zlib.compress(json.dumps({"number": number, "logins": logins, "claims": {}}).encode())


def test_a_broker_takes_newer_logins_only(tmp_path):
    write_cluster(tmp_path, HOSTS, tmp_path / "out")
    member = Member(tmp_path / "out" / "a")
    assert member.take(message(3, {"hall": "new"})) and member.logins() == {"hall": "new"}
    assert not member.take(message(2, {"hall": "old"})) and not member.take(message(3, {"hall": "same number"}))
    assert Member(tmp_path / "out" / "a").logins() == {"hall": "new"}  # and after a start anew
    for data in (b"none", zlib.compress(b"[1]"), zlib.compress(b'{"number": "x", "logins": {}, "claims": {}}')):
        with pytest.raises(HubError, match="cannot be read"):
            member.take(data)
    users = member._configuration()["authorization"]["users"]
    assert [row["password"] for row in users][1:] == ["new"] and users[0]["user"] == "hub"
    for name in ("broker-key.pem", "hub-word", "member.json"):
        assert (tmp_path / "out" / "a" / name).stat().st_mode & 0o077 == 0


def test_the_hubs_logins_do_not_open_where_no_broker_is(tmp_path):
    """Nobody is there: it is an error, with what to do; nothing was written as if it held."""
    write_cluster(tmp_path, HOSTS, tmp_path / "out")
    cluster = Cluster(tmp_path, {name: "127.0.0.9" for name in HOSTS}, 9)
    with pytest.raises(HubError, match="does `tidegate hub broker` run on these machines"):
        cluster.invite("hall")


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("nats-server: v2.9.10", "have lost whole streams"),
        ("nats-server: v2.10.22", "have lost whole streams"),
        ("nats-server: v2.10.23", ""),
        ("nats-server: v2.14.0", ""),
        ("", "wants 2.10.23 or newer"),
    ],
)
def test_a_server_that_is_too_old_for_a_cluster_is_named(version, word):
    found = server_warning(version)
    assert word in found if word else found == ""


PANICS = """#!{python}
import json, os, socket, sys, time
made = json.load(open(sys.argv[2]))
store = made["jetstream"]["store_dir"]
if os.path.exists(store):
    sys.exit("panic: runtime error: slice bounds out of range\\n(*Server).enableJetStream(0x2e46)\\nmain.main()")
host, port = made["listen"].split(":")
with socket.create_server((host, int(port))) as there:
    time.sleep(600)
"""


def test_a_broker_that_breaks_down_over_its_store_starts_without_it(broker_folder, port, monkeypatch, capfd):
    """nats-server 2.14.0 did over a cut snapshot: no word of its own, a trace."""
    program = broker_folder / "bin" / "nats-server"
    program.parent.mkdir()
    program.write_text(PANICS.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (broker_folder / "broker").mkdir()
    broker = Broker(broker_folder, port=port)
    broker.start()
    assert broker.alive()
    broker.stop()
    assert len(list(broker_folder.glob("broker.damaged-*"))) == 1 and "from their marks" in capfd.readouterr().err
