"""A manual's table becomes a map that loads; what the table leaves open is asked and not guessed silently."""

import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.hal import map_draft, maps
from tidegate.hal.decode import decode_registers

TABLE = """Address;Description;Type;Unit;Scale;Example raw;Example
0x0000;Voltage L1-N;INT32;V;0.1;0x0000 0x08FE;230.2
12h;Active power L1;INT32;W;0.1;;
40;Total active power;INT32;kW;0.0001;0xFFFF 0xFB2E;-0.1234
52-53;Energy import total;UINT32;kWh;0.1;;
0x004E;Energy export total;UINT32;kWh;0.1;;
0x0033;Frequency;INT16;0.1 Hz;;0x01F4;50
100;Wobble;FOO;blip;;;
;Section heading;;;;;
"""


def drafted(tmp_path, text, **more):
    rows, remarks = map_draft.read_table(text, more.pop("offset", 0))
    path = tmp_path / "my-meter.toml"
    path.write_text(map_draft.draft("my-meter", "meter", rows, remarks=remarks, **more), encoding="utf-8")
    return maps.load_map(str(path)), path.read_text(encoding="utf-8")


def test_a_manuals_table_becomes_a_map_with_standard_names_and_si_units(tmp_path):
    found, text = drafted(tmp_path, TABLE, source="manual 1.2")
    points = {p.name: p for p in found.point}
    assert set(points) == {
        "voltage_l1_v", "power_l1_w", "power_w", "import_wh", "export_wh", "frequency_hz", "wobble_id",
    }  # fmt: skip
    assert [points[name].address for name in ("power_l1_w", "power_w", "import_wh")] == [0x12, 40, 52]
    assert points["power_w"].scale == pytest.approx(0.1) and points["import_wh"].scale == pytest.approx(100.0)
    assert points["frequency_hz"].scale == pytest.approx(0.1)
    assert [(v.point, v.value) for v in found.vector] == [
        ("voltage_l1_v", 230.2),
        ("power_w", -123.4),
        ("frequency_hz", 50.0),
    ]
    for vector in found.vector:
        assert decode_registers(points[vector.point], vector.regs) == pytest.approx(vector.value)
    assert '# point = "export_wh"' in text and "Section heading" in text.rpartition("no point was made of")[2]


def test_what_the_table_leaves_open_is_a_doubt(tmp_path):
    found, _ = drafted(tmp_path, TABLE)
    said = " ".join(found.map.doubts)
    for question in ("sign of", "word order", "type 'FOO'", "unit 'blip'"):
        assert question in said
    assert all("power_w, which" not in text for text in found.map.doubts)


def test_a_factor_above_one_is_asked_about():
    rows, _ = map_draft.read_table("Address,Name,Type,Unit,Gain\n10,Total active power,s32,W,10\n")
    assert any("raw / 10" in question for question in rows[0].questions)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a;b\n1;2\n", "no column for address and register"),
        ("Address;Name\nx;Power\n", "no line of the table"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_reason(text, says):
    with pytest.raises(map_draft.DraftError, match=says):
        map_draft.read_table(text)


def test_german_headings_tabs_and_addresses_counted_from_one():
    text = "Adresse\tBezeichnung\tDatentyp\tEinheit\n1\tWirkleistung gesamt (total active power)\tfloat\tkW\n"
    rows, _ = map_draft.read_table(text, -1)
    assert (rows[0].address, rows[0].name, rows[0].type, rows[0].scale) == (0, "power_w", "f32", 1000.0)


@pytest.mark.parametrize(
    ("register", "unit", "name"),
    [
        ("Total apparent power", "W", "total_apparent_power_w"),
        ("Max active power demand", "W", "max_active_power_demand_w"),
        ("Voltage L1-L2", "V", "voltage_l1_l2_v"),
        ("Import active energy today", "Wh", "import_active_energy_today_wh"),
        ("Phase B current", "A", "current_l2_a"),
        ("3rd harmonic", "%", "r_3rd_harmonic_pct"),
    ],
)
def test_only_what_is_meant_gets_a_standard_name(register, unit, name):
    assert map_draft.signal_name(register, unit, []) == name


def test_names_stay_apart_and_short_enough_for_the_image():
    taken = []
    for _ in range(12):
        taken.append(map_draft.signal_name("A register with a very long description of what it holds", "W", taken))
    assert len(set(taken)) == 12 and max(map(len, taken)) <= 31


def test_what_a_live_device_answers_becomes_rows_with_each_way_to_read_them(tmp_path):
    rows = map_draft.live_rows(4, {10: 0x4366, 11: 0x3333, 12: 0xFFFF})
    assert "f32 high-first 230.2" in rows[0].questions[0] and "s16 -1" in rows[2].questions[0]
    path = tmp_path / "found.toml"
    path.write_text(map_draft.draft("found", "meter", rows, function=4), encoding="utf-8")
    with pytest.raises(maps.MapError, match="must give 'power_w'") as caught:
        maps.load_map(str(path))
    assert len(caught.value.problems) == 1
    assert "regs = [0x4366]" in path.read_text(encoding="utf-8")


LISTED = """point,address (0-based),type,scale,unit
voltage_u1,2499,F32BE,1,
current_i1,2515,F32BE,1,
active_power_total,2535,F32BE,1,
frequency,2583,F32BE,1,
energy_counter_1,2603,F32LE,1,
energy_counter_2,2605,F32BE,1,W
"""


def test_a_list_without_units_and_with_orders_in_its_types_becomes_a_map_that_a_site_takes(tmp_path):
    rows, remarks = map_draft.read_table(LISTED)
    assert remarks == [] and [row.type for row in rows] == ["f32"] * 6
    assert [(row.name, row.unit) for row in rows[:5]] == [
        ("voltage_l1_v", "V"), ("current_l1_a", "A"), ("power_w", "W"), ("frequency_hz", "Hz"),
        ("energy_counter_1_wh", "Wh"),
    ]  # fmt: skip
    assert any("low word first" in text for text in rows[4].questions)
    assert any("of what the words call an energy" in text for text in rows[5].questions)
    path = tmp_path / "listed.toml"
    path.write_text(map_draft.draft("listed", "meter", rows, source="a list"), encoding="utf-8")
    found = maps.load_map(str(path))
    same = [text for text in found.map.doubts if "no unit in the table" in text]
    assert len(same) == 1 and "voltage_l1_v" in same[0] and "energy_counter_1_wh" in same[0], "one question, once"
    # Several blocks of one length would be refused by the site: the draft says what may be read behind each.
    raw = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))
    raw["device"][0]["map"] = str(path)
    site, problems = parse_site(raw)
    assert problems == [] and compile_site(site)


