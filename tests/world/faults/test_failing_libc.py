"""Every call of libc that supervisor, gateway, sidecar and console make may fail: none of them dies in silence.

A process goes on, or ends, is named by the supervisor and started again; the battery runs by its plan all the while.
The slice of `make test` takes a few; `make syscall-faults` sweeps functions, errors and the number of the call.
"""

import errno
import mmap
import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.gateway.test_access import free_port
from tests.world.stop.rig import RUNS_W, LiveSite, RealPlant

WHOLE = bool(os.environ.get("TIDEGATE_SYSCALL_FAULTS"))
SOURCE = Path(__file__).with_name("failing_libc.c")
FUNCTIONS = re.findall(r"X\((\w+)\)", SOURCE.read_text().partition("#define FUNCTIONS(X)")[2].partition("enum")[0])
MODULES = {
    "supervisor": "tidegate.runtime.cli",
    "gateway": "tidegate.runtime.gateway",
    "sidecar": "tidegate.runtime.carbon",
    "console": "tidegate.runtime.console",
    "remote": "tidegate.runtime.gateway.remote",
}
SAID = {"sidecar": "carbon"}  # what the supervisor calls it
CORE = "tidegate.runtime.core.process"
ERRORS = ("EMFILE", "EAGAIN", "ENOSPC", "EIO", "EINTR", "ENOMEM")
SLOT = struct.Struct("iiiII12x")
AT_START = ("socket", "pthread_create", "open", "read", "write", "mmap", "mkdir", "rename", "fsync")
HIT_S = 1.5 if WHOLE else 1.0
BACK_S = 90.0


class Faults:
    """The control of one process: which of its calls fails next."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(SLOT.size * len(FUNCTIONS)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def slot(self, name: str) -> tuple[int, ...]:
        return SLOT.unpack_from(self._map, SLOT.size * FUNCTIONS.index(name))

    def calls(self, name: str) -> int:
        return self.slot(name)[4]

    def hits(self, name: str) -> int:
        return self.slot(name)[3]

    def fail(self, name: str, error: int, nth: int = 1, more: int = 0) -> None:
        at = SLOT.size * FUNCTIONS.index(name)
        struct.pack_into("ii", self._map, at + 4, error, more)
        struct.pack_into("i", self._map, at, nth)

    def leave(self, name: str) -> None:
        struct.pack_into("i", self._map, SLOT.size * FUNCTIONS.index(name), 0)
        struct.pack_into("i", self._map, SLOT.size * FUNCTIONS.index(name) + 8, 0)


class Bench:
    """A plant, a site on it whose processes' calls can fail, and what is asked of both afterwards."""

    def __init__(self, folder: Path) -> None:
        shim = folder / "failing_libc.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, SOURCE, "-ldl"], check=True)
        controls = folder / "controls"
        controls.mkdir()
        self.faults = {name: Faults(controls / module) for name, module in MODULES.items()}
        self.plant = RealPlant(folder)
        self.folder = folder
        self.more = {"LD_PRELOAD": str(shim), "TIDEGATE_TEST_FAULTS": str(controls)}
        self.starts = 0
        self.site = self.started()

    def started(self) -> LiveSite:
        """The site with all its processes."""
        self.site = site = LiveSite(self.folder, self.plant, free_port(), self.more)
        self.starts += 1
        try:
            assert site.running(), site.said[-3000:]
            self.core = site.pid(CORE)
            until = time.monotonic() + BACK_S
            while time.monotonic() < until and not all(map(self.pid, MODULES)):
                time.sleep(0.1)
            for name in MODULES:
                assert self.pid(name), f"{name}: {site.said[-3000:]}"
        except BaseException:
            self.close()
            raise
        return site

    def renew(self, name: str) -> None:
        """Wait for a process that ended late, by the call before this one, which was told then.

        One that only listens is given up, aloud, after five ends in a minute: the site is started anew to go on.
        """
        until = time.monotonic() + BACK_S
        while not self.pid(name) and time.monotonic() < until:
            said, who = self.site.said, SAID.get(name, name)
            if f"{who} ended 5 times" in said or f"{who} needs a person" in said:
                if not WHOLE:  # a slice is content with what was tried until then
                    return
                self.site.close()
                self.started()
            time.sleep(0.1)

    def pid(self, name: str) -> int:
        return self.site.process.pid if name == "supervisor" else self.site.pid(MODULES[name])

    def look(self, name: str, what: str, before: int, said_before: int) -> str:
        """What is wrong now, "" if nothing is; waits until who ended is back."""
        if self.site.process.poll() is not None:
            return f"{what}: the supervisor has ended: {self.site.said[-1500:]}"
        if self.site.pid(CORE) != self.core:
            return f"{what}: the core has ended: {self.site.said[-1500:]}"
        if name != "supervisor" and (now := self.pid(name)) != before:
            until = time.monotonic() + BACK_S
            while not now and time.monotonic() < until:
                time.sleep(0.1)
                now = self.pid(name)
            said = self.site.said[said_before:]
            if not now and f"{SAID.get(name, name)} ended 5 times" not in said:
                return f"{what}: did not come back: {said[-1500:]}"
            if f"tidegate: {SAID.get(name, name)}" not in said:
                return f"{what}: ended without a word: {said[-1500:]}"
        until = time.monotonic() + BACK_S  # a machine that starves derates for a moment by itself
        while abs(self.plant.power_w) < RUNS_W and time.monotonic() < until:
            time.sleep(0.1)
        if abs(self.plant.power_w) < RUNS_W:
            return f"{what}: the battery stands still ({self.plant.power_w} W)"
        return ""

    def inject(self, name: str, function: str, error: str, nth: int = 1, more: int = 0) -> str | None:
        """Let a call fail and look what becomes of it; None if it was not made in time."""
        self.renew(name)
        said_before = len(self.site.said)  # first: a process that ends meanwhile has then had its word
        faults, before = self.faults[name], self.pid(name)
        hits = faults.hits(function)
        faults.fail(function, getattr(errno, error), nth, more)
        until = time.monotonic() + HIT_S
        while faults.hits(function) == hits and time.monotonic() < until:
            if name == "console":
                self.site.type("s")
            time.sleep(0.01)
        faults.leave(function)
        if faults.hits(function) == hits:
            return None
        time.sleep(0.15)
        return self.look(name, f"{name}: {function} number {nth} fails with {error}", before, said_before)

    def inject_at_start(self, name: str, function: str, error: str, nth: int) -> str | None:
        """End a process, and let the n-th call of the one that follows it fail."""
        self.renew(name)
        said_before = len(self.site.said)  # first: a process that ends meanwhile has then had its word
        faults, before = self.faults[name], self.pid(name)
        if not before:
            return f"{name} is not there: {self.site.said[-1500:]}"
        hits = faults.hits(function)
        os.kill(before, signal.SIGSTOP)  # so that the call counted is one of the next
        faults.fail(function, getattr(errno, error), nth)
        os.kill(before, signal.SIGKILL)
        until = time.monotonic() + 15.0
        while faults.hits(function) == hits and time.monotonic() < until:
            time.sleep(0.02)
        faults.leave(function)
        missed = faults.hits(function) == hits
        until = time.monotonic() + BACK_S
        while self.pid(name) in (0, before) and time.monotonic() < until:
            time.sleep(0.05)
        wrong = self.look(name, f"{name} starts: {function} number {nth} fails with {error}", before, said_before)
        return wrong or (None if missed else "")

    def close(self) -> None:
        self.site.close()
        self.plant.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


