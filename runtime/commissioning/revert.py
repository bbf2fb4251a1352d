"""What the plant does when the controller falls silent: the real revert time, watched from another bus if there is one.

Only readings go out here. The setpoint that the converter falls back from came through the gate.
"""

import time
from collections.abc import Callable

import numpy as np

from tidegate.config.site import Device, Serial, Site
from tidegate.config.site_maps import load_maps
from tidegate.hal.decode import decode_registers
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.commissioning.commissioning_report import FINDING, OK, SKIPPED, UNCLEAR, Report, plot
from tidegate.runtime.commissioning.plant_session import LEASE_S, Plant
from tidegate.runtime.commissioning.private_run import OwnRun
from tidegate.runtime.commissioning.steps import Echo, Task
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError

IN_A_ROW = 3  # readings that must agree before it counts as reverted
OPEN_S = 5.0
SHARE_SEEN = 0.3  # of what it was to give: with less, falling back does not show
REVERT_SLACK_S = 2.0


class PowerReader:
    """Reads `power_w` of one device on a port that the core has left."""

    def __init__(self, port: Serial, device: Device, found: DeviceMap) -> None:
        self.where = f"{device.name} on {port.name}"
        self._unit_id = device.unit_id or 1
        self._point = next(p for p in found.point if p.name == "power_w")
        self._scale = next((p for p in found.point if p.name == self._point.sf), None) if self._point.sf else None
        self._sign = -1.0 if device.invert else 1.0
        self._reader = self._open(port)

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
    ports = {port.name: port for port in site.serial if port.device != "sim"}
    converter = next(one for one in site.device if one.name == pcs)
    meter = next((one for one in site.device if one.role == "grid-meter"), None)
    for device in (meter, converter) if len(site.storage) == 1 else (converter,):
        if device is not None and device.bus in ports and any(p.name == "power_w" for p in maps[device.name].point):
            return device, ports[device.bus], device.bus == converter.bus
    return None


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
    nearer = [abs(value - back_w) < abs(value - held_w) for _, value in rows]
    for i in range(len(rows) - IN_A_ROW + 1):
        if all(nearer[i : i + IN_A_ROW]):
            return rows[i][0]
    return None


def silence(own: OwnRun, task: Task, report: Report, echo: Echo) -> None:
    """Fall silent under power and watch each converter fall back, one after the other; setpoint 0 goes out again."""
    for pcs in [unit.pcs for unit in own.site.storage]:
        own.restore()  # after the one before
        silence_of(pcs, own, task, report, echo)


def silence_of(pcs: str, own: OwnRun, task: Task, report: Report, echo: Echo) -> None:
    """The same for one converter."""
    topic = f"revert of {pcs}"
    seen_from = observer(own.site, load_maps(own.site, []), pcs)
    if seen_from is None:
        report.add(topic, SKIPPED, "its buses exist only inside the site's own processes")
        return
    device, port, same = seen_from
    point = f"{device.name}.power_w"
    units = len(own.site.storage)
    with own.client() as client:
        plant = Plant(client)
        plant.wait_armed()
        with client.lease("maintenance", LEASE_S) as lease:
            plant.move(lease, 0.0, 1.0)
            rest_w = plant.value(point)
            plant.move(lease, units * task.power_w, max(1.0, task.hold_s / 2))  # each may do that much in this run
            held_w = plant.value(point)
            echo("falling silent, as a crashed controller would ...")
            begin = own.silence()
            lease.lost = "the core was silenced by this test"
    if rest_w is None or held_w is None:
        report.add(topic, UNCLEAR, f"{point} could not be read before the silence")
        return
    if units > 1 and abs(held_w - rest_w) < SHARE_SEEN * task.power_w:
        report.add(
            topic, UNCLEAR, f"took {held_w - rest_w:.0f} W of {units * task.power_w:.0f} W: nothing to fall back from"
        )
        return
    try:
        reader = PowerReader(port, device, load_maps(own.site, [])[device.name])
    except ToolError as why:
        report.add(topic, UNCLEAR, f"{why}")
        return
    try:
        rows = watch(reader, begin, task.revert_s, lambda seen: reverted_after(seen, held_w, rest_w) is not None)
    finally:
        reader.close()
    judge_silence(own, task, pcs, rows, held_w, rest_w, f"{reader.where}{', the same bus' if same else ''}", report)


def _measured_before(site: Site) -> dict[str, float]:
    """What the site file has of its converters by name; those that are measured now replace theirs."""
    had = site.commissioning.pcs_revert_ms if site.commissioning is not None else None
    return dict(had) if isinstance(had, dict) else {}


def judge_silence(
    own: OwnRun,
    task: Task,
    pcs: str,
    rows: list[tuple[float, float]],
    held_w: float,
    rest_w: float,
    where: str,
    report: Report,
) -> None:
    """The line about the revert time."""
    topic = f"revert of {pcs}"
    after_s = reverted_after(rows, held_w, rest_w)
    device = next(one for one in own.site.device if one.name == pcs)
    found = load_maps(own.site, [])[pcs]
    asked = device.options.get("revert_s", found.number["revert_s"].default if "revert_s" in found.number else None)
    resend_s = max((one.resend_ms for one in found.command if one.kind == "setpoint_w"), default=0) / 1e3
    if rows:
        t, values = (np.array(column) for column in zip(*rows, strict=True))
        caption = f"Seen at {where}. At 0 s the core was killed; its last setpoint was up to {resend_s:g} s older."
        report.plots.append(
            plot(t, {"grid meter" if device.name not in where else "converter": values}, "Silence", caption)
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
    if asked is not None and after_s > float(asked) + REVERT_SLACK_S:
        report.add(
            topic,
            FINDING,
            f"{said}; asked for {float(asked):g} s",
            "the converter did not take the time that its map writes",
        )
    else:
        report.add(topic, OK, said + (f"; asked for {float(asked):g} s" if asked is not None else ""))
