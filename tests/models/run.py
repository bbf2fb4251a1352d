"""Every state of what runs side by side, by spin: the models hold, and a fault planted in each is found.

Usage: run.py [MODEL ...]; all of spin/*.pml without one. Exit 1 when a model fails or a planted fault stays unseen, 77
without spin or a C compiler. Memory is sequentially consistent in a model; the order that a processor may give to loads
and stores is the matter of the thread sanitizer's harness (`borders.py`).
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

MODELS = sorted((Path(__file__).parent / "spin").glob("*.pml"))
DEPTH_MAX = 1_000_000


class Verdict(NamedTuple):
    """What spin found: errors (0 or 1; it ends at the first), states stored, and its own words."""

    errors: int
    states: int
    said: str


def plants(model: Path) -> list[str]:
    """The faults that a model can be built with."""
    return sorted(set(re.findall(r"^#if(?:n?def) (PLANT_\w+)", model.read_text(), re.M)))


def search(model: Path, plant: str = "") -> Verdict:
    """Search every state of a model, with one planted fault or none. Raises RuntimeError if the search is not whole."""
    with tempfile.TemporaryDirectory() as folder:
        define = [f"-D{plant}"] if plant else []
        for words in (
            ["spin", "-a", *define, str(model)],
            ["gcc", "-O1", "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c"],
        ):
            subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
        done = subprocess.run(["./pan", f"-m{DEPTH_MAX}"], cwd=folder, capture_output=True, text=True)
    errors = re.search(r"errors: (\d+)", done.stdout)
    states = re.search(r"(\d+) states, stored", done.stdout)
    if errors is None or states is None or "max search depth too small" in done.stdout:
        raise RuntimeError(f"{model.name} {plant}: the search did not end\n{done.stdout}{done.stderr}")
    return Verdict(int(errors[1]), int(states[1]), done.stdout)


def main(names: list[str]) -> int:
    lacks = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    if lacks:
        print(f"models: this machine lacks {', '.join(lacks)}")
        return 77
    failed = 0
    for model in MODELS:
        if names and model.stem not in names:
            continue
        whole = search(model)
        failed += whole.errors
        print(f"{model.stem:10} {whole.states:8} states, {whole.errors} errors")
        for plant in plants(model):
            found = search(model, plant).errors
            failed += not found
            print(f"{'':10} {plant}: {'found' if found else 'NOT FOUND'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
