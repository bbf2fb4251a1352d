"""What can be looked at: alarms, why, points, a plot of the past, the log. Each gives lines."""

import fnmatch
import math
import time

import msgspec

from tidegate.runtime.api import messages
from tidegate.runtime.api.answers import Event, Health
from tidegate.runtime.console.status import MODE_WORDS, why_words
from tidegate.runtime.findings.evidence import active_faults, fault_row, latched_faults
from tidegate.runtime.findings.findings import findings
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import age, clean, labelled, number, plot, power, table, wrapped
from tidegate.runtime.findings.witnesses import WITNESSES, witness_words

WIDTH = 79
LOG_COUNT = 20
FAULT_EVENTS = ("fault_on", "fault_off", "latch")


def alarm_lines(plant: Plant) -> list[str]:
    """Active and latched alarms, which came first, and the causes that the evidence points to."""
    lines = []
    active, latched = active_faults(plant), latched_faults(plant)
    first = first_out(plant)
    if not active and not latched:
        lines.append("no alarm is active, none is latched")
    else:
        rows = []
        for unit, fault in [*active, *(pair for pair in latched if pair not in active)]:
            row = fault_row(plant, fault)
            state = " ".join(
                word
                for word, is_so in (
                    ("active", (unit, fault) in active),
                    ("LATCHED", (unit, fault) in latched),
                    ("FIRST", first.get(unit) == fault),
                )
                if is_so
            )
            rows.append((unit, fault, state, row.reaction if row else "?", row.text if row else ""))
        lines += table(rows, ("unit", "alarm", "state", "does", "what"))
    causes = findings(plant)
    for cause in causes:
        lines += ["", *wrapped(f"> {cause.title}", WIDTH, "  ")]
        lines += ["  " + line for line in wrapped(f"because: {cause.because}", WIDTH - 2, "  ")]
        lines += ["  " + line for line in wrapped(f"do: {cause.remedy}", WIDTH - 2, "  ")]
        if cause.faults:
            lines += ["  " + line for line in wrapped(f"explains: {', '.join(sorted(cause.faults))}", WIDTH - 2, "  ")]
    explained = frozenset().union(*(cause.faults for cause in causes)) if causes else frozenset()
    left = [fault for _, fault in (*active, *latched) if fault not in explained]
    for fault in dict.fromkeys(left):
        row = fault_row(plant, fault)
        if row:
            lines += ["", *wrapped(f"> {fault}: {row.what}", WIDTH, "  ")]
            lines += ["  " + line for line in wrapped(f"over when: {row.clear}", WIDTH - 2, "  ")]
    return lines


def first_out(plant: Plant) -> dict[str, str]:
    """unit -> the fault that came first, as the gate keeps it."""
    names = plant.description.fault_names()
    found = {}
    for at in range(len(plant.units)):
        value = plant.now.value(f"unit{at}.first_fault")
        if value is not None and value >= 0:
            found[f"unit{at}"] = names.get(int(value), str(int(value)))
    return found


def why_lines(plant: Plant) -> list[str]:
    """Why the setpoint is what it is."""
    told = plant.now.why
    lines = [
        f"setpoint  {power(told.setpoint_w)}",
        f"mode      {told.mode}: {MODE_WORDS.get(told.mode, 'not known to this release')}",
        f"because   {told.reason}: {why_words(plant)}",
        f"request   {power(told.request_w)}, by {told.preference}",
        f"corridor  {power(told.corridor_lo_w)} to {power(told.corridor_hi_w)}  (what the policies leave)",
        f"envelope  {power(told.envelope_lo_w)} to {power(told.envelope_hi_w)}  (what the units can)",
        f"site      grid {power(told.grid_w)} + battery {power(told.ess_w)} = load {power(told.load_w)}",
        f"limit     import {power(told.grid_limit_w)}",
    ]
    meter = meter_words(plant)
    if meter:
        lines += labelled("meter", meter, WIDTH, 10)
    for at in range(len(plant.units)):
        said = converter_words(plant, at)
        if said:
            lines += labelled("converter", said, WIDTH, 10)
    for said in plant.description.first:
        lines += labelled("at first", said, WIDTH, 10)
    if told.shortfall_w:
        lines.append(f"short     of a limit by {power(told.shortfall_w)}")
    lines += labelled("faults", ", ".join(told.faults) or "none", WIDTH, 10)
    lines += labelled("latched", ", ".join(told.latches) or "none", WIDTH, 10)
    lease = told.lease
    if lease is not None:
        lines.append(f"lease     {lease.holder} ({lease.priority}), {lease.expires_ms} ms left")
    if told.stopped:
        lines.append("stopped   by order; arm lifts it")
    for cause in findings(plant):
        lines += labelled("cause", cause.title, WIDTH, 10)
    return lines


