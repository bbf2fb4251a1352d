"""summary.json: every figure of the demo under one fixed name; docs/summary.md explains each."""

import platform
import statistics
from collections.abc import Sequence
from typing import Any

from tidegate.runtime.carbon.factors.series import iso
from tidegate.runtime.carbon.report.totals import Indicators, Sums
from tidegate.runtime.carbon.sidecar.service import software_version
from tidegate.runtime.demo.demo_subject import Subject
from tidegate.runtime.demo.runs import LiveRun, WholeRun
from tidegate.runtime.demo.virtual_run import REPLAY_UTC_S, Trace

SUMMARY_VERSION = 1
BOOKED_SHARE = 0.02  # of the plant's own import, by which what is booked may differ: registers count in steps
IDLE_SHARE = 0.05  # of the run in which the gate or a blind meter may hold the power at zero, arming included


def summary_of(
    whole: WholeRun,
    live: LiveRun | None,
    sums: Sums,
    ratios: Indicators,
    trace: Trace,
    quick: bool,
    subject: Subject,
) -> dict[str, Any]:
    """The content of summary.json."""
    found: dict[str, object] = {
        "version": SUMMARY_VERSION,
        "tidegate": software_version(),
        "quick": quick,
        "machine": {"system": platform.system(), "kernel": platform.release(), "python": platform.python_version()},
        "subject": subject.title,
        "scope": subject.scope,
        "cautions": [*subject.cautions, *cautions_of(whole, sums)],
        "trace": {
            "file": trace.path.name,
            "sha256": trace.sha256,
            "recorded_utc": subject.recorded_utc,
            "replayed_as_utc_s": REPLAY_UTC_S,
            "seconds": round(trace.seconds, 3),
            "seconds_replayed": round(whole.seconds, 3),
        },
        "virtual": {
            "seconds": round(whole.seconds, 3),
            "cycles": whole.cycles,
            "wall_s": round(whole.wall_s, 3),
            "cpu_s": round(whole.cpu_s, 3),
            "speed_x_realtime": round(whole.speed_x, 1),
            "limit_w": whole.limit_w,
            "reaction_s": round(whole.reaction_s, 4),
            "steps": whole.steps,
            "grid_peak_w": {name: round(value, 1) for name, value in whole.peak_w.items()},
            "energy_above_limit_wh": {name: round(value, 3) for name, value in whole.above_wh.items()},
            "step_to_wire_ms": spread(whole.step_to_wire_ms),
            "violations": {name: value for name, value in whole.checks.items() if name != "cycles"},
            "seed": whole.seed,
            "sha256": whole.sha256,
        },
        "carbon": {
            "balance_error_ug": sums.worst_error_ug,
            "periods": sums.periods,
            "grid_import_wh": wh(sums.inflow_milliwh["grid"]),
            "grid_import_simulated_wh": rounded(whole.import_wh, 3),
            "it_wh": wh(sums.role_milliwh(whole.kinds, "it")),
            "cooling_wh": wh(sums.role_milliwh(whole.kinds, "cooling")),
            "battery_charge_wh": wh(sum(sums.charge_milliwh.values())),
            "battery_discharge_wh": wh(sum(sums.discharge_milliwh.values())),
            "storage_loss_wh": wh(sum(sums.loss_milliwh.values())),
            "residual_wh": wh(sums.outflow_milliwh["residual"]),
            "grid_import_g": grams(sums.inflow_ug["grid"]),
            "it_g": grams(sums.role_ug(whole.kinds, "it")),
            "stock_opening_g": grams(sums.opening_ug),
            "stock_closing_g": grams(sums.closing_ug),
            "pue_interim": rounded(ratios.pue, 4),
            "grid_g_per_kwh": rounded(ratios.grid_g_per_kwh, 2),
            "it_g_per_kwh": rounded(ratios.it_g_per_kwh, 2),
            "factor_status_wh": {name: wh(milliwh) for name, milliwh in sorted(sums.factor_milliwh.items())},
            "flags": dict(sorted(sums.flags.items())),
        },
    }
    if live is not None:
        found["live"] = {
            "seconds": live.seconds,
            "period_us": live.period_us,
            "cycles": live.cycles,
            "missed_cycles": live.missed,
            "step_to_wire_ms": spread(live.step_to_wire_ms),
            "lateness_us": {name: round(value, 3) for name, value in live.lateness_us.items()},
            "work_us": {name: round(value, 3) for name, value in live.work_us.items()},
            "grid_peak_w": round(live.grid_peak_w, 1),
            "meter_records": live.meter_records,
            "meter_records_booked": live.meter_booked,
            "meter_gaps": live.meter_gaps,
            "clean_end": live.clean_end,
            "lacks": live.lacks,
            "notes": live.notes,
        }
        found["core"] = {
            "rss_mib": round(live.core_rss_kib / 1024, 2),
            "ring_mib": round(live.core_ring_kib / 1024, 2),
            "rss_without_ring_mib": round((live.core_rss_kib - live.core_ring_kib) / 1024, 2),
            "threads": live.core_threads,
            "imports": live.core_imports,
        }
    return found


