"""What the compiled program says of a site beside the core's rows: the describe blob as types, decoded once.

The compiler writes it (`config/compile.py`), the processes and the API's clients read it. A default here is the site
file's own (`config/site.py` takes it from here), and what a program from before that field gets.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from tidegate.ext.abi.settings import POLICY_NAMES_BY_NUMBER

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
HolidayRule = Literal["as-weekday", "never", "also", "only"]
SCHEMA = 1  # of the blob; within one, fields are only added


# Names of wire version 1 that said the wrong thing -> those of version 2. `in` of a battery was what it discharged.
RENAMED_POINTS = {"site.ess_in_ws": "site.ess_discharged_ws", "site.ess_out_ws": "site.ess_charged_ws"}
RENAMED_NODE_FIELDS = {"in_wh": "positive_wh", "out_wh": "negative_wh"}


class DescriptionError(ValueError):
    """A describe blob that this release cannot read."""


class Row(msgspec.Struct, frozen=True):
    """A row of the description. Fields of a later release are left aside."""


class SiteHead(Row, frozen=True, kw_only=True):
    """Who and where."""

    name: str = "site"
    timezone: str = "UTC"
    country: str | None = None
    subdivision: str | None = None
    period_us: int = 1000
    snapshot_hz: float = 10.0


class Point(Row, frozen=True, kw_only=True):
    """One row of the image, in its order."""

    name: str
    unit: str = ""
    device: int = -1
    """Index in `devices`, -1 = computed by the controller."""
    register: str = ""
    """The manual's own name."""
    address: int | None = None
    function: int | None = None
    hidden: bool = False
    """Made by the loader, such as a scale factor."""

    @property
    def signal(self) -> str:
        """The name without its device."""
        return self.name.partition(".")[2]


class Device(Row, frozen=True, kw_only=True):
    """One meter, power converter or BMS with what its map says of itself."""

    name: str
    map: str = ""
    kind: str = ""
    protocol: str = ""
    title: str = ""
    doubts: tuple[str, ...] = ()
    """What its map leaves open and the site file has not answered."""
    doubts_answered: tuple[str, ...] = ()
    role: str = "it-meter"
    bus: str = ""
    unit_id: int | None = None
    invert: bool = False
    circuit_storage: tuple[str, ...] = ()
    options: dict[str, str] = {}
    unit: int = -1
    """Index in `units`, -1 = part of none."""
    sunspec: dict[str, int] = {}
    """Model number -> address of its ID word."""
    battery_power: str = "power_w"
    """Of a converter: which of its readings is its battery's power, or "none: why not"."""
    unchecked: tuple[str, ...] = ()
    """Of a BMS: what nobody can check of its frames."""


class SerialPort(Row, frozen=True, kw_only=True):
    """One RS-485 port, or one request in flight over TCP."""

    name: str
    device: str = "sim"
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1
    gap: Literal["spec", "chars"] | int = "spec"
    strip_echo: bool = False
    protocol: Literal["modbus", "pylontech"] = "modbus"
    lead_in_bytes: int = 0
    rs485: bool = False
    transport: Literal["serial", "tcp", "rtu-tcp", "pylontech", "pylontech-tcp"] = "serial"
    bus: str = ""
    """Over TCP: the bus that this is a lane of."""
    host: str = ""
    tcp_port: int = 0

    @property
    def over_tcp(self) -> bool:
        """Whether frames go over a connection and not over a tty."""
        return self.transport in ("tcp", "rtu-tcp", "pylontech-tcp")

    @property
    def setting(self) -> str:
        """What it is set to, for people."""
        if self.transport == "tcp":
            return f"Modbus TCP to {self.device}"
        if self.over_tcp:
            spoken = "RTU" if self.transport == "rtu-tcp" else "Pylontech's frames"
            return f"{spoken} over TCP to {self.device}, {self.baud} {self.parity}{self.stop_bits} behind it"
        return f"{self.device} {self.baud} {self.parity}{self.stop_bits}"


class TcpBus(Row, frozen=True, kw_only=True):
    """TCP to one address. Defaults of the site file; the program has a `SerialPort` for each lane of it."""

    name: str
    host: str = "sim"
    port: int = 502
    framing: Literal["tcp", "rtu", "pylontech"] = "tcp"
    connections: int = 1
    pipeline: int = 1
    latency_ms: float = 5.0
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1


class CanBus(Row, frozen=True, kw_only=True):
    """One CAN bus."""

    name: str
    interface: str = "sim"
    bitrate: int = 500_000


