"""The scripts that pages and the Makefile name start, and take the options that are named there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for room in ("world", "fuzz", "mutants", "proof")
    for path in (ROOT / "tests" / room).glob("*.py")
    if "parse_args" in path.read_text()
)
CALLERS = [ROOT / "Makefile", ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named() -> dict[str, set[str]]:
    """script -> the options that a page or the Makefile gives it."""
    found: dict[str, set[str]] = {}
    for caller in CALLERS:
        for script, rest in re.findall(r"(tests/\w+/\w+\.py)([^`\n|;]*)", caller.read_text()):
            found.setdefault(script, set()).update(re.findall(r"(?<!\S)\[?(--[a-z-]+)", rest))
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_starts_and_knows_the_options_that_are_named_for_it(script: str) -> None:
    done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {option for option in named().get(script, set()) if option not in done.stdout}


@pytest.mark.parametrize("script", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/bench/bench_*.py")))
def test_bench_knows_the_options_that_are_named_for_it(script: str) -> None:
    text = (ROOT / script).read_text() + (ROOT / "tests" / "bench" / "harness.py").read_text()
    assert not {option for option in named().get(script, set()) if f'"{option}"' not in text}


def test_every_test_file_that_a_script_or_the_makefile_calls_exists() -> None:
    callers = [
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        ROOT / "tests" / "conftest.py",
        *(ROOT / "tests" / "tools").glob("*.*"),
    ]
    called = {name for path in callers for name in re.findall(r"tests/[\w/]+\.(?:py|sh)", path.read_text())}
    assert len(called) > 8 and not {name for name in called if not (ROOT / name).exists()}


def test_options_are_found_in_pages_and_in_the_makefile() -> None:
    found = named()
    assert found["tests/world/reaction.py"] >= {"--alarms", "--silences"}
    assert found["tests/bench/bench_control.py"] >= {"--only", "--plots"}
