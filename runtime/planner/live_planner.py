"""The planner that runs by itself: each quarter hour it reads, plans, sends, and says what it did.

It is one client of the gateway. Whatever goes wrong here costs a plan and nothing else: the one in force goes on to its
own end, then the site's policies. A plan that a person or an integrator wrote is left alone.
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from tidegate.config.site import Site
from tidegate.config.zones import zone_of
from tidegate.runtime.api.connection import ClientError, Point
from tidegate.runtime.api.messages import QUALITIES, Message
from tidegate.runtime.planner.adapter_audit import adapter_doubts
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, read_jobs, runs_of, saved_eur, silent_adapters
from tidegate.runtime.planner.day_ahead import DayAhead, Wishes, day_ahead
from tidegate.runtime.planner.expected_cooling import cooling_text, expected_cooling
from tidegate.runtime.planner.forecast_diary import DIARY_FILE, ForecastDiary
from tidegate.runtime.planner.forecasts import choice_text
from tidegate.runtime.planner.grid_events import EventBook, failing_share, read_events
from tidegate.runtime.planner.hours_table import HoursTable, gap_text
from tidegate.runtime.planner.outlook import WEAR_EUR_PER_KWH, window_s_of
from tidegate.runtime.planner.plan_inputs import Floats, PlanError
from tidegate.runtime.planner.plan_steps import Step, steps_of
from tidegate.runtime.planner.price_folder import FACTORS, read_prices
from tidegate.runtime.planner.savings import DaySaved, month_line, saved_by_day
from tidegate.runtime.planner.site_history import QUARTER_S, read_history, write_history
from tidegate.runtime.planner.what_if import Otherwise, beside
from tidegate.runtime.state import atomic_file

STATUS_FILE = "planner.json"
HISTORY_FILE = "history.csv"
DAYS_READ = 42  # of the past that a plan is made from
DAYS_KEPT = 400
SETTLE_S = 5.0  # after the quarter hour's edge: its last record is in the journal then
LOOK_S = 1.0
AGAIN_S = 60.0  # after a plan that did not come about


class Gateway(Protocol):
    """What is needed of a client."""

    def get(self, *names: str) -> dict[str, Point]: ...

    def replay(
        self, stream: str, boot: str | None = None, seq: int = -1, count: int = 256
    ) -> tuple[list[Message], bool]: ...

    def schedule(self, steps: Sequence[Step], end_utc_s: int, *, rank: str = "order") -> Message: ...


@dataclass
class Told:
    """What the planner last did, for people, metrics and adapters."""

    state: str = "starting"  # planned, stands back, no new plan
    text: str = ""
    utc_s: int = 0  # of the last step
    planned_utc_s: int = 0  # of the last plan that the site took
    end_utc_s: int = 0  # of that plan
    plans: int = 0
    failures: int = 0
    solve_s: float = 0.0
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """What one plan is made from."""

    table: HoursTable
    now: datetime
    soc: float
    wishes: Wishes
    jobs: tuple[AnnouncedJob, ...]
    in_force_kw: Floats | None
    caps_kw: dict[int, float]
    cooling_kw: dict[int, float] = field(default_factory=dict)


class LivePlanner:
    """folder: where history, status and the diary are kept; `jobs.json` is read from there. plan: replaced in tests."""

    def __init__(self, client: Gateway, site: Site, prices: Path, folder: Path, wishes: Wishes, *,
                 plan: Callable[..., DayAhead] = day_ahead) -> None:  # fmt: skip
        self.client, self.site, self.prices, self.folder, self.wishes = client, site, prices, folder, wishes
        self._plan = plan
        self.told = Told()
        self.made: DayAhead | None = None
        has_pv = any(device.role == "pv-meter" for device in site.device)
        self.history = read_history(folder / HISTORY_FILE, has_pv)
        self.diary = ForecastDiary(folder / DIARY_FILE)
        self.events = EventBook(folder)
        self.saved: list[DaySaved] = []
        self._kept = len(self.history.quarters)
        self._asked: Asked | None = None  # what the plan in `made` was made from
        self._asking = threading.Lock()

    def step(self, now_utc_s: float) -> None:
        """Plan once. Never raises for what the world does: it is said in `told`, and the plan in force goes on."""
        told = self.told
        told.utc_s = int(now_utc_s)
        try:
            told.doubts = [text for text in (self.diary.lost, self.events.lost) if text]
            told.doubts += adapter_doubts(self.folder)
            self._plan_once(now_utc_s)
        except (PlanError, ClientError, OSError) as why:
            code = why.code if isinstance(why, ClientError) else ""
            back = code == "not-allowed" and isinstance(why, ClientError) and bool(why.answer.get("holder"))
            told.state, told.text = ("stands back" if back else "no new plan"), str(why)
            told.failures += not back
        with contextlib.suppress(OSError):  # a full disk costs the status, not the plan
            self._write_status()

    def _plan_once(self, now_utc_s: float) -> None:
        self.history.catch_up(self.client)
        self._keep_history()
        table = self.table(now_utc_s)
        wear = WEAR_EUR_PER_KWH if self.wishes.wear_eur_per_kwh is None else self.wishes.wear_eur_per_kwh
        zone = zone_of(self.site.site.timezone)
        self.saved = saved_by_day(table, self.history, self.wishes.fees_eur_per_kwh, wear, zone)
        soc = self._soc()
        jobs = read_jobs(self.folder)
        self.told.doubts += silent_adapters(self.folder)
        events = read_events(self.folder)
        caps_kw, unplanned = self.events.caps_kw(events, self.history, int(now_utc_s))
        now = datetime.fromtimestamp(now_utc_s, UTC)
        began = time.perf_counter()
        cooling_kw, odd = expected_cooling(self.folder, now_utc_s)
        self.told.doubts += odd
        asked = Asked(table, now, soc, self._wishes(now), jobs, self._in_force(now_utc_s), caps_kw, cooling_kw)
        made = self._ask(asked)
        self.told.solve_s = time.perf_counter() - began
        steps, end_utc_s = steps_of(made.plan, made.storage, made.connection)
        self._note_forecasts(made, table, int(now_utc_s))
        self.events.promise(events, made.plan.horizon.start_utc_s, made.plan.import_kw.tolist(),
                            lambda steps, caps_kw: event_risk(made, steps, caps_kw))  # fmt: skip
        self.events.settle(events, self.history, int(now_utc_s))
        self.events.write()
        answer = self.client.schedule(steps, end_utc_s, rank="planner")
        self.made, self._asked = made, asked
        told = self.told
        told.state, told.text = "planned", str(answer.get("text") or answer.get("status") or "")
        told.planned_utc_s, told.end_utc_s, told.plans = int(now_utc_s), end_utc_s, told.plans + 1
        told.doubts += [*unplanned, *table.doubts, *made.said, *made.plan.relaxed]

    def _ask(self, asked: "Asked") -> DayAhead:
        return self._plan(self.site, asked.table, asked.now, asked.soc, asked.wishes, jobs=asked.jobs,
                          in_force_kw=asked.in_force_kw, caps_kw=asked.caps_kw,
                          cooling_kw=asked.cooling_kw)  # fmt: skip

    def what_if(self, otherwise: Otherwise) -> dict[str, object]:
        """The plan in force beside the one that it would be; nothing is sent. Raises PlanError. From any thread."""
        first, asked = self.made, self._asked
        if first is None or asked is None:
            raise PlanError("there is no plan yet to lay another beside")
        if not self._asking.acquire(blocking=False):
            raise PlanError("another question is being worked out; ask again in some seconds")
        try:
            changed = replace(asked, wishes=otherwise.wishes(asked.wishes), jobs=otherwise.jobs(asked.jobs))
            return beside(first, self._ask(changed))
        finally:
            self._asking.release()

    def table(self, now_utc_s: float) -> HoursTable:
        """Load and sun as they were, prices as far as they are published. Raises PlanError."""
        first = int(now_utc_s) // QUARTER_S * QUARTER_S
        begin = first - DAYS_READ * 86_400
        known = [at for at in self.history.quarters if at >= begin]
        if known:
            begin = max(begin, min(known))
        past = (first - begin) // QUARTER_S
        steps = past + self.wishes.ahead_h * 4
        load, pv = self.history.series(begin, steps)
        price, said = read_prices(self.prices, begin, steps, QUARTER_S)
        carbon = np.zeros(0)
        if self.wishes.carbon_eur_per_kg:
            carbon, of_carbon = read_prices(self.prices, begin, steps, QUARTER_S, FACTORS)
            said += [text for text in of_carbon if text not in said]
        for where, name, values in ((self.folder, "load_kw", load), (self.prices, "price", price)):
            if text := gap_text(where, name, values, QUARTER_S):
                said.append(text)
        if self.history.cut:
            said.append(f"{self.history.cut} quarter hours were cut by restarts or by a clock that was set")
        days = int(np.isfinite(load).sum()) / 96
        if days < 2:
            raise PlanError(f"{days:.1f} days of load are known; a plan wants 2: they are gathered from the journal")
        return HoursTable(datetime.fromtimestamp(begin, UTC), QUARTER_S, load, pv, price, tuple(said), carbon)

    def _soc(self) -> float:
        point = self.client.get("site.soc")["site.soc"]
        if point.value is None or QUALITIES[point.quality] != "good":
            raise PlanError("site.soc is not good now: a plan from a guess would be a wrong order")
        return float(point.value)

    def _wishes(self, now: datetime) -> Wishes:
        """With the month's import that is on the bill already."""
        if not self.wishes.demand_eur_per_kw:
            return self.wishes
        zone = zone_of(self.site.site.timezone)
        month = now.astimezone(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        paid_kw = self.history.peak_kw(int(month.timestamp()), int(now.timestamp()))
        alone_kw = self.history.alone_peak_kw(
            int(month.timestamp()), int(now.timestamp()), window_s_of(self.site), zone
        )
        return replace(self.wishes, paid_kw=max(self.wishes.paid_kw, paid_kw), alone_kw=alone_kw)

    def _in_force(self, now_utc_s: float) -> Floats | None:
        """Battery power of our last plan for the steps to come, then rest."""
        if self.made is None:
            return None
        gone = int(now_utc_s - self.made.plan.horizon.start_utc_s) // QUARTER_S
        wanted = np.zeros(self.wishes.ahead_h * 4)
        if gone >= 0:
            rest = self.made.plan.battery_kw[gone:][: len(wanted)]
            wanted[: len(rest)] = rest
        return wanted

    def _note_forecasts(self, made: DayAhead, table: HoursTable, now_utc_s: int) -> None:
        begin, now_step = int(table.begin_utc.timestamp()), table.step_at(datetime.fromtimestamp(now_utc_s, UTC))
        expected = {"load": made.outlook.load, "pv": made.outlook.pv, "price": made.outlook.price}
        actual = {"load": table.load_kw, "pv": table.pv_kw, "price": table.price_eur_per_kwh}
        for name, found in expected.items():
            self.diary.settle(name, begin, QUARTER_S, actual[name], now_utc_s)
            known = table.known(actual[name] if name == "price" else actual[name][:now_step])
            first = begin + known * QUARTER_S
            if found is not None and len(found.paths) and len(found.middle) >= 48:
                self.diary.expect(name, found, first, QUARTER_S)
        self.diary.write()

    def _keep_history(self) -> None:
        if len(self.history.quarters) != self._kept:
            self.history.forget(max(self.history.quarters) - DAYS_KEPT * 86_400)
            write_history(self.folder / HISTORY_FILE, self.history)
            self._kept = len(self.history.quarters)

    def status(self) -> dict[str, object]:
        """All that is told, as it stands in the status file."""
        told = dict(self.told.__dict__)
        told["forecast_errors"] = [dict(one.__dict__) for one in self.diary.newest()]
        told["saved"] = [dict(one.__dict__) for one in self.saved]
        told["saved_line"] = month_line(self.saved)
        told["events"] = self.events.lines()
        if self.made is None:
            return told
        plan, horizon = self.made.plan, self.made.plan.horizon
        told["start_utc_s"], told["step_s"] = horizon.start_utc_s, horizon.step_s
        told["battery_kw"] = plan.battery_kw.round(3).tolist()
        told["import_kw"] = plan.import_kw.round(3).tolist()
        told["cooling_kw"] = self.made.cooling_kw.round(3).tolist()
        told["cooling_text"] = cooling_text(self.made.cooling_kw, horizon.step_h)
        told["meter_eur_per_kwh"] = plan.meter_eur_per_kwh.round(5).tolist()
        outlook = self.made.outlook
        told["forecasts"] = {
            name: {"by": found.name, "pinball": {way: round(worth, 6) for way, worth in found.worth.items()},
                   "text": choice_text(found)}
            for name, found in (("load", outlook.load), ("pv", outlook.pv), ("price", outlook.price),
                                ("carbon", outlook.carbon)) if found is not None
        }  # fmt: skip
        told["advice"] = advice(self.made)
        told["jobs"] = [
            {"name": job.name, "runs_utc_s": runs_of(row, horizon), "power_kw": job.power_kw,
             "saves_eur": saved_eur(row, job, horizon, plan.meter_eur_per_kwh)}
            for job, row in zip(self.made.jobs, plan.jobs_kw, strict=True)
        ]  # fmt: skip
        return told

    def _write_status(self) -> None:
        atomic_file.replace(self.folder / STATUS_FILE, json.dumps(self.status()).encode(), 0o640)

    def run(self, stop: threading.Event, said: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        """Plan at each quarter hour of the wall clock until `stop`. A clock that is set is followed at once."""
        shown, due, last = "", -math.inf, clock()
        while not stop.is_set():
            now = clock()
            if now >= due or now < last - 1.0:
                self.step(now)
                edge = ((now - SETTLE_S) // QUARTER_S + 1) * QUARTER_S + SETTLE_S
                due = edge if self.told.state != "no new plan" else min(edge, now + AGAIN_S)
                line = f"{self.told.state}: {self.told.text}"
                if line != shown:
                    shown = line
                    said(line)
            last = now
            stop.wait(LOOK_S)


def event_risk(made: DayAhead, steps: slice, caps_kw: Floats) -> float:
    """Share of the errors that the load's forecast had on which the battery does not hold these caps in these steps.

    NaN where no errors over so many steps are known; 0 where the load is no forecast.
    """
    horizon, load = made.outlook.horizon, made.outlook.load
    count = len(horizon.load_kw)
    if load is None:
        return 0.0
    if load.paths.shape[1] < count:
        return math.nan
    expected = horizon.load_kw - horizon.pv_kw + made.plan.jobs_kw.sum(axis=0)
    stored_kwh = float(made.plan.stored_kwh[max(0, steps.start - 1)])
    paths = (expected + load.paths[:, -count:])[:, steps]
    return failing_share(paths, caps_kw, made.storage, stored_kwh, horizon.step_h)


def price_signal(told: dict[str, object], site: str) -> dict[str, object]:
    """What a kWh of load costs in each step to come, for whoever decides by a price; {} where there is no plan.

    It holds the tariff, what the battery can do about it, and the share of a peak that one more kWh would make.
    """
    keys = ("start_utc_s", "step_s", "meter_eur_per_kwh", "advice", "planned_utc_s", "end_utc_s")
    if any(key not in told for key in keys):
        return {}
    return {"site": site, **{key: told[key] for key in keys}}


def advice(made: DayAhead) -> dict[str, object]:
    """To a computation that could run now: run, may wait (until when, and what a kWh then costs less), or shed."""
    plan, horizon = made.plan, made.plan.horizon
    value = plan.meter_eur_per_kwh
    over_kw = float(plan.import_kw[0] - made.connection.import_kw_max)
    if over_kw > 1e-6:
        return {"word": "shed", "until_utc_s": horizon.start_utc_s + horizon.step_s, "eur_per_kwh": float(value[0]),
                "why": f"the connection's import limit is passed by {over_kw:.1f} kW"}  # fmt: skip
    best = int(np.argmin(value))
    gain = float(value[0] - value[best])
    if gain > 0.1 * abs(float(np.median(value))) and best > 0:
        return {"word": "may wait", "until_utc_s": horizon.start_utc_s + best * horizon.step_s,
                "eur_per_kwh": float(value[0]), "why": f"a kWh costs {gain:.4f} EUR less then"}  # fmt: skip
    return {"word": "run", "until_utc_s": horizon.start_utc_s + horizon.step_s, "eur_per_kwh": float(value[0]),
            "why": f"no later step is cheaper by more than {max(gain, 0.0):.4f} EUR/kWh"}  # fmt: skip
