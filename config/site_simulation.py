"""The table [simulation] of a site file: the world behind buses whose device is "sim"."""

from typing import Annotated

from pydantic import Field

from tidegate.config.gpio import SimulatedContact
from tidegate.config.site_buses import Share, Strict, Watt
from tidegate.hal import description

_SIMULATION = description.Simulation()


class SimulatedFault(Strict):
    """One thing that goes wrong in the simulated world."""

    kind: Annotated[str, Field(min_length=1)]
    target: str = ""
    on_s: Annotated[float, Field(ge=0)] = 0.0
    off_s: Annotated[float, Field(ge=0)] | None = None
    value: float = 0.0


class Simulation(Strict):
    """The simulated world behind buses whose device is "sim"."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = _SIMULATION.seed
    load_trace: Annotated[str, Field(description="CSV beside the site file")] | None = None
    load_column: str = _SIMULATION.load_column
    load_w: Watt | None = None
    start_s: Annotated[float, Field(ge=0)] = 0.0
    length_s: Annotated[float, Field(gt=0)] | None = None
    pv_trace: str | None = None
    pv_column: str = _SIMULATION.pv_column
    pv_scale: Annotated[float, Field(ge=0, le=1e6)] = _SIMULATION.pv_scale
    cooling_share: Share = 0.0
    cooling_mean_s: Annotated[float, Field(gt=0, le=86_400)] = _SIMULATION.cooling_mean_s
    meter_update_ms: Annotated[float, Field(gt=0, le=60_000)] = _SIMULATION.meter_update_ms
    meter_delay_ms: Annotated[float, Field(ge=0, le=60_000)] = 0.0
    meter_resolution_w: Annotated[float, Field(ge=0, le=1e6)] = _SIMULATION.meter_resolution_w
    pcs_tau_ms: Annotated[float, Field(gt=0, le=60_000)] = _SIMULATION.pcs_tau_ms
    pcs_dead_ms: Annotated[float, Field(ge=0, le=60_000)] = _SIMULATION.pcs_dead_ms
    pcs_ramp_w_per_s: Annotated[float, Field(gt=0, le=1e9)] = _SIMULATION.pcs_ramp_w_per_s
    pcs_loss_w: Annotated[float, Field(ge=0, le=1e6)] = _SIMULATION.pcs_loss_w
    pcs_loss_share: Share = _SIMULATION.pcs_loss_share
    pcs_watchdog_ms: Annotated[float, Field(gt=0, le=600_000)] = _SIMULATION.pcs_watchdog_ms
    cells: Annotated[int, Field(ge=1, le=1000)] = _SIMULATION.cells
    soc_start: Share = _SIMULATION.soc_start
    soh: Annotated[float, Field(gt=0, le=1)] = _SIMULATION.soh
    ambient_c: Annotated[float, Field(ge=-40, le=60)] = _SIMULATION.ambient_c
    pcs_measure_ms: Annotated[float, Field(gt=0, le=60_000)] = _SIMULATION.pcs_measure_ms
    turnaround_ms: Annotated[float, Field(ge=0, le=10_000, description="answer delay of the simulated slaves")] = (
        _SIMULATION.turnaround_ms
    )
    turnaround_jitter_ms: Annotated[float, Field(ge=0, le=10_000)] = _SIMULATION.turnaround_jitter_ms
    step_w: Annotated[float, Field(gt=0, le=1e8, description="smallest load step that is judged")] = _SIMULATION.step_w
    meter_jitter: Annotated[
        float, Field(ge=0, le=1, description="share of the interval by which a reading may come late")
    ] = _SIMULATION.meter_jitter
    meter_average_ms: Annotated[
        float, Field(ge=0, le=60_000, description="the grid meter shows the mean of so long")
    ] = _SIMULATION.meter_average_ms
    meter_lag_ms: Annotated[float, Field(ge=0, le=60_000, description="or a first-order average")] = (
        _SIMULATION.meter_lag_ms
    )
    meter_band_w: Annotated[
        float, Field(ge=0, le=1e6, description="the grid meter reports changes of so much, and anyway every 30 s")
    ] = _SIMULATION.meter_band_w
    meter_then_s: Annotated[
        float, Field(ge=0, description="from then on the grid meter has the next three; 0 = never")
    ] = _SIMULATION.meter_then_s
    meter_then_update_ms: Annotated[float, Field(gt=0, le=60_000)] = _SIMULATION.meter_then_update_ms
    meter_then_average_ms: Annotated[float, Field(ge=0, le=60_000)] = _SIMULATION.meter_then_average_ms
    meter_then_lag_ms: Annotated[float, Field(ge=0, le=60_000)] = _SIMULATION.meter_then_lag_ms
    pcs_gain: Annotated[float, Field(gt=0, le=2, description="gives so much of what it is told")] = _SIMULATION.pcs_gain
    pcs_offset_w: Annotated[float, Field(ge=-1e6, le=1e6, description="and so much more")] = _SIMULATION.pcs_offset_w
    pcs_quantum_w: Annotated[
        float, Field(ge=0, le=1e6, description="takes setpoints in whole steps of this; 0 = any")
    ] = _SIMULATION.pcs_quantum_w
    pcs_derate_share: Annotated[float, Field(gt=0, le=1, description="derated: gives this share")] = (
        _SIMULATION.pcs_derate_share
    )
    pcs_derate_w: Annotated[float, Field(gt=0, description="derated: gives at most so much")] = _SIMULATION.pcs_derate_w
    pcs_derate_from_s: Annotated[float, Field(ge=0, description="derated from then on")] = _SIMULATION.pcs_derate_from_s
    pcs_derate_until_s: Annotated[float, Field(ge=0, description="derated until then")] = _SIMULATION.pcs_derate_until_s
    pcs_full_soc: Annotated[
        float, Field(ge=0, le=2, description="takes no charge from there on, until 1 % below; above 1 = never")
    ] = _SIMULATION.pcs_full_soc
    pcs_own_w: Annotated[
        float, Field(description="what modules of its own add to its AC power; below 0 a load behind its AC output")
    ] = _SIMULATION.pcs_own_w
    pcs_own_from_s: Annotated[float, Field(ge=0, description="from then on")] = _SIMULATION.pcs_own_from_s
    genset_start_s: Annotated[
        float, Field(ge=0, le=3600, description="of an island's genset, from the order to its first power")
    ] = _SIMULATION.genset_start_s
    bms_taper: Annotated[
        float, Field(gt=0, le=1, description="width in SoC over which the BMS takes its current limits to zero")
    ] = _SIMULATION.bms_taper
    bms_soc_step: Annotated[float, Field(ge=0, le=0.1, description="SoC in whole steps of this; 0 = as it is")] = (
        _SIMULATION.bms_soc_step
    )
    bms_jump_s: Annotated[float, Field(ge=0, description="the BMS's limits change about so often; 0 = never")] = (
        _SIMULATION.bms_jump_s
    )
    bms_jump_lo: Annotated[float, Field(ge=0, le=1, description="to a share of themselves between this and 1")] = (
        _SIMULATION.bms_jump_lo
    )
    phase_share: tuple[float, float, float] = _SIMULATION.phase_share
    faults: tuple[SimulatedFault, ...] = ()
    contact: Annotated[
        tuple[SimulatedContact, ...], Field(max_length=64, description="what inputs on a simulated chip do")
    ] = ()
