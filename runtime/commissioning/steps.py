"""Steps of a commissioning that add their lines to the report: BMS and motion. The last, silence, is in `revert`."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tidegate.config.site import Site
from tidegate.ext.abi.image import METER_TURNED
from tidegate.runtime.api.blocking_client import LeaseHeld
from tidegate.runtime.commissioning import measure
from tidegate.runtime.commissioning.commissioning_report import FINDING, OK, SKIPPED, UNCLEAR, Report, plot
from tidegate.runtime.commissioning.measure import CROSSED, MISSING, REVERSED, RIGHT, Edge
from tidegate.runtime.commissioning.plant_session import Plant, Recording, order
from tidegate.runtime.commissioning.prompts import SetupError

STEPS = ("bms", "signs", "phases", "lag", "meter", "revert")
MOVING = ("signs", "phases", "lag", "meter")
PHASES = ("power_l1_w", "power_l2_w", "power_l3_w")
BMS_POINTS = ("charge_a_max", "discharge_a_max", "charge_w_max", "discharge_w_max", "pack_v", "soc", "alarm")
RAMP_S, RAMP_STEP_S = 4.0, 0.05
MOTIONS = 3  # until power is not limited in one of them
NOISE_PARTS = 5.0  # a step should be so many times what the meter does by itself
GAIN_OFF_MAX = 0.1
Echo = Callable[[str], None]


@dataclass
class Task:
    """What is to be done, and with how much."""

    site: Site
    power_w: float
    hold_s: float
    repeats: int
    skip: frozenset[str]
    revert_s: float


def bms(plant: Plant, task: Task, report: Report) -> None:
    """What each BMS allows now, beside the nameplate in the site file."""
    for unit in plant.description.units:
        name, topic = unit.battery, f"BMS {', '.join((unit.bms, *unit.parallel))}"
        read = {key: plant.value(f"{name}.{key}") for key in BMS_POINTS}
        storage = next(one for one in task.site.storage if one.name == unit.name)
        said, worst = [], OK
        for way in ("charge", "discharge"):
            amps, volt = read[f"{way}_a_max"], read["pack_v"]
            allowed = read[f"{way}_w_max"]
            if allowed is None and amps is not None and volt is not None:
                allowed = amps * volt
            if allowed is None:
                continue
            plate = float(getattr(storage, f"{way}_w_max"))
            report.figure(f"{name} allows to {way}, W", allowed, 0)
            said.append(f"{way} {allowed / 1e3:.1f} kW (nameplate {plate / 1e3:g} kW)")
            worst = FINDING if allowed <= 0 else worst
        if read["soc"] is not None:
            said.append(f"at {read['soc'] * 100:.0f} % state of charge")
            report.figure(f"{name} state of charge", read["soc"], 3)
        if read["alarm"]:
            worst = FINDING
            said.append(f"alarm bits {int(read['alarm']):#x}")
        remedy = "see the BMS; the gate allows no more than it does" if worst == FINDING else ""
        if said:
            report.add(topic, worst, "allows " + ", ".join(said), remedy)
        else:
            report.add(topic, UNCLEAR, "sends no limits that could be read")


@dataclass
class Motion:
    """What the plant did while it was moved."""

    t: np.ndarray
    seen: dict[str, np.ndarray]
    edges: list[Edge]
    ramp: tuple[float, float]
    every_ms: float
    interval_s: float | None = None  # of the grid meter, as the loop has learnt it
    limited: bool = False  # power was cut meanwhile: what is missing in it is no fault of the plant

    @property
    def finding(self) -> str:
        """The verdict of something that is missing."""
        return UNCLEAR if self.limited else FINDING


def move(plant: Plant, lease: LeaseHeld, task: Task, names: list[str], echo: Echo) -> Motion:
    """Rest, steps to both sides, a slow ramp; all of it recorded. Raises SetupError if the site trips."""
    levels = [task.power_w, 0.0, -task.power_w, 0.0] * task.repeats
    took = (len(levels) + 1) * task.hold_s + RAMP_S
    echo(f"moving by {task.power_w:.0f} W to both sides for {took:.0f} s ...")
    with Recording(plant.client, names) as recording:
        times = [plant.move(lease, 0.0, task.hold_s)]
        times += [plant.move(lease, level, task.hold_s) for level in levels]
        begin_ns = order(lease, 0.0, 1.0)
        count = round(RAMP_S / RAMP_STEP_S)
        began = time.monotonic()
        for i in range(1, count + 1):
            order(lease, task.power_w * triangle(i / count), 1.0)
            time.sleep(max(0.0, began + i * RAMP_STEP_S - time.monotonic()))
        end_ns = order(lease, 0.0, 1.0)
        plant.check()
        time.sleep(0.3)
    t0 = times[0]
    t, seen = recording.arrays(t0)
    setpoint = np.sum([seen[name] for name in names if name.endswith(".setpoint_w")], axis=0)
    at = measure.departures(t, setpoint, [(t_ns - t0) / 1e9 for t_ns in times], task.power_w)
    begin_s, end_s = (begin_ns - t0) / 1e9, (end_ns - t0) / 1e9
    return Motion(t, seen, measure.edges(at, begin_s), (begin_s, end_s), float(np.median(np.diff(t)) * 1e3))


def triangle(part: float) -> float:
    """0, +1, -1, 0 over a whole."""
    if part < 0.25:
        return 4 * part
    return 2 - 4 * part if part < 0.75 else 4 * part - 4


def moving(plant: Plant, lease: LeaseHeld, task: Task, report: Report, echo: Echo) -> None:
    """Signs, phases, lag, delay and interval out of one motion."""
    grid = plant.device("grid-meter")[0].name
    phases = [f"{grid}.{name}" for name in PHASES]
    has_phases = all(plant.value(name) is not None for name in phases)
    units = plant.description.units
    points = [f"unit{i}.setpoint_w" for i in range(len(units))] + [f"{unit.pcs}.power_w" for unit in units]
    names = [*points, f"{grid}.power_w", *(phases if has_phases else [])]
    for _ in range(MOTIONS):
        plant.derated.clear()
        made = move(plant, lease, task, names, echo)
        made.interval_s = plant.value("site.grid_interval_s")
        made.limited = bool(plant.derated)
        if not made.limited:
            break
        echo(f"power was limited meanwhile ({', '.join(sorted(plant.derated))})")
    if plant.derated:
        faults = ", ".join(sorted(plant.derated))
        report.add("derated", UNCLEAR, f"each of {MOTIONS} times it moved: {faults}; power was limited at times",
                   "repeat it once `tidegate doctor` finds nothing to mend")  # fmt: skip
    ess = np.sum([made.seen[f"{unit.pcs}.power_w"] for unit in units], axis=0)
    report.figure("test power, W", task.power_w, 0)
    report.figure("snapshots apart, ms", made.every_ms, 2)
    setpoint = np.sum([made.seen[f"unit{i}.setpoint_w"] for i in range(len(units))], axis=0)
    shown = {"setpoint": setpoint, "converter": ess, "grid meter": made.seen[f"{grid}.power_w"]}
    caption = "Battery power: + discharge. Grid: + import; a load that stands still lies between the two."
    report.plots.append(plot(made.t, shown, "Steps and ramp", caption))
    if "signs" not in task.skip:
        signs(made, ess, grid, task, report)
    if "phases" not in task.skip:
        phase_signs(made, ess, grid, phases if has_phases else [], task, report)
    if "lag" not in task.skip:
        for i, unit in enumerate(units):
            lags(made, i, unit.pcs, report)
    if "meter" not in task.skip:
        meter(made, ess, grid, report)


def turned(grid: str, said: str, task: Task, report: Report) -> None:
    """The grid meter's transformers face the other way: a finding, and what the site file is to say."""
    inverted = next(one.invert for one in task.site.device if one.name == grid)
    report.devices[grid] = {"invert": not inverted}
    report.add(f"CT of {grid}", FINDING, f"{said}: its transformers face the other way",
               f"invert = {str(not inverted).lower()} in the site file, or turn all three round")  # fmt: skip


