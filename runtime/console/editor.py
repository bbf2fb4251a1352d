"""A line that can be edited, with history and completion, at the least bytes: a key costs one byte, not a repaint.

It moves with backspace and by writing what stands there already, so the same bytes serve a VT100 and a dumb line.
"""

from collections.abc import Callable, Sequence

LINE_MAX = 256
HISTORY_LINES_MAX = 100

Complete = Callable[[str], tuple[str, Sequence[str]]]
"""From the text before the cursor: (what to add, what could stand there)."""


class InputLine:
    """What was entered. `unreadable` bytes came with it, or it was `too_long`: then it is not what was typed."""

    def __init__(self, text: str, unreadable: int = 0, too_long: bool = False) -> None:
        self.text = text
        self.unreadable = unreadable
        self.too_long = too_long


class Editor:
    """The line being typed. out : takes what the terminal has to show."""

    def __init__(self, out: Callable[[str], None]) -> None:
        self.out = out
        self.columns = 80
        self.history: list[str] = []
        self.prompt = ""
        self.secret = False
        self.begin("")

    def begin(self, prompt: str, secret: bool = False) -> None:
        """Show a prompt and start an empty line. A secret line is not shown and not kept."""
        self.prompt = prompt
        self.secret = secret
        self.text = ""
        self.cursor = 0
        self.unreadable = 0
        self.too_long = False
        self._at = len(self.history)
        self._kept = ""
        self._shown = ""  # what stands behind the prompt on the terminal
        self._column = 0  # where its cursor is, behind the prompt
        self._left = 0  # first character of the text that is shown
        self.out(prompt)

    @property
    def empty(self) -> bool:
        return not (self.text or self.unreadable or self.too_long)

    # ---- keys ----

    def insert(self, text: str) -> None:
        """Take printable characters in at the cursor."""
        room = LINE_MAX - len(self.text)
        if len(text) > room:
            self.too_long = True
            text = text[:room]
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)
        self._refresh()

    def noise(self) -> None:
        """A byte came that no keyboard sends."""
        self.unreadable += 1

    def key(self, name: str) -> InputLine | None:
        """Take a named key; gives the line when it was Enter."""
        if name == "enter":
            line = InputLine(self.text, self.unreadable, self.too_long)
            self.out("\r\n")
            if not self.secret and line.text.strip() and self.history[-1:] != [line.text]:
                self.history = [*self.history, line.text][-HISTORY_LINES_MAX:]
            return line
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        if name == "left":
            self.cursor = max(0, self.cursor - 1)
        elif name == "right":
            self.cursor = min(len(self.text), self.cursor + 1)
        elif name == "home":
            self.cursor = 0
        elif name == "end":
            self.cursor = len(self.text)
        elif name == "backspace":
            self._set(before[:-1], after)
        elif name == "delete":
            self._set(before, after[1:])
        elif name == "kill-line":
            self._set("", "")
            self.unreadable, self.too_long = 0, False
        elif name == "kill-right":
            self._set(before, "")
        elif name == "kill-word":
            words = before.rstrip()
            self._set(words[: words.rfind(" ") + 1], after)
        elif name in ("up", "down") and not self.secret:
            self._recall(-1 if name == "up" else 1)
        self._refresh()
        return None

    def _set(self, before: str, after: str) -> None:
        self.text = before + after
        self.cursor = len(before)

    def _recall(self, step: int) -> None:
        at = min(len(self.history), max(0, self._at + step))
        if at == self._at:
            return
        if self._at == len(self.history):
            self._kept = self.text
        self._at = at
        self._set(self.history[at] if at < len(self.history) else self._kept, "")

    # ---- what the terminal shows ----

    def redraw(self) -> None:
        """Write prompt and line anew, on a line of its own."""
        self._shown, self._column = "", 0
        self.out(self.prompt)
        self._refresh()

    def _refresh(self) -> None:
        """Send the difference between what is shown and what should be."""
        width = max(8, self.columns - len(self.prompt) - 1)
        if self.secret:
            return
        if self.cursor < self._left or self.cursor > self._left + width - 1:
            self._left = max(0, self.cursor - width // 2)
        wanted = self.text[self._left : self._left + width]
        shown = self._shown.ljust(len(wanted))
        padded = wanted.ljust(len(shown))
        first = next((i for i, (a, b) in enumerate(zip(shown, padded, strict=True)) if a != b), None)
        if first is not None:
            last = max(i for i, (a, b) in enumerate(zip(shown, padded, strict=True)) if a != b)
            self._move(first)
            self.out(padded[first : last + 1])
            self._column = last + 1
        self._shown = padded
        self._move(self.cursor - self._left)
        self._shown = wanted

    def _move(self, column: int) -> None:
        if column < self._column:
            self.out("\b" * (self._column - column))
        elif column > self._column:
            self.out(self._shown.ljust(column)[self._column : column])
        self._column = column
