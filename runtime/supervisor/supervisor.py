"""Start core, gateway and carbon sidecar of one site, keep them, and end them in the safe order.

The order of the end is the point: the core first, which ramps to 0 and sees the last setpoint onto the wire while all
its devices still answer; then those that only listen. A child cannot outlive us: it gets SIGTERM from the kernel when
we die, and to the core that means the same ramp to 0. All memory is anonymous, so nothing is left over either.
"""

import contextlib
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from tidegate.config.compile import compile_site
from tidegate.config.site import Site, SiteError
from tidegate.config.site_maps import load_maps
from tidegate.ext.abi import program
from tidegate.ext.abi.shared import OrderKind, Shared
from tidegate.ext.cycle.recorder import Ring
from tidegate.hal.description import described
from tidegate.runtime.core.sealed import sealed
from tidegate.runtime.recording import availability
from tidegate.runtime.state.former import buses_of, former
from tidegate.runtime.state.held import held_dir, take_in
from tidegate.runtime.state.latches import LatchFile, told, words_of
from tidegate.runtime.state.learnt import LearntFile
from tidegate.runtime.state.paths import SiteLock, runtime_dir, state_dir
from tidegate.runtime.state.stop_file import StopFile
from tidegate.runtime.state.stop_pipe import StopPipe
from tidegate.runtime.supervisor.child import Child, Watch, eventually, undisturbed, waited
from tidegate.runtime.supervisor.guard import Feed, Guard
from tidegate.runtime.supervisor.own_users import OwnUsers
from tidegate.runtime.supervisor.preflight import place_of, prepare
from tidegate.runtime.supervisor.simulated_buses import simulated_buses
from tidegate.runtime.supervisor.watchdogs import Board, Notify, WatchdogError

if TYPE_CHECKING:
    from tidegate.runtime.api.blocking_client import Client
    from tidegate.runtime.api.messages import Message

START_S = 30.0
REST_S = 20.0  # the core's ramp to zero and its last writes
END_S = 8.0
KEEP_S = 0.01
LEARNT_FIRST_S, LEARNT_EVERY_S = 60.0, 600.0  # what was learnt of the plant goes to disk so often, and at the end
RESTARTS = 5
RESTARTS_WITHIN_S = 60.0
HEALTHY_PAUSE_S = 0.05
TROUBLE_S = 0.1
WAIT_S = 0.25
STOP_NS = 10 * 365 * 86_400 * 10**9  # a stop has no end
FROZEN_S = 10.0
SIDECAR_NEEDS = ("sqlalchemy", "cryptography")  # of the extra `carbon`: what the sidecar cannot start without
BEATING = ("gateway", "remote", "console")  # whom people and machines speak to: one that stands still is started again
NEVER_GIVEN_UP = ("gateway", "remote", "console")  # without them nobody is heard
EXIT_UNUSABLE = 78  # EX_CONFIG: starting it again would not help
EXIT_RESTART = 85  # of the console: the site file was changed there


class StartError(RuntimeError):
    """The site is sound but could not be started; says which process failed and what it said."""