def cautions_of(whole: WholeRun, sums: Sums) -> list[str]:
    """What makes a figure of this run doubtful, each with its number; empty where nothing does."""
    found = []
    booked_wh = wh(sums.inflow_milliwh["grid"])
    if whole.import_wh is not None and abs(booked_wh - whole.import_wh) > max(BOOKED_SHARE * whole.import_wh, 20.0):
        found.append(
            f"the account has {booked_wh / 1e3:,.2f} kWh of the {whole.import_wh / 1e3:,.2f} kWh that the simulated "
            f"grid gave: the meter's readings were not believed or did not come"
        )
    idle_s = whole.held_s("gate", "blind", "stopped")
    if idle_s > IDLE_SHARE * whole.seconds:
        found.append(
            f"for {idle_s:,.0f} of {whole.seconds:,.0f} s the battery was held at zero by the gate, a stop or a blind "
            f"meter: figures of the control are those of a site that was not in operation"
        )
    guessed_wh = wh(sums.factor_milliwh.get("fallback", 0))
    if guessed_wh > 0.0:
        found.append(
            f"{guessed_wh / 1e3:,.2f} kWh are booked by the fallback factor: none of the site's covers the replay, "
            f"dated {iso(REPLAY_UTC_S)}"
        )
    return found


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Count, median and largest of measured values; None where nothing was measured."""
    if not values:
        return {"count": 0, "p50": None, "max": None}
    return {"count": len(values), "p50": round(statistics.median(values), 3), "max": round(max(values), 3)}


def wh(milliwh: int) -> float:
    return round(milliwh / 1000, 3)


def grams(ug: int) -> float:
    return round(ug / 1e6, 6)


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


# What was asked of each figure: path in the summary, words, test.
ASKED: tuple[tuple[str, str, Any], ...] = (
    ("virtual.speed_x_realtime", "at least 500", lambda v, s: v >= 500),
    (
        "virtual.grid_peak_w.with_outside_reaction",
        "at most the limit",
        lambda v, s: v <= s["virtual"]["limit_w"] * 1.000001,
    ),
    (
        "virtual.energy_above_limit_wh.with",
        "at most 0.5 % of without, and 1.25 x floor",
        lambda v, s: (
            v <= 0.005 * s["virtual"]["energy_above_limit_wh"]["without"]
            and v <= 1.25 * s["virtual"]["energy_above_limit_wh"]["floor"]
        ),
    ),
    ("live.step_to_wire_ms.p50", "at most 25 ms", lambda v, s: v <= 25),
    ("live.missed_cycles", "measured", None),
    ("live.lateness_us.p99", "measured", None),
    ("live.work_us.p99", "at most 20 us", lambda v, s: v <= 20),
    ("carbon.balance_error_ug", "0", lambda v, s: v == 0),
    ("core.rss_without_ring_mib", "at most 32 MiB", lambda v, s: v <= 32),
    ("core.ring_mib", "at most 128 MiB, the recorder's last minutes", lambda v, s: v <= 128),
)


def judged(summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(figure, value, asked, verdict) for each figure asked for; the verdict is met, missed, or a dash."""
    rows = []
    for path, words, test in ASKED:
        value: object = summary
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            rows.append((path, "not measured", words, "-"))
            continue
        verdict = "-" if test is None else "met" if test(value, summary) else "missed"
        rows.append((path, f"{value:,}", words, verdict))
    return rows