def armed(plant: Plant, task: Task, report: Report) -> bool:
    """Wait until the site runs. False, with a finding, where arming found what to mend; else raises SetupError."""
    try:
        plant.wait_armed()
    except SetupError:
        said = plant.unidentified(plant.why())
        if plant.value("site.meter_verdict") == METER_TURNED:
            turned(
                plant.device("grid-meter")[0].name,
                "shows the pulses of arming with the battery's own sign",
                task,
                report,
            )
        elif said:
            for line in said:
                report.add(
                    "arming", FINDING, line, "mend the wiring or the site file, then `tidegate set ack` and again"
                )
        else:
            raise
        report.add("arming", SKIPPED, "the site arms once that is mended; what needs it running was left out")
        return False
    return True


def signs(made: Motion, ess: np.ndarray, grid: str, task: Task, report: Report) -> None:
    """Which way the grid meter's transformers face."""
    seen = made.seen[f"{grid}.power_w"]
    noise = float(np.nanstd(seen[(made.t >= 0) & (made.t < made.edges[0].t_s)]))
    report.figure(f"{grid} by itself while the battery rested, W rms", noise)
    found = measure.shares(made.t, ess, seen, made.edges, task.power_w)
    topic, verdict = f"CT of {grid}", measure.judge_total(found)
    if not len(found):
        report.add(topic, UNCLEAR, "the converter did not follow its setpoint, so nothing could be seen",
                   "see the line about the converter, `tidegate why`")  # fmt: skip
        return
    share = float(np.median(found))
    report.figure(f"{grid} shows of a step", share, 3)
    if verdict in (RIGHT, REVERSED):  # reversed: as it will show it once `invert` is turned
        report.tables.setdefault("commissioning", {})["meter_gain"] = round(abs(share), 3)
    said = f"shows {share:+.0%} of the battery's steps (median of {len(found)} edges)"
    if verdict == RIGHT:
        report.add(topic, OK, f"{said}: import falls when the battery gives")
    elif verdict == REVERSED:
        turned(grid, said, task, report)
    elif verdict == MISSING:
        report.add(topic, made.finding, f"{said}: it does not see this cabinet",
                   "its transformers belong around the connection that cabinet and load share")  # fmt: skip
    else:
        noisy = task.power_w < NOISE_PARTS * noise
        remedy = "give more --power, or a calmer hour" if noisy else "see the phases; one transformer may face back"
        report.add(topic, UNCLEAR, said, remedy)