@pytest.mark.parametrize(
    ("heading", "offset", "address"),
    [
        ("address (1-based)", 0, 9),
        ("address (from 1)", 0, 9),
        ("address (1-based)", -2, 8),
        ("address (dec, hex)", 0, 10),
    ],
)
def test_a_heading_that_says_where_it_counts_from_is_heard(heading, offset, address):
    rows, remarks = map_draft.read_table(f"name,{heading},unit\nTotal active power,10,W\n", offset)
    assert rows[0].address == address and len(remarks) == (1 if offset == 0 and address == 9 else 0)


PHASES = """Param No,Address,Type,Details
0,0,32bit Float,Frequency
1,2,32bit Float,L1 to L2 Voltage
2,4,32bit Float,L1 to N Voltage
4,8,32bit Float,L1 Active Power
"""
HEX = """Metric;Modbus address;type;name;Unit
Voltage CT1;01;U_WORD;`ct1/voltage`;V
Active Power CT2;11,12;S_WORD;`ct2/active_power`;W
Voltage CT4;1001;U_WORD;`ct4/voltage`;V
Total Active Power;0D,0E;S_WORD;`total/active_power`;W
Total Positive Energy;2A;U_DWORD;`total/positive_energy`;kWh
"""
MERGED = """Modbus 485 and Modbus IP Protocols - UPS Systems,,,,,
Data Label,Input,Holding,# of,Scale,Notes / Units
,Register,Register,Reg.,,
Input,,,,,
System Input RMS L1-N,30396,-,1,10,Units : VAC Uint 16
System Input Frequency,30405,-,1,/100,Units : Hz Uint 16
System Output Power,30450,-,2,1,Units : W Int 32
"""
GERMAN = """Register;Bezeichnung;Datentyp;Länge;Faktor;Einheit;Zugriff
40071;Spannung L1-N;UINT16;1;0,1;V;R
40080;Wirkleistung gesamt;INT32;2;1;W;R
40090;Wirkenergie Bezug;UINT32;2;0,01;kWh;R
40092;Wirkenergie Lieferung;UINT32;2;0,01;;R
"""


def read(text):
    rows, remarks = map_draft.read_table(text)
    return {row.name: row for row in rows}, {text for row in rows for text in row.questions}, remarks


def test_a_voltage_between_phases_is_not_that_of_a_phase():
    rows, asked, _ = read(PHASES)
    assert (rows["voltage_l1_v"].address, rows["l1_to_l2_voltage_v"].address) == (4, 2)
    assert {row.type for row in rows.values()} == {"f32"}
    assert any("no unit in the table" in one for one in asked) and not any("no scale" in one for one in asked)


def test_letters_in_one_address_make_all_of_them_hexadecimal_and_it_is_asked():
    rows, asked, _ = read(HEX)
    by_register = {row.register: row for row in rows.values()}
    assert [row.address for row in rows.values()] == [0x01, 0x11, 0x1001, 0x0D, 0x2A]
    assert rows["power_w"].register == "Total Active Power", "one current transformer is not the whole"
    assert by_register["Active Power CT2"].type == "s16" and by_register["Total Positive Energy"].type == "u32"
    assert any("hexadecimal, all of them, because 0D" in one for one in asked)
    assert any("2 registers by the table, but its type 'S_WORD' has 1" in one for one in asked)
    assert any("no scale in the table" in one for one in asked)


