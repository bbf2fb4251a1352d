"""What a device map may contain: every table and key of the TOML files in devices/, as pydantic models."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tidegate.hal import sunspec

Table: TypeAlias = dict[str, Any]
"""A table of TOML as `tomllib` gives it, before its keys and values are checked."""

WORDS = {"u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4, "f64": 4}

# What a positive reading means; these count negative inside.
NEGATIVE_INSIDE = ("export", "charge", "consumption")

RegisterType = Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "sunssf", "bits"]
Positive = Literal["import", "export", "discharge", "charge", "generation", "consumption"]
Poll = Literal["fast", "slow", "once"]
Range = tuple[float, float]
Address = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=31)]


UNCHECKED = {
    "counter": "no live counter: a frame that somebody sends again looks new",
    "checksum": "no checksum of the device's own: another sender of the id passes for it",
    "frozen": "whether the values inside are new: `bms_stuck` alone finds a BMS that repeats itself",
    "nothing": "nothing",
}
"""What a BMS map says that it cannot check, in plain words."""


class Strict(BaseModel):
    """Unknown keys are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Head(Strict):
    """What the map is for and where it comes from."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    protocol: Literal["modbus", "sunspec", "can", "pylontech"]
    kind: Literal["bms", "pcs", "meter"]
    title: str
    source: str
    extends: str = ""
    drop: tuple[int, ...] = ()  # ids of frames of the extended map that this device does not send
    options: dict[str, str] = {}
    doubts: tuple[str, ...] = ()
    cabinet: bool = True  # false: no cabinet may rest on it, see its doubts
    verified: tuple[Literal["capture", "foreign-simulator", "device"], ...] = ()  # beyond its vectors and our simulator
    # Of a converter, its battery's power: "power_w", "battery_w", "dc" (dc_v times dc_a), or "none: why not".
    battery_power: Annotated[str, Field(pattern=r"^(power_w|battery_w|dc|none: .+)$")] = "power_w"
    # Of a BMS: what nobody can check of its frames on the wire; "nothing" only with `unchecked_source`.
    unchecked: tuple[Literal["counter", "checksum", "frozen", "nothing"], ...] = ()
    unchecked_source: str = ""


class ModbusHead(Strict):
    """How the device wants to be read."""

    function: Literal[1, 2, 3, 4] = 3
    write_function: Literal[6, 16] = 16
    word_order: Literal["high-first", "low-first"] = "high-first"
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    regs_max: Annotated[int, Field(ge=1, le=125)] = 125
    regs_even: bool = False
    gap_regs_max: Annotated[int, Field(ge=0, le=124)] = 8
    readable: tuple[tuple[Address, Address], ...] = ()  # ranges that one read may span; empty = only what is listed
    timeout_ms: Annotated[float, Field(gt=0, le=10000)] = 300.0
    latency_ms: Annotated[float, Field(ge=0, le=10000)] = 5.0
    turnaround_ms: Annotated[float, Field(ge=0, le=10000)] = 0.0


class SunSpecHead(Strict):
    """Where the device keeps its models."""

    base: Literal[40000, 0, 50000] = 40000
    chain: tuple[int, ...]


class CanHead(Strict):
    """What the bus must be set to."""

    bitrate: int = 500000
    byte_order: Literal["little", "big"] = "little"
    dbc: str = ""


class Point(Strict):
    """One signal in registers. After load_map every field below `address` is filled."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    page: str = ""
    source: str = ""
    note: str = ""
    confidence: Literal["source", "document", "recalled", "computed", ""] = ""
    unit: str
    model: int = 0  # SunSpec
    field: str = ""
    address: Address | None = None
    function: Literal[1, 2, 3, 4] = 3
    type: RegisterType = "u16"
    word_order: Literal["high-first", "low-first"] = "high-first"
    byte_swap: bool = False
    bit: Annotated[int, Field(ge=0, le=15)] = 0
    bits: Annotated[int, Field(ge=0, le=16)] = 0
    one_of: tuple[Annotated[int, Field(ge=0, le=63)], ...] = ()
    scale: float = 1.0
    scale_times: str = ""  # a number of the map that the scale is multiplied by
    offset: float = 0.0
    sf: str = ""  # name of the point that holds the power of ten
    positive: Positive | None = None
    range: Range | None = None
    sentinel: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    # Of a power in 16 bits: who says that it has a sign, or none; "doubt: ..." where nobody does for sure.
    signed_source: str = ""
    accumulates: bool = False
    less_next: bool = False  # two magnitudes for one signed value: this one less the one that follows it
    echo: bool = False  # a command of the map writes the same register: it reads what was written, and proves nothing
    poll: Poll = "slow"
    # For a device that lacks this register: what is read in its place, the first that it has. Type and place from the
    # row, unit, sign, range and poll from the point; after load_map whole points of the same name.
    instead: tuple["Point", ...] = ()
    optional: bool = False  # all bits set (signed: only the highest) means that the device lacks it
    hidden: bool = False  # made by the loader (scale factors), not by hand

    @property
    def is_identity(self) -> bool:
        """Whether this word tells which device it is: a signature, or a SunSpec model that is written."""
        return self.hidden and self.name.endswith("_word")

    @property
    def needs_signed_source(self) -> bool:
        """Whether it is a measured power in one register: -2 kW without the sign reads as 63 kW."""
        return (
            self.unit == "W"
            and self.type in ("u16", "s16")
            and not self.hidden
            and not self.name.endswith(("_max", "_min"))
        )

    @property
    def words(self) -> int:
        """Registers that the value takes; 1 for a coil."""
        return 1 if self.function in (1, 2) else WORDS.get(self.type, 1) * (2 if self.less_next else 1)

    @property
    def signed_scale(self) -> float:
        """Scale with the sign convention applied: inside, import, discharge and generation are positive."""
        return -self.scale if self.positive in NEGATIVE_INSIDE else self.scale


