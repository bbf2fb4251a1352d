"""A site file that cannot be used is refused with the key, the line, what was expected and the remedy."""

import copy
import json
import os
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.schema import schema_text
from tidegate.config.site import EXIT_CONTENT, EXIT_PLAN, EXIT_UNREADABLE, SiteError, load_site, parse_site
from tidegate.config.summary import check

DEMO = files("tidegate.config").joinpath("demo/site.toml").read_text(encoding="utf-8")


def write(tmp_path, text, name="site.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(tmp_path, text):
    with pytest.raises(SiteError) as caught:
        site = load_site(write(tmp_path, text))
        compile_site(site)
    return caught.value.problems


def edited(old, new, count=1):
    assert old in DEMO
    return DEMO.replace(old, new, count)


# ------------------------------------------------------------------------------------------------- the file itself


def test_the_demo_site_is_good(tmp_path, capsys):
    assert check(str(write(tmp_path, DEMO))) == 0
    assert "good" in capsys.readouterr().out


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SiteError, match="no such file") as caught:
        load_site(tmp_path / "nowhere.toml")
    assert caught.value.exit_code == EXIT_UNREADABLE and "nowhere.toml" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path):
    path = write(tmp_path, DEMO)
    path.chmod(0)
    with pytest.raises(SiteError, match="cannot be read"):
        load_site(path)


def test_a_folder_is_no_site_file(tmp_path):
    with pytest.raises(SiteError, match="not a regular file"):
        load_site(tmp_path)


