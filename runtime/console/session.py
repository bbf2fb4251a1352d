"""One technician at one line: keys in, text out, and nothing that can block but a question to the gateway.

Commands are generators (`flow.py`): the session gives each the answer when it is there. So one thread serves keyboard,
countdown and screen.
"""

import time
from collections.abc import Callable, Generator, Iterable
from typing import Protocol

import msgspec

from tidegate.config.quantities import QuantityError
from tidegate.runtime.api import messages
from tidegate.runtime.api.answers import Outcome
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.console.editor import Editor, InputLine
from tidegate.runtime.console.flow import (
    COLUMNS_MIN,
    ROWS_MIN,
    Ask,
    Flow,
    Live,
    Place,
    Refusal,
    Terminal,
    Wait,
    gateway_words,
)  # fmt: skip
from tidegate.runtime.console.grammar import Grammar, GrammarError
from tidegate.runtime.console.key_codes import Key, Keys
from tidegate.runtime.console.pager import Pager
from tidegate.runtime.console.screen import Screen
from tidegate.runtime.console.siteedit import Staged
from tidegate.runtime.console.terminal_probe import TerminalProbe
from tidegate.runtime.console.users import LoginLock, Seat, User, UserError, Users
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import clean

IDLE_S = 300.0
HALF_LINE_S = 120.0
REFRESH_S = 1.0
REFRESH_BYTES = 190  # a second, so that status and the probe stay under 200
PROBE_MANUAL_S, PROBE_S = 2.0, 10.0


class BackgroundTask(Protocol):
    """Something that goes on beside the commands and ends with the session: manual power."""

    def tick(self, session: "Session") -> None: ...
    def end(self, session: "Session", why: str) -> None: ...
    @property
    def words(self) -> str: ...


