"""What `make arm` asks of a port thread on a board, asked here; and what it finds of one that spins or hangs."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def arm():
    path = list(sys.path)
    yield runpy.run_path(str(TOOLS / "arm.py"))
    sys.path[:] = path


def test_a_port_thread_here_sleeps_reads_and_writes(arm):
    done = subprocess.run(
        [sys.executable, str(TOOLS / "idle_port.py")], capture_output=True, text=True, timeout=200, check=True
    )
    word, *figures = done.stdout.split()
    port = dict(zip(("sleeps", "readings", "commands"), map(int, figures), strict=True))
    assert word == "port" and port["sleeps"] > 0
    assert arm["port_wrong"](port) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sleeps": 4049}, "slept 4049 times while nothing was due"),
        ({"readings": 0}, "0 readings"),
        ({"commands": 7}, "7 of 8 commands"),
    ],
)
def test_a_thread_that_spins_or_hangs_is_found(arm, changed, words):
    (found,) = arm["port_wrong"]({"sleeps": 10, "readings": 9, "commands": 8} | changed)
    assert words in found
