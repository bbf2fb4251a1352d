"""Is the proof awake? Each planted fault must make it fail.

Run: make prove, or python tests/proof/planted.py [--only N]
A fault is planted in a copy of the gate, and the function that it sits in is proved again. Exit code 1 if
any fault goes unnoticed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.tools.gate_source import gate_source  # noqa: E402

FAULTS = [  # what it is, function proved, text in the gate, text planted
    ("a limit that does not limit", "within", "        return low_end;", "        return x;"),
    ("power wraps around", "power_w", "return (int32_t)least((int64_t)mv * ma / 1000000, INT32_MAX);",
     "return (int32_t)((int64_t)mv * ma / 1000000);"),
    ("power at the very limit", "taper_w", "if (w <= 0 || room <= 0)", "if (w <= 0 || room < 0)"),
    ("the wider of two limits", "bound_narrow", "if (limit_w < bound.w)", "if (limit_w > bound.w)"),
    ("a lost converter overlooked", "known", "\n        || missing(input, VALID_ESS_W))", ")"),
    ("a forbidden direction", "narrowest", "bound_narrow_if(dir.enabled == 0,", "bound_narrow_if(dir.enabled == 2,"),
    ("a current limit left out", "narrowest", "power_w(input->pack_mv, dir.ma), LIMIT_CURRENT",
     "power_w(input->pack_mv, dir.own_ma), LIMIT_CURRENT"),
    ("a latch lost while active", "row_step", "if (ack && !memory.active && memory", "if (ack && memory"),
    ("a row that never acts", "row_fill",
     "if (!present || filled_us < debounce_us)",
     "if (!present || filled_us <= debounce_us)"),
    ("the lowest reaction wins", "response_join", "graver = severe > response", "graver = severe < response"),
    ("armed with a latch", "trip_of", " && !response.latches)", ")"),
    ("a change of side not from zero", "reach_mw",
     "above_zero(above_zero(last_mw) + up_mw", "above_zero(last_mw + up_mw"),
    ("a setpoint out of the envelope", "reach_mw", "least(least(above_zero(wanted_mw), most_mw),",
     "least(above_zero(wanted_mw),"),
    ("power while tripped", "decide", "facts.request_valid && !stays,", "facts.request_valid,"),
    ("a heartbeat on unknown inputs", "decide", "heartbeat_ok = facts.good && response", "heartbeat_ok = response"),
]  # fmt: skip


def noticed(function: str, before: str, after: str) -> bool:
    """Whether the proof of `function` fails once `before` is replaced by `after`."""
    text = gate_source()
    if text.count(before) != 1:
        raise SystemExit(
            f"planted: {before!r} stands {text.count(before)} times in the gate; bring the list up to date"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "safety.c"
        copy.write_text(text.replace(before, after))
        env = {**os.environ, "FUNCTIONS": function, "Z3_STEPS": "2000000"}
        done = subprocess.run([HERE / "prove.sh", copy], env=env, capture_output=True, text=True)
    if done.returncode == 2:
        raise SystemExit(done.stderr or done.stdout)
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", type=int, help="number of one fault, from 1")
    only = parser.parse_args().only
    missed = 0
    for number, (what, function, before, after) in enumerate(FAULTS, 1):
        if only in (None, number):
            found = noticed(function, before, after)
            missed += not found
            print(
                f"planted fault {number:2} in {function}: {what}: {'noticed' if found else 'NOT NOTICED'}", flush=True
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