def meter_words(plant: Plant) -> str:
    """What was learnt of the grid meter: how old its readings are, and how often it shows something new."""
    value = plant.now.value
    age_s, lo_s, hi_s = (value(f"site.grid_age{bound}_s") for bound in ("", "_lo", "_hi"))
    said = []
    if age_s is not None and lo_s is not None and hi_s is not None:
        said.append(f"readings are {age_s:.2f} s old ({lo_s:.2f} to {hi_s:.2f})")
    interval_s = value("site.grid_interval_s")
    if said and interval_s is not None:
        said.append(f"something new every {interval_s:.2f} s")
    said += witness_words(plant.description.words, {name: value(name) for name in WITNESSES})
    return "grid meter: " + "; ".join(said) if said else ""


def converter_words(plant: Plant, unit: int) -> str:
    """What was learnt of a unit's converter: its times, its gain, and what the control counts on."""
    value = plant.now.value
    gain, lo, hi = (value(f"unit{unit}.{name}") for name in ("gain", "gain_lo", "gain_hi"))
    dead_s, lag_s = value(f"unit{unit}.dead_s"), value(f"unit{unit}.lag_s")
    said = []
    if dead_s is not None and lag_s is not None:
        words = f"dead time {dead_s * 1e3:.0f} ms, lag {lag_s * 1e3:.0f} ms"
        lag_lo_s, lag_hi_s = value(f"unit{unit}.lag_lo_s"), value(f"unit{unit}.lag_hi_s")
        if lag_lo_s is not None and lag_hi_s is not None:
            words += f" ({lag_lo_s * 1e3:.0f} to {lag_hi_s * 1e3:.0f})"
        said.append(words)
    if gain is not None and lo is not None and hi is not None:
        said.append(f"gives {gain:.1%} ({lo:.1%} to {hi:.1%}) of what it is told")
    least, most = value(f"unit{unit}.gives_lo_w"), value(f"unit{unit}.gives_hi_w")
    if said and least is not None and most is not None:
        said.append(f"counted on: {power(least)} to {power(most)}")
    return f"unit{unit}: " + "; ".join(said) if said else ""


def matching(plant: Plant, pattern: str) -> list[str]:
    """Points whose name holds the pattern; * and ? as in a shell."""
    if any(mark in pattern for mark in "*?["):
        return [name for name in plant.names if fnmatch.fnmatchcase(name, pattern)]
    return [name for name in plant.names if pattern in name]


def point_lines(plant: Plant, pattern: str) -> list[str]:
    """Values with quality and age."""
    names = matching(plant, pattern)
    if not names:
        return [f"no point matches {pattern!r}; points alone lists all"]
    rows = []
    for name in names:
        point = plant.now.points.get(name)
        quality = messages.QUALITIES[point.quality] if point is not None and point.quality < 5 else "?"
        value = number(point.value if point is not None else None, plant.unit_of(name))
        word = plant.word_of(name)
        value = value if word is None else f"{value} {word}"
        shown = quality if quality == "good" else quality.upper()
        rows.append((name, value, shown, age(plant.now.age_ms(name))))
    return table(rows, ("point", "value", "quality", "age"), (1, 3))


