"""Several batteries behind one converter: what the gate is told of them, worked out from each one's own readings."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ext.safety.gate_cases import LIMITS
from tidegate.ext.abi import program
from tidegate.ext.estimate import bank
from tidegate.ext.safety.gate import VALID, Gate, input_from_image

POINT = struct.Struct("=dQII")
QUALITIES = {"never": 0, "good": 1, "held": 2, "stale": 3, "invalid": 4}
ONE = {
    "soc": 0.5, "soh": 0.97, "pack_v": 700.0, "pack_a": 5.0, "temp_max_c": 25.0, "temp_min_c": 20.0,
    "charge_a_max": 20.0, "discharge_a_max": 15.0, "charge_v_max": 790.0, "discharge_v_min": 610.0,
    "cell_v_max": 3.35, "cell_v_min": 3.30, "charge_ok": 1.0, "discharge_ok": 1.0, "alarm": 0.0, "warning": 0.0,
    "connected": 1.0,
}  # fmt: skip
OWN = [name for name in ONE if name != "connected"]
T_NS = 5_000_000_000


def compiled(count, without=()):
    """One unit of so many batteries; without: signals that the last one's map does not have."""
    rows, points = [], []
    for k in range(count):
        names = [name for name in ONE if k < count - 1 or name not in without]
        points += [{"name": f"b{k}.{name}"} for name in names]
        rows.append({"unit": 0, **{name: f"b{k}.{name}" for name in names}})
    points += [{"name": f"u.{name}"} for name in (*OWN, "count")] + [{"name": "p.w"}]
    unit = {**{name: f"u.{name}" for name in OWN}, "connected": "u.count", "pcs_w": "p.w", "gate": LIMITS}
    return program.pack({"points": points, "units": [unit], "bank_rows": rows})


class Bank:
    """The image of such a unit; each reading is (value, quality)."""

    def __init__(self, count, without=()):
        self.blob = compiled(count, without)
        self.names = {row["name"]: n for n, row in enumerate(program.rows(self.blob)["points"])}
        self.image = bytearray(POINT.size * len(self.names))
        self.put("p.w", 0.0)
        for k in range(count):
            for name, value in ONE.items():
                if f"b{k}.{name}" in self.names:
                    self.put(f"b{k}.{name}", value)

    def put(self, name, value, quality="good"):
        POINT.pack_into(self.image, POINT.size * self.names[name], value, T_NS, QUALITIES[quality], 1)

    def told(self):
        """What the gate is told."""
        return input_from_image(self.blob, 0, bytes(self.image))

    def point(self, name):
        """(value, quality) of the unit's own point after a cycle."""
        bank.look(self.blob, self.image, T_NS)
        value, _, quality, _ = POINT.unpack_from(self.image, POINT.size * self.names[f"u.{name}"])
        return value, quality

    def envelope(self):
        told = self.told()
        return Gate(LIMITS).envelope(**{key: value for key, value in told.items() if key not in ("arm", "ack")})[:2]


def has(told, key):
    return bool(told["valid"] & VALID[key])


@pytest.mark.parametrize("count", [2, 3, 8])
def test_so_many_times_the_weakest(count):
    rig = Bank(count)
    rig.put("b1.charge_a_max", 4.0)
    rig.put("b0.discharge_a_max", 3.0)
    told = rig.told()
    assert (told["charge_ma_max"], told["discharge_ma_max"]) == (count * 4000, count * 3000)
    assert rig.point("charge_a_max") == (count * 4.0, 1) and rig.point("discharge_a_max") == (count * 3.0, 1)
    assert rig.point("pack_a") == (count * 5.0, 1) and rig.point("count") == (float(count), 1)


def test_of_everything_else_the_worst_counts():
    rig = Bank(3)
    for name, value in (("soc", 0.2), ("temp_max_c", 41.0), ("cell_v_min", 3.1), ("pack_v", 698.0), ("warning", 4.0)):
        rig.put(f"b1.{name}", value)
    for name, value in (("soc", 0.9), ("temp_min_c", 2.0), ("cell_v_max", 3.5), ("charge_ok", 0.0), ("alarm", 8.0)):
        rig.put(f"b2.{name}", value)
    told = rig.told()
    assert (told["soc_cpct"], told["soc_spread_cpct"]) == (2000, 7000)
    assert (told["temp_max_ddegc"], told["temp_min_ddegc"]) == (410, 20)
    assert (told["cell_mv_max"], told["cell_mv_min"], told["pack_mv"]) == (3500, 3100, 698_000)
    assert (told["charge_ok"], told["discharge_ok"]) == (0, 1)
    assert rig.point("alarm")[0] == 8.0 and rig.point("warning")[0] == 4.0, "an alarm of any is one of the unit"


def test_charging_stops_by_the_fullest_and_discharging_by_the_emptiest():
    rig = Bank(2)
    rig.put("b0.soc", 0.10)
    assert rig.envelope()[1] == 0 and rig.envelope()[0] < 0
    rig.put("b0.soc", 0.5)
    rig.put("b1.soc", 0.95)
    assert rig.envelope()[0] == 0 and rig.envelope()[1] > 0


