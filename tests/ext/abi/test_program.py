"""The program: what pack writes, rows reads back; what is damaged, check names."""

import copy
import math
import struct

import pytest

from tidegate.ext.abi import program

SPEC = {
    "period_ns": 1_000_000,
    "snapshot_every": 10,
    "points": [
        {"name": "bms1.soc", "unit": "1", "age_max_ns": 3_000_000_000},
        {"name": "grid.power_w", "unit": "W", "device": 1},
        {"name": "pcs1.w_sf", "unit": ""},
        {"name": "pcs1.power_w", "unit": "W"},
    ],
    "site": {"grid_w": "grid.power_w"},
    "control": {"peak_w_max": 48000.0},
    "units": [
        {"name": "u1", "soc": "bms1.soc", "energy_wh": 60000.0, "gate": {"charge_w_max": 30000, "soc_max_cpct": 9500}}
    ],
    "faults": {3: {"reaction": 4, "debounce_ms": 100}},
    "can_frames": [
        {"id": 0x355, "len_min": 4, "fields": [{"point": "bms1.soc", "start": 0, "length": 16, "scale": 0.01}]}
    ],
    "can_tx": [{"id": 0x305, "data": bytes(8), "period_ns": 1_000_000_000}],
    "ports": [
        {"name": "a", "slaves": [{"unit_id": 1, "blocks": [
            {"function": 4, "address": 0x34, "count": 2, "fields": [
                {"point": "grid.power_w", "type": program.FIELD_TYPES["f32"]}]}]}]},
        {"name": "b", "baud": 115200, "parity": "E", "slaves": [{"unit_id": 1, "blocks": [
            {"address": 100, "count": 3, "fields": [
                {"point": "pcs1.power_w", "type": 1, "flags": 8, "sf_point": "pcs1.w_sf"},
                {"point": "pcs1.w_sf", "type": program.FIELD_TYPES["sunssf"], "offset": 2}]}],
            "commands": [{"kind": program.COMMAND_KINDS["setpoint_w"], "address": 24, "type": 3, "unit": 0}]}]},
    ],
    "describe": {"site": "test"},
}  # fmt: skip


def changed(**places):
    """SPEC with one dotted place replaced; a number in the path is a list index."""
    spec = copy.deepcopy(SPEC)
    for path, value in places.items():
        *parents, last = path.split("__")
        at = spec
        for step in parents:
            at = at[int(step) if step.isdigit() else step]
        at[int(last) if last.isdigit() else last] = value
    return spec


def test_rows_gives_back_what_pack_was_given():
    found = program.rows(program.pack(SPEC))
    base = len(program.standard_points(1))
    assert [row["name"] for row in found["points"][base:]] == ["bms1.soc", "grid.power_w", "pcs1.w_sf", "pcs1.power_w"]
    assert found["site"]["grid_w"] == base + 1 and found["site"]["grid_w_l"] == [-1, -1, -1]
    assert found["units"][0]["name"] == "u1" and found["units"][0]["soc"] == base and found["units"][0]["soh"] == -1
    assert found["units"][0]["gate"]["charge_w_max"] == 30000
    assert found["control"]["peak_w_max"] == 48000.0 and math.isinf(found["control"]["connection_import_w_max"])
    assert found["faults"][3]["reaction"] == 4 and found["faults"][2]["reaction"] == 0
    assert found["can_frames"][0]["field_count"] == 1 and found["can_fields"][0]["point"] == base
    assert [row["slave_first"] for row in found["ports"]] == [0, 1] and found["ports"][1]["parity"] == "E"
    assert found["blocks"][1]["slave"] == 1 and found["blocks"][1]["field_first"] == 1
    assert found["fields"][1]["sf_point"] == base + 2 and found["fields"][0]["sf_point"] == -1
    assert found["commands"][0]["count"] == 2 and found["commands"][0]["slave"] == 1
    assert found["can_tx"][0]["len"] == 8 and found["n_can_buses"] == 1


def test_the_image_starts_with_the_rows_of_site_and_units():
    names = [name for name, _ in program.standard_points(2)]
    assert names[0] == "site.grid_w" and "unit1.setpoint_w" in names and len(names) == len(set(names))


def test_describe_carries_points_and_hash():
    blob = program.pack(SPEC)
    found = program.describe(blob)
    assert found["site"] == "test" and found["sha256"] == program.sha256(blob) and len(found["sha256"]) == 64
    assert found["points"][-1] == {"name": "pcs1.power_w", "unit": "W", "device": -1}