def test_a_symbolic_link_is_refused(tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(write(tmp_path, DEMO))
    with pytest.raises(SiteError, match="symbolic link"):
        load_site(link)


def test_a_file_writable_by_everybody_is_refused(tmp_path):
    path = write(tmp_path, DEMO)
    path.chmod(0o666)
    with pytest.raises(SiteError, match="chmod o-w"):
        load_site(path)


def test_a_huge_file_is_refused_unread(tmp_path):
    with pytest.raises(SiteError, match="at most"):
        load_site(write(tmp_path, "#" * (1 << 21)))


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes(b"schema = 1\n# Stra\xdfe\n")
    with pytest.raises(SiteError, match="UTF-8 at byte"):
        load_site(path)


def test_text_that_is_not_toml_is_refused_with_its_line(tmp_path):
    with pytest.raises(SiteError, match=r"not TOML.*line 2") as caught:
        load_site(write(tmp_path, "schema = 1\n[site\n"))
    assert caught.value.exit_code == EXIT_CONTENT


def test_a_key_given_twice_is_refused(tmp_path):
    assert "not TOML" in problems_of(tmp_path, edited("unit_id = 1\n", "unit_id = 1\nunit_id = 2\n"))[0]


# --------------------------------------------------------------------------------------- each key and between keys

CASES = [
    # schema
    ("schema = 1", "", "schema is missing"),
    ("schema = 1", "schema = 2", "reads schema 1"),
    # unknown keys, with a guess
    ("baud = 115200", "bauds = 115200", "did you mean baud"),
    ("peak_w_max = 48000", "peak_kw_max = 48", "another unit here: peak_w_max"),
    ("energy_wh = 60000", "energy_kwh = 60", "another unit here: energy_wh"),
    ("pcs_tau_ms = 20", "pcs_tau_s = 0.02", "another unit here: pcs_tau_ms"),
    ("[limits]", "[limit]", "did you mean limits"),
    # types and ranges
    ("baud = 115200", 'baud = "fast"', "serial[meters].baud"),
    ("baud = 115200", 'gap = "short"', "serial[meters].gap"),
    ("baud = 115200", 'baud = "115200"', "valid integer"),
    ("baud = 115200", "baud = 100", "greater than or equal to 300"),
    ("unit_id = 1\n", "unit_id = 0\n", "device[grid].unit_id"),
    ("unit_id = 1\n", "unit_id = 248\n", "expected 1 to 247"),
    ("connection_import_w_max = 55000", "connection_import_w_max = -1", "limits.connection_import_w_max"),
    ("peak_w_max = 48000", "peak_w_max = -48000", "greater than or equal to 0"),
    ("peak_w_max = 48000", "peak_w_max = nan", "finite"),
    ("peak_w_max = 48000", "peak_w_max = inf", "finite"),
    ("period_us = 1000", "period_us = 100", "site.period_us"),
    ("period_us = 1000", "period_us = 1e3", "integer"),
    ("soc_min = 0.1", "soc_min = 10", "storage[cabinet].soc_min"),
    ('role = "grid-meter"', 'role = "grid"', "device[grid].role"),
    ('timezone = "Europe/London"', 'timezone = "Europe/Lundon"', "IANA time zone"),
    ('country = "GB"', 'country = "gb"', "site.country"),
    ('name = "demo"', 'name = "de mo"', "site.name"),
    ('name = "grid"', 'name = "Grid Meter"', "device[Grid Meter].name"),
    ('name = "grid"', 'name = "a_name_of_sixteen"', "at most 15"),
    ("charge_w_max = 30000", "charge_w_max = 0", "greater than 0"),
    # names and references
    ('name = "cooling"', 'name = "grid"', "is taken"),
    ('name = "pcs"', 'name = "meters"', "is taken"),
    ('name = "grid"', 'name = "unit0"', "belongs to the image"),
    ('bus = "meters"', 'bus = "meter"', "no bus is named"),
    ('pcs = "pcs1"', 'pcs = "pcs2"', "is not in the file"),
    ('pcs = "pcs1"', 'pcs = "bms1"', "has the role bms"),
    ("unit_id = 2", "unit_id = 1", "already grid's"),
    ("unit_id = 2\n", "", "unit_id is missing"),
    ('bus = "bms"\n', 'bus = "bms"\nunit_id = 1\n', "has no unit id"),
    ('role = "cooling-meter"', 'role = "grid-meter"', "a second grid-meter"),
    ('role = "grid-meter"', 'role = "it-meter"', "controller is blind"),
    ('role = "pcs"', 'role = "pcs"\ninvert = true', "only meters are inverted"),
    # contradictions
    ("soc_min = 0.1", "soc_min = 0.96", "not below soc_max"),
    ("temp_min_c = 0", "temp_min_c = 55", "not below temp_max_c"),
    ("soc_taper = 0.03", "soc_taper = 0.5", "tapers meet"),
    ("soc_taper = 0.03", "soc_taper = 0.03\ncell_v_min = 3.6\ncell_v_max = 3.0", "not below cell_v_max"),
    ("ramp_stop_w_per_s = 30000000", "ramp_stop_w_per_s = 2000", "less than 5 x"),
    ("peak_w_max = 48000", "peak_w_max = 60000", "fuse would go first"),
    ("recharge_w_max = 46000", "recharge_w_max = 50000", "would make the peak"),
    ("target_soc = 0.8", "target_soc = 0.99", "never reached"),
    ("target_soc = 0.8", "target_soc = 0.8\nreserve_soc = 0.97", "never discharge"),
    ("[control]", "[control]\ndamp_lo_hz = 2\ndamp_hi_hz = 1", "not below damp_hi_hz"),
    ("[control]", "[control]\ndemand_w_max = 40000\ndemand_step_s = 7", "does not divide"),
    ("[control]", "[control]\nphase_share = [1, 1, 1]", "add up to 3"),
    ("unit_id = 2", 'unit_id = 2\ncircuit_storage = ["cabinet"]', "only a circuit-meter"),
    ("snapshot_hz = 10", "snapshot_hz = 2000", "more than one a cycle"),
    ("[simulation]", "[simulation]\nphase_share = [0.5, 0.5, 0.5]", "add up to 1.5"),
    ("[carbon]", '[gateway]\npublish = "tcp://*:7000"\n[carbon]', "add endpoint"),
    ("[carbon]", '[gateway]\nendpoint = "tcp://*:7000"\npublish = "tcp://*:7000"\n[carbon]', "another one"),
    ("[carbon]", "[safety.faults.no-such-fault]\ndebounce_ms = 1\n[carbon]", "no fault has this id"),
]


@pytest.mark.parametrize(("old", "new", "says"), CASES, ids=[f"{i}-{case[2][:30]}" for i, case in enumerate(CASES)])
def test_a_wrong_key_is_refused_with_its_remedy(tmp_path, old, new, says):
    said = problems_of(tmp_path, edited(old, new))
    assert any(says in line for line in said), said


def test_sections_that_belong_together_are_missed(tmp_path):
    cut = DEMO[: DEMO.index("[simulation]")]
    assert any("no [simulation]" in line for line in problems_of(tmp_path, cut))
    real = DEMO.replace('device = "sim"', 'device = "/dev/ttyS1"', 1).replace(
        'device = "sim"', 'device = "/dev/ttyS1"', 1
    )
    said = problems_of(tmp_path, real.replace('interface = "sim"', 'interface = "can0"'))
    assert any("used by two buses" in line for line in said) and any("no bus is simulated" in line for line in said)


def test_a_bus_without_devices_and_a_bms_without_storage_are_named(tmp_path):
    extra = '\n[[serial]]\nname = "spare"\ndevice = "/dev/ttyS9"\n'
    assert any("no device is on this bus" in line for line in problems_of(tmp_path, DEMO + extra))
    raw = tomllib.loads(DEMO)
    del raw["storage"]
    _, said = parse_site(raw)
    assert any("no storage unit" in line for line in said) and any(
        "no [[storage]] names this bms" in line for line in said
    )


def test_everything_wrong_is_listed_at_once(tmp_path):
    text = edited("baud = 115200", "bauds = 115200").replace("soc_min = 0.1", "soc_min = 0.96")
    text = text.replace("unit_id = 2", "unit_id = 1").replace("peak_w_max = 48000", "peak_w_max = -1")
    said = problems_of(tmp_path, text)
    assert len(said) >= 4
    for part in ("bauds", "soc_min", "unit id 1", "peak_w_max"):
        assert any(part in line for line in said), part


def test_messages_carry_the_line_of_the_key(tmp_path):
    text = edited("unit_id = 2", "unit_id = 999")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if row == "unit_id = 999")
    assert any(f"device[cooling].unit_id (line {line})" in said for said in problems_of(tmp_path, text))


