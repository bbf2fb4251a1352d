"""What the guests' runs conclude from what they saw: each promise is broken once. No guest is started here."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.vm import icount_run, power_cuts
from tidegate.runtime.state.journal import Journal, Record
from tidegate.runtime.state.latches import Latched, LatchFile
from tidegate.runtime.state.stop_file import Stop, StopFile, Stops

ROOT = Path(__file__).parents[2]
COMMITTED = {"work_p99_ns": 10_000}
RIGHT: dict[str, Any] = {
    "machine": "x86_64",
    "span_s": 60.0,
    "period_us": 1000,
    "cycles": 60_000,
    "counters": {"missed": 0, "skipped": 0, "overruns": 0},
    "quantiles_ns": {"work": {"p50": 9000, "p99": 10_000}, "lateness": {"p50": 1, "p99": 2, "max": 3}},
    "loop_policy": {"before": [1, 80], "after": [1, 80]},
    "fifo_threads": {"before": [[1, 70]], "after": [[1, 70]]},
    "locked_kib": {"before": 30_000, "after": 30_000},
    "mode": "run",
    "page_answers": 60,
    "page_asked": 60,
    "exit_code": 0,
    "kernel": "k",
}


def changed(*place: Any) -> dict[str, Any]:
    *keys, last, value = place
    made = at = copy.deepcopy(RIGHT)
    for key in keys:
        at = at[key]
    at[last] = value
    return made


def test_a_right_run_breaks_nothing() -> None:
    assert icount_run.broken(RIGHT, COMMITTED) == []
    assert icount_run.broken(changed("quantiles_ns", "work", "p99", 10_499), COMMITTED) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (changed("cycles", 59_000), "59000 cycles"),
        (changed("counters", "missed", 1), "1 missed"),
        (changed("counters", "skipped", 2), "2 skipped"),
        (changed("counters", "overruns", 3), "3 overruns"),
        (changed("loop_policy", "after", [0, 0]), "after: the loop's thread has policy 0"),
        (changed("loop_policy", "before", [1, 79]), "before: the loop's thread has policy 1, priority 79"),
        (changed("fifo_threads", "after", []), "threads with FIFO"),
        (changed("locked_kib", "after", 0), "locked memory"),
        (changed("mode", "tripped"), "tripped at the end"),
        (changed("page_answers", 58), "58 of 60"),
        (changed("exit_code", 1), "ended with 1"),
        (changed("quantiles_ns", "work", "p99", 10_501), "work p99 10501 ns, committed 10000 ns"),
        (changed("quantiles_ns", "work", "p99", 9_499), "work p99 9499 ns"),
    ],
)
def test_what_breaks_a_promise_is_named(figures: dict[str, Any], words: str) -> None:
    (found,) = icount_run.broken(figures, COMMITTED)
    assert words in found


def test_without_a_committed_figure_the_way_to_take_it_is_named() -> None:
    (found,) = icount_run.broken(RIGHT, None)
    assert "--take" in found
    assert icount_run.take(RIGHT, {"arm64": {}})["x86_64"]["work_p99_ns"] == 10_000


def test_committed_figures_are_of_whole_runs_on_machines_that_have_a_runner() -> None:
    committed = json.loads(icount_run.COMMITTED.read_text())
    assert set(committed) <= set(icount_run.RUNNERS)
    assert all(row["work_p99_ns"] > 0 and row["span_s"] >= 60.0 for row in committed.values())


def test_promises_are_kept_as_guests_make_and_take_them_back() -> None:
    promised = power_cuts.Promised()
    assert promised.as_json() == "{}"
    for line in ("+ job job-000000", "? stop 1", "+ stop 1", "+ latched 1", "+ booked 0 17", "+ booked 0 23"):
        promised.take(line)
    found = json.loads(promised.as_json())
    assert (found["jobs"], found["stopped"], found["latched"]) == (["job-000000"], True, True)
    assert (found["booked"], found["books"], found["next_job"]) == ({"0": 23}, 0, 2)
    for line in ("? stop 0", "? latched 0", "+ complete 0", "  meter: 5 records", "- whole 3.1"):
        promised.take(line)
    found = json.loads(promised.as_json())
    assert (found["stopped"], found["latched"], found["books"]) == (None, None, 1)


def test_the_options_that_runs_give_the_machine_are_those_of_its_script() -> None:
    options = re.search(r"getopts (\S+)", (ROOT / "tests" / "vm" / "run-vm.sh").read_text())
    assert options is not None and set("tidpv") <= set(options[1])


# ---- what a guest finds on its disk ----


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk as a site leaves it, and what was promised to be on it."""
    pytest.importorskip("sqlalchemy", reason="the extra carbon is not installed")
    from tests.vm import power_site

    for name, folder in {"DISK": "", "STATE": "state", "BOOKED": "booked"}.items():
        monkeypatch.setattr(power_site, name, tmp_path / folder)
    state = tmp_path / "state" / "simulated"
    for folder in (state / "held", state / "journal", tmp_path / "booked"):
        folder.mkdir(parents=True)
    LatchFile(state / "held", [power_site.UNIT]).write([Latched(1, 0)])
    StopFile(state / "held", tmp_path / "gone").write(Stops(stop=Stop("anna", "operate", True)))
    for stream in power_site.STREAMS:
        journal = Journal(state / "journal", stream)
        for seq in range(3):
            journal.append(Record(bytes(16), seq, seq, -1, b"job-%06d" % seq))
        assert len(journal.sync()) == 3
        journal.close()
    one = power_site.sidecar(str(tmp_path / "booked" / "0.db"))
    power_site.service.catch_up(one, power_site.Records(power_site.journal(2000)))
    one.commit()
    assert one.ledger.head[0] > 1
    one.ledger.close()
    return tmp_path


PROMISED = {"jobs": ["job-000002"], "stopped": True, "latched": True, "booked": {"0": 2}}


def found_on(expected: dict[str, Any]) -> list[str]:
    from tests.vm import power_site

    return power_site.look(expected)


def test_a_whole_disk_with_all_that_was_promised_has_nothing_wrong(disk: Path) -> None:
    assert found_on(PROMISED) == []
    assert found_on({**PROMISED, "stopped": None, "latched": None}) == []


@pytest.mark.parametrize(
    ("promised", "words"),
    [
        ({"jobs": ["job-000003"]}, "job-000003 accepted and not there"),
        ({"stopped": False}, "the last order that was answered was run"),
        ({"booked": {"0": 999}}, "999 were booked"),
    ],
)
def test_what_was_promised_and_is_not_there_is_found(disk: Path, promised: dict[str, Any], words: str) -> None:
    (found,) = found_on({**PROMISED, **promised})
    assert words in found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("state/simulated/held/latches.json", "latches: "),
        ("state/simulated/held/stops.json", "stop: "),
        ("state/simulated/journal/event-0000000000.seg", "journal event: "),
        ("state/simulated/journal/job-0000000000.seg", "journal job: "),
    ],
)
def test_a_byte_in_the_middle_that_is_another_is_found(disk: Path, name: str, words: str) -> None:
    raw = bytearray((disk / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (disk / name).write_bytes(raw)
    assert any(line.startswith(words) for line in found_on(PROMISED))


def test_a_latch_that_is_gone_is_found(disk: Path) -> None:
    (disk / "state/simulated/held/latches.json").unlink()
    assert any("one was told of, and the file has none" in line for line in found_on(PROMISED))
