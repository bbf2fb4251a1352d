"""Many plain meter records at once: the same numbers as one by one, an order of magnitude sooner.

A day of records is mostly plain: one boot, no record lost, a clock that does not step, registers that rise by what is
plausible. Such a stretch changes a counter by the difference of its two ends alone, because every energy is a whole
number. Whatever is not plain ends the stretch and is left to `Booker.feed`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tidegate.runtime.carbon.engine.booking import BookedPeriod, Booker
from tidegate.runtime.carbon.engine.counter import GAP_NS, MINUTE_NS, SHAPED, Counter, Flow, MeterRecord, Points

LEAST = 8  # records; fewer are not worth the arrays
MOST = 512
SLOW = 32  # records taken one by one before the next try to take many at once
CLOCK_STEP_NS = 1_000_000_000
WHOLE_MAX = 9.0e14  # a double holds every whole number up to here, in thousandths too


def book(booker: Booker, records: Sequence[MeterRecord]) -> Iterator[BookedPeriod]:
    """Feed many records; the same result as one by one, sooner where nothing happens."""
    at, retry_at = 0, 0
    while at < len(records):
        if at >= retry_at and not booker.holds:
            taken = plain_stretch(booker, records, at)
            at += taken
            retry_at = at if taken else at + SLOW
        if at < len(records):
            yield from booker.feed(records[at])
            at += 1


def plain_stretch(booker: Booker, records: Sequence[MeterRecord], at: int) -> int:
    """Take the plain records from `at` on into the booker. -> how many; 0 if the next ones need a closer look."""
    chunk = records[at : at + MOST]
    if len(chunk) < LEAST or booker.last_label_ns < 0:
        return 0
    count, times = _same_run(booker, chunk)
    if count < LEAST:
        return 0
    chunk = chunk[:count]
    labels, elapsed = times[0][:count], times[1][:count]
    points = [record["points"] for record in chunk]
    found: list[tuple[Flow, Counter, dict[str, np.ndarray]]] = []
    for flow, counter in booker.pairs:
        columns = _columns(flow, counter, points)
        if columns is None:
            return 0
        plain = _plain(flow, counter, columns, labels, elapsed)
        count = min(count, int(np.argmin(plain)) if not plain.all() else count)
        if count < LEAST:
            return 0
        found.append((flow, counter, columns))
    befores = {flow.name: counter.integral_ws or 0.0 for flow, counter, _ in found}
    for flow, counter, columns in found:
        _apply(flow, counter, columns, labels, count)
        if "integral" in columns and flow.kind in SHAPED and booker.period_s >= 60:
            _shape(counter, befores[flow.name], columns["integral"][:count], labels - elapsed, elapsed, booker.period_s)
    soc = next((soc for p in reversed(points[:count]) if (soc := booker.soc_of(p)) is not None), None)
    booker.went_on(chunk[count - 1], count, soc)
    return count


def _same_run(booker: Booker, chunk: Sequence[MeterRecord]) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    """How many records go on without a restart, loss, clock step or end of a period; their labels and distances."""
    boot, seq, t_ns, utc_ns = booker.place
    sync = chunk[0]["utc_sync"]
    count = len(chunk)
    for number, record in enumerate(chunk):
        if record["boot"] != boot or record["seq"] != seq + 1 + number or record["utc_sync"] != sync:
            count = number
            break
    labels = np.array([record["utc_ns"] for record in chunk[:count]], dtype=np.int64)
    t = np.array([record["t_ns"] for record in chunk[:count]], dtype=np.int64)
    step = np.diff(labels, prepend=utc_ns) - np.diff(t, prepend=t_ns)
    elapsed = np.diff(labels, prepend=booker.last_label_ns)
    plain = (np.abs(step) <= CLOCK_STEP_NS) & (elapsed > 0) & (elapsed <= GAP_NS) & (labels < booker.open_until_ns)
    if sync == "U":
        plain[:] = False
    return (int(np.argmin(plain)) if not plain.all() else count), (labels, elapsed)


def _columns(flow: Flow, counter: Counter, points: Sequence[Points]) -> dict[str, np.ndarray] | None:
    """The flow's readings as arrays, NaN where there is none; None if its counter is not in a plain state."""
    if counter.label_ns < 0 or counter.candidate is not None:
        return None
    if flow.register is not None and (counter.register is None or counter.bridge or counter.stuck):
        return None
    if flow.integral is not None and counter.integral_ws is None:
        return None
    columns = {}
    for key, name in (("register", flow.register), ("integral", flow.integral), ("covered", flow.covered)):
        if name is None or (key == "covered" and flow.register is not None):
            continue
        try:
            columns[key] = np.array([point[name][0] for point in points], dtype=np.float64)
        except KeyError:
            return None
    return columns


