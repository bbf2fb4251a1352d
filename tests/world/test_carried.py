"""What a run learnt is where the next one begins: known sooner, and no proof of a plant that is another by then."""

import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.config.site_maps import load_maps
from tidegate.ext.abi import program
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.hal.sim.virtual import VirtualPlant
from tidegate.runtime.state.learnt import LearntFile

READY, RUN = (MODES_BY_NUMBER.index(name) for name in ("ready", "run"))
HABITS = {"meter_delay_ms": 700.0, "meter_update_ms": 50.0, "pcs_tau_ms": 150.0, "pcs_dead_ms": 200.0}


@cache
def site():
    return load_site(str(files("tidegate.config").joinpath("demo/site.toml")))


def load():
    """A room whose load steps by some kilowatts every second."""
    chance = np.random.default_rng(5)
    return np.arange(0.0, 200.0, 1.0), 46e3 + 3e3 * chance.standard_normal(200)


def plant(carried=None, **habits):
    habits = {"soc_start": 0.6, **HABITS, **habits}
    return VirtualPlant(compile_site(site(), carried), load(), seed=3, series_every=10, overrides=habits)


def ready_s(run):
    """When the site was ready, and the bounds of the age that were believed then."""
    for n in range(1, 100):
        run.run(1.0)
        if any(one["event"] == "mode" and one["code"] == READY for one in run.events):
            return n, run.world.age_s
    raise AssertionError("never ready")


@cache
def learnt():
    """As it is kept after two minutes of the plant, and read again."""
    with plant() as run, tempfile.TemporaryDirectory() as folder:
        run.run(120.0)
        names = [row["name"] for row in program.describe(compile_site(site()))["points"]]
        file = LearntFile(Path(folder), site(), load_maps(site(), []))
        assert file.keep(names, run.picture())
        found, said = LearntFile(Path(folder), site(), load_maps(site(), [])).read()
    assert said == [] and found is not None
    return found


def test_what_was_learnt_is_the_plant():
    found = learnt()
    assert found.age_s is not None and found.age_s[0] - 0.1 <= 0.7 <= found.age_s[1] + 0.1
    (converter,) = found.converters.values()
    assert 0.1 <= converter.dead_s <= 0.35 and 0.08 <= converter.lag_s <= 0.3


def test_after_a_restart_the_age_is_known_no_later_and_the_site_is_ready_no_later():
    with plant() as anew, plant(learnt()) as again:
        first_s, first_age = ready_s(anew)
        again_s, again_age = ready_s(again)
    assert again_s <= first_s
    assert again_age[0] - 0.1 <= 0.7 <= again_age[1] + 0.1
    assert again_age[1] - again_age[0] <= max(first_age[1] - first_age[0], 0.3)


@pytest.mark.parametrize(("delay_ms", "update_ms"), [(20.0, 20.0), (1800.0, 50.0), (100.0, 150.0)])
def test_a_plant_that_is_another_by_now_is_noticed_within_a_minute(delay_ms, update_ms):
    with plant(learnt(), meter_delay_ms=delay_ms, meter_update_ms=update_ms) as run:
        ready_s(run)
        run.run(60.0)
        lo_s, hi_s = run.world.age_s
        events = [one["event"] for one in run.events]
    width_s = 0.001 * update_ms + 0.05 + 0.13e-3 * delay_ms
    assert lo_s - width_s <= 0.001 * delay_ms <= hi_s + width_s
    assert hi_s - lo_s < 1.5
    assert "meter" in events, "and it is told"
