"""Jobs of a real Slurm moved by the plan at 60 times the speed, while planner and adapter are killed at random.

Run: python tests/bench/bench_slurm.py [--minutes 24] [--jobs 200] [--seed 1] [--out DIR] [--smoke]
A minute is an hour of the day. Each job is given `--begin=now+10`, so that the adapter sees it before it starts; it
rests for 2 to 40 s, has a limit of one minute (Slurm knows no less) and a deadline 1 to 6 minutes behind that. Planner
(a plan each 15 s) and adapter (a round each second) are SIGKILLed about every 45 s and started again up to 30 s later,
and for good when the last job has come. What is counted: jobs that did not end, jobs that ended after their deadline,
jobs that were moved, and what their energy cost beside no moving.
Without Slurm's daemons, or without root, it says so and measures nothing.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import harness
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.runtime.planner import slurm_node
from tidegate.runtime.planner.announced_jobs import jobs_within, read_jobs, runs_of
from tidegate.runtime.planner.plan_inputs import Connection, Horizon, Storage
from tidegate.runtime.planner.plan_solver import solve
from tidegate.runtime.planner.slurm_adapter import Allowed, SlurmAdapter
from tidegate.runtime.planner.slurm_queue import Slurm
from tidegate.runtime.state import atomic_file

STEP_S, STEPS = 15, 48
LEASE_S, MARGIN_S, STALE_S = 8.0, 6.0, 60.0
DAY_S = 24 * 60


def price_at(utc_s: float, begin: float) -> float:
    """EUR/kWh: cheap at night and at noon of the fast day."""
    hour = (utc_s - begin) / DAY_S * 24 % 24
    return 0.30 + 0.12 * np.cos((hour - 19) * np.pi / 6)


def plan_for_ever(folder: Path, begin: float) -> None:
    """The planner of the fast day: the same solver, steps of 15 s."""
    while True:
        start = int(time.time()) // STEP_S * STEP_S
        price = np.array([price_at(start + k * STEP_S, begin) for k in range(STEPS)])
        load = np.full(STEPS, 40.0)
        horizon = Horizon(start, STEP_S, load, 0 * load, price, 0 * price, np.ones(STEPS, dtype=bool))
        within, placed, _ = jobs_within(read_jobs(folder), horizon)
        horizon = Horizon(**{**horizon.__dict__, "jobs": within})
        plan = solve(Storage(1.0, 30, 30), Connection(1e4, 1e4), horizon, 0.5)
        jobs = [{"name": job.name, "runs_utc_s": runs_of(row, horizon)}
                for job, row in zip(placed, plan.jobs_kw, strict=True)]  # fmt: skip
        told = {"planned_utc_s": int(time.time()), "jobs": jobs}
        atomic_file.replace(folder / "planner.json", json.dumps(told).encode())
        time.sleep(STEP_S - time.time() % STEP_S + 0.1)


def adapt_for_ever(folder: Path, conf: str) -> None:
    """The adapter, each second."""
    allowed = Allowed(("flex",), lease_s=LEASE_S, margin_s=MARGIN_S, stale_s=STALE_S, delayed_max=200)
    adapter = SlurmAdapter(Slurm({"SLURM_CONF": conf, "PATH": f"{os.environ['PATH']}:/usr/sbin"}), folder, allowed)
    while True:
        adapter.round()
        time.sleep(1.0)


class Mortal:
    """A process that is killed at random and comes back."""

    def __init__(self, words: list[str], rng: random.Random, every_s: float) -> None:
        self._words, self._rng, self._every_s = words, rng, every_s
        self._process: subprocess.Popen[bytes] | None = None
        self.kills, self._due = 0, 0.0

    def look(self, now: float) -> None:
        """Kill or start it, when its time has come."""
        if now < self._due:
            return
        if self._process is None:
            self._process = subprocess.Popen([sys.executable, __file__, *self._words])
            self._due = now + self._rng.expovariate(1 / self._every_s)
            return
        self.kill()
        self._due = now + self._rng.uniform(0, 30)

    def kill(self) -> None:
        """Without a word."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process, self.kills = None, self.kills + 1


