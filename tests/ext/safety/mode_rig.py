"""The whole core without a bus: the test lays readings over the image, `core_cycle` does the rest in made-up time.

Readings and expected numbers are those of fault_rig.py, the second copy of the table. The battery gives its setpoint in
the next cycle; the grid meter shows the load without it.
"""

import math
import os
from functools import cache
from types import TracebackType
from typing import Any

from tests.ext.safety.fault_rig import (
    BMS,
    CASES,
    CONTACTS,
    DERATE,
    INPUTS,
    MS,
    OPEN,
    PCS,
    POINT,
    QUALITIES,
    SITE,
    WARN,
    ZERO,
    Case,
)
from tests.ext.safety.gate_cases import LIMITS
from tidegate.config.faults import load_faults
from tidegate.ext.abi import program
from tidegate.ext.abi import shared as ext_shared
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle.loop import Core
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.ext.safety.gate import input_from_image

ORDERS = {name: number for number, name in enumerate(ext_shared.ORDER_NAMES)}
POLICIES = {name: ext_shared.ORDER_POLICY_FIRST + i for i, name in enumerate(ext_shared.POLICY_NAMES_BY_NUMBER)}
NAMEPLATE_W, RAMP_STOP_W_PER_MS = 30_000, 1500
STEP_MS = 200  # longest cycle; the row about pauses begins at 250
PEAK_W = 48_000.0

# mode -> (site load, orders that bring it, expected setpoint, state of the cabinet)
MODES: dict[str, tuple[float, dict[str, float], float | None, str]] = {
    "off": (10_000.0, {}, 0.0, "off"),
    "arming": (10_000.0, {}, 0.0, "arming"),
    "idle": (10_000.0, {}, 0.0, "run"),
    "charging": (10_000.0, {"setpoint_w": -20_000.0}, -20_000.0, "run"),
    "discharging": (40_000.0, {"setpoint_w": 20_000.0}, 20_000.0, "run"),
    "peak": (62_000.0, {"peak_w_max": PEAK_W}, None, "run"),
    "following": (12_000.0, {"follow_grid": 1.0}, None, "run"),
    "manual": (10_000.0, {"manual_w": 9_000.0}, 9_000.0, "manual"),
    "stopping": (40_000.0, {"manual_w": 20_000.0}, None, "stopping"),
}


def site_rows() -> dict[str, Any]:
    """A site of one unit with every signal that a map can have, not yet packed."""
    gate = {**LIMITS, "charge_w_max": NAMEPLATE_W, "discharge_w_max": NAMEPLATE_W}
    gate |= {"charge_ma_max": 2_000_000, "discharge_ma_max": 2_000_000}
    return {
        "points": [{"name": f"x.{name}"} for name in (*BMS, *PCS, *SITE, *CONTACTS)],
        "inputs": INPUTS,
        "units": [{**{name: f"x.{name}" for name in (*BMS, *PCS)}, "energy_wh": 60_000.0, "gate": gate}],
        "site": {name: f"x.{name}" for name in SITE},
        "faults": load_faults({}, [])[0],
        "control": {"deadband_w": 10.0, "pcs_tau_s": 0.02},
    }


@cache
def site() -> bytes:
    return program.pack(site_rows())


