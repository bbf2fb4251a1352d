"""Pylontech's RS-485 frames for the tools: packs that are asked one by one, and frames found in what passes."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tidegate.ext.bus import pylon
from tidegate.hal import maps
from tidegate.hal.decode import decode_registers
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError, claim, tcp_place
from tidegate.runtime.tools.sniff import RtuFrame, values_in

READ = 3  # the function that stands for a question in the maps
ANALOG, VERSION = 0x42, 0x4F
MAP = "pylontech-rs485"
SOI, EOI = b"~", b"\r"
FRAME_CHARS = (18, 512)
NO_ANSWER = 11  # exception of a pack that has no such pack behind it
RESULTS = {
    0x00: "answer", 0x01: "refused: unknown version", 0x02: "refused: checksum", 0x03: "refused: length's checksum",
    0x04: "refused: unknown command", 0x05: "refused: form of the command", 0x06: "refused: value",
    0x90: "refused: no such address", 0x91: "refused: no answer inside",
}  # fmt: skip


class PylonReader(RegisterReader):
    """Asks packs on a tty, as registers of their map. Nothing in this protocol can be written by it."""

    def __init__(self, device: str, baud: int = 115200, parity: str = "N", timeout_s: float = 0.6) -> None:
        self.device, self.timeout_s, self.requests = device, timeout_s, 0
        self._tty = claim(device, baud, parity, 1)
        self._tty.timeout = 0.02

    def close(self) -> None:
        """Give the line back."""
        self._tty.close()

    def _send(self, question: bytes) -> None:
        self._tty.reset_input_buffer()
        self._tty.write(question)

    def _receive(self) -> bytes:
        """What has come within a moment."""
        return bytes(self._tty.read(max(1, self._tty.in_waiting)))

    def read(self, unit_id: int, function: int, address: int, count: int) -> list[int] | None:
        """Registers of a pack as `ext/bus/pylon.pyx` lays its answer out; None where it is no answer of such a pack.

        Raises TimeoutError when no whole answer came, and for a pack that only another one answers for.
        """
        self.requests += 1
        asked = bytes([unit_id, function]) + address.to_bytes(2) + count.to_bytes(2)
        self._send(pylon.ask(asked))
        held, until = b"", time.monotonic() + self.timeout_s
        while time.monotonic() < until:
            came = self._receive()
            if came:
                self.heard = True
                held += came
                until = time.monotonic() + self.timeout_s
            for status, reply in pylon.answers(asked, held):
                if status == "damaged":
                    raise TimeoutError(f"pack {unit_id}: an answer whose checksum or length is wrong")
                if status == "echo" or reply[0] != unit_id:
                    continue
                if reply[1] & 0x80:
                    if reply[2] == NO_ANSWER:
                        raise TimeoutError(f"pack {unit_id}: no such pack")
                    return None
                if reply[2] != 2 * count:
                    return None
                return [int.from_bytes(reply[at : at + 2]) for at in range(3, len(reply), 2)]
        raise TimeoutError(f"pack {unit_id}: no answer")


class PylonTcpReader(PylonReader):
    """The same through a serial gateway that hands characters on. where: ADDRESS or ADDRESS:PORT."""

    def __init__(self, where: str, timeout_s: float = 1.0) -> None:
        self.device, self.timeout_s, self.requests = where, timeout_s, 0
        try:
            self._socket = socket.create_connection(tcp_place(where), timeout=3.0)
        except OSError as error:
            raise ToolError(f"{where}: takes no connection ({error}); check address and port") from None
        self._socket.settimeout(0.02)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _send(self, question: bytes) -> None:
        while self._receive():
            pass  # what nobody asked for
        try:
            self._socket.sendall(question)
        except OSError as error:
            raise ToolError(f"{self.device}: the gateway closed the connection ({error})") from None

    def _receive(self) -> bytes:
        try:
            came = self._socket.recv(4096)
        except TimeoutError:
            return b""
        except OSError as error:
            raise ToolError(f"{self.device}: the gateway closed the connection ({error})") from None
        if not came:
            raise ToolError(f"{self.device}: the gateway closed the connection; does another master hold it?")
        return came


@dataclass
class FoundPack:
    """One pack that answers. fits: its answers are laid out as the map reads them."""

    unit_id: int
    fits: bool
    cells: int = 0
    sensors: int = 0
    values: dict[str, float | None] = field(default_factory=dict)


def scan_packs(
    reader: PylonReader, unit_ids: Iterable[int], progress: Callable[[int], None] | None = None
) -> list[FoundPack]:
    """Every pack that answers its version question, with what it measures. Calls progress with each address."""
    found = []
    for unit_id in unit_ids:
        try:
            reader.read(unit_id, READ, VERSION << 8, 4)
            found.append(_pack(reader, unit_id))
        except TimeoutError:
            pass
        if progress:
            progress(unit_id)
    return found


def _pack(reader: PylonReader, unit_id: int) -> FoundPack:
    shipped = maps.shipped(MAP)
    words = reader.read(unit_id, READ, ANALOG << 8, pylon.WORDS[ANALOG])
    if words is None:
        return FoundPack(unit_id, False)
    values: dict[str, float | None] = {}
    for point in shipped.point:
        at = (point.address or 0) - (ANALOG << 8)
        if 0 <= at < len(words):
            values[point.name] = decode_registers(point, words[at : at + point.words])
    return FoundPack(unit_id, True, words[0], words[3], values)


def is_frame(data: bytes) -> bool:
    """Whether it is a whole frame: `~`, hexadecimal digits, a checksum that is right, a carriage return."""
    if not FRAME_CHARS[0] <= len(data) <= FRAME_CHARS[1] or data[:1] != SOI or data[-1:] != EOI:
        return False
    digits = data[1:-1]
    if any(one not in b"0123456789ABCDEF" for one in digits):
        return False
    return int(digits[-4:], 16) == -sum(digits[:-4]) & 0xFFFF


@dataclass
class PylonFrame(RtuFrame):
    """One frame. kind: question, answer, or why a question was refused. command: of the question, -1 = not known."""

    command: int = -1

    @property
    def unit_id(self) -> int:
        """The pack that is asked or answers."""
        return int(self.data[3:5], 16)

    @property
    def function(self) -> int:
        """Command of a question, result of an answer."""
        return int(self.data[7:9], 16)


class PylonSplitter:
    """Finds frames in a stream of characters. `foreign` counts those that belong to none.

    devices: address -> (name, map), to decode the answers.
    """

    def __init__(self, devices: dict[int, tuple[str, DeviceMap]] | None = None) -> None:
        self.devices = devices or {}
        self.foreign = 0
        self._held = b""
        self._asked: PylonFrame | None = None

    def feed(self, data: bytes, t_s: float) -> Iterator[PylonFrame]:
        """Frames that are whole now. An empty `data` says that the line was silent: what is held is foreign."""
        self._held += data
        if not data or len(self._held) > 2 * FRAME_CHARS[1]:
            self.foreign += len(self._held)
            self._held = b""
        while EOI in self._held:
            piece, _, self._held = self._held.partition(EOI)
            begin = max(piece.rfind(SOI), 0)
            self.foreign += begin
            frame = piece[begin:] + EOI
            if is_frame(frame):
                yield self._named(frame, t_s)
            else:
                self.foreign += len(frame)

    def _named(self, data: bytes, t_s: float) -> PylonFrame:
        frame = PylonFrame(t_s, data, RESULTS.get(int(data[7:9], 16), "question"))
        frame.device = self.devices[frame.unit_id][0] if frame.unit_id in self.devices else ""
        if frame.kind == "question":
            frame.command = frame.function
            self._asked = frame
            return frame
        asked, self._asked = self._asked, None
        if asked is not None and asked.unit_id == frame.unit_id:
            frame.command = asked.command
            if frame.kind == "answer" and frame.unit_id in self.devices:
                frame.values = self._values(frame)
        return frame

    def _values(self, frame: PylonFrame) -> dict[str, float | None]:
        count = pylon.WORDS.get(frame.command, 0)
        if not count:
            return {}
        asked = bytes([frame.unit_id, READ, frame.command, 0, 0, count])
        for status, reply in pylon.answers(asked, frame.data):
            if status == "frame" and reply[:3] == bytes([frame.unit_id, READ, 2 * count]):
                words = [int.from_bytes(reply[at : at + 2]) for at in range(3, len(reply), 2)]
                return values_in(self.devices[frame.unit_id][1], READ, frame.command << 8, words)
        frame.kind = "answer that is none to this question"
        return {}
