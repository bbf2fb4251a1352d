"""The battery as the converter's witness: power in sign and size, the step at arming, readings that stand still."""

import struct

import pytest

from tests.ext.safety.fault_rig import POINT, QUALITIES, Rig
from tests.ext.safety.gate_cases import LIMITS
from tidegate.config.faults import load_faults
from tidegate.ext.abi import program
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.ext.abi.program import BATTERY_POWERS
from tidegate.ext.safety.diagnosis import Diagnosis

ARMING, TRIPPED, RUN = (float(MODES_BY_NUMBER.index(name)) for name in ("arming", "tripped", "run"))
ENERGY_WH = 60_000.0
NAMEPLATE_W = 30_000.0


class Witness(Rig):
    """A converter and a battery whose powers the test gives, and readings that come ten times a second."""

    def __init__(self, nameplate_w: int = int(NAMEPLATE_W)) -> None:
        super().__init__(nameplate_w)
        self.pcs_w = self.pack_w = 0.0
        self.values["unit0.state"] = RUN
        self.values["unit0.setpoint_w"] = 0.0
        self.soc = 0.5
        self.counted = 0
        self.comes = True

    def put(self, name: str, value: float, quality: str = "good") -> None:
        super().put(name, value, quality)
        if name.startswith("x."):
            struct.pack_into("<I", self.image, (self.names[name] + 1) * POINT.size - 4, self.counted)

    def go(self, seconds: float, pcs_w: float, pack_w: float | None = None, *, soc: bool = True) -> list[str]:
        """Rows of the witness that were present in the last of the 100 ms cycles."""
        for _ in range(round(seconds * 10)):
            self.counted += self.comes
            self.pcs_w, self.pack_w = pcs_w, pcs_w if pack_w is None else pack_w
            self.soc -= self.pcs_w * 0.1 / (3600.0 * ENERGY_WH) if soc else 0.0
            self.given |= {"x.pcs_w": self.pcs_w, "x.pack_a": self.pack_w / 700.0, "x.soc": self.soc}
            self.cycle(100)
        return [one for one in self.present if one in ("bms_stuck", "pcs_power_apart", "pcs_opposed")]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("pack_share", "apart"), [
    (-1.0, True), (0.0, True), (0.59, True), (0.61, False), (1.0, False), (1.35, False), (1.8, True), (10.0, True),
])  # fmt: skip
def test_powers_that_differ_by_sign_or_size_are_apart(pack_share: float, apart: bool, sign: float) -> None:
    rig = Witness()
    assert rig.go(60.0, sign * 20e3) == []
    found = rig.go(60.0, sign * 20e3, sign * 20e3 * pack_share)
    assert ("pcs_power_apart" in found) == apart


def test_a_turned_sign_is_apart_within_four_seconds_and_a_small_power_never() -> None:
    rig = Witness()
    assert "pcs_power_apart" in rig.go(4.0, 20e3, -20e3)
    rig = Witness()
    assert rig.go(120.0, 700.0, -700.0) == [], "less than a twentieth of the nameplate between them"


@pytest.mark.parametrize(("apart_w", "apart"), [(490.0, False), (510.0, True)])
def test_a_small_converter_may_be_half_a_kilowatt_apart(apart_w: float, apart: bool) -> None:
    rig = Witness(4000)
    assert rig.go(60.0, 900.0) == []
    assert ("pcs_power_apart" in rig.go(120.0, 900.0, 900.0 - apart_w)) == apart


@pytest.mark.parametrize("late_s", [1, 3, 5])
@pytest.mark.parametrize("period_s", [4, 10, 20, 60, 240])
def test_a_battery_that_is_late_is_not_apart_for_long_whatever_the_load_does(late_s: int, period_s: int) -> None:
    rig, run, longest = Witness(), 0.0, 0.0
    for second in range(600):

        def power(at: int) -> float:
            return 0.0 if at < 0 else 20e3 if at % period_s < period_s / 2 else -20e3

        found = rig.go(1.0, power(second), power(second - late_s))
        run = run + 1.0 if "pcs_power_apart" in found else max(run - 0.5, 0.0)
        longest = max(longest, run)
    assert longest < 10.0, "the row's debounce, with its leak"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_battery_that_moves_against_the_step_is_opposed_and_one_that_moves_with_it_or_not_at_all_is_not(
    sign: float,
) -> None:
    for pack_share, rest_w, opposed in (
        (-0.9, 80.0, True), (-0.51, 80.0, True), (-0.49, 80.0, False), (0.9, 80.0, False), (0.0, 80.0, False),
    ):  # fmt: skip
        rig = Witness()
        rig.values["unit0.state"] = ARMING
        rig.go(5.0, -60.0, rest_w)
        rig.values["unit0.setpoint_w"] = sign * 600.0
        rig.verdict["setpoint_w"] = int(sign * 600.0)
        found = rig.go(4.0, sign * 600.0 - 60.0, sign * 600.0 * pack_share + rest_w)
        assert (found == ["pcs_opposed"]) == opposed, (pack_share, found)