class Supervisor:
    """All processes of one site.

    site : path of a site file, or a loaded Site. out : called with one line of text for people at a time.
    log : file that takes the children's messages; None = our own stderr.
    state : folder for journal and ledger; None = the user's.
    sidecar : also run the carbon sidecar. notify : where systemd listens.
    """

    def __init__(
        self,
        site: str | os.PathLike[str] | Site,
        *,
        out: Callable[[str], None] | None = None,
        log: IO[bytes] | IO[str] | None = None,
        runtime: Path | None = None,
        state: Path | None = None,
        sidecar: bool = True,
        core_words: list[str] | None = None,
        notify: Notify | None = None,
    ) -> None:
        self.path = None if isinstance(site, Site) else place_of(site)
        # What the sidecar lacks it says itself; a file of factors never keeps a battery from being controlled.
        self.site, self.blob = prepare(site, accounts=False)
        self.description = described(program.describe(self.blob))
        self.name = self.site.site.name
        self.runtime = runtime_dir(self.name, runtime)
        self.state = state_dir(self.name, state)
        self.learnt = LearntFile(self.state, self.site, load_maps(self.site, []))
        carried, self._learnt_said = self.learnt.read()
        if carried is not None:
            self.blob = compile_site(self.site, carried)
            self.description = described(program.describe(self.blob))
        self._learnt_due_s = LEARNT_FIRST_S
        self.buses = buses_of(self.description)
        units = [unit.name for unit in self.description.units]
        held = held_dir(self.state)
        self.latches = LatchFile(held, units, self.runtime, self.buses)
        self._latches_said = ""
        self.children: dict[str, Child] = {}
        self.shared: Shared | None = None
        self._print = out or (lambda line: print(line, file=sys.stderr, flush=True))
        self._log = log
        self._sidecar = sidecar
        self._core_words = core_words or []
        self._lock = SiteLock(self.name, self.runtime, self.state)
        self._watch = Watch()
        self.stops = StopFile(held, self.runtime)
        self._stop_ordered = False
        self._trouble_said = ""
        self._stopping = False  # no Event: a signal that interrupts its `set` would wait for its own lock
        self._ended = threading.Event()
        self._monitor: threading.Thread | None = None
        self._keeper: threading.Thread | None = None
        self.guard: Guard | None = None
        self.notify = notify or Notify()
        self.board: Board | None = None
        self.users = OwnUsers()
        self._stop_pipe: StopPipe | None = None
        self._fds: list[int] = []
        self._site_fd: int | None = None
        self.failure = ""
        self.restart = False

    # ---- start ----

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start everything; what was started is ended again if anything fails. Raises SiteBusy, StartError."""
        self._lock.acquire()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        wanted = self.site.watchdog
        if wanted is not None and not os.access(wanted.device, os.W_OK):
            raise StartError(
                f"watchdog.device: {wanted.device} is missing or not ours to write; load its driver, give our group "
                "the right, or leave [watchdog] out"
            )
        said = [self._lock.problem, *self._learnt_said, *self.users.said]
        for line in filter(None, [*said, *self.users.prepare(self.site, self.state, self.runtime)]):
            self._out(f"tidegate: {line}")
        self._stop_pipe = pipe = StopPipe(self.runtime, self._out)
        program_fd = self._program_fd()
        self.shared, shared_fd = Shared.memfd()
        self._fds.append(shared_fd)
        core_ends, sim_ends, found_at = simulated_buses(self.description)
        self._fds += [*core_ends, *sim_ends]
        if sim_ends:
            sim = self._child(
                "sim",
                "tidegate.hal.sim",
                ["--program-fd", str(program_fd), *self._site_words(), *sim_ends.words],
                [program_fd, *sim_ends],
            )
            self._start_child(sim)
        memory = ["--program-fd", str(program_fd), "--shared-fd", str(shared_fd)]
        ring_fd = self._ring_fd()
        ring = ["--ring-fd", str(ring_fd)] if ring_fd is not None else []
        core = self._child(
            "core",
            "tidegate.runtime.core.process",
            [
                *memory,
                *ring,
                *self._stop_pipe.words,
                *core_ends.words,
                *self._latched_words(),
                *self._core_words,
                *found_at,
            ],
            [program_fd, shared_fd, *([ring_fd] if ring_fd is not None else []), *pipe.fds, *core_ends],
        )
        self._start_child(core)
        # The buses belong to core and sim from here on: if one of them ends, the other sees it hang up.
        for fd in (*core_ends, *sim_ends):
            os.close(fd)
            self._fds.remove(fd)
        if not eventually(lambda: (self.shared is not None and self.shared.running) or not core.alive, START_S):
            raise StartError("the core did not reach its first cycle")
        self._check(core)
        self._start_guard(core)
        folders = ["--runtime-dir", str(self.runtime), "--state-dir", str(self.state)]
        gateway = self._child("gateway", "tidegate.runtime.gateway", [*memory, *folders], [program_fd, shared_fd])
        self._start_child(gateway)
        if self.description.gateway.endpoint:
            self._start_remote(["--program-fd", str(program_fd), *folders], program_fd)
        if ring_fd is not None:
            self._start_recorder(program_fd, ring_fd)
        lacks = [name for name in SIDECAR_NEEDS if importlib.util.find_spec(name) is None]
        if self._sidecar and lacks:
            self._out(
                f"tidegate: no carbon account: {', '.join(lacks)} not installed; run: pip install 'tidegate[carbon]' "
                "(the site runs without it, its journal keeps the records)"
            )
        elif self._sidecar:
            words = ["--endpoint", f"ipc://{self.runtime}", "--state-dir", str(self.state), *self._site_words()]
            carbon = self._child("carbon", "tidegate.runtime.carbon", words, [])
            self._start_aside(carbon, "it, its journal keeps the records")
        self._start_telemetry()
        self._start_console()
        self._monitor = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._monitor.start()

    def _latched_words(self) -> list[str]:
        """What was latched when the site ran last, as arguments for the core; said to people too."""
        take_in(self.state)
        latched, damage = self.latches.start(lambda: former(self.state, self.runtime, self.buses))
        if damage:
            self._out(f"tidegate: what was latched before is not known: {damage}")
        for line in told(self.latches.units, latched):
            self._out(f"tidegate: {line}")
        return words_of(latched)

    def _start_guard(self, core: Child) -> None:
        """Look at the core from outside, and feed the watchdogs with what is seen. Raises StartError."""
        assert self.shared is not None
        feeds = []
        if self.notify.feed_every_s is not None:
            feeds.append(Feed("systemd", self.notify.feed_every_s, self.notify.alive))
        wanted = self.site.watchdog
        if wanted is not None:
            try:
                self.board = Board(wanted.device, wanted.timeout_s)
            except WatchdogError as why:
                raise StartError(str(why.strerror)) from None
            feeds.append(Feed("device", self.board.feed_every_s, self.board.alive))
            if self.board.note:
                self._out(f"tidegate: {self.board.note}")
        self.guard = Guard(self.shared, core.pid, self.site.site.period_us * 1000, feeds)
        self.guard.start()
        self._keeper = threading.Thread(target=self._keep_run, name="keeper", daemon=True)
        self._keeper.start()

    def _keep_run(self) -> None:
        """What may wait for a disk or for who reads our messages: latches on disk, what the guard saw."""
        began_s = time.monotonic()
        while not waited(self._ended, KEEP_S):
            try:
                if self._stop_pipe is not None and self._stop_pipe.ordered():
                    self.order_stop()
                self._keep_latches()
                self._print_guard()
                if time.monotonic() - began_s > self._learnt_due_s:
                    self._learnt_due_s += LEARNT_EVERY_S
                    self._keep_learnt()
            except Exception as why:  # whatever the machine refuses now, it may give the next time
                self._trouble("keeper", why)

    def _print_guard(self) -> None:
        while self.guard is not None and self.guard.notices:
            self._out(f"tidegate: {self.guard.notices.popleft()}")

    def _leave_guard(self) -> None:
        """The core is gone: the board's watchdog stops if its end was asked for, and else goes on to the reset."""
        if self.guard is not None:
            self.guard.stop()  # twice does no harm
        if self.board is not None:
            self.board.close(disarm=not self.failure)
            if self.failure:
                self._out(
                    f"tidegate: {self.board.path} goes on: the board restarts in {self.board.timeout_s} s "
                    "unless the site runs again before"
                )
            self.board = None

    def _keep_latches(self) -> None:
        """Latches on disk, also while no gateway runs; a disk that refuses is said once."""
        if self.shared is None or self.latches.keep(self.shared):
            self._latches_said = ""
        elif self.latches.error != self._latches_said:
            self._latches_said = self.latches.error
            self._out(f"tidegate: {self.latches.error}")

    def _keep_learnt(self) -> None:
        """What the loop knows of the plant, for the next start."""
        picture = self.shared.read_image() if self.shared is not None else None
        if picture is not None and not self.learnt.keep(self.description.point_names, picture):
            self._out(f"tidegate: {self.learnt.error}")

    def _start_remote(self, words: list[str], program_fd: int) -> None:
        """The process that serves other machines; without it this one is served all the same."""
        try:
            self._start_child(self._child("remote", "tidegate.runtime.gateway.remote", words, [program_fd]))
        except StartError as why:
            if self._stopping:
                raise
            self._out(f"tidegate: {why}; other machines are not served yet")

    def _start_recorder(self, program_fd: int, ring_fd: int) -> None:
        words = ["--program-fd", str(program_fd), "--ring-fd", str(ring_fd), "--endpoint", self.endpoint]
        words += ["--state-dir", str(self.state)]
        fds = [program_fd, ring_fd]
        if self._site_fd is not None:
            words += ["--site-fd", str(self._site_fd)]
            fds.append(self._site_fd)
        self._start_aside(self._child("recorder", "tidegate.runtime.recording", words, fds), "its recorder")

    def _start_telemetry(self) -> None:
        """The process that asks PDUs, servers and Prometheus; the site is worth more than what they say."""
        if not self.site.telemetry or not self._sidecar:
            return
        words = ["--state-dir", str(self.state), *self._site_words()]
        self._start_aside(self._child("telemetry", "tidegate.runtime.telemetry", words, []), "its telemetry")

    def _start_console(self) -> None:
        wanted = self.site.console
        if wanted is None:
            return
        words = ["--endpoint", f"ipc://{self.runtime}", "--state-dir", str(self.state), "--supervised"]
        words += ["--port", wanted.port, "--baud", str(wanted.baud), *(self._site_words() if self.path else [])]
        self._start_aside(self._child("console", "tidegate.runtime.console", words, []), "its console")

    def _site_words(self) -> list[str]:
        """The site file's place; a Site made in memory still knows the folder that its paths are relative to."""
        return ["--site", str(self.path or self.site.folder / "site.toml")]

    def _program_fd(self) -> int:
        """The compiled site as a descriptor that cannot be written to."""
        fd = sealed("tidegate-program", self.blob)
        self._fds.append(fd)
        return fd

    def _ring_fd(self) -> int | None:
        """Memory for the recorder's ring, None where the site has none."""
        if availability.missing(self.description):
            return None
        fd = Ring.memfd(self.description.recorder.mib)
        self._fds.append(fd)
        if self.path is not None:
            self._site_fd = os.memfd_create("tidegate-site", os.MFD_CLOEXEC)
            self._fds.append(self._site_fd)
            os.pwrite(self._site_fd, Path(self.path).read_bytes(), 0)
        return fd

    def _child(self, name: str, module: str, words: list[str], fds: list[int]) -> Child:
        child = Child(name, ["-m", module, *words], fds, self._log, beats=name in BEATING, user=self.users.of(name))
        self.children[name] = child
        return child

    def _start_child(self, child: Child) -> None:
        if self._stopping:
            raise StartError("stopped while starting")
        child.start()
        eventually(lambda: child.ready.is_set() or not child.alive or self._stopping, START_S)
        self._check(child)

    def _start_aside(self, child: Child, what: str) -> None:
        """Start a child that the site can do without. One that is killed meanwhile is started again like any other."""
        try:
            self._start_child(child)
        except StartError as why:
            if self._stopping:
                raise
            killed = child.code is not None and child.code < 0
            child.given_up = not killed
            after = "it is started again" if killed else f"the site runs without {what}"
            self._out(f"tidegate: {why}; {after}")

    def _check(self, child: Child) -> None:
        if not child.alive:
            code = child.wait(1.0)
            said = " / ".join(list(child.said)[-3:]) or "it said why above"
            raise StartError(f"{child.name} ended at once with code {code}: {said}")

    # ---- run ----

    def _keep(self) -> None:
        """Restart those that only listen, end everything when the core or the simulated plant is gone."""
        while not self._stopping:
            try:
                mine = [child for child in self.children.values() if not child.given_up]
                for child in self._watch.wait(mine, 1.0):
                    if self._stopping:
                        break
                    self._after(child)
                for child in mine:
                    self._thaw(child)
            except Exception as why:  # no descriptor, no process, no memory: the next turn finds what this one missed
                self._trouble("supervisor", why)
                time.sleep(TROUBLE_S)
        self._ended.set()

    def _thaw(self, child: Child) -> None:
        """End a child that stands still: its end is then seen as any other."""
        if child.alive and child.silent_s() > FROZEN_S:
            self._out(
                f"tidegate: {child.name} (pid {child.pid}) gave no sign of life for {FROZEN_S:.0f} s; it is ended"
            )
            child.signal(signal.SIGKILL)
            child.wait(1.0)

    def _after(self, child: Child) -> None:
        """Do what is due now that a child has ended. Raises OSError or RuntimeError if it cannot be started again."""
        code = child.wait(1.0)
        if child.name in ("core", "sim"):
            self.failure = f"{child.name} (pid {child.pid}) ended by itself with code {code}"
            self._stopping = True
            self._out(f"tidegate: {self.failure}; ending the others")
        elif child.name == "console" and code == EXIT_RESTART:
            self.restart = self._stopping = True
            self._out("tidegate: the site file was changed at the console; starting anew")
        elif code == EXIT_UNUSABLE and child.name not in NEVER_GIVEN_UP:
            child.given_up = True
            self._out(f"tidegate: {child.name} needs a person and stays down; the core runs on")
        elif child.may_restart(RESTARTS, RESTARTS_WITHIN_S) or child.name in NEVER_GIVEN_UP:
            if not child.failing:
                self._out(f"tidegate: {child.name} ended with code {code}; starting it again")
            self._pause(HEALTHY_PAUSE_S * 2 ** min(5, max(0, len(child.starts) - 1)))
            if not self._stopping:
                child.failing = True
                child.start()
                child.failing = False
        else:
            child.given_up = True
            self._out(
                f"tidegate: {child.name} ended {RESTARTS} times within {RESTARTS_WITHIN_S:.0f} s "
                "and stays down; the core runs on"
            )

    def _pause(self, seconds: float) -> None:
        """Wait before a child is started again; shorter if the end begins or the core goes meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            core = self.children.get("core")
            if core is not None and not core.alive:
                return
            time.sleep(HEALTHY_PAUSE_S)

    def _trouble(self, who: str, why: Exception) -> None:
        """Say what went wrong, once while it is the same."""
        said = f"{who}: {type(why).__name__}: {why}"
        if said != self._trouble_said:
            self._trouble_said = said
            self._out(f"tidegate: {said}; it is tried again")

    def _out(self, line: str) -> None:
        """Tell people. Nobody who reads, and a full disk behind it, must not end who speaks."""
        with contextlib.suppress(OSError, ValueError):
            self._print(line)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until something ends the run: a signal, or the core. False if it still runs."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not waited(self._ended, WAIT_S if until is None else max(0.0, min(WAIT_S, until - time.monotonic()))):
            with contextlib.suppress(MemoryError):  # it says what else is wrong; for that there may be no memory either
                self._look_after()
            if self._ended.is_set():
                break
            if until is not None and time.monotonic() >= until:
                return False
        return True

    def _look_after(self) -> None:
        """See to the thread that sees to the others; keep a stop that came by signal."""
        if self._monitor is not None and not self._monitor.is_alive():
            if self._stopping:
                self._ended.set()
            else:
                self._trouble("supervisor", RuntimeError("its thread had ended"))
                self._monitor = self._thread(self._keep, "supervisor")
        if self._stop_ordered:
            self._stop_ordered = False
            self.order_stop()  # again: the first signal may have come before there was a memory to store it in
            self._stop_ordered = False
            problem = self.stops.mark()
            self._out(f"tidegate: stopped by a signal{'; not kept: ' + problem if problem else ''}")

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread | None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as why:
            self._trouble(name, why)
        return thread

    def order_stop(self) -> None:
        """Order the core to zero and to stay there; by a store into its memory, so that a signal handler may call it.

        It needs nobody else: no gateway, no descriptor, no disk. `_look_after` keeps it over a restart.
        """
        if self.shared is not None:
            self.shared.put_order(OrderKind.STOP, 1.0, time.monotonic_ns() + STOP_NS, 0)
        self._stop_ordered = True

    def ask_to_restart(self) -> None:
        """End in the safe order and start anew with the site file as it is now; one that cannot start changes nothing.

        A changed file that fails for another reason gives way to the one before it, as after the console's change.
        """
        try:
            prepare(self.path if self.path is not None else self.site, accounts=self._sidecar)
        except SiteError as why:
            self._out(f"tidegate: not restarted: {why}")
            return
        self.restart = self._stopping = True
        self._out("tidegate: restart was ordered; the power goes to zero first")

    def ask_to_stop(self) -> None:
        """Begin the end; returns at once and may be called from a signal handler."""
        self._stopping = True
        self._watch.knock()

    # ---- end ----

    def stop(self) -> int:
        """Setpoint 0 on the wire first, then end the others. Gives 0 if the core reached rest."""
        with undisturbed():
            self.ask_to_stop()
            if self.guard is not None:
                self.guard.ending = self.children["core"].alive  # else it went by itself, which is news
            if self._monitor is not None and self._monitor is not threading.current_thread():
                self._monitor.join(END_S)
            code = 0
            for name, timeout_s in (
                ("core", REST_S),
                ("console", END_S),
                ("carbon", END_S),
                ("telemetry", END_S),
                ("recorder", END_S),
                ("remote", END_S),
                ("gateway", END_S),
                ("sim", END_S),
            ):
                child = self.children.get(name)
                if child is None:
                    continue
                ended = child.end(timeout_s)
                if name == "core":
                    self._leave_guard()
                    code = ended if ended is not None else 1
                    if code == 3:
                        self._out("tidegate: not every port confirmed setpoint 0; the converters' own watchdogs act")
                    if "gateway" in self.children and self.children["gateway"].alive:
                        time.sleep(0.15)  # one group of its journal, so that the sidecar finds the last records
            self._leave_guard()
            self._ended.set()
            if self._keeper is not None:
                self._keeper.join(END_S)
            self._keep_latches()  # what the core's last cycles latched
            with contextlib.suppress(Exception):  # nothing of the end depends on it
                self._keep_learnt()
            self._print_guard()
            if self._stop_pipe is not None:
                self._stop_pipe.close()
            for fd in self._fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._fds.clear()
            self._ended.set()
            self._lock.release()
        return code

    # ---- what it gives ----

    @property
    def endpoint(self) -> str:
        """Where the gateway listens, for a client."""
        return f"ipc://{self.runtime}"

    def client(self) -> "Client":
        """A client of this site's gateway."""
        from tidegate.runtime.api.blocking_client import Client

        return Client(self.endpoint)

    @property
    def results(self) -> "list[Message]":
        """What the simulated plant measured, one JSON object a line, in order."""
        return self.children["sim"].records() if "sim" in self.children else []

    @property
    def core_said(self) -> "Message":
        """What the core said when it was ready: pid, what this machine lacks, resident memory."""
        return (
            next((one for one in self.children["core"].records() if "core" in one), {})
            if "core" in self.children
            else {}
        )
