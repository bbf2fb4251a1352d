"""A live site of two cabinets, its core's threads by the kernel's account: a slice of what docs/performance.md has."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_live_site_of_two_cabinets_runs_and_is_accounted_for(tmp_path):
    words = ["--units", "2", "--seconds", "2", "--period-us", "10000", "--out", str(tmp_path / "units.json")]
    done = subprocess.run(
        [sys.executable, "tests/bench/live_units.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = json.loads((tmp_path / "units.json").read_text())
    (site,) = found["each"]
    assert found["units"] == 2 and site["mode"] in ("run", "derated") and site["cycles"] > 20
    assert site["setpoint_w"] > 10e3  # both give
    assert 0.0 < site["core_share"] < 1.0 and len(site["port_threads"]) >= 3  # the meter's line and two converters'
