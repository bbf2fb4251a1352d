"""What a map leaves open is said once, until the site file says how it was answered."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, parse_site
from tidegate.config.summary import summary

SITE = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))


def said(**answers):
    """The doubts of a site with two equal meters, one of them with these answers."""
    raw = copy.deepcopy(SITE)
    raw["device"][0]["map"] = "eastron-sdm120"
    raw["device"].append({"name": "it", "map": "eastron-sdm120", "bus": "meters", "unit_id": 2, "role": "it-meter"})
    if answers:
        raw["device"][0]["doubts_answered"] = answers
    site, problems = parse_site(raw)
    assert problems == []
    return [line for line in summary(compile_site(site)) if "doubt" in line]


def test_a_doubt_of_two_devices_with_one_map_is_said_once_and_names_both():
    lines = [line for line in said() if "serial default" in line]
    assert len(lines) == 1 and lines[0].startswith("doubt about grid, it (eastron-sdm120)")


def test_an_answered_doubt_is_said_no_more_of_this_device_and_counted():
    lines = said(**{"serial default": "9600 on the display, 2026-11-28"})
    assert [line.partition(" (")[0] for line in lines if "serial default" in line] == ["doubt about it"]
    assert lines[-1].startswith("1 doubts are answered")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"colour of the case": "blue"}, "has no doubt with these words; it has: serial default"),
        ({"serial default": " "}, "say how it was answered"),
    ],
)
def test_an_answer_to_nothing_and_an_empty_answer_are_refused(answers, says):
    with pytest.raises(SiteError) as caught:
        said(**answers)
    assert any(says in line and "doubts_answered" in line for line in caught.value.problems)


def test_an_answer_that_fits_two_doubts_needs_more_words():
    raw = copy.deepcopy(SITE)
    from tidegate.hal import maps

    meant = [text for text in maps.shipped("bms-35x-hv").map.doubts if "option" in text]
    assert len(meant) > 1
    raw["device"][2]["doubts_answered"] = {"option": "seen"}
    site, problems = parse_site(raw)
    assert problems == []
    with pytest.raises(SiteError, match="doubts have these words"):
        compile_site(site)
