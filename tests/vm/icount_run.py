"""The whole product in a guest whose time is counted in instructions: is a grid point missed, or a path longer?

    python tests/vm/icount_run.py [--seconds S] [--take] [--out FILE]

One nanosecond of the guest is one instruction, so nothing that this machine does besides can make the loop late: what
is asserted here can be asserted in CI. `tests/vm/icount_site.py` runs inside. Asserted: no grid point missed or
skipped; the loop's thread has SCHED_FIFO 80 and its process locked memory, at the begin and at the end, as the kernel
says; the page answered; the site ended in order; work p99 within 5 % of `tests/vm/icount.json`. `--take` writes that
file anew and says what changed. The times are counts of instructions with a unit of time on them: they say nothing of
any board's microseconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))
import arm_guest  # noqa: E402

ROOT = HERE.parents[1]
COMMITTED = HERE / "icount.json"
SHARE = 0.05
LIMIT_S = int(os.environ.get("TIDEGATE_ICOUNT_LIMIT_S", "1500"))  # of host time
# Of a machine: the options of run-vm.sh for it.
RUNNERS = {"x86_64": ["-i"], "aarch64": ["-a", "-i"]}
PHASES = ("read", "estimate", "control", "limit", "write", "publish")
FIFO = 1  # SCHED_FIFO of sched.h
LOOP_PRIORITY = 80


def measured(seconds: float, machine: str) -> dict[str, Any]:
    """Run the guest. Raises SystemExit, with 77 where a program is missing."""
    if machine == "aarch64":
        arm_guest.make()
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        words = [
            str(HERE / "run-vm.sh"),
            *RUNNERS[machine],
            "-t",
            str(LIMIT_S),
            "--",
            *("env", "PYTHONHASHSEED=0"),  # the order of sets and names is the same in each run
            *([sys.executable] if machine == "x86_64" else arm_guest.python_words()),
            str(HERE / "icount_site.py"),
            str(seconds),
            "/run/job/figures.json",
        ]
        kept = Path(folder) / "job"
        done = subprocess.run(words, cwd=ROOT, env={**os.environ, "TIDEGATE_VM_JOB": str(kept)})
        if done.returncode:
            raise SystemExit(done.returncode)
        figures: dict[str, Any] = json.loads((kept / "figures.json").read_text())
        return figures


def broken(figures: dict[str, Any], committed: dict[str, Any] | None) -> list[str]:
    """What of the promises does not hold."""
    found = []
    counters = figures["counters"]
    least = int(0.99 * figures["span_s"] * 1e6 / figures["period_us"])
    if figures["cycles"] < least:
        found.append(f"{figures['cycles']} cycles in {figures['span_s']} s, {least} at least were due")
    found += [f"{counters[name]} {name}" for name in ("missed", "skipped", "overruns") if counters[name]]
    for when, (policy, priority) in figures["loop_policy"].items():
        if (policy, priority) != (FIFO, LOOP_PRIORITY):
            found.append(f"{when}: the loop's thread has policy {policy}, priority {priority}")
    if figures["fifo_threads"]["before"] != figures["fifo_threads"]["after"]:
        found.append(
            f"threads with FIFO: {figures['fifo_threads']['before']}, at the end {figures['fifo_threads']['after']}"
        )
    if min(figures["locked_kib"].values()) <= 0:
        found.append(f"locked memory: {figures['locked_kib']} KiB")
    if figures["mode"] not in ("run", "derated"):
        found.append(f"the site is {figures['mode']} at the end")
    if figures["page_answers"] < max(1, figures["page_asked"] - 1):
        found.append(f"the page answered {figures['page_answers']} of {figures['page_asked']} times")
    if figures["exit_code"] != 0:
        found.append(f"the site ended with {figures['exit_code']}")
    if committed is None:
        found.append(f"no committed figure for {figures['machine']}; take it: python tests/vm/icount_run.py --take")
    else:
        p99, was = figures["quantiles_ns"]["work"]["p99"], committed["work_p99_ns"]
        if abs(p99 / was - 1.0) > SHARE:
            found.append(
                f"work p99 {p99} ns, committed {was} ns: {p99 / was - 1.0:+.1%}, {SHARE:.0%} is allowed; a cause "
                "that is wanted is taken over with --take, and its reason stands in the commit"
            )
    return found


def where(figures: dict[str, Any], was: dict[str, Any]) -> list[str]:
    """Which phase took how much in the mean, and how often the machine was interrupted, beside the committed run."""
    before = was.get("phase_mean_ns", {})
    rows = [(name, figures["quantiles_ns"][name]["mean"], before.get(name)) for name in PHASES]
    rows.append(("interrupts a cycle", figures["interrupts_per_cycle"], was.get("interrupts_per_cycle")))
    return [f"{name}: {now}, committed {'nothing' if then is None else then}" for name, now, then in rows]


def take(figures: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """The committed file with this machine's row made anew."""
    quantiles = figures["quantiles_ns"]
    row = {
        "work_p50_ns": quantiles["work"]["p50"],
        "work_p99_ns": quantiles["work"]["p99"],
        "lateness_p50_ns": quantiles["lateness"]["p50"],
        "lateness_p99_ns": quantiles["lateness"]["p99"],
        "lateness_max_ns": quantiles["lateness"]["max"],
        "phase_mean_ns": {name: quantiles[name]["mean"] for name in PHASES},
        "interrupts_per_cycle": figures["interrupts_per_cycle"],
        "cycles": figures["cycles"],
        "span_s": figures["span_s"],
        "kernel": figures["kernel"],
    }
    return {**whole, figures["machine"]: row}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of guest time")
    parser.add_argument("--machine", choices=sorted(RUNNERS), default="x86_64")
    parser.add_argument("--take", action="store_true", help="write tests/vm/icount.json anew")
    parser.add_argument("--out", type=Path, help="file for all figures as JSON")
    args = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    figures = measured(args.seconds, args.machine)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    whole = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    if args.take:
        made = take(figures, whole)
        for name, value in made[figures["machine"]].items():
            print(f"{name}: {whole.get(figures['machine'], {}).get(name, 'nothing')} -> {value}")
        COMMITTED.write_text(json.dumps(made, indent=1) + "\n")
        whole = made
        print(f"{COMMITTED.relative_to(ROOT)}: taken anew; say in the commit why")
    found = broken(figures, whole.get(figures["machine"]))
    quantiles = figures["quantiles_ns"]
    work, late = quantiles["work"], quantiles["lateness"]
    missed = figures["counters"]["missed"]
    print(f"icount, {figures['machine']}: {figures['cycles']} cycles in {figures['span_s']} s, {missed} missed")
    print(f"  work p50 {work['p50']} ns, p99 {work['p99']} ns; lateness p50 {late['p50']} ns, p99 {late['p99']} ns")
    was = whole.get(figures["machine"], {})
    for line in where(figures, was):
        print(f"  {line}")
    for line in found:
        print(f"icount: BROKEN {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
