"""One simulated plant put together part by part: batteries, converters, meters, lines, devices, frames, faults."""

from collections.abc import Sequence
from typing import Any

import numpy as np

BATTERY_VARIABLES: tuple[str, ...]
PCS_VARIABLES: tuple[str, ...]
METER_VARIABLES: tuple[str, ...]
METER_SOURCES: tuple[str, ...]
FAULT_NAMES: tuple[str, ...]
FAULT_BITS: dict[str, dict[str, int]]

Source = tuple[str, int, str]
Times = np.ndarray[Any, np.dtype[np.uint64]]
Watts = np.ndarray[Any, np.dtype[np.float64]]

class Assembly:
    def __init__(
        self, seed: int, period_ns: int = 1_000_000, plant_dt_ns: int = 1_000_000, wire_log_bytes: int = 1 << 22
    ) -> None: ...
    def set_load(
        self,
        t_ns: Times,
        power_w: Watts,
        *,
        cooling_share: float = 0.0,
        cooling_mean_s: float = 600.0,
        phase_share: Sequence[float] = ...,
    ) -> None: ...
    def set_pv(self, t_ns: Times, power_w: Watts) -> None: ...
    def set_judgement(self, limit_w: float, step_w: float, reaction_s: float) -> None: ...
    def set_bounds(
        self, *, bms_s: float = 0.0, meter_s: float = 0.0, pcs_s: float = 0.0, alarm_s: float = 0.0
    ) -> None: ...
    def add_battery(
        self,
        *,
        cells: float,
        capacity_ah: float,
        r_ohm: float,
        ocv_soc: list[float],
        ocv_v: list[float],
        soc: float,
        temp_c: float,
        soh: float = 1.0,
        heat_j_per_k: float,
        cooling_w_per_k: float,
        ambient_c: float,
        charge_a_max: float,
        discharge_a_max: float,
        taper: float,
        cell_v_max: float,
        cell_v_min: float,
        temp_c_max: float,
        temp_c_min: float,
    ) -> int: ...
    def add_pcs(
        self,
        *,
        battery: int,
        beside: Sequence[int] = (),
        charge_w_max: float,
        discharge_w_max: float,
        tau_s: float,
        dead_s: float,
        ramp_w_per_s: float,
        loss_w: float,
        loss_ratio: float,
        measure_s: float,
        heartbeat_timeout_s: float = 0.0,
        revert_s: float = 0.0,
        enabled: bool = True,
        started: bool = True,
        states: tuple[int, int, int] = ...,
    ) -> int: ...
    def add_meter(
        self,
        source: str,
        *,
        index: int = 0,
        share: float = 1.0,
        downstream: int = 0,
        interval_s: float,
        delay_s: float = 0.0,
        resolution_w: float = 0.0,
        phase_s: float = 0.0,
        import_wh: float = 0.0,
    ) -> int: ...
    def battery_habits(
        self, number: int, *, soc_step: float = 0.0, jump_s: float = 0.0, jump_lo: float = 1.0, random: int = 1
    ) -> None: ...
    def pcs_habits(
        self,
        number: int,
        *,
        gain: float = 1.0,
        offset_w: float = 0.0,
        quantum_w: float = 0.0,
        share: float = 1.0,
        cap_w: float = 1e12,
        from_s: float = 0.0,
        until_s: float = 1e9,
        full_soc: float = 2.0,
        own_w: float = 0.0,
        own_told: bool = False,
        own_from_s: float = 0.0,
    ) -> None: ...
    def meter_habits(
        self,
        number: int,
        *,
        jitter: float = 0.0,
        average_s: float = 0.0,
        lag_s: float = 0.0,
        band_w: float = 0.0,
        silent_s: float = 30.0,
        random: int = 1,
        then_at_s: float = 0.0,
        then_interval_s: float = 0.0,
        then_average_s: float = 0.0,
        then_lag_s: float = 0.0,
    ) -> None: ...
    def add_line(self, *, char_ns: int) -> int: ...
    def add_slave(
        self,
        line: int,
        unit_id: int,
        *,
        pcs: int = -1,
        meter: int = -1,
        turnaround_s: float = 0.001,
        turnaround_jitter_s: float = 0.0,
        read_max: int = 125,
    ) -> int: ...
    def add_range(self, slave: int, space: int, first: int, count: int, writable: bool = False) -> None: ...
    def set_words(self, slave: int, space: int, address: int, words: Sequence[int]) -> None: ...
    def bind(
        self,
        slave: int,
        space: int,
        address: int,
        *,
        type: int,
        flags: int,
        scale: float,
        offset: float,
        sentinel: int = 0,
        bit_first: int = 0,
        bit_count: int = 0,
        source: Source,
    ) -> None: ...
    def bind_write(
        self,
        slave: int,
        space: int,
        address: int,
        *,
        type: int,
        flags: int,
        scale: float,
        variable: str,
        of: int = 1,
        zero: float = 0.0,
        charge: float = 0.0,
        discharge: float = 0.0,
    ) -> None: ...
    def add_can_frame(
        self,
        *,
        id: int,
        bus: int,
        len: int,
        period_ns: int,
        phase_ns: int,
        template: bytes = ...,
        mux: tuple[int, int, int] | None = None,
        counter: tuple[int, int, int] | None = None,
        crc: tuple[int, int] | None = None,
        fields: Sequence[dict[str, Any]],
    ) -> int: ...
    def set_genset(
        self, *, w_max: float, w_min: float = 0.0, start_s: float = 8.0, at_grid_meter: bool = True
    ) -> None: ...
    def add_fault(self, kind: str, target: int, value: float, t_on_s: float, t_off_s: float) -> None: ...
