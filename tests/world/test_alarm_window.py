"""What every signal did around a moment: the words, the least and most, what differs, and why there is nothing."""

import csv
import math

import pytest

pytest.importorskip("mcap", reason="mcap is not installed (pip install 'tidegate[recorder]')")

from click.testing import CliRunner
from test_recording import altered, rewrite

from tests.recorded_file import recorded_fault
from tidegate.runtime.cli.main import main
from tidegate.runtime.recording.recording_file import read
from tidegate.runtime.web.alarm_window import BINS, answer, window
from tidegate.runtime.web.replayed_moments import AROUND_S


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return recorded_fault(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def shown(kept):
    return answer(kept.path.parent, int(kept.fault_utc_s * 1e9))


def test_the_fault_begins_in_the_middle_and_all_was_decided_alike(kept, shown):
    assert shown["file"] == kept.path.name and shown["differs"] is None and shown["cut"] == 0
    assert shown["cycles"] == kept.run.cycles - 1
    begun = [
        at for at, name, before, after in shown["changes"]
        if name.startswith("site.fault_bits") and kept.fault in after and kept.fault not in before
    ]  # fmt: skip
    assert shown["changes"] == sorted(shown["changes"]) and shown["changes_left_out"] == 0
    assert abs(begun[0]) <= 0.02
    assert shown["from_s"] < -5 and shown["until_s"] > 5  # as far as this short recording goes


def test_least_and_most_are_those_of_the_replayed_table(kept, shown, tmp_path):
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(main, ["replay", str(kept.path), "--csv", str(table), "--every", "10"])
    assert done.exit_code == 0, done.output
    bins = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            offset_s = (int(row["utc_ns"]) - int(kept.fault_utc_s * 1e9)) * 1e-9 + AROUND_S
            bins.setdefault(int(offset_s / shown["bin_s"]), []).append(row)
    compared = 0
    for one in shown["signals"]:
        most = one["most"] or one["least"]
        assert len(one["least"]) == len(most) == BINS
        for at in range(BINS):
            values = [float(row[one["name"]]) for row in bins.get(at, []) if row[one["name"]] != ""]
            if not values:
                assert one["least"][at] is most[at] is None, (one["name"], at)
                continue
            assert math.isclose(one["least"][at], min(values), rel_tol=1e-4), (one["name"], at)
            assert math.isclose(most[at], max(values), rel_tol=1e-4), (one["name"], at)
            compared += 1
    assert compared > 1000
    moved, still = {one["name"] for one in shown["signals"]}, {name for name, _, _ in shown["still"]}
    assert {"site.setpoint_w", "site.grid_w"} <= moved and not moved & still


def test_other_readings_are_shown_as_such(kept, tmp_path):
    run = kept.run
    rewrite(run, tmp_path / "20990101T000000Z-x.mcap", [altered(run.records, 200)], utc_offset_ns=str(kept.offset_ns))
    said = window(read(tmp_path / "20990101T000000Z-x.mcap"), int(kept.fault_utc_s * 1e9))
    assert said["differs"]["what"] and said["differs"]["points"] and said["cycles"] < run.cycles - 1


def test_a_moment_outside_of_every_recording_is_named(kept):
    for at_utc_s in (kept.fault_utc_s - 100, kept.fault_utc_s + 100):
        found = answer(kept.path.parent, int(at_utc_s * 1e9))
        assert found["recorded"] is False and "no recording holds that moment" in found["problem"]


def test_a_damaged_recording_is_named(kept, tmp_path):
    raw = bytearray(kept.path.read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / kept.path.name).write_bytes(raw)
    found = answer(tmp_path, int(kept.fault_utc_s * 1e9))
    assert found["recorded"] is True and "damaged in bytes" in found["problem"]


def test_the_recording_that_holds_more_of_the_minutes_is_taken(kept, tmp_path):
    """A file of a fault as it was 2 s later, and the one with what followed."""
    for name in ("20000101T000000Z-a.mcap", kept.path.name):
        (tmp_path / name).write_bytes(kept.path.read_bytes())
    short = recorded_fault(tmp_path, end_utc_s=kept.fault_utc_s + 2.0, seconds=9.0)
    assert short.path.name < kept.path.name
    assert answer(tmp_path, int(kept.fault_utc_s * 1e9))["file"] == kept.path.name