def test_exit_codes_tell_the_classes_apart(tmp_path, capsys):
    assert check(str(tmp_path / "nowhere.toml")) == EXIT_UNREADABLE
    assert check(str(write(tmp_path, edited("baud = 115200", "bauds = 1")))) == EXIT_CONTENT
    slow = DEMO.replace("baud = 115200", "baud = 1200")
    assert check(str(write(tmp_path, slow))) == EXIT_PLAN
    assert len({EXIT_UNREADABLE, EXIT_CONTENT, EXIT_PLAN, 0}) == 4
    assert "nothing was started" in capsys.readouterr().err


def test_a_bus_whose_fast_points_come_too_seldom_is_refused(tmp_path):
    said = problems_of(tmp_path, DEMO.replace("baud = 115200", "baud = 300"))
    assert any("serial[meters]" in line and "300 baud" in line for line in said)


def test_any_single_damage_to_the_file_is_a_clear_refusal_or_a_good_site():
    """Each key removed, and each value replaced by values of other types: never a traceback."""
    raw = tomllib.loads(DEMO)

    def paths(node, prefix=()):
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            yield (*prefix, key)
            yield from paths(value, (*prefix, key))

    tried = 0
    for path in list(paths(raw)):
        for damage in ("remove", None, -1, "x", [], {}, True, 1e30):
            broken = copy.deepcopy(raw)
            at = broken
            for step in path[:-1]:
                at = at[step]
            if damage == "remove":
                del at[path[-1]]
            elif damage is not None:
                at[path[-1]] = damage
            site, said = parse_site(broken)
            assert site is not None or said
            assert all(isinstance(line, str) and line for line in said)
            if site is not None and not said:
                try:
                    compile_site(site)
                except SiteError as error:
                    assert error.problems
            tried += 1
    assert tried > 500