class Storage(Row, frozen=True, kw_only=True):
    """One storage unit: a BMS, or several side by side, and the converter in front."""

    name: str
    bms: str = ""
    parallel: tuple[str, ...] = ()
    pcs: str = ""
    energy_wh: float = 0.0
    charge_w_max: float = 0.0
    discharge_w_max: float = 0.0
    charge_a_max: float | None = None
    discharge_a_max: float | None = None
    soc_min: float = 0.1
    soc_max: float = 0.95
    soc_taper: float = 0.03
    temp_min_c: float = 0.0
    temp_max_c: float = 50.0
    temp_taper_c: float = 5.0
    cell_v_min: float = 0.0
    cell_v_max: float = 0.0
    cell_taper_v: float = 0.0
    ramp_go_w_per_s: float | None = None
    ramp_stop_w_per_s: float | None = None

    @property
    def battery(self) -> str:
        """What the points of its battery begin with: the BMS, or the unit itself where it has several."""
        return self.name if self.parallel else self.bms


class Limits(Row, frozen=True, kw_only=True):
    """What the connection point can bear; None = no limit."""

    connection_import_w_max: float | None = None
    connection_export_w_max: float | None = None
    phase_import_w_max: float | None = None
    base_load_w: float = 0.0
    reconnect_wait_s: float = 0.0
    reconnect_ramp_pct_per_min: float | None = None
    reconnect_hz: tuple[float, float] = (45.0, 66.0)
    reconnect_v: tuple[float, float] | None = None


class TypedControl(Row, frozen=True, kw_only=True):
    """What the corridor aims at; None = the policy does not exist."""

    # Every policy of ext/abi/settings.h is a field of Control. Here stands what has a default or is read by name.

    peak_w_max: float | None = None
    recharge_w_max: float | None = None
    ramp_up_w_per_s: float | None = None
    ramp_down_w_per_s: float | None = None
    target_soc: float = 0.8
    recharge_rate_w: float | None = None
    reserve_soc: float = 0.0
    trim_per_s: float = 0.2
    deadband_w: float = 50.0
    pcs_tau_ms: float = 50.0
    meter_latency_ms_max: float | None = None
    demand_w_max: float | None = None
    demand_window_s: float | None = None
    demand_step_s: float | None = None
    demand_margin_w: float | None = None
    demand_ratchet: float | None = None
    demand_paid_w: float | None = None
    demand_billing: Literal["month", "year"] | None = None
    demand_peaks: int | None = None
    demand_peaks_of: Literal["day", "month"] | None = None
    schedule_gaps: Literal["next", "refuse"] = "next"
    phase_share: tuple[float, float, float] | None = None
    blind_discharge_w_max: float = 0.0
    range_w_max: float | None = None
    range_window_s: float | None = None
    damp_share: float | None = None
    damp_lo_hz: float | None = None
    damp_hi_hz: float | None = None
    follow_grid: bool = False
    target_grid_w: float = 0.0
    follow_soc_min: float | None = None
    recentre: bool = False


if TYPE_CHECKING:
    Control = TypedControl
else:
    Control = msgspec.defstruct(
        "Control",
        [(name, float | None, None) for name in POLICY_NAMES_BY_NUMBER if name not in TypedControl.__struct_fields__],
        bases=(TypedControl,),
        module=__name__,
        namespace={"__doc__": TypedControl.__doc__},
        frozen=True,
        kw_only=True,
    )


class Slot(Row, frozen=True, kw_only=True):
    """A time slot of the calendar, by the site's clock."""

    name: str
    days: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    months: tuple[int, ...] = ()
    holidays: HolidayRule = "as-weekday"
    begin: str
    end: str
    setpoint_w: float | None = None
    until_soc: float | None = None
    forced: bool = False
    target_grid_w: float | None = None
    import_w_max: float | None = None
    export_w_max: float | None = None
    peak_w_max: float | None = None
    demand_w_max: float | None = None
    charge_w_max: float | None = None
    discharge_w_max: float | None = None


class Gateway(Row, frozen=True, kw_only=True):
    """The ZeroMQ API."""

    endpoint: str | None = None
    publish: str | None = None
    plain_loopback: bool = False
    local_role: Literal["read", "operate", "maintain"] = "operate"
    autostart: bool = True
    journal_mb_max: int = 2048
    journal_days_max: int = 35
    keys: str | None = None


class Recorder(Row, frozen=True, kw_only=True):
    """The ring of the last minutes."""

    mib: float = 64
    automatic: bool = True
    files_max: int = 20


class Fetch(Row, frozen=True, kw_only=True):
    """A service that the sidecar asks for factors."""

    service: str
    zone: str = ""
    signal: Literal["co2_moer", "co2_aoer"] = "co2_moer"
    key_file: str | None = None
    every_s: int = 900
    url: str | None = None


