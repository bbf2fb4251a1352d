"""What the loop learnt is kept for the next start, for the devices it was learnt of, and is nothing if damaged."""

import copy
import json
import tomllib
from pathlib import Path

import pytest

from tidegate.config.site import parse_site
from tidegate.config.site_maps import load_maps
from tidegate.ext.abi.image import QUALITY_NAMES
from tidegate.runtime.state import learnt
from tidegate.runtime.state.learnt import LearntFile

RAW = tomllib.loads((Path(__file__).parents[3] / "config/sites/simulated.toml").read_text())
KNOWN = {
    "site.grid_age_lo_s": 0.08, "site.grid_age_hi_s": 0.14, "site.grid_interval_s": 0.1,
    "unit0.dead_s": 0.02, "unit0.lag_s": 0.05, "unit0.gain": 0.98,
}  # fmt: skip


class Picture:
    """An image of these points; those named in `stale` are not good."""

    def __init__(self, points, stale=()):
        self.names = list(points)
        self.values = list(points.values())
        self.qualities = [QUALITY_NAMES.index("stale" if name in stale else "good") for name in points]


def site_of(**device):
    raw = copy.deepcopy(RAW)
    raw["device"][0].update(device)
    site, problems = parse_site(raw)
    assert problems == []
    return site


def file_of(folder, **device):
    site = site_of(**device)
    return LearntFile(folder, site, load_maps(site, []))


def kept(folder, points=KNOWN, stale=(), **device):
    made = file_of(folder, **device)
    picture = Picture(points, stale)
    assert made.keep(picture.names, picture)
    return made


def test_what_was_kept_is_carried_over(tmp_path):
    assert file_of(tmp_path).read() == (None, [])
    kept(tmp_path)
    found, said = file_of(tmp_path).read()
    assert said == [] and found.source.startswith("carried over from 20")
    assert found.age_s == (0.08, 0.14) and found.interval_s == 0.1
    assert found.converters["pcs1"].lag_s == 0.05 and found.converters["pcs1"].gain == 0.98


def test_what_is_not_known_now_stays_as_it_was_learnt(tmp_path):
    kept(tmp_path)
    again = file_of(tmp_path)
    again.read()
    picture = Picture(KNOWN, stale=KNOWN)
    assert again.keep(picture.names, picture)
    assert file_of(tmp_path).read()[0].age_s == (0.08, 0.14)


def test_an_age_that_may_be_anything_is_not_kept(tmp_path):
    kept(tmp_path, {**KNOWN, "site.grid_age_hi_s": 4.305})
    found, _ = file_of(tmp_path).read()
    assert found.age_s is None and found.converters


@pytest.mark.parametrize("device", [{"unit_id": 9}, {"invert": True}])
def test_what_was_learnt_of_another_device_is_not_used_and_said(tmp_path, device):
    kept(tmp_path)
    found, said = file_of(tmp_path, **device).read()
    assert found.age_s is None and "pcs1" in found.converters, "the converter is the same"
    assert len(said) == 1 and "the grid reading" in said[0] and "another device, map, bus or option" in said[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v": 1, "grid": 3}', '{"v": 9}', '{"v": 1, "more": 1}', "\x00" * 99])
def test_a_damaged_file_is_not_used_and_said(tmp_path, text):
    (tmp_path / learnt.FILE).write_text(text)
    found, said = file_of(tmp_path).read()
    assert found is None and len(said) == 1 and "is not used" in said[0]
    kept(tmp_path)
    assert json.loads((tmp_path / learnt.FILE).read_text())["v"] == learnt.VERSION


def test_a_disk_that_refuses_is_said(tmp_path):
    made = file_of(tmp_path / "nowhere")
    picture = Picture(KNOWN)
    assert not made.keep(picture.names, picture) and "is not kept" in made.error
