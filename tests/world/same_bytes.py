"""The whole core built twice, with -O0 and with -O2, against the same simulated faults: the same bytes must come out.

    python tests/world/same_bytes.py --seeds 1:4     # builds into build/same-bytes, runs 47 s of plant a seed

What is compared: everything on the serial lines, each meter record, each event, and the world's checks.
"""

import argparse
import ast
import importlib.machinery
import json
import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=gnu11", "-ffp-contract=off", "-g0", "-fPIC", "-shared", "-w"]
LEVELS = ("-O0", "-O2")


def modules() -> dict[str, tuple[str, ...]]:
    """Module -> C files linked in, as setup.py lists them."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "MODULES" and node.value:
            found: dict[str, tuple[str, ...]] = ast.literal_eval(node.value)
            return found
    raise LookupError("setup.py: no MODULES")


def build(level: str, flags: list[str] | None = None) -> Path:
    """A folder for PYTHONPATH that holds the core compiled with this level; the rest are links."""
    folder = ROOT / "build" / "same-bytes" / level.strip("-")
    ext = folder / "tidegate" / "ext"
    ext.mkdir(parents=True, exist_ok=True)
    links = {folder / "tidegate" / name: ROOT / name for name in ("config", "hal", "runtime")}
    for path in (ROOT / "ext").rglob("*.py"):
        link = ext / path.relative_to(ROOT / "ext")
        link.parent.mkdir(exist_ok=True)
        links[link] = path
    for link, target in links.items():
        if not link.is_symlink():
            link.symlink_to(target)
    compiler = shlex.split(os.environ.get("CC", "cc"))
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    include = ["-I", sysconfig.get_paths()["include"], "-I", str(ROOT / "ext")]

    def compile_one(name: str, linked: tuple[str, ...]) -> None:
        path = name.replace(".", "/")
        sources = [str(ROOT / "ext" / source) for source in (f"{path}.c", *linked)]
        objects = []
        for source in sources:  # one call each, so that a compiler cache can help
            objects.append(str(ext / f"{path}-{Path(source).stem}.o"))
            subprocess.run(
                [*compiler, level, *FLAGS, *(flags or []), *include, "-c", source, "-o", objects[-1]], check=True
            )
        subprocess.run([*compiler, "-shared", *objects, "-o", str(ext / f"{path}{suffix}"), "-lm"], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, *zip(*modules().items(), strict=True)))
    return folder


def outcome(folder: Path, first: int, behind: int) -> list[dict]:
    """What the core of this folder does with these seeds."""
    code = (
        "import json, sys; import campaign; from tidegate.ext.cycle import loop; from tidegate.ext.sim import world;"
        "assert all(m.__file__.startswith(sys.argv[1]) for m in (loop, world)), loop.__file__;"
        "keep = ('seed', 'sha256', 'checks', 'events', 'failed', 'cycles');"
        "runs = [campaign.run(seed) for seed in range(int(sys.argv[2]), int(sys.argv[3]))];"
        "print(json.dumps([{key: run[key] for key in keep} for run in runs]))"
    )
    paths = os.pathsep.join([str(folder), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(first), str(behind)],
        env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: list[dict] = json.loads(done.stdout)
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1:4", help="FIRST:BEHIND")
    first, behind = (int(part) for part in parser.parse_args().seeds.split(":"))
    runs = {level: outcome(build(level), first, behind) for level in LEVELS}
    same = True
    for plain, optimised in zip(*runs.values(), strict=True):
        equal = plain == optimised
        same &= equal
        shas = ", ".join(f"{level} {run['sha256'][:16]}" for level, run in zip(LEVELS, (plain, optimised), strict=True))
        print(
            f"seed {plain['seed']}: {plain['cycles']} cycles, {len(plain['events'])} events, {shas}: "
            f"{'equal' if equal else 'DIFFERENT'}"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
