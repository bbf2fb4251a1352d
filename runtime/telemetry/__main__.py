"""The telemetry process: `python -m tidegate.runtime.telemetry`, started and kept by the supervisor.

It asks PDUs, servers and Prometheus, and writes what they counted into `telemetry/telemetry.db` of the site's state
folder, where the carbon sidecar reads it. It speaks to no bus, no core and no gateway.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

from tidegate.config.site import SiteError, load_site
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.held import take_base_in
from tidegate.runtime.state.syscalls import NETWORK
from tidegate.runtime.telemetry.energy_store import FILE, FOLDER, NAME, EnergyStore
from tidegate.runtime.telemetry.nvml_cards import device_files
from tidegate.runtime.telemetry.poller import WRITE_S, Source, SourceError, source_of, write
from tidegate.runtime.telemetry.snmp_source import SnmpSocket

EXIT_UNUSABLE = 78  # a site file or a key file that needs a person


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidegate.runtime.telemetry", description=__doc__)
    parser.add_argument("--site", type=Path, required=True, help="site file; key files are relative to its folder")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder of the store")
    parser.add_argument("--write-s", type=float, default=WRITE_S, help="time between two writes")
    return parser.parse_args(words)


async def serve(sources: list[Source], store: EnergyStore, wire: SnmpSocket, write_s: float) -> None:
    """Ask all hosts until a signal; what was counted last is written at the end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await wire.open()
    running = [asyncio.create_task(source.run(state)) for source in sources for state in source.states]
    shown = ""
    try:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(write_s):
                    await stop.wait()
            try:
                write(store, sources)
                trouble = "; ".join(source.state[4] for source in sources if source.state[4])
            except sqlite3.Error as why:
                trouble = f"{FILE}: {why}; nothing is kept until it can be written"
            if trouble != shown:
                shown = trouble
                print(f"telemetry: {trouble or 'every source answers'}", file=sys.stderr, flush=True)
    finally:
        for task in running:
            task.cancel()
        wire.close()


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    wire = SnmpSocket()
    try:
        site = load_site(args.site)
        sources = [source_of(wanted, site.folder, wire) for wanted in site.telemetry]
        path = take_base_in(args.state_dir, FOLDER, NAME)
        os.environ["SQLITE_TMPDIR"] = str(path.parent)  # what a large sort needs, where it may write
        devices = list(device_files()) if any(one.kind == "nvml" for one in site.telemetry) else []
        enclose("telemetry", [path.parent], [site.folder], connects=True, devices=devices, families=NETWORK)
        store = EnergyStore(path)
    except (SiteError, SourceError, sqlite3.Error, OSError) as why:
        print(f"telemetry: {why}", file=sys.stderr, flush=True)
        return EXIT_UNUSABLE
    print(json.dumps({"telemetry": "ready", "sources": len(sources)}), flush=True)
    asyncio.run(serve(sources, store, wire, args.write_s))
    store.close()
    print(json.dumps({"telemetry": "ended"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
