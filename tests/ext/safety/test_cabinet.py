"""The cabinet's state machine, explored whole: every state that can be reached, every input in every one of them."""

import itertools
from collections import deque

import pytest

from tidegate.ext.abi import image
from tidegate.ext.safety.cabinet import next_mode

MODES = list(image.MODES_BY_NUMBER)
TRIPPED, ARMING, READY, RUN, DERATED, STOPPING, OFF, MANUAL = (
    MODES.index(name) for name in ("tripped", "arming", "ready", "run", "derated", "stopping", "off", "manual")
)
FACTS = ("tripped", "stop", "derated", "moving", "manual")
INPUTS = [
    dict(zip(FACTS, bits, strict=True)) | {"step": step}
    for bits in itertools.product((False, True), repeat=len(FACTS))
    for step in range(3)
]
GIVES_POWER = {RUN, DERATED, MANUAL}  # arming asks for the step test's 2 % only


def explore(start: int, inputs: list[dict]) -> dict[int, int]:
    """State -> fewest cycles from `start`, whatever of `inputs` comes in each."""
    depth = {start: 0}
    queue = deque([start])
    while queue:
        mode = queue.popleft()
        for facts in inputs:
            behind = next_mode(mode, **facts)
            if behind not in depth:
                depth[behind] = depth[mode] + 1
                queue.append(behind)
    return depth


def always(**fixed: object) -> list[dict]:
    return [facts for facts in INPUTS if all(facts[key] == value for key, value in fixed.items())]


def test_every_state_is_reached_from_the_start_and_no_other_exists():
    assert set(explore(TRIPPED, INPUTS)) == set(range(len(MODES)))
    assert {next_mode(mode, **facts) for mode in range(len(MODES)) for facts in INPUTS} == set(range(len(MODES)))


@pytest.mark.parametrize("mode", [-1, len(MODES), 2**31 - 1, -(2**31)])
def test_a_number_that_is_no_state_is_a_trip(mode):
    assert all(next_mode(mode, **facts) == TRIPPED for facts in INPUTS)


def test_a_trip_of_the_gate_trips_every_state_at_once():
    assert {next_mode(mode, **facts) for mode in range(len(MODES)) for facts in always(tripped=True)} == {TRIPPED}


def test_a_stop_outranks_everything_but_a_trip():
    for mode, facts in itertools.product(range(len(MODES)), always(stop=True, tripped=False)):
        assert next_mode(mode, **facts) == (STOPPING if facts["moving"] else OFF)


def test_power_is_reached_only_through_arming_and_a_passed_step_test():
    for mode, facts in itertools.product(range(len(MODES)), INPUTS):
        behind = next_mode(mode, **facts)
        if behind in GIVES_POWER:
            assert mode in GIVES_POWER | {READY}
        if behind == READY:
            assert mode == READY or (mode == ARMING and facts["step"] == 1)
    # Without a step that passes nobody ever gets beyond arming, whatever else happens.
    for step in (0, 2):
        assert set(explore(TRIPPED, always(step=step))) == {TRIPPED, ARMING, STOPPING, OFF}


def test_ready_waits_until_the_steps_power_is_back_at_zero():
    assert {next_mode(READY, **facts) for facts in always(tripped=False, stop=False, moving=True)} == {READY}


def test_manual_lasts_as_long_as_its_order_and_not_a_cycle_longer():
    for mode, facts in itertools.product(range(len(MODES)), INPUTS):
        if next_mode(mode, **facts) == MANUAL:
            assert facts["manual"] and not facts["stop"] and not facts["tripped"]
    assert MANUAL not in {next_mode(MANUAL, **facts) for facts in always(manual=False)}


def test_from_every_state_all_good_leads_to_run_and_stays_there():
    for mode in range(len(MODES)):
        at, seen = mode, []
        for _ in range(len(MODES)):
            at = next_mode(at, step=1)
            seen.append(at)
        assert at == RUN and seen[seen.index(RUN) :] == [RUN] * (len(seen) - seen.index(RUN))


def test_from_every_state_a_stop_ends_in_off_and_a_trip_in_tripped():
    for mode in range(len(MODES)):
        assert next_mode(next_mode(mode, stop=True, moving=True), stop=True) == OFF
        assert next_mode(mode, tripped=True) == TRIPPED


def test_there_is_no_input_that_moves_the_machine_for_ever_while_it_stays_the_same():
    for mode, facts in itertools.product(range(len(MODES)), INPUTS):
        at = mode
        for _ in range(len(MODES)):
            at = next_mode(at, **facts)
        assert next_mode(at, **facts) == at, (mode, facts)