def test_open_contactors_are_not_counted_and_their_temperature_is():
    rig = Bank(3)
    rig.put("b1.connected", 0.0)
    for name, value in (("charge_a_max", 0.0), ("soc", 0.0), ("pack_v", 0.0), ("charge_ok", 0.0), ("temp_max_c", 49.0)):
        rig.put(f"b1.{name}", value)
    rig.put("b1.cell_v_min", 0.0, "stale")
    told = rig.told()
    assert (told["charge_ma_max"], told["soc_cpct"], told["charge_ok"]) == (2 * 20_000, 5000, 1)
    assert told["pack_mv"] == 700_000 and told["temp_max_ddegc"] == 490
    assert not told["required"] & ~told["valid"] & 0xFFE
    assert rig.point("count") == (2.0, 1) and rig.point("charge_a_max") == (40.0, 1) and rig.point("soc")[0] == 0.5


def test_none_connected_bears_nothing_and_is_no_fault():
    """A battery may wait for the heartbeat to close its contactors."""
    rig = Bank(2)
    for k in range(2):
        rig.put(f"b{k}.connected", 0.0)
    assert rig.envelope() == (0, 0)
    told = rig.told()
    assert not told["required"] & ~told["valid"] & 0xFFE and has(told, "soc_cpct")
    assert Gate(LIMITS).step(**{**told, "arm": 1, "request_w": 0})["heartbeat_ok"]


@pytest.mark.parametrize("quality", ["never", "stale", "invalid"])
@pytest.mark.parametrize("name", ["soc", "pack_v", "charge_a_max", "temp_max_c", "connected", "cell_v_min"])
def test_what_one_battery_has_lost_they_have_all(name, quality):
    rig = Bank(3)
    assert rig.envelope()[0] < 0 < rig.envelope()[1]
    rig.put(f"b2.{name}", float("nan"), quality)
    lo, hi = rig.envelope()
    if name == "charge_a_max":
        assert lo == 0 < hi
    elif name == "cell_v_min":
        assert hi == 0 > lo
    else:
        assert (lo, hi) == (0, 0)


@pytest.mark.parametrize(("apart_v", "believed"), [(14.0, True), (16.0, False)])
def test_batteries_side_by_side_show_one_voltage(apart_v, believed):
    rig = Bank(2)
    rig.put("b1.pack_v", 700.0 - apart_v)
    assert has(rig.told(), "pack_mv") is believed and (rig.envelope() == (0, 0)) is not believed


def test_a_signal_that_one_map_lacks_is_taken_from_the_others():
    rig = Bank(2, without=("cell_v_max", "charge_ok", "connected", "temp_min_c"))
    rig.put("b0.cell_v_max", 3.4)
    told = rig.told()
    assert told["cell_mv_max"] == 3400 and has(told, "cell_mv_max") and told["charge_ok"] == 1
    assert not told["required"] & ~told["valid"] & 0xFFE and rig.point("cell_v_max") == (3.4, 1)


def test_another_battery_in_or_out_is_no_jump_of_the_state_of_charge():
    rig = Bank(2)
    rig.put("b1.soc", 0.9)
    assert rig.point("soc") == (pytest.approx(0.7), 1) and rig.point("soc")[1] == 1
    rig.put("b1.connected", 0.0)
    assert rig.point("soc")[1] == QUALITIES["invalid"], "one cycle without: nobody compares over it"
    assert rig.point("soc") == (0.5, 1)


RANGES = {"soc": (0.0, 1.0), "charge_a_max": (-50.0, 400.0), "discharge_a_max": (-50.0, 400.0),
          "temp_max_c": (-20.0, 80.0),
          "cell_v_max": (2.0, 4.0), "cell_v_min": (2.0, 4.0), "pack_v": (695.0, 700.0)}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_battery_is_ever_asked_for_more_than_so_many_of_it_allow(data):
    """Whatever each says: the whole is no more than the connected ones times any of them, by gate and by points."""
    count = data.draw(st.integers(2, 4))
    rig = Bank(count)
    said = []
    for k in range(count):
        one = {name: data.draw(st.floats(*ends)) for name, ends in RANGES.items()}
        one["connected"] = float(data.draw(st.booleans()))
        said.append(one)
        for name, value in one.items():
            rig.put(f"b{k}.{name}", value)
    joined = [one for one in said if one["connected"]]
    told = rig.told()
    for key, name in (("charge_ma_max", "charge_a_max"), ("discharge_ma_max", "discharge_a_max")):
        for one in joined:
            assert told[key] <= max(len(joined) * one[name] * 1e3, 0.0) + 1e-6
        point, _ = rig.point(name)
        assert max(told[key], 0) == pytest.approx(max(point * 1e3, 0.0) if joined else 0.0, abs=len(joined) + 1.0)
    for one in joined:
        assert told["soc_cpct"] <= one["soc"] * 1e4 + 0.5 <= told["soc_cpct"] + told["soc_spread_cpct"] + 1.0
        assert (
            told["cell_mv_min"] <= one["cell_v_min"] * 1e3 + 0.5
            and told["cell_mv_max"] >= one["cell_v_max"] * 1e3 - 0.5
        )
    assert all(told["temp_max_ddegc"] >= one["temp_max_c"] * 10 - 0.5 for one in said)
    if not joined:
        assert rig.envelope() == (0, 0)