class Carbon(Row, frozen=True, kw_only=True):
    """What the sidecar books with."""

    factors: str | None = None
    grid_factor_g_per_kwh: float | None = None
    pv_factor_g_per_kwh: float = 0.0
    generator_factor_g_per_kwh: float = 800.0
    unknown_factor_g_per_kwh: float = 1000.0
    policy: Literal["average", "fifo", "priority", "at-charge"] = "average"
    losses: Literal["carried", "expensed"] = "carried"
    true_up: Literal["daily", "never"] = "daily"
    charge_efficiency: float = 0.97
    discharge_efficiency: float = 0.97
    standby_w: float = 0.0
    prices: str | None = None
    price_per_kwh: float | None = None
    currency: str = "EUR"
    embodied_kg: float | None = None
    embodied_years: float = 5.0
    slots: int | None = None
    fetch: tuple[Fetch, ...] = ()
    readings: str | None = None
    ledger: str | None = None
    interval_s: Literal[300, 900, 1800, 3600] = 900
    source_g_per_kwh: dict[str, float] = {}
    not_generation: tuple[str, ...] = ()
    factor_scope: Literal["direct", "lifecycle"] | None = None
    implausible_factors: Literal["use", "hold"] = "use"
    meter_w_max: float | None = None
    register_range_kwh: dict[str, float] = {}


class SimulatedFault(Row, frozen=True, kw_only=True):
    """One thing that goes wrong in the simulated world."""

    kind: str
    target: str | int = ""
    on_s: float = 0.0
    off_s: float | None = None
    value: float = 0.0


class Simulation(Row, frozen=True, kw_only=True):
    """The simulated world behind buses whose device is "sim"."""

    seed: int = 1
    load_trace: str | None = None
    load_column: str = "power_w_filled"
    load_w: float | None = None
    start_s: float = 0.0
    length_s: float | None = None
    pv_trace: str | None = None
    pv_column: str = "ac_power_w"
    pv_scale: float = 1.0
    cooling_share: float = 0.0
    cooling_mean_s: float = 600.0
    meter_update_ms: float = 20.0
    meter_delay_ms: float = 0.0
    meter_resolution_w: float = 1.0
    pcs_tau_ms: float = 20.0
    pcs_dead_ms: float = 2.0
    pcs_ramp_w_per_s: float = 1e6
    pcs_loss_w: float = 150.0
    pcs_loss_share: float = 0.02
    pcs_watchdog_ms: float = 2000.0
    cells: int = 240
    soc_start: float = 0.6
    soh: float = 1.0
    ambient_c: float = 22.0
    pcs_measure_ms: float = 10.0
    turnaround_ms: float = 1.0
    turnaround_jitter_ms: float = 0.5
    step_w: float = 20.0
    meter_jitter: float = 0.0
    meter_average_ms: float = 0.0
    meter_lag_ms: float = 0.0
    meter_band_w: float = 0.0
    meter_then_s: float = 0.0
    meter_then_update_ms: float = 20.0
    meter_then_average_ms: float = 0.0
    meter_then_lag_ms: float = 0.0
    pcs_gain: float = 1.0
    pcs_offset_w: float = 0.0
    pcs_quantum_w: float = 0.0
    pcs_derate_share: float = 1.0
    pcs_derate_w: float = 1e12
    pcs_derate_from_s: float = 0.0
    pcs_derate_until_s: float = 1e9
    pcs_full_soc: float = 2.0
    pcs_own_w: float = 0.0
    pcs_own_from_s: float = 0.0
    genset_start_s: float = 8.0
    bms_taper: float = 0.05
    bms_soc_step: float = 0.0
    bms_jump_s: float = 0.0
    bms_jump_lo: float = 1.0
    phase_share: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    faults: tuple[SimulatedFault, ...] = ()


class Node(Row, frozen=True, kw_only=True):
    """One metered flow of the account: its role, its power, its energy registers.

    positive_wh counts what is positive inside (import, discharge, generation), negative_wh the other direction.
    """

    role: str
    device: str
    power: str = ""
    positive_wh: str | None = None
    negative_wh: str | None = None


class Fault(Row, frozen=True, kw_only=True):
    """One row of the fault table as this site has it."""

    id: str
    row: int | None = None
    """Its bit; None = its place in the list."""
    text: str = ""
    what: str = ""
    clear: str = ""
    note: str | None = None
    reaction: str = ""
    debounce_ms: int = 0
    debounce_ms_max: int = 0
    clear_ms: int = 0
    latched: bool = False
    flap_max: int = 0
    threshold: float | None = None
    unit: str | None = None
    floor: float | None = None
    floor_unit: str | None = None
    derate_permille: int | None = None


class Command(Row, frozen=True, kw_only=True):
    """One written register of a device."""

    device: str
    name: str
    kind: str = ""
    address: int | None = None


