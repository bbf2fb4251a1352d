"""What the plant does when the controller falls silent: the real revert time, watched from another bus if there is one.

Only readings go out here. The setpoint that the converter falls back from came through the gate. What a meter shows is
the load as well, so whether the converter held, and whether it let go, is asked of the converter itself: once when the
silence begins, and again when the meter says that it fell. In between nobody speaks to it, for there are watchdogs that
any reading feeds.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from tidegate.config.site import Device, Serial, Site
from tidegate.config.site_maps import load_maps
from tidegate.hal.decode import decode_registers
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.api.blocking_client import LeaseHeld
from tidegate.runtime.commissioning.commissioning_report import FINDING, OK, SKIPPED, UNCLEAR, Report, plot
from tidegate.runtime.commissioning.plant_session import LEASE_S, Plant
from tidegate.runtime.commissioning.private_run import OwnRun
from tidegate.runtime.commissioning.steps import Echo, Task
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError

IN_A_ROW = 3  # readings that must agree before it counts as reverted
OPEN_S = 5.0
SHARE_SEEN = 0.3  # of what it was to give: with less, falling back does not show
REVERT_SLACK_S = 2.0
ATTEMPTS = 3  # silences of one converter, while power was cut or the load moved in between
TAKE_S = 10.0  # to take the power, and the meter to show it
LEVEL_READINGS, LEVEL_S = 7, 0.1  # a level is the median of so many readings, so far apart
STEADY = 0.25  # of the step: what a level may spread over
AGREES = 0.5  # of the step: how far a meter's step may be off the converter's own
OWN_READINGS, OWN_S = 3, 0.2  # asking the converter itself
LOUD = "the load moved as much as the step"
CALMER = "repeat it in a calmer hour, or with more --power"
GONE = "its power was cut before the silence began"
AGAIN = "repeat it; `tidegate why` says what cut it"


@dataclass
class Levels:
    """Medians, W, at rest and under power: of the converter itself and of the point that is watched."""

    own_rest_w: float
    own_held_w: float
    rest_w: float
    held_w: float

    @property
    def step_w(self) -> float:
        """What the converter took."""
        return self.own_held_w - self.own_rest_w

    def let_go(self, own_w: float) -> bool:
        """Whether this reading of the converter is nearer to rest."""
        return abs(own_w - self.own_rest_w) < abs(own_w - self.own_held_w)


@dataclass
class Watched:
    """A silence: readings, the fall in them, and the reading before it; s since it began."""

    rows: "Rows" = field(default_factory=list)
    after_s: float | None = None
    before_s: float = 0.0
    unclear: str = ""  # why it tells nothing
    remedy: str = ""


class PowerReader:
    """Reads `power_w` of one device on a port that the core has left. shared: a reader that has that port already."""

    def __init__(self, port: Serial, device: Device, found: DeviceMap, shared: "PowerReader | None" = None) -> None:
        self.where = f"{device.name} on {port.name}"
        self._unit_id = device.unit_id or 1
        self._point = next(p for p in found.point if p.name == "power_w")
        self._scale = next((p for p in found.point if p.name == self._point.sf), None) if self._point.sf else None
        self._sign = -1.0 if device.invert else 1.0
        self._reader: RegisterReader = self._open(port) if shared is None else shared._reader

    @staticmethod
    def _open(port: Serial) -> RegisterReader:
        until = time.monotonic() + OPEN_S
        while True:
            try:
                return RegisterReader(port.device, port.baud, port.parity, port.stop_bits, timeout_s=0.3)
            except ToolError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)  # the core is just letting go

    def power_w(self) -> float | None:
        """Power now by the map's own sign, None if it did not answer. The scale factor is that of the same reading."""
        members = [self._point, *([self._scale] if self._scale is not None else [])]
        first = min(one.address or 0 for one in members)
        last = max((one.address or 0) + one.words for one in members)
        try:
            words = self._reader.read(self._unit_id, self._point.function, first, last - first)
        except TimeoutError:
            return None
        if not words:
            return None
        factor = None
        if self._scale is not None:
            word = words[(self._scale.address or 0) - first]
            factor = word - 65536 if word > 32767 else word
        at = (self._point.address or 0) - first
        value = decode_registers(self._point, words[at : at + self._point.words], factor)
        return None if value is None else value * self._sign

    def close(self) -> None:
        """Give the port back."""
        self._reader.close()


def observer(site: Site, maps: dict[str, DeviceMap], pcs: str) -> tuple[Device, Serial, bool] | None:
    """(device, port, whether it shares the converter's bus) to watch from: the grid meter, else the converter.

    Of several converters each says its own: the grid meter sees all of them fall back at once.
    """
    converter = next(one for one in site.device if one.name == pcs)
    meter = next((one for one in site.device if one.role == "grid-meter"), None)
    for device in (meter, converter) if len(site.storage) == 1 else (converter,):
        if device is not None and (port := port_of(site, device, maps)) is not None:
            return device, port, device.bus == converter.bus
    return None


