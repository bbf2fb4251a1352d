"""A fleet at its real size on one machine: signed ledgers through broker, ingest and PostgreSQL, with kills.

python tests/tools/fleet_long.py sites --sites 1000 --days 1 --kills 200 --power-cuts 20
python tests/tools/fleet_long.py rate --sites 1000 --days 2 --workers 2
python tests/tools/fleet_long.py month --sites 10000 --engines duckdb,spark
python tests/tools/fleet_long.py unit

Each prints its figures as JSON. What does not agree ends it with an error that names the site.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.runtime.carbon.ledger.conftest import new_database, postgres_bin
from tests.runtime.fleet.conftest import Unit
from tests.runtime.fleet.many_sites import DAY_S, METHOD, MONTH_UTC_S, Site
from tidegate.runtime.carbon.ledger.ledger import GENESIS, Ledger, canonical, chain
from tidegate.runtime.carbon.ledger.signing import block, sign
from tidegate.runtime.fleet.hub import fleet_queries, fleet_report
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.fleet_rollup import SUMS, Rollup, make_month, period_sums
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import Invitation
from tidegate.runtime.fleet.ledger_batch import Row, subject_word
from tidegate.runtime.fleet.unit.site_sender import Sender
from tidegate.runtime.state.device_key import DeviceKey

AT_ONCE = 100


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Postgres:
    """A server of its own that can be killed. fsync : as in production, or off where only processes are killed."""

    def __init__(self, folder, fsync):
        self.folder, self.programs = Path(folder), postgres_bin()
        import pwd

        self.as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.as_user:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.data = self.folder / "data"
        run = [*self.as_user, str(self.programs / "initdb"), "-D", str(self.data), "-U", "tidegate", "-A", "trust"]
        subprocess.run([*run, "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        self.options = (f"-k {self.folder} -c listen_addresses= -c fsync={'on' if fsync else 'off'} "
                        "-c shared_buffers=512MB -c max_wal_size=4GB -c work_mem=256MB "
                        "-c default_toast_compression=lz4 -c max_parallel_workers_per_gather=2")  # fmt: skip
        self.url = f"postgresql+psycopg://tidegate@/{{}}?host={self.folder}"
        self.start()

    def control(self, *words):
        run = [*self.as_user, str(self.programs / "pg_ctl"), "-D", str(self.data), "-w", "-t", "300"]
        subprocess.run([*run, "-l", str(self.folder / "log"), *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self):
        self.control("-o", self.options, "start")

    def kill(self):
        """kill -9 of the postmaster; its children see it and end."""
        number = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(number, signal.SIGKILL)
        until = time.monotonic() + 120
        while Path(f"/proc/{number}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def start_again(self):
        """After a kill: the server's own processes take a moment to see it and to let go of what they share."""
        for _ in range(60):
            try:
                return self.start()
            except subprocess.CalledProcessError:
                time.sleep(0.5)
        raise SystemExit(f"PostgreSQL does not come up again: {(self.folder / 'log').read_text()[-500:]}")

    def cpu_s(self):
        """Processor time of the server and all that it started, also of those that have ended, s."""
        number = (self.data / "postmaster.pid").read_text().split()[0]
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rsplit(")", 1)[1].split()
                if number in (path.parent.name, fields[1]):
                    total += sum(int(value) for value in fields[11 : 15 if path.parent.name == number else 13])
        return total / os.sysconf("SC_CLK_TCK")

    def stop(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.control("-m", "immediate", "stop")


class Hub:
    """`tidegate hub run` as its own process group, so that a kill takes what a kill takes."""

    def __init__(self, folder, url):
        self.folder, self.port = Path(folder), free_port()
        words = ["init", "--folder", str(self.folder), "--database", url, "--listen", f"127.0.0.1:{self.port}"]
        subprocess.run(
            [sys.executable, "-m", "tidegate.runtime.cli", "hub", *words], check=True, stdout=subprocess.DEVNULL
        )
        self.process, self.one = None, threading.Lock()
        self.log = (self.folder / "hub.log").open("ab")

    def start(self):
        """One that runs is left alone: who kills and who watches both call this."""
        words = [sys.executable, "-m", "tidegate.runtime.cli", "hub", "run", "--folder", str(self.folder)]
        with self.one:
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log)

    def kill_ingest(self):
        """kill -9 of the hub, and of its broker before that sees it."""
        self.process.kill()
        self.process.wait()
        self.kill_broker()

    def kill_broker(self):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "broker.pid").read_text()), signal.SIGKILL)

    def cut_power_of_broker(self, rng):
        """The broker ends and what it had not synced is gone: the tail of each file, or all that it knew."""
        self.kill_broker()
        time.sleep(0.05)
        for path in (self.folder / "broker").rglob("*"):
            if path.is_file() and path.stat().st_size:
                with contextlib.suppress(OSError):
                    os.truncate(path, rng.randrange(path.stat().st_size + 1))

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