class Session:
    """out : takes bytes for the line. clock : monotonic seconds; all waiting is by it."""

    def __init__(
        self,
        plant: Plant,
        users: Users,
        lock: LoginLock,
        grammar: Grammar,
        out: Callable[[bytes], None],
        place: Place,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plant = plant
        self.users = users
        self.lock = lock
        self.grammar = grammar
        self.place = place
        self.clock = clock
        self.seat = Seat(place.state)
        self.terminal = place.terminal
        self.user: User | None = None
        self.background: BackgroundTask | None = None
        self.staged: Staged | None = None  # a site file in the making
        self.ended = False
        self._out = out
        self._keys = Keys()
        self.editor = Editor(self._write)
        self.pager = Pager(self._write)
        self.probe = TerminalProbe(place, self._write, clock)
        self._flow: Flow | None = None
        self._want: Ask | Live | Wait | None = None
        self._until_s = 0.0
        self._screen: Screen | None = None
        self._refresh_s = 0.0

    # ---- out ----

    def _write(self, text: str) -> None:
        self._out(text.encode("ascii", "replace"))

    def echo(self, *lines: str) -> None:
        """Put lines out, through the pager. Whatever is in them, no control character leaves."""
        self.pager.put(lines, self.terminal.columns)

    def _send(self) -> None:
        """Send what fits the page."""
        self.pager.send(paged=self.terminal.pager)

    # ---- life ----

    def open(self) -> None:
        """Greet whoever came."""
        self._write("\r\n")
        self.echo("Tidegate console. ? says what can be typed; stop works without login.")
        self.pager.begin(self.terminal.rows)
        self._send()
        self._prompt()

    def hang_up(self, why: str) -> None:
        """The line is gone: nothing half typed is kept, manual power ends, the login ends."""
        self._abandon()
        if self.background is not None:
            self.background.end(self, why)
            self.background = None
        if self.user is not None:
            self.note("logout", why)
        self.user = None
        self.seat.leave()
        self.staged = None
        self._keys.reset()
        self.pager.drop()
        self._screen = None
        self.editor.history.clear()
        self.terminal = self.place.terminal = Terminal(pager=True) if self.place.probes else self.place.terminal
        self.probe.known = False, False

    def remark(self, text: str) -> None:
        """A line about something that went on beside; what is being typed is shown again behind it."""
        if self._screen is not None:
            return  # the screen shows it
        self._write("\r\n")
        self.echo(text)
        if self.pager.full:
            return
        self._send_all()
        if self._flow is None:
            typed, cursor = self.editor.text, self.editor.cursor
            self._prompt()
            self.editor.insert(typed)
            self.editor.cursor = cursor
            self.editor.key("")
        elif isinstance(self._want, Ask):
            self.editor.redraw()

    def end_login(self, why: str) -> str:
        """End the login; the line and what is known of the terminal stay. Gives who it was."""
        name = self.user.name if self.user is not None else ""
        terminal, known = self.terminal, self.probe.known
        self.hang_up(why)
        self.terminal = self.place.terminal = terminal
        self.probe.known = known
        return name

    def log_out(self, why: str) -> None:
        """End the login and say so."""
        name = self.end_login(why)
        self._write("\r\n")
        self.echo(f"{name} is logged out: {why}")
        self.pager.begin(self.terminal.rows)
        self._send()
        self._prompt()

    def leave(self, why: str) -> None:
        """End the login; in a terminal, where nobody is logged in, end the console."""
        if self.user is not None:
            self.log_out(why)
        elif not self.place.probes:
            self.ended = True

    def _abandon(self) -> None:
        if self._flow is not None:
            self._flow.close()
        self._flow = self._want = None
        self._leave_screen()

    def note(self, name: str, detail: str) -> None:
        """A line for the journal, on behalf of whoever is logged in; the gateway may be away."""
        fields: dict[str, object] = {"name": name[:32], "detail": clean(f"{detail} ({self.place.name})")[:150]}
        if self.user is not None:
            fields["user"] = self.user.name
        try:
            self.plant.ask("note", **fields)
        except ClientError:
            self.echo("(the gateway does not answer: this is not in the journal)")

    def may(self, role: str) -> bool:
        """Whether the present user has the role; "" needs no login."""
        if not role:
            return True
        return self.user is not None and messages.ROLES.index(self.user.role) >= messages.ROLES.index(role)

    @property
    def who(self) -> str:
        return f"{self.user.name} ({self.user.role})" if self.user is not None else ""

    def command(self, op: str, **fields: object) -> Outcome:
        """Command the gateway on behalf of the user. Raises ClientError."""
        answer = self.plant.ask(op, user=self.user.name if self.user is not None else None, **fields)
        try:
            return msgspec.convert(answer, Outcome)
        except msgspec.ValidationError as why:
            raise ClientError("unreadable", f"{op}: this release does not understand the answer: {why}") from None

    # ---- in ----

    def feed(self, data: bytes) -> None:
        """Take bytes from the line."""
        for key in self._keys.feed(data):
            if self.ended:
                return
            self._key(key)

    def _key(self, key: Key) -> None:
        if key.kind in ("alive", "cursor"):
            self.probe.reply(key, self.terminal)
            self.editor.columns = self.terminal.columns
            return
        if key.kind == "noise":
            if self._screen is None and not self.pager.full:
                self.editor.noise()
            if self.probe.note_noise():
                self._offer_speed()
            return
        self.probe.note_key(key)
        if self._screen is not None:
            self._end_live(key)
            return
        if self.pager.full:
            self._turn_page(key)
            return
        if isinstance(self._want, Wait) and key == Key("key", "interrupt"):
            self._resume(True)
            return
        if key.kind == "text":
            self._text(key.text)
        else:
            self._named(key.text)

    def _text(self, text: str) -> None:
        if text.endswith("?") and not self.editor.secret and self._want is None and len(text) <= 64:
            if len(text) > 1:
                self.editor.insert(text[:-1])
            self._help()
            return
        self.editor.insert(text)

    def _named(self, name: str) -> None:
        if name == "interrupt":
            self.pager.begin(self.terminal.rows)
            self._write("^C\r\n")
            if self._flow is not None:
                self._resume(None)
            else:
                self._prompt()
        elif name == "eof":
            if self.editor.empty and self._flow is None:
                self.leave("end of input")
        elif name == "redraw":
            self._write("\r\n")
            self.editor.redraw()
        elif name == "tab":
            if self._want is None:
                self._complete()
        else:
            line = self.editor.key(name)
            if line is not None:
                self._line(line)

    def _line(self, line: InputLine) -> None:
        """Take a whole line."""
        # A garbled line is not what was typed, so it is not done. To stop is always right.
        garbled = line.too_long or line.unreadable > 0
        words = line.text.split()
        if words and words[-1].lower() == "stop" and (garbled or len(words) == 1):
            self.editor.secret = False
            self._abandon()
            self._start(self.grammar.parse("stop")[0].run(self, {}))
            return
        if garbled:
            what = "is longer than 256 characters" if line.too_long else f"came with {line.unreadable} unreadable bytes"
            self.echo(f"the line {what}: nothing was done, type it again")
            self._offer_speed()
            self._go_on()
            return
        if isinstance(self._want, Ask):
            self._resume(line.text)
            return
        if isinstance(self._want, Wait):
            self.echo("busy: Ctrl-C ends this, stop stops the battery")
            self._send_all()
            self.editor.begin("")
            return
        text = line.text.strip()
        if not text:
            self.probe.ask_once(self.terminal)
            self._go_on()
            return
        try:
            form, named = self.grammar.parse(text)
            if not self.may(form.role):
                raise GrammarError(
                    f"{form.tokens[0]} needs the role {form.role}"
                    + (f", {self.user.name} has {self.user.role}" if self.user else ": login first")
                )
        except GrammarError as why:
            self.echo(str(why))
            self._go_on()
            return
        self.pager.begin(self.terminal.rows - 1)
        try:
            made = form.run(self, named)
        except (Refusal, GrammarError, QuantityError, UserError) as refused:
            made = [str(refused)]
        except ClientError as why_not:
            made = [gateway_words(why_not)]
        self._start(made)

    # ---- commands ----

    def _start(self, made: object) -> None:
        """Run what a command's function gave: nothing, lines, or a flow."""
        if isinstance(made, Generator):
            self._flow = made
            self._resume(None)
            return
        if isinstance(made, list):
            self.echo(*made)
        self._go_on()

    def _resume(self, answer: str | bool | None) -> None:
        """Go on with the command that waits."""
        flow = self._flow
        assert flow is not None
        waiting = isinstance(self._want, Wait)
        self._want = None
        self.editor.secret = False
        try:
            want = flow.send(answer)
        except StopIteration:
            self._flow = None
            self._go_on()
            return
        except (Refusal, GrammarError, QuantityError, UserError) as why:
            self._flow = None
            self.echo(str(why))
            self._go_on()
            return
        except ClientError as why:
            self._flow = None
            self.echo(gateway_words(why))
            self._go_on()
            return
        if self._flow is not flow:
            return  # it logged itself out
        self._want = want
        if isinstance(want, Ask):
            self._until_s = self.clock() + want.time_s
            self.pager.begin(self.terminal.rows - 1)
            self._send_all()
            self.editor.begin(clean(want.prompt), want.secret)
        elif isinstance(want, Wait):
            self._until_s = self.clock() + want.time_s
            self._send_all()
            if not waiting:
                self.editor.begin("")
        else:
            self._begin_live(want)

    def _send_all(self) -> None:
        """Send everything, without pages: a question follows."""
        self.pager.send(paged=False)

    def _go_on(self) -> None:
        """After a command: what is left of its lines, then the prompt."""
        self._send()
        if not self.pager.full and not self.ended:
            self._prompt()

    def _prompt(self) -> None:
        name = clean(self.plant.name)
        who = self.user.name if self.user is not None else ""
        shown = f"{who}@{name}" if who and name else who or name or "tidegate"
        if self.background is not None:
            shown += f" [{self.background.words}]"
        self.editor.columns = self.terminal.columns
        self.editor.begin(f"{shown}> ")

    def _turn_page(self, key: Key) -> None:
        # Anything but a blank is the beginning of the next command: nobody has to page to the end to say stop.
        typed = key.text.lstrip() if key.kind == "text" else ""
        if typed or key.text == "interrupt":
            self.pager.drop()
        self.pager.turn(1 if key == Key("key", "enter") else self.terminal.rows - 1, paged=self.terminal.pager)
        if not self.pager.full:
            self._prompt()
            if typed and typed.lower() != "q":
                self._text(typed)

    def _help(self) -> None:
        before = self.editor.text[: self.editor.cursor]
        rows = self.grammar.help(before, self.may)
        self._write("?\r\n")
        self.pager.begin(self.terminal.rows - 1)
        width = min(34, max((len(form) for form, _ in rows), default=0))
        self.echo(*(f"  {form:<{width}}  {text}" for form, text in rows))
        if not rows:
            self.echo("  nothing can follow here")
        if before.strip():
            self._send_all()
        else:
            self._send()
        if not self.pager.full:
            self.editor.redraw()

    def _complete(self) -> None:
        editor = self.editor
        before = editor.text[: editor.cursor]
        more, found = self.grammar.complete(before, self._named_words)
        if more:
            editor.insert(more)
        elif len(found) > 1:
            self._write("\r\n")
            shown = "  ".join(clean(word) for word in found[:40]) + ("  ..." if len(found) > 40 else "")
            self.echo(shown)
            self._send_all()
            editor.redraw()

    def _named_words(self, token: str) -> Iterable[str]:
        """Candidates for a token in upper case."""
        if token in ("POINT", "PATTERN"):
            return self.plant.names
        if token == "ROLE":
            return messages.ROLES
        if token == "USER" and self.user is not None:
            try:
                return list(self.users.all())
            except UserError:
                return ()
        if token == "KEY" and self.staged is not None:
            keys: Iterable[str] = self.staged.keys
            return keys
        return {"TIME": ("30s", "5min", "1h"), "POWER": ("1kW",)}.get(token, ())

    # ---- the screen ----

    def _begin_live(self, want: Live) -> None:
        lines = want.draw()
        big_enough = self.terminal.rows >= ROWS_MIN and self.terminal.columns >= COLUMNS_MIN
        if not self.terminal.vt100 or not big_enough:
            if self.terminal.vt100:
                self.echo(
                    f"the terminal is {self.terminal.columns} x {self.terminal.rows}; "
                    f"the screen needs {COLUMNS_MIN} x {ROWS_MIN}, so here it is as lines:"
                )
            self.echo(*lines)
            self._resume(None)
            return
        self.pager.drop()
        self._screen = Screen(self.terminal.rows, self.terminal.columns)
        self._screen.draw([clean(line) for line in lines])
        self._write(self._screen.emit(0))
        self._refresh_s = self.clock() + REFRESH_S

    def _leave_screen(self) -> None:
        if self._screen is not None:
            self._write(f"\x1b[{self._screen.rows};1H\r\n")
            self._screen = None

    def _end_live(self, key: Key) -> None:
        """Any key leaves the screen, and what was typed begins the next line, so that `stop` can be typed at once."""
        self._leave_screen()
        self._resume(None)
        if key.kind == "text" and key.text.lower() != "q" and self._flow is None:
            self._text(key.text)

    # ---- time ----

    def tick(self) -> None:
        """Let time pass; called several times a second."""
        now_s = self.clock()
        self.plant.poll()
        if self.ended:
            return
        if self.background is not None:
            self.background.tick(self)
        self._presence()
        if self._screen is not None and now_s >= self._refresh_s and isinstance(self._want, Live):
            self._refresh_s = now_s + REFRESH_S
            self._screen.draw([clean(line) for line in self._want.draw()])
            self._write(self._screen.emit(REFRESH_BYTES))
        if isinstance(self._want, Ask | Wait) and now_s >= self._until_s:
            asked = isinstance(self._want, Ask)
            if asked:
                self._write("\r\n")
                self.echo("no answer in time: nothing was done")
            self._resume(None if asked else False)
        idle_s = now_s - self.probe.key_s
        if self.user is not None and idle_s >= IDLE_S and self.background is None:
            self.log_out(f"no key for {IDLE_S / 60:.0f} minutes")
        elif not self.editor.empty and idle_s >= HALF_LINE_S and self._flow is None:
            self._write("\r\n")
            self.echo(f"half a line was dropped: nothing came for {HALF_LINE_S:.0f} s")
            self._send()
            self._prompt()

    def _presence(self) -> None:
        if self.user is None:
            return
        if self.probe.lost(PROBE_MANUAL_S if self.background is not None else PROBE_S):
            self.log_out("the terminal does not answer any more")

    def _offer_speed(self) -> None:
        """When most of what comes is unreadable, name the speed of the line."""
        if self.probe.wrong_speed():
            self.echo(f"unreadable characters: set the terminal to {self.place.baud} baud, 8 data bits, no parity")
            if self._flow is None:
                self._send()
