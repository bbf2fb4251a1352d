"""Which events become which messages to whom: by priority and role, and once for an alarm that flaps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tidegate.hal.description import Description
from tidegate.runtime.api.messages import Message
from tidegate.runtime.findings.priority import PRIORITIES, Priority, priority_of
from tidegate.runtime.notify.message_queue import Fresh
from tidegate.runtime.state.backup_outcome import NOTED_FAILED
from tidegate.runtime.state.noted_failures import ISLAND_DEVICE

# Told to those who maintain, whatever the priority: nobody else can end them.
MAINTAIN_EVENTS = {
    "latch": "a fault latched",
    "unenforced": "a configured limit is not held",
    "backup": "the backup failed",
    "island device": "a genset or an inverter does not do what the site asks for",
}
NOTES = {NOTED_FAILED: "backup", ISLAND_DEVICE: "island device"}  # name of a note -> what it means
FOR_MAINTAIN: Priority = "medium"


@dataclass(frozen=True)
class Target:
    """Who is told what. url: as Apprise reads it; it may hold a secret and is never printed."""

    name: str
    url: str = field(repr=False)
    priority: Priority = "medium"
    role: str = "operate"

    def wants(self, priority: Priority) -> bool:
        """Whether an alarm of this priority is for it."""
        return PRIORITIES.index(priority) >= PRIORITIES.index(self.priority)


class AlarmMessages:
    """Makes messages of events. quiet_s: an alarm that comes again so soon after it was there last is not told again.

    seen: alarm -> UTC when it was there last; it outlives a restart with the queue.
    """

    def __init__(self, site: Description, targets: Sequence[Target], quiet_s: float, seen: dict[str, float]) -> None:
        self.site, self.targets, self.quiet_s, self.seen = site, tuple(targets), quiet_s, seen
        self._faults = {fault.id: fault for fault in site.faults}

    def of(self, event: Message) -> tuple[list[Fresh], dict[str, float]]:
        """(messages that an event makes, alarms that were seen with it)."""
        kind, utc_s = event["event"], event["utc_ns"] / 1e9
        if kind == "unshelve":
            return list(self._back(event, utc_s)), {}
        if kind == "note":
            kind = NOTES.get(str(event.get("name")), kind)
        if kind not in ("fault_on", "fault_off") and kind not in MAINTAIN_EVENTS:
            return [], {}
        unit = self._unit(int(event.get("unit", -1)))
        name = str(event.get("detail") if kind in NOTES.values() else event.get("name") or event.get("detail") or kind)
        if kind in MAINTAIN_EVENTS and not event.get("value") and kind == "unenforced":
            return [], {}  # it is held again
        alarm = kind if kind == "backup" else f"{kind if kind in MAINTAIN_EVENTS else 'fault'} {unit} {name}"
        last, self.seen[alarm] = self.seen.get(alarm), utc_s
        marks = {alarm: utc_s}
        again = last is not None and -self.quiet_s < utc_s - last < self.quiet_s
        if kind == "fault_off" or again:
            return [], marks
        return list(self._told(kind, unit, name, utc_s)), marks

    def is_shelved(self, event: Message, alarms: Message) -> bool:
        """Whether somebody has put the alarm of an event aside, by the site's own list."""
        unit = self._unit(int(event.get("unit", -1)))
        return any(row["unit"] == unit and row["alarm"] == event.get("name") for row in alarms["shelved"])

    def _back(self, event: Message, utc_s: float) -> Iterator[Fresh]:
        """An alarm came off the shelf while its cause is still there: to be told as if it had come now."""
        unit, _, rest = str(event.get("detail", "")).partition(": ")
        if rest.endswith("; still active"):
            yield from self._told("fault_on", unit, str(event.get("name", "")), utc_s)

    def _unit(self, at: int) -> str:
        return self.site.units[at].name if 0 <= at < len(self.site.units) else "site"

    def _told(self, kind: str, unit: str, name: str, utc_s: float) -> Iterator[Fresh]:
        fault = self._faults.get(name)
        at = datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        if kind == "fault_on":
            priority = priority_of(fault.reaction if fault is not None else "")
            text = fault.text if fault is not None else name
            lines = [f"{text} ({name})", f"since {at}, unit {unit}"]
            if fault is not None:
                lines += [f"cause: {fault.what}", f"it ends when: {fault.clear}"]
                lines += ["then acknowledge: tidegate set ack"] if fault.latched else []
        else:
            priority, text = FOR_MAINTAIN, MAINTAIN_EVENTS[kind]
            lines = [f"{text}: {name}", f"since {at}, unit {unit}"]
        title = f"{self.site.site.name}: {priority} - {text}"
        for target in self.targets:
            if target.wants(priority) and (kind == "fault_on" or target.role == "maintain"):
                yield Fresh(target.name, title, "\n".join(lines), int(utc_s))

    def silence(self, silent_s: float, utc_s: float) -> list[Fresh]:
        """The site says nothing: told to everybody, once until it speaks again."""
        body = f"nothing was heard of the site for {silent_s:.0f} s; is it running, and its gateway?"
        title = f"{self.site.site.name}: high - the site says nothing"
        return [Fresh(target.name, title, body, int(utc_s)) for target in self.targets]

    def speech(self, utc_s: float) -> list[Fresh]:
        """It speaks again."""
        title = f"{self.site.site.name}: the site speaks again"
        return [
            Fresh(target.name, title, "messages of what came meanwhile follow", int(utc_s)) for target in self.targets
        ]
