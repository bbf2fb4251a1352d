"""A short run of each fuzzing target, so that a harness that no longer builds or a plain finding is seen at once.

The full run is `make fuzz`.
"""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("target", ["can", "pylon", "registers", "rtu"])
def test_a_short_fuzzing_run_finds_nothing(target):
    words = [str(ROOT / "tests/fuzz/run.sh"), "-n", "5000", target]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "number_of_executed_units: 5000" in done.stdout
