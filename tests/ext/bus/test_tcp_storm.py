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


def test_frames_in_pieces_of_an_honest_server_are_believed(storm):
    found = storm.one(7, 100_000, calm_percent=100)
    assert found["wrong"] == 0
    assert found["believed"] + found["doubts"] >= found["cases"] - 1
    assert found["doubts"] < 0.01 * found["cases"], "chance makes one frame in 256 doubtful"
    assert found["connections"] == 0
