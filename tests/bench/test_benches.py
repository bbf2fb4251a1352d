"""Every bench runs through, short, with the arguments that `make bench` gives it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BENCHES = sorted(HERE.glob("bench_*.py"))


@pytest.mark.parametrize("bench", BENCHES, ids=[path.stem for path in BENCHES])
def test_bench_runs_through_and_says_under_which_conditions(bench: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(bench), "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    found = json.loads((tmp_path / f"{bench.stem.removeprefix('bench_')}.json").read_text())
    assert found["figures"] and found["conditions"]["smoke"]
    assert "cpu_dma_latency" in done.stdout and found["conditions"]["cpu_dma_latency"]


def test_peers_of_the_loop_are_measured_under_equal_conditions(tmp_path: Path) -> None:
    words = [sys.executable, str(HERE / "bench_loop.py"), "--smoke", "--out", str(tmp_path)]
    subprocess.run(words, check=True, capture_output=True)
    peers = json.loads((tmp_path / "loop.json").read_text())["conditions"]["peers"]
    given = {name: re.findall(r"SCHED_FIFO \d+|memory locked", peers[name]) for name in ("loop", "asyncio")}
    if peers["cyclictest"].startswith("SCHED_FIFO"):  # it is installed and was granted the priority: then so were they
        given["cyclictest"] = re.findall(r"SCHED_FIFO \d+|memory locked", peers["cyclictest"])
    assert len({tuple(words) for words in given.values()}) == 1, peers


def test_make_bench_calls_every_bench_with_arguments_that_all_take() -> None:
    recipe = re.search(r"^bench:.*\n((?:\t.*\n)+)", (HERE.parents[1] / "Makefile").read_text(), flags=re.M)
    assert recipe and "tests/bench/bench_*.py" in recipe[1]
    (call,) = re.findall(r"\$\(PY\) \$\$script (.*?) \|\|", recipe[1])
    assert set(re.findall(r"--(\w+)", call)) <= {"out", "smoke"}