def phase_signs(made: Motion, ess: np.ndarray, grid: str, points: list[str], task: Task, report: Report) -> None:
    """Each phase's transformer, and whether it sits on the phase of its voltage."""
    topic = f"phases of {grid}"
    if not points:
        report.add(topic, SKIPPED, "its map has no power by phase")
        return
    slow_s = next(one.poll_slow_ms for one in task.site.device if one.name == grid) / 1e3
    if task.hold_s * (1 - measure.SETTLED) < slow_s:
        least = slow_s / (1 - measure.SETTLED)
        report.add(topic, UNCLEAR, f"read every {slow_s:g} s, steps of {task.hold_s:g} s are too short for that",
                   f"give --hold {least:.1f} or more")  # fmt: skip
        return
    found = [measure.shares(made.t, ess, made.seen[name], made.edges, task.power_w) for name in points]
    verdicts = measure.judge_phases(found)
    for name, one in zip(points, found, strict=True):
        if len(one):
            report.figure(f"{name} shows of a step", float(np.median(one)), 3)
    words = {
        RIGHT: "right",
        REVERSED: "reversed",
        CROSSED: "on another phase than its voltage",
        MISSING: "shows nothing",
    }
    said = ", ".join(f"L{i} {words.get(one, 'unclear')}" for i, one in enumerate(verdicts, 1))
    if all(one == RIGHT for one in verdicts):
        report.add(topic, OK, said)
    elif all(one == REVERSED for one in verdicts):
        report.add(topic, FINDING, said, "as the sum: see above")
    elif any(one in words and one != RIGHT for one in verdicts):
        report.add(
            topic, made.finding, said, "turn or move these transformers; a key of the site file cannot mend one phase"
        )
    else:
        report.add(topic, UNCLEAR, said, "give more --power, or a calmer hour")


