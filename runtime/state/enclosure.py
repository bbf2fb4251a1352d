"""What a process of ours gives up at its start: reach (`sandbox.py`) and calls of the kernel (`syscalls.py`)."""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from tidegate.runtime.state.sandbox import confine
from tidegate.runtime.state.syscalls import LOCAL, forbid

TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def enclose(
    who: str,
    writes: Iterable[Path],
    reads: Iterable[Path] = (),
    *,
    binds: Iterable[int] = (),
    reaches: Iterable[int] = (),
    connects: bool = False,
    devices: Iterable[Path] = (),
    families: Iterable[int] = LOCAL,
    signals: Iterable[int] = (),
    starts: bool = False,
) -> list[str]:
    """Give up all but what is named, and say what this kernel cannot take away; gives those lines too.

    who : the process, for messages. writes, reads, binds, reaches, connects, devices : as for `confine`; families,
    signals, starts : as for `forbid`; what it starts is as confined, and may be ended. To be called while there is no
    other thread: Landlock does not reach back. Raises OSError where the kernel has both and refuses.
    """
    told = list(signals)
    threads = len(os.listdir("/proc/self/task")) - 1
    lacks = [
        f"{threads} threads were there before and keep the reach that they had" if threads else "",
        confine(writes, reads, binds=binds, reaches=reaches, connects=connects, devices=devices, signals=bool(told)),
        forbid(families, signals=told or (TO_END if starts else ()), starts=starts),
    ]
    lines = [lack for lack in lacks if lack]
    for line in lines:
        print(f"{who}: {line}", file=sys.stderr, flush=True)
    return lines