def test_pulses_to_and_fro_leave_a_rest_in_which_a_late_battery_is_not_opposed() -> None:
    rig = Witness()
    rig.values["unit0.state"] = ARMING
    rig.go(5.0, 0.0)
    rig.values["unit0.setpoint_w"] = 600.0
    found: set[str] = set()
    for way, seconds in ((1.0, 3.0), (-1.0, 3.3)):  # what is left of both: -0.3 s of the pulse
        found |= set(rig.go(1.0, way * 3e3, 0.0))  # the battery shows it a second later
        found |= set(rig.go(seconds - 1.0, way * 3e3))
        found |= set(rig.go(1.0, 0.0, way * 3e3))
    rig.go(1.0, 0.0)
    found |= set(rig.go(0.8, 3e3, 0.0))
    assert "pcs_opposed" not in found
    rig = Witness()
    rig.values["unit0.state"] = ARMING
    rig.go(5.0, 0.0)
    rig.values["unit0.setpoint_w"] = 600.0
    assert "pcs_opposed" in rig.go(2.0, 3e3, -2e3), "one pulse of a turned one is enough"


FOLLOWED = {"pcs_not_following", "pcs_runaway", "pcs_outside", "pcs_outside_long"}


class Converter:
    """One unit with nothing but a converter of this `battery_power`, told 0 W within 30 kW both ways."""

    def __init__(self, battery_power: str) -> None:
        names = ("pcs_w", "battery_w")
        gate = {**LIMITS, "charge_w_max": int(NAMEPLATE_W), "discharge_w_max": int(NAMEPLATE_W)}
        unit = {**{name: name for name in names}, "battery_power": BATTERY_POWERS[battery_power], "gate": gate}
        blob = program.pack(
            {"points": [{"name": name} for name in names], "units": [unit], "faults": load_faults({}, [])[0]}
        )
        self.names = [row["name"] for row in program.rows(blob)["points"]]
        self.image = bytearray(POINT.size * len(self.names))
        self.diagnosis = Diagnosis(blob)
        self.t_ns = 10**9
        for name, value in (("setpoint_w", 0.0), ("envelope_lo_w", -10e3), ("envelope_hi_w", 10e3)):
            self.put(f"unit0.{name}", value)

    def put(self, name: str, value: float, quality: str = "good") -> None:
        POINT.pack_into(self.image, self.names.index(name) * POINT.size, value, self.t_ns, QUALITIES[quality], 1)

    def rows(self, pcs_w: float, battery_w: float, quality: str = "good") -> set[str]:
        """Rows that are present of readings that came after quiet ones."""
        for given in ((0.0, 0.0, "good"), (pcs_w, battery_w, quality)):
            self.put("pcs_w", given[0])
            self.put("battery_w", given[1], given[2])
            self.t_ns += 10**8
            found = set(self.diagnosis.step(bytes(self.image), self.t_ns, 10**8))
        return found


@pytest.mark.parametrize(("pcs_w", "judged"), [(29e3, False), (-2500.0, True), (-1900.0, False)])
def test_beyond_a_setpoint_may_be_modules_where_no_reading_is_the_batterys_and_below_it_nothing_may(
    pcs_w: float, judged: bool
) -> None:
    assert bool(Converter("none").rows(pcs_w, 0.0) & FOLLOWED) == judged
    assert bool(Converter("pcs").rows(pcs_w, 0.0) & FOLLOWED) == (abs(pcs_w) > 2000.0)


