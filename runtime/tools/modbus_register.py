"""One value of a foreign device by Modbus TCP or RTU: where it stands, by the owner's file, read and written.

For processes beside the loop, which open a line, ask and close it again. A line that the site's own core holds is none
for them: two masters on one wire speak at once.
"""

import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Literal, Self, TypeVar

from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.client.base import ModbusBaseSyncClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

ASK_S = 3.0
TYPES = {name: ModbusTcpClient.DATATYPE[name.upper()] for name in ("int16", "uint16", "int32", "uint32", "float32")}
BITS, WORDS = ("coil", "discrete"), ("holding", "input")
WRITABLE = ("coil", "holding")
PARITIES = ("N", "E", "O")
TCP_KEYS, SERIAL_KEYS = ("host", "port"), ("serial", "baud", "parity", "stop_bits")
LINE_KEYS = (*TCP_KEYS, *SERIAL_KEYS, "unit")  # what a file may give once for all of a device's registers


class RegisterError(Exception):
    """A device did not answer or refused, or its file is wrong: which, what was asked, what to do."""


@dataclass(frozen=True)
class Register:
    """Where one value stands: at a host, or on a serial line. scale: value of one count; a bit is worth 0 or 1."""

    register: int
    host: str = ""
    port: int = 502
    serial: str = ""
    baud: int = 9600
    parity: str = "N"
    stop_bits: int = 1
    unit: int = 1
    kind: str = "holding"
    type: str = "int16"
    words: str = "big"
    scale: float = 1.0

    @property
    def line(self) -> tuple[object, ...]:
        """What the connection is made of; equal for registers that share one."""
        if self.serial:
            return self.serial, self.baud, self.parity, self.stop_bits
        return self.host, self.port

    @property
    def place(self) -> str:
        """In words."""
        line = self.serial or f"{self.host}:{self.port}"
        return f"{line} unit {self.unit} {self.kind} {'' if self.kind in BITS else 'register '}{self.register}"

    @property
    def resolution(self) -> float:
        """The least difference that can stand there; 0 for float32."""
        return 0.0 if self.type == "float32" and self.kind in WORDS else abs(self.scale)


Made = TypeVar("Made", bound=Register)


