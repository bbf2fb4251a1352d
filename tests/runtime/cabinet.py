"""The simulated cabinet as a user starts it, `tidegate simulate`, and commands as a user gives them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]
NAMEPLATE = [
    *("--energy-wh", "60000", "--charge-w-max", "30000", "--discharge-w-max", "30000"),
    *("--connection-import-w-max", "60000", "--peak-w-max", "50000"),
]


class Cabinet:
    """One `tidegate simulate`; its buses are links in `folder`."""

    def __init__(self, folder: Path, site: Path | None = None) -> None:
        self.folder = folder
        words = [*TIDEGATE, "simulate", *([str(site)] if site else []), "--at", str(folder)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline() for _ in range(4)]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    @property
    def words(self) -> list[str]:
        """Options of `tidegate init` that name its buses."""
        at, can = self.folder, f"slcan:{self.folder}/bms?sleep_after_open=0.2"
        return ["--serial", f"{at}/meters", "--serial", f"{at}/pcs", "--can", can, "--ids", "1", "--seconds", "1"]

    def close(self) -> int:
        self.process.terminate()
        return self.process.wait(20)


def tidegate(*words: str, folder: Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """A command with folders of its own for sockets and state."""
    places = {"TIDEGATE_RUNTIME_DIR": str(folder / "run"), "TIDEGATE_STATE_DIR": str(folder / "state")}
    return subprocess.run(
        [*TIDEGATE, *words], capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **places},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def eventually(done, timeout_s: float = 60.0) -> bool:  # type: ignore[no-untyped-def]
    """Wait until `done`."""
    until = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
