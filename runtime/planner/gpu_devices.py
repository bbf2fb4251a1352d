"""NVIDIA's management library as the caps need it: limits in mW, each call opened and closed by itself."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pynvml


class GpuError(Exception):
    """The driver did not do what it was asked: which GPU, which call, what it said."""


@dataclass(frozen=True)
class GpuPower:
    """One GPU now, mW. limit: what was set last; enforced: what binds, by whatever rule of the driver.

    fixed: the driver lets nobody set its limit; then the others are 0.
    """

    uuid: str
    limit_mw: int = 0
    enforced_mw: int = 0
    least_mw: int = 0
    most_mw: int = 0
    fixed: bool = False


class Gpus(Protocol):
    """What the caps ask of a machine's GPUs."""

    def read(self) -> list[GpuPower]: ...
    def set_limit(self, uuid: str, limit_mw: int) -> None: ...


@contextlib.contextmanager
def _opened(what: str) -> Iterator[None]:
    """The library, loaded for the time of a call: a driver that is unloaded and loaded again is met afresh."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as why:
        raise GpuError(f"{what}: {why}") from None
    try:
        yield
    except pynvml.NVMLError as why:
        raise GpuError(f"{what}: {why}") from None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Nvml:
    """The GPUs of this machine."""

    def read(self) -> list[GpuPower]:
        """All of them, also those whose limit nobody can set. Raises GpuError."""
        found = []
        with _opened("reading the GPUs"):
            for index in range(pynvml.nvmlDeviceGetCount()):
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                try:
                    least, most = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(device)
                except pynvml.NVMLError_NotSupported:
                    found.append(GpuPower(_text(pynvml.nvmlDeviceGetUUID(device)), fixed=True))
                    continue
                found.append(GpuPower(
                    _text(pynvml.nvmlDeviceGetUUID(device)), pynvml.nvmlDeviceGetPowerManagementLimit(device),
                    pynvml.nvmlDeviceGetEnforcedPowerLimit(device), least, most,
                ))  # fmt: skip
        return found

    def set_limit(self, uuid: str, limit_mw: int) -> None:
        """Needs root. Raises GpuError."""
        with _opened(f"GPU {uuid}, limit {limit_mw / 1e3:g} W"):
            device = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
            pynvml.nvmlDeviceSetPowerManagementLimit(device, limit_mw)
