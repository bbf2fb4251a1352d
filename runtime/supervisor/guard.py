"""What the supervisor sees of the core from outside, and which watchdogs it feeds with that.

A look every few milliseconds, a few system calls each. Nothing here decides about power: a loop that stands still
writes no setpoint, so the converter's own watchdog acts, and the watchdogs of systemd and the board starve with it.

| cause | seen by | reaction |
|---|---|---|
| gone | the loop's thread does not exist | nothing is fed; the supervisor ends the site |
| stalled | no cycle for 3 periods | nothing is fed until cycles pass again |
| late | escalation 3 of the loop's own deadlines | nothing is fed (the gate's row `loop_silent` withholds heartbeats) |
| priority-lost | the thread's policy | it is asked for again at once |
| unlocked | the process's locked memory | the core locks again within its second |
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tidegate.ext.abi.shared import GUARD_NAMES, Escalation, GuardCause, Shared
from tidegate.ext.cycle import realtime
from tidegate.runtime.core.locked_memory import LockedMemory
from tidegate.runtime.supervisor.child import waited

LOOK_S = 0.004
LOCKED_EVERY = 2  # looks: the kernel takes its time over a process's memory
STALL_PERIODS = 3
SLACK_NS = 5_000_000  # on top of them: with a look's time and the wake-up it stays below 10 ms
PRIORITY = 60  # below the loop and its ports: it must not delay what it watches
REGAIN_NS = 1_000_000_000
GONE, STALLED, LATE, PRIORITY_LOST, UNLOCKED = GuardCause


class Seen(NamedTuple):
    """One look."""

    running: bool
    t_ns: int  # start of the newest cycle, 0 = none yet
    proof: int  # completed safe cycles
    escalation: int
    fifo: int | None  # priority of the loop's thread, 0 = no FIFO, None = no such thread
    unlocked: bool


class Change(NamedTuple):
    """A cause that began or ended."""

    cause: int
    begins: bool
    detail: str


class Judge:
    """What a row of looks means. Pure: time comes as an argument.

    period_ns : of the loop. fifo : the priority that its thread was given at start, 0 = none.
    """

    def __init__(self, period_ns: int, fifo: int) -> None:
        self.stall_ns = STALL_PERIODS * period_ns + SLACK_NS
        self.fifo = fifo
        self.holding = 0
        self.times = [0] * len(GUARD_NAMES)
        self.longest_ns = 0
        self.stall_seen_ns = 0  # how long the newest stall had lasted when it was seen

    def look(self, now_ns: int, seen: Seen) -> list[Change]:
        """Take one look in; gives what changed by it. now_ns must have been read before what it is compared with."""
        silent_ns = max(0, now_ns - seen.t_ns) if seen.running and seen.t_ns else 0
        self.longest_ns = max(self.longest_ns, silent_ns)
        gone = seen.fifo is None
        holding = (
            gone << GONE
            | (silent_ns > self.stall_ns and not gone) << STALLED
            | (seen.escalation >= Escalation.SILENT) << LATE
            | (seen.fifo is not None and seen.fifo < self.fifo) << PRIORITY_LOST
            | (seen.unlocked and not gone) << UNLOCKED
        )
        changes = []
        for cause in range(len(GUARD_NAMES)) if holding != self.holding else ():
            if not (holding ^ self.holding) >> cause & 1:
                continue
            if not holding >> cause & 1:
                changes.append(Change(cause, False, "over"))
                continue
            self.times[cause] += 1
            if cause == STALLED:
                self.stall_seen_ns = silent_ns
            detail = (
                "the loop's thread has ended",
                f"no cycle for {silent_ns / 1e6:.1f} ms",
                "too many late cycles; no watchdog is fed",
                f"the loop has priority {seen.fifo} instead of {self.fifo}",
                "the core's memory is no longer locked",
            )[cause]
            changes.append(Change(cause, True, detail))
        self.holding = holding
        return changes

    @property
    def alive(self) -> bool:
        """Tell whether the loop passes cycles in time: what a watchdog may be told, if the proof has moved as well."""
        return not self.holding & (1 << GONE | 1 << STALLED | 1 << LATE)


class Feed:
    """One watchdog: fed when it is due, and only with a proof of life that it has not been fed with before."""

    def __init__(self, name: str, every_s: float, feed: Callable[[], None]) -> None:
        self.name = name
        self.every_ns = int(every_s * 1e9)
        self.fed = 0
        self.error = ""
        self._feed = feed
        self._proof = self._last_ns = -1

    def step(self, now_ns: int, alive: bool, proof: int) -> bool:
        """Feed it if that is right now; tells whether it was."""
        if not alive or proof == self._proof or (self._last_ns >= 0 and now_ns - self._last_ns < self.every_ns):
            return False
        try:
            self._feed()
        except OSError as why:
            self.error = f"{self.name}: {why.strerror or why}"
            return False
        self.error = ""
        self.fed += 1
        self._proof, self._last_ns = proof, now_ns
        return True


class Guard:
    """The thread that looks. pid : of the core process. feeds : by name, see `Feed`.

    It prints nothing itself, because a reader of our messages who hangs must not starve the board: `notices` is for
    another thread to take.
    """

    def __init__(self, memory: Shared, pid: int, period_ns: int, feeds: list[Feed], *, look_s: float = LOOK_S) -> None:
        self.memory = memory
        self.feeds = feeds
        self.notices: deque[str] = deque(maxlen=64)
        self.ending = False  # from here on a core that is gone is no news
        self.gaps_ns_max = 0  # the longest time between two looks: how well this machine lets us look
        self.looks = 0
        self._look_s = look_s
        self._tid = memory.loop_tid
        self._counted = memory.n_units > 0  # without a unit there is no gate whose steps could be the proof
        counters = memory.loop_counters()
        self.judge = Judge(period_ns, counters["fifo"])
        self._locked = LockedMemory(pid) if counters["locked"] else None
        self._unlocked = False
        self._regain_ns = 0
        self._errors: dict[str, str] = {}
        self._failed = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End it. A core that ended by itself is seen by the last look, if by none before."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
            if not self.ending:
                self.look(time.monotonic_ns())
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def _run(self) -> None:
        realtime.set_fifo(PRIORITY)  # without the right: as any program, and gaps_ns_max tells what that costs
        last_ns = time.monotonic_ns()
        while not waited(self._end, self._look_s):
            now_ns = time.monotonic_ns()
            self.gaps_ns_max = max(self.gaps_ns_max, now_ns - last_ns)
            last_ns = now_ns
            try:
                self.look(now_ns)
            except Exception as why:  # a look that fails feeds nothing; a thread that ended would never look again
                said = f"a look at the core failed: {type(why).__name__}: {why}"
                if said != self._failed:
                    self._failed = said
                    self.notices.append(said)

    def look(self, now_ns: int) -> None:
        """Look once, feed what is due, and leave what was seen in the shared memory."""
        running, cycle, t_ns, proof, escalation = self.memory.life()
        fifo = self._fifo()
        if fifo is None and self.ending:
            return
        if self._locked is not None and self.looks % LOCKED_EVERY == 0:
            self._unlocked = self._locked.lost()
        for change in self.judge.look(now_ns, Seen(running, t_ns, proof, escalation, fifo, self._unlocked)):
            self.notices.append(f"core {GUARD_NAMES[change.cause]}: {change.detail}")
        if self.judge.holding >> PRIORITY_LOST & 1:
            self._regain(now_ns)
        for feed in self.feeds:
            feed.step(now_ns, running and self.judge.alive, proof if self._counted else cycle)
            if feed.error != self._errors.get(feed.name, ""):
                self._errors[feed.name] = feed.error
                self.notices.append(f"watchdog of {feed.error or feed.name + ': fed again'}")
        self.looks += 1
        fed = {feed.name: feed.fed for feed in self.feeds}
        self.memory.put_guard(
            looks=self.looks, fed_systemd=fed.get("systemd", 0), fed_device=fed.get("device", 0),
            times=self.judge.times, longest_ns=self.judge.longest_ns, holding=self.judge.holding,
        )  # fmt: skip

    def _fifo(self) -> int | None:
        try:
            if os.sched_getscheduler(self._tid) & ~os.SCHED_RESET_ON_FORK != os.SCHED_FIFO:
                return 0
            return os.sched_getparam(self._tid).sched_priority
        except ProcessLookupError:
            return None

    def _regain(self, now_ns: int) -> None:
        if now_ns < self._regain_ns:
            return
        self._regain_ns = now_ns + REGAIN_NS
        with contextlib.suppress(OSError):  # refused: the cause goes on holding, and that is told
            os.sched_setscheduler(self._tid, os.SCHED_FIFO, os.sched_param(self.judge.fifo))
