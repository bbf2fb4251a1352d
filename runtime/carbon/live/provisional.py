"""The open period as if it were booked now, by the very code that will book it; nothing of the account changes.

What it lacks is said beside it: a meter that is silent, a register too coarse for so little time, a factor that is
held or missing, a clock or a journal that stands still. A figure with such a doubt is never shown as good.
"""

import copy
import math
from dataclasses import dataclass, field

from tidegate.runtime.carbon.engine.account import DAY_S
from tidegate.runtime.carbon.engine.booking import Booker
from tidegate.runtime.carbon.engine.counter import GAP_S
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.sidecar.service import Sidecar

CLOSING_S = 2  # the last look at a period comes so long before its end at most
MARGIN = 1.5  # a second may give more than the highest mean between two looks
BEGUN_S = 10
LATE_S = 60.0  # energy must be shown within that time
COARSE = 100  # a register's step is at most so small a part of the energy that it measured
PLAIN_FACTORS = ("actual", "estimated", "constant")
# What a period's flags say without taking anything from its numbers.
HARMLESS = ("PARTIAL", "TRUE_UP", "TIME_INFORMATIVE", "PLACED_BY_MONOTONIC_TIME", "ROLLOVER", "LATE")


@dataclass(slots=True)
class Provisional:
    """The open period: its body as far as it goes, until when, and why it is not good."""

    body: PeriodBody
    until_utc_s: int
    doubts: list[str] = field(default_factory=list)


class Resolution:
    """The steps in which each register counts, from the readings seen: their greatest common divisor, mWh."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def see(self, booker: Booker) -> None:
        """Take the present readings in."""
        for flow, counter in booker.pairs:
            if counter.register is not None:
                self._steps[flow.name] = math.gcd(self._steps.get(flow.name, 0), counter.register)

    def coarse(self, booker: Booker, elapsed_s: float) -> list[str]:
        """Flows whose register steps are too large for the energy that the open period can have so far."""
        found = []
        for flow, counter in booker.pairs:
            step = self._steps.get(flow.name, 0)
            energy = max(counter.before_w * elapsed_s / 3.6, float(counter.energy_milliwh))
            flows = counter.before_w > 0.0 or counter.energy_milliwh > 0
            if flow.register is not None and flows and step * COARSE > energy:
                found.append(f"{flow.name}: its register counts in {step / 1e6:g} kWh, too coarse for this stretch yet")
        return found


class Bursts:
    """How unevenly the grid gives in the open period: the last figure of it comes up to CLOSING_S before its end.

    Where a few seconds at the highest power seen are more than 1 % of a period at the mean, they can move the figure.
    """

    def __init__(self) -> None:
        self._start = -1
        self._seen = 0, 0  # until, mWh
        self._peak = 0.0  # mWh a second

    def see(self, body: PeriodBody, until_utc_s: int, period_s: int) -> list[str]:
        """Take the open period in. -> the reason, if there is one."""
        start, length_s = body["start_utc_s"], body["length_s"]
        milliwh = sum(flow["energy_milliwh"] for name, flow in body["flows"].items() if name.endswith(".import"))
        if start != self._start:
            self._start, self._seen, self._peak = start, (start, 0), 0.0
        at, before = self._seen
        if until_utc_s > at:
            self._peak = max(self._peak, (milliwh - before) / (until_utc_s - at))
            self._seen = until_utc_s, milliwh
        mean = milliwh / length_s
        if mean and self._peak * CLOSING_S * MARGIN * 100 > mean * period_s:
            times = self._peak / mean
            return [f"the grid gives in bursts, up to {times:.1f} times its mean: seconds move the figure"]
        return []


def provisional(sidecar: Sidecar, resolution: Resolution, now_utc_s: float) -> Provisional | None:
    """The open period at this moment; None before the first record. now_utc_s : the machine's clock."""
    booker = sidecar.booker
    if booker.cursor is None or booker.last_label_ns < 0:
        return None
    resolution.see(booker)
    began_with_account = bool(booker.state()["_first"])
    aside = Booker(booker.flows, booker.period_s, booker.state(), sidecar.nodes.soc_weights)
    start_s = aside.open_until_ns // 1_000_000_000 - aside.period_s  # before it is closed, which moves on
    until_s = max(start_s, booker.last_label_ns // 1_000_000_000)
    silent = _silent(booker)
    coarse = resolution.coarse(booker, until_s - start_s)
    booked = aside.finish()
    if booked is None:
        return None
    booked.length_s = max(1, min(booker.period_s, until_s - start_s))
    if not began_with_account:
        booked.flags = [flag for flag in booked.flags if flag != "PARTIAL"]
    accountant = copy.copy(sidecar.accountant)
    accountant.stocks = dict(accountant.stocks)
    body = accountant.book(booked)
    doubts = [f"{name}: silent for {age_s:.0f} s" for name, age_s in silent]
    age_s = now_utc_s - until_s
    if age_s > LATE_S:
        doubts.append(f"no meter record for {age_s:.0f} s")
    elif age_s < -LATE_S:
        doubts.append(f"the clock stands {-age_s:.0f} s before the newest meter record")
    doubts += coarse + body_doubts(body)
    if until_s - start_s < BEGUN_S:
        doubts.append("the period has only just begun")
    if began_with_account:
        doubts.append("the account began within this period")
    if sidecar.accountant.true_up == "daily" and sidecar.nodes.storages and not (start_s + aside.period_s) % DAY_S:
        doubts.append("the battery's stock is set to its state of charge at the end of this period")
    doubts += [f"a file was refused: {text}" for text in sidecar.inputs.trouble]
    return Provisional(body, until_s, doubts)


def _silent(booker: Booker) -> list[tuple[str, float]]:
    """Flows that said nothing while others did."""
    found = []
    for flow, counter in booker.pairs:
        age_s = (booker.last_label_ns - counter.seen_ns) / 1e9
        if counter.seen_ns < 0 or age_s > GAP_S:
            found.append((flow.name, age_s if counter.seen_ns >= 0 else 0.0))
    return found


def body_doubts(body: PeriodBody) -> list[str]:
    """Why the numbers of a period are not good, open or booked."""
    doubts = []
    for name, flow in body["flows"].items():
        if flow["quality"] != "good":
            why = f" ({', '.join(flag.split()[0] for flag in flow['flags'])})" if flow["flags"] else ""
            doubts.append(f"{name}: {flow['quality']}, by {flow['method']}{why}")
        elif any(flag.split()[0] not in HARMLESS for flag in flow["flags"]):
            doubts.append(f"{name}: {', '.join(flow['flags'])}")
    for node, row in body["factors"].items():
        if row["status"] not in PLAIN_FACTORS:
            doubts.append(f"{node}: factor is a {row['status']} one, {row['ug_per_kwh'] / 1e6:g} g/kWh")
    doubts += [flag for flag in body["flags"] if flag.split()[0] not in HARMLESS]
    return doubts
