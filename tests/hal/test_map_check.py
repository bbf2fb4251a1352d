"""`tidegate devices check`: every shipped map is good; each fault has its line, its key and a remedy, all at once."""

import pytest
from click.testing import CliRunner

from tidegate.hal import maps
from tidegate.hal.map_check import check_file
from tidegate.runtime.cli.device_commands import devices

MAP = """schema = 1
[map]
name = "own"
protocol = "modbus"
kind = "meter"
title = "A meter"
source = "manual"
[modbus]
readable = [[0, 20]]
[[point]]
name = "power_w"
register = "P"
address = 10
type = "s16"
unit = "W"
positive = "import"
signed_source = "manual, page 2"
poll = "fast"
[[vector]]
source = "manual, page 3"
point = "power_w"
regs = [100]
value = 100.0
"""


def said(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text)
    return check_file(str(path))


def test_a_good_map_has_no_findings(tmp_path):
    assert said(tmp_path, MAP) == []


@pytest.mark.parametrize("name", maps.map_names())
def test_every_shipped_map_passes(name):
    assert check_file(str(maps.map_folder().joinpath(f"{name}.toml"))) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("value = 100.0", "value = 101.0", 23, ("power_w reads 100", "the vector says 101", "correct")),
        ("address = 10", "address = 30", 13, ("address", "outside modbus.readable", "0 to 20", "widen")),
        (MAP[MAP.index("[[vector]]") :], "", 0, ("vector", "add a [[vector]]")),
        ('point = "power_w"', 'point = "power"', 21, ("no point 'power'", "power_w")),
        ("regs = [100]", "regs = [100, 1]", 22, ("2 registers, needs 1",)),
        ('signed_source = "manual, page 2"\n', "", 14, ("power_w", "signed_source", "reads -2 kW as 63 kW", "doubt")),
        ('unit = "W"', 'unit = "V"', 15, ("unit 'V'", "promises 'W'")),
        ("[map]", "[map", 2, ("not TOML",)),
        ('kind = "meter"', 'kind = "meter"\nkind = "bms"', 6, ("not TOML", "there already", "remove one")),
        ('title = "A meter"', 'title = "A meter', 6, ("not TOML", "close the quote")),
        ("readable =", "readible =", 9, ("modbus.readible", "unknown key", "did you mean readable")),
        ('poll = "fast"', 'poll = "fast"\nsclae = 2', 19, ("point[power_w].sclae", "unknown key", "mean scale")),
        ('type = "s16"', 'type = "s61"', 14, ("point[power_w].type", "expected 'u16'", "got 's61'")),
        ("value = 100.0", "valeu = 100.0", 23, ("vector[1].valeu", "unknown key", "did you mean value")),
        ('title = "A meter"\n', "", 2, ("map.title", "is missing")),
    ],
)
def test_a_fault_is_said_with_line_key_and_remedy(tmp_path, old, new, line, words):
    findings = said(tmp_path, MAP.replace(old, new))
    assert [one.line for one in findings] == [line], findings
    assert all(word in findings[0].text for word in words), findings


def test_all_faults_are_said_at_once(tmp_path):
    text = MAP.replace("value = 100.0", "value = 101.0").replace("address = 10", "address = 30")
    assert [one.line for one in said(tmp_path, text)] == [13, 23]


def test_a_fault_of_the_schema_hides_none_of_the_others(tmp_path):
    text = MAP.replace("value = 100.0", "value = 101.0").replace("address = 10", "address = 30")
    text = text.replace("readable =", "colour = 1\nreadable =").replace('poll = "fast"', 'poll = "fast"\nsclae = 2')
    findings = said(tmp_path, text)
    assert [one.line for one in findings] == [9, 14, 20, 25], findings
    assert "known here: function" in findings[0].text


def test_a_row_that_is_left_out_for_its_fault_is_not_missed_by_its_vector(tmp_path):
    more = '[[point]]\nname = "frequency_hz"\naddress = 2\nunit = "Hz"\npoll = "slow"\n'
    text = MAP.replace('type = "s16"', 'type = "s61"').replace("[[vector]]", more + "[[vector]]")
    assert [one.line for one in said(tmp_path, text)] == [14]


def test_a_file_that_is_not_utf8_says_what_to_do(tmp_path):
    (tmp_path / "own.toml").write_bytes(b"schema = 1 # 20 \xb0C")
    (finding,) = check_file(str(tmp_path / "own.toml"))
    assert "save the file as UTF-8" in finding.text