def watch_lines(plant: Plant, names: list[str]) -> list[str]:
    """A few points with a bar each, for a screen that is repainted."""
    lines = [f"{clean(plant.name)}  {time.strftime('%H:%M:%S', time.gmtime())} UTC   any key ends", ""]
    if plant.silent:
        lines[1] = f"! no answer: {clean(plant.silent)}"[:WIDTH]
    width = max((len(name) for name in names), default=0)
    for name in names:
        seen = [value for _, value in plant.past(name, 60.0) if math.isfinite(value)]
        spread = f"{number(min(seen))} to {number(max(seen))}" if seen else ""
        quality = messages.QUALITIES[plant.now.quality(name)]
        mark = "" if quality == "good" else quality.upper()
        value = number(plant.now.value(name), plant.unit_of(name))
        lines.append(f"{name:<{width}}  {value:>12}  {mark:<7}  minute: {spread}"[:WIDTH].rstrip())
    return lines


def trend_lines(plant: Plant, name: str, length_s: float, height: int = 12) -> list[str]:
    """The last minutes of a point as a plot."""
    if name not in plant.names:
        near = matching(plant, name)
        if len(near) != 1:
            return [f"{name!r} is no point" + (f"; did you mean {', '.join(near[:4])}?" if near else "")]
        name = near[0]
    seen = list(plant.past(name, length_s))
    if len(seen) < 2:
        return ["nothing is remembered yet; the console looks once a second"]
    values = [value for _, value in seen]
    known = [value for value in values if math.isfinite(value)]
    gaps = len(values) - len(known)
    head = f"{name} {plant.unit_of(name)}, one look a second" + (f", {gaps} without a reading" if gaps else "")
    lines = [head, *plot(values, 64, height)]
    width = min(64, len(values))
    left = f"-{seen[0][0]:.0f} s"
    return [*lines, f"{'':>10} +{'-' * width}", f"{'':>12}{left}{'now':>{max(4, width - len(left))}}"]


def newest_events(plant: Plant, count: int) -> list[Event]:
    """The newest journaled events of this boot, oldest first. Raises ClientError."""
    answer = plant.ask("health")
    durable = msgspec.convert(answer["health"], Health, strict=False).gateway.durable.get("event", -1)
    boot = answer.get("boot")
    if durable < 0 or not boot:
        return []
    found: list[Event] = []
    seq = max(-1, durable - count)
    while seq < durable:
        got = plant.ask("replay", stream="event", boot=boot, seq=seq, count=min(256, count))
        if not got["records"]:
            break
        found += [row for row in msgspec.convert(got["records"], list[Event]) if row.boot == boot]
        seq = found[-1].seq if found else durable
        if got["end"]:
            break
    return found[-count:]


def event_line(plant: Plant, event: Event) -> str:
    """An event as a line of the log."""
    clock = time.strftime("%m-%d %H:%M:%S", time.gmtime(event.utc_ns / 1e9))
    unit = f" unit{event.unit}" if event.unit >= 0 else ""
    row = fault_row(plant, event.name) if event.event in FAULT_EVENTS else None
    detail = (row.text if row is not None else "") or event.detail
    if event.event == "reason" and event.value is not None:
        detail = f"{power(event.value)} {detail}"
    return f"{clock} {clean(event.event)}{unit} {clean(event.name)} {clean(detail)}".rstrip()


def log_lines(plant: Plant, count: int, only: tuple[str, ...] = ()) -> list[str]:
    """The newest events, all or of some kinds. Raises ClientError."""
    asked = min(2048, count * 8) if only else count
    events = [event for event in newest_events(plant, asked) if not only or event.event in only][-count:]
    lines = []
    for event in events:
        lines += wrapped(event_line(plant, event), WIDTH, " " * 15)
    return lines or ["nothing since this start of the core"]
