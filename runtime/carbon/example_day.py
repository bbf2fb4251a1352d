"""A day for the carbon account: measured GPU power, measured PV and the grid factors of one day, as meter records.

The battery follows a plain rule, so that what it does can be followed by hand. Everything else is the sidecar's own
work: the records are booked, attributed and signed as those of a site.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.runtime.carbon.engine.counter import MeterRecord
from tidegate.runtime.carbon.engine.topology import SITE_INTEGRALS

DAY_UTC_S = 1_678_838_400  # 2023-03-15T00:00Z, the day of the grid factors
DAY_S = 86_400
STEP_S = 2  # between two meter records, as the trace was logged
WORK_S = 6 * 3600  # the room rests until then
PV_DAY, PV_SHARE = "2022-01-04", 0.25  # of an array of 207 kW in Colorado; its local time is taken as UTC
COOLING_SHARE = 0.08  # a model, as in the demo
CHARGE_W, DISCHARGE_W = 12_000.0, 9_000.0
NIGHT = (1 * 3600, 3 * 3600)  # charges from the grid
EVENING = (17 * 3600, 21 * 3600)  # discharges
SOC_START, SOC_MIN, SOC_MAX = 0.30, 0.15, 0.95
EFFICIENCY = 0.97  # each way
STANDBY_W = 40.0
GPUS = 72


def room(trace: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """(IT power by STEP_S, the jobs) of the day: after a rest at their least power, the measured runs over and over."""
    with trace.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    t_s = np.array([float(row["t_s"]) for row in rows])
    power = np.array([float(row["power_w_filled"]) for row in rows])
    length = int(t_s[-1]) + 2
    at = np.arange(DAY_S) - WORK_S
    second = np.where(at < 0, power.min(), power[np.searchsorted(t_s, at % length, side="right") - 1])
    runs: dict[str, list[float]] = {}
    for row, t in zip(rows, t_s, strict=True):
        if row["run"]:
            runs.setdefault(row["run"], []).append(float(t))
    jobs = []
    for again in range(-(-(DAY_S - WORK_S) // length)):
        for run, times in runs.items():
            start = WORK_S + again * length + int(times[0])
            end = WORK_S + again * length + int(times[-1]) + 2
            if end <= DAY_S:
                jobs.append({
                    "job": f"unet3d-{again + 1}-{run}", "owner": "imaging" if int(run) % 2 else "physics",
                    "start_utc_s": DAY_UTC_S + start, "end_utc_s": DAY_UTC_S + end, "slots": GPUS,
                    "units": {"job": 1, "gpu_hour": f"{GPUS * (end - start) / 3600:.3f}"},
                })  # fmt: skip
    return second.reshape(-1, STEP_S).mean(axis=1), jobs


def sun(table: Path) -> np.ndarray:
    """PV power by STEP_S: quarter hours of the measured day, held."""
    with table.open(encoding="utf-8", newline="") as file:
        watts = [float(row["ac_power_kw"]) * 1000.0 * PV_SHARE for row in csv.DictReader(file)
                 if row["time_local"].startswith(PV_DAY)]  # fmt: skip
    return np.repeat(np.array(watts), 900 // STEP_S)


def battery(load: np.ndarray, pv: np.ndarray, energy_wh: float) -> tuple[np.ndarray, np.ndarray]:
    """(power, + discharge, and state of charge) by STEP_S, by the rule above."""
    power, soc = np.zeros(len(load)), np.zeros(len(load))
    stored, hours = SOC_START * energy_wh, STEP_S / 3600
    for i in range(len(load)):
        at = i * STEP_S
        if EVENING[0] <= at < EVENING[1] and stored > SOC_MIN * energy_wh:
            power[i] = min(DISCHARGE_W, load[i])
        elif stored < SOC_MAX * energy_wh:
            spare = float(pv[i] - load[i])
            power[i] = -CHARGE_W if NIGHT[0] <= at < NIGHT[1] else -min(30_000.0, max(0.0, spare))
        moved = power[i] / EFFICIENCY if power[i] > 0 else power[i] * EFFICIENCY
        stored -= (moved + STANDBY_W) * hours
        soc[i] = stored / energy_wh
    return power, soc


def records(describe: Mapping[str, Any], folder: Path) -> tuple[Iterator[MeterRecord], list[dict[str, Any]]]:
    """(meter records as the gateway would keep them, the jobs) of the day."""
    it, jobs = room(folder / "smc_h100_9node_unet3d_20240509_2s.csv")
    pv = sun(folder / "nrel_rsf2_207kw_15min_20220102.csv")
    cooling = it * COOLING_SHARE
    ess, soc = battery(it + cooling, pv, float(describe["units"][0]["energy_wh"]))
    grid = it + cooling - pv - ess
    powers = {"grid": grid, "it": it, "cooling": cooling, "pv": pv, "ess": ess}
    wh: dict[str, np.ndarray] = {}
    for row in describe["nodes"]:
        watts = powers[row["role"]]
        for register, side in ((row["positive_wh"], 1.0), (row["negative_wh"], -1.0)):
            # Registers count whole watt-hours, as the devices' own do.
            wh[register] = np.floor(np.cumsum(np.maximum(side * watts, 0.0)) * STEP_S / 3600) + 1000.0
    ws = {}
    for name, watts in (("grid", grid), ("pv", pv), ("ess", ess)):
        positive, negative, covered = SITE_INTEGRALS[name]
        ws[positive] = np.cumsum(np.maximum(watts, 0.0)) * STEP_S
        ws[negative] = np.cumsum(np.maximum(-watts, 0.0)) * STEP_S
        ws[covered] = np.arange(1, len(watts) + 1) * float(STEP_S)
    soc_point = next(point["name"] for point in describe["points"] if point["name"].endswith(".soc"))
    columns = {**wh, **ws, soc_point: soc}

    def each() -> Iterator[MeterRecord]:
        for seq in range(-1, len(it)):
            t_ns = (seq + 1) * STEP_S * 10**9
            values = {name: float(column[seq]) if seq >= 0 else 0.0 for name, column in columns.items()}
            if seq < 0:
                values.update({name: 1000.0 for name in wh}, **{soc_point: SOC_START})
            yield {
                "boot": f"{1:032x}", "seq": seq + 1, "t_ns": t_ns, "utc_ns": DAY_UTC_S * 10**9 + t_ns, "utc_sync": "S",
                "points": {name: [value, 1] for name, value in values.items()},
            }  # fmt: skip

    return each(), jobs


def book_day(out: Path) -> dict[str, Path]:
    """Book the day into a fresh ledger in `out`, signed; its jobs lie beside it. -> what was written, by name."""
    import tidegate.config
    from tidegate.config.compile import compile_site
    from tidegate.config.site import load_site
    from tidegate.ext.abi import program
    from tidegate.runtime.carbon.ledger.ledger import Ledger
    from tidegate.runtime.carbon.ledger.signing import sign
    from tidegate.runtime.carbon.sidecar.service import Sidecar
    from tidegate.runtime.state.device_key import DeviceKey

    folder = Path(str(tidegate.config.__file__)).parent / "demo"
    describe = program.describe(compile_site(load_site(folder / "day.toml")))
    rows, jobs = records(describe, folder)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "ledger.db"
    for old in (path, path.with_name("ledger.db-wal"), path.with_name("ledger.db-shm")):
        old.unlink(missing_ok=True)
    ledger = Ledger(path)
    sidecar = Sidecar(describe, ledger, folder=folder)
    sidecar.take(rows)
    sidecar.commit()
    sign(ledger, DeviceKey.at(out / "ledger-key.pem"), sidecar.site, least=1)
    ledger.close()
    log = out / "jobs.jsonl"
    log.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    return {"ledger": path, "jobs": log}


def day_name() -> str:
    return datetime.fromtimestamp(DAY_UTC_S, UTC).strftime("%Y-%m-%d")