def fast_day(minutes: float, count: int, seed: int) -> dict[str, float]:
    """One fast day; the figures of it."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="tidegate-slurm-") as made:
        folder = Path(made) / "planner"
        folder.mkdir()
        with slurm_node.SlurmNode(Path(made) / "slurm", cpus=256) as node:
            begin = time.time()
            mortals = [
                Mortal(["plan", str(folder), str(begin)], rng, 45.0),
                Mortal(["adapt", str(folder), str(node.conf)], rng, 45.0),
            ]
            jobs: dict[int, tuple[float, float, float]] = {}  # submitted, deadline, seconds
            try:
                arrivals = sorted(rng.uniform(0, 60 * minutes) for _ in range(count))
                for at in arrivals:
                    while time.time() < begin + at:
                        for one in mortals:
                            one.look(time.time())
                        time.sleep(0.2)
                    seconds, window = rng.uniform(2, 40), rng.uniform(60, 360)
                    deadline = int(time.time() + 60 + window)
                    when = datetime.fromtimestamp(deadline).astimezone().isoformat()
                    job = node.submit(
                        round(seconds, 1),
                        "-t",
                        "1",
                        "--begin=now+10",
                        comment=f"tidegate:kw={rng.randint(5, 40)},deadline={when}",
                    )
                    jobs[job] = (time.time(), deadline, seconds)
                for one in mortals:  # for good
                    one.kill()
                gone = time.time()
                while len(node.completed()) < len(jobs) and time.time() < gone + 480:
                    time.sleep(1.0)
            finally:
                for one in mortals:
                    one.kill()
            done = node.completed()
            return _counted(jobs, done, folder, begin, sum(one.kills for one in mortals))


def _counted(jobs: dict[int, tuple[float, float, float]], done: dict[int, dict[str, str]], folder: Path, begin: float,
             kills: int) -> dict[str, float]:  # fmt: skip
    ended = {job: row for job, row in done.items() if job in jobs and row["JobState"] == "COMPLETED"}

    def at(row: dict[str, str], name: str) -> float:
        return datetime.fromisoformat(f"{row[name]}+00:00").timestamp()

    late = [job for job, row in ended.items() if at(row, "EndTime") > jobs[job][1]]
    waited = [at(row, "StartTime") - jobs[job][0] for job, row in ended.items()]
    paid = sum(price_at(at(row, "StartTime"), begin) * jobs[job][2] for job, row in ended.items())
    unmoved = sum(price_at(jobs[job][0], begin) * jobs[job][2] for job in ended)
    audit = (folder / "slurm-audit.jsonl").read_text().splitlines() if (folder / "slurm-audit.jsonl").exists() else []
    moved = {json.loads(line)["job_id"] for line in audit if json.loads(line)["kind"] == "delay"}
    return {
        "jobs": len(jobs), "not ended": len(jobs) - len(ended), "late": len(late), "moved": len(moved), "kills": kills,
        "orders": len(audit), "median wait s": float(np.median(waited)) if waited else 0.0,
        "cost beside unmoved": paid / unmoved if unmoved else 1.0,
    }  # fmt: skip


def main() -> int:
    if sys.argv[1:2] == ["plan"]:
        plan_for_ever(Path(sys.argv[2]), float(sys.argv[3]))
    if sys.argv[1:2] == ["adapt"]:
        adapt_for_ever(Path(sys.argv[2]), sys.argv[3])
    parser = harness.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=24.0)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if lacks := slurm_node.missing():
        print(f"not measured: {lacks}")
        return 0
    if args.smoke:
        args.minutes, args.jobs = 0.2, 3
    with harness.conditions(args) as given:
        given.peer("the same jobs, not moved", "their energy at the price when they came")
        figures = fast_day(args.minutes, args.jobs, args.seed)
        print(", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    harness.write(args, "slurm", figures, given)
    return int(figures["not ended"] + figures["late"] > 0)


if __name__ == "__main__":
    sys.exit(main())
