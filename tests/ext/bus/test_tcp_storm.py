"""A slice of the storm of tests/fuzz/tcp_storm.pyx; `make fuzz` runs ten million cases of it."""

import pytest

from tests.ext.bus.test_rtu_storm import load


@pytest.fixture(scope="module")
def storm():
    return load("run_tcp_storm")


@pytest.mark.parametrize("seed", range(1, 5))
def test_no_wrong_value_is_believed_of_a_hostile_server(storm, seed):
    found = storm.one(seed, 100_000)
    assert found["wrong"] == 0, f"seed {seed}: {found['story']}"
    assert found["believed"] > 20_000, "a master that believes nothing proves nothing"
    assert all(count > 2000 for count in found["faults"].values())
    assert all(count > 500 for count in found["moved"].values()) and all(count > 1000 for count in found["values"])


def test_a_factor_that_is_not_that_of_its_value_is_found(storm):
    found = storm.one(5, 20_000, lies=True)
    assert found["wrong"] > 100 and "W:" in found["story"]


def test_frames_in_pieces_of_an_honest_server_are_believed(storm):
    found = storm.one(7, 100_000, calm_percent=100)
    assert found["wrong"] == 0
    assert found["believed"] + found["doubts"] >= found["cases"] - 1
    assert found["doubts"] < 0.01 * found["cases"], "chance makes one frame in 256 doubtful"
    assert found["connections"] == 0