PartOf = Literal["const", "setpoint", "magnitude", "charge", "discharge", "direction"]


class Part(Strict):
    """One value among several that a command writes in one request. They follow each other without a gap."""

    register_name: Annotated[str, Field(alias="register")] = ""
    note: str = ""
    of: PartOf = "const"
    type: RegisterType = "u16"
    word_order: Literal["high-first", "low-first"] = "high-first"
    scale: float = 1.0
    scale_times: str = ""
    positive: Positive | None = None
    value: float = 0.0  # of "const"; else the raw number that stands for 0 W
    value_from: str = ""
    charge: float | None = None  # of "direction": the word while charging ...
    zero: float | None = None  # ... at 0 W; left out, a word of its own does not exist
    discharge: float | None = None  # ... and while discharging

    @property
    def words(self) -> int:
        """Registers that the value takes."""
        return WORDS.get(self.type, 1)

    @property
    def signed_scale(self) -> float:
        """raw = value / signed_scale."""
        return -self.scale if self.positive in NEGATIVE_INSIDE else self.scale


class Command(Strict):
    """What is written in one request: one value, or several parts of one."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    source: str = ""
    note: str = ""
    kind: Literal["const", "setpoint_w", "heartbeat", "stop"]
    model: int = 0
    field: str = ""
    address: Address | None = None
    function: Literal[5, 6, 15, 16, 22, 23] = 16
    type: RegisterType = "u16"
    word_order: Literal["high-first", "low-first"] = "high-first"
    scale: float = 1.0
    scale_times: str = ""
    sf: str = ""
    positive: Positive | None = None
    value: float = 0.0
    value_from: str = ""  # a number of the map that stands for the value
    of: PartOf = "setpoint"  # what of the setpoint the register holds
    charge: float | None = None  # of "direction", as in Part
    zero: float | None = None
    discharge: float | None = None
    part: tuple[Part, ...] = ()
    resend_ms: Annotated[float, Field(ge=0, le=60000)] = 0.0
    pause_ms: Annotated[float, Field(ge=0, le=60000)] = 0.0  # the device takes no other write for so long after this
    readback: str = ""
    flash: bool = False  # wears the device's flash: never rewritten cyclically

    @property
    def words(self) -> int:
        """Registers that are written."""
        return sum(part.words for part in self.part) if self.part else WORDS.get(self.type, 1)

    @property
    def signed_scale(self) -> float:
        """raw = value / signed_scale."""
        return -self.scale if self.positive in NEGATIVE_INSIDE else self.scale

    @property
    def turns(self) -> bool:
        """Whether its register chooses the direction of a magnitude that stands in another one."""
        return self.kind == "setpoint_w" and not self.part and self.of == "direction"

    def parts(self) -> tuple[Part, ...]:
        """Its parts; of a single register one, unless that holds the value as it is."""
        if self.part or self.kind != "setpoint_w" or self.of == "setpoint":
            return self.part
        one = {key: getattr(self, key) for key in ("of", "type", "word_order", "scale", "charge", "zero", "discharge")}
        return (Part(**one),)


class Signature(Strict):
    """Registers that must hold these words before the device may be armed."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    note: str = ""
    function: Literal[3, 4] = 3
    address: Address | None = None
    model: int = 0
    words: tuple[Address, ...]


