"""What an earlier release kept beside the folders of today is taken over whole, once, and by nobody twice."""

import sqlite3

import pytest

from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.state import latches
from tidegate.runtime.state.former import found_beside
from tidegate.runtime.state.held import BILLING, HELD, LEDGER, LEDGER_DIR, held_dir, ledger_in, take_base_in, take_in
from tidegate.runtime.state.latches import Latched, LatchFile
from tidegate.runtime.state.stop_file import MARK, Stop, StopFile, Stops

ROW = FAULT_IDS.index("temp_high_trip")
TRIPPED = [Latched(1 << ROW, ROW)]


def test_a_latch_and_a_stop_of_an_earlier_release_hold(tmp_path):
    state, run = tmp_path / "site", tmp_path / "run"
    state.mkdir()
    run.mkdir()
    LatchFile(state, ["cabinet"]).write(TRIPPED)
    StopFile(state, run).write(Stops(stop=Stop("mara", "maintain", True)))
    StopFile(state, run).mark()
    (state / BILLING).write_text("{}")
    take_in(state)
    held = held_dir(state)
    assert LatchFile(held, ["cabinet"]).read() == (TRIPPED, "")
    assert StopFile(held, run).read()[0].stop.by == "mara"
    assert {path.name for path in state.iterdir()} == {HELD}, "nothing lies where nobody looks any more"
    assert {path.name for path in held.iterdir()} == {latches.FILE, "stops.json", MARK, BILLING}
    take_in(state)
    assert LatchFile(held, ["cabinet"]).read() == (TRIPPED, ""), "a second time takes nothing away"


def test_what_an_earlier_release_wrote_after_us_is_the_newer(tmp_path):
    LatchFile(held_dir(tmp_path), ["cabinet"]).write([Latched(0, -1)])
    LatchFile(tmp_path, ["cabinet"]).write(TRIPPED)
    take_in(tmp_path)
    assert LatchFile(held_dir(tmp_path), ["cabinet"]).read() == (TRIPPED, "")


@pytest.mark.parametrize("place", ["", HELD])
def test_a_former_self_is_known_wherever_its_record_lies(tmp_path, place):
    ours, other, run = tmp_path / "state" / "new", tmp_path / "state" / "old", tmp_path / "run" / "new"
    for folder in (ours, other / place, run):
        folder.mkdir(parents=True)
    LatchFile(other / place, ["cabinet"], None, ["can0"]).write(TRIPPED)
    assert "temp_high_trip" in found_beside(ours, run, ["can0"])
    assert found_beside(ours, run, ["can1"]) == ""


def table(path):
    with sqlite3.connect(path) as base:
        return base.execute("SELECT word FROM kept").fetchall()


@pytest.mark.parametrize("half_done", [False, True])
def test_a_ledger_moves_with_its_write_ahead_log(tmp_path, half_done):
    old = tmp_path / LEDGER
    base = sqlite3.connect(old)
    base.executescript("PRAGMA journal_mode=WAL; CREATE TABLE kept (word); INSERT INTO kept VALUES ('only in the log')")
    copies = {end: (tmp_path / f"{LEDGER}{end}").read_bytes() for end in ("", "-wal")}  # as after a loss of power
    base.close()
    for end, data in copies.items():
        (tmp_path / f"{LEDGER}{end}").write_bytes(data)
    assert ledger_in(tmp_path) == old
    if half_done:  # the log was moved, then the power went
        (tmp_path / LEDGER_DIR).mkdir()
        (tmp_path / f"{LEDGER}-wal").rename(tmp_path / LEDGER_DIR / f"{LEDGER}-wal")
    path = take_base_in(tmp_path, LEDGER_DIR, LEDGER)
    assert path == ledger_in(tmp_path) == tmp_path / LEDGER_DIR / LEDGER and not old.exists()
    assert table(path) == [("only in the log",)]


def test_a_ledger_that_is_there_is_never_replaced(tmp_path):
    path = take_base_in(tmp_path, LEDGER_DIR, LEDGER)
    path.write_bytes(b"mine")
    (tmp_path / LEDGER).write_bytes(b"another")
    assert take_base_in(tmp_path, LEDGER_DIR, LEDGER) == path and path.read_bytes() == b"mine"
    assert (tmp_path / LEDGER).read_bytes() == b"another" and ledger_in(tmp_path) == path