def told(found: str) -> list[str]:
    """What was found, if anything; a whole run takes long, so it is shown at once."""
    if found:
        print(found, flush=True)
    return [found] if found else []


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", list(MODULES))
def test_a_call_that_fails_ends_nobody_in_silence(bench: Bench, name: str) -> None:
    wrong, tried = [], 0
    for function in FUNCTIONS:
        if not bench.faults[name].calls(function):
            continue
        for error in ERRORS if WHOLE else (ERRORS[FUNCTIONS.index(function) % len(ERRORS)],):
            for nth, more in ((1, 0), (2, 0), (7, 0), (1, 20)) if WHOLE else ((1, 0),):
                found = bench.inject(name, function, error, nth, more)
                if found is None:
                    break  # it does not make this call now
                tried += 1
                wrong += told(found)
    print(f"{name}: {tried} calls failed, {len(wrong)} wrong")
    assert tried and not wrong, "\n".join(wrong[:10])


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["gateway", "sidecar", "console", "remote"] if WHOLE else ["gateway"])
def test_a_call_that_fails_at_the_start_does_not_keep_a_process_away(bench: Bench, name: str) -> None:
    wrong, tried = [], 0
    numbers = (1, 3, 10, 30, 100) if WHOLE else (2,)
    for function in AT_START if WHOLE else AT_START[:2]:
        for nth in numbers:
            found = bench.inject_at_start(name, function, ("EMFILE", "ENOMEM", "EIO")[nth % 3], nth)
            if found is None:
                break
            tried += 1
            wrong += told(found)
    print(f"{name}: {tried} calls failed at the start, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:10])
