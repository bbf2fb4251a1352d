"""Several devices behind one unit id: one slave of the program, one row each in the site file."""

from tests.config.test_compile import compiled, demo_raw
from tests.config.test_tcp_site import raw_with
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.hal.description import described

HYBRID = [
    {"map": "sunspec-113", "unit_id": 7, "role": "pv-meter", "timeout_ms": 900.0},
    {"map": "sunspec-203", "unit_id": 7, "turnaround_ms": 5.0, "sunspec_models": {"203": 40300}},
]


def slaves_of(raw, unit_id):
    rows = program.rows(compiled(raw))
    return rows, [one for one in rows["slaves"] if one["unit_id"] == unit_id]


def test_two_devices_of_one_unit_id_are_one_slave_with_the_blocks_of_both():
    rows, (slave,) = slaves_of(raw_with({"connections": 4}, *HYBRID), 7)
    names = {
        rows["points"][field["point"]]["name"].split(".")[0]
        for block in rows["blocks"][slave["block_first"] : slave["block_first"] + slave["block_count"]]
        for field in rows["fields"][block["field_first"] : block["field_first"] + block["field_count"]]
    }
    assert names == {"m0", "m1"}
    assert slave["timeout_ns"] == 900_000_000 and slave["turnaround_ns"] == 5_000_000  # the longest of both
    assert sum(one["port"] == slave["port"] for one in rows["slaves"]) == 1


def test_the_counters_of_a_slave_are_said_of_all_its_devices():
    site = described(program.describe(compiled(raw_with({}, *HYBRID, {"unit_id": 9}))))
    assert site.slave_names("lan") == ["m0 + m1", "m2"]


def test_the_same_map_twice_behind_one_id_is_refused_but_not_two_meters_of_a_chain():
    _, said = parse_site(raw_with({}, {"unit_id": 7}, {"unit_id": 7}))
    assert any("already m0's with the same map" in line for line in said)
    again = [{**HYBRID[1], "sunspec_models": {"203": at}} for at in (40300, 40407)]
    assert len(slaves_of(raw_with({}, *again), 7)[1]) == 1


def test_a_simulated_device_has_one_role():
    raw = demo_raw()
    raw["device"][1] |= {"bus": raw["device"][0]["bus"], "unit_id": raw["device"][0]["unit_id"]}
    assert any("a simulated device has one role" in line for line in parse_site(raw)[1])
