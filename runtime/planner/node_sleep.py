"""Idle machines sleep while the plan's advice says that work may wait; all wake when it says run, or is gone.

Idle is what telemetry saw (docs/telemetry.md): nothing of anybody's worked there for the whole of the last hour. What
is asleep by us is written down before it is ordered; a machine that was off before, or that somebody woke, is theirs.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.runtime.planner.adapter_audit import AdapterAudit, Note
from tidegate.runtime.planner.live_planner import STATUS_FILE
from tidegate.runtime.planner.node_power import BETWEEN, OFF, ON, Node, NodeError, NodePower, power_of, read_nodes
from tidegate.runtime.state import atomic_file

SLEEP_FILE = "node-sleep.json"
AUDIT_FILE = "node-sleep-audit.jsonl"
WORDS = ("may wait", "shed")  # of advice, under which machines sleep

Resting = Callable[[float], Mapping[str, float]]  # UTC s -> servers at rest for long enough, with the W they draw


@dataclass(frozen=True)
class SleepAllowed:
    """What the owner lets the adapter do; the machines are those of its file."""

    asleep_max: int = 4
    awake_min: int = 1
    again_s: float = 7200.0  # a machine that woke stays awake so long
    off_s: float = 900.0  # one that is asked to sleep is off within this, or it is left alone
    dry_run: bool = False
    stale_s: float = 2000.0  # a plan this old is nobody's any more


@dataclass
class Asleep:
    """One machine that we put to sleep. seen_off: it was really off since."""

    since_utc_s: float
    seen_off: bool = False


@dataclass
class NodeSleep:
    """One round after the other. resting: who is idle now. powers: by the machine's name; replaced in tests."""

    nodes: tuple[Node, ...]
    folder: Path
    allowed: SleepAllowed
    resting: Resting
    note: Note | None = None
    powers: dict[str, NodePower] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    asleep: dict[str, Asleep] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._audit = AdapterAudit(self.folder / AUDIT_FILE, "node-sleep", self.note)
        self._awake_until: dict[str, float] = {}
        self._dry: set[str] = set()
        for node in self.nodes:
            self.powers.setdefault(node.name, power_of(node))
        path = self.folder / SLEEP_FILE
        try:
            self.asleep = {name: Asleep(float(one["since_utc_s"]), bool(one["seen_off"]))
                           for name, one in json.loads(path.read_text()).items()}  # fmt: skip
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as why:
            raise NodeError(f"{path}: {why!r}: who sleeps by our order is not known; wake the machines by hand, then "
                            "remove the file") from None  # fmt: skip

    def _keep(self) -> None:
        kept = {name: dict(one.__dict__) for name, one in self.asleep.items()}
        atomic_file.replace(self.folder / SLEEP_FILE, json.dumps(kept).encode())

    def why_awake(self, now: float) -> str:
        """Why all machines are to be awake; "" while they may sleep."""
        try:
            told = json.loads((self.folder / STATUS_FILE).read_text())
            word, at = str(told["advice"]["word"]), int(told["planned_utc_s"])
        except (OSError, ValueError, TypeError, KeyError):
            return "there is no plan"
        if not -60 <= now - at <= self.allowed.stale_s:
            return "the plan is too old"
        return "" if word in WORDS else f"the plan's advice is: {word}"

    def round(self, now: float | None = None, *, let_go: bool = False) -> None:
        """Once. What a machine refuses is a doubt, audited, and asked again the next time."""
        now = time.time() if now is None else now
        self.doubts = []
        awake = "the adapter ends" if let_go else self.why_awake(now)
        states = self._states()
        for name in list(self.asleep):
            with self._doubting(name, now):
                self._look_after(name, states.get(name), awake, now)
        if awake:
            self._dry.clear()
            return
        at_rest = self.resting(now)
        up = [name for name, state in states.items() if state == ON and name not in self.asleep]
        room = min(self.allowed.asleep_max - len(self.asleep), len(up) - self.allowed.awake_min)
        for name in sorted(up, key=lambda one: (-at_rest.get(one, 0.0), one)):
            if name not in at_rest or self._awake_until.get(name, 0.0) > now or room <= 0:
                continue
            with self._doubting(name, now):
                room -= self._sleep(name, at_rest[name], now)

    def _states(self) -> dict[str, str]:
        found = {}
        for name, power in self.powers.items():
            try:
                found[name] = power.state()
            except NodeError as why:
                self.doubts.append(str(why))
        return found

    @contextlib.contextmanager
    def _doubting(self, name: str, now: float) -> Iterator[None]:
        try:
            yield
        except NodeError as why:
            self.doubts.append(str(why))
            self._audit.write(now, {"node": name}, f"node {name}", f"refused: {why}")

    def _sleep(self, name: str, watts: float, now: float) -> int:
        """1 where it was ordered."""
        if why := self.powers[name].busy():
            self.doubts.append(f"node {name}: telemetry has it at rest, but {why}: it stays awake")
            return 0
        if self.allowed.dry_run and name in self._dry:
            return 1
        row: dict[str, object] = {"node": name, "order": "sleep", "rests_at_w": round(watts, 1)}
        self._audit.write(now, row, f"node {name} sleeps: at rest it draws {watts:.0f} W",
                          "dry run" if self.allowed.dry_run else "asked")  # fmt: skip
        if self.allowed.dry_run:
            self._dry.add(name)
            return 1
        self.asleep[name] = Asleep(now)
        self._keep()
        self.powers[name].sleep()
        return 1

    def _look_after(self, name: str, state: str | None, awake: str, now: float) -> None:
        """A machine of ours: wake it, or see whether it is still ours."""
        one = self.asleep[name]
        if name not in self.powers:
            self.doubts.append(f"node {name} sleeps by our order and is in the file of machines no more: put it back")
            return
        if state == OFF and not one.seen_off:
            one.seen_off = True
            self._keep()
        if state == ON and one.seen_off:
            self._forget(name, now, "awake again")
        elif state == ON and now - one.since_utc_s > self.allowed.off_s:
            self.doubts.append(f"node {name} was asked to sleep {self.allowed.off_s / 60:.0f} min ago and is on")
            self._forget(name, now, "did not sleep")
        elif awake and state != BETWEEN:
            # One that has not ended yet is asked too: its end may come after this look.
            self._audit.write(
                now, {"node": name, "order": "wake", "why": awake}, f"node {name} wakes: {awake}", "asked"
            )
            self.powers[name].wake()
            self.doubts.append(f"node {name} was asked to wake: {awake}")

    def _forget(self, name: str, now: float, became: str) -> None:
        del self.asleep[name]
        self._awake_until[name] = now + self.allowed.again_s
        self._keep()
        self._audit.write(now, {"node": name}, f"node {name}", became)


def wake_all(folder: Path, nodes_file: Path) -> str:
    """For the guard: every machine of ours awake; "" when none is left."""
    try:
        made = NodeSleep(read_nodes(nodes_file), folder, SleepAllowed(), lambda now: {})
    except NodeError as why:
        return str(why)
    made.round(let_go=True)
    return f"{', '.join(made.asleep)} not awake yet; {'; '.join(made.doubts)}" if made.asleep else ""