def register_of(where: str, row: object, default: dict[str, object], made_as: type[Made], *,
                kinds: tuple[str, ...] = WORDS) -> Made:  # fmt: skip
    """The register that a table of a file names; default: what the file gives for all. Raises RegisterError."""
    known = {one.name for one in fields(made_as)}
    if not isinstance(row, dict):
        raise RegisterError(f"{where}: is missing; give at least its register")
    if foreign := sorted(set(row) - known):
        raise RegisterError(f"{where}: {foreign[0]} is no key of a register")
    other = SERIAL_KEYS if "host" in row else TCP_KEYS if "serial" in row else ()
    try:
        made = made_as(**{**{key: value for key, value in default.items() if key not in other}, **row})
    except TypeError as why:
        raise RegisterError(f"{where}: {why}") from None
    if not isinstance(made.host, str) or not isinstance(made.serial, str) or not made.host + made.serial:
        raise RegisterError(f"{where}: no host and no serial, here or in [unit]: write host = \"10.0.0.9\" or "
                            'serial = "/dev/ttyUSB0"')  # fmt: skip
    if made.host and made.serial:
        raise RegisterError(f"{where}: host and serial: a device is at one of both; remove the other")
    units = (1, 247) if made.serial else (0, 255)
    whole = (("register", 0, 65_535), ("port", 1, 65_535), ("unit", *units), ("baud", 300, 4_000_000))
    for key, least, most in whole:
        value = getattr(made, key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise RegisterError(f"{where}: {key} = {value!r}: write a whole number from {least} to {most}")
    words: tuple[tuple[str, tuple[object, ...]], ...] = (
        ("kind", kinds), ("type", tuple(TYPES)), ("words", ("big", "little")), ("parity", PARITIES),
        ("stop_bits", (1, 2)),
    )  # fmt: skip
    for key, allowed in words:
        if getattr(made, key) not in allowed:
            raise RegisterError(f"{where}: {key} = {getattr(made, key)!r}: write {', '.join(map(str, allowed))}")
    for key in sorted(known & {"scale", "offset_c"}):
        value = getattr(made, key)
        if not isinstance(value, int | float) or not math.isfinite(value) or (key == "scale" and not value):
            raise RegisterError(f"{where}: {key} = {value!r}: write a number")
    return made


def line_of_site(registers: Iterable[Register], ports: Iterable[Mapping[str, object]]) -> str:
    """In words, the serial line that the site's core has too, by what `describe` says of its ports; "" = none.

    Whoever has it first keeps the other out: an adapter could keep the loop from its own bus.
    """
    sites = {
        os.path.realpath(str(port["device"])): str(port["name"]) for port in ports if port["transport"] == "serial"
    }
    for at in registers:
        if at.serial and (name := sites.get(os.path.realpath(at.serial))):
            return (
                f"{at.serial} is the site's own bus {name}: a serial line has one master; connect the device elsewhere"
            )
    return ""


class Lines:
    """The connections of one round, closed with the block: nothing of ours holds a line. All raise RegisterError."""

    def __init__(self, ask_s: float = ASK_S) -> None:
        self._ask_s = ask_s
        self._clients: dict[tuple[object, ...], ModbusBaseSyncClient] = {}
        self._dead: set[tuple[object, ...]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _client(self, at: Register) -> ModbusBaseSyncClient:
        if at.line in self._dead:  # one that is not there costs a round its time once
            raise RegisterError(f"{at.serial or f'{at.host}:{at.port}'}: no connection")
        if at.line not in self._clients:
            made: ModbusBaseSyncClient
            if at.serial:
                made = ModbusSerialClient(at.serial, baudrate=at.baud, parity=at.parity, stopbits=at.stop_bits,
                                          timeout=self._ask_s, retries=1)  # fmt: skip
            else:
                made = ModbusTcpClient(at.host, port=at.port, timeout=self._ask_s, retries=1)
            if not made.connect():
                self._dead.add(at.line)
                raise RegisterError(f"{at.serial or f'{at.host}:{at.port}'}: no connection")
            self._clients[at.line] = made
        return self._clients[at.line]

    def read(self, at: Register) -> float:
        """The value that stands there, in the unit of the scale; 0 or 1 of a bit."""
        client = self._client(at)
        try:
            if at.kind in BITS:
                bit = (client.read_coils if at.kind == "coil" else client.read_discrete_inputs)(
                    at.register, count=1, device_id=at.unit
                )
                if bit.isError() or not bit.bits:
                    raise RegisterError(f"{at.place}: {bit}")
                return float(bit.bits[0])
            kind = TYPES[at.type]
            ask = client.read_holding_registers if at.kind == "holding" else client.read_input_registers
            answer = ask(at.register, count=kind.value[1], device_id=at.unit)
            if answer.isError() or len(answer.registers) != kind.value[1]:
                raise RegisterError(f"{at.place}: {answer}")
            counts = client.convert_from_registers(answer.registers, kind, word_order=_order(at))
        except (ModbusException, OSError) as why:
            raise RegisterError(f"{at.place}: {why}") from None
        return float(counts) * at.scale if isinstance(counts, int | float) else math.nan

    def write(self, at: Register, value: float) -> None:
        """Write a value. Nothing is read back: who writes knows what is to stand there then."""
        if at.kind == "coil":
            self._written(at, value, lambda client: client.write_coil(at.register, bool(value), device_id=at.unit))
            return
        client = self._client(at)
        try:
            counts = value / at.scale
            whole = counts if at.type == "float32" else round(counts)
            words = client.convert_to_registers(whole, TYPES[at.type], word_order=_order(at))
        except (ModbusException, ValueError, OverflowError, struct.error) as why:  # what the type cannot hold
            raise RegisterError(f"{at.place}: {value:g}: {why}") from None
        self.write_words(at, words)

    def write_words(self, at: Register, words: list[int]) -> None:
        """Write words as they are, one after the other from the register on."""
        if len(words) == 1:
            self._written(at, words, lambda client: client.write_register(at.register, words[0], device_id=at.unit))
        else:
            self._written(at, words, lambda client: client.write_registers(at.register, words, device_id=at.unit))

    def _written(self, at: Register, what: object, ask: Callable[[ModbusBaseSyncClient], ModbusPDU]) -> None:
        client = self._client(at)
        try:
            answer = ask(client)
        except (ModbusException, OSError) as why:
            raise RegisterError(f"{at.place}: {what}: {why}") from None
        if answer.isError():
            raise RegisterError(f"{at.place}: {what} was refused: {answer}")


def _order(at: Register) -> Literal["big", "little"]:
    return "big" if at.words == "big" else "little"
