"""The gate's rules under seeded random inputs in volume (gate_volume.c): sanitized, covered, on two optimisations."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.gate_source import gate_source

ROOT = Path(__file__).parents[3]
SEED, CYCLES = 20261120, 1_000_000

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def build(folder: Path, *flags: str, safety: str | None = None) -> Path:
    """Compile gate_volume.c with the shipped gate, or with the given text in its place."""
    (folder / "safety.c").write_text(gate_source() if safety is None else safety)
    target = folder / "gate_volume"
    call = ["gcc", "-std=gnu11", "-Wall", "-Wextra", *flags, f"-I{folder}", f"-I{ROOT / 'ext'}", "-o", str(target)]
    subprocess.run([*call, str(ROOT / "tests" / "ext" / "safety" / "gate_volume.c")], check=True, cwd=folder)
    return target


def run(program: Path, seed: int = SEED, cycles: int = CYCLES) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, str(seed), str(cycles)], capture_output=True, text=True, cwd=program.parent, check=False
    )


def test_no_rule_is_violated_and_both_optimisations_agree_to_the_byte(tmp_path: Path) -> None:
    outputs = []
    for level in ("-O2", "-O0"):
        (tmp_path / level).mkdir()
        done = run(build(tmp_path / level, level))
        assert done.returncode == 0, f"again: gate_volume {SEED} {CYCLES}\n{done.stdout}"
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and "violations 0" in outputs[0]
    figures = outputs[0].split()
    assert int(figures[3]) > CYCLES // 10, "too little power flowed for the rules to mean much"


def test_nothing_undefined_happens(tmp_path: Path) -> None:
    program = build(tmp_path, "-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    done = run(program, cycles=200_000)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_every_line_and_branch_of_the_gate_is_run(tmp_path: Path) -> None:
    program = build(tmp_path, "-O0", "--coverage")
    assert run(program).returncode == 0
    call = ["gcov", "-b", "-c", *(str(found) for found in tmp_path.glob("*.gcda"))]
    report = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    mine = report[report.index("safety.c'") :]
    figures = dict(re.findall(r"(Lines executed|Taken at least once):([\d.]+)%", mine.split("Creating")[0]))
    listing = (tmp_path / "safety.c.gcov").read_text()
    missed = [line for line in listing.splitlines() if "#####" in line]
    assert figures == {"Lines executed": "100.00", "Taken at least once": "100.00"}, missed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("facts.request_valid && !stays,", "facts.request_valid,"),
        ("dir.w_bit, dir.cell_bit), bound, 0,", "dir.w_bit, dir.cell_bit), bound, 1,"),
        ("if (ack && !memory.active && memory.latched)", "if (memory.latched)"),
        ("const int graver = severe > response.reaction;", "const int graver = severe == 4;"),
        ("heartbeat_ok = facts.good && response", "heartbeat_ok = response"),
        ("within(input->dt_us, 0, GATE_RAMP_DT_US_MAX)", "within(input->dt_us, 0, GATE_DT_US_MAX)"),
        ("now != 0 && before == 0;\n}", "now != 0;\n}"),
    ],
)
def test_a_planted_fault_is_noticed(tmp_path: Path, before: str, after: str) -> None:
    text = gate_source()
    assert before in text
    assert run(build(tmp_path, "-O1", safety=text.replace(before, after)), cycles=200_000).returncode == 1