class CanSignal(Strict):
    """One signal in a frame. start: DBC start bit (least significant bit for little endian, most for big)."""

    name: Name
    register_name: Annotated[str, Field(alias="register")] = ""
    source: str = ""
    note: str = ""
    unit: str
    dbc: str = ""  # signal of the DBC file; place, scale and sign come from there
    byte: Annotated[int, Field(ge=0, le=63)] | None = None
    size: Annotated[int, Field(ge=1, le=8)] | None = None  # bytes
    bit: Annotated[int, Field(ge=0, le=7)] | None = None  # of `byte`
    bits: Annotated[int, Field(ge=1, le=64)] | None = None
    start: Annotated[int, Field(ge=0, le=511)] | None = None
    length: Annotated[int, Field(ge=1, le=64)] | None = None
    byte_order: Literal["little", "big"] | None = None
    signed: bool = False
    is_float: bool = False
    magnitude: bool = False
    mask: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    one_of: tuple[Annotated[int, Field(ge=0, le=63)], ...] = ()
    mux: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    mux_more: tuple[Annotated[int, Field(ge=0, le=2**32 - 1)], ...] = ()  # other numbers that let it through
    # The same of a second multiplexer: one that is itself behind the frame's, or stands beside it.
    mux2: tuple[Annotated[int, Field(ge=0, le=2**32 - 1)], ...] = ()
    mux2_start: Annotated[int, Field(ge=0, le=511)] = 0
    mux2_length: Annotated[int, Field(ge=0, le=32)] = 0
    mux2_big_endian: bool = False
    constant: str = ""  # a number of the map that stands for the value, fresh while the frame comes
    scale: float = 1.0
    offset: float = 0.0
    positive: Positive | None = None
    range: Range | None = None
    sentinel: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    signed_source: str = ""  # as in Point

    @property
    def needs_signed_source(self) -> bool:
        """Whether it is a measured power of at most 16 bits."""
        short = (self.length or 64) <= 16 and not self.is_float
        return self.unit == "W" and short and not self.name.endswith(("_max", "_min"))

    @property
    def sign(self) -> float:
        """-1 where the device counts the other way round than we do."""
        return -1.0 if self.positive in NEGATIVE_INSIDE else 1.0


class Frame(Strict):
    """One received id."""

    id: Annotated[int, Field(ge=0, le=0x1FFFFFFF)]
    name: str = ""
    message: str = ""  # of the DBC file
    extended: bool = False
    fd: bool = False
    period_ms: Annotated[float, Field(ge=0, le=120000)] = 0.0  # 0 = when something happens
    age_ms: Annotated[float, Field(gt=0, le=600000)] | None = None
    len: tuple[int, int] = (8, 8)
    mux_start: int | None = None
    mux_length: int = 0
    mux_big_endian: bool = False
    counter_start: int | None = None
    counter_length: int = 0
    counter_big_endian: bool = False
    crc: Literal["none", "sum-orion", "sum8", "xor8", "crc8-j1850", "crc8-autosar"] = "none"
    crc_byte: int = 7
    signal: tuple[CanSignal, ...] = ()


