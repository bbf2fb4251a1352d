"""The sidecar process: `python -m tidegate.runtime.carbon`, started and kept by the supervisor."""

import argparse
import contextlib
import errno
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from tidegate.hal.description import Carbon, described
from tidegate.runtime.api.blocking_client import Client, ClientError, NoAnswer
from tidegate.runtime.api.messages import Message
from tidegate.runtime.carbon.factors.fetch import Fetcher, sources_of
from tidegate.runtime.carbon.factors.series import FactorError
from tidegate.runtime.carbon.jobs.pushed import Pushed
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError, LedgerTaken
from tidegate.runtime.carbon.live.idle_entries import IdleEntries
from tidegate.runtime.carbon.live.live_account import LiveAccount
from tidegate.runtime.carbon.live.live_pages import LivePages
from tidegate.runtime.carbon.live.live_telemetry import LiveTelemetry
from tidegate.runtime.carbon.sidecar.service import PAUSE_S, Sidecar, catch_up, open_ledger
from tidegate.runtime.carbon.sidecar.statements import enter, take_over
from tidegate.runtime.state.device_key import KEY_FILE, DeviceKey
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.held import LEDGER, LEDGER_DIR, take_base_in
from tidegate.runtime.state.syscalls import NETWORK

FULL_PAUSE_S = 5.0
POSTGRES_DISK_FULL = "53100"  # SQLSTATE
Made = TypeVar("Made")
EXIT_UNUSABLE = 78  # a ledger or a factor file that needs a person; starting again would not help


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidegate.runtime.carbon", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="where the gateway listens")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder of the ledger")
    parser.add_argument("--site", type=Path, help="site file; factor files and ledger are relative to its folder")
    parser.add_argument("--pause-s", type=float, default=PAUSE_S, help="time between two pulls")
    return parser.parse_args(words)


class Stop:
    """Asked for by a signal. No threading.Event: `set` in a handler that interrupts `wait` would wait for ever."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        self.asked = True

    def wait(self, pause_s: float) -> None:
        until = time.monotonic() + pause_s
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))


def disk_is_full(error: BaseException | None) -> bool:
    """Whether that is why: it passes, and needs nobody who looks at the ledger."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            return True
        if getattr(error, "sqlstate", "") == POSTGRES_DISK_FULL:
            return True
        error = error.__cause__
    return False


def patiently(work: Callable[[], Made], stop: Stop) -> Made | None:
    """What `work` makes; while the disk is full it is tried again, None = stopped meanwhile. Raises what it raises."""
    waits = False
    while not stop.asked:
        try:
            return work()
        except (LedgerError, OSError) as error:
            if not disk_is_full(error):
                raise
            if not waits:
                print(f"carbon: {error}; waiting for room, the journal keeps the records", file=sys.stderr, flush=True)
                print(json.dumps({"carbon": "waits for room"}), flush=True)  # nobody waits for this process
            waits = True
            stop.wait(FULL_PAUSE_S)
    return None


def site_of_gateway(endpoint: str, stop: Stop, pause_s: float) -> Message | None:
    """What the gateway says of the site, None if we are to stop before it answers.

    By a client of its own, which is gone again: a thread that it leaves would not be confined.
    """
    with Client(endpoint) as client:
        while not stop.asked:
            try:
                return client.describe()
            except NoAnswer:
                stop.wait(pause_s)
    return None


def note_each(lines: list[str], client: Client) -> None:
    """What became of what people said of meters and key: in the log, and in the journal that the console shows."""
    for line in filter(None, lines):
        print(f"carbon: {line}", file=sys.stderr, flush=True)
        with contextlib.suppress(ClientError):  # the ledger has it, the journal is where people look first
            client.ask("note", name="account", detail=line[:150])


class Reach(NamedTuple):
    """Folders that the sidecar writes and reads. beside : what it can reach that it should not, in words."""

    writes: list[Path]
    reads: list[Path]
    beside: str


