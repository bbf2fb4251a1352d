"""One unit behind its gate without a bus: the test sets readings, time runs as fast as it is told to.

The PCS follows its setpoint unless told otherwise. All numbers that the cases expect are written down here a second
time, on purpose: a number changed in config/faults.toml alone must turn a test red.
"""

import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.ext.safety.gate_cases import LIMITS
from tidegate.config.faults import load_faults
from tidegate.ext.abi import program
from tidegate.ext.safety.diagnosis import FAULT_IDS, Diagnosis
from tidegate.ext.safety.gate import VALID, Gate, input_from_image

POINT = struct.Struct("=dQII")
QUALITIES = {"never": 0, "good": 1, "held": 2, "stale": 3, "invalid": 4}
MS = 1_000_000

BMS = {
    "soc": 0.5, "soh": 0.97, "pack_v": 700.0, "pack_a": 0.0, "temp_max_c": 25.0, "temp_min_c": 20.0,
    "charge_a_max": 50.0, "discharge_a_max": 40.0, "charge_v_max": 790.0, "discharge_v_min": 610.0,
    "cell_v_max": 3.35, "cell_v_min": 3.30, "charge_ok": 1.0, "discharge_ok": 1.0, "alarm": 0.0, "warning": 0.0,
}  # fmt: skip
PCS = {"pcs_w": 0.0, "pcs_state": 4.0, "pcs_fault": 0.0, "pcs_ready": 1.0, "dc_v": 700.0, "dc_a": 0.0}
PCS |= {"pcs_revert_s": 2.0}
SITE = {"grid_w": 10_000.0, "pv_w": 0.0}
CONTACTS = {"door": 0.0, "smoke": 0.0, "estop": 0.0, "relay": 0.0, "dim": 0.0}
INPUTS = [{"point": f"x.{name}", "what": 3 + i} for i, name in enumerate(("door", "smoke", "estop"))]
INPUTS += [{"point": "x.relay", "what": 1}, {"point": "x.dim", "what": 2, "import_w_max": 4200.0}]
OWN = {"site.shortfall_w": 0.0, "site.loop_escalation": 0.0, "site.can_state": 0.0, "site.can_unsent": 0.0}
OWN |= {"unit0.step_test": 0.0, "unit0.write_wait_s": 0.0, "site.grid_answer": 1.0, "site.grid_age_lo_s": 0.0}
OWN |= {"site.meter_verdict": 0.0}
# Readings whose loss the BMS and PCS rows watch over: state of health is too slow, DC values have rows of their own.
BMS_WATCHED = [name for name in BMS if name not in ("soh", "charge_v_max", "discharge_v_min")]
PCS_WATCHED = ["pcs_w", "pcs_state", "pcs_fault", "pcs_ready"]


@cache
def site(nameplate_w: int = 30_000) -> bytes:
    """A compiled site of one unit with every signal that a map can have."""
    gate = {**LIMITS, "charge_w_max": nameplate_w, "discharge_w_max": nameplate_w}
    gate |= {"charge_ma_max": 2_000_000, "discharge_ma_max": 2_000_000}
    rows, _ = load_faults({}, [])
    return program.pack(
        {
            "points": [{"name": f"x.{name}"} for name in (*BMS, *PCS, *SITE, *CONTACTS)],
            "inputs": INPUTS,
            "units": [{**{name: f"x.{name}" for name in (*BMS, *PCS)}, "energy_wh": 60_000.0, "gate": gate}],
            "site": {name: f"x.{name}" for name in SITE},
            "control": {"meter_latency_s_max": 0.1},
            "faults": rows,
        }
    )


