"""Device maps: every shipped one decodes its vectors, a broken one is refused with everything that is wrong."""

import math

import pytest

from tidegate.config.program_rows import can_field, command_row, register_field
from tidegate.config.site import Device
from tidegate.ext.abi import program
from tidegate.ext.bus.can_view import Bus
from tidegate.hal import maps
from tidegate.hal.decode import decode_frame, decode_registers, encode_registers, frame_of, vector_frame
from tidegate.hal.vocabulary import required, signals, unit_of

ALL = maps.map_names()
VECTORS = [(name, number) for name in ALL for number in range(len(maps.shipped(name).vector))]


def vector_of(name, number):
    vector = maps.shipped(name).vector[number]
    return (maps.load_map(name, vector.options) if vector.options else maps.shipped(name)), vector


def register_program(found, point):
    """A program with this one point in block 0, its scale factor in the register behind it."""
    device = Device(name="d", map=found.name, bus="b", role="grid-meter", unit_id=1)
    points = [{"name": f"d.{point.name}"}] + ([{"name": f"d.{point.sf}"}] if point.sf else [])
    names = {point.name: f"d.{point.name}", point.sf: f"d.{point.sf}"}
    field = register_field(device, point, point.address, names)
    fields = [field, *([{"point": f"d.{point.sf}", "offset": point.words, "type": 8}] if point.sf else [])]
    count = point.words + len(fields) - 1
    block = {"function": point.function, "address": point.address, "count": count, "fields": fields}
    return program.pack({"points": points, "ports": [{"slaves": [{"unit_id": 1, "blocks": [block]}]}]}), len(
        program.standard_points(0)
    )


def can_program(frame):
    """A program with this one frame; the points are its signals in order."""
    points = [{"name": f"d.{s.name}"} for s in frame.signal]
    row = {
        "id": frame.id | (0x80000000 if frame.extended else 0),
        "len_min": frame.len[0],
        "len_max": frame.len[1],
        "flags": program.CAN_FRAME_FLAGS["mux"] if frame.mux_start is not None else 0,
        "mux_start": frame.mux_start or 0,
        "mux_length": frame.mux_length,
        "mux_big_endian": int(frame.mux_big_endian),
        "fields": [{"point": f"d.{s.name}", **can_field(s)} for s in frame.signal],
    }
    return program.pack({"points": points, "can_frames": [row]})


def test_every_shipped_map_has_vectors_and_a_source():
    for name in ALL:
        found = maps.shipped(name)
        assert found.vector, f"{name} has no decode vector"
        assert found.map.source and found.map.title


@pytest.mark.parametrize(("name", "number"), VECTORS)
def test_vector_decodes_to_its_value(name, number):
    found, vector = vector_of(name, number)
    if vector.point:
        point = next(p for p in found.point if p.name == vector.point)
        got = decode_registers(point, vector.regs, vector.sf)
        if vector.invalid:
            assert got is None
        else:
            assert got == pytest.approx(vector.value, rel=1e-6, abs=1e-9)
        return
    frame = vector_frame(found, vector.id)
    got = decode_frame(frame, bytes.fromhex(vector.data))
    wrong = vector.invalid or ()
    assert {n for n, v in got.items() if v is None} == set(wrong)
    for signal, value in vector.values.items():
        assert got[signal] == pytest.approx(value, rel=1e-6, abs=1e-9), signal


@pytest.mark.parametrize(("name", "number"), [v for v in VECTORS if maps.shipped(v[0]).bus == "can"])
def test_compiled_can_decoder_agrees_with_the_vector(name, number):
    found, vector = vector_of(name, number)
    frame = vector_frame(found, vector.id)
    if frame.crc != "none":
        pytest.skip("checksums are the decoder's own test")
    blob = can_program(frame)
    bus = Bus(program=blob)
    assert bus.inject(vector.id, bytes.fromhex(vector.data), 1000, extended=frame.extended)
    assert bus.drain(2000) == 1
    expected = decode_frame(frame, bytes.fromhex(vector.data))
    base = len(program.standard_points(0))
    for i, signal in enumerate(frame.signal):
        value, _, quality, _ = bus.point(base + i)
        if signal.name not in expected:
            assert quality == 0, signal.name
        elif expected[signal.name] is None:
            assert quality == 4, signal.name
        else:
            assert quality == 1 and value == pytest.approx(expected[signal.name], rel=1e-12), signal.name


