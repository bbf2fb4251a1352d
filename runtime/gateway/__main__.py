"""`python -m tidegate.runtime.gateway`: started by the supervisor, or by systemd with the same descriptors."""

import argparse
import contextlib
import mmap
import os
import resource
import signal
import sys
from pathlib import Path

from tidegate.ext.abi import program, shared
from tidegate.hal.description import described
from tidegate.runtime.gateway.app import Gateway, journal_dir
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.state.held import held_dir

DESCRIPTORS = 16384
PRIORITY = -5  # nice


def main(words: list[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tidegate.runtime.gateway", description=__doc__)
    parser.add_argument("--program-fd", type=int, required=True, help="descriptor of the compiled site")
    parser.add_argument("--shared-fd", type=int, required=True, help="descriptor of the core's shared memory")
    parser.add_argument("--runtime-dir", type=Path, required=True, help="folder of the sockets")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder of the journal")
    args = parser.parse_args(words)
    stopping = False
    gateway: Gateway | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        if gateway is not None:
            gateway.stopping = True
            os.eventfd_write(gateway.wake, 1)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with contextlib.suppress(OSError, ValueError):  # room for what sockets.py lets in, and more
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)  # a command waits for us; without the right, as any program
    with mmap.mmap(args.program_fd, 0, prot=mmap.PROT_READ) as blob:
        site = described(program.describe(bytes(blob)))
    kept = [Path(site.gateway.keys)] if site.gateway.keys else []
    # The folders of other sites beside it are read for what was latched at the same buses.
    written = [held_dir(args.state_dir), journal_dir(args.state_dir)]
    if not all(folder.is_dir() for folder in written):
        written = [args.state_dir]
        said = "its folders cannot be made now, so this process may write all of it until it is started again"
        print(f"gateway: {args.state_dir}: {said}", file=sys.stderr, flush=True)
    enclose("gateway", [*written, args.runtime_dir], [args.state_dir.parent, args.runtime_dir.parent, *kept])
    memory = shared.Shared(args.shared_fd)
    try:
        gateway = Gateway(site, memory, args.runtime_dir, args.state_dir)
    except OSError as why:
        print(f"gateway: {why}", file=sys.stderr)
        return 1
    gateway.stopping = stopping
    print("gateway: ready", flush=True)
    gateway.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
