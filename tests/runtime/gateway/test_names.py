"""What is told by number has a word everywhere; units have the site file's names; causes reach the API."""

import json
import re
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tidegate.ext.abi.image import MODES_BY_NUMBER, REASONS_BY_NUMBER
from tidegate.runtime.api.named import word_of
from tidegate.runtime.cli.main import main
from tidegate.runtime.gateway import api_pages, words

IMAGE_H = Path(__file__).parents[3] / "ext" / "abi" / "image.h"


@pytest.fixture
def site(core, start_gateway):
    """A site of one cabinet whose battery says its state of charge."""
    core.describe["faults"] = [{"id": "bms_never"}, {"id": "meter_invalid", "row": 1}]
    core.describe["units"] = [{"name": "cabinet", "bms": "bms1", "pcs": "pcs1", "energy_wh": 60_000.0}]
    core.describe["devices"] = [{"name": "grid", "role": "grid-meter"}, {"name": "bms1", "role": "bms"}]
    core.values |= {"site.mode": (3.0, 1), "bms1.soc": (0.5, 1), "unit0.setpoint_w": (-1500.0, 1)}
    core.values |= {"unit0.state": (4.0, 1), "unit0.fault_bits_lo": (2.0, 1), "site.reason": (8.0, 1)}
    core.step()
    core.beat()
    started = start_gateway()
    with started.client() as client:
        client.started = started
        yield client


def eventually(ask, good, seconds=60.0):
    until = time.monotonic() + seconds
    while not good(got := ask()):
        assert time.monotonic() < until, got
        time.sleep(0.05)
    return got


def test_describe_has_the_words_of_every_point_that_is_told_by_number(site):
    told = site.describe()
    units = {row["name"]: row["unit"] for row in told["points"]}
    lacks = {name for name, unit in units.items() if unit in ("enum", "bits") and name.startswith(("site.", "unit"))}
    lacks -= set(told["words"])
    assert lacks == {"site.hunting", "unit0.limit_bits"}, "these two have no words yet; all others do"
    assert told["words"]["site.mode"]["3"] == "run" and told["words"]["unit0.fault_bits_lo"] == {
        "0": "bms_never", "1": "meter_invalid"}  # fmt: skip
    assert list(told["words"]["site.island"].values()) == ["grid", "dark", "genset", "forming", "genset missing"]
    assert list(told["words"]["site.reason"].values()) == list(REASONS_BY_NUMBER)


@pytest.mark.parametrize(
    ("row", "table"),
    [("SITE_METER_VERDICT", words.METER_VERDICTS), ("SITE_GRID_ANSWER", words.GRID_ANSWERS),
     ("SITE_METER_REGISTERS", words.METER_REGISTERS), ("SITE_METER_PHASES", words.METER_PHASES),
     ("SITE_METER_QUESTION", words.METER_QUESTIONS),
     ("UNIT_STEP_TEST", words.STEP_TESTS)],
)  # fmt: skip
def test_words_that_only_the_header_has_in_a_comment_are_those_of_the_comment(row, table):
    comment = re.search(rf"X\({row}, .*?/\*(.*?)\*/", IMAGE_H.read_text())[1].rpartition(":")[2]
    said = re.findall(r"(\d) ([a-z ]+?)(?=,? ?\d|\s*$)", comment.strip())
    assert [(int(number), word.strip()) for number, word in said] == list(enumerate(table))


@pytest.mark.parametrize(
    ("unit", "value", "word"),
    [("enum", 3.0, "run"), ("enum", 99.0, "unknown 99"), ("enum", None, None), ("bits", 0.0, "none"),
     ("bits", 9.0, "tripped, run"), ("bits", float(1 << 20), "bit 20")],
)  # fmt: skip
def test_a_number_has_its_word_and_one_that_has_none_says_so(unit, value, word):
    tables = {"x": {str(at): name for at, name in enumerate(MODES_BY_NUMBER)}}
    assert word_of(tables, "x", unit, value) == word
    assert word_of(tables, "y", unit, value) is None


def test_a_unit_is_found_under_the_name_that_the_site_file_gives_it(site):
    assert site.get("cabinet.setpoint_w", "unit0.setpoint_w") == {
        "cabinet.setpoint_w": (-1500.0, 1), "unit0.setpoint_w": (-1500.0, 1)}  # fmt: skip
    told = site.why()["units"]
    assert [(one["name"], one["mode"], one["setpoint_w"], one["faults"]) for one in told] == [
        ("cabinet", "derated", -1500.0, ["meter_invalid"])]  # fmt: skip


@pytest.mark.parametrize(("quality", "soc"), [(1, 0.5), (2, 0.5), (3, None), (0, None)])
def test_the_site_has_a_state_of_charge_as_good_as_its_batteries(core, site, quality, soc):
    core.values["bms1.soc"] = (0.5, quality)
    got = eventually(lambda: site.get("site.soc")["site.soc"], lambda point: point.quality == quality)
    assert got.value == soc and site.why()["soc"] == soc
    assert "site.soc" in site.get() and "site.soc" in {row["name"] for row in site.describe()["points"]}
    heard = site.subscribe("meter", "snapshot")
    seen = set()
    until = time.monotonic() + 30
    while len(seen) < 2 and time.monotonic() < until:
        core.meter()
        core.snapshot()
        message = heard.receive(0.2)
        if message is not None and tuple(message["points"]["site.soc"]) == (soc, quality):
            seen.add(message["kind"])
    assert seen == {"meter", "snapshot"}


def test_what_the_console_finds_reaches_the_api_with_evidence_and_remedy(core, site):
    turned = "the current transformers of grid face the wrong way"
    assert turned not in site.why()["causes"]
    core.values |= {"site.grid_w": (-20_000.0, 1), "site.ess_w": (0.0, 1), "site.load_w": (-20_000.0, 1)}
    answer = eventually(lambda: site.ask("alarms"), lambda got: turned in [one["title"] for one in got["findings"]])
    msgspec.convert(answer, api_pages.Reply)
    found = next(one for one in answer["findings"] if one["title"] == turned)
    assert "a load cannot be negative" in found["because"] and "invert" in found["remedy"]
    assert found["alarms"] == ["meter_invalid"]
    alarm = next(one for one in answer["alarms"] if one["id"] == "meter_invalid")
    assert alarm["finding"] == turned and alarm["unit"] == "cabinet"
    assert turned in site.why()["causes"]


def test_the_command_line_says_words_beside_numbers(site):
    endpoint = site.started.endpoint
    run = lambda *words: CliRunner().invoke(main, [words[0], "-e", endpoint, *words[1:]])  # noqa: E731
    assert run("get", "site.mode").output == "site.mode  run (3)\n"
    assert json.loads(run("get", "--json", "cabinet.state").output) == {
        "cabinet.state": {"value": 4.0, "quality": "good", "word": "derated"}}  # fmt: skip
    assert run("get", "unit0.fault_bits_lo").output == "unit0.fault_bits_lo  meter_invalid (2)\n"
    told = json.loads(run("why", "--json").output)
    assert told["reason"] == REASONS_BY_NUMBER[8] and told["units"][0]["name"] == "cabinet"
    done = run("alarms")
    assert done.exit_code == 1 and "cabinet meter_invalid" in done.output and "over when" in done.output
    assert json.loads(run("alarms", "--json").output)["alarms"][0]["id"] == "meter_invalid"
