"""The floor under every controller: what the delay of meter, wire and converter alone leaves above the limit."""

from typing import Any

import numpy as np

from tidegate.ext.sim.assembly import Assembly

def floor_energy(
    t_ns: np.ndarray[Any, np.dtype[np.uint64]],
    power_w: np.ndarray[Any, np.dtype[np.float64]],
    *,
    limit_w: float,
    seconds: float,
    cooling_share: float,
    cooling_mean_s: float = 600.0,
    meter_interval_s: float,
    meter_phase_s: float,
    meter_delay_s: float,
    wire_s: float,
    dead_s: float,
    tau_s: float,
    ramp_w_per_s: float,
    discharge_w_max: float,
    charge_w_max: float = 0.0,
    recharge_w_max: float = 0.0,
) -> dict[str, float]: ...
def run_ideal(
    world: Assembly,
    grid_w: np.ndarray[Any, np.dtype[np.float64]],
    ess_w: np.ndarray[Any, np.dtype[np.float64]],
    *,
    meter: int,
    limit_w: float,
    recharge_w_max: float,
    recharge_w: float,
    target_soc: float,
    soc_min: float,
    soc_max: float,
    soc_taper: float,
    wire_s: float,
    start_s: float,
    invert: bool = True,
) -> None: ...