class CoreRig:
    """A core that stands in one of MODES, untouched by faults."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.load_w, self.orders, _, _ = MODES[mode]
        self.names = {row["name"]: i for i, row in enumerate(program.rows(site())["points"])}
        self.first = self.names[f"x.{next(iter(BMS))}"]
        self.shared, self.fd = Shared.memfd("mode-rig")
        self.core = Core(site(), self.shared)
        self.values: dict[str, float | str] = {
            f"x.{name}": value for name, value in (BMS | PCS | SITE | CONTACTS).items()
        }
        self.given: dict[str, Any] = {}  # what the test says instead: a value, a quality, or a function of the rig
        self.t_ns, self.number = 10**9, 0
        self.since, self.set_at_w = 0, 0.0  # cycles since the readings were last given, and the setpoint then
        self.image = b""
        try:
            self._enter()
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> "CoreRig":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self.fd)

    # ------------------------------------------------------------ time

    def _lay(self) -> None:
        given = {name: value(self) if callable(value) else value for name, value in self.given.items()}
        ess_w = self.point("unit0.setpoint_w") if self.image else 0.0
        self.values["x.pcs_w"] = ess_w
        pack_v = self.values["x.pack_v"]
        assert isinstance(pack_v, float)
        self.values["x.pack_a"] = self.values["x.dc_a"] = ess_w / pack_v
        self.values["x.grid_w"] = self.load_w - ess_w + self.number % 2  # moves a little, as meters do
        image = bytearray(self.image)
        if not image:
            image = bytearray(POINT.size * len(self.names))
        for name, value in self.values.items():
            quality = "held" if name == "x.pcs_w" and self.mode == "arming" else "good"
            said = given.get(name, value)
            if isinstance(said, str):
                quality, said = said, math.nan if said == "never" else value
            POINT.pack_into(image, self.names[name] * POINT.size, said, self.t_ns, QUALITIES[quality], 0)
        self.laid = bytes(image)
        self.core.put_points(self.first, self.laid[self.first * POINT.size :])
        for name, value in given.items():
            if not name.startswith("x."):
                self.core.put_points(self.names[name], POINT.pack(value, self.t_ns, QUALITIES["good"], 0))

    def cycle(self, dt_ms: int = 1) -> None:
        self.t_ns += dt_ms * MS
        self._lay()
        self.core.cycle(self.t_ns, dt_ms * MS, self.number)
        self.number += 1
        self.since += 1
        picture = self.shared.read_image()
        assert picture is not None
        self.image = picture.raw

    def run(self, ms: int) -> None:
        """Cycles of at most STEP_MS for ms altogether; the first with new readings and the last three are of 1 ms."""
        while ms > 0:
            step = min(ms - 3, STEP_MS) if ms > 3 and self.since else 1
            self.cycle(step)
            ms -= step

    def set(self, readings: dict[str, Any]) -> None:
        self.given = {name if "." in name else f"x.{name}": value for name, value in readings.items()}
        self.since = 0
        self.set_at_w = self.setpoint_w

    def order(self, name: str, value: float, for_s: float = 1e5) -> None:
        kind = ORDERS[name] if name in ORDERS else POLICIES[name]
        self.shared.put_order(kind, value, self.t_ns + int(for_s * 1e9), 1)

    # ------------------------------------------------------------ what the core says

    def point(self, name: str) -> float:
        value: float = POINT.unpack_from(self.image, self.names[name] * POINT.size)[0]
        return value

    def _bits(self, name: str) -> int:
        words = [int(self.point(f"unit0.{name}_{word}")) for word in ("lo", "hi", "64", "96")]
        return sum(word << 32 * place for place, word in enumerate(words))

    def active(self) -> list[str]:
        bits = self._bits("fault_bits")
        return [ident for i, ident in enumerate(FAULT_IDS) if bits >> i & 1]

    def latched(self) -> list[str]:
        bits = self._bits("latch_bits")
        return [ident for i, ident in enumerate(FAULT_IDS) if bits >> i & 1]

    @property
    def state(self) -> str:
        return MODES_BY_NUMBER[int(self.point("unit0.state"))]

    @property
    def setpoint_w(self) -> float:
        return self.point("unit0.setpoint_w")

    def inputs(self) -> dict[str, int]:
        """The gate's input for the readings of the last cycle."""
        return input_from_image(site(), 0, self.laid)

    # ------------------------------------------------------------ into the mode

    def _enter(self) -> None:
        self.cycle()
        self.run(1000)
        if self.mode == "off":
            self.order("mode", 2.0)
        self.order("arm", 1.0, 1.0)
        self.cycle()
        for _ in range(200):
            if self.mode in ("off", "arming") or self.state == "run":
                break
            self.cycle(10)
        for name, value in self.orders.items():
            self.order(name, value)
        self.run(20_000)  # until the bands about the converter have closed
        if self.mode == "stopping":  # out of the slow way back from manual: a stop is zero at once from anywhere else
            self.order("manual_w", 0.0, 0.0)
            self.cycle()
            self.order("mode", 2.0)
            self.cycle()
            assert self.setpoint_w > 19_900.0, self.setpoint_w
        _, _, setpoint_w, state = MODES[self.mode]
        assert (self.state, self.active()) == (state, []), (self.state, self.active())
        assert setpoint_w is None or self.setpoint_w == setpoint_w, self.setpoint_w
        if self.mode == "peak":  # a battery that stands at the limit and not inside it
            assert abs(self.load_w - self.setpoint_w - PEAK_W) < 200.0, self.setpoint_w
        if self.mode == "following":
            assert abs(self.load_w - self.setpoint_w) < 200.0, self.setpoint_w


