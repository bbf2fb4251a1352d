"""Power and counters into energy by 5 minutes. Time is measured by the monotonic clock, buckets are labelled by UTC."""

from dataclasses import dataclass

from tidegate.runtime.telemetry.energy_store import BUCKET_S, Row, bucket_of
from tidegate.runtime.telemetry.sample import Counted, Heard, Sample, Thing

IDLE_BELOW = 0.01  # a card that says it worked less of the time is at rest
GAP_POLLS = 3.0  # a power is held for so many polls; then nobody knows what was drawn
THINGS_MAX = 60_000


@dataclass(slots=True)
class _Sum:
    """A thing in the open bucket, W s and s."""

    watt_s: float = 0.0
    idle_ws: float = 0.0
    unused_ws: float = 0.0
    covered_s: float = 0.0


class EnergySums:
    """One source's sums. every_s : time between two polls; longer gaps are not bridged."""

    def __init__(self, source: str, node: str, every_s: float) -> None:
        self.source, self.node = source, node
        self._gap_s = max(GAP_POLLS * every_s, 5.0)
        self._power: dict[str, tuple[float, Sample]] = {}  # name -> monotonic s, newest sample
        self._count: dict[Thing, tuple[float, float]] = {}  # monotonic s, joules
        self._sums: dict[tuple[int, Thing], _Sum] = {}
        self.left_out = 0

    def take(self, heard: Heard, t_s: float, utc_s: float) -> None:
        """Take an answer in. t_s : monotonic; utc_s : the wall clock at the same moment."""
        for sample in heard.samples:
            key = f"{sample.thing.level} {sample.thing.name}"
            before = self._power.get(key)
            if before is None and len(self._power) >= THINGS_MAX:
                self.left_out += 1
                continue
            self._power[key] = t_s, sample
            # The power of before held until now; a gap is not filled.
            if before is not None and 0.0 < t_s - before[0] <= self._gap_s:
                self._spread(before[1], before[1].watts * (t_s - before[0]), t_s - before[0], utc_s)
        for counted in heard.counted:
            self._take_count(counted, t_s, utc_s)
        if len(self._power) + len(self._count) > THINGS_MAX // 2:
            self._drop_old(t_s)

    def _take_count(self, counted: Counted, t_s: float, utc_s: float) -> None:
        before = self._count.get(counted.thing)
        if before is None and len(self._count) >= THINGS_MAX:
            self.left_out += 1
            return
        self._count[counted.thing] = t_s, counted.joules
        if before is None or not 0.0 < t_s - before[0] <= self._gap_s:
            return
        # A counter that fell began anew; what it shows since then is the least that passed.
        joules = counted.joules - before[1] if counted.joules >= before[1] else counted.joules
        self._spread(Sample(counted.thing, 0.0), joules, t_s - before[0], utc_s)

    def _spread(self, sample: Sample, watt_s: float, seconds: float, until_utc_s: float) -> None:
        """Energy of a stretch that ends now into the buckets that it touches."""
        at = until_utc_s - seconds
        while at < until_utc_s:
            bucket = bucket_of(at)
            until = min(until_utc_s, float(bucket + BUCKET_S))
            part = (until - at) / seconds
            row = self._sums.get((bucket, sample.thing))
            if row is None:
                row = self._sums[bucket, sample.thing] = _Sum()
            row.watt_s += watt_s * part
            row.covered_s += seconds * part
            if sample.thing.level == "card":
                if not sample.thing.job:
                    row.idle_ws += watt_s * part
                elif sample.busy is not None and sample.busy < IDLE_BELOW:
                    row.unused_ws += watt_s * part
            at = until

    def _drop_old(self, t_s: float) -> None:
        self._power = {key: one for key, one in self._power.items() if t_s - one[0] <= self._gap_s}
        self._count = {key: one for key, one in self._count.items() if t_s - one[0] <= self._gap_s}

    def rows(self, utc_s: float) -> list[Row]:
        """Everything since the last bucket that was closed; closed ones are given once and then let go."""
        found = []
        open_ = bucket_of(utc_s)
        for (bucket, thing), row in list(self._sums.items()):
            found.append(
                Row(
                    bucket, self.source, self.node, thing.level, thing.name, thing.host, thing.rack, thing.namespace,
                    thing.job, round(row.watt_s / 3.6), round(row.idle_ws / 3.6), round(row.unused_ws / 3.6),
                    round(row.covered_s),
                )
            )  # fmt: skip
            if bucket + 2 * BUCKET_S <= open_:
                del self._sums[bucket, thing]
        return found
