"""Contacts and pulses of GPIO lines in the site file, and the rows that the core gets of them.

To the core they are a CAN bus of their own, whose frames the process of `hal/gpio_lines.py` sends. Nothing of a chip
is on the loop's path, and age, quality, recording and replay are those of every other reading.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from tidegate.config.site_buses import Name, Strict
from tidegate.config.toml_lines import Table
from tidegate.ext.abi import program
from tidegate.hal.gpio_frames import (
    AGE_MS,
    FOR_EVER_S,
    INPUT_ID,
    OUTPUT_ID,
    PERIOD_MS,
    POWER_W_MAX,
    UNKNOWN,
    Line,
    Play,
    interface,
)  # fmt: skip

if TYPE_CHECKING:
    from tidegate.config.site import Site

BUS = "gpio"
WHAT = {"operator-stop": 1, "operator-limit": 2, "door": 3, "smoke": 4, "estop": 5}  # enum input_what
PULSES = ("pulse", "demand-pulse")
LINES_MAX = 16


class _Line(Strict):
    """A line of a GPIO chip."""

    name: Name
    chip: Annotated[
        str, Field(pattern=r"^(/dev/[\w./-]+|sim)$", max_length=80, description='path of the chip, or "sim"')
    ] = "/dev/gpiochip0"
    line: Annotated[int, Field(ge=0, le=1023, description="offset of the line on its chip, as gpioinfo shows it")]
    active_low: Annotated[bool, Field(description="active while the line is low")] = False


class Input(_Line):
    """One contact or pulse on a GPIO line."""

    what: Annotated[
        Literal[
            "operator-stop", "operator-limit", "door", "smoke", "estop", "pulse", "demand-pulse", "island", "contact"
        ],
        Field(description="what it means while it is active; island: the grid is cut off; contact: a point for others"),
    ]
    bias: Annotated[
        Literal["as-is", "disabled", "pull-up", "pull-down"],
        Field(description="of the line itself; an open wire floats without one"),
    ] = "as-is"
    debounce_ms: Annotated[float, Field(ge=0, le=1000, description="shorter changes are none")] = 10.0
    import_w_max: Annotated[
        float | None, Field(ge=0, le=1e8, description="of an operator-limit: most grid import while it is active")
    ] = None
    wh_per_pulse: Annotated[float | None, Field(gt=0, le=1e6, description="of a pulse: 1000 / pulses a kWh")] = None

    @model_validator(mode="after")
    def _whole(self) -> "Input":
        if (self.what == "operator-limit") != (self.import_w_max is not None):
            raise ValueError("import_w_max belongs to an operator-limit, and only to one; add or remove it")
        if (self.what == "pulse") != (self.wh_per_pulse is not None):
            raise ValueError("wh_per_pulse belongs to a pulse, and only to one; add or remove it")
        if self.what in ("estop", "smoke") and self.debounce_ms > 50:
            raise ValueError(f"debounce_ms: {self.debounce_ms:g} is too slow for {self.what}; at most 50")
        return self


class Output(_Line):
    """One line that the controller drives, under the gate's rules."""

    what: Annotated[
        Literal["alarm", "breaker"],
        Field(description="alarm: active unless the gate permits every heartbeat; breaker: while it asks to open"),
    ]
    storage: Annotated[str | None, Field(description="of a breaker: whose gate asks; default: the only unit")] = None
    silent: Annotated[bool, Field(description="state while the controller says nothing")] | None = None

    @property
    def when_silent(self) -> bool:
        """An alarm is on while nobody denies it; a breaker stays closed unless the site asks for more."""
        return self.silent if self.silent is not None else self.what == "alarm"


class SimulatedContact(Strict):
    """What an input on a simulated chip does."""

    input: Annotated[str, Field(description="name of an [[input]] whose chip is sim")]
    does: Annotated[
        Literal["active", "stuck", "floating", "pulses"],
        Field(description="stuck: keeps its level; floating: an open wire that picks up the mains"),
    ] = "active"
    at_s: Annotated[float, Field(ge=0, le=1e8, description="since the start")] = 0.0
    for_s: Annotated[float | None, Field(gt=0, le=1e8, description="left out: for ever")] = None
    bounce_ms: Annotated[float, Field(ge=0, le=1000, description="of active: it bounces so long at either end")] = 0.0
    per_s: Annotated[float | None, Field(gt=0, le=100, description="of pulses: so many a second")] = None

    @model_validator(mode="after")
    def _whole(self) -> "SimulatedContact":
        if (self.does == "pulses") != (self.per_s is not None):
            raise ValueError("per_s belongs to pulses, and only to them; add or remove it")
        if self.bounce_ms and self.does != "active":
            raise ValueError('bounce_ms belongs to does = "active"; remove it')
        if self.for_s is not None and self.bounce_ms * 1e-3 >= self.for_s:
            raise ValueError(f"bounce_ms: {self.bounce_ms:g} is not shorter than for_s; lower it")
        return self


