"""A slice of the storm of tests/fuzz/rtu_storm.pyx; `make fuzz` runs ten million cases of it."""

import importlib.util
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"


def load(name):
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", FUZZ / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def storm():
    return load("run_storm")


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_wrong_value_is_believed_in_a_storm(storm, seed):
    found = storm.one(seed, 50_000)
    assert found["wrong"] == found["old"] == 0, f"seed {seed}: {found['story']}"
    assert found["wrong_acknowledged"] == 0, f"seed {seed}: {found['story']}"
    assert found["believed"] > 5000, "a master that believes nothing proves nothing"
    assert found["acknowledged"] > 1000
    assert all(count > 1000 for count in found["faults"].values())


def test_a_frame_repeated_on_a_good_line_costs_at_most_two_old_values(storm):
    found = storm.one(3, 200_000, calm_percent=99)
    assert found["wrong"] == 0, found["story"]
    assert found["old"] + found["stale"] <= 2 * (found["faults"]["repeated"] + found["faults"]["swapped"])


def test_the_same_seed_gives_the_same_storm(storm):
    assert storm.one(5, 20_000) == storm.one(5, 20_000)
    assert storm.one(5, 20_000) != storm.one(6, 20_000)


@pytest.mark.parametrize("seed", range(1, 5))
def test_no_wrong_value_of_a_meter_that_moves_and_tears_is_believed(storm, seed):
    found = storm.values(seed, 100_000)
    assert found["wrong"] == 0, f"seed {seed}: {found['story']}"
    assert all(count > 5000 for count in found["kinds"].values())
    assert all(count > 30_000 for count in found["believed"]), "a master that believes nothing proves nothing"