# ---------------------------------------------------------------- the second copy, where it depends on the mode


def wrong_way(watts: float) -> dict[str, Any]:
    """A converter that takes power while it is told to give some, or the reverse."""
    return {"pcs_w": lambda rig: -math.copysign(watts, rig.set_at_w)}


def short_by(watts: float) -> dict[str, Any]:
    """A converter that gives less than it is told."""
    return {"pcs_w": lambda rig: rig.setpoint_w - math.copysign(min(watts, abs(rig.setpoint_w)), rig.setpoint_w)}


def _beyond(watts: float) -> dict[str, Any]:
    """A converter beyond the envelope for discharge, 40 A at 700 V."""
    return {"pcs_w": 28_000.0 + watts}


OWN_NUMBERS = [
    Case("pcs_not_following", wrong_way(2001.0), 2000, 3, 5000, good=wrong_way(2000.0)),
    Case("pcs_short", short_by(8000.0), 5000, WARN, 5000, good=short_by(1499.0)),
    Case("pcs_runaway", wrong_way(3001.0), 5000, OPEN, 5000, good=wrong_way(3000.0), latched=True),
    Case("pcs_outside", _beyond(901.0), 250, ZERO, 2000, good=_beyond(900.0)),
    Case("pcs_outside_long", _beyond(901.0), 2000, 6, 2000, good=_beyond(900.0), latched=True),
    Case("soc_jump", {"soc": 0.5205}, 0, DERATE, 10_000, good={"soc": 0.5195}, share=0.5),
    Case("request_invalid", {"unit0.request_w": math.nan}, 0, WARN, 1000, good={"unit0.request_w": 1e9}),
    Case("loop_pause", {}, 0, ZERO, 500),
]
NEEDS_POWER = {"pcs_short"}  # rows that cannot be true while the setpoint is 0, or on its way there
WRONG_WAY = {"pcs_not_following", "pcs_runaway"}
STANDING = [mode for mode, row in MODES.items() if row[2] != 0.0 and mode != "stopping"]
# Of what the core itself learns of a real meter: tests/world/test_unenforced.py, tests/world/test_liars.py.
LEARNT = {"meter_older", "meter_phases"}
# Rows that weigh minutes of power: their own tests (test_witness.py, tests/world/test_battery_witness.py).
WITNESS = {"bms_stuck", "pcs_power_apart", "pcs_opposed"}
# Rows about the controller itself, each fault injected: tests/ext/cycle/test_selftest.py.
SELFTEST = {"memory_changed", "flow_broken", "clock_apart"}
REPLACED = {case.id for case in OWN_NUMBERS} | LEARNT
SCENARIO_CASES = [case for case in CASES if case.id not in REPLACED and case.nameplate_w == NAMEPLATE_W] + OWN_NUMBERS
REACTIONS = {case.id: case.reaction for case in SCENARIO_CASES} | {"soc_drift": WARN}
# Whose debounce has two sides: one cycle less than its time must do nothing.
DEBOUNCED = [case for case in SCENARIO_CASES if case.act_ms > 1]