# ---- ledgers ----


def write_site(job):
    """A site's signed ledger, as its unit writes it. -> (site, public key, entries)."""
    folder, number, days = job
    name = f"site-{number:05d}"
    unit = Unit(Path(folder), name)
    unit.ledger.append([("method", MONTH_UTC_S, METHOD)])
    made = Site(name, number)
    for day in range(days):
        made.write(unit.ledger, 1, MONTH_UTC_S + day * DAY_S)
        sign(unit.ledger, unit.key, name, least=1)
    count = unit.ledger.head[0] + 1
    unit.ledger.close()
    return name, unit.key.public, count


def write_sites(folder, sites, days):
    began = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(write_site, [(str(folder), number, days) for number in range(sites)], chunksize=8))
    return made, time.monotonic() - began


# ---- kills ----


async def send_all(hub, folder, made, rng, kill, kills, cuts):
    """Every site's entries, some sites at once, with kills at random moments. -> (seconds, kills done by kind)."""
    broker = Broker(hub.folder, port=hub.port)
    # At once: `invite` has the broker read all logins again for each.
    words = {name: secrets.token_hex(24) for name, _, _ in made}
    (hub.folder / "logins.json").write_text(json.dumps(words))
    broker.reload()
    invitations = {name: Invitation(name, broker.address, subject_word(name), word) for name, word in words.items()}
    waiting = [name for name, _, _ in made]
    rng.shuffle(waiting)
    active: dict[str, asyncio.Task[None]] = {}
    done: set[str] = set()
    counts = {"broker": 0, "ingest": 0, "postgres": 0, "site": 0, "power": 0}

    async def one(name):
        sender = Sender(Path(folder) / f"{name}.db", invitations[name], report=lambda _: None)
        try:
            await sender.open()
            while not await sender.step():
                await asyncio.sleep(0.5)
            done.add(name)
        finally:
            await sender.close()

    plan = [*(["broker", "ingest", "postgres", "site"] * (kills // 4 + 1))[:kills], *["power"] * cuts]
    rng.shuffle(plan)
    every = max(1, len(waiting) // (len(plan) + 1))
    began = time.monotonic()
    started, next_kill = 0, every
    while waiting or active or plan:
        while waiting and len(active) < AT_ONCE:
            name = waiting.pop()
            active[name] = asyncio.create_task(one(name))
            started += 1
            if plan and started >= next_kill:
                break
        await asyncio.sleep(0.05)
        if plan and (started >= next_kill or not waiting):
            next_kill += every
            await asyncio.sleep(rng.uniform(0, 0.3))
            what = plan.pop()
            counts[what] += 1
            if what == "site":
                for name in rng.sample(sorted(active), min(len(active), 5)):
                    active[name].cancel()
            else:
                await asyncio.to_thread(kill, what)
        for name, task in list(active.items()):
            if task.done():
                del active[name]
                if task.cancelled() or task.exception() is not None:
                    waiting.append(name)
        if not waiting and not active and len(done) < len(made):
            waiting = [name for name, _, _ in made if name not in done]
    return time.monotonic() - began, counts


def compare(url, folder, made):
    """Every site's bytes at the hub against those of its own ledger. Raises SystemExit naming what differs."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        total = 0
        for name, _, count in made:
            mine = list(Ledger(Path(folder) / f"{name}.db", read_only=True).raw_rows(0))
            there = connection.execute(
                "SELECT seq, kind, start_utc_s, body, hash FROM entries WHERE site = %s ORDER BY seq", (name,)
            ).fetchall()
            if [tuple(row) for row in there] != mine:
                raise SystemExit(f"{name}: {len(there)} entries at the hub, {len(mine)} at the site, or other bytes")
            total += count
        (have,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        letters = connection.execute("SELECT site, kind, what FROM fleet_letters").fetchall()
    if have != total:
        raise SystemExit(f"{have} entries at the hub, {total} at the sites")
    return total, letters


def run_sites(given):
    with tempfile.TemporaryDirectory(prefix="tidegate-fleet-") as top:
        folder = Path(top) / "units"
        folder.mkdir()
        pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-")
        postgres = Postgres(pg_folder, fsync=False)
        hub = None
        try:
            made, written_s = write_sites(folder, given.sites, given.days)
            url = new_database(postgres.url)
            hub = Hub(Path(top) / "hub", url)
            store = HubStore(url)
            for name, key, _ in made:
                store.enrol(name, key)
            store.close()
            rng = random.Random(given.seed)
            hub.start()

            def kill(what):
                if what == "broker":
                    hub.kill_broker()
                elif what == "power":
                    hub.cut_power_of_broker(rng)
                elif what == "postgres":
                    postgres.kill()
                    postgres.start_again()
                else:
                    hub.kill_ingest()
                if hub.process.poll() is not None:
                    time.sleep(0.2)
                    hub.start()

            async def watch():
                """As systemd does: a hub that ended is started again."""
                while True:
                    await asyncio.sleep(1)
                    if hub.process.poll() is not None:
                        hub.start()

            async def both():
                watching = asyncio.create_task(watch())
                try:
                    return await send_all(hub, folder, made, rng, kill, given.kills, given.power_cuts)
                finally:
                    watching.cancel()

            seconds, counts = asyncio.run(both())
            hub.stop()
            total, letters = compare(url, folder, made)
            return {
                "sites": given.sites, "entries": total, "ledgers_written_s": round(written_s, 1),
                "sent_s": round(seconds, 1), "kills": counts, "lost": 0, "doubled": 0, "letters": len(letters),
                "letter_kinds": sorted({row[1] for row in letters}),
            }  # fmt: skip
        finally:
            if hub is not None:
                hub.stop()
                hub.kill_broker()
            postgres.stop()
            shutil.rmtree(pg_folder, ignore_errors=True)


# ---- rates ----


def rows_of(number, days):
    """(name, key, batches) of a site whose ledger never touched a disk."""
    name = f"site-{number:05d}"
    with tempfile.TemporaryDirectory() as folder:
        key = DeviceKey.at(Path(folder) / "key.pem")
    site = Site(name, number)
    seq, previous, first = -1, GENESIS, 0
    batches = []
    open_body = {"schema": 2, "site": name, "units": "milliwatt-hours, ug CO2e, s"}
    entries = [("open", 0, open_body), ("method", MONTH_UTC_S, METHOD)]
    for day in range(days):
        entries += site.day(MONTH_UTC_S + day * DAY_S)
        rows = []
        for kind, start, body in entries:
            seq += 1
            text = canonical(body)
            previous = chain(previous, seq, kind, start, text)
            rows.append(Row(seq, kind, start, text, previous))
        text = canonical(block(key, name, first, seq, previous))
        seq += 1
        first = seq
        previous = chain(previous, seq, "block", 0, text)
        rows.append(Row(seq, "block", 0, text, previous))
        batches.append(rows)
        entries = []
    return name, key.public, batches


def take_all(job):
    """One ingest worker: its sites' batches through the checks into PostgreSQL. -> (entries, seconds, RSS in MiB)."""
    url, numbers, days, gate = job
    store = HubStore(url)
    made = [rows_of(number, days) for number in numbers]
    for name, key, _ in made:
        store.enrol(name, key)
    while time.time() < gate:
        time.sleep(0.01)
    began, busy, count = time.monotonic(), time.process_time(), 0
    for day in range(days):
        for name, _, batches in made:
            _, finding = store.take(name, batches[day], b"")
            if finding is not None:
                raise SystemExit(f"{name}: {finding}")
            count += len(batches[day])
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return count, time.monotonic() - began, time.process_time() - busy, rss


def run_rate(given):
    pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-")
    postgres = Postgres(pg_folder, fsync=True)
    try:
        url = new_database(postgres.url)
        HubStore(url).close()
        gate = time.time() + given.lead_s
        before_s = postgres.cpu_s()
        with ProcessPoolExecutor(given.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [(url, list(range(w, given.sites, given.workers)), given.days, gate) for w in range(given.workers)]
            found = list(pool.map(take_all, jobs))
        database_s = postgres.cpu_s() - before_s
        count, longest = sum(row[0] for row in found), max(row[1] for row in found)
        rate = count / longest
        return {
            "entries": count, "workers": given.workers, "seconds": round(longest, 2), "entries_s": round(rate),
            "cpu_s_of_workers": round(sum(row[2] for row in found), 2), "cpu_s_of_postgresql": round(database_s, 2),
            "entries_per_core_s": round(count / (sum(row[2] for row in found) + database_s)),
            "rss_mib_of_a_worker": round(found[0][3]),
            "a_day_of_100000_sites_min": round(100_000 * 99 / rate / 60, 1), "load": os.getloadavg(),
        }  # fmt: skip
    finally:
        postgres.stop()
        shutil.rmtree(pg_folder, ignore_errors=True)


# ---- the month ----


def month_rows(job):
    """The flat rows of some sites' month into PostgreSQL, as the roll-up writes them from periods made here."""
    url, numbers, days = job
    columns = ("site", "start_utc_s", "seq", *SUMS)
    roles = METHOD["kinds"]
    totals = [0] * len(SUMS)
    copy = f"COPY fleet_periods ({', '.join(columns)}) FROM STDIN"
    with psycopg.connect(url.replace("+psycopg", "")) as connection, connection.cursor().copy(copy) as out:
        for number in numbers:
            # One day of a site, and every other day is that again: what is summed is as large, and made in time.
            site = Site(f"site-{number:05d}", number)
            kept = [period_sums(site.period(MONTH_UTC_S + n * 900), roles) for n in range(96)]
            texts = ["\t".join(map(str, row)) for row in kept]
            for n in range(days * 96):
                out.write(f"{site.name}\t{MONTH_UTC_S + n * 900}\t{n + 2}\t{texts[n % 96]}\n")
            for at, value in enumerate(map(sum, zip(*kept, strict=True))):
                totals[at] += value * days
    return totals


def run_month(given):
    pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-", dir=given.work)
    os.chmod(pg_folder, 0o755)
    postgres = Postgres(pg_folder, fsync=False)
    try:
        url = new_database(postgres.url)
        store = HubStore(url)
        with store.another() as connection, connection.transaction():
            make_month(connection.cursor(), "fleet_periods", MONTH_UTC_S)
        with store.another() as connection:
            connection.execute(
                "INSERT INTO fleet_places (site, owner, region) SELECT 'site-' || lpad(n::text, 5, '0'), "
                "'owner-' || n %% 40, 'region-' || n %% 12 FROM generate_series(0, %s) n", (given.sites - 1,),
            )  # fmt: skip
            connection.execute(
                "INSERT INTO fleet_sites (site, key, named, seq, hash, block_seq, enrolled_utc_s) "
                "SELECT site, '', site, 0, '', 0, 0 FROM fleet_places"
            )
            connection.execute("INSERT INTO fleet_rolled (site, seq) SELECT site, 0 FROM fleet_places")
        began = time.monotonic()
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            chunks = [(url, list(range(first, min(given.sites, first + 100))), given.days)
                      for first in range(0, given.sites, 100)]  # fmt: skip
            totals = [sum(column) for column in zip(*pool.map(month_rows, chunks), strict=True)]
        made_s = time.monotonic() - began
        end = MONTH_UTC_S + given.days * DAY_S
        with store.another() as connection:
            connection.execute("VACUUM ANALYZE fleet_periods")
            (size,) = connection.execute("SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits").fetchone()
            rows = given.sites * given.days * 96
            print(json.dumps({"rows": rows, "made_s": round(made_s), "bytes": int(size)}), flush=True)
            began = time.monotonic()
            document = fleet_report.gather_fleet(store, MONTH_UTC_S, end)
            report_s = time.monotonic() - began
            print(json.dumps({"postgresql_s": round(report_s, 1), "load": os.getloadavg()}), flush=True)
            if [document["whole"][name] for name in SUMS] != totals:
                raise SystemExit("the report's whole is not the sum of the rows that were put in")
            ours = fleet_queries.account(connection.execute, MONTH_UTC_S, end)
            found = {"sites": given.sites, "rows": rows, "made_s": round(made_s), "postgresql_bytes": int(size),
                     "postgresql_s": round(report_s, 1)}  # fmt: skip
            out = Path(pg_folder) / "rows"
            engines = [name for name in given.engines.split(",") if name]
            if engines:
                began = time.monotonic()
                paths = fleet_report.export_parquet(connection, out, MONTH_UTC_S, end)
                found["parquet_export_s"] = round(time.monotonic() - began, 1)
                found["parquet_bytes"] = sum(path.stat().st_size for path in paths)
                print(json.dumps(found), flush=True)
            for name in engines:
                began = time.monotonic()
                theirs = of_engine(name, out, MONTH_UTC_S, end)
                found[f"{name}_s"] = round(time.monotonic() - began, 1)
                if theirs != ours:
                    raise SystemExit(f"{name} gives other numbers than PostgreSQL")
        found["load"] = os.getloadavg()
        return found
    finally:
        postgres.stop()
        shutil.rmtree(pg_folder, ignore_errors=True)


def of_engine(name, folder, start, end):
    if name == "duckdb":
        return fleet_queries.account(fleet_report.duckdb_run(folder), start, end)
    from tests.runtime.fleet.test_fleet_report import Spark

    with Spark(folder) as run:
        return fleet_queries.account(run, start, end)


# ---- the unit ----


def run_unit(given):
    """Memory and CPU of `tidegate fleet run` on a ledger a day behind its hub, and then with nothing to do."""
    with tempfile.TemporaryDirectory(prefix="tidegate-fleet-") as top:
        pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-")
        postgres = Postgres(pg_folder, fsync=True)
        hub = unit = None
        try:
            name, key, count = write_site((top, 1, given.days))
            url = new_database(postgres.url)
            hub = Hub(Path(top) / "hub", url)
            store = HubStore(url)
            store.enrol(name, key)
            Broker(hub.folder, port=hub.port).invite(name).write(Path(top) / "a.join")
            hub.start()
            while not Broker(hub.folder, port=hub.port).answers():
                time.sleep(0.1)
            began = time.monotonic()
            words = ["fleet", "run", str(Path(top) / "a.join"), "--ledger", str(Path(top) / f"{name}.db")]
            unit = subprocess.Popen([sys.executable, "-m", "tidegate.runtime.cli", *words])
            while (store.mark(name).seq + 1) < count:
                time.sleep(0.05)
                if time.monotonic() - began > 300:
                    raise SystemExit("not caught up in 300 s")
            caught_up_s = time.monotonic() - began
            time.sleep(5)
            before, at = cpu_s(unit.pid), time.monotonic()
            time.sleep(given.idle_s)
            busy = (cpu_s(unit.pid) - before) / (time.monotonic() - at)
            status = Path(f"/proc/{unit.pid}/status").read_text()
            rss, peak = (int(status.split(f"{word}:")[1].split()[0]) / 1024 for word in ("VmRSS", "VmHWM"))
            return {"days_behind": given.days, "entries": count, "caught_up_s_with_start": round(caught_up_s, 2),
                    "idle_cpu_percent": round(100 * busy, 2), "rss_mib": round(rss, 1), "peak_mib": round(peak, 1),
                    "load": os.getloadavg()}  # fmt: skip
        finally:
            if unit is not None:
                unit.terminate()
                unit.wait(30)
            if hub is not None:
                hub.stop()
            postgres.stop()
            shutil.rmtree(pg_folder, ignore_errors=True)


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rolled(given):
    """How fast the roll-up makes flat rows of entries that are there."""
    pg_folder = tempfile.mkdtemp(prefix="tidegate-pg-")
    postgres = Postgres(pg_folder, fsync=True)
    try:
        url = new_database(postgres.url)
        HubStore(url).close()
        take_all((url, range(given.sites), given.days, 0.0))
        store = HubStore(url)
        with store.another() as connection:
            began, busy = time.monotonic(), time.process_time()
            count = Rollup(connection).bring_up()
            seconds = time.monotonic() - began
        return {"entries": count, "seconds": round(seconds, 2), "entries_s": round(count / seconds),
                "cpu_s": round(time.process_time() - busy, 2), "load": os.getloadavg()}  # fmt: skip
    finally:
        postgres.stop()
        shutil.rmtree(pg_folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sites", "rate", "month", "unit", "rollup"))
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--power-cuts", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engines", default="duckdb")
    parser.add_argument("--work", default=None)
    parser.add_argument("--lead-s", type=float, default=60.0)
    parser.add_argument("--idle-s", type=float, default=60.0)
    given = parser.parse_args()
    run = {"sites": run_sites, "rate": run_rate, "month": run_month, "unit": run_unit, "rollup": rolled}[given.what]
    print(json.dumps({"what": given.what, **run(given)}), flush=True)


if __name__ == "__main__":
    main()