def test_a_shipped_map_is_checked_by_its_name_and_a_wrong_name_gets_the_near_ones():
    good = CliRunner().invoke(devices, ["check", "eastron-sdm630"])
    assert good.exit_code == 0 and "good" in good.output
    wrong = CliRunner().invoke(devices, ["check", "eastron-sdm-630"])
    assert wrong.exit_code == 65 and "did you mean eastron-sdm630" in wrong.output


def test_an_unknown_name_gets_the_near_ones():
    with pytest.raises(maps.MapError, match=r"did you mean .*eastron-sdm630"):
        maps.load_map("eastron-sdm-630")


def test_the_sign_of_a_power_in_16_bits_is_sourced_or_a_doubt_of_the_map(tmp_path):
    doubtful = MAP.replace('"manual, page 2"', '"doubt: seen in no document"')
    assert said(tmp_path, doubtful) == []
    (doubt,) = maps.load_map(str(tmp_path / "own.toml")).map.doubts
    assert doubt == "sign of power_w, in 16 bits: seen in no document"
    wide = MAP.replace('signed_source = "manual, page 2"\n', "").replace('"s16"', '"s32"').replace("[100]", "[0, 100]")
    assert said(tmp_path, wide) == []  # 32 bits do not turn round at a power that exists
    assert all(row.signed_source for name in maps.map_names() for row in maps.shipped(name).power_words())


BMS = """schema = 1
[map]
name = "own"
protocol = "can"
kind = "bms"
title = "A battery"
source = "manual"
unchecked = ["counter", "checksum", "frozen"]
[[frame]]
id = 0x100
period_ms = 100
signal = [
    { name = "soc", byte = 0, size = 1, scale = 0.01, unit = "1", range = [0.0, 1.0] },
    { name = "pack_v", byte = 1, size = 2, scale = 0.1, unit = "V", range = [0.0, 1000.0] },
    { name = "pack_a", byte = 3, size = 2, signed = true, scale = 0.1, unit = "A", positive = "discharge" },
    { name = "temp_max_c", byte = 5, size = 1, signed = true, unit = "degC" },
]
[[vector]]
source = "manual"
id = 0x100
data = "32 58 1b 00 00 19 00 00"
values = { soc = 0.5 }
"""
COUNTED = BMS.replace("period_ms = 100", "period_ms = 100\ncounter_start = 48\ncounter_length = 4")
SUMMED = COUNTED.replace("counter_length = 4", 'counter_length = 4\ncrc = "sum8"')


def test_a_battery_says_what_nobody_can_check_of_its_frames(tmp_path):
    assert said(tmp_path, BMS) == []
    (one,) = said(tmp_path, BMS.replace('unchecked = ["counter", "checksum", "frozen"]\n', ""))
    assert one.line == 2 and "map.unchecked: missing" in one.text and "unchecked_source" in one.text
    (one,) = said(tmp_path, BMS.replace('"counter", ', ""))
    assert one.line == 8 and "counter is not said" in one.text
    (one,) = said(tmp_path, COUNTED)
    assert one.line == 8 and "counter is said, but every frame has one" in one.text
    assert said(tmp_path, SUMMED.replace('"counter", "checksum", ', "")) == []


def test_nothing_unchecked_needs_somebody_who_says_so(tmp_path):
    nothing = SUMMED.replace('unchecked = ["counter", "checksum", "frozen"]', 'unchecked = ["nothing"]')
    (one,) = said(tmp_path, nothing)
    assert "unchecked_source" in one.text and "name the page" in one.text
    named = nothing.replace('["nothing"]', '["nothing"]\nunchecked_source = "manual, page 9: stamp in each frame"')
    assert said(tmp_path, named) == []
    (one,) = said(tmp_path, named.replace('["nothing"]', '["nothing", "frozen"]'))
    assert "stands alone" in one.text


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('battery_power = "dc"', "a meter has none"),
        ('unchecked = ["frozen"]', "a meter has no such key"),
        ('battery_power = "none"', "battery_power"),
    ],
)
def test_a_meter_has_no_battery(tmp_path, key, words):
    findings = said(tmp_path, MAP.replace('kind = "meter"', f'kind = "meter"\n{key}'))
    assert any(words in one.text for one in findings), findings


def test_a_power_that_is_the_batterys_must_be_there(tmp_path):
    text = maps.map_folder().joinpath("victron-multiplus.toml").read_text(encoding="utf-8")
    text = text.replace('name = "victron-multiplus"', 'name = "own"').replace('"dc_a"', '"battery_a"')
    assert any("dc needs the points dc_v and dc_a" in one.text for one in said(tmp_path, text))
