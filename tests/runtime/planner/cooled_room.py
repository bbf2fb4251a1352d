"""The cooling adapter over a simulated room in virtual time, with what its telemetry does wrong, beside the same room
under its owner's own set-point."""

import json
import math
from pathlib import Path

import numpy as np

from tests.runtime.planner.simulated_room import SimulatedRoom
from tidegate.runtime.planner.cooling_plan import InletBand
from tidegate.runtime.planner.cooling_setpoint import CoolingAllowed, CoolingSetpoint
from tidegate.runtime.planner.cooling_unit import CoolingError, CoolingFile, CoolingRegister, Reading

BEGIN = 1_800_000_000 // 86_400 * 86_400
ROUND_S = 150
FAULTS = ("none", "frozen", "scaled 0.9", "scaled 1.1", "scaled 0.1", "no number", "silent", "frozen all", "all low",
          "powers scaled")  # fmt: skip


class RoomUnit:
    """The unit as the adapter sees it; fault: what its telemetry does from `since_h` on."""

    def __init__(self, room, fault, since_h):
        self.room, self.fault, self.since_h, self.kept, self.deaf = room, fault, since_h, None, False
        self.writes = []

    def read(self):
        inlet, cooling, it, outdoor = self.room.reads()
        made = Reading(self.room.setpoint_c, (inlet,), cooling, it, outdoor)
        if self.room.hour < self.since_h or self.fault == "none":
            self.kept = made
            return made
        before = self.kept or made
        setpoint = self.room.setpoint_c
        if self.fault == "silent":
            raise CoolingError("10.0.0.9:502: no connection")
        if self.fault == "frozen":
            return Reading(setpoint, before.inlets_c, cooling, it, outdoor)
        if self.fault == "frozen all":
            return Reading(setpoint, before.inlets_c, before.cooling_kw, before.it_kw, before.outdoor_c)
        if self.fault == "no number":
            return Reading(setpoint, (math.nan,), cooling, it, outdoor)
        if self.fault == "all low":
            return Reading(setpoint, (inlet - 0.8,), cooling, it, outdoor)
        if self.fault == "powers scaled":
            return Reading(setpoint, (inlet,), cooling * 10, it / 10, outdoor)
        return Reading(setpoint, (inlet * float(self.fault.split()[1]),), cooling, it, outdoor)

    def write(self, setpoint_c):
        if self.deaf:
            raise CoolingError("10.0.0.9:502: refused")
        self.writes.append((self.room.hour, setpoint_c))
        self.room.setpoint_c = setpoint_c


def owners_file(room, **changed):
    """An owner whose set-point band is as generous as the inlet's: only distances and readings hold it."""
    at = CoolingRegister(0, "10.0.0.9", scale=0.1)
    inlet = CoolingRegister(0, "10.0.0.9", offset_c=round(room.offset_c, 1))
    words = {"name": "crac1", "kind": "A2", "band": InletBand(18.0, 27.0, 2.0), "setpoint": at, "inlets": (inlet,),
             "cooling": at, "it": at, "outdoor": at, "setpoint_band": (16.0, 28.0), "step_c": 0.5,
             "writes_per_day_max": 60, "beyond": ""}  # fmt: skip
    return CoolingFile(**{**words, **changed})


def day_price(seed):
    """(96,) EUR/kWh of a day: two humps, other each seed."""
    rng = np.random.default_rng(10_000 + seed)
    at = np.arange(96) / 96 * 2 * np.pi
    return 0.22 + rng.uniform(0.03, 0.12) * np.sin(at + rng.uniform(0, 6)) + 0.04 * np.sin(2 * at + rng.uniform(0, 6))


def advise(folder, now, price):
    """The planner's own file, as the adapter reads it."""
    first = now // 900 * 900
    told = {"planned_utc_s": now, "start_utc_s": first, "step_s": 900,
            "meter_eur_per_kwh": np.roll(price, -(first % 86_400 // 900)).tolist()}  # fmt: skip
    (Path(folder) / "planner.json").write_text(json.dumps(told))


def lived(folder, seed, days, fault="none", *, since_day=None, learn=True):
    """(adapter, its room, the twin, worst inlet above the band beside the twin's, saved share of cost, shares)."""
    room, twin = SimulatedRoom(seed), SimulatedRoom(seed)
    rng = np.random.default_rng(20_000 + seed)
    since_day = days * rng.uniform(0.5, 0.95) if since_day is None else since_day
    unit = RoomUnit(room, fault, since_day * 24)
    adapter = CoolingSetpoint(unit, owners_file(room), folder, CoolingAllowed(learn=learn))
    price, paid, paid_twin, used = day_price(seed), 0.0, 0.0, [0.0, 0.0]
    above, coldest, judged = 0.0, math.inf, False
    for k in range(round(days * 86_400 / ROUND_S)):
        now = BEGIN + k * ROUND_S
        if now % 900 == 0:
            advise(folder, now, price)
        before = (room.cooling_kwh, twin.cooling_kwh)
        room.step(ROUND_S)
        twin.step(ROUND_S)
        adapter.round(now)
        unit.room.reads and twin.reads()  # the same draws, so that both live the same days
        above = max(above, room.inlet_c - max(27.0, twin.inlet_c))
        coldest = min(coldest, room.inlet_c)
        judged = judged or (adapter.model is not None and not adapter.model.why_not)
        if judged:
            cost = float(price[now % 86_400 // 900])
            paid += cost * (room.cooling_kwh - before[0])
            paid_twin += cost * (twin.cooling_kwh - before[1])
            used[0] += room.cooling_kwh - before[0]
            used[1] += twin.cooling_kwh - before[1]
    return adapter, room, twin, above, coldest, 1 - paid / paid_twin if paid_twin else 0.0
