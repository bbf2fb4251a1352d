"""`tidegate doctor`: what this machine and the site's buses give, what they cost, and the command that mends it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import click

from tidegate.config.site import SiteError
from tidegate.runtime.commissioning import bus_checks, latency, machine, separation, storage
from tidegate.runtime.commissioning.machine import COSTS, FIX, OK, UNKNOWN, Finding
from tidegate.runtime.supervisor.preflight import prepare

WORDS = {OK: "ok", COSTS: "costs you", FIX: "fix", UNKNOWN: "unknown"}
EXIT_COSTS, EXIT_FIX = 1, 2


@click.command()
@click.argument("site", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--seconds", type=click.FloatRange(0, 3600), default=3.0, show_default=True,
              help="Length of the latency test; 0 leaves it out.")  # fmt: skip
def doctor(site: Path | None, as_json: bool, seconds: float) -> None:
    """Look the machine over, and the buses of SITE if given. Changes nothing.

    Each line says ok, costs you, or fix, with the command to run. Exit status: 0 all is well, 1 something costs,
    2 something must be fixed.
    """
    findings = list(examine(site, seconds))
    code = EXIT_FIX if any(one.verdict == FIX for one in findings) else 0
    code = code or (EXIT_COSTS if any(one.verdict == COSTS for one in findings) else 0)
    if as_json:
        click.echo(json.dumps({"exit_code": code, "findings": [dataclasses.asdict(one) for one in findings]}, indent=1))
    else:
        for one in findings:
            click.echo(f"{WORDS[one.verdict]:<9} {one.topic}: {one.says}")
            if one.remedy:
                click.echo(f"{'':<9}   -> {one.remedy}")
        counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in WORDS}
        click.echo(f"{counts[OK]} ok, {counts[COSTS]} cost you something, {counts[FIX]} to fix")
    sys.exit(code)


def examine(path: Path | None, seconds: float) -> list[Finding]:
    """All findings, in the order in which they are worth mending."""
    found: list[Finding] = []
    site = None
    if path is not None:
        try:
            site, _ = prepare(path)
            found.append(Finding("site file", OK, f"{path} is good"))
        except SiteError as why:
            rest = f" (and {len(why.problems) - 1} more)" if len(why.problems) > 1 else ""
            found.append(Finding("site file", FIX, f"{path}: {why.problems[0]}{rest}", f"tidegate check {path}"))
    found += machine.look(machine.Machine())
    found.append(separation.look())
    if site is not None:
        found += bus_checks.look(site)
    found += storage.look(site)
    if seconds > 0:
        found.append(latency_test(seconds))
    return found


def latency_test(seconds: float) -> Finding:
    """The loop itself for a while, in a process of its own."""
    words = [sys.executable, "-m", "tidegate.runtime.commissioning.latency", "--seconds", str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Finding("latency", UNKNOWN, f"the test ended with code {done.returncode}: {last}")
    return latency_words(json.loads(done.stdout))


def latency_words(measured: dict) -> Finding:  # type: ignore[type-arg]
    """The finding for what the test measured."""
    loop, peer = measured["loop"], measured["cyclictest"]
    verdict, words = latency.band(loop["max_us"])
    said = f"a 1 kHz loop begins {loop['p99_us']:.0f} us late at p99, {loop['max_us']:.0f} us at worst: {words}"
    if not measured["fifo"]:
        said += "; measured without the right to SCHED_FIFO"
    if peer is not None:
        said += f"; cyclictest in turn with it: {peer['p99_us']:.0f} and {peer['max_us']:.0f} us"
    else:
        said += "; to compare: apt install rt-tests"
    remedy = "see kernel, rt priority and cpu isolation above" if verdict != OK else ""
    return Finding("latency", verdict, said, remedy, measured)
