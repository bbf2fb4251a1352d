"""The cards of this very machine, by NVML: power, how busy, and which processes hold them.

The driver may stand still; its calls are made by one thread of their own, and while that waits nothing else is asked.
"""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tidegate.runtime.telemetry.sample import Heard, Sample, Thing, nothing, plausible_w, shortened

CALL_S = 5.0
CARDS_MAX = 64
_SLURM = re.compile(r"/job_(\d+)(?:/|$)")


class NvmlError(OSError):
    """No usable answer of the driver; the text says why."""


class NvmlCards:
    """All cards that the driver of this machine shows. rack : of this machine."""

    def __init__(self, rack: str, proc: Path = Path("/proc")) -> None:
        self.host = socket.gethostname()
        self._rack, self._proc = rack, proc
        self._running: asyncio.Future[Heard] | None = None

    async def hear(self) -> Heard:
        """Ask once. Raises NvmlError."""
        if self._running is not None and not self._running.done():
            raise NvmlError("the driver still has not answered the question before")
        loop = asyncio.get_running_loop()
        self._running = future = loop.create_future()

        def run() -> None:
            try:
                heard = self._ask()
            except NvmlError as why:
                loop.call_soon_threadsafe(future.set_exception, why)
            except Exception as why:
                loop.call_soon_threadsafe(future.set_exception, NvmlError(f"{type(why).__name__}: {why}"))
            else:
                loop.call_soon_threadsafe(future.set_result, heard)

        threading.Thread(target=run, name="nvml", daemon=True).start()  # a driver that hangs keeps no process alive
        try:
            return await asyncio.wait_for(asyncio.shield(self._running), CALL_S)
        except TimeoutError:
            raise NvmlError(f"the driver has not answered within {CALL_S:g} s") from None

    def _ask(self) -> Heard:
        try:
            import pynvml
        except ImportError:
            raise NvmlError("nvidia-ml-py is not installed; pip install 'tidegate[nvml]'") from None
        heard = nothing()
        try:
            pynvml.nvmlInit()
            try:
                for number in range(min(pynvml.nvmlDeviceGetCount(), CARDS_MAX)):
                    self._card(pynvml, number, heard)
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as why:
            raise NvmlError(f"NVML: {why}") from None
        if not heard.samples:
            raise NvmlError("; ".join(heard.problems) or "the driver shows no card")
        return heard

    def _card(self, nvml: "_Nvml", number: int, heard: Heard) -> None:
        """One card; what it does not say costs the others nothing."""
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        try:
            watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0
        except nvml.NVMLError as why:
            heard.problems.append(f"{self.host} GPU {number}: says no power ({why}); it is not counted")
            return
        if not plausible_w(watts):
            heard.problems.append(f"{self.host} GPU {number}: {watts:g} W; it is not counted")
            return
        try:
            busy: float | None = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0
        except nvml.NVMLError:
            busy = None  # a card that is cut does not say
        try:
            pids = sorted({one.pid for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)})
        except nvml.NVMLError as why:
            pids = []
            heard.problems.append(f"{self.host} GPU {number}: does not say who holds it ({why})")
        job = shortened(", ".join(dict.fromkeys(self._job(pid) for pid in pids)))
        thing = Thing("card", f"{self.host} GPU {number}", self.host, self._rack, "", job)
        heard.samples.append(Sample(thing, watts, busy))

    def _job(self, pid: int) -> str:
        """The job of a process: Slurm's number where it runs in one, else the program's name."""
        try:
            found = _SLURM.search((self._proc / str(pid) / "cgroup").read_text("utf-8", "replace"))
            return found[1] if found else (self._proc / str(pid) / "comm").read_text("utf-8", "replace").strip()
        except OSError:
            return f"process {pid}"


class _Nvml:
    """What is called of pynvml, which has no types."""

    NVMLError: type[Exception]
    nvmlDeviceGetHandleByIndex: Callable[[int], object]
    nvmlDeviceGetPowerUsage: Callable[[object], int]
    nvmlDeviceGetUtilizationRates: Callable[[object], "_Rates"]
    nvmlDeviceGetComputeRunningProcesses: Callable[[object], "list[_Process]"]


class _Rates:
    gpu: int


class _Process:
    pid: int


def device_files() -> Iterator[Path]:
    """What the driver's library opens."""
    yield from sorted(Path("/dev").glob("nvidia*"))
