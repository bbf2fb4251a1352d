"""Machine code and constants are summed up while the core runs: a bit that flips in them is found and named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.ext.cycle.test_selftest import Lone
from tests.ext.safety.mode_rig import site
from tidegate.ext.cycle import code

ROOT = Path(__file__).parents[3]
Said: TypeAlias = dict[str, int | list[str]]


def flipped(*place: str) -> Said:
    """What a process of its own says that turns a bit over at this place."""
    call = [sys.executable, "-m", "tests.ext.cycle.flipped_code", *place]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: Said = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    "place", [("code", "cycle.loop"), ("code", "safety.gate"), ("constants", "safety.diagnosis")], ids=" ".join
)
def test_a_bit_of_code_or_constants_that_flips_is_found_within_two_looks_and_latched(place: tuple[str, str]) -> None:
    said = flipped(*place)
    assert said["watched"] and said["before"] == [] and said["after"] == ["memory_changed"], said


def test_variables_may_change_and_code_that_does_not_is_never_called_changed() -> None:
    said = flipped("data", "cycle.code")
    assert not said["watched"] and said["before"] == said["after"] == [], said


def test_all_compiled_modules_that_are_loaded_are_watched_and_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    lone = Lone(site())
    try:
        folder = os.path.dirname(os.path.dirname(code.__file__ or ""))
        total = code.watch(lone.core, folder)
        spans = code.spans(lone.core)
        assert total == sum(size for _, size in spans)
        rows = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
        own = [row[0].split("-") for row in rows if len(row) > 5 and row[5].startswith(folder) and "x" in row[1]]
        assert own
        for first, last in own:
            assert any(int(first, 16) <= at < int(last, 16) for at, _ in spans), "a module's code that nobody watches"
        with pytest.raises(LookupError, match="no compiled module"):
            code.watch(lone.core, str(tmp_path))
    finally:
        os.close(lone.fd)