@pytest.mark.parametrize(("name", "number"), [v for v in VECTORS if maps.shipped(v[0]).bus == "serial"])
def test_compiled_register_decoder_agrees_with_the_vector(name, number):
    registers = pytest.importorskip("tidegate.ext.bus.registers")
    found, vector = vector_of(name, number)
    point = next(p for p in found.point if p.name == vector.point)
    blob, base = register_program(found, point)
    factor = [vector.sf & 0xFFFF] if point.sf else []
    value, _, quality, _ = registers.decode(blob, 0, [*vector.regs, *factor], {}, 5)[base]
    if vector.invalid:
        assert quality == 4
    else:
        assert quality == 1 and value == pytest.approx(vector.value, rel=1e-6, abs=1e-9)


ENCODES = [(name, number) for name in ALL for number in range(len(maps.shipped(name).encode))]


@pytest.mark.parametrize(("name", "number"), ENCODES)
def test_a_setpoint_becomes_the_registers_of_its_vector_here_and_in_the_core(name, number):
    registers = pytest.importorskip("tidegate.ext.bus.registers")
    vector = maps.shipped(name).encode[number]
    found = maps.load_map(name, vector.options) if vector.options else maps.shipped(name)
    command = next(c for c in found.command if c.name == vector.command)
    assert encode_registers(command, vector.value, vector.sf) == list(vector.regs)
    names = {command.sf: "d.sf"} if command.sf else {}
    row = command_row(command.model_copy(update={"readback": ""}), 0, names)
    spec = {
        "points": [{"name": "d.sf"}],
        "units": [{}],
        "ports": [{"slaves": [{"unit_id": 1, "commands": [row]}]}],
    }
    blob = program.pack(spec)
    before = {len(program.standard_points(1)): (float(vector.sf), 1, 1, 1)}
    value = command.value if command.kind == "const" else vector.value
    assert registers.encode(blob, 0, value, before) == list(vector.regs)


CONTROLLED = [name for name in ALL if any(c.kind == "setpoint_w" for c in maps.shipped(name).command)]


@pytest.mark.parametrize("name", CONTROLLED)
def test_every_setpoint_of_a_map_has_a_vector_of_each_direction(name):
    found = maps.shipped(name)
    for command in (c for c in found.command if c.kind == "setpoint_w"):
        values = [v.value for v in found.encode if v.command == command.name]
        assert min(values, default=0) < 0 or command.of == "discharge", f"{name}: {command.name}: no charge"
        assert max(values, default=0) > 0 or command.of in ("charge", "direction"), (
            f"{name}: {command.name}: no discharge"
        )


def test_names_promise_their_units():
    for name in ALL:
        found = maps.shipped(name)
        for row in [*found.point, *(s for f in found.frame for s in f.signal)]:
            assert unit_of(row.name) == row.unit, f"{name}: {row.name}"


def test_vocabulary_fits_the_suffixes_and_its_required_signals_exist():
    for name in signals():
        assert unit_of(name) is not None, name
    for kind in ("bms", "pcs", "meter"):
        assert set(required(kind)) <= set(signals())


def test_35x_dialects_change_what_they_say():
    plain = maps.load_map("bms-35x")
    swapped = maps.load_map("bms-35x", {"swap_limits": "yes", "byte_order": "big", "current_positive": "discharge"})
    data = bytes.fromhex("0214 00C8 0190 01CC")
    values = decode_frame(frame_of(swapped, 0x351), data)
    assert values["discharge_a_max"] == pytest.approx(20.0) and values["charge_a_max"] == pytest.approx(40.0)
    assert decode_frame(frame_of(plain, 0x351), data)["charge_a_max"] != pytest.approx(40.0)
    alarm = bytes.fromhex("A6AAAA02AAA9AA01")
    assert decode_frame(frame_of(swapped, 0x35A), alarm)["alarm"] == 4.0


# ------------------------------------------------------------------------------------------------- broken maps

