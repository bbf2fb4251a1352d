"""What a serial adapter does to timing: low latency asked for, RS-485 handed to the driver, and both verified.

Nothing here is assumed to work: `tune` says what the driver took, and `turnaround_words` reads from the measured
turnarounds of the running port whether bytes are still held back.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIOCGSERIAL, TIOCSSERIAL = 0x541E, 0x541F
TIOCGRS485, TIOCSRS485 = 0x542E, 0x542F
ASYNC_LOW_LATENCY = 1 << 13
SER_RS485_ENABLED, SER_RS485_RTS_ON_SEND, SER_RS485_RTS_AFTER_SEND = 1, 2, 4
SERIAL_STRUCT_ROOM, SERIAL_FLAGS_AT = 128, 16  # struct serial_struct: type, line, port, irq, then flags
RS485_STRUCT = struct.Struct("=8I")
FTDI_DEFAULT_MS = 16


@dataclass
class Tuned:
    """What one adapter took. None: it has no such knob."""

    low_latency: bool | None = None
    latency_timer_ms: int | None = None
    rs485: bool | None = None
    words: list[str] = field(default_factory=list)  # what it lacks, for people


def tune(fd: int, device: str, rs485: bool = False, sys_root: str = "/sys") -> Tuned:
    """Ask the driver behind `fd` for low latency, an FTDI adapter for 1 ms, and with `rs485` for driver turn-round.

    device : path of the tty, which names its folder below sys_root. Raises OSError only for rs485 that is refused:
    without it two transmitters would drive the line.
    """
    tuned = Tuned()
    _low_latency(fd, device, tuned)
    _latency_timer(device, sys_root, tuned)
    if rs485:
        _rs485(fd, device, tuned)
    return tuned


def look(fd: int, device: str, sys_root: str = "/sys") -> Tuned:
    """What the adapter behind `fd` is set to now; changes nothing."""
    tuned = Tuned()
    held = bytearray(SERIAL_STRUCT_ROOM)
    with contextlib.suppress(OSError):  # it has no such knob
        fcntl.ioctl(fd, TIOCGSERIAL, held)
        tuned.low_latency = bool(struct.unpack_from("=i", held, SERIAL_FLAGS_AT)[0] & ASYNC_LOW_LATENCY)
    with contextlib.suppress(OSError, ValueError):  # not an FTDI adapter
        tuned.latency_timer_ms = int(_timer_knob(device, sys_root).read_text())
    return tuned


def _timer_knob(device: str, sys_root: str) -> Path:
    return Path(sys_root) / "bus/usb-serial/devices" / Path(os.path.realpath(device)).name / "latency_timer"


def _low_latency(fd: int, device: str, tuned: Tuned) -> None:
    held = bytearray(SERIAL_STRUCT_ROOM)
    try:
        fcntl.ioctl(fd, TIOCGSERIAL, held)
        flags = struct.unpack_from("=i", held, SERIAL_FLAGS_AT)[0] | ASYNC_LOW_LATENCY
        struct.pack_into("=i", held, SERIAL_FLAGS_AT, flags)
        fcntl.ioctl(fd, TIOCSSERIAL, bytes(held))
        fcntl.ioctl(fd, TIOCGSERIAL, held)
        tuned.low_latency = bool(struct.unpack_from("=i", held, SERIAL_FLAGS_AT)[0] & ASYNC_LOW_LATENCY)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            tuned.low_latency = False
            tuned.words.append(f"{device}: low latency refused ({error.strerror}); replies may come late")


def _latency_timer(device: str, sys_root: str, tuned: Tuned) -> None:
    knob = _timer_knob(device, sys_root)
    try:
        if knob.read_text().strip() != "1":
            knob.write_text("1")
    except FileNotFoundError:
        return  # not an FTDI adapter
    except OSError as error:
        tuned.words.append(
            f"{device}: {knob} stays as it is ({error.strerror}): up to {FTDI_DEFAULT_MS} ms a reply; "
            f"allow writing it by a udev rule"
        )
    try:
        tuned.latency_timer_ms = int(knob.read_text())
    except (OSError, ValueError):
        tuned.words.append(f"{device}: {knob} cannot be read back")


def _rs485(fd: int, device: str, tuned: Tuned) -> None:
    wanted = RS485_STRUCT.pack(SER_RS485_ENABLED | SER_RS485_RTS_ON_SEND, 0, 0, 0, 0, 0, 0, 0)
    try:
        fcntl.ioctl(fd, TIOCSRS485, wanted)
        held = bytearray(RS485_STRUCT.size)
        fcntl.ioctl(fd, TIOCGRS485, held)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{device}: the driver does not turn an RS-485 line round ({error.strerror}); use an adapter that does it "
            f"in hardware and leave rs485 out of the site file",
        ) from None
    tuned.rs485 = bool(RS485_STRUCT.unpack(bytes(held))[0] & SER_RS485_ENABLED)
    if not tuned.rs485:
        raise OSError(errno.EIO, f"{device}: the driver took the RS-485 request and did not keep it")


def quantile_ns(buckets: Sequence[int], edges: Sequence[int], part: float) -> int | None:
    """Upper edge in ns of the bucket that holds this part of a slave's histogram; None while it is empty."""
    total = sum(buckets)
    if not total:
        return None
    seen = 0
    for count, edge in zip(buckets, edges, strict=True):
        seen += count
        if seen >= part * total:
            return edge
    return edges[-1]


def lead_in_words(port: str, names: Sequence[str], stats: Mapping[str, Any]) -> list[str]:
    """A sentence for each device whose right replies are not believed for a stray byte that touches their front.

    names: of its devices, in the order of `stats["slaves"]`. stats: `Port.stats`.
    """
    return [
        f"{port}: {slave['lead_ins']} replies of {name} were right behind one to three stray bytes that touch them, "
        f"and not believed: its line driver or the adapter turns round late. Add bias resistors or another adapter, "
        f"or set lead_in_bytes of [[serial]] {port}"
        for name, slave in zip(names, stats["slaves"], strict=False)
        if slave["lead_ins"]
    ]


def turnaround_words(port: str, stats: Mapping[str, Any], edges: Sequence[int], least: int = 32) -> list[str]:
    """What the measured turnarounds of a port say about its adapter, a sentence a finding; empty when all is well.

    stats : `Port.stats`. edges: `tidegate.ext.bus.rtu_view.histogram_edges()`. least: answers before anything is said.
    Many devices are slow; an adapter that holds bytes back makes *every* slave on it slow by the same amount.
    """
    quick = [
        at
        for slave in stats["slaves"]
        if sum(slave["turnaround"]) >= least and (at := quantile_ns(slave["turnaround"], edges, 0.1)) is not None
    ]
    if quick and min(quick) >= 10_000_000:
        return [
            f"{port}: nine of ten replies begin {min(quick) / 1e6:.0f} ms or more after the request, on every slave: "
            f"the adapter seems to hold bytes back (FTDI: latency_timer {FTDI_DEFAULT_MS}); set it to 1 or use another"
        ]
    return []
