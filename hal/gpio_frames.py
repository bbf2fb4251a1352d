"""The frames by which the process of the GPIO lines talks to the core, and the words by which it is told its lines."""

from collections.abc import Iterable
from dataclasses import dataclass

INPUT_ID, OUTPUT_ID = 0x100, 0x200
PERIOD_MS = 100  # each line says its state so often, and each input at once when it changes
AGE_MS = 500  # an input that is silent for longer is not known
UNKNOWN = 0xFF  # state of a line that chatters
POWER_W_MAX = 0xFFFFFE
SCHEME = "gpio:"


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


def interface(lines: Iterable[Line]) -> str:
    """The name of a bus of such lines."""
    return SCHEME + "; ".join(line.words() for line in lines)


def lines(name: str) -> list[Line]:
    """The lines of such a name. Raises ValueError for words that are none."""
    found = []
    for text in name.removeprefix(SCHEME).split(";"):
        words = text.split()
        if len(words) < 7 or words[0] not in ("in", "out"):
            raise ValueError(f"{text!r}: no GPIO line")
        way, number, chip, offset, bias, debounce_ms, wh = words[:7]
        flags = set(words[7:])
        found.append(Line(way, int(number), chip, int(offset), "active_low" in flags, bias, float(debounce_ms),
                          "pulse" in flags, float(wh), "silent" in flags))  # fmt: skip
    return found
