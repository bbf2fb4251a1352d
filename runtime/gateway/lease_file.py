"""The lease in a file of the runtime folder, so that a gateway that was killed goes on with it.

Nothing is synced: the file outlives the process, and need not outlive the machine, whose next core has another boot id.
"""

import contextlib
import os
from dataclasses import asdict
from pathlib import Path

import msgpack

from tidegate.runtime.gateway.command_handler import Lease


class LeaseFile:
    """What is held during one start of the core. boot : id of that start."""

    def __init__(self, path: Path, boot: bytes) -> None:
        self.path = path
        self.boot = boot

    def write(self, held: Lease | None) -> None:
        """Keep the lease whole or not at all; None removes it. Raises OSError."""
        if held is None:
            self.path.unlink(missing_ok=True)
            return
        new = self.path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, msgpack.packb({"boot": self.boot, **asdict(held)}))
        finally:
            os.close(fd)
        os.replace(new, self.path)

    def read(self) -> Lease | None:
        """The lease that a gateway before this one kept beside the same core; None if there is none."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = msgpack.unpackb(self.path.read_bytes())
            if found.pop("boot") == self.boot:
                return Lease(**found)
        return None
