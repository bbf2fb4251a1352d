"""A slice of the mutants, the oracle that judges them against the gate that ships, and the truth of each decision."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mutants import run, table
from tests.mutants.schema import ROOT, Decision, mutated, recorded
from tests.tools.gate_source import gate_source

HERE = Path(__file__).parent
CYCLES = 200_000

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def oracle(folder: Path, gate: str, *flags: str) -> list[str]:
    """Build gate_oracle.c over a text of the gate and run it; what it printed."""
    (folder / "safety.c").write_text(gate)
    program, source = folder / "oracle", str(HERE / "gate_oracle.c")
    call = ["gcc", "-std=gnu11", *flags, f"-I{folder}", f"-I{ROOT / 'ext'}", "-o", str(program), source]
    subprocess.run(call, check=True)
    done = subprocess.run([str(program), str(run.SEED), str(CYCLES)], capture_output=True, text=True)
    assert done.returncode == 0, f"again: gate_oracle {run.SEED} {CYCLES}\n{done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def test_gate_and_oracle_agree_in_every_cycle(tmp_path: Path) -> None:
    oracle(tmp_path, gate_source(), "-O2", "-Wall", "-Wextra")


def test_the_rewritten_gate_is_the_gate_while_no_mutant_is_chosen(tmp_path: Path) -> None:
    oracle(tmp_path, mutated()[0], "-O1", "-w")


def independent(decision: Decision, seen: dict[int, set[int]]) -> list[int]:
    """The conditions that alone have turned the outcome: MC/DC, by unique cause."""
    found = []
    for i in range(decision.count):
        if any(truth ^ 1 << i in seen[1] for truth in seen[0]):
            found.append(i)
    return found


def test_each_condition_of_each_decision_alone_turns_the_outcome(tmp_path: Path) -> None:
    text, decisions = recorded()
    seen: dict[int, dict[int, set[int]]] = {decision.number: {0: set(), 1: set()} for decision in decisions}
    for line in oracle(tmp_path, text, "-O2", "-w", "-DRECORD"):
        number, truth, outcome = map(int, line.split())
        seen[number][outcome].add(truth)
    missed = [
        f"{one.function}, line {one.line}: condition {i + 1} of {one.text}"
        for one in decisions
        for i in set(range(one.count)) - set(independent(one, seen[one.number]))
    ]
    assert len(decisions) >= 20 and not missed, missed


def test_a_slice_of_the_mutants_is_noticed_or_stands_with_its_reason() -> None:
    _, noticed, names = run.judge(20, 10, run.SEED)
    assert noticed >= 25 and set(names) <= set(run.justified()), names


def test_the_tests_of_a_row_pass_with_the_table_as_it_is() -> None:
    assert table.failing("temp_high_stop") == "" and table.failing("loop_pause") == ""