class Rig:
    def __init__(self, nameplate_w: int = 30_000) -> None:
        self.blob = site(nameplate_w)
        described = program.rows(self.blob)
        self.names = {row["name"]: number for number, row in enumerate(described["points"])}
        self.gate = Gate(described["units"][0]["gate"], dict(enumerate(described["faults"])))
        self.diagnosis = Diagnosis(self.blob)
        self.values: dict[str, float] = {
            f"x.{name}": value for name, value in (BMS | PCS | SITE | CONTACTS).items()
        } | OWN
        self.given: dict[str, float | str] = {}  # what the test says instead
        self.stamps: dict[str, int] = {}  # age of a reading in ms, where it matters
        self.request_w = 0.0
        self.t_ns = 10**9
        self.cycles = 0
        self.present: list[str] = []
        self.verdict: dict[str, int] = {"setpoint_w": 0, "envelope_lo_w": 0, "envelope_hi_w": 0}
        self.image = bytearray(POINT.size * len(self.names))
        for name in ("request_w", "setpoint_w", "envelope_lo_w", "envelope_hi_w"):
            self.put(f"unit0.{name}", float("nan"), "never")

    def put(self, name: str, value: float, quality: str = "good") -> None:
        t_ns = self.t_ns - self.stamps.get(name, 0) * MS
        POINT.pack_into(self.image, self.names[name] * POINT.size, value, t_ns, QUALITIES[quality], 0)

    def cycle(self, dt_ms: int = 1, **orders: int) -> dict[str, int]:
        """One cycle of dt_ms; returns the verdict."""
        self.t_ns += dt_ms * MS
        self.values["x.pcs_w"] = self.verdict["setpoint_w"]
        self.values["x.pack_a"] = self.values["x.dc_a"] = self.verdict["setpoint_w"] / self.values["x.pack_v"]
        self.cycles += 1
        self.values["x.grid_w"] = 10_000.0 + self.cycles % 2  # moves a little, as meters do
        for name, value in self.values.items():
            given = self.given.get(name, value)
            if isinstance(given, str):
                self.put(name, float("nan") if given == "never" else value, given)
            else:
                self.put(name, given)
        self.present = self.diagnosis.step(bytes(self.image), self.t_ns, dt_ms * MS)
        bits = sum(1 << FAULT_IDS.index(one) for one in self.present)
        inputs: dict[str, Any] = input_from_image(self.blob, 0, bytes(self.image))
        inputs |= {"request_w": int(self.request_w), "dt_us": dt_ms * 1000, "faults": bits, **orders}
        inputs["valid"] |= VALID["request_w"]
        self.inputs = inputs
        self.verdict = self.gate.step(**inputs)
        self.put("unit0.request_w", self.request_w)
        for name in ("setpoint_w", "envelope_lo_w", "envelope_hi_w"):
            self.put(f"unit0.{name}", self.verdict[name])
        return self.verdict

    def run(self, ms: int, step_ms: int = 200) -> None:
        """Cycles of at most step_ms for ms altogether."""
        while ms > 0:
            self.cycle(min(ms, step_ms))
            ms -= min(ms, step_ms)

    def set(self, **readings: float | str) -> None:
        """Readings of the unit by their short name: a number, or a quality."""
        for name, value in readings.items():
            self.given[name if "." in name else f"x.{name}"] = value

    def clear(self) -> None:
        self.given = {}

    def is_active(self, ident: str) -> bool:
        return bool(self.verdict["active"] >> FAULT_IDS.index(ident) & 1)

    def is_latched(self, ident: str) -> bool:
        return bool(self.verdict["latched"] >> FAULT_IDS.index(ident) & 1)

    def active(self) -> list[str]:
        return [ident for ident in FAULT_IDS if self.is_active(ident)]


def running(request_w: float = 20_000.0, nameplate_w: int = 30_000) -> Rig:
    """A rig that has been armed and gives request_w."""
    rig = Rig(nameplate_w)
    rig.cycle()
    rig.run(1000)
    rig.cycle(arm=1)
    assert not rig.gate.tripped, rig.active()
    rig.request_w = request_w
    rig.run(30_000)  # until the bands about the converter have closed
    assert rig.active() == [] and rig.verdict["setpoint_w"] == request_w, (rig.active(), rig.verdict)
    return rig


@dataclass
class Case:
    """What a row must do, written down independently of the table."""

    id: str
    bad: dict[str, float | str]  # readings that bring it, just beyond the edge
    act_ms: int
    reaction: int
    clear_ms: int
    good: dict[str, float | str] = field(default_factory=dict)  # readings just short of the edge
    latched: bool = False
    flaps: int = 0  # activations until it latches
    share: float = 1.0  # of the envelope that a derating leaves
    request_w: float = 20_000.0
    nameplate_w: int = 30_000

    def __str__(self) -> str:
        return f"{self.id}-{self.nameplate_w // 1000}kW{self.request_w:+.0f}W"


WARN, DERATE, RAMP_ZERO, ZERO, SILENT, OPEN = range(1, 7)