def test_addresses_without_letters_stay_decimal_and_a_heading_can_say_hex():
    rows, asked, _ = read(HEX.replace("0D,0E", "13").replace("2A", "42"))
    assert rows["power_w"].address == 13 and not any("hexadecimal" in one for one in asked)
    rows, asked, _ = read("Address (hex),Name,Type,Unit,Scale\n10,Total active power,s32,W,1\n")
    assert rows["power_w"].address == 16 and any("as the heading" in one for one in asked)


def test_a_heading_of_two_lines_behind_a_title_and_a_unit_with_its_type():
    rows, asked, remarks = read(MERGED)
    assert [(r.address, r.type, r.unit) for r in rows.values()] == [
        (30396, "u16", "V"), (30405, "u16", "Hz"), (30450, "s32", "W"),
    ]  # fmt: skip
    assert rows["frequency_hz"].scale == pytest.approx(0.01)
    assert any("--offset -30001 --function 4" in one for one in asked)
    assert any("scale 10: taken as value = raw x 10" in one for one in asked)
    assert len(remarks) == 1 and "Input" in remarks[0]


def test_a_german_table_whose_numbers_are_headed_register():
    rows, asked, _ = read(GERMAN)
    assert {name: row.address for name, row in rows.items()} == {
        "voltage_l1_v": 40071, "power_w": 40080, "import_wh": 40090, "export_wh": 40092,
    }  # fmt: skip
    assert rows["import_wh"].scale == pytest.approx(10.0) and rows["voltage_l1_v"].scale == pytest.approx(0.1)
    assert any("--offset -40001 --function 3" in one for one in asked)
    moved, _ = map_draft.read_table(GERMAN, -40001)
    assert moved[0].address == 70 and not any("--offset" in one for one in moved[0].questions)


def test_a_number_of_the_row_is_no_address():
    rows, _, _ = read("No,Address,Name,Unit,Scale\n1,0x20,Total active power,W,1\n2,0x22,Voltage L1,V,1\n")
    assert [row.address for row in rows.values()] == [0x20, 0x22]
    rows, _, _ = read("No,Name,Unit,Scale\n32,Total active power,W,1\n")
    assert rows["power_w"].address == 32


def test_a_number_of_registers_gives_the_type_where_the_table_has_none_that_is_known():
    rows, _, _ = read("Address,Name,Words,Type,Unit,Scale\n1,Total active power,2,BCD,W,1\n3,Voltage L1,1,BCD,V,1\n")
    assert rows["power_w"].type == "u32" and rows["voltage_l1_v"].type == "u16"


@pytest.mark.parametrize(
    ("cell", "address", "kind"),
    [
        ("1,234", 1234, "s16"),  # a spreadsheet's thousands
        ("40.001", 40001, "s16"),
        ("40\u00a0001", 40001, "s16"),
        ("40001.0", 40001, "s16"),
        ("100,101", 100, "s32"),  # two registers, and not a hundred thousand
        ("40001-40002", 40001, "s32"),
        ("40001~40002", 40001, "s32"),
        ("40001 bis 40002", 40001, "s32"),
        ("0x10/0x11", 16, "s32"),
        ("100 \u2026 101", 100, "s32"),
    ],
)
def test_an_address_is_read_as_tables_write_it(cell, address, kind):
    word = "INT16" if kind == "s16" else "INT32"
    rows, _, left = read(f'Address;Name;Type;Unit;Scale\n"{cell}";Total active power;{word};W;1\n')
    assert left == []
    assert (rows["power_w"].address, rows["power_w"].type) == (address, kind)


def test_rows_below_merged_cells_are_left_out_with_the_reason():
    rows, _, left = read(
        "Group,Address,Name,Type,Unit,Scale\nPower,10,Total active power,int16,W,1\n"
        ",,Voltage L1,int16,V,1\n,12,,int16,V,1\n"
    )
    assert list(rows) == ["power_w"]
    assert any("''" in line for line in left) and any("no description" in line for line in left), left


def test_a_mark_of_the_encoding_and_windows_line_ends_change_nothing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("\ufeffAddress;Name;Type;Unit;Scale\r\n0x34;Total active power;float;W;1\r\n".encode())
    rows, left = map_draft.read_table(path.read_text(encoding="utf-8-sig"), 0)
    assert [row.address for row in rows] == [0x34] and not left


def test_a_long_table_costs_as_much_a_row_as_a_short_one():
    import time

    def cost_s(count):
        text = "Register;Name;Data type;Scale;Unit\n"
        text += "".join(f"{40001 + 2 * i};Quantity {i} L{i % 3 + 1};UINT32;0.1;V\n" for i in range(count))
        began = time.process_time()
        rows, _ = map_draft.read_table(text, 0)
        map_draft.draft("long", "meter", rows, remarks=[])
        return time.process_time() - began

    cost_s(10)
    short_s, long_s = min(cost_s(50) for _ in range(3)), min(cost_s(500) for _ in range(3))
    assert long_s < 40 * short_s  # ten times the rows; names are kept apart by comparing with those before