METER = """
schema = 1
[map]
name = "broken"
protocol = "modbus"
kind = "meter"
title = "t"
source = "s"
[[point]]
name = "power_w"
address = 10
type = "f32"
unit = "W"
positive = "import"
"""
BMS = """
schema = 1
[map]
name = "broken"
protocol = "can"
kind = "bms"
title = "t"
source = "s"
[[frame]]
id = 0x351
"""
SIGNAL = '[[frame.signal]]\nname = "soc"\nunit = "1"\n'


def problems_of(tmp_path, text, extra=""):
    path = tmp_path / "broken.toml"
    path.write_text(text + extra)
    with pytest.raises(maps.MapError) as caught:
        maps.load_map(str(path))
    return caught.value.problems


def test_a_good_small_map_loads(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text(METER)
    assert maps.load_map(str(path)).point[0].words == 2


LIMIT = '[[frame.signal]]\nname = "charge_a_max"\nunit = "A"\nbyte = 0\nsize = 2\nscale = 0.1\n'
POINT_LIMIT = '[[point]]\nname = "charge_w_max"\naddress = 20\nunit = "W"\n'
CONVERTER = (
    METER.replace('"meter"', '"pcs"')
    + """
[[command]]
name = "set"
kind = "setpoint_w"
positive = "discharge"
address = 40
type = "s32"
"""
)
STATE = '[[point]]\nname = "state"\naddress = 41\nunit = "enum"\n'
POINT = '[[point]]\nname = "voltage_v"\naddress = 20\nunit = "V"\n'


@pytest.mark.parametrize(
    ("text", "extra", "says"),
    [
        (METER, '[[point]]\nname = "voltage_v"\naddress = 11\nunit = "V"\n', "overlaps with power_w"),
        (METER, POINT + 'type = "u24"\n', "point[voltage_v].type"),
        (METER, POINT + "scale = 0.0\n", "scale 0"),
        (METER, '[[point]]\nname = "voltage_v"\naddress = 20\n', "point[voltage_v].unit"),
        (METER, '[[point]]\nname = "voltage_v"\naddress = 20\nunit = "W"\n', "promises 'V'"),
        (METER, '[[point]]\nname = "voltage"\naddress = 20\nunit = "V"\n', "must end in its unit"),
        (METER, '[[point]]\nname = "voltage_v"\nunit = "V"\n', "address is missing"),
        (METER, '[[point]]\nname = "voltage_v"\naddress = 65536\nunit = "V"\n', "point[voltage_v].address"),
        (METER, '[[point]]\nname = "voltage_v"\naddress = 65535\ntype = "f32"\nunit = "V"\n', "pass the end"),
        (METER, POINT + "range = [5.0, 1.0]\n", "ends swapped"),
        (METER, POINT + "scal = 2.0\n", "point[voltage_v].scal"),
        (METER, POINT + 'type = "bits"\nbit = 12\nbits = 8\n', "inside one register"),
        (METER, POINT + 'sf = "missing_sf"\n', "missing_sf"),
        (METER, POINT + POINT, "two signals are named"),
        (METER.replace('positive = "import"', ""), "", "positive is missing"),
        (METER.replace("power_w", "other_w"), "", "must give 'power_w'"),
        (METER.replace("schema = 1", "schema = 2"), "", "schema"),
        (METER.replace("source", "sorce"), "", "map.sorce"),
        (METER, "[[frame]]\nid = 1\n", "not frames"),
        (METER, '[[command]]\nname = "set"\nkind = "setpoint_w"\naddress = 1\n', "positive is missing"),
        (METER, '[[command]]\nname = "set"\nkind = "const"\naddress = 1\nscale = 0.0\n', "scale 0"),
        (METER, '[[command]]\nname = "set"\nkind = "const"\naddress = 1\ntype = "s32"\nfunction = 6\n', "needs 2"),
        (METER, '[[command]]\nname = "set"\nkind = "const"\naddress = 1\nflash = true\nresend_ms = 5\n', "flash"),
        (BMS, SIGNAL + "byte = 7\nsize = 2\n", "do not fit into 8 bytes"),
        (BMS, SIGNAL + 'byte = 7\nsize = 2\nbyte_order = "big"\n', "do not fit into 8 bytes"),
        (BMS, SIGNAL, "place is missing"),
        (
            BMS,
            SIGNAL + 'byte = 0\nsize = 2\n[[frame.signal]]\nname = "soh"\nunit = "1"\nbyte = 1\nsize = 1\n',
            "overlaps",
        ),
        (BMS, SIGNAL + "byte = 0\nsize = 2\nmux = 3\n", "no mux_start"),
        (BMS.replace("0x351", "0x800"), SIGNAL + "byte = 0\nsize = 2\n", "extended"),
        (BMS, SIGNAL + "byte = 0\nsize = 2\n[[frame]]\nid = 0x351\n", "appears twice"),
        (BMS + "len = [8, 6]\n", "", "expected [least, most]"),
        (BMS, LIMIT + "signed = true\nmagnitude = true\nrange = [0.0, 3000.0]\n", "magnitude drops a sign"),
        (BMS, LIMIT.replace("charge_a_max", "pack_a") + "signed = true\nmagnitude = true\n", "magnitude drops a sign"),
        (BMS, LIMIT, "would read as 6553.5 A"),
        (BMS, LIMIT + "range = [0.0, 7000.0]\n", "would read as 6553.5 A"),
        (METER.replace('"meter"', '"bms"'), POINT_LIMIT, "would read as 65535 W"),
        (CONVERTER, STATE, "reads a register that command set writes"),
        (CONVERTER, STATE.replace('"state"', '"power_w"'), "and so what was written; read another"),
        (CONVERTER, STATE.replace("address = 41", "address = 50") + "echo = true\n", "no command writes its register"),
        (CONVERTER, STATE.replace('"state"', '"fault"') + "echo = true\n", "only state and ready may be an echo"),
        (BMS, "[can]\ndbc = 'missing.dbc'\n", "missing.dbc"),
    ],
)
def test_a_broken_map_is_refused_by_name_and_place(tmp_path, text, extra, says):
    said = problems_of(tmp_path, text, extra)
    assert any(says in line for line in said), said
    assert all("broken" in line for line in said)


def test_all_problems_of_a_map_come_at_once(tmp_path):
    said = problems_of(tmp_path, METER.replace('positive = "import"', ""), POINT + "scale = 0.0\nrange = [5.0, 1.0]\n")
    assert len(said) == 3


def test_a_dbc_signal_longer_than_its_frame_is_refused(tmp_path):
    (tmp_path / "bad.dbc").write_text(
        'VERSION ""\nBO_ 849 Limits: 4 BMS\n SG_ Soc : 0|64@1+ (1,0) [0|0] "" BMS\n', encoding="utf-8"
    )
    text = BMS.replace("[[frame]]\nid = 0x351", "[can]\ndbc = 'bad.dbc'\n[[frame]]\nmessage = 'Limits'")
    said = problems_of(tmp_path, text, '[[frame.signal]]\nname = "soc"\nunit = "1"\ndbc = "Soc"\n')
    assert any("bad.dbc" in line and "Soc" in line for line in said), said


def test_a_map_that_extends_itself_is_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text(METER.replace('kind = "meter"', f'kind = "meter"\nextends = "{path}"'))
    with pytest.raises(maps.MapError, match="circle"):
        maps.load_map(str(path))


def test_an_unshipped_map_is_answered_with_the_list():
    with pytest.raises(maps.MapError, match="eastron-sdm630"):
        maps.load_map("nothing")


def test_not_a_number_and_infinities_are_no_readings():
    point = next(p for p in maps.shipped("eastron-sdm630").point if p.name == "power_w")
    for regs in ((0x7FC0, 0), (0x7F80, 0), (0xFF80, 0)):
        assert decode_registers(point, regs) is None
    assert decode_registers(point, (0x0000, 0x0000)) == 0.0 and math.isfinite(decode_registers(point, (0x4366, 0x3333)))


def test_what_a_converter_map_writes_is_guarded_by_the_model_number():
    found = maps.shipped("sunspec-701")
    assert found.identity_points() == ["m715_id_word", "m704_id_word"]
    words = {p.name: p for p in found.point}
    assert decode_registers(words["m704_id_word"], [704]) == 704.0
    assert decode_registers(words["m704_id_word"], [713]) is None


def test_signature_words_become_points_that_only_the_right_device_makes_believable(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text(METER + '[[signature]]\nname = "model"\naddress = 0x8960\nfunction = 3\nwords = [0x4232, 0x3300]\n')
    found = maps.load_map(str(path))
    assert found.identity_points() == ["model_0_word", "model_1_word"]
    second = next(p for p in found.point if p.name == "model_1_word")
    assert second.address == 0x8961 and decode_registers(second, [0x3300]) is not None
    assert decode_registers(second, [0x3301]) is None


def test_the_page_of_supported_devices_is_current():
    from pathlib import Path

    from tidegate.hal.device_page import page

    path = Path(__file__).parents[2] / "docs/supported-devices.md"
    said = "run: python -m tidegate.hal.device_page > docs/supported-devices.md"
    assert path.read_text(encoding="utf-8") == page(), said


def test_checksum_names_are_those_of_the_decoder():
    from typing import get_args

    from tidegate.ext.bus.can_view import CRC_NAMES
    from tidegate.hal.map_schema import Frame

    assert set(get_args(Frame.model_fields["crc"].annotation)) == set(CRC_NAMES)


def test_a_constant_limit_comes_and_goes_with_its_frame():
    found = maps.load_map("jk-bms", {"charge_a_max": "100", "discharge_a_max": "0"})
    values = decode_frame(frame_of(found, 0x2F4), bytes.fromhex("0B023C0F4B000000"))
    assert values["charge_a_max"] == pytest.approx(100.0) and values["discharge_a_max"] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(maps.MapError, match="charge_a_max is needed"):
        maps.load_map("jk-bms", {})


def test_a_converter_without_the_optional_inverter_state_is_ready_by_the_operating_state():
    found = maps.load_map("sunspec-701", {"ready_from": "St"})
    ready = next(p for p in found.point if p.name == "ready")
    assert ready.register_name.startswith("701.St") and ready.one_of == (1,)
    assert decode_registers(ready, [1]) == 1.0 and decode_registers(ready, [0]) == 0.0


@pytest.mark.parametrize("name", ["bms-35x", "pylontech-hv", "jk-bms", "byd-hvs", "foxbms2"])
def test_a_state_of_charge_slightly_beyond_its_ends_is_believed(name):
    found = maps.shipped(name)
    (soc,) = [signal for frame in found.frame for signal in frame.signal if signal.name == "soc"]
    assert soc.range is not None and soc.range[0] <= -0.04 and 1.05 <= soc.range[1] < 1.1


def test_a_limit_of_the_wrong_sign_is_no_limit_in_any_dialect():
    """-1 of either limit: no value, or below zero (which forces the other direction), never 1 A of the same."""
    seen = 0
    for name in maps.map_names():
        found = maps.shipped(name)
        for frame in found.frame:
            for signal in frame.signal:
                if not signal.name.endswith(("charge_a_max", "charge_w_max")) or signal.constant:
                    continue
                assert signal.length is not None and not signal.magnitude
                zero = round(-signal.offset / signal.scale)
                raw = (zero - round(signal.sign) if signal.signed or signal.offset else -1) % 2**signal.length
                if signal.length != 16:
                    continue  # 12 bits of a DBC that says they are without a sign
                data = bytearray(8)
                data[signal.start // 8 : signal.start // 8 + 2] = raw.to_bytes(2, signal.byte_order)
                got = decode_frame(frame, bytes(data))[signal.name]
                assert got is None or got < 0.0, (name, signal.name, got)
                seen += 1
    assert seen >= 18


def test_a_state_that_reads_as_it_was_written_says_so_and_is_none_of_the_unit():
    echoes = {n for n in maps.map_names() if any(p.echo for p in maps.shipped(n).point)}
    assert {"foxess-h1", "goodwe-et", "marstek-venus", "sungrow-sh"} <= echoes
    for name in echoes:
        assert any("what was written, not what the" in doubt for doubt in maps.shipped(name).map.doubts), name
    assert not any("what was written" in doubt for doubt in maps.shipped("sunspec-701").map.doubts)
