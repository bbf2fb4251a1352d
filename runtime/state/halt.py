"""A stop that needs neither gateway nor network: a signal to who holds the core's memory, and to the core itself."""

import contextlib
import os
import signal
from pathlib import Path

from tidegate.runtime.state.paths import running_sites
from tidegate.runtime.state.stop_pipe import order

CORE = b"tidegate.runtime.core.process"


def halt(endpoint: str) -> str:
    """Stop the site behind an ipc endpoint; what kept us from that, "" = nothing.

    The supervisor keeps the stop over a restart; the core, its child, does not need it and takes the signal too, since
    a supervisor that stands still takes none. Where they are other users than we, a byte in the site's pipe does both.
    """
    folder = Path(endpoint.removeprefix("ipc://"))
    pid = running_sites(folder.parent).get(folder.name) if endpoint.startswith("ipc://") else None
    if not pid:
        return "no supervisor of this site runs on this machine"
    written = order(folder)
    refused = signalled(pid)
    return refused if written and refused else ""


def signalled(supervisor: int) -> str:
    """Give the signal to this supervisor and to its core; what kept us from it, "" = nothing."""
    try:
        os.kill(supervisor, signal.SIGUSR1)
    except OSError as why:
        return f"process {supervisor}: {why.strerror}"
    core = core_of(supervisor)
    if core:
        with contextlib.suppress(OSError):
            os.kill(core, signal.SIGUSR1)
    return ""


def core_of(supervisor: int) -> int:
    """The core that this supervisor started, 0 if it has none."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{supervisor}/task").iterdir():
            for pid in (thread / "children").read_text().split():
                with contextlib.suppress(OSError):
                    if CORE in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                        return int(pid)
    return 0
