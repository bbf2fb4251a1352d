"""What a run of the demo is about, in words that hold for it: the shipped trace is described, another is named."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidegate.config.site import Site
from tidegate.runtime.demo.virtual_run import Trace, simulation_of

PACKAGED = Path(__file__).resolve().parents[2] / "config" / "demo"
SHIPPED_TRACE = PACKAGED / "smc_h100_9node_unet3d_20240509_2s.csv"
SHIPPED_FACTORS = PACKAGED / "gb_national_30min_20230314.csv"
GAP_SHARE = 5.0  # a row that holds so many times the median of all is named


@dataclass(frozen=True, slots=True)
class Subject:
    """title, load, cabinet, cooling, factors: words; load_source, factors_source: who made them, empty where unknown.

    recorded_utc: None where nothing is known of the trace's origin.
    cautions : what a reader has to know before a figure of this run is believed.
    """

    title: str
    load: str
    recorded_utc: str | None
    cabinet: str
    cooling: str
    factors: str
    load_source: str
    factors_source: str
    cautions: tuple[str, ...]

    @property
    def scope(self) -> str:
        return (
            f"Simulated plant, real controller. The load: {self.load}. Cooling: {self.cooling}. Grid factors: "
            f"{self.factors}. The account covers electricity of the period shown; it is no statement about any product "
            f"or goods, and no audit has taken place."
        )


def subject_of(site: Site, trace: Trace) -> Subject:
    """The words for `site` that replays `trace`. Raises TraceError where the site has no load trace."""
    simulation, _ = simulation_of(site)
    hours = f"{trace.seconds / 3600:.2f} h"
    load_source = factors_source = ""
    if _same(trace.path, SHIPPED_TRACE):
        load_source = ", MLCommons training results v4.0 (Supermicro, Apache-2.0)"
        title, recorded = "A room of 72 H100 GPUs under its grid limit", "2024-05-09T21:19:20Z"
        load = f"9 servers with 8 H100 each, MLPerf training unet3d, {hours} of measured power"
        why = ", because the servers are immersion-cooled and their cooling was not metered"
    else:
        title, recorded, why = f"The load of {trace.path.name} under a grid limit", None, ""
        load = f"{trace.path.name}, {hours}; nothing is known here of where it comes from"
    cooling = "none is simulated"
    if simulation.cooling_share > 0.0:
        mean = f"{simulation.cooling_mean_s / 60:g}-minute mean"
        cooling = f"a model, {100 * simulation.cooling_share:g} % of the {mean} of IT power{why}"
    constant = site.carbon.grid_factor_g_per_kwh
    factors = "none in the site file" if constant is None else f"a constant {constant:g} g/kWh of the site file"
    if site.carbon.factors is not None:
        path = site.folder / site.carbon.factors
        factors = path.name
        if _same(path, SHIPPED_FACTORS):
            factors = "GB, March 2023"
            factors_source = (
                ": GB system operator's Carbon Intensity API (CC BY 4.0), by "
                "nmpowell/carbon-intensity-forecast-tracking (MIT)"
            )
    power_w = sum(one.discharge_w_max for one in site.storage)
    energy_wh = sum(one.energy_wh for one in site.storage)
    many = "" if len(site.storage) == 1 else f"{len(site.storage)} "
    cabinet = f"{many}cabinet{'s' if many else ''} {power_w / 1e3:g} kW / {energy_wh / 1e3:g} kWh"
    cautions = tuple(_cautions(site, trace))
    return Subject(title, load, recorded, cabinet, cooling, factors, load_source, factors_source, cautions)


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def largest_load_w(trace: Trace, cooling_share: float, mean_s: float) -> float:
    """The most that servers and cooling draw together; cooling is a share of the servers' running mean (`mean_s`).

    Between two rows, and between the moments at which one leaves the mean, the cooling moves in a straight line.
    """
    if not cooling_share:
        return float(trace.power_w.max())
    begins, power = trace.t_s.astype(float), trace.power_w
    stored = np.concatenate([[0.0], np.cumsum(power[:-1] * np.diff(begins))])  # joule since the first row

    def energy(at: NDArray[np.float64]) -> NDArray[np.float64]:  # the first row's power stands for what was before
        k = np.clip(np.searchsorted(begins, at, side="right") - 1, 0, len(begins) - 1)
        return np.asarray(stored[k] + power[k] * (at - begins[k]), dtype=np.float64)

    ends = np.unique(np.concatenate([begins, begins + mean_s]))
    ends = ends[ends <= begins[-1]]
    cooling = cooling_share * (energy(ends) - energy(ends - mean_s)) / mean_s
    after = power[np.searchsorted(begins, ends, side="right") - 1]
    before = power[np.maximum(np.searchsorted(begins, ends, side="left") - 1, 0)]
    return float((np.maximum(before, after) + cooling).max())


def _cautions(site: Site, trace: Trace) -> list[str]:
    found = []
    lengths_s = np.diff(trace.t_s)
    if len(lengths_s) and not _same(trace.path, SHIPPED_TRACE):
        usual_s = float(np.median(lengths_s))
        long = np.flatnonzero(lengths_s > GAP_SHARE * usual_s)
        if len(long):
            at = int(long[int(np.argmax(lengths_s[long]))])
            found.append(
                f"{trace.path.name}: rows that hold for over {GAP_SHARE:g} times the usual {usual_s:g} s: {len(long)}, "
                f"the longest {lengths_s[at]:g} s, from {trace.t_s[at]:g} s of the replay on; the load stands still "
                f"there"
            )
    limits_w = (site.limits.connection_import_w_max, site.control.peak_w_max)
    limit_w = min((one for one in limits_w if one is not None), default=None)
    power_w = sum(one.discharge_w_max for one in site.storage)
    simulation, _ = simulation_of(site)
    largest_w = largest_load_w(trace, simulation.cooling_share, simulation.cooling_mean_s)
    if limit_w is not None and largest_w > limit_w + power_w:
        cooled = ", its cooling included," if simulation.cooling_share else ""
        found.append(
            f"{trace.path.name}: its largest {largest_w / 1e3:,.1f} kW{cooled} are more than limit and battery "
            f"together ({(limit_w + power_w) / 1e3:,.1f} kW): no controller holds the limit there"
        )
    if simulation.pv_trace is not None:
        found.append(f"{simulation.pv_trace}: PV is not replayed by the demo; grid power is load less battery")
    return found
