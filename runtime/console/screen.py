"""A screen of which only the changes are sent, within a budget of bytes.

At 9600 baud a whole screen takes two seconds, a changed number ten milliseconds. So the model remembers what the
terminal shows; `draw` says what it should show; `emit` gives the bytes that bring it closer, never more than allowed.
What did not fit waits for the next call, and the rows take turns, so that no row starves.
"""

GAP = 6  # equal characters between two changes that are cheaper to send again than to jump over
LEAST = 3  # characters that make a cut run worth its jump


class Screen:
    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self._wanted: list[str] = []
        self._shown: list[str] | None = None
        self._turn = 0

    def draw(self, lines: list[str]) -> None:
        """Say what the terminal should show; what is too long or too much is cut."""
        # The last column stays free: terminals disagree about what follows a character in it.
        fitted = [line[: self.columns - 1].rstrip() for line in lines[: self.rows]]
        self._wanted = fitted + [""] * (self.rows - len(fitted))

    def lose(self) -> None:
        """Forget what the terminal shows; the next `emit` paints anew."""
        self._shown = None

    @property
    def done(self) -> bool:
        """Whether the terminal shows what it should."""
        return self._shown == self._wanted

    def emit(self, budget: int) -> str:
        """Give at most `budget` characters that bring the terminal closer; the first time a whole screen."""
        if self._shown is None:
            self._shown = list(self._wanted)
            full = "\r\n".join(self._wanted).rstrip()
            return "\x1b[2J\x1b[H" + full
        parts: list[str] = []
        for step in range(self.rows):
            row = (self._turn + step) % self.rows
            budget, more = self._row(row, budget, parts)
            if more:
                self._turn = row
                return "".join(parts)
        return "".join(parts)

    def _row(self, row: int, budget: int, parts: list[str]) -> tuple[int, bool]:
        """Send a row's changes; (budget left, whether some did not fit)."""
        assert self._shown is not None
        wanted = self._wanted[row]
        while (run := _run(self._shown[row], wanted)) is not None:
            first, last = run
            jump = f"\x1b[{row + 1};{first + 1}H"
            shown = self._shown[row]
            if first >= len(wanted):
                text, ending, after = "", "\x1b[K", shown[:first]
            else:
                room = budget - len(jump)
                text, ending = wanted[first:last], ""
                if len(text) > room:
                    if room < LEAST:
                        return budget, True
                    text = text[:room]
                after = shown.ljust(first)[:first] + text + shown[first + len(text) :]
            cost = len(jump) + len(text) + len(ending)
            if cost > budget:
                return budget, True
            parts.append(jump + text + ending)
            budget -= cost
            self._shown[row] = after.rstrip()
        return budget, False


def _run(shown: str, wanted: str) -> tuple[int, int] | None:
    """The first stretch of columns that differs, near ones joined; None when there is none."""
    size = max(len(shown), len(wanted))
    a, b = shown.ljust(size), wanted.ljust(size)
    first = next((i for i in range(size) if a[i] != b[i]), None)
    if first is None:
        return None
    last = first + 1
    at = last
    end = len(wanted) if first < len(wanted) else size
    while at < end and at - last < GAP:
        if a[at] != b[at]:
            last = at + 1
        at += 1
    return first, last
