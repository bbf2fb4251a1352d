"""The table of all benches, what it is held against, and the counts that do not depend on the machine."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import instructions
import table

HERE = Path(__file__).resolve().parent
COMMITTED = json.loads(table.MEASURED.read_text())
SLICE = ["rtu", "can", "cycle-1"]


def as_now(**changed: float) -> dict[str, Any]:
    """What a run would be that measures what is committed, but for some ratios or counts."""
    now = copy.deepcopy(COMMITTED)
    for row in now["rows"]:
        row["ratio"] *= changed.get(row["key"], 1.0)
    for key, row in now["instructions"].items():
        row["instructions"] *= changed.get(key, 1.0)
    return now


def worse(now: dict[str, Any]) -> list[str]:
    return table.regressions(now, COMMITTED, ratios=True, instructions=True)


def test_what_is_committed_is_no_regression_of_itself_and_covers_every_row() -> None:
    assert worse(as_now()) == []
    measured = {row["key"] for row in COMMITTED["rows"]}
    assert len(measured) >= 6 and measured <= {one.key for one in table.RATIOS}
    unmeasured = [f"{one.what} beside {one.peer}: " for one in table.RATIOS if one.key not in measured]
    assert all(any(line.startswith(words) for line in COMMITTED["missing"]) for words in unmeasured)
    assert set(COMMITTED["instructions"]) == set(instructions.PATHS)
    assert COMMITTED["conditions"] and not any(one["smoke"] for one in COMMITTED["conditions"].values())


MEASURED = [one for one in table.RATIOS if one.key in {row["key"] for row in COMMITTED["rows"]}]


@pytest.mark.parametrize("one", MEASURED, ids=[one.key for one in MEASURED])
def test_a_planted_regression_of_a_ratio_is_named_and_what_its_row_allows_is_not(one: table.Ratio) -> None:
    times = one.worse if one.less_is_better else 1.0 / one.worse
    assert worse(as_now(**{one.key: times * (0.99 if one.less_is_better else 1.01)})) == []
    (found,) = worse(as_now(**{one.key: times * (1.01 if one.less_is_better else 0.99)}))
    assert found.startswith(f"{one.key}: ") and one.peer in found
    assert worse(as_now(**{one.key: 1.0 / times})) == [], "a better ratio is no finding"


@pytest.mark.parametrize("key", sorted(instructions.PATHS))
def test_a_planted_regression_of_a_count_is_named(key: str) -> None:
    assert worse(as_now(**{key: 1.019})) == worse(as_now(**{key: 0.5})) == []
    (found,) = worse(as_now(**{key: 1.021}))
    assert found.startswith(f"{key}: ") and "+2.1%" in found


def test_a_row_that_is_gone_is_a_regression() -> None:
    now = as_now()
    gone = now["rows"].pop()
    del now["instructions"]["can"]
    assert [line.partition(":")[0] for line in worse(now)] == [gone["key"], "can"]


def test_a_figure_that_a_bench_did_not_leave_is_named_in_the_table(tmp_path: Path) -> None:
    one = {
        "conditions": next(iter(COMMITTED["conditions"].values())),
        "figures": {"lateness_us": {"loop": {"p99": 50.0}}},
    }
    (tmp_path / "loop.json").write_text(json.dumps(one))
    whole = table.gather(tmp_path)
    assert whole["rows"] == []
    assert any("beside cyclictest: no figure of the peer" in line for line in whole["missing"])
    assert any("beside libmodbus: the bench left no figure" in line for line in whole["missing"])
    assert "Not in this run:" in table.markdown(whole)


def test_an_empty_folder_and_a_smoke_run_are_refused(tmp_path: Path) -> None:
    words = [sys.executable, str(HERE / "table.py")]
    done = subprocess.run([*words, "gather", "--from", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "run `make bench`" in done.stderr
    conditions = {**next(iter(COMMITTED["conditions"].values())), "smoke": True}
    (tmp_path / "gate.json").write_text(json.dumps({"conditions": conditions, "figures": {"quiet": {"sum_ns": 1.0}}}))
    done = subprocess.run([*words, "take", "--from", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "smoke run" in done.stderr


def test_the_page_has_the_tables_of_what_is_committed() -> None:
    page = table.PAGE.read_text()
    assert table.page_text(page, COMMITTED) == page, "run: python tests/bench/table.py page"


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_hot_paths_take_no_more_instructions_than_are_committed() -> None:
    now = {"rows": [], "instructions": instructions.count(SLICE)}
    then = {"rows": [], "instructions": {key: COMMITTED["instructions"][key] for key in SLICE}}
    assert table.regressions(now, then, ratios=False, instructions=True) == []


def test_costs_are_read_from_callgrinds_file_and_a_call_among_the_counted_is_not_taken_twice(tmp_path: Path) -> None:
    dump = tmp_path / "out"
    dump.write_text(
        "fn=(1) main\n0 5\ncfn=(2) __pyx_f_3ext_3bus_3rtu_rtu_next\ncalls=3 0\n0 300\n"
        "fn=(2)\n0 7\ncfn=(3) __pyx_f_3ext_3bus_3rtu_rtu_bytes\ncalls=2 0\n+1 40\ncfn=(4) memcpy\ncalls=1 0\n* 9\n"
        "fn=(1)\ncfn=(3)\ncalls=1 0\n0 60\n"
    )
    assert instructions.cost(dump, ("rtu_next", "rtu_bytes")) == (360, 4)
    assert instructions.cost(dump, ("rtu_bytes",)) == (100, 3)
    assert instructions.cost(dump, ("rtu_sent",)) == (0, 0)
