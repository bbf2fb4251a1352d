"""What tests beside a real process of another maker need: a free port, the process itself, and patience."""

import contextlib
import socket
import subprocess
import time

PATIENCE_S = 120


def free_port():
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def until(holds, why, *, despite=()):
    """Wait until it holds; what is raised of `despite` counts as not yet."""
    end = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(*despite):
            if holds():
                return
        assert time.monotonic() < end, why
        time.sleep(0.2)


@contextlib.contextmanager
def running(*words, cwd):
    """A process that writes to `out` in its folder, ended with the block."""
    with (cwd / "out").open("ab") as out:
        process = subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
