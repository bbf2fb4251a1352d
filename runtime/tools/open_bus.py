"""Opening a bus for a tool: one clear message when it is busy, missing or no bus at all; read-only from then on."""

import os
import stat
from pathlib import Path
from typing import Any, Self

import can
import serial
from pymodbus import FramerType
from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.exceptions import ModbusException

from tidegate.ext.bus.rtu_view import crc
from tidegate.hal.bridge import bus_options

SILENCE = "wiring (A and B swapped?)"
"""What to check where not a byte comes back."""
GARBLE = "baud rate and parity (bytes come, but no reply), two devices with one id, a second master"
"""What to check where bytes come back that are no reply."""
GATEWAY_SPOKE = (10, 11)  # exceptions that say that the device itself was not reached
LEAD_MOST, FRAME_MIN = 3, 5  # bytes before a reply, bytes of the shortest one
EXIT_BUSY = 75  # EX_TEMPFAIL: somebody else has the bus


class ToolError(Exception):
    """A bus that cannot be used, in one sentence; exit_code tells busy from the rest."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def holders(device: str) -> list[str]:
    """Processes that have the device open, as "name (pid)"; as far as this user may see."""
    try:
        wanted = os.stat(device)
    except OSError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            for fd in (entry / "fd").iterdir():
                seen = os.stat(fd)
                if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == wanted.st_rdev:
                    name = (entry / "comm").read_text().strip()
                    found.append(f"{name} (pid {entry.name})")
                    break
        except OSError:
            continue  # gone, or not ours to look at
    return found


class RegisterReader:
    """Reads registers of devices on one serial port. It has no way to write.

    device: the tty. Raises ToolError when it is missing, busy or no tty.
    """

    heard = False
    """Whether any byte came."""
    lead_in = 0
    """Most stray bytes seen to touch the front of a reply."""

    def __init__(
        self, device: str, baud: int = 9600, parity: str = "N", stop_bits: int = 1, timeout_s: float = 0.3
    ) -> None:
        self.device = device
        self._lock = claim(device, baud, parity, stop_bits)
        # pymodbus opens the port again; the lock above is ours, so it must not be asked for twice.
        self._lock.close()
        self._client: ModbusSerialClient | ModbusTcpClient = ModbusSerialClient(
            port=device, baudrate=baud, parity=parity, stopbits=stop_bits, timeout=timeout_s, retries=0,
            trace_packet=self._seen,
        )  # fmt: skip
        if not self._client.connect():
            raise ToolError(f"{device}: cannot be opened; see the line above, or try again")
        self.requests = 0

    def _seen(self, sending: bool, data: bytes) -> bytes:
        """What goes over the line; of what came, what stands behind the stray bytes of a line driver."""
        if sending or not data:
            return data
        self.heard = True
        for lead in range(1, LEAD_MOST + 1):
            if len(data) >= lead + FRAME_MIN and crc(data) != 0 and crc(data[lead:]) == 0:
                self.lead_in = max(self.lead_in, lead)
                return data[lead:]
        return data

    def close(self) -> None:
        """Give the port back."""
        self._client.close()  # type: ignore[no-untyped-call,unused-ignore]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, unit_id: int, function: int, address: int, count: int) -> list[int] | None:
        """The registers (function 3 or 4), None when the device answered with an exception.

        Raises TimeoutError when nobody answered. Functions 1 and 2 give one bit an item.
        """
        self.requests += 1
        ask = {
            1: self._client.read_coils,
            2: self._client.read_discrete_inputs,
            3: self._client.read_holding_registers,
            4: self._client.read_input_registers,
        }[function]
        try:
            answer = ask(address, count=count, device_id=unit_id)
        except ModbusException as error:
            raise TimeoutError(str(error)) from None
        if getattr(answer, "exception_code", 0) in GATEWAY_SPOKE:
            raise TimeoutError(f"a gateway answers for unit {unit_id}: it has no way to it, or no answer")
        if answer.isError():
            return None
        items = list(answer.registers if function in (3, 4) else [int(bit) for bit in answer.bits[:count]])
        return items if len(items) == count else None


class TcpReader(RegisterReader):
    """Reads registers of devices behind one TCP address. It has no way to write.

    where: ADDRESS or ADDRESS:PORT. rtu: RTU frames over TCP. Raises ToolError when nobody takes the connection.
    """

    def __init__(self, where: str, rtu: bool = False, timeout_s: float = 1.0) -> None:
        host, port = tcp_place(where)
        self.device = where
        self._client = ModbusTcpClient(
            host, port=port, framer=FramerType.RTU if rtu else FramerType.SOCKET, timeout=timeout_s, retries=0
        )
        if not self._client.connect():
            raise ToolError(f"{where}: takes no connection; check address and port, and whether the device is on")
        self.requests = 0


def tcp_place(where: str) -> tuple[str, int]:
    """(address, port) of ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; port 502 where none is given. Raises ToolError."""
    host, colon, port = where.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = where, "502"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ToolError(f"{where}: expected ADDRESS or ADDRESS:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def claim(device: str, baud: int, parity: str, stop_bits: int) -> serial.Serial:
    """The tty opened for us alone. Raises ToolError with the holder's name and pid when it is taken."""
    if not os.path.exists(device):
        raise ToolError(f"{device}: there is no such device (is the adapter plugged in? see /dev/serial/by-id)")
    try:
        return serial.Serial(device, baudrate=baud, parity=parity, stopbits=stop_bits, timeout=0, exclusive=True)
    except (serial.SerialException, OSError, ValueError) as error:
        text = str(error)
        if "exclusively lock" in text or "busy" in text.lower():
            who = ", ".join(holders(device)) or "another process"
            raise ToolError(
                f"{device}: in use by {who}; stop it first, two masters spoil each other", EXIT_BUSY
            ) from None
        if "Inappropriate ioctl" in text or "not a tty" in text.lower():
            raise ToolError(f"{device}: is not a serial port") from None
        if "Permission" in text:
            raise ToolError(f"{device}: no permission; add the user to the group dialout") from None
        raise ToolError(f"{device}: {text}") from None


def open_can(where: str, bitrate: int = 500000) -> can.BusABC:
    """A CAN bus by "can0" (SocketCAN) or "interface:channel" as python-can knows it (slcan:/dev/ttyACM0?key=value).

    Raises ToolError with the remedy when it is missing or down.
    """
    interface, _, channel = where.partition(":") if ":" in where else ("socketcan", ":", where)
    channel, _, words = channel.partition("?")
    try:
        options: dict[str, Any] = {} if interface in ("socketcan", "virtual", "udp_multicast") else {"bitrate": bitrate}
        options.update(bus_options(filter(None, words.split("&"))))
        return can.Bus(interface=interface, channel=channel, **options)
    except (can.CanError, OSError, ImportError, ValueError, TypeError) as error:
        remedy = ""
        if interface == "socketcan":
            remedy = f"; see `ip link show {channel}`, or: ip link set {channel} up type can bitrate {bitrate}"
        raise ToolError(f"{where}: {error}{remedy}") from None