def port_of(site: Site, device: Device, maps: dict[str, DeviceMap]) -> Serial | None:
    """The serial port of this machine on which the device's power can be read; None if there is none."""
    if not any(point.name == "power_w" for point in maps[device.name].point):
        return None
    return next((port for port in site.serial if port.name == device.bus and port.device != "sim"), None)


Rows = list[tuple[float, float]]  # (s since the silence began, W)


def watch(reader: PowerReader, begin_s: float, timeout_s: float, enough: Callable[[Rows], bool]) -> Rows:
    """Readings until `enough`, or until timeout_s after the silence began. begin_s: time.monotonic() of that."""
    rows: list[tuple[float, float]] = []
    while (gone := time.monotonic() - begin_s) < timeout_s:
        value = reader.power_w()
        if value is None:
            time.sleep(0.02)
            continue
        rows.append((gone, value))
        if enough(rows):
            break
    return rows


def reverted_after(rows: list[tuple[float, float]], held_w: float, back_w: float) -> float | None:
    """When the readings had left `held_w` for good: first of some in a row nearer to `back_w`. None if they did not."""
    at = _fall(rows, held_w, back_w)
    return None if at is None else rows[at][0]


def _fall(rows: Rows, held_w: float, back_w: float) -> int | None:
    nearer = [abs(value - back_w) < abs(value - held_w) for _, value in rows]
    for i in range(len(rows) - IN_A_ROW + 1):
        if all(nearer[i : i + IN_A_ROW]):
            return i
    return None


# ---------------------------------------------------------------- before the silence