def _plain(flow: Flow, counter: Counter, columns: dict[str, np.ndarray], labels: np.ndarray,
           elapsed: np.ndarray) -> np.ndarray:  # fmt: skip
    """Which readings add what they should, and nothing has to be explained."""
    count = len(elapsed)
    plain = np.ones(count, dtype=bool)
    if counter.seen_ns != labels[0] - elapsed[0] or counter.label_ns != counter.seen_ns:
        plain[0] = False
    with np.errstate(invalid="ignore"):
        if "register" in columns:
            values = columns["register"][:count] * 1000.0
            plain &= np.abs(values) < WHOLE_MAX  # false for NaN
            readings = np.rint(np.where(plain, values, 0.0)).astype(np.int64)
            columns["register"] = readings
            delta = np.diff(readings, prepend=np.int64(counter.register or 0))
            room = flow.w_max * (elapsed / 1e9 + 2.0) / 3.6 + 20_000
            plain &= (delta >= 0) & (delta <= room)
        if "integral" in columns:
            values = columns["integral"][:count]
            plain &= (np.abs(values) < WHOLE_MAX) & (np.diff(values, prepend=counter.integral_ws or 0.0) >= 0.0)
        if "covered" in columns:
            seconds = np.diff(columns["covered"][:count], prepend=counter.covered_s)
            plain &= (seconds >= 0.0) & (elapsed / 1e9 - seconds <= 1.0)
    return plain


def _apply(flow: Flow, counter: Counter, columns: dict[str, np.ndarray], labels: np.ndarray, count: int) -> None:
    last = count - 1
    by_integral = 0
    if "integral" in columns:
        values = columns["integral"]
        before = counter.integral_ws or 0.0
        by_integral = round(float(values[last]) / 3.6) - round(before / 3.6)
        if "covered" in columns:
            seconds = np.diff(columns["covered"][:count], prepend=counter.covered_s)
            moved = np.flatnonzero(seconds > 0.0)
            if len(moved):
                at = int(moved[-1])
                came = float(values[at]) - (float(values[at - 1]) if at else before)
                counter.watts = came / float(seconds[at])
            counter.covered_s = float(columns["covered"][last])
        counter.integral_ws = float(values[last])
    if "register" in columns:
        readings = columns["register"]
        previous = counter.register or 0
        moved = np.flatnonzero(np.diff(readings[:count], prepend=np.int64(previous)))
        if len(moved):
            counter.moved_ns, counter.unlabelled_ns = int(labels[moved[-1]]), 0
        counter.truth += int(readings[last]) - previous
        counter.register = int(readings[last])
    else:
        counter.truth += by_integral
    owed = max(0, counter.truth + counter.bridge - counter.booked)
    counter.energy_milliwh += owed
    counter.booked += owed
    counter.by_integral += counter.pending + by_integral
    counter.pending = 0
    counter.covered_ns += int(labels[last]) - counter.seen_ns
    counter.label_ns = counter.seen_ns = int(labels[last])


def _shape(counter: Counter, before: float, values: np.ndarray, starts: np.ndarray, elapsed: np.ndarray,
           period_s: int) -> None:  # fmt: skip
    """The energy of each minute and the highest power, as one by one."""
    count, minutes = len(values), period_s // 60
    milliwh = np.diff(np.rint(values / 3.6), prepend=float(round(before / 3.6)))
    added = np.bincount(starts[:count] // MINUTE_NS % minutes, weights=milliwh, minlength=minutes)
    if not counter.shape:
        counter.shape = [0] * minutes
    counter.shape = [known + int(more) for known, more in zip(counter.shape, added, strict=True)]
    counter.w_max = max(counter.w_max, float((np.diff(values, prepend=before) / (elapsed[:count] / 1e9)).max()))
