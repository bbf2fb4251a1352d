"""Mutants of the safety gate and of every number of its fault table; which of them do the tests notice?

    python tests/mutants/run.py                  # all; `make mutants`
    python tests/mutants/run.py --slice 30       # a seeded sample of so many
    python tests/mutants/run.py --only 123       # one mutant of the gate, by number

The gate's are in one build (schema.py) and judged by an oracle (gate_oracle.c); the table's are changed as the table is
loaded (table.py) and judged by the tests of their row. Whatever nobody notices must stand in survivors.toml with the
reason why that is right; exit code 1 if one does not, or if more than 1 % survive.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.mutants import table  # noqa: E402
from tests.mutants.schema import Mutant, mutated  # noqa: E402

SEED = 20261125
# Nine in ten are noticed within the first; what is left over is tried for longer, with another seed.
ROUNDS = ((SEED, 4_000), (SEED + 1, 60_000))
SHARE_MAX = 0.01
FLAGS = ("-std=gnu11", "-w", f"-I{ROOT / 'ext'}")
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DMUTANTS")
# What a mutant leaves out is not there: without a pattern a compiler may take an unset field for the value left out.
UNSET = "-ftrivial-auto-var-init=pattern"
# A mutant whose machine code is the gate's own is no mutant.
COMPILERS = (("gcc", "-O2"), ("gcc", "-Os"), ("clang", "-O2"))


class Gate:
    """All mutants of the gate in one program."""

    def __init__(self, folder: Path) -> None:
        text, self.mutants = mutated()
        self.folder = folder
        (folder / "safety.c").write_text(text)
        self.program = folder / "mutants"
        source = str(HERE / "gate_oracle.c")
        call = ["gcc", f"-I{folder}", *FLAGS, *SANITIZED, UNSET, "-o", str(self.program), source]
        subprocess.run(call, check=True)
        self.own: dict[tuple[str, ...], str] = {}

    def survivors(self, chosen: list[Mutant]) -> list[Mutant]:
        """Those that the oracle does not notice."""
        for seed, cycles in ROUNDS:
            left = {number for one in spans(chosen) for number in self._round(seed, cycles, one)}
            chosen = [mutant for mutant in chosen if mutant.number in left]
        return chosen

    def _round(self, seed: int, cycles: int, span: tuple[int, int]) -> list[int]:
        call = [str(self.program), str(seed), str(cycles), str(span[0]), str(span[1])]
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # which may not be looked for where ptrace is forbidden
        said = subprocess.run(call, check=True, capture_output=True, text=True, env=env).stdout.splitlines()
        assert len(said) == span[1] - span[0] + 1, said
        return [int(line.split()[0]) for line in said if line.endswith("survived")]

    def is_the_gate(self, mutant: Mutant) -> bool:
        """Whether a compiler makes the very same machine code of it."""
        for compiler in COMPILERS:
            if shutil.which(compiler[0]) is None:
                continue
            if compiler not in self.own:
                self.own[compiler] = self._code(compiler, 0)
            if self._code(compiler, mutant.number) == self.own[compiler]:
                return True
        return False

    def _code(self, compiler: tuple[str, ...], number: int) -> str:
        call = [*compiler, *FLAGS, f"-DFIXED={number}", "-S", "-o", "-", str(self.folder / "safety.c")]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout


def spans(chosen: list[Mutant]) -> list[tuple[int, int]]:
    """Runs of numbers without a hole."""
    found: list[tuple[int, int]] = []
    for number in sorted(mutant.number for mutant in chosen):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def justified() -> dict[str, str]:
    """name of a survivor -> why it changes nothing that anybody could see."""
    found: dict[str, str] = tomllib.loads((HERE / "survivors.toml").read_text())["survivors"]
    return found


def judge(
    gate_mutants: int | None, table_mutants: int | None, seed: int, only: int | None = None
) -> tuple[int, int, list[str]]:
    """(mutants, of them noticed, names of those that were not); a number of each, or None for all."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(Path(folder))
        chosen = gate.mutants if gate_mutants is None else chance.sample(gate.mutants, gate_mutants)
        if only is not None:
            chosen = [gate.mutants[only - 1]]
        left = gate.survivors(chosen)
        same = [mutant for mutant in left if gate.is_the_gate(mutant)]
        left = [mutant for mutant in left if mutant not in same]
        count = len(chosen) - len(same)
        print(f"gate: {count} mutants ({len(same)} more are the gate's own machine code), {len(left)} not noticed")
    rows = table.mutants() if table_mutants is None else chance.sample(table.mutants(), table_mutants)
    loose = [mutant for mutant in rows if not table.noticed(mutant)] if only is None else []
    if only is None:
        print(f"table: {len(rows)} mutants of {len({(m.row, m.key) for m in rows})} numbers, {len(loose)} not noticed")
    names = [mutant.name for mutant in left] + [mutant.name for mutant in loose]
    return count + len(rows) * (only is None), count + len(rows) * (only is None) - len(names), names


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", type=int, help="a sample of so many instead of all")
    parser.add_argument("--seed", type=int, default=SEED, help="of the sample")
    parser.add_argument("--only", type=int, help="one mutant of the gate")
    options = parser.parse_args()
    started, share = time.monotonic(), options.slice
    if options.only is not None:
        print(mutated()[1][options.only - 1])
    if share is None:
        count, noticed, names = judge(None, None, options.seed, options.only)
    else:
        count, noticed, names = judge(share * 2 // 3, share - share * 2 // 3, options.seed)
    reasons = justified()
    for name in names:
        print(f"  not noticed: {name}\n    {reasons.get(name, 'NOT JUSTIFIED in survivors.toml')}")
    unknown = [name for name in names if name not in reasons]
    print(f"{count} mutants, {noticed} noticed, {len(names)} survive ({100 * len(names) / count:.2f} %), "
          f"{len(unknown)} of them without a reason; {time.monotonic() - started:.0f} s")  # fmt: skip
    too_many = share is None and options.only is None and len(names) > SHARE_MAX * count
    return 1 if unknown or too_many else 0


if __name__ == "__main__":
    sys.exit(main())