def level(plant: Plant, points: tuple[str, str]) -> tuple[list[float], list[float]] | None:
    """Some readings of both points; None if one of them could not be read."""
    rows: tuple[list[float], list[float]] = ([], [])
    for _ in range(LEVEL_READINGS):
        for name, row in zip(points, rows, strict=True):
            if (value := plant.value(name)) is not None:
                row.append(value)
        time.sleep(LEVEL_S)
    return rows if all(len(row) > LEVEL_READINGS // 2 for row in rows) else None


def taken(plant: Plant, lease: LeaseHeld, task: Task, points: tuple[str, str], total_w: float) -> Levels | Watched:
    """Rest, then hold until the converter itself and the watched point show the move; else why they do not."""
    plant.derated.clear()
    plant.move(lease, 0.0, 1.0)
    rest = level(plant, points)
    plant.move(lease, total_w, max(1.0, task.hold_s / 2))
    until = time.monotonic() + TAKE_S
    while True:
        held = level(plant, points)
        plant.check()
        if rest is None or held is None:
            why = Watched(unclear=f"{' or '.join(dict.fromkeys(points))} could not be read before the silence")
        else:
            made = Levels(median(rest[0]), median(held[0]), median(rest[1]), median(held[1]))
            why = _unsettled(made, rest, held, task, total_w)
            if not why.unclear:
                return made
        if time.monotonic() > until:
            break
        plant.move(lease, total_w, 0.5)
    if plant.derated:
        why.unclear += f"; power was limited at times ({', '.join(sorted(plant.derated))})"
        why.remedy = "repeat it once `tidegate doctor` finds nothing to mend"
    return why


def _unsettled(
    made: Levels, rest: tuple[list[float], ...], held: tuple[list[float], ...], task: Task, total_w: float
) -> Watched:
    """Why these levels are nothing to fall back from; empty if they are."""
    step_w = abs(made.step_w)
    if step_w < SHARE_SEEN * task.power_w:
        said = f"took {made.step_w:.0f} W of {total_w:.0f} W: nothing to fall back from"
        return Watched(unclear=said, remedy="see `tidegate why`: what battery and converter allow now")
    if max(map(_spread, (rest[0], held[0]))) > STEADY * step_w:
        return Watched(unclear="its power did not settle", remedy="see the line about the converter")
    shown_w = abs(made.held_w - made.rest_w)
    if abs(shown_w - step_w) > AGREES * step_w or max(map(_spread, (rest[1], held[1]))) > AGREES * step_w:
        return Watched(unclear=f"the meter showed {shown_w:.0f} W of a step of {step_w:.0f} W: {LOUD}", remedy=CALMER)
    return Watched()


def _spread(values: list[float]) -> float:
    """Range of the values without the least and the most: one late reading is no motion."""
    kept = sorted(values)[1:-1]
    return kept[-1] - kept[0] if kept else 0.0


# ---------------------------------------------------------------- in it


def own_power(reader: PowerReader) -> float | None:
    """What the converter says of itself; None if it does not answer."""
    for number in range(OWN_READINGS):
        if number:
            time.sleep(OWN_S)
        if (value := reader.power_w()) is not None:
            return value
    return None


@dataclass
class Silence:
    """One silence as it is watched. own: reads the converter; None where nobody can. begin_s: time.monotonic()."""

    reader: PowerReader
    own: PowerReader | None
    levels: Levels
    begin_s: float
    timeout_s: float
    asked_s: float | None

    def watched(self) -> Watched:
        """Until it fell back, or the time is over."""
        made = Watched()
        if self._asks and (first := own_power(self._converter)) is not None and self.levels.let_go(first):
            return Watched(unclear=GONE, remedy=AGAIN)
        held_w, back_w, start = self.levels.held_w, self.levels.rest_w, 0  # of the rows since the load last moved
        for until_s in self._looks():
            while (at := self._fall_until(made.rows, start, until_s, held_w, back_w)) is not None:
                if at == 0 and not self._asks:
                    return Watched(unclear=GONE, remedy=AGAIN)
                let_go, late_s = self._confirmed()
                if let_go:
                    made.after_s = made.rows[at][0] if late_s is None else late_s
                    made.before_s = made.rows[at - 1][0] if at else 0.0
                    return made
                # It was the load: what stands now is the converter's power still held.
                now_w = median(value for _, value in made.rows[-IN_A_ROW:])
                held_w, back_w, start = now_w, now_w + back_w - held_w, len(made.rows)
            made.unclear, made.remedy = self._unanswered(made.rows)
            if made.unclear:
                return made
        return made

    def _fall_until(self, rows: Rows, start: int, until_s: float, held_w: float, back_w: float) -> int | None:
        """Go on reading; where in the rows the watched power fell, None if it did not."""

        def fallen(new: Rows) -> bool:
            return _fall(new, held_w, back_w) is not None

        rows += watch(self.reader, self.begin_s, until_s, fallen)
        at = _fall(rows[start:], held_w, back_w)
        return None if at is None else at + start

    def _unanswered(self, rows: Rows) -> tuple[str, str]:
        """(why nobody can say that it holds its power still, remedy); empty if it does."""
        if not rows:
            return f"{self.reader.where} did not answer in the silence", "see its bus: `tidegate scan`"
        if self._asks:
            own_w = own_power(self._converter)
            if own_w is None:
                return f"{self._converter.where} did not answer in the silence", "see its bus: `tidegate scan`"
            if self.levels.let_go(own_w):
                return f"it let go, but the meter did not show when: {LOUD}", CALMER
        elif self.own is None and _spread([value for _, value in rows]) > AGREES * abs(self.levels.step_w):
            return f"{LOUD} in the silence, and the converter cannot be read", CALMER
        return "", ""

    @property
    def _asks(self) -> bool:
        return self.own is not None and self.own is not self.reader

    @property
    def _converter(self) -> PowerReader:
        assert self.own is not None
        return self.own

    def _looks(self) -> list[float]:
        """Times at which the converter itself is asked: when it should have let go, and at the end."""
        if self._asks and self.asked_s is not None and self.asked_s + REVERT_SLACK_S < self.timeout_s:
            return [self.asked_s + REVERT_SLACK_S, self.timeout_s]
        return [self.timeout_s]

    def _confirmed(self) -> tuple[bool, float | None]:
        """Whether the converter says that it let go; and when, if it did not at the first time of asking."""
        if not self._asks:
            return True, None
        late_s = None
        for _ in range(OWN_READINGS):
            own_w = own_power(self._converter)
            if own_w is not None and self.levels.let_go(own_w):
                return True, late_s
            time.sleep(OWN_S)
            late_s = time.monotonic() - self.begin_s
        return False, None


def silence(own: OwnRun, task: Task, report: Report, echo: Echo) -> None:
    """Fall silent under power and watch each converter fall back, one after the other; setpoint 0 goes out again."""
    for pcs in [unit.pcs for unit in own.site.storage]:
        silence_of(pcs, own, task, report, echo)


def silence_of(pcs: str, own: OwnRun, task: Task, report: Report, echo: Echo) -> None:
    """The same for one converter; again where power was cut meanwhile, or the load moved as much as the step."""
    topic = f"revert of {pcs}"
    maps = load_maps(own.site, [])
    seen_from = observer(own.site, maps, pcs)
    if seen_from is None:
        report.add(topic, SKIPPED, "its buses exist only inside the site's own processes")
        return
    made = Watched()
    for _ in range(ATTEMPTS):
        own.restore()  # after the one before
        if made.unclear:
            echo(f"{topic}: {made.unclear}; trying again ...")
        try:
            made = one_silence(pcs, own, task, maps, seen_from, echo)
        except ToolError as why:
            report.add(topic, UNCLEAR, f"{why}")
            return
        if not made.unclear:
            break
    if made.unclear:
        report.add(topic, UNCLEAR, f"{made.unclear} (tried {ATTEMPTS} times)", made.remedy)
        return
    device, port, same = seen_from
    where = f"{device.name} on {port.name}{', the same bus' if same else ''}"
    judge_silence(own, task, pcs, made, where, report)


def one_silence(
    pcs: str, own: OwnRun, task: Task, maps: dict[str, DeviceMap], seen_from: tuple[Device, Serial, bool], echo: Echo
) -> Watched:
    """Under power, then silent. Raises ToolError for a port that cannot be opened."""
    device, port, _ = seen_from
    converter = next(one for one in own.site.device if one.name == pcs)
    with own.client() as client:
        plant = Plant(client)
        plant.wait_armed()
        with client.lease("maintenance", LEASE_S) as lease:
            points = (f"{pcs}.power_w", f"{device.name}.power_w")
            total_w = len(own.site.storage) * task.power_w  # each may do that much in this run
            levels = taken(plant, lease, task, points, total_w)
            if isinstance(levels, Watched):
                return levels
            echo("falling silent, as a crashed controller would ...")
            begin = own.silence()
            lease.lost = "the core was silenced by this test"
    last_w = own.last_setpoint_w(pcs)
    if last_w is not None and abs(last_w) < SHARE_SEEN * task.power_w:
        return Watched(unclear=GONE, remedy=AGAIN)
    reader = PowerReader(port, device, maps[device.name])
    asked = reader if device is converter else None
    try:
        if asked is None and (own_port := port_of(own.site, converter, maps)) is not None:
            asked = PowerReader(own_port, converter, maps[pcs], reader if own_port is port else None)
        return Silence(reader, asked, levels, begin, task.revert_s, asked_revert_s(own.site, maps, pcs)).watched()
    finally:
        reader.close()
        if asked is not None:
            asked.close()


def asked_revert_s(site: Site, maps: dict[str, DeviceMap], pcs: str) -> float | None:
    """The time that the map writes into the converter, s; None if it writes none."""
    device, found = next(one for one in site.device if one.name == pcs), maps[pcs]
    asked = device.options.get("revert_s", found.number["revert_s"].default if "revert_s" in found.number else None)
    return None if asked is None else float(asked)


def _measured_before(site: Site) -> dict[str, float]:
    """What the site file has of its converters by name; those that are measured now replace theirs."""
    had = site.commissioning.pcs_revert_ms if site.commissioning is not None else None
    return dict(had) if isinstance(had, dict) else {}


def judge_silence(own: OwnRun, task: Task, pcs: str, made: Watched, where: str, report: Report) -> None:
    """The line about the revert time."""
    topic, rows, after_s = f"revert of {pcs}", made.rows, made.after_s
    maps = load_maps(own.site, [])
    asked_s = asked_revert_s(own.site, maps, pcs)
    resend_s = max((one.resend_ms for one in maps[pcs].command if one.kind == "setpoint_w"), default=0) / 1e3
    if rows:
        t, values = (np.array(column) for column in zip(*rows, strict=True))
        caption = f"Seen at {where}. At 0 s the core was killed; its last setpoint was up to {resend_s:g} s older."
        report.plots.append(
            plot(t, {"converter" if where.startswith(pcs) else "grid meter": values}, "Silence", caption)
        )
    if after_s is None:
        gone = f"{rows[-1][0]:.0f} s" if rows else "no reading"
        remedy = "set the converter's own watchdog; without it a dead controller leaves its last setpoint"
        report.add(topic, FINDING, f"had not fallen back after {gone} of silence (seen at {where})", remedy)
        return
    report.figure(f"{pcs} fell back after the controller's death, s", after_s, 2)
    table = report.tables.setdefault("commissioning", {})
    if len(own.site.storage) == 1:
        table["pcs_revert_ms"] = round(after_s * 1e3)
    else:
        known = table.setdefault("pcs_revert_ms", _measured_before(task.site))
        assert isinstance(known, dict)
        known[pcs] = round(after_s * 1e3)
    older = f"last setpoint up to {resend_s:g} s before"
    said = f"fell back {after_s:.2f} s after the controller died ({older}), seen at {where}"
    if asked_s is None or after_s <= asked_s + REVERT_SLACK_S:
        report.add(topic, OK, said + (f"; asked for {asked_s:g} s" if asked_s is not None else ""))
    elif made.before_s <= asked_s + REVERT_SLACK_S:
        report.add(topic, UNCLEAR, f"{said}; asked for {asked_s:g} s, and nobody looked from {made.before_s:.2f} s on",
                   "repeat it on a machine that is not busy")  # fmt: skip
    else:
        report.add(topic, FINDING, f"{said}; asked for {asked_s:g} s",
                   "the converter did not take the time that its map writes")  # fmt: skip
