"""`tidegate island-devices`: a genset's remote start and PV limits by what the loop asks for, and how that goes."""

import contextlib
import functools
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.cli.adapter_commands import DRY_RUN, ended, noted_by, rounds
from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNAVAILABLE, fail, print_line, with_client
from tidegate.runtime.island.island_devices import (
    STATUS_FILE,
    IslandDevices,
    ask_site,
    devices_safe,
    only_devices,
)
from tidegate.runtime.island.island_metrics import serve
from tidegate.runtime.island.island_unit import IslandFileError, read_island_file
from tidegate.runtime.island.order_desk import IslandError
from tidegate.runtime.planner.adapter_audit import end_doubts, write_doubts
from tidegate.runtime.planner.adapter_guard import Guard
from tidegate.runtime.state.paths import private_folder

COMMAND = "island-devices"
GUARD_S_MIN = 30.0  # an adapter that is silent for so long hangs
OLD_S = 60.0  # a status of before is none
FOLDER = click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True,
                      help="For claims, audit and status; the planner's own, if there is one.")  # fmt: skip


@click.group(COMMAND)
def island_devices() -> None:
    """Give a genset and PV inverters what the loop asks for in an island; a process of its own, with a guard."""


@island_devices.command()
@with_client
@FOLDER
@click.option("--unit", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True,
              help="TOML of the devices: their registers, and what their owner allows.")  # fmt: skip
@DRY_RUN
@click.option("--every", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between rounds.")
@click.option("--listen", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Metrics for Prometheus at http://LISTEN:PORT/metrics.")
def run(client: Client, folder: Path, unit: Path, dry_run: bool, every: float, listen: str, port: int | None) -> None:
    """Follow the site until Ctrl-C or SIGTERM; then, or after a kill, all is as the file has it without a word."""
    try:
        file = read_island_file(unit)
        private_folder(folder)
        alone = only_devices(folder, file.name)
        devices = IslandDevices(file, folder, ask_site(client.ask), dry_run, noted_by(client))
        devices.ports = lambda: list(client.describe()["ports"])
    except (IslandFileError, IslandError) as why:
        fail(why, EXIT_CONTENT, COMMAND)
    except OSError as why:
        fail(f"{folder}: {why.strerror}", EXIT_UNAVAILABLE, COMMAND)
    if port is not None:
        try:
            serve(file.name, devices.status, listen, port)
        except OSError as why:
            fail(f"{listen}:{port}: {why.strerror or why}", EXIT_UNAVAILABLE, COMMAND)
    silent_s = max(GUARD_S_MIN, 5 * every, file.round_s_max + 4 * client.timeout_s)
    guard = Guard(functools.partial(devices_safe, folder, unit.absolute(), os.getpid(), dry_run), silent_s)
    name = f"island-{file.name}"

    written: list[str] | None = None
    written_s = 0.0

    def one() -> str:
        nonlocal written, written_s
        try:
            devices.round()
        except IslandFileError as why:
            guard.end()
            fail(f"{unit}: {why}", EXIT_CONTENT, COMMAND)
        doubts = list(devices.doubts.values())
        if doubts != written or time.monotonic() - written_s > OLD_S:  # each is synced to the disk
            with contextlib.suppress(OSError):  # a full disk costs the words
                write_doubts(folder, name, doubts)
                written, written_s = doubts, time.monotonic()
        return "; ".join(doubts)

    with alone:
        rounds(name, one, guard, every)
        end_doubts(folder, name)
        with contextlib.suppress(IslandFileError):  # a line of the site's own: nothing of ours is there
            devices.round(ends=True)
        left = devices.left()
        if not left:
            guard.end()
    if left:
        ended(guard, left, COMMAND)


@island_devices.command()
@FOLDER
def status(folder: Path) -> None:
    """What is asked of the devices now, what they do, and what is not as it should be."""
    paths = sorted(folder.glob(STATUS_FILE))
    if not paths:
        fail(f"{folder}: no adapter has run here yet", EXIT_UNAVAILABLE, COMMAND)
    for path in paths:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            name = path.stem.removeprefix("island-status-")
            at = datetime.fromtimestamp(told["utc_s"], UTC)
            old = "" if time.time() - told["utc_s"] < OLD_S else " (no round since: is it running?)"
            print_line(f"{name}: {at:%Y-%m-%d %H:%M:%S}Z{old}, site: {told['island'] or 'silent'}"
                       f"{', dry run' if told['dry_run'] else ''}")  # fmt: skip
            if genset := told["genset"]:
                waits = f", {genset['waits']}" if genset["waits"] else ""
                reads = {True: "running", False: "not running", None: "nothing"}[genset["running"]]
                print_line(f"  genset: {'started' if genset['asked'] else 'not started'} by us, reads {reads}{waits}")
            for row in told["pv"]:
                limit = "the owner's own limit" if row["limit_w"] is None else f"limit {row['limit_w']} W"
                power = "no reading" if row["power_w"] is None else f"{row['power_w']} W"
                print_line(f"  {row['name']}: {limit}, gives {power}")
            for text in told["doubts"]:
                print_line(f"  doubt: {text}")
        except (OSError, ValueError, KeyError, TypeError) as why:
            fail(f"{path}: {why}", EXIT_CONTENT, COMMAND)
