"""Whether this device should know of latches or a stop although their record is not there.

A record can be deleted, and a site can get another name. The journal then still says what was latched and stopped, and
the folder beside it belongs to a site on the same buses.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgpack

from tidegate.hal.description import Description
from tidegate.runtime.state import latches, stop_file
from tidegate.runtime.state.held import held_in
from tidegate.runtime.state.journal import Journal
from tidegate.runtime.state.paths import running_sites

SEGMENTS_MAX = 16  # of 4 MiB; what is behind them is not looked through


def buses_of(site: Description) -> list[str]:
    """What a site is connected to: the same for every name that it is given."""
    serial = [f"sim:{port.name}" if port.device == "sim" else port.device for port in site.ports]
    can = [f"sim:{bus.name}" if bus.interface == "sim" else bus.interface for bus in site.can]
    # A serial port has several names; by-id and by-path links lead to one of them.
    real = [os.path.realpath(name) for name in serial if name.startswith("/") and os.path.exists(name)]
    return sorted({*serial, *can, *real})


def _events(folder: Path) -> Iterator[dict[str, object]]:
    """Events of a journal, oldest first. Raises OSError or ValueError where it is not whole enough to be sure."""
    journal = Journal(folder, "event")
    if journal.damages and any(not damage.repaired for damage in journal.damages):
        raise ValueError("the journal is damaged")
    if len(journal.segments) > SEGMENTS_MAX:
        raise ValueError("the journal is long")
    for segment in journal.segments:
        for record in journal.records(segment):
            found = msgpack.unpackb(record.payload)
            if isinstance(found, dict):
                yield found


def journal_says(folder: Path, of: Literal["latch", "stop"]) -> str:
    """Why a journal's folder speaks for a latch or a stop in force, "" = it does not."""
    if not folder.is_dir() or not any(folder.glob("event-*.seg")):
        return ""
    held: set[tuple[str, str]] = set()
    stopped = False
    try:
        for event in _events(folder):
            name = str(event.get("name"))
            if event.get("event") == "latch":
                one = str(event.get("unit")), name
                held = held | {one} if event.get("previous") else held - {one}  # of a latch: what it is now
            elif event.get("event") == "order" and name in ("stop", "lock", "run"):
                stopped = name != "run"
    except (OSError, ValueError, msgpack.UnpackException) as why:
        return f"whether it should be is not known: {why}"
    if of == "stop":
        return "the journal tells of a stop" if stopped else ""
    return f"the journal tells of a latch: {', '.join(sorted({row for _, row in held}))}" if held else ""


def found_beside(state: Path, runtime: Path, buses: Sequence[str]) -> str:
    """Why the record of a site of another name on the same buses speaks for us, "" = it does not.

    state, runtime : our own folders; the others lie beside them. One that runs now is no former self of ours.
    """
    running = running_sites(runtime.parent)
    for folder in sorted(state.parent.iterdir()) if state.parent.is_dir() else ():
        if folder != state and folder.is_dir() and folder.name not in running and (said := _speaks(folder, buses)):
            return said
    return ""


def _speaks(folder: Path, buses: Sequence[str]) -> str:
    """Why another site's folder speaks for us, "" = it does not. Whose record is gone or damaged may have been us."""
    held_folder = held_in(folder)
    if not (held_folder / latches.FILE).exists():
        told = journal_says(folder / "journal", "latch") or journal_says(folder / "journal", "stop")
        said = f"the record of the site {folder.name} is gone, and {told}; it may have been on these buses"
        return said if told else ""
    try:
        shared = set(latches.buses_of(held_folder)) & set(buses)
        held = latches.latched_in(held_folder) if shared else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as why:
        return f"the record of the site {folder.name} cannot be read ({why}); it may have been on these buses"
    stops = stop_file.StopFile(held_folder, held_folder).read()[0]
    if not held and not (shared and stops.stopped):
        return ""
    what = f"a latch of {', '.join(held)}" if held else "a stop"
    return f"the site {folder.name} on the same buses ({', '.join(sorted(shared))}) has {what}"


def former(state: Path, runtime: Path, buses: Sequence[str]) -> str:
    """Why there should be a record of latches, "" = there never was one."""
    return journal_says(state / "journal", "latch") or found_beside(state, runtime, buses)
