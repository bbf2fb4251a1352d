"""A second process that undoes what an adapter did when the adapter is killed or hangs.

Slurm's begin times run out by themselves; a suspended Job of Kubernetes and the power cap of a GPU do not. The guard
hears a beat each round. When the pipe closes or stays silent it undoes, again and again until nothing is left.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TextIO

BEAT, END, READY = b"beat", b"end", b"ready"
READY_S = 120.0  # to start a process on a busy machine
TRIES = 360
AGAIN_S = 10.0

Undo = Callable[[], str]  # "" when nothing of ours is left, else what still stands


def watch(pipe: Pipe, silent_s: float, undo: Undo, again_s: float = AGAIN_S) -> None:
    """Until the adapter ends in order, or until what it left is undone."""
    # Whoever ends the adapter by a signal to its whole group does not mean the one who cleans up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    try:
        pipe.send_bytes(READY)
        while pipe.poll(silent_s):
            if pipe.recv_bytes() == END:
                return
    except (EOFError, OSError):
        pass
    for _ in range(TRIES):
        try:
            left = undo()
        except Exception as why:  # whatever the other side says, it is asked again
            left = str(why)
        if not left:
            return
        print(f"guard: {left}", file=sys.stderr, flush=True)
        time.sleep(again_s)


class Guard:
    """The adapter's side. undo is sent to the other process, so it is a function of a module or a partial of one."""

    def __init__(self, undo: Undo, silent_s: float) -> None:
        self._undo, self._silent_s = undo, silent_s
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=watch, args=(theirs, self._silent_s, self._undo))
        self.process.start()
        theirs.close()
        # Until it ignores the signals of its group it guards nothing, so nothing is ordered before.
        if not (self._pipe.poll(READY_S) and self._pipe.recv_bytes() == READY):
            raise OSError(f"the guard's process did not start within {READY_S:g} s: nothing was ordered")

    def beat(self) -> None:
        """One round is done. A guard that is gone, or that took a long round for the end, is replaced."""
        try:
            self._pipe.send_bytes(BEAT)
        except OSError:
            self._pipe.close()
            self.process.join(0)
            self._start()

    def leave(self) -> None:
        """The adapter could not undo everything: the guard is to do it, from now on."""
        self._pipe.close()

    def end(self) -> None:
        """The adapter has undone everything itself."""
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(END)
        self.process.join()


def only_adapter(path: Path, name: str, error: type[Exception]) -> TextIO:
    """Held while open: the one adapter of a unit, whose process the file's first line names. Raises `error`."""
    try:
        held = path.open("a+")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
    except BlockingIOError:
        held.close()
        raise error(f"{path}: an adapter of the unit {name} runs already with this folder; give each unit a "
                    "name of its own in its file") from None  # fmt: skip
    except OSError as why:
        raise error(f"{path}: {why.strerror}") from None
    return held
