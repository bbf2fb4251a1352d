"""Lines on their way to a terminal: broken to its width, shown a page at a time."""

from collections import deque
from collections.abc import Callable, Iterable

from tidegate.runtime.findings.text import clean

MORE = "-- more: space, Enter, q --"


class Pager:
    """write : takes text for the terminal. While `full`, a page is shown and a key has to turn it."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self.full = False
        self._lines: deque[str] = deque()
        self._room = 0

    def put(self, lines: Iterable[str], columns: int) -> None:
        """Keep lines for sending, broken where they are too long. No control character in them leaves."""
        width = max(20, columns - 1)
        for line in lines:
            left = clean(line)
            while len(left) > width:
                cut = left.rfind(" ", width // 2, width + 1)
                cut = cut if cut > 0 else width
                self._lines.append(left[:cut].rstrip())
                left = "  " + left[cut:].lstrip()
            self._lines.append(left)

    def begin(self, rows: int) -> None:
        """A new page of so many rows."""
        self._room = rows

    def send(self, *, paged: bool = True) -> None:
        """Send what fits the page, or everything."""
        while self._lines and not self.full:
            if paged and self._room <= 0 and len(self._lines) > 1:
                self.full = True
                self.write(MORE)
                return
            self._room -= 1
            self.write(self._lines.popleft() + "\r\n")

    def turn(self, rows: int, *, paged: bool = True) -> None:
        """Wipe the question and show as many rows more."""
        self.write("\r" + " " * len(MORE) + "\r")
        self.full = False
        self._room = rows
        self.send(paged=paged)

    def drop(self) -> None:
        """Forget what was not sent."""
        self._lines.clear()
        self.full = False