# --------------------------------------------------------------------------------------------------- JSON schema


def test_the_shipped_json_schema_is_the_one_of_the_code():
    shipped = files("tidegate.config").joinpath("site.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), "run: python -m tidegate.config.schema > config/site.schema.json"


def test_the_json_schema_refuses_unknown_keys_everywhere():
    schema = json.loads(schema_text())
    objects = [schema, *schema["$defs"].values()]
    assert all(one.get("additionalProperties") is False for one in objects if one.get("type") == "object")


def test_every_shipped_site_is_good(tmp_path):
    folder = files("tidegate.config").joinpath("sites")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    assert len(names) >= 3
    for name in names:
        assert check(str(folder.joinpath(name)), out=lambda line: None) == 0, name


# ------------------------------------------------------------------------------------------------- the calendar

SLOT = '\n[[schedule]]\nname = "{}"\nbegin = "{}"\nend = "{}"\n{}\n'


def with_slots(*rows, control=""):
    text = DEMO.replace("[control]\n", f"[control]\n{control}\n")
    return text + "".join(SLOT.format(f"slot{i}", *row) for i, row in enumerate(rows))


SCHEDULES = [
    ([("08:00", "12:00", "peak_w_max = 4e4"), ("11:00", "13:00", "peak_w_max = 3e4")], "", "'slot0' from mon 11:00"),
    ([("22:00", "06:00", "peak_w_max = 4e4"), ("05:00", "07:00", "peak_w_max = 3e4")], "", "overlaps slot"),
    ([("08:00", "12:00", "")], "", "says nothing"),
    ([("08:00", "08:00", "peak_w_max = 4e4")], "", "a whole day ends at 24:00"),
    ([("24:00", "08:00", "peak_w_max = 4e4")], "", "24:00 is only an end"),
    ([("8:00", "12:00", "peak_w_max = 4e4")], "", "pattern"),
    ([("08:00", "12:00", "until_soc = 0.9")], "", "no setpoint_w"),
    ([("08:00", "12:00", "peak_w_max = 5e4")], "", "above peak_w_max = 48000"),
    ([("08:00", "12:00", "import_w_max = 6e4")], "", "above connection_import_w_max = 55000"),
    ([("08:00", "12:00", "peak_w_max = 4e4\ndays = [\"monday\"]")], "", "expected 'mon'"),
    ([("08:00", "12:00", "peak_w_max = 4e4")], 'schedule_gaps = "refuse"', "no slot from mon 00:00 to mon 08:00"),
    ([], "follow_soc_min = 0.1\nreserve_soc = 0.3", "would be empty"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "control", "said"), SCHEDULES)
def test_a_schedule_that_cannot_be_is_refused_with_the_remedy(tmp_path, rows, control, said):
    assert any(said in one for one in problems_of(tmp_path, with_slots(*rows, control=control)))


def test_a_whole_week_of_slots_is_good_and_stands_in_the_description(tmp_path):
    from tidegate.ext.abi import program

    night = "setpoint_w = -5e3\nuntil_soc = 0.9\nforced = true"
    text = with_slots(("00:00", "07:00", night), ("07:00", "24:00", "peak_w_max = 4e4"),
                      control='schedule_gaps = "refuse"\ndemand_billing = "year"\ndemand_w_max = 45e3')  # fmt: skip
    described = program.describe(compile_site(load_site(write(tmp_path, text))))
    assert [slot["name"] for slot in described["schedule"]] == ["slot0", "slot1"]
    assert described["control"]["demand_billing"] == "year"


def test_the_calendar_on_the_page_is_a_good_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "site-file.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"## The calendar.*?```toml\n(.*?)```", page, flags=re.S)
    site = load_site(write(tmp_path, DEMO + "\n" + block))
    compile_site(site)
    assert [slot.name for slot in site.schedule] == ["night-charge", "evening-peak"]
