"""Two Pylontech packs on an RS-485 line in the simulated plant, from their answers to the setpoint and back."""

import copy
import os
import time
import tomllib
import tty
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, parse_site
from tidegate.config.summary import summary
from tidegate.ext.abi import program as programs
from tidegate.ext.bus import pylon
from tidegate.ext.bus.port import Port
from tidegate.hal.sim.build import build
from tidegate.hal.sim.modbus_tcp import Line
from tidegate.hal.sim.pylon_packs import PylonSide
from tidegate.hal.sim.virtual import VirtualPlant

RAW = tomllib.loads(files("tidegate.config").joinpath("sites/pylontech-packs.toml").read_text(encoding="utf-8"))
RUN = 3


def compiled(change=lambda raw: None):
    raw = copy.deepcopy(RAW)
    change(raw)
    site, problems = parse_site(raw)
    assert problems == []
    return compile_site(site)


def points(plant, blob):
    names = [row["name"] for row in programs.describe(blob)["points"]]
    return dict(zip(names, plant.picture(), strict=False))


def mode(plant):
    return [event["code"] for event in plant.events if event["event"] == "mode"][-1]


def test_a_cabinet_of_packs_arms_and_shaves_a_peak():
    blob = compiled()
    with VirtualPlant(blob, seed=3, series_every=1) as plant:
        plant.run(12.0)
        assert mode(plant) == RUN
        assert plant.series()["setpoint_w"][-1] == pytest.approx(2000.0, abs=300.0)
        found = points(plant, blob)
        rows = plant.world.batteries()
        assert [row["current_a"] for row in rows] == pytest.approx([rows[0]["current_a"]] * 2, rel=1e-6)
        assert found["cabinet.pack_a"].value == pytest.approx(sum(row["current_a"] for row in rows), abs=1.0)
        assert found["a.soc"].value == pytest.approx(rows[0]["soc"], abs=0.001)
        assert found["cabinet.discharge_a_max"].value == pytest.approx(2 * found["a.discharge_a_max"].value)
        assert found["a.temp_max_c"].value == pytest.approx(rows[0]["temp_c"], abs=1.5)  # of the warmest cell


def test_one_weak_pack_rules_both():
    faults = [{"kind": "battery.limits_zero", "target": "b", "value": 0.0, "on_s": 12.0, "off_s": 60.0}]
    try:
        plant = VirtualPlant(compiled(), seed=3, series_every=1, overrides={"faults": faults})
    except ValueError:
        pytest.fail("the simulated plant has no such fault")
    with plant:
        plant.run(16.0)
        assert plant.series()["setpoint_w"][-1] == pytest.approx(0.0, abs=1.0)


def test_the_line_is_reckoned_with_the_characters_of_its_protocol():
    raw = copy.deepcopy(RAW)
    raw["serial"][2]["baud"] = 1200
    with pytest.raises(SiteError) as slow:
        compile_site(parse_site(raw)[0])
    assert "serial[packs]" in str(slow.value)
    plan = next(one for one in programs.describe(compiled())["plan"] if one["port"] == "packs")
    analog = next(block for block in plan["blocks"] if block["address"] >> 8 == 0x42)
    characters = pylon.QUESTION_CHARS + pylon.ANSWER_CHARS[0x42]
    assert analog["time_us"] >= characters * 10 / 115200 * 1e6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw["serial"][2].pop("protocol"), 'put it on a [[serial]] bus with protocol = "pylontech"'),
        (lambda raw: raw["device"][0].update(map="abb-b23", bus="packs", unit_id=9), "packs carries pylontech"),
    ],
)
def test_a_map_on_a_line_that_does_not_speak_its_protocol_is_refused(change, said):
    raw = copy.deepcopy(RAW)
    raw["device"].append({"name": "it", "map": "abb-b23", "bus": "meters", "unit_id": 5, "role": "it-meter"})
    change(raw)
    site, problems = parse_site(raw)
    assert problems == []
    with pytest.raises(SiteError) as refused:
        compile_site(site)
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


def behind_a_gateway(raw, **keys):
    """The packs' line as a TCP bus of the same name."""
    del raw["serial"][2]
    raw["tcp"] = [{"name": "packs", "host": "sim", "framing": "pylontech", "baud": 115200, **keys}]


def test_packs_behind_a_gateway_are_reckoned_with_the_line_behind_it():
    plan = next(one for one in programs.describe(compiled(behind_a_gateway))["plan"] if one["port"] == "packs")
    analog = next(block for block in plan["blocks"] if block["address"] >> 8 == 0x42)
    assert analog["time_us"] >= (pylon.QUESTION_CHARS + pylon.ANSWER_CHARS[0x42]) * 10 / 115200 * 1e6
    with pytest.raises(SiteError, match=r"tcp\[packs\]: with the line at 9600 baud"):
        compiled(lambda raw: behind_a_gateway(raw, baud=1200) or raw["tcp"][0].update(baud=9600, latency_ms=200.0))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"framing": "tcp"}, 'or a [[tcp]] bus with framing = "pylontech"'),
        ({"framing": "rtu"}, "pylontech-rs485 speaks pylontech, but packs carries modbus"),
    ],
)
def test_packs_on_a_connection_that_speaks_modbus_are_refused(keys, said):
    with pytest.raises(SiteError) as refused:
        compiled(lambda raw: behind_a_gateway(raw, **keys))
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


def test_the_summary_names_the_packs():
    site, _ = parse_site(copy.deepcopy(RAW))
    text = "\n".join(summary(compile_site(site)))
    assert "pylontech-rs485" in text or "Pylontech" in text


def test_simulated_packs_answer_the_compiled_reader():
    """The answers of the simulated side, through the thread of a real port on a pty."""
    blob = compiled()
    built = build(blob)
    number = next(i for i, port in enumerate(built.rows["ports"]) if port["name"] == "packs")
    words = {0x42: [15, 3310, 3300, 5, 2981, 2960, 0xFFF0, 49_650, 0, 30_000, 0, 50_000, 6000, 7],
             0x44: [15, 0, 0, 6, 0, 0], 0x92: [53_250, 47_000, 250, 65536 - 250, 0xC0]}  # fmt: skip

    class Plant(Line):
        def __init__(self):
            pass

        def ask(self, request):
            found = words[request[2]]
            return bytes([request[0], 3, 2 * len(found)]) + b"".join(word.to_bytes(2) for word in found)

    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    PylonSide(ours, Plant())
    port = Port(blob, number, theirs)
    port.start()
    found, until = [], time.monotonic() + 60
    while time.monotonic() < until and port.stats["reads"] < 12:
        found += port.take()
        time.sleep(0.02)
    port.stop()
    assert port.stats["reads"] >= 12
    assert port.stats["mismatches"] == port.stats["crc_errors"] == 0
    rows = built.rows["blocks"]
    for one in found:
        command, first = divmod(rows[one["block"]]["address"], 256)
        assert one["status"] == "ok"
        if command == 0x42:  # remaining and whole charge are not of the plant
            assert one["regs"][: 8 - first] == words[command][first:8]
        else:
            assert one["regs"] == words[command][first : first + len(one["regs"])]
    os.close(theirs)
