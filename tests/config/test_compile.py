"""A site becomes a program: points, decode rows, poll plan, roles."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import Site, SiteError, load_site, parse_site
from tidegate.ext.abi import program

DEMO = files("tidegate.config").joinpath("demo/site.toml")


def demo_raw():
    return tomllib.loads(DEMO.read_text(encoding="utf-8"))


def compiled(raw):
    site, problems = parse_site(raw)
    assert not problems, problems
    return compile_site(site)


def refused(raw):
    """The problems of a site that must be refused, from whichever stage finds them."""
    site, problems = parse_site(raw)
    if problems:
        return problems
    with pytest.raises(SiteError) as caught:
        compile_site(site)
    return caught.value.problems


@pytest.fixture(scope="module")
def demo():
    blob = compile_site(load_site(str(DEMO)))
    return program.rows(blob), program.describe(blob)


def index(rows, name):
    return [row["name"] for row in rows["points"]].index(name)


def test_demo_site_compiles_to_a_program_that_passes_check():
    assert program.check(compile_site(load_site(str(DEMO)))) == []


def test_same_site_gives_same_bytes():
    assert compiled(demo_raw()) == compiled(demo_raw())


def test_roles_become_indices(demo):
    rows, _ = demo
    unit = rows["units"][0]
    assert rows["site"]["grid_w"] == index(rows, "grid.power_w")
    assert unit["soc"] == index(rows, "bms1.soc") and unit["pcs_w"] == index(rows, "pcs1.power_w")
    assert unit["pcs_ready"] == index(rows, "pcs1.ready") and unit["dc_v"] == -1


def test_limits_reach_the_gate_as_integers_never_wider(demo):
    gate = demo[0]["units"][0]["gate"]
    assert gate["charge_w_max"] == 30000 and gate["soc_min_cpct"] == 1000 and gate["soc_max_cpct"] == 9500
    raw = demo_raw()
    raw["storage"][0].update(soc_min=0.10001, soc_max=0.94999, charge_w_max=29999.9, temp_max_c=49.99)
    gate = program.rows(compiled(raw))["units"][0]["gate"]
    assert gate["soc_min_cpct"] == 1001 and gate["soc_max_cpct"] == 9499
    assert gate["charge_w_max"] == 29999 and gate["temp_max_ddegc"] == 499


def test_a_limit_that_is_left_out_is_infinite():
    raw = demo_raw()
    del raw["limits"]["connection_export_w_max"]
    assert program.rows(compiled(raw))["control"]["connection_export_w_max"] == float("inf")


def test_every_field_lies_in_its_block_and_every_block_of_a_slave_has_its_own_length(demo):
    rows, _ = demo
    for slave in range(len(rows["slaves"])):
        own = [b for b in rows["blocks"] if b["slave"] == slave and not b["signature"]]
        lengths = [(b["function"], b["count"]) for b in own]
        assert len(lengths) == len(set(lengths))


def test_sunspec_block_starts_with_the_model_number(demo):
    rows, _ = demo
    fast = [b for b in rows["blocks"] if b["signature_word"] == 701]
    assert fast and fast[0]["signature"] == 1 and fast[0]["poll_class"] == program.POLL_CLASSES["fast"]
    assert fast[0]["count"] == 11, "from the word that signs the model to the last fast value"
    assert [b["count"] for b in rows["blocks"] if b["slave"] == fast[0]["slave"] and b["factors"]] == [6]


def test_fast_blocks_of_the_grid_meter_poll_as_often_as_the_wire_allows(demo):
    rows, said = demo
    fast = rows["blocks"][0]
    assert fast["period_ns"] == 0 and fast["count"] == 2
    round_us = next(plan for plan in said["plan"] if plan["port"] == "meters")["round_us"]
    # 8 + 9 bytes of 10 bits at 115200 baud and two silences of 1750 us, plus what the timed polls take
    assert 4976 <= round_us <= 4976 / (1 - 0.1)


def test_setup_commands_come_before_the_setpoint(demo):
    kinds = [row["kind"] for row in demo[0]["commands"]]
    setpoint = kinds.index(program.COMMAND_KINDS["setpoint_w"])
    assert all(kind == program.COMMAND_KINDS["const"] for kind in kinds[:setpoint]) and setpoint == 7


def test_inverted_meter_turns_power_and_swaps_energies():
    raw = demo_raw()
    raw["device"][0]["invert"] = True
    rows = program.rows(compiled(raw))
    at = {rows["points"][f["point"]]["name"]: (b["address"] + f["offset"], f["scale"])
          for b in rows["blocks"] if b["slave"] == 0 for f in
          rows["fields"][b["field_first"]:b["field_first"] + b["field_count"]]}  # fmt: skip
    assert at["grid.power_w"] == (0x34, -1.0) and at["grid.power_l1_w"] == (0x0C, -1.0)
    assert at["grid.export_wh"] == (0x48, 1000.0) and at["grid.import_wh"] == (0x4A, 1000.0)
    assert at["grid.voltage_l1_v"] == (0x00, 1.0)


def test_charge_counts_negative_whatever_the_bms_says(demo):
    rows, _ = demo
    current = next(f for f in rows["can_fields"] if rows["points"][f["point"]]["name"] == "bms1.pack_a")
    assert current["scale"] == pytest.approx(-0.1)


def test_ages_follow_the_frame_period(demo):
    rows, _ = demo
    ages = {row["name"]: row["age_max_ns"] for row in rows["points"]}
    assert ages["bms1.soc"] == 300_000_000 and ages["pcs1.m701_w_sf"] == ages["pcs1.power_w"]


def test_describe_tells_the_others_what_they_need(demo):
    _, said = demo
    assert {node["role"] for node in said["nodes"]} == {"grid", "cooling", "ess"}
    assert said["units"][0]["name"] == "cabinet" and said["simulation"]["seed"] == 1 and said["simulated"]
    assert [port["name"] for port in said["ports"]] == ["meters", "pcs"] and said["can"][0]["name"] == "bms"
    assert said["snapshot_every"] == 100 and said["site"]["timezone"] == "Europe/London"


def test_overloaded_bus_says_what_to_slow_down_and_by_how_much():
    raw = demo_raw()
    raw["serial"][0]["baud"] = 9600
    for device in raw["device"][:2]:
        device.update(poll_fast_ms=20, poll_slow_ms=100)
    said = "\n".join(refused(raw))
    assert "serial[meters]" in said and "9600 baud" in said
    assert "grid.poll_fast_ms from 20 to" in said and "power_w" in said


def test_following_the_advice_makes_the_plan_fit():
    import re

    raw = demo_raw()
    raw["serial"][0]["baud"] = 9600
    for device in raw["device"][:2]:
        device.update(poll_fast_ms=20, poll_slow_ms=100)
    said = "\n".join(refused(raw))
    cures = re.findall(r"(\w+)\.(poll_\w+_ms) from [\d.]+ to (\d+)", said)
    assert len(cures) == 4
    for name, key, value in cures:
        next(d for d in raw["device"] if d["name"] == name)[key] = float(value)
    assert program.check(compiled(raw)) == []


def test_two_bms_with_one_id_on_one_bus_are_refused():
    raw = demo_raw()
    raw["device"].append({**raw["device"][3], "name": "bms2"})
    raw["device"].append({**raw["device"][2], "name": "pcs2", "unit_id": 2})
    raw["storage"].append({**raw["storage"][0], "name": "second", "bms": "bms2", "pcs": "pcs2"})
    assert any("0x351" in line and "bms1" in line for line in refused(raw))
    raw["device"][4]["can_id_offset"] = 0x40
    assert program.check(compiled(raw)) == []


def test_a_map_of_the_wrong_kind_or_bus_is_refused():
    raw = demo_raw()
    raw["device"][0]["map"] = "sunspec-701"
    assert any("map for a pcs" in line and "grid-meter" in line for line in refused(raw))
    raw = demo_raw()
    raw["device"][3].update(bus="pcs", unit_id=9)
    raw["can"] = []
    assert any("speaks can" in line for line in refused(raw))


def test_unknown_map_and_unknown_option_are_all_listed_at_once():
    raw = demo_raw()
    raw["device"][0]["map"] = "eastron-sdm999"
    raw["device"][3]["options"] = {"voltage_v": "0.5", "colour": "red"}
    said = "\n".join(refused(raw))
    assert "eastron-sdm999" in said and "voltage_v" in said and "colour" in said


def test_sunspec_addresses_of_the_site_replace_those_of_the_map():
    raw = demo_raw()
    raw["device"][2]["sunspec_models"] = {"701": 41000}
    rows = program.rows(compiled(raw))
    assert any(b["address"] == 41000 and b["signature_word"] == 701 for b in rows["blocks"])


def test_a_site_model_can_be_copied_from_a_parsed_one():
    site, _ = parse_site(copy.deepcopy(demo_raw()))
    assert isinstance(site, Site) and site.simulated


def test_the_core_watches_the_words_that_prove_the_converter(demo):
    rows, _ = demo
    watched = [rows["points"][i]["name"] for i in rows["units"][0]["identity"] if i >= 0]
    assert watched == ["pcs1.m715_id_word", "pcs1.m704_id_word"]
    words = [f for f in rows["fields"] if rows["points"][f["point"]]["name"] == "pcs1.m704_id_word"]
    assert words[0]["min"] == words[0]["max"] == 704.0


def bank_raw():
    return tomllib.loads(files("tidegate.config").joinpath("sites/parallel-batteries.toml").read_text(encoding="utf-8"))


def test_several_batteries_are_one_unit_with_points_of_its_own():
    rows = program.rows(compiled(bank_raw()))
    names = [row["name"] for row in rows["points"]]
    unit = rows["units"][0]
    assert names[unit["soc"]] == "cabinet.soc" and names[unit["connected"]] == "cabinet.connected_count"
    assert [names[row["soc"]] for row in rows["bank_rows"]] == ["a.soc", "b.soc", "c.soc"]
    assert [names[row["connected"]] for row in rows["bank_rows"]] == [f"{name}.contactor_ok" for name in "abc"]
    assert [row["unit"] for row in rows["can_tx"]] == [0, 0, 0], "each hears the unit's heartbeat, and when to open"
    assert program.rows(compiled(demo_raw()))["bank_rows"] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: raw["storage"][0].update(parallel=["b", "d"]), "storage[cabinet].parallel"),
        (lambda raw: raw["storage"][0].update(parallel=["b", "pcs1"]), "expected a device with role = 'bms'"),
        (lambda raw: raw["storage"][0].update(parallel=["b", "c", "c"]), "already belongs to storage cabinet"),
        (lambda raw: raw["storage"][0].update(parallel=["b"]), "no [[storage]] names this bms"),
        (lambda raw: raw["storage"][0].update(name="b"), "is a device as well"),
        (
            lambda raw: raw["device"][3].update(map="foxbms2"),
            "b give charge_w_max and a, c not: so many times the weakest",
        ),
        (lambda raw: raw["device"][3].update(map="bms-35x-hv"), ""),
    ],
)
def test_a_bank_that_cannot_be_is_refused(change, says):
    raw = bank_raw()
    change(raw)
    if says:
        assert any(says in line for line in refused(raw)), refused(raw)
    else:
        compiled(raw)  # other maps are welcome, as long as they give the same limits
