"""Who is at the other end of a line: whether a terminal is there, what it can do, and whether its speed is right."""

from collections.abc import Callable

from tidegate.runtime.console.flow import Place, Terminal
from tidegate.runtime.console.key_codes import Key

PROBE = "\x1b[5n"  # "are you there": a VT100 answers by itself
FIND_SIZE = "\x1b7\x1b[999;999H\x1b[6n\x1b8"
PROBES_MISSED = 3
KEY_PRESENCE_S = 30.0  # without carrier and an answering terminal, a key must come this often during manual power
GARBAGE_BYTES = 24
GARBAGE_EVERY_S = 10.0


class TerminalProbe:
    """write : takes text for the terminal. clock : monotonic seconds.

    answers : the terminal has answered a probe. key_s : when the last key came.
    """

    def __init__(self, place: Place, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.place = place
        self.write = write
        self.clock = clock
        self.answers = False
        self.key_s = self._noise_s = self._probe_s = clock()
        self._asked = False
        self._missed = 0
        self._garbage = 0
        self._readable = 0

    # ---- is somebody there ----

    @property
    def known(self) -> tuple[bool, bool]:
        """What survives a logout: whether the terminal answers, and was asked."""
        return self.answers, self._asked

    @known.setter
    def known(self, state: tuple[bool, bool]) -> None:
        self.answers, self._asked = state

    def ask_once(self, terminal: Terminal) -> None:
        """Find out what the terminal can do, once, when somebody is there."""
        if self._asked or not self.place.probes or terminal.chosen:
            return
        self._asked = True
        # A dumb line shows "[5n" for a moment: the return and the blanks wipe it.
        self.write(f"{PROBE}\r     \r")

    def reply(self, key: Key, terminal: Terminal) -> None:
        """Take the terminal's answer to a probe, or its size."""
        self._missed = 0
        if terminal.chosen:
            self.answers = True
        elif key.kind == "alive" and not self.answers:
            self.answers = terminal.vt100 = True
            self.write(FIND_SIZE)
        elif key.kind == "cursor" and 1 <= key.row <= 999 and 1 <= key.column <= 999:
            terminal.rows, terminal.columns = max(4, key.row), max(20, key.column)

    def lost(self, every_s: float) -> bool:
        """Ask again after every_s; true when an answering terminal has fallen silent."""
        if not self.answers or self.place.carrier() is not None:
            return False
        now_s = self.clock()
        if now_s - self._probe_s >= every_s:
            self._probe_s = now_s
            self._missed += 1
            self.write(PROBE)
        return self._missed > PROBES_MISSED

    def present(self) -> bool:
        """Whether somebody can still stop what goes on: by carrier, by the terminal's answers, or by keys."""
        carrier = self.place.carrier()
        if carrier is not None:
            return carrier
        if self.answers:
            return self._missed <= PROBES_MISSED
        return self.clock() - self.key_s < KEY_PRESENCE_S

    # ---- is the speed right ----

    def note_key(self, key: Key) -> None:
        """A readable key came."""
        self.key_s = self.clock()
        self._readable += len(key.text) or 1

    def note_noise(self) -> bool:
        """A byte came that no keyboard sends; true when it is time to judge the line."""
        self._garbage += 1
        return self._garbage >= GARBAGE_BYTES and self.clock() - self._noise_s >= GARBAGE_EVERY_S

    def wrong_speed(self) -> bool:
        """Whether most of what came is unreadable: the speed is wrong or the line is noisy. True now and then only."""
        if self._garbage < GARBAGE_BYTES or self._garbage <= self._readable / 4:
            return False
        self._garbage = self._readable = 0
        now_s = self.clock()
        if now_s - self._noise_s < GARBAGE_EVERY_S:
            return False
        self._noise_s = now_s
        return True