def lags(made: Motion, number: int, pcs: str, report: Report) -> None:
    """How a converter follows its setpoint."""
    found = measure.lag(made.t, made.seen[f"unit{number}.setpoint_w"], made.seen[f"{pcs}.power_w"], made.edges)
    topic = f"converter {pcs}"
    if not np.isfinite(found.lag63_ms):
        report.add(topic, made.finding, "did not follow the steps", "remote mode? `tidegate get " + pcs + ".`")
        return
    for name, value in (("63 % after", found.lag63_ms), ("90 % after", found.lag90_ms), ("dead time", found.dead_ms),
                        ("time constant", found.tau_ms)):  # fmt: skip
        report.figure(f"{pcs} {name}, ms", value)
    report.figure(f"{pcs} gives of what is ordered", found.gain, 3)
    said = f"63 % of a step after {found.lag63_ms:.0f} ms, 90 % after {found.lag90_ms:.0f} ms, gives {found.gain:.1%}"
    if any(abs(gain - 1) > GAIN_OFF_MAX for gain in found.gains):
        report.add(topic, made.finding, said, "its map's scale or the converter's own limit")
    elif not len(found.gains):
        report.add(topic, UNCLEAR, f"{said}; its steps do not agree", "give more --hold, on a machine that is not busy")
    else:
        report.add(topic, OK, said)
    table = report.tables.setdefault("commissioning", {})
    if number == 0:
        table["pcs_lag_ms"] = round(found.lag63_ms, 1)
    known = table.setdefault("converter", {})
    assert isinstance(known, dict)
    row = {"dead_ms": round(found.dead_ms, 1), "lag_ms": round(found.tau_ms, 1)}
    ramp = measure.ramp_w_per_s(made.t, made.seen[f"{pcs}.power_w"], made.edges)
    if np.isfinite(ramp):
        row["ramp_w_per_s"] = float(round(ramp))
    if found.gains and not made.limited:
        row["gain"] = round(found.gain, 3)
    known[pcs] = row


def meter(made: Motion, ess: np.ndarray, grid: str, report: Report) -> None:
    """How often the grid meter's reading changes, and how much later than the converter's it comes."""
    late, wide = measure.delay_ms(made.t, ess, -made.seen[f"{grid}.power_w"], made.edges)
    if not np.isfinite(late):
        late, wide = measure.delay_ms(made.t, ess, made.seen[f"{grid}.power_w"], made.edges)
    every, every_wide = measure.interval_ms(made.t, made.seen[f"{grid}.power_w"], made.ramp)
    if not np.isfinite(every) and made.interval_s:  # a machine that is too busy to see each value; the loop does
        every = 1e3 * made.interval_s
    resolution = measure.resolution_w(made.seen[f"{grid}.power_w"])
    said = []
    table = report.tables.setdefault("commissioning", {})
    if np.isfinite(every):
        report.figure(f"{grid} new value every, ms", every)
        table["meter_interval_ms"] = round(every, 1)
        if np.isfinite(every_wide):
            table["meter_interval_spread_ms"] = round(every_wide, 1)
        said.append(f"a new value every {every:.0f} ms")
    if np.isfinite(late):
        report.figure(f"{grid} later than the converter's reading, ms", late)
        report.figure(f"{grid} spread of that, ms", wide)
        table["meter_delay_ms"] = round(late, 1)
        table["meter_delay_spread_ms"] = round(wide, 1)
        said.append(f"half of a step {late:+.0f} ms after the converter's own reading (spread {wide:.0f} ms)")
    if np.isfinite(resolution):
        report.figure(f"{grid} least change seen, W", resolution)
        table["meter_resolution_w"] = round(resolution, 1)
    if said:
        report.add(f"meter {grid}", OK, ", ".join(said))
    else:
        report.add(f"meter {grid}", UNCLEAR, "showed too little of the motion", "give more --power or --hold")
