from collections.abc import Sequence

REASONS_BY_NUMBER: tuple[str, ...]

class Decision:
    @property
    def request_w(self) -> tuple[float, ...]: ...
    @property
    def request_total_w(self) -> float: ...
    @property
    def lo_w(self) -> float: ...
    @property
    def hi_w(self) -> float: ...
    @property
    def envelope_w(self) -> tuple[float, float]: ...
    @property
    def shortfall_w(self) -> float: ...
    @property
    def grid_limit_w(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def preference(self) -> str: ...
    @property
    def missed(self) -> dict[str, str]: ...
    @property
    def hunting(self) -> int: ...

class Control:
    def __init__(self, units: int = ..., **settings: float | Sequence[float]) -> None: ...
    def reset(self) -> None: ...
    def step(
        self,
        *,
        grid_w: float | None,
        ess_w: float | Sequence[float] = ...,
        pv_w: float = ...,
        soc: float | Sequence[float] = ...,
        lo_w: float | Sequence[float] = ...,
        hi_w: float | Sequence[float] = ...,
        dt_s: float = ...,
        available: bool | Sequence[bool] = ...,
        setpoint_w: float | Sequence[float] | None = ...,
        energy_wh: float | Sequence[float] = ...,
        forced_w: float | Sequence[float] = ...,
        net_w: float | None = ...,
        net_lo_w: float | None = ...,
        lease_w: float | None = ...,
        manual_w: float | None = ...,
        plan_w: float | None = ...,
        until_soc: float | None = ...,
        forced: bool = ...,
        target_grid_w: float | None = ...,
        import_w_max: float | None = ...,
        export_w_max: float | None = ...,
        peak_w_max: float | None = ...,
        demand_w_max: float | None = ...,
        charge_w_max: float | None = ...,
        discharge_w_max: float | None = ...,
        operator_import_w_max: float | None = ...,
        operator_export_w_max: float | None = ...,
        cease: bool = ...,
        reconnect_w: float | None = ...,
        unproven_w: float | None = ...,
        stop: bool = ...,
        demand: Sequence[float] | None = ...,
        phases_w: Sequence[float] | None = ...,
        circuits_w: Sequence[float] | None = ...,
        paired: bool = ...,
    ) -> Decision: ...
    def cost_ns(self, rounds: int = ...) -> float: ...
