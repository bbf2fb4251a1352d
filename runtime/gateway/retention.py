"""How long samples are kept, and the quarter-hour totals that stay when they go."""

import time
from typing import Any

import msgpack

from tidegate.runtime.state.journal import Journal, Record

QUARTER_S = 900
SAMPLES_AGE_NS = 35 * 86_400 * 10**9
SAMPLES_BYTES = 2 << 30
EVENTS_BYTES = 256 << 20
JOBS_BYTES = 64 << 20  # some 300,000 jobs


class Retention:
    """Removes the oldest segments when they are too old or too many; of meter samples it first keeps the totals.

    A total is the first and the last meter record of a UTC quarter hour of one boot: the registers and integrals in
    them are monotone, so their difference is the energy, and the least and most of the powers are kept beside them.
    """

    def __init__(
        self,
        meter: Journal,
        event: Journal,
        totals: Journal,
        *,
        samples_bytes: int = SAMPLES_BYTES,
        samples_age_ns: int = SAMPLES_AGE_NS,
        events_bytes: int = EVENTS_BYTES,
        job: Journal | None = None,
    ) -> None:
        self.meter = meter
        self.event = event
        self.totals = totals
        self.samples_bytes = samples_bytes
        self.samples_age_ns = samples_age_ns
        self.events_bytes = events_bytes
        self.job = job
        self.folded = 0

    def step(self) -> None:
        """Drop at most one segment a stream, so that a call stays short. Raises OSError."""
        if len(self.meter.segments) > 1:
            newest_of_oldest_ns = self.meter.segments[1].utc_ns
            if (
                self.meter.bytes_total > self.samples_bytes
                or time.time_ns() - newest_of_oldest_ns > self.samples_age_ns
            ):
                self._fold()
                self.meter.drop_oldest()
                self.folded += 1
        if self.event.bytes_total > self.events_bytes:
            self.event.drop_oldest()
        if self.job is not None and self.job.bytes_total > JOBS_BYTES:
            self.job.drop_oldest()

    def _fold(self) -> None:
        """Write the totals of the oldest segment and make them durable; done once a segment, also across a crash."""
        segment = self.meter.segments[0]
        folded = max((source for _, source in self.totals.last.values()), default=-1)
        if folded >= segment.number:
            return
        total: dict[str, Any] | None = None
        seq = self.totals.last.get(segment.boot, (-1, -1))[0]
        for record in self.meter.records(segment):
            sample = msgpack.unpackb(record.payload)
            quarter = record.utc_ns // 10**9 // QUARTER_S * QUARTER_S
            if total is None or total["quarter_utc_s"] != quarter:
                if total is not None:
                    seq = self._put(total, segment.boot, seq, segment.number)
                total = {
                    "v": 1,
                    "kind": "total",
                    "site": sample["site"],
                    "boot": sample["boot"],
                    "quarter_utc_s": quarter,
                    "count": 0,
                    "first": sample,
                    "last": sample,
                    "min": {},
                    "max": {},
                }
            total["count"] += 1
            total["last"] = sample
            for name, (value, _) in sample["points"].items():
                if value is not None and name.endswith("_w"):
                    total["min"][name] = min(value, total["min"].get(name, value))
                    total["max"][name] = max(value, total["max"].get(name, value))
        if total is not None:
            self._put(total, segment.boot, seq, segment.number)
        self.totals.sync()

    def _put(self, total: dict[str, Any], boot: bytes, seq: int, segment: int) -> int:
        # `source` tells the segment that is folded, so that a crash between folding and dropping folds nothing twice.
        self.totals.append(Record(boot, seq + 1, total["quarter_utc_s"] * 10**9, segment, msgpack.packb(total)))
        return seq + 1
