"""The carbon account's long runs: `make carbon`, or `python tests/tools/carbon_long.py conserved|kills|flips ...`.

The tests are those of `make test`, which runs a slice of each; here they run as long as it takes, one after the other,
and say how long that was.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = {
    "conserved": (
        "10^5 site-days: 0 micrograms off, equal to plain fractions",
        {"CARBON_DAYS": "100000"},
        ["tests/runtime/carbon/engine/test_attribution.py"],
        "",
    ),
    "kills": (
        "kill -9 at 1,000 points of booking, SQLite and PostgreSQL",
        {"CARBON_KILLS": "1000"},
        ["tests/runtime/carbon/ledger/test_databases.py"],
        "kill_9",
    ),
    "flips": (
        "one bit flipped, 10,000 times in the ledger, 2,000 times in a report",
        {"CARBON_FLIPS": "10000"},
        ["tests/runtime/carbon/ledger/test_signing.py", "tests/runtime/carbon/report/test_write.py"],
        "flip or changed_anywhere",
    ),
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in RUNS]
    if unknown or not names:
        print(f"carbon_long: {', '.join(unknown) or 'nothing'}: expected some of {', '.join(RUNS)}", file=sys.stderr)
        return 64
    failed = 0
    for name in names:
        what, more, files, wanted = RUNS[name]
        print(f"== {name}: {what}", flush=True)
        began = time.monotonic()
        words = [sys.executable, "-m", "pytest", "-q", "-rs", *files, *(["-k", wanted] if wanted else [])]
        code = subprocess.run(words, cwd=ROOT, env={**os.environ, **more}).returncode
        print(
            f"{name}: {'held' if code == 0 else f'failed, exit code {code}'}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        failed += code != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