class Transmit(Strict):
    """One cyclic frame to the device. kind heartbeat: only while the gate permits it."""

    id: Annotated[int, Field(ge=0, le=0x1FFFFFFF)]
    name: str
    extended: bool = False
    data: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(max_length=8)]
    open_data: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(max_length=8)] | None = None
    """Sent instead of `data` while the gate asks for open contactors."""
    period_ms: Annotated[float, Field(ge=1, le=60000)]
    kind: Literal["always", "heartbeat"] = "heartbeat"
    counter_start: int | None = None
    counter_length: int = 0
    source: str = ""
    note: str = ""


class Choice(Strict):
    """One value of a dialect option, and what it changes."""

    value: str
    set: tuple[Table, ...] = ()
    drop: tuple[int, ...] = ()  # ids of frames that this dialect does not have
    drop_points: tuple[str, ...] = ()  # and points, with their vectors


class Option(Strict):
    """A dialect of the device that the site file chooses."""

    meaning: str
    default: str
    choice: tuple[Choice, ...]


class Number(Strict):
    """A number that the site file gives or may change, such as a rating or a transformer ratio."""

    meaning: str
    unit: str
    default: float | None = None  # None = the site file must say it
    range: Range


class Vector(Strict):
    """Raw data and what it must become; every shipped map has some, and a test runs them."""

    source: str
    point: str = ""
    regs: tuple[Address, ...] = ()
    sf: int = 0
    value: float | None = None
    id: int | None = None
    data: str = ""
    values: dict[str, float] = {}
    invalid: bool | tuple[str, ...] = False
    options: dict[str, str] = {}

    @field_validator("data")
    @classmethod
    def _hex(cls, text: str) -> str:
        bytes.fromhex(text)
        return text


class Encode(Strict):
    """A setpoint and the registers that it must become; every shipped map with control has some. A test runs them."""

    source: str
    command: str
    value: float = 0.0  # W, + discharge; a const has its own
    sf: int = 0
    regs: tuple[Address, ...]
    options: dict[str, str] = {}


class DeviceMap(Strict):
    """A device map, checked and resolved."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    map: Head
    modbus: ModbusHead = ModbusHead()
    sunspec: SunSpecHead | None = None
    can: CanHead = CanHead()
    option: dict[str, Option] = {}
    number: dict[str, Number] = {}
    point: tuple[Point, ...] = ()
    command: tuple[Command, ...] = ()
    signature: tuple[Signature, ...] = ()
    frame: tuple[Frame, ...] = ()
    transmit: tuple[Transmit, ...] = ()
    vector: tuple[Vector, ...] = ()
    encode: tuple[Encode, ...] = ()

    @property
    def name(self) -> str:
        """The name that a site file uses."""
        return self.map.name

    @property
    def bus(self) -> str:
        """The sort of bus: serial or can."""
        return "can" if self.map.protocol == "can" else "serial"

    def power_words(self) -> list[Point | CanSignal]:
        """Measured powers of 16 bits or less: those that must say from where their sign is known."""
        rows: list[Point | CanSignal] = [*self.point, *(s for f in self.frame for s in f.signal)]
        return [row for row in rows if row.needs_signed_source]

    def identity_points(self) -> list[str]:
        """Hidden points that are believable only while the device is the one of the map."""
        return [p.name for p in self.point if p.is_identity]

    def model_starts(self) -> dict[int, int]:
        """SunSpec model number -> address of its ID word, for models that a point reads; empty for other maps."""
        starts = {}
        for p in self.point:
            if p.model and p.address is not None:
                starts[p.model] = p.address - sunspec.model(p.model).points[p.field].offset
        return starts

    def readable_ranges(self) -> list[tuple[int, int]]:
        """Ranges (first, last) of which any part may be read in one request: those of the map, and SunSpec models."""
        models = [(at, at + sunspec.model(number).length - 1) for number, at in self.model_starts().items()]
        return [*self.modbus.readable, *models]

    def signal_names(self) -> list[str]:
        """Names of all signals, in the map's order."""
        return [p.name for p in self.point] + [s.name for f in self.frame for s in f.signal]
