"""The converter's own watchdog: read back from its register, and published beside what commissioning measured."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest

from tidegate.config import compile as compile_module
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


@pytest.mark.parametrize(("measured", "runs"), [("", False), ("\n[commissioning]\npcs_revert_ms = 2140\n", True),
                                                ("\n[commissioning]\npcs_revert_ms = 90000\n", False)])  # fmt: skip
def test_a_watchdog_that_cannot_be_read_gives_no_power_unless_it_was_measured(measured, runs):
    """The write is acknowledged, and the register reads as "not implemented": it may as well be off."""
    text = SITE.read_text() + measured
    site, problems = parse_site(tomllib.loads(text), text)
    assert site is not None and not problems, problems
    site._folder = load_site(str(SITE)).folder
    made = compile_module.Compiler(site)
    # The sentinel of the device is what a watchdog of 2 s reads as: that is how such a device looks from here.
    blind = made.maps["pcs1"].model_copy(update={"point": tuple(
        p.model_copy(update={"sentinel": 2}) if p.name == "watchdog_s" else p for p in made.maps["pcs1"].point
    )})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_module, "load_maps", lambda *_: {**made.maps, "pcs1": blind})
        blob = compile_site(site)
    with plant(blob) as site_run:
        site_run.run(4.0)
        assert bool(site_run.series()["setpoint_w"][-1] > 0.0) is runs
