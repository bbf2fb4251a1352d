"""Bodies that a site books, made quickly: whole numbers that conserve, with grid, sun, battery, IT and cooling."""

import random

from tidegate.runtime.carbon.integers import carbon_ug, share
from tidegate.runtime.carbon.jobs.settle import settled
from tidegate.runtime.carbon.jobs.work import Work

MONTH_UTC_S = 1_790_812_800  # 2026-10-01T00:00Z
PERIOD_S, DAY_S = 900, 86_400
METHOD = {
    "software": "0.1.0", "build": "0" * 16, "period_s": PERIOD_S, "policy": "average", "losses": "carry",
    "true_up": "daily", "flows": {}, "storages": {"cabinet": [60_000_000, 970_000, 970_000, 40_000]},
    "by_difference": None, "currency": "EUR", "embodied": None,
    "kinds": {"cabinet": "ess", "cooling": "cooling", "grid": "grid", "it": "it", "roof": "pv"}, "notes": [],
}  # fmt: skip


def flow(milliwh, opened, quality="good", method="register"):
    return {"energy_milliwh": milliwh, "quality": quality, "method": method, "flags": [], "open_milliwh": opened,
            "close_milliwh": opened + milliwh, "integral_milliwh": milliwh, "covered_ms": 900_000}  # fmt: skip


class Site:
    """Periods of one site, one after the other."""

    def __init__(self, name, seed):
        self.name, self.rng = name, random.Random(seed)
        self.stock = [self.rng.randrange(20_000_000, 40_000_000), self.rng.randrange(10**9, 9 * 10**9)]

    def period(self, start_utc_s):
        """The body of the quarter hour that begins then."""
        rng = self.rng
        hour = start_utc_s % DAY_S // 3600
        sun = rng.randrange(0, 30_000_000) if 6 <= hour < 18 else 0
        charged = rng.randrange(0, 2_000_000) if hour < 12 else 0
        discharged = 0 if charged or self.stock[0] < 3_000_000 else rng.randrange(0, 2_000_000)
        load, cooling = rng.randrange(2_000_000, 12_000_000), rng.randrange(200_000, 900_000)
        export = max(0, sun + discharged - load - cooling - charged)
        drawn = load + cooling + charged + export - sun - discharged
        factor = rng.randrange(20_000_000, 600_000_000)
        opening = list(self.stock)
        came = {"grid": carbon_ug(drawn, factor), "roof": 0}
        stored = opening[1] * discharged // max(1, opening[0])
        parts = share(came["grid"] + stored, [load, cooling, export, charged])
        origins = [share(one, [drawn, sun, discharged]) for one in (load, cooling, export, charged)]
        outs = []
        for name, kind, milliwh, ug, row in zip(
            ("it", "cooling", "export", "cabinet"), ("load", "load", "export", "charge"),
            (load, cooling, export, charged), parts, origins, strict=True,
        ):  # fmt: skip
            named = dict(zip(("grid", "roof", "grid@storage"), row, strict=True))
            outs.append({"name": name, "kind": kind, "energy_milliwh": milliwh, "ug": ug,
                         "origins": {k: v for k, v in named.items() if v}})  # fmt: skip
        outs.append({"name": "residual", "kind": "residual", "energy_milliwh": 0, "ug": 0, "origins": {}})
        self.stock = [opening[0] + charged - discharged, opening[1] - stored + parts[3]]
        quality = "estimated" if rng.random() < 0.03 else "good"
        return {
            "v": 2, "site": self.name, "start_utc_s": start_utc_s, "length_s": PERIOD_S, "records": 900, "lost": 0,
            "soc_ppm": min(1_000_000, self.stock[0] // 60), "utc_sync": "S", "flags": [], "by_difference": None,
            "flows": {
                "cabinet.charge": flow(charged, 10**9), "cabinet.discharge": flow(discharged, 10**9),
                "cooling.load": flow(cooling, 3 * 10**9), "grid.export": flow(export, 2 * 10**9),
                "grid.import": flow(drawn, 7 * 10**9, quality), "it.load": flow(load, 5 * 10**9),
                "roof.generation": flow(sun, 4 * 10**9),
            },
            "method": {"policy": "average", "losses": "carry", "unknown_ug_per_kwh": 10**9, "residual_ppm": 20_000,
                       "residual_milliwh": 100_000},
            "factors": {
                "grid": {"source": "national_30min.csv", "status": "actual", "step_utc_s": start_utc_s,
                         "ug_per_kwh": factor, "version": ""},
                "roof": {"source": "no fuel: direct emissions 0 by definition", "status": "actual", "step_utc_s": 0,
                         "ug_per_kwh": 0, "version": ""},
            },
            "inflow_ug": came, "created_ug": 0, "outflows": outs, "residual_milliwh": 0,
            "loss_milliwh": {"cabinet": 0}, "loss_ug": {"cabinet": 0},
            "price_u_per_kwh": rng.randrange(10_000, 400_000),
            "stock": {"cabinet": {"opening_milliwh": opening[0], "opening_ug": opening[1],
                                  "energy_milliwh": self.stock[0], "ug": self.stock[1], "origins": {}}},
        }  # fmt: skip

    def day(self, day_utc_s):
        """(kind, start, body) of a day: 96 periods and the settlement of its jobs."""
        bodies = [self.period(day_utc_s + n * PERIOD_S) for n in range(DAY_S // PERIOD_S)]
        works = [
            Work(f"job-{self.rng.randrange(40)}", day_utc_s + n * 20_000, day_utc_s + n * 20_000 + 15_000,
                 f"team-{self.rng.randrange(5)}")
            for n in range(4)
        ]  # fmt: skip
        rows = [("period", body["start_utc_s"], body) for body in bodies]
        return [*rows, ("job", day_utc_s, settled(bodies, works, (), ["it"]))]

    def write(self, ledger, days, first_utc_s=MONTH_UTC_S):
        """Append that many days, each with its settlement."""
        for number in range(days):
            ledger.append(self.day(first_utc_s + number * DAY_S))