def test_equal_sites_give_equal_bytes_and_any_change_another_hash():
    assert program.pack(SPEC) == program.pack(copy.deepcopy(SPEC))
    other = changed(control__peak_w_max=48001.0)
    assert program.sha256(program.pack(other)) != program.sha256(program.pack(SPEC))


@pytest.mark.parametrize("position", [0, 4, 8, 12, 20, 60, 200, program.SIZE // 2, program.SIZE - 1, program.SIZE + 3])
def test_any_flipped_bit_is_noticed(position):
    blob = bytearray(program.pack(SPEC))
    blob[position] ^= 1
    assert program.check(bytes(blob))


@pytest.mark.parametrize("size", [0, 1, 100, program.SIZE - 1, program.SIZE, program.SIZE + 5])
def test_a_cut_program_is_refused(size):
    assert program.check(program.pack(SPEC)[:size])


def test_another_layout_version_is_named():
    blob = bytearray(program.pack(SPEC))
    struct.pack_into("=I", blob, 4, 99)
    assert "version 99" in program.check(bytes(blob))[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"site__grid_w": 4000}, "point of the site"),
        ({"units__0__soc": 4000}, "storage unit"),
        ({"units__0__energy_wh": math.nan}, "storage unit"),
        ({"units__0__gate__charge_w_max": -1}, "contradict"),
        ({"control__peak_w_max": math.nan}, "not a number"),
        ({"control__connection_import_w_max": -1.0}, "not a number"),
        ({"period_ns": 100}, "period"),
        ({"snapshot_every": 0}, "period"),
        ({"can_frames__0__bus": 3, "n_can_buses": 1}, "CAN frame"),
        ({"can_frames__0__fields__0__scale": 0.0}, "CAN signal"),
        ({"can_frames__0__fields__0__length": 65}, "CAN signal"),
        ({"can_frames__0__fields__0__min": math.nan}, "CAN signal"),
        ({"can_tx__0__period_ns": 0}, "cyclic"),
        ({"can_tx__0__unit": 5}, "cyclic"),
        ({"ports__0__parity": "X"}, "a port with settings"),
        ({"ports__0__slaves__0__unit_id": 0}, "slave"),
        ({"ports__0__slaves__0__unit_id": 248}, "slave"),
        ({"ports__0__slaves__0__blocks__0__count": 126}, "block"),
        ({"ports__0__slaves__0__blocks__0__address": 65535}, "block"),
        ({"ports__0__slaves__0__blocks__0__function": 6}, "block"),
        ({"ports__0__slaves__0__blocks__0__fields__0__offset": 1}, "field"),
        ({"ports__0__slaves__0__blocks__0__fields__0__scale": math.inf}, "field"),
        ({"ports__1__slaves__0__blocks__0__fields__0__sf_point": -1}, "field"),
        ({"ports__1__slaves__0__commands__0__unit": -1}, "command"),
        ({"ports__1__slaves__0__commands__0__count": 1}, "command"),
        ({"ports__1__slaves__0__commands__0__function": 3}, "command"),
        ({"faults": {3: {"reaction": 9}}}, "fault table"),
        ({"points__0__name": "x" * 48}, "at most 47"),
        ({"points__1__name": "bms1.soc"}, "taken"),
        ({"site__grid_w": "grid.missing_w"}, "grid.missing_w"),
        ({"site__grid_watt": 1}, "unknown field 'grid_watt'"),
        ({"perod_ns": 1}, "unknown key 'perod_ns'"),
        ({"points": [{"name": f"p{i}"} for i in range(2000)]}, "room"),
    ],
)
def test_a_row_that_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        program.pack(changed(**change))


def test_check_survives_any_damage_and_never_calls_it_good():
    """Random bytes anywhere, the hash made to fit: check gives sentences, or the program keeps its bounds."""
    import hashlib
    import random

    good = program.pack(SPEC)
    seed = 7
    chance = random.Random(seed)
    refused = 0
    for _ in range(3000):
        blob = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            blob[chance.randrange(48, len(blob))] = chance.randrange(256)
        blob[16:48] = hashlib.sha256(blob[48:]).digest()
        said = program.check(bytes(blob))
        refused += bool(said)
        if not said:
            rows = program.rows(bytes(blob))
            for field in rows["fields"]:
                assert 0 <= field["point"] < len(rows["points"]), seed
            for block in rows["blocks"]:
                assert block["field_first"] + block["field_count"] <= len(rows["fields"]), seed
    assert refused > 0
