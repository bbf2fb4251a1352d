"""Ours beside the schedulers that a user would take instead, EMHASS' and FlexMeasures': saving, time and memory.

Run: python tests/bench/bench_peers.py [--make] [--only NAMES] [--days N] [--stretches N] [--apart DAYS]
Each peer is in an environment of its own, build/peers/NAME, which --make makes from PyPI (2.5 GB); one that is not
there is left out, and that is named. All get the same question each hour: prices as far as published, load and
sun as our forecasters expect them, the state of charge that their own orders led to. So it is the scheduler that is
judged, not its forecast. Days, prices, battery and foresight are those of bench_planner.py. Each in its own process.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import harness
import numpy as np

from tidegate.runtime.planner import rolling_plan
from tidegate.runtime.planner.forecasts import filled
from tidegate.runtime.planner.hours_table import read_hours
from tidegate.runtime.planner.plan_inputs import Connection, Storage

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/planner/de_lu_gpu_room_2025H1.csv"
WORKER = Path(__file__).with_name("peer_schedulers.py")
PEERS = {"flexmeasures": "1.0.1", "emhass": "0.18.7"}
STORAGE = Storage(60, 30, 30)
OPEN = Connection(200, 200)
WARM_DAYS = 21


def interpreter(name: str) -> Path:
    """Of a peer's environment; ours for ours."""
    folder = ROOT / "build/peers" / name.removesuffix("-exact")
    return Path(sys.executable) if name == "tidegate" else folder / "bin/python"


def make(name: str, version: str) -> None:
    """An environment of its own."""
    python = interpreter(name)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", f"{name}=={version}"], check=True)


class Peer:
    """One scheduler in its own process."""

    def __init__(self, name: str) -> None:
        storage = {key: value for key, value in asdict(STORAGE).items() if key != "efficiency_at"}
        began = time.perf_counter()
        words = [str(interpreter(name)), str(WORKER), name, json.dumps(storage)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe, stderr=nowhere)
        self.version = self._answer()["version"]
        self.start_s = time.perf_counter() - began
        self.solve_s: list[float] = []
        self.resident_mib, self.without, self.why = 0.0, 0, ""

    def _answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: it ended")
        return dict(json.loads(line))

    def first_kw(self, question: dict[str, object]) -> float:
        """Rest where it has no plan, which is counted."""
        assert self.process.stdin is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        answer = self._answer()
        self.solve_s.append(float(str(answer["solve_s"])))
        self.resident_mib = float(str(answer["resident_mib"]))
        if answer["battery_kw"] is None:
            self.without, self.why = self.without + 1, str(answer["why"]) or "no optimum"
            return 0.0
        return float(str(answer["battery_kw"]))

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def beside(names: list[str], days: int, stretches: int, apart: int) -> dict[str, dict[str, float | str]]:
    """Share of foresight and cost of a plan, each. Stretches of `days` begin `apart` days after one another."""
    table = read_hours(DATA)
    load, pv, price = (filled(one) for one in (table.load_kw, table.pv_kw, table.price_eur_per_kwh))
    begin = datetime.fromtimestamp(table.begin_utc.timestamp(), UTC)

    def lived(first: int, end: int) -> rolling_plan.Past:
        return rolling_plan.Past(begin, load[:end], pv[:end], price[:end], 0.13, ZoneInfo("Europe/Berlin"), first)

    firsts = [24 * (WARM_DAYS + apart * k) for k in range(stretches)]
    firsts = [one for one in firsts if one + 24 * days + 48 <= len(load)]
    pasts = [lived(first, first + 24 * days) for first in firsts]
    nones = [rolling_plan.operate(past, STORAGE, OPEN, "none", rolling_plan.no_battery, 30.0) for past in pasts]
    bests = [rolling_plan.foresight(past, STORAGE, OPEN, 30.0) for past in pasts]
    most_eur = sum(none.cost_eur - best.cost_eur for none, best in zip(nones, bests, strict=True))
    # Questions look beyond the last judged hour: none of them is shorter than the others.
    ahead = rolling_plan.RollingPlanner(lived(firsts[0], len(load)), STORAGE, OPEN)
    questions: dict[int, dict[str, object]] = {}

    def question(hour: int, stored_kwh: float) -> dict[str, object]:
        if hour not in questions:
            horizon = ahead.look_ahead(hour)
            questions[hour] = {name: getattr(horizon, name).tolist() for name in
                               ("load_kw", "pv_kw", "import_eur_per_kwh", "export_eur_per_kwh")}  # fmt: skip
        return {**questions[hour], "stored_kwh": stored_kwh}

    found: dict[str, dict[str, float | str]] = {}
    for name in names:
        peer = Peer(name)

        def decide(hour: int, stored_kwh: float, peer: Peer = peer) -> float:
            return peer.first_kw(question(hour, stored_kwh))

        saved, shares = 0.0, []
        for past, none, best in zip(pasts, nones, bests, strict=True):
            one = rolling_plan.operate(past, STORAGE, OPEN, name, decide, 30.0)
            saved += none.cost_eur - one.cost_eur
            shares.append(rolling_plan.share_of_foresight(none, one, best))
            print(f"{name}, stretch from day {past.warm // 24}: {shares[-1]:.1%}", flush=True)
        peer.end()
        found[name] = {
            "version": peer.version, "share": saved / most_eur, "worst stretch": min(shares), "days": days * len(pasts),
            "median_s": float(np.median(peer.solve_s)), "p99_s": float(np.quantile(peer.solve_s, 0.99)),
            "resident_mib": peer.resident_mib, "start_s": peer.start_s, "without": peer.without,
        }  # fmt: skip
        middle_ms, p99_ms = np.quantile(peer.solve_s, [0.5, 0.99]) * 1e3
        print(f"{name} {peer.version}: {saved / most_eur:.1%} of foresight over {len(pasts)} stretches of {days} days, "
              f"the worst {min(shares):.1%}; "
              f"a plan {middle_ms:.0f} ms in the middle, {p99_ms:.0f} ms at p99, {peer.resident_mib:.0f} MiB, began in "
              f"{peer.start_s:.1f} s; {peer.without} of {len(peer.solve_s)} without a plan {peer.why}",
              flush=True)  # fmt: skip
    return found


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--make", action="store_true", help="make the peers' environments in build/peers")
    parser.add_argument("--days", type=int, default=7, help="of each stretch")
    parser.add_argument("--stretches", type=int, default=7)
    parser.add_argument("--apart", type=int, default=22, help="days from the begin of a stretch to that of the next")
    parser.add_argument(
        "--only", default=",".join(["tidegate", *PEERS, "emhass-exact"]), help="schedulers, separated by commas"
    )
    args = parser.parse_args()
    if args.make:
        for name, version in PEERS.items():
            make(name, version)
    names = [name for name in args.only.split(",") if interpreter(name).exists()]
    if args.smoke:
        args.days, args.stretches, names = 1, 1, ["tidegate"]
    for name in set(args.only.split(",")) - {"tidegate", *names}:
        print(f"{name} is not judged: build/peers/{name} is not there; run it with --make")
    with harness.conditions(args) as given:
        for name in [one for one in names if one in PEERS]:
            given.peer(name, f"{PEERS[name]} of PyPI in an environment of its own, the same questions")
        figures = beside(names, args.days, args.stretches, args.apart)
    harness.write(args, "peers", figures, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
