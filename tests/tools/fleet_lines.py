"""NATS as this hub uses it beside MQTT with persistent sessions, into the same checks and tables, with the same kills.

python tests/tools/fleet_lines.py --sites 20 --blocks 12 --kills 12

An MQTT site goes on once the broker has acknowledged (QoS 1), as a user of it would; the ingest keeps its session over
its restarts and acknowledges after PostgreSQL's commit. mosquitto writes its store on the way that is named in each
row. Prints a JSON line for each.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.runtime.carbon.ledger.conftest import new_database
from tests.runtime.fleet.conftest import Unit
from tests.runtime.fleet.test_hub import Hub
from tests.tools.fleet_long import Postgres, free_port
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.ledger_batch import Batch, Row, pack, unpack
from tidegate.runtime.fleet.unit.site_sender import Sender

QUIET_S = 8.0


def block_batches(unit):
    """One batch a block, so that both lines carry the same number of messages."""
    rows, found = [], []
    for row in (Row(*one) for one in unit.rows()):
        rows.append(row)
        if row.kind == "block":
            found.append(Batch(unit.site, rows))
            rows = []
    return found


def lost(url, units):
    """(entries of the sites that are not at the hub, entries there are, entries twice there)."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        held = dict(connection.execute("SELECT site, count(*) FROM entries GROUP BY site").fetchall())
        (twice,) = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM entries GROUP BY site, seq HAVING count(*) > 1) x"
        ).fetchone()
    total = sum(len(one.rows()) for one in units)
    return total - sum(held.values()), total, twice


class Mosquitto:
    def __init__(self, folder, more):
        self.folder, self.port, self.process = Path(folder), free_port(), None
        (self.folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {self.folder}/\nmax_queued_messages 100000\nuser root\n{more}\n"
        )

    def start(self):
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise SystemExit("mosquitto does not come up")

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class MqttIngest:
    """The subscriber: its session outlives it; a message is acknowledged after the commit."""

    def __init__(self, port, url):
        self.store, self.port = HubStore(url), port
        self.refused = 0
        self.start()

    def start(self):
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="ingest", clean_session=False)
        self.client.on_message = self._taken
        self.client.on_connect = lambda client, *_: client.subscribe("ledger/+", qos=1)
        self.client.reconnect_delay_set(1, 2)
        self.client.connect_async("127.0.0.1", self.port)
        self.client.loop_start()

    def _taken(self, _client, _data, message):
        batch = unpack(message.payload)
        _, finding = self.store.take(batch.site, batch.rows, message.payload)
        self.refused += finding is not None

    def kill(self):
        with contextlib.suppress(OSError, AttributeError):
            self.client._sock.close()
        self.client.loop_stop()


def mqtt_site(port, unit, done, busy):
    """Publishes each batch once and goes on when the broker has acknowledged it."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=unit.site, clean_session=False)
    client.reconnect_delay_set(1, 2)
    acknowledged = set()
    client.on_publish = lambda _client, _data, mid, *_: acknowledged.add(mid)
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    for batch in block_batches(unit):
        mid = client.publish(f"ledger/{unit.site}", pack(batch), qos=1).mid  # without a line it waits in the client
        while mid not in acknowledged:
            time.sleep(0.005)
        time.sleep(busy)
    client.disconnect()
    client.loop_stop()
    done.add(unit.site)


def run_mqtt(given, units, url, name, more):
    with tempfile.TemporaryDirectory(prefix="tidegate-mqtt-") as folder:
        broker = Mosquitto(folder, more)
        broker.start()
        ingest = MqttIngest(broker.port, url)
        while not ingest.client.is_connected():
            time.sleep(0.05)
        time.sleep(1)  # its subscription is there before anything is sent
        rng, done = random.Random(given.seed), set()
        began = time.monotonic()
        threads = [threading.Thread(target=mqtt_site, args=(broker.port, one, done, given.busy_s)) for one in units]
        for thread in threads:
            thread.start()
        kills = 0
        while any(thread.is_alive() for thread in threads) or kills < given.kills:
            time.sleep(rng.uniform(0.1, 0.6))
            if kills < given.kills:
                kills += 1
                if kills % 2:
                    broker.kill()
                    broker.start()
                else:
                    ingest.kill()
                    ingest.start()
        settled, at = -1, time.monotonic()
        while time.monotonic() - at < QUIET_S:  # what is still on its way
            now = lost(url, units)[0]
            if now != settled:
                settled, at = now, time.monotonic()
            time.sleep(0.3)
        seconds = time.monotonic() - began - QUIET_S
        ingest.kill()
        ingest.store.close()
        broker.stop()
    return report(name, given, url, units, seconds, ingest.refused)


def run_nats(given, units, url):
    with tempfile.TemporaryDirectory(prefix="tidegate-nats-") as folder:
        hub = Hub(Path(folder), free_port(), url)
        hub.broker.start()
        rng = random.Random(given.seed)

        async def go():
            await hub.start_ingest()
            began = time.monotonic()

            async def one(unit):
                sender = Sender(unit.path, hub.broker.invite(unit.site), report=lambda _: None, stuck_s=5)
                await sender.open()
                while not await sender.step():
                    await asyncio.sleep(0.2)
                await sender.close()

            tasks = [asyncio.create_task(one(unit)) for unit in units]
            kills = 0
            while not all(task.done() for task in tasks) or kills < given.kills:
                await asyncio.sleep(rng.uniform(0.1, 0.6))
                if kills < given.kills:
                    kills += 1
                    if kills % 2:
                        hub.broker._process.kill()
                        hub.broker.stop()
                        await asyncio.to_thread(hub.broker.start)
                    else:
                        await hub.kill_ingest()
                        await hub.start_ingest()
            await asyncio.gather(*tasks)
            seconds = time.monotonic() - began
            await hub.kill_ingest()
            return seconds

        seconds = asyncio.run(go())
        hub.broker.stop()
    return report("NATS, marks", given, url, units, seconds, 0)


def report(name, given, url, units, seconds, refused):
    missing, total, twice = lost(url, units)
    return {"line": name, "kills": given.kills, "entries": total, "lost": missing, "doubled": twice,
            "batches_refused": refused, "seconds": round(seconds, 1), "entries_s": round((total - missing) / seconds),
            "load": round(os.getloadavg()[0])}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--busy-s", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines = [
        ("MQTT, persistence on", ""),
        ("MQTT, saved at each change", "autosave_interval 1\nautosave_on_changes true"),
    ]
    pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-")
    postgres = Postgres(pg_folder, fsync=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            units = [Unit(Path(folder), f"site-{number}") for number in range(given.sites)]
            for unit in units:
                unit.write(24, blocks=given.blocks)
            for name, more in [*lines, ("", "")]:
                url = new_database(postgres.url)
                store = HubStore(url)
                for unit in units:
                    store.enrol(unit.site, unit.key.public)
                store.close()
                found = run_mqtt(given, units, url, name, more) if name else run_nats(given, units, url)
                if not name and (found["lost"] or found["doubled"]):
                    raise SystemExit(f"NATS lost or doubled: {found}")
                print(json.dumps(found), flush=True)
            assert Ledger(units[0].path, read_only=True).head[0] > 0
    finally:
        postgres.stop()
        shutil.rmtree(pg_folder, ignore_errors=True)


if __name__ == "__main__":
    main()
