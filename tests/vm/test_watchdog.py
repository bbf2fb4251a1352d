"""The board's watchdog with a real driver: the card that the test machine has in it (i6300esb)."""

from pathlib import Path

import pytest

from tidegate.runtime.supervisor.watchdogs import Board, WatchdogError

STATE = Path("/sys/class/watchdog/watchdog0/state")


def test_a_real_watchdog_takes_the_time_is_for_one_program_only_and_is_disarmed_in_the_end() -> None:
    assert STATE.read_text().strip() == "inactive"
    board = Board("/dev/watchdog", 60)
    try:
        assert board.timeout_s == 60 and board.note == ""
        assert STATE.read_text().strip() == "active"
        board.alive()
        with pytest.raises(WatchdogError, match="another program has it"):
            Board("/dev/watchdog", 60)
    finally:
        board.close(disarm=True)
    assert STATE.read_text().strip() == "inactive"


def test_a_time_that_the_driver_does_not_take_is_refused_by_its_key_and_leaves_it_disarmed() -> None:
    with pytest.raises(WatchdogError, match=r"watchdog\.timeout_s: /dev/watchdog does not take 100000 s"):
        Board("/dev/watchdog", 100_000)
    assert STATE.read_text().strip() == "inactive"