@pytest.mark.parametrize(("battery_w", "outside"), [(-10.9e3, False), (-12e3, True), (12e3, True), (10.9e3, False)])
def test_of_a_converter_that_is_told_ac_power_the_envelope_holds_its_batterys_own(
    battery_w: float, outside: bool
) -> None:
    found = Converter("battery_w").rows(0.0, battery_w)
    assert ("pcs_outside" in found) == outside and "pcs_not_following" not in found
    assert "pcs_not_following" in Converter("battery_w").rows(5000.0, 0.0)


@pytest.mark.parametrize(
    ("quality", "row"), [("never", "pcs_never"), ("stale", "pcs_stale"), ("invalid", "pcs_invalid")]
)
def test_a_battery_power_that_is_lost_is_told(quality: str, row: str) -> None:
    assert row in Converter("battery_w").rows(0.0, 0.0, quality)
    assert row not in Converter("pcs").rows(0.0, 0.0, quality)


def test_a_state_of_charge_that_stands_is_stuck_after_four_hundredths_of_the_energy() -> None:
    rig = Witness()
    whole_s = 0.04 * ENERGY_WH * 3600.0 / 20e3
    assert rig.go(whole_s - 2.0, 20e3, soc=False) == []
    assert rig.go(4.0, 20e3, soc=False) == ["bms_stuck"]
    assert rig.go(0.1, 20e3) == [], "it moves again"


def test_readings_that_stand_for_the_third_time_stay_told_until_acknowledged() -> None:
    rig = Witness()
    for activation in range(1, 4):
        rig.go(60.0, 10e3)
        rig.go(20.0, 14e3, 10e3, soc=False)
        assert rig.is_active("bms_stuck") and rig.is_latched("bms_stuck") == (activation == 3), activation
        rig.go(60.0, 10e3)
        assert not rig.is_active("bms_stuck")
    assert rig.gate.tripped


def test_near_its_ends_it_may_stand_five_times_as_long() -> None:
    for soc, power_w in ((0.97, -20e3), (0.03, 20e3)):
        rig = Witness()
        rig.soc = soc
        assert rig.go(5 * 0.04 * ENERGY_WH * 3600.0 / 20e3 - 2.0, power_w, soc=False) == []
        assert rig.go(4.0, power_w, soc=False) == ["bms_stuck"]


def test_energy_that_goes_to_and_fro_is_no_reason_to_move() -> None:
    rig = Witness()
    for _ in range(120):  # 30 s each way, the losses of 8 % taken from the grid: 5 % of the battery in an hour
        assert rig.go(30.0, 20e3, soc=False) == []
        assert rig.go(30.0, -21.7e3, soc=False) == []


@pytest.mark.parametrize(("comes", "stuck"), [(True, True), (False, False)])
def test_readings_that_all_stand_while_the_power_moves_are_stuck_after_fifteen_seconds_if_they_come(
    comes: bool, stuck: bool
) -> None:
    rig = Witness()
    rig.go(20.0, 10e3)
    rig.comes = comes
    assert rig.go(14.8, 14e3, 10e3, soc=False) == []
    assert ("bms_stuck" in rig.go(1.0, 14e3, 10e3, soc=False)) == stuck


def test_readings_that_showed_a_move_before_the_converter_told_it_may_stand_with_it() -> None:
    rig = Witness()
    rig.go(20.0, 17e3)
    assert rig.go(0.2, 17e3, 10e3) == []  # the converter's reading comes later
    assert rig.go(60.0, 10e3, 10e3, soc=False) == []
    assert "bms_stuck" in rig.go(16.0, 17e3, 10e3, soc=False), "and what stands through the next move is stuck"


def test_readings_that_stand_with_the_power_are_good() -> None:
    rig = Witness()
    rig.go(20.0, 10e3)
    for number in range(60):  # moves by less than a tenth of the nameplate
        assert rig.go(1.0, 10e3 + 2900.0 * (number % 2), 10e3, soc=False) == []


def test_a_state_of_charge_that_moves_against_the_energy_is_stuck() -> None:
    """Frames of a minute, played again and again: every value moves, and comes back."""
    rig, found, seconds = Witness(), [], 0
    while not found and seconds < 3600:
        rig.soc = 0.5 - 0.006 * (seconds % 60) / 60.0
        found = rig.go(1.0, 20e3, soc=False)
        seconds += 1
    # 15 % of the energy and the quarter that losses may be: a fifth of the battery.
    assert found == ["bms_stuck"] and seconds * 20e3 / 3600.0 <= 0.205 * ENERGY_WH, (found, seconds)
