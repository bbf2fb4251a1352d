"""The converter's own watchdog: read back from its register, and published beside what commissioning measured."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.ext.abi import program as ext_program
from tidegate.hal.sim.virtual import VirtualPlant

SITE = files("tidegate.config").joinpath("demo/site.toml")


def program(more=""):
    text = SITE.read_text() + more
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    return compile_site(site)


def plant(blob, **overrides):
    load = np.array([0.0]), np.array([60e3])
    return VirtualPlant(blob, load, seed=3, series_every=1, overrides={"soc_start": 0.8, **overrides})


def value(blob, plant, name):
    picture = plant.picture()
    return picture[[row["name"] for row in ext_program.describe(blob)["points"]].index(name)]


def test_what_is_set_reads_back_beside_what_was_measured():
    blob = program("\n[commissioning]\npcs_revert_ms = 2140\n")
    with plant(blob) as site:
        site.run(4.0)
        assert value(blob, site, "pcs1.watchdog_s").value == 2.0
        assert value(blob, site, "unit0.revert_s").value == pytest.approx(2.14)
        assert site.series()["setpoint_w"][-1] > 0.0


def test_a_time_that_was_never_measured_is_no_value():
    blob = program()
    with plant(blob) as site:
        site.run(2.0)
        assert value(blob, site, "unit0.revert_s").quality == 0