def plays_of(inputs: Sequence[Input], contacts: Iterable[SimulatedContact]) -> list[Play]:
    """The schedule of the simulated inputs."""
    numbers = {one.name: i for i, one in enumerate(inputs)}
    return [
        Play(numbers[one.input], one.does, one.at_s, one.for_s or FOR_EVER_S, one.bounce_ms, one.per_s or 0.0)
        for one in contacts
    ]


def lines_of(inputs: Iterable[Input], outputs: Iterable[Output]) -> list[Line]:
    """What the process that serves them needs to know."""
    found = [
        Line("in", i, one.chip, one.line, one.active_low, one.bias, one.debounce_ms, one.what in PULSES,
             one.wh_per_pulse or 0.0)
        for i, one in enumerate(inputs)
    ]  # fmt: skip
    found += [
        Line("out", i, one.chip, one.line, one.active_low, silent=one.when_silent) for i, one in enumerate(outputs)
    ]
    return found


def bus_row(
    inputs: Sequence[Input], outputs: Sequence[Output], contacts: Iterable[SimulatedContact] = ()
) -> list[Table]:
    """The bus in the description; none where the site has no line."""
    if not inputs and not outputs:
        return []
    name = interface(lines_of(inputs, outputs), plays_of(inputs, contacts))
    return [{"name": BUS, "interface": name, "bitrate": 500_000}]


def points_of(one: Input) -> list[tuple[str, str]]:
    """(name, unit) of the points of an input."""
    points = [(f"{one.name}.active", "bool")]
    if one.what in PULSES:
        points = [(f"{one.name}.count", "count")]
    if one.what == "pulse":
        points += [(f"{one.name}.energy_wh", "Wh"), (f"{one.name}.power_w", "W")]
    return points


def frame_row(bus: int, number: int, one: Input) -> Table:
    """The frame of an input as the core decodes it: state, count, power."""
    wide = {"min": float("-inf"), "max": float("inf")}
    flags = program.CAN_FIELD_FLAGS
    fields: list[Table] = []
    for name, _ in points_of(one):
        signal = name.partition(".")[2]
        if signal == "active":
            fields.append({"point": name, "start": 0, "length": 8, "flags": flags["sentinel"], "sentinel": UNKNOWN,
                           "min": 0.0, "max": 1.0})  # fmt: skip
        elif signal == "power_w":
            fields.append({"point": name, "start": 40, "length": 24, "min": 0.0, "max": float(POWER_W_MAX)})
        else:
            scale = one.wh_per_pulse if signal == "energy_wh" else 1.0
            fields.append({"point": name, "start": 8, "length": 32, "scale": scale, **wide})
    return {"id": INPUT_ID + number, "bus": bus, "len_min": 8, "len_max": 8, "period_ns": PERIOD_MS * 1_000_000,
            "fields": fields}  # fmt: skip


def output_row(bus: int, number: int, one: Output, unit: int) -> Table:
    """The cyclic frame that carries an output's state: 1 = the alarm is denied, 2 = open the breaker."""
    row: Table = {"id": OUTPUT_ID + number, "bus": bus, "period_ns": PERIOD_MS * 1_000_000}
    if one.what == "alarm":
        return {**row, "data": b"\x01", "kind": 1, "unit": -1}
    return {**row, "data": b"\x00", "kind": 0, "unit": unit, "has_open": 1, "open_data": b"\x02"}


def meaning_row(one: Input) -> Table | None:
    """What the core does by an input; None for a mere point and for pulses."""
    if one.what not in WHAT:
        return None
    return {"point": f"{one.name}.active", "what": WHAT[one.what], "import_w_max": one.import_w_max or 0.0}


def add_rows(site: "Site", frames: list[Table], transmits: list[Table]) -> list[dict[str, str]]:
    """Append the frames of the bus behind the last CAN bus; returns name and unit of each point."""
    bus, points = len(site.can), list[dict[str, str]]()
    units = [one.name for one in site.storage]
    for number, one in enumerate(site.input):
        points += [{"name": name, "unit": unit} for name, unit in points_of(one)]
        frames.append(frame_row(bus, number, one))
    for number, line in enumerate(site.output):
        transmits.append(output_row(bus, number, line, units.index(line.storage) if line.storage in units else 0))
    return points


AGE_NS = AGE_MS * 1_000_000
