"""The frames by which the process of the GPIO lines talks to the core, and the words by which it is told its lines."""

from collections.abc import Iterable
from dataclasses import dataclass

INPUT_ID, OUTPUT_ID = 0x100, 0x200
PERIOD_MS = 100  # each line says its state so often, and each input at once when it changes
AGE_MS = 500  # an input that is silent for longer is not known
UNKNOWN = 0xFF  # state of a line that chatters
POWER_W_MAX = 0xFFFFFE
SCHEME = "gpio:"
SIMULATED = "sim"  # in the place of a chip: its lines do what the schedule of the site's [simulation] says
FOR_EVER_S = 1e9
DOES = ("active", "stuck", "floating", "pulses")


@dataclass(frozen=True)
class Edge:
    """One edge of a line. active: the level behind it. number: of the line's edges since it was requested, from 1."""

    offset: int
    active: bool
    t_ns: int
    number: int


@dataclass(frozen=True)
class Play:
    """What a simulated input does from `at_s` (since the start) on. number: of its frame among the inputs."""

    number: int
    does: str
    at_s: float
    for_s: float = FOR_EVER_S
    bounce_ms: float = 0.0
    per_s: float = 0.0

    def words(self) -> str:
        """As the core hands it to the process."""
        numbers = (self.at_s, self.for_s, self.bounce_ms, self.per_s)
        return " ".join(["play", str(self.number), self.does, *(f"{one:.10g}" for one in numbers)])


@dataclass(frozen=True)
class Line:
    """One line. number: of its frame among the inputs or the outputs."""

    way: str
    number: int
    chip: str
    offset: int
    active_low: bool = False
    bias: str = "as-is"
    debounce_ms: float = 0.0
    pulse: bool = False
    wh_per_pulse: float = 0.0
    silent: bool = False

    def words(self) -> str:
        """As the core hands it to the process."""
        flags = [name for name in ("active_low", "pulse", "silent") if getattr(self, name)]
        return " ".join([self.way, str(self.number), self.chip, str(self.offset), self.bias, f"{self.debounce_ms:g}",
                         f"{self.wh_per_pulse:.10g}", *flags])  # fmt: skip


def interface(lines: Iterable[Line], plays: Iterable[Play] = ()) -> str:
    """The name of a bus of such lines."""
    return SCHEME + "; ".join([*(line.words() for line in lines), *(play.words() for play in plays)])


def plays(name: str) -> list[Play]:
    """The schedule of simulated inputs in such a name. Raises ValueError for words that are none."""
    found = []
    for text in name.removeprefix(SCHEME).split(";"):
        words = text.split()
        if words[:1] != ["play"]:
            continue
        if len(words) != 7 or words[2] not in DOES:
            raise ValueError(f"{text!r}: no schedule of a simulated line")
        found.append(Play(int(words[1]), words[2], *(float(one) for one in words[3:])))
    return found


def lines(name: str) -> list[Line]:
    """The lines of such a name. Raises ValueError for words that are none."""
    found = []
    for text in name.removeprefix(SCHEME).split(";"):
        words = text.split()
        if words[:1] == ["play"]:
            continue
        if len(words) < 7 or words[0] not in ("in", "out"):
            raise ValueError(f"{text!r}: no GPIO line")
        way, number, chip, offset, bias, debounce_ms, wh = words[:7]
        flags = set(words[7:])
        found.append(Line(way, int(number), chip, int(offset), "active_low" in flags, bias, float(debounce_ms),
                          "pulse" in flags, float(wh), "silent" in flags))  # fmt: skip
    return found