class PlanBlock(Row, frozen=True, kw_only=True):
    """One read of a port's poll plan."""

    device: str
    function: int
    address: int
    count: int
    poll: str
    period_ms: float
    time_us: int


class PortPlan(Row, frozen=True, kw_only=True):
    """How a port's time is spent: `zero_us` is the time from an alarm to 0 W on the wire."""

    port: str
    share: float = 0.0
    round_us: int = 0
    zero_us: int = 0
    zero_timeout_us: int = 0
    asked_us: dict[str, int] = {}
    blocks: tuple[PlanBlock, ...] = ()


class Description(Row, frozen=True, kw_only=True):
    """A compiled site."""

    schema: int = SCHEMA
    sha256: str = ""
    """Of the program."""
    site: SiteHead = SiteHead()
    folder: str | None = None
    """Where the site file lies; only where a device brings its own map."""
    period_ns: int = 1_000_000
    snapshot_every: int = 100
    points: tuple[Point, ...] = ()
    devices: tuple[Device, ...] = ()
    ports: tuple[SerialPort, ...] = ()
    can: tuple[CanBus, ...] = ()
    units: tuple[Storage, ...] = ()
    limits: Limits = Limits()
    control: Control = Control()
    schedule: tuple[Slot, ...] = ()
    gateway: Gateway = Gateway()
    recorder: Recorder = Recorder()
    carbon: Carbon = Carbon()
    simulation: Simulation | None = None
    simulated: bool = False
    nodes: tuple[Node, ...] = ()
    faults: tuple[Fault, ...] = ()
    commands: tuple[Command, ...] = ()
    silence_us: dict[str, int] = {}
    """Device -> longest time from its last word to setpoint 0."""
    plan: tuple[PortPlan, ...] = ()
    first: tuple[str, ...] = ()
    """What the loop believed when it started, and where that is from; nothing = it knew nothing."""
    notes: tuple[str, ...] = ()
    """Settings that do nothing, or that contradict what was measured."""

    @property
    def point_names(self) -> list[str]:
        """Names in image order."""
        return [point.name for point in self.points]

    @property
    def point_units(self) -> dict[str, str]:
        """Name -> unit, in image order."""
        return {point.name: point.unit for point in self.points}

    def fault_names(self) -> dict[int, str]:
        """Bit -> id of the fault table."""
        return {place if fault.row is None else fault.row: fault.id for place, fault in enumerate(self.faults)}

    def device_named(self, name: str) -> Device | None:
        """The device of this name."""
        return next((device for device in self.devices if device.name == name), None)

    def slave_names(self, port: str) -> list[str]:
        """Who stands behind each slave of a port, in the order of its counters."""
        return [" + ".join(device.name for device in group) for group in self.slave_devices(port)]

    def slave_devices(self, port: str) -> list[list[Device]]:
        """The devices behind each slave of a port, in the order of its counters: several where they share a unit id."""
        found: dict[int | None, list[Device]] = {}
        for device in self.devices:
            if device.bus == port and device.protocol != "can":
                found.setdefault(device.unit_id, []).append(device)
        return list(found.values())


Kind = TypeVar("Kind", bound=Description)


def _renamed(blob: Mapping[str, object]) -> dict[str, object]:
    """Points and nodes under the names that they have now, whichever names they came with; each point once."""
    found: dict[str, object] = {}
    points, nodes = blob.get("points"), blob.get("nodes")
    if isinstance(points, list | tuple):
        names = {row.get("name") for row in points if isinstance(row, dict)}
        kept: list[object] = []
        for row in points:
            new = RENAMED_POINTS.get(row.get("name", "")) if isinstance(row, dict) else None
            if new is None:
                kept.append(row)
            elif new not in names:
                kept.append({**row, "name": new})
        found["points"] = kept
    if isinstance(nodes, list | tuple):
        found["nodes"] = [
            {**{new: row[old] for old, new in RENAMED_NODE_FIELDS.items() if old in row}, **row}
            if isinstance(row, dict)
            else row
            for row in nodes
        ]
    return found


def decode(blob: Mapping[str, object], kind: type[Kind]) -> Kind:
    """The describe blob (`program.describe`, or the API's answer) as `kind`.

    Raises DescriptionError for a blob of a later schema, and for one that is damaged.
    """
    schema = blob.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise DescriptionError(
            f"the site's description has version {schema!r}, this release reads {SCHEMA}; use the release that made it"
        )
    try:
        return msgspec.convert({**blob, **_renamed(blob)}, kind)
    except msgspec.ValidationError as why:
        raise DescriptionError(
            f"the site's description (version {schema}) cannot be read: {why}; compile the site again with this release"
        ) from None


def described(blob: Mapping[str, object]) -> Description:
    """The describe blob of a program as types. Raises DescriptionError."""
    return decode(blob, Description)