CASES = [
    Case("bms_never", {"soc": "never"}, 0, SILENT, 500),
    Case("bms_stale", {"soc": "stale"}, 0, ZERO, 100, good={"soc": "held"}, flaps=6),
    Case("bms_silent", {"soc": "stale"}, 500, SILENT, 1000, good={"soc": "held"}, latched=True),
    Case("bms_invalid", {"warning": "invalid"}, 200, ZERO, 100, flaps=6),
    Case("bms_warning", {"warning": 1.0}, 0, DERATE, 1000, share=0.5),
    Case("bms_alarm", {"alarm": 4.0}, 0, ZERO, 1000, latched=True),
    Case("bms_inhibit", {"charge_ok": 0.0, "discharge_ok": 0.0}, 0, WARN, 100, good={"charge_ok": 0.0}),
    Case("bms_inhibit", {"charge_a_max": 0.0, "discharge_a_max": 0.0}, 0, WARN, 100, good={"discharge_a_max": 0.0}),
    Case("dc_v_mismatch", {"dc_v": 714.5}, 500, DERATE, 5000, good={"dc_v": 714.0}, share=0.5),
    Case("dc_v_mismatch", {"dc_v": 105.1, "pack_v": 100.0}, 500, DERATE, 5000, share=0.5, request_w=2000.0,
         good={"dc_v": 104.9, "pack_v": 100.0}),
    Case("dc_a_mismatch", {"dc_a": 5.1, "pack_a": 0.0}, 2000, DERATE, 5000, share=0.5,
         good={"dc_a": 4.9, "pack_a": 0.0}),
    Case("dc_a_mismatch", {"dc_a": 1031.0, "pack_a": 1000.0}, 2000, DERATE, 5000, share=0.5,
         good={"dc_a": 1030.0, "pack_a": 1000.0}),
    Case("dc_mismatch_long", {"dc_v": 714.5}, 5000, RAMP_ZERO, 5000, good={"dc_v": 714.0}),
    Case("dc_mismatch_long", {"dc_a": 5.1, "pack_a": 0.0}, 5000, RAMP_ZERO, 5000, good={"dc_a": 4.9, "pack_a": 0.0}),
    Case("soc_low", {"soc": 0.0799}, 1000, WARN, 10_000, good={"soc": 0.0801}),
    Case("soc_high", {"soc": 0.9701}, 1000, WARN, 10_000, good={"soc": 0.9699}),
    Case("temp_high_warn", {"temp_max_c": 50.1}, 1000, WARN, 10_000, good={"temp_max_c": 49.9}),
    Case("temp_high_stop", {"temp_max_c": 55.1}, 100, ZERO, 10_000, good={"temp_max_c": 54.9}, flaps=6),
    Case("temp_high_trip", {"temp_max_c": 60.1}, 100, OPEN, 10_000, good={"temp_max_c": 59.9}, latched=True),
    Case("temp_low_warn", {"temp_min_c": 2.9}, 1000, WARN, 10_000, good={"temp_min_c": 3.1}),
    Case("temp_low_stop", {"temp_min_c": -0.1}, 100, ZERO, 10_000, good={"temp_min_c": 0.1}, flaps=6),
    Case("temp_low_trip", {"temp_min_c": -10.1}, 100, SILENT, 10_000, good={"temp_min_c": -9.9}, latched=True),
    Case("cell_high_warn", {"cell_v_max": 3.5805}, 500, WARN, 5000, good={"cell_v_max": 3.5795}),
    Case("cell_high_stop", {"cell_v_max": 3.6005}, 50, DERATE, 5000, good={"cell_v_max": 3.5995}, share=0.5),
    Case("cell_high_trip", {"cell_v_max": 3.6505}, 50, OPEN, 5000, good={"cell_v_max": 3.6495}, latched=True),
    Case("cell_low_warn", {"cell_v_min": 2.8495}, 500, WARN, 5000, good={"cell_v_min": 2.8505}),
    Case("cell_low_stop", {"cell_v_min": 2.7995}, 50, DERATE, 5000, good={"cell_v_min": 2.8005}, share=0.5),
    Case("cell_low_trip", {"cell_v_min": 2.5995}, 50, OPEN, 5000, good={"cell_v_min": 2.6005}, latched=True),
    Case("pack_v_high", {"pack_v": 795.1, "dc_v": 795.1}, 200, ZERO, 5000, good={"pack_v": 794.9, "dc_v": 794.9}),
    Case("pack_v_low", {"pack_v": 604.9, "dc_v": 604.9}, 200, ZERO, 5000, good={"pack_v": 605.1, "dc_v": 605.1}),
    Case("pcs_never", {"pcs_state": "never"}, 0, ZERO, 500),
    Case("pcs_stale", {"pcs_state": "stale"}, 0, ZERO, 100, good={"pcs_state": "held"}, flaps=6),
    Case("pcs_lost", {"pcs_state": "stale"}, 4000, OPEN, 1000, latched=True),
    Case("pcs_invalid", {"pcs_state": "invalid"}, 200, ZERO, 100, flaps=6),
    Case("pcs_fault", {"pcs_fault": 16.0}, 0, ZERO, 1000, flaps=3),
    Case("pcs_not_ready", {"pcs_ready": 0.0}, 0, ZERO, 1000, flaps=6),
    Case("pcs_not_following", {"pcs_w": 22_001.0}, 2000, RAMP_ZERO, 5000, good={"pcs_w": 22_000.0}, flaps=3),
    Case("pcs_not_following", {"pcs_w": -22_001.0}, 2000, RAMP_ZERO, 5000, good={"pcs_w": -22_000.0},
         request_w=-20_000.0, flaps=3),
    Case("pcs_not_following", {"pcs_w": -2001.0}, 2000, RAMP_ZERO, 5000, good={"pcs_w": -2000.0}, flaps=3),
    Case("pcs_not_following", {"pcs_w": 2001.0}, 2000, RAMP_ZERO, 5000, good={"pcs_w": 2000.0},
         request_w=-20_000.0, flaps=3),
    Case("pcs_not_following", {"pcs_w": 25_001.0}, 2000, RAMP_ZERO, 5000, good={"pcs_w": 25_000.0},
         nameplate_w=100_000, flaps=3),
    Case("pcs_short", {"pcs_w": 18_499.0}, 5000, WARN, 5000, good={"pcs_w": 18_500.0}),
    Case("pcs_short", {"pcs_w": -18_499.0}, 5000, WARN, 5000, good={"pcs_w": -18_500.0}, request_w=-20_000.0),
    Case("pcs_short", {"pcs_w": 0.0}, 5000, WARN, 5000, good={"pcs_w": 14_999.0}, request_w=15_000.0),
    Case("pcs_short", {"pcs_w": 1499.0}, 5000, WARN, 5000, good={"pcs_w": 1500.0}, request_w=2000.0, nameplate_w=5000),
    Case("pcs_runaway", {"pcs_w": 2001.0}, 5000, OPEN, 5000, good={"pcs_w": 2000.0}, request_w=0.0, latched=True,
         nameplate_w=10_000),
    Case("pcs_runaway", {"pcs_w": -10_001.0}, 5000, OPEN, 5000, good={"pcs_w": -10_000.0}, request_w=0.0,
         latched=True, nameplate_w=100_000),
    Case("pcs_outside", {"pcs_w": 28_901.0}, 250, ZERO, 2000, good={"pcs_w": 28_900.0}),
    Case("pcs_outside", {"pcs_w": -30_901.0}, 250, ZERO, 2000, good={"pcs_w": -30_900.0}),
    Case("pcs_outside", {"pcs_w": 10_501.0}, 250, ZERO, 2000, good={"pcs_w": 10_500.0}, request_w=10_000.0,
         nameplate_w=10_000),
    Case("pcs_outside_long", {"pcs_w": 28_901.0}, 2000, OPEN, 2000, good={"pcs_w": 28_900.0}, latched=True),
    Case("pcs_outside_long", {"pcs_w": 10_501.0}, 2000, OPEN, 2000, good={"pcs_w": 10_500.0}, request_w=10_000.0,
         nameplate_w=10_000, latched=True),
    Case("meter_never", {"grid_w": "never"}, 0, ZERO, 500),
    Case("meter_stale", {"grid_w": "stale"}, 0, ZERO, 200, good={"grid_w": "held"}, flaps=6),
    Case("meter_invalid", {"grid_w": "invalid"}, 100, ZERO, 200, flaps=6),
    Case("pv_lost", {"pv_w": "stale"}, 1000, WARN, 1000, good={"pv_w": "held"}),
    Case("grid_over_limit", {"site.shortfall_w": 101.0}, 1000, WARN, 1000, good={"site.shortfall_w": 100.0}),
    Case("loop_late", {"site.loop_escalation": 1.0}, 0, DERATE, 1000, share=0.5),
    Case("loop_unsafe", {"site.loop_escalation": 2.0}, 0, RAMP_ZERO, 5000, good={"site.loop_escalation": 1.0}, flaps=6),
    Case("pcs_step_failed", {"unit0.step_test": 2.0}, 0, ZERO, 500, good={"unit0.step_test": 1.0}, latched=True),
    Case("grid_unmoved", {"site.grid_answer": 2.0}, 0, ZERO, 500, good={"site.grid_answer": 1.0}, latched=True),
    Case("meter_stuck", {"site.meter_verdict": 1.0}, 0, ZERO, 1000, good={"site.meter_verdict": 2.0}, flaps=6),
    Case("grid_unproven", {"site.grid_answer": 3.0}, 0, WARN, 500, good={"site.grid_answer": 1.0}),
    Case("meter_older", {"site.grid_age_lo_s": 0.151}, 2000, WARN, 5000, good={"site.grid_age_lo_s": 0.149}),
    Case("pcs_watchdog", {"pcs_revert_s": 0.0}, 1000, ZERO, 1000, good={"pcs_revert_s": 1.0}),
    Case("pcs_watchdog", {"pcs_revert_s": "invalid"}, 1000, ZERO, 1000),
    Case("pcs_watchdog", {"pcs_revert_s": "never"}, 1000, ZERO, 1000),
    Case("pcs_watchdog", {"pcs_revert_s": "stale"}, 1000, ZERO, 1000),
    Case("pcs_watchdog", {"pcs_revert_s": 60.1}, 1000, ZERO, 1000, good={"pcs_revert_s": 60.0}),
    Case("pcs_write_lost", {"unit0.write_wait_s": 0.501}, 0, SILENT, 1000, good={"unit0.write_wait_s": 0.499}, flaps=6),
    Case("can_passive", {"site.can_state": 2.0}, 0, DERATE, 1000, good={"site.can_state": 1.0}, share=0.5),
    Case("can_off", {"site.can_state": 3.0}, 0, ZERO, 1000, good={"site.can_state": 1.0}, flaps=6),
    Case("can_off", {"site.can_state": 4.0}, 0, ZERO, 1000, good={"site.can_state": 1.0}, flaps=6),
    Case("can_unsent", {"site.can_unsent": 4.0}, 0, RAMP_ZERO, 1000, good={"site.can_unsent": 3.0}, flaps=6),
    Case("input_lost", {"door": "stale"}, 200, ZERO, 1000, good={"door": "held"}, flaps=6),
    Case("input_lost", {"smoke": "invalid"}, 200, ZERO, 1000, flaps=6),
    Case("input_lost", {"estop": "never"}, 200, ZERO, 1000, flaps=6),
    Case("door_open", {"door": 1.0}, 100, RAMP_ZERO, 2000, good={"door": 0.0}),
    Case("smoke", {"smoke": 1.0}, 50, OPEN, 5000, good={"smoke": 0.0}, latched=True),
    Case("estop", {"estop": 1.0}, 0, OPEN, 1000, good={"estop": 0.0}, latched=True),
    Case("loop_silent", {"site.loop_escalation": 3.0}, 0, SILENT, 5000, good={"site.loop_escalation": 2.0}, flaps=3),
]  # fmt: skip