def reach_of(carbon: Carbon, state: Path, folder: Path) -> Reach:
    """What a site's account needs: the ledger's folder, that of fetched factors, and what the site file names to read.

    folder : that of the site file; paths are relative to it.
    """
    is_database = bool(carbon.ledger and "://" in carbon.ledger)
    writes = [(folder / carbon.ledger).parent if carbon.ledger and not is_database else state / LEDGER_DIR]
    writes += [(folder / str(carbon.factors)).parent] if carbon.fetch else []
    named = [carbon.factors, carbon.prices, carbon.readings, *(one.key_file for one in carbon.fetch)]
    reads = [folder, state, *((folder / one).parent for one in named if one)]
    reads += [Path.home()] if is_database else []  # where a driver looks for a password and for certificates
    beside = folder.resolve() in [one.resolve() for one in writes]
    words = "ledger or fetched factors lie beside the site file, so this process may write there; give them a folder"
    return Reach(writes, reads, words if beside else "")


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.ask())
    describe = site_of_gateway(args.endpoint, stop, args.pause_s)
    if describe is None:
        return 0
    folder = args.site.parent if args.site is not None else Path()

    def prepared() -> tuple[DeviceKey, Reach]:
        key = DeviceKey.at(args.state_dir / KEY_FILE)  # made at the first start; from here on it is only read
        reach = reach_of(described(describe).carbon, args.state_dir, folder)
        for written in reach.writes:
            written.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.environ["SQLITE_TMPDIR"] = str(reach.writes[0])  # what a large sort needs, where it may write
        take_base_in(args.state_dir, LEDGER_DIR, LEDGER)
        return key, reach

    try:
        made = patiently(prepared, stop)
        if made is None:
            return 0
        key, reach = made
        enclose("carbon", reach.writes, reach.reads, connects=True, families=NETWORK)
        if reach.beside:
            print(f"carbon: {reach.beside}", file=sys.stderr, flush=True)
    except (ValueError, OSError) as error:
        print(f"carbon: {error}", file=sys.stderr, flush=True)
        return EXIT_UNUSABLE
    with Client(args.endpoint) as client:

        def opened() -> tuple[Ledger, Pushed, Sidecar]:
            ledger = open_ledger(describe, args.state_dir, folder)
            pushed = Pushed(ledger)
            if ledger.signer() not in (None, key.public):
                note_each([take_over(pushed, client, key)], client)
            return ledger, pushed, Sidecar(describe, ledger, folder=folder, key=key)

        try:
            began = patiently(opened, stop)
            if began is None:
                return 0
            ledger, pushed, sidecar = began
        except (LedgerError, FactorError, ValueError, OSError) as error:
            print(f"carbon: {error}", file=sys.stderr, flush=True)
            return EXIT_UNUSABLE
        wanted = sources_of(sidecar.settings, folder)
        fetcher = Fetcher(wanted, folder / str(sidecar.settings["factors"])) if wanted else None
        if fetcher is not None:
            fetcher.start()
        print(json.dumps({"carbon": "ready", "ledger": ledger.url, "head": ledger.head[0]}), flush=True)
        jobs = 0
        loads = [name for name, role in sidecar.nodes.kinds.items() if role == "it"]
        seen = LiveTelemetry(args.state_dir, loads)
        idle = IdleEntries(ledger, args.state_dir, loads)
        live = LivePages(LiveAccount(describe, sidecar, args.state_dir), client)
        silent_since = 0.0
        shown: list[str] = []
        while True:
            last = stop.asked
            try:
                trouble = sidecar.refresh()
                for text in trouble:
                    if text not in shown:
                        print(f"carbon: {text}", file=sys.stderr, flush=True)
                shown = list(trouble)
                catch_up(sidecar, client)
                sidecar.commit()
                jobs += pushed.pull(client)
                note_each(enter(pushed, key, sidecar.closed_until_utc_s), client)
                pushed.settle(sidecar.closed_until_utc_s, seen if seen.first_day() is not None else None)
                idle.step(sidecar.closed_until_utc_s)
                live.step()
                silent_since = 0.0
            except NoAnswer:
                # The gateway restarts by itself; the journal keeps what we miss.
                if not silent_since:
                    silent_since = time.monotonic()
                    print("carbon: no answer from the gateway; waiting, nothing is lost", file=sys.stderr, flush=True)
            except LedgerError as error:
                print(f"carbon: {error}", file=sys.stderr, flush=True)
                return EXIT_UNUSABLE if isinstance(error, LedgerTaken) else 1
            if last:
                break
            stop.wait(args.pause_s)
        if fetcher is not None:
            fetcher.ended = True
            fetcher.join(2.0)
        ledger.close()
        at = sidecar.cursor
        ended = {"carbon": "ended", "records": sidecar.records, "periods": sidecar.periods, "boot": at and at[0],
                "seq": at and at[1], "jobs": jobs}  # fmt: skip
        print(json.dumps(ended), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