# What each hazard allows before the controller must act, in ms: no table and no site may be slower.
AT_MOST_MS = {
    0: "bms_never bms_alarm soc_jump soc_drift pcs_never meter_never loop_late loop_unsafe "
       "loop_silent loop_pause request_invalid pcs_step_failed latches_lost meter_stuck grid_unmoved grid_unproven "
       "memory_changed flow_broken clock_apart meter_phases",
    20: "estop",
    100: "bms_stale pcs_stale pcs_fault meter_stale can_off",
    200: "bms_invalid cell_high_trip cell_low_trip",
    300: "meter_invalid",
    500: "temp_high_trip cell_high_stop cell_low_stop pack_v_high pack_v_low pcs_invalid pcs_not_ready "
       "pcs_outside input_lost smoke",
    1000: "door_open bms_silent bms_warning bms_inhibit temp_high_stop temp_low_stop temp_low_trip "
       "pcs_write_lost can_passive can_unsent",
    2000: "dc_v_mismatch pcs_opposed",
    3000: "pcs_not_following pcs_outside_long",
    4000: "pcs_lost",
    5000: "bms_stuck dc_a_mismatch cell_high_warn cell_low_warn",
    6000: "pcs_runaway",
    10000: "dc_mismatch_long soc_low soc_high temp_high_warn temp_low_warn pv_lost grid_over_limit meter_older",
    15000: "pcs_power_apart",
    60000: "pcs_watchdog pcs_short",
}  # fmt: skip

# Debounce and clear time of the rows whose tests are not by case.
OWN_TIMES_MS = {
    "soc_jump": (0, 10_000), "soc_drift": (0, 1000), "loop_pause": (0, 500),
    "request_invalid": (0, 1000), "latches_lost": (0, 1),
    "memory_changed": (0, 1000), "flow_broken": (0, 1000), "clock_apart": (0, 5000),
    "meter_phases": (0, 500),
    "bms_stuck": (1000, 10_000), "pcs_power_apart": (10_000, 10_000), "pcs_opposed": (500, 1000),
}  # fmt: skip
