"""The site file: TOML with the unit in every key, checked before anything starts.

`load_site` lists everything that is wrong at once: the key's path, its line, what was expected and what to do.
"""

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, create_model, model_validator

from tidegate.config.gpio import LINES_MAX, Input, Output
from tidegate.config.hazards import TEMP_C_MAX
from tidegate.config.notify_targets import Notify
from tidegate.config.policy_table import site_fields
from tidegate.config.rules import cross_check
from tidegate.config.site_buses import Can as Can
from tidegate.config.site_buses import Name, Share, Strict, Watt
from tidegate.config.site_buses import Serial as Serial
from tidegate.config.site_buses import Tcp as Tcp
from tidegate.config.site_island import Island
from tidegate.config.site_simulation import Simulation as Simulation
from tidegate.config.telemetry_sources import SOURCES_MAX, Telemetry
from tidegate.config.toml_lines import Table, line_of
from tidegate.hal import description, key_errors

SITE_BYTES_MAX = 1 << 20

# Defaults stand once, in hal/description.py: the compiled program and the simulator have the same.
_HEAD = description.SiteHead()
_STORAGE, _CONTROL, _LIMITS = description.Storage(name=""), description.Control(), description.Limits()
_SLOT = description.Slot(name="", begin="", end="")
_GATEWAY, _RECORDER = description.Gateway(), description.Recorder()
_CARBON, _FETCH = description.Carbon(), description.Fetch(service="")

# Exit codes of the command line for a site that cannot be used, by class.
EXIT_UNREADABLE = 66  # missing, no permission, not a file, too big (EX_NOINPUT)
EXIT_CONTENT = 65  # not TOML, unknown key, wrong value (EX_DATAERR)
EXIT_PLAN = 78  # every value is allowed, but together they cannot work (EX_CONFIG)

Millisecond = Annotated[float, Field(gt=0, le=600_000)]
Reverts = Annotated[float, Field(ge=0)] | dict[str, Annotated[float, Field(ge=0)]]  # ms, or by converter
Role = Literal[
    "grid-meter", "it-meter", "cooling-meter", "lighting-meter", "other-meter", "pv-meter", "generator-meter",
    "circuit-meter", "pcs", "bms",
]  # fmt: skip


class SiteError(Exception):
    """A site that must not start. problems: one sentence each; exit_code: the class of the worst."""

    def __init__(self, path: str, problems: list[str], exit_code: int = EXIT_CONTENT) -> None:
        self.path = path
        self.problems = problems
        self.exit_code = exit_code
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class SiteHead(Strict):
    """Who and where."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=63, description="name of the site")]
    timezone: Annotated[str, Field(description="IANA name, for tariffs and reports")] = _HEAD.timezone
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="for public holidays and reports")] | None = None
    subdivision: Annotated[
        str | None, Field(pattern=r"^[A-Z0-9]{1,3}$", description="of the country, as in ISO 3166-2, for its holidays")
    ] = None
    period_us: Annotated[int, Field(ge=250, le=100_000, description="length of one cycle")] = _HEAD.period_us
    snapshot_hz: Annotated[float, Field(gt=0, le=4000, description="snapshots published a second")] = _HEAD.snapshot_hz


class Device(Strict):
    """One meter, power converter or BMS."""

    name: Name
    map: Annotated[str, Field(min_length=1, description="a shipped device map, or a .toml beside the site file")]
    bus: Name
    role: Role
    unit_id: Annotated[int, Field(ge=0, le=255, description="1 to 247; over Modbus TCP also 0 and 255")] | None = None
    can_id_offset: Annotated[int, Field(ge=0, le=0x1FFFFFFF)] = 0
    invert: Annotated[bool, Field(description="the meter's current transformers face the other way")] = False
    options: Annotated[dict[str, str | int | float | bool], Field(description="dialect options of the map")] = Field(
        default_factory=dict
    )
    doubts_answered: Annotated[
        dict[str, str],
        Field(description="words of a doubt of the map -> how it was answered here; it is then said no more"),
    ] = Field(default_factory=dict)
    sunspec_base: Literal[40000, 0, 50000] | None = None
    sunspec_models: Annotated[dict[str, int], Field(description="model number -> address of its ID word")] = Field(
        default_factory=dict
    )
    poll_fast_ms: Annotated[float, Field(ge=0, le=60_000, description="0 = as often as the wire allows")] = 0.0
    poll_slow_ms: Annotated[float, Field(ge=10, le=3_600_000)] = 1000.0
    age_max_ms: Millisecond | None = None
    timeout_ms: Millisecond | None = None
    latency_ms: Annotated[float, Field(ge=0, le=10_000, description="answer delay, for planning")] | None = None
    turnaround_ms: Annotated[float, Field(ge=0, le=10_000)] | None = None
    nameplate_w_max: Annotated[float, Field(gt=0, le=2e6, description="of a converter, from its type plate")] | None = (
        None
    )
    nameplate_a_max: Annotated[float, Field(gt=0, le=2e6, description="of a battery, from its type plate")] | None = (
        None
    )
    circuit_w_max: Watt | None = None
    circuit_storage: Annotated[tuple[str, ...], Field(description="storage units behind a circuit-meter")] = ()


class Storage(Strict):
    """One storage unit: a BMS, or several side by side, and the converter in front of them."""

    name: Name
    bms: Name
    parallel: Annotated[tuple[Name, ...], Field(max_length=7, description="more BMSs, on the same DC side")] = ()
    pcs: Name
    energy_wh: Annotated[float, Field(gt=0, le=1e9, description="usable, nameplate")]
    charge_w_max: Annotated[float, Field(gt=0, le=2e6)]
    discharge_w_max: Annotated[float, Field(gt=0, le=2e6)]
    charge_a_max: Annotated[float, Field(gt=0, le=2e6)] | None = None
    discharge_a_max: Annotated[float, Field(gt=0, le=2e6)] | None = None
    soc_min: Share = _STORAGE.soc_min
    soc_max: Share = _STORAGE.soc_max
    soc_taper: Share = _STORAGE.soc_taper
    temp_min_c: Annotated[float, Field(ge=-40, le=60)] = 0.0
    temp_max_c: Annotated[float, Field(ge=0, le=TEMP_C_MAX)] = _STORAGE.temp_max_c
    temp_taper_c: Annotated[float, Field(ge=0, le=30)] = _STORAGE.temp_taper_c
    cell_v_min: Annotated[float, Field(ge=0, le=10, description="0 = not checked")] = 0.0
    cell_v_max: Annotated[float, Field(ge=0, le=10, description="0 = not checked")] = 0.0
    cell_taper_v: Annotated[float, Field(ge=0, le=1, description="linear derate before a cell limit")] = 0.0
    ramp_go_w_per_s: Annotated[float, Field(gt=0, le=4e8)] | None = None
    ramp_stop_w_per_s: Annotated[float, Field(gt=0, le=2e9)] | None = None


class Limits(Strict):
    """What the connection point can bear."""

    connection_import_w_max: Watt | None = None
    connection_export_w_max: Watt | None = None
    phase_import_w_max: Annotated[float, Field(gt=0, le=1e8, description="each of three phases")] | None = None
    base_load_w: Annotated[float, Field(ge=0, le=1e8, description="least power that the site always draws")] = 0.0
    reconnect_wait_s: Annotated[float, Field(ge=0, le=7200, description="no power after a loss of the grid")] = 0.0
    reconnect_ramp_pct_per_min: Annotated[float | None, Field(gt=0, le=6000, description="then, of type plates")] = None
    reconnect_hz: Annotated[tuple[float, float], Field(description="outside the grid is lost")] = _LIMITS.reconnect_hz
    reconnect_v: Annotated[tuple[float, float] | None, Field(description="the same of each phase's voltage")] = None


Policies = create_model("Policies", __base__=Strict, **site_fields())  # type: ignore[call-overload]


class Control(Policies):  # type: ignore[valid-type, misc]
    """What the corridor aims at. A limit that is left out does not exist."""

    trim_per_s: Annotated[float, Field(ge=0, le=100)] = _CONTROL.trim_per_s
    meter_latency_ms: Annotated[float, Field(ge=0, le=60_000, description="former key, ignored")] | None = None
    deadband_w: Watt = _CONTROL.deadband_w
    pcs_tau_ms: Annotated[float, Field(ge=0, le=60_000)] = _CONTROL.pcs_tau_ms
    meter_latency_ms_max: Annotated[float, Field(ge=10, le=10_000, description="longest age looked for")] | None = None
    demand_window_s: Literal[300, 600, 900, 1800, 3600] | None = None
    demand_step_s: Annotated[float, Field(ge=0, le=3600, description="a sliding window moves by this")] | None = None
    demand_margin_w: Watt | None = None
    demand_ratchet: Share | None = None
    demand_paid_w: Watt | None = None
    demand_billing: Annotated[
        Literal["month", "year"] | None, Field(description="the ratchet starts anew with it, by the site's clock")
    ] = None
    demand_peaks: Annotated[
        int | None, Field(ge=1, le=31, description="the bill is the mean of so many highest peaks of the period")
    ] = None
    demand_peaks_of: Annotated[
        Literal["day", "month"] | None, Field(description="what each of them is the highest window of")
    ] = None
    schedule_gaps: Annotated[
        Literal["next", "refuse"], Field(description="where no slot holds: the next source, or a file that is refused")
    ] = _CONTROL.schedule_gaps
    phase_share: tuple[Share, Share, Share] | None = None
    blind_discharge_w_max: Annotated[
        float, Field(ge=0, le=1e8, description="discharge that may go on without the site meter; 0 = none")
    ] = 0.0
    range_window_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    damp_lo_hz: Annotated[float, Field(gt=0, le=50)] | None = None
    damp_hi_hz: Annotated[float, Field(gt=0, le=50)] | None = None
    recentre: Annotated[bool, Field(description="also discharge towards target_soc")] = False


TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]


class Slot(Strict):
    """A time slot of the calendar, by the site's clock: what holds between begin and end on these days."""

    name: Name
    days: Annotated[tuple[description.Weekday, ...], Field(min_length=1)] = _SLOT.days
    months: Annotated[
        tuple[Annotated[int, Field(ge=1, le=12)], ...], Field(description="1 = January; none = the whole year")
    ] = ()
    holidays: Annotated[
        description.HolidayRule,
        Field(description="public holidays of site.country: as their weekday, never, beside the days, or nothing else"),
    ] = _SLOT.holidays
    begin: TimeOfDay
    end: Annotated[TimeOfDay, Field(description="not behind begin: on the next day")]
    setpoint_w: Annotated[float, Field(ge=-1e8, le=1e8, description="battery power, + discharge")] | None = None
    until_soc: Annotated[Share, Field(description="the setpoint ends there")] | None = None
    forced: Annotated[bool, Field(description="the setpoint outranks a lease, recharge band and soc band")] = False
    target_grid_w: Annotated[float, Field(ge=-1e8, le=1e8)] | None = None
    import_w_max: Watt | None = None
    export_w_max: Watt | None = None
    peak_w_max: Watt | None = None
    demand_w_max: Watt | None = None
    charge_w_max: Annotated[Watt | None, Field(description="the battery takes no more; 0 = it is not charged")] = None
    discharge_w_max: Annotated[Watt | None, Field(description="it gives no more; both 0 = it is held")] = None


class FaultChange(Strict):
    """A row of the fault table, made stricter for this site."""

    debounce_ms: Annotated[int, Field(ge=0, le=600_000)] | None = None
    clear_ms: Annotated[int, Field(ge=0, le=3_600_000)] | None = None
    latched: bool | None = None


class Safety(Strict):
    """Changes to the fault table, by the fault's id."""

    faults: dict[str, FaultChange] = Field(default_factory=dict)


class Gateway(Strict):
    """The ZeroMQ API. On this machine it always listens on sockets in the runtime folder."""

    endpoint: (
        Annotated[str, Field(pattern=r"^tcp://[^:]+:\d+$", description="tcp://ADDRESS:PORT for other machines")] | None
    ) = None
    publish: (
        Annotated[str, Field(pattern=r"^tcp://[^:]+:\d+$", description="default: one port above endpoint")] | None
    ) = None
    plain_loopback: Annotated[
        bool, Field(description="no CURVE; only allowed where endpoint is a loopback address")
    ] = False
    local_role: Annotated[
        Literal["read", "operate", "maintain"], Field(description="of users of our group on this machine")
    ] = _GATEWAY.local_role
    autostart: Annotated[bool, Field(description="arm by itself when nothing is latched")] = _GATEWAY.autostart
    journal_mb_max: Annotated[int, Field(ge=16, le=1_000_000, description="samples; totals stay")] = (
        _GATEWAY.journal_mb_max
    )
    journal_days_max: Annotated[int, Field(ge=1, le=3660)] = _GATEWAY.journal_days_max
    keys: Annotated[str, Field(description="folder of keys; default: keys in the site's state folder")] | None = None

    @model_validator(mode="after")
    def _plain_stays_here(self) -> "Gateway":
        host = (self.endpoint or "").removeprefix("tcp://").rpartition(":")[0]
        if self.plain_loopback and host not in ("127.0.0.1", "localhost"):
            raise ValueError("plain_loopback needs endpoint = tcp://127.0.0.1:PORT; other addresses need CURVE")
        return self


class Console(Strict):
    """The serial console. Without a port there is none."""

    port: Annotated[str, Field(min_length=1, max_length=255, description="path of the tty, such as /dev/ttyS0")]
    baud: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 9600


class Fetch(Strict):
    """A service that the sidecar asks for factors over HTTP. Without one it asks nobody."""

    service: Literal["electricity-maps", "watttime", "gb-carbon-intensity", "entsoe"]
    zone: Annotated[str, Field(max_length=64, description="zone, WattTime region, or ENTSO-E's EIC code")] = ""
    signal: Annotated[Literal["co2_moer", "co2_aoer"], Field(description="of WattTime: marginal or average")] = (
        _FETCH.signal
    )
    key_file: (
        Annotated[str, Field(description="file beside the site file with the key; for WattTime user:password")] | None
    ) = None
    every_s: Annotated[int, Field(ge=60, le=86_400)] = _FETCH.every_s
    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$", description="another root")] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Fetch":
        if self.service != "gb-carbon-intensity":
            for key in ("zone", "key_file"):
                if not getattr(self, key):
                    raise ValueError(f"{self.service} needs {key}")
        host = (self.url or "").removeprefix("http://").partition("/")[0].rpartition(":")[0]
        if self.key_file and (self.url or "").startswith("http://") and host not in ("127.0.0.1", "localhost"):
            raise ValueError("a key needs https; http:// is for 127.0.0.1:PORT only")
        return self


class Watchdog(Strict):
    """The board's own watchdog, fed by the loop's proof of life. Without this table it is left alone."""

    device: Annotated[str, Field(pattern=r"^/", max_length=255, description="path of the device")] = "/dev/watchdog"
    timeout_s: Annotated[int, Field(ge=2, le=600, description="the board is reset after so long without")] = 10


class Recorder(Strict):
    """The last minutes of every cycle: a ring in memory, a file when something happens."""

    mib: Annotated[float, Field(ge=0, le=1024, description="memory for the ring; 0 = none, else at least 2")] = (
        _RECORDER.mib
    )
    automatic: Annotated[
        bool, Field(description="write a file on a fault that takes power away, and on an overrun")
    ] = _RECORDER.automatic
    files_max: Annotated[int, Field(ge=1, le=10_000, description="files kept that nobody asked for")] = (
        _RECORDER.files_max
    )

    @model_validator(mode="after")
    def _room_for_a_state(self) -> "Recorder":
        if 0 < self.mib < 2:
            raise ValueError(f"mib = {self.mib:g} is too small for one state; give at least 2, or 0 for no recorder")
        return self


class Carbon(Strict):
    """What the sidecar books with."""

    factors: Annotated[str, Field(description="grid factor table, path beside the site file")] | None = None
    grid_factor_g_per_kwh: Annotated[float, Field(ge=0, le=5000)] | None = None
    pv_factor_g_per_kwh: Annotated[float, Field(ge=0, le=5000)] = 0.0
    generator_factor_g_per_kwh: Annotated[float, Field(ge=0, le=5000, description="of a generator-meter")] = (
        _CARBON.generator_factor_g_per_kwh
    )
    unknown_factor_g_per_kwh: Annotated[float, Field(ge=0, le=5000, description="for what no meter explains")] = (
        _CARBON.unknown_factor_g_per_kwh
    )
    policy: Annotated[
        Literal["average", "fifo", "priority", "at-charge"], Field(description="how storage hands on carbon")
    ] = _CARBON.policy
    losses: Annotated[
        Literal["carried", "expensed"], Field(description="carbon of storage losses: kept by the stock, or written off")
    ] = _CARBON.losses
    true_up: Annotated[Literal["daily", "never"], Field(description="set the stock to the state of charge")] = (
        _CARBON.true_up
    )
    charge_efficiency: Annotated[float, Field(gt=0, le=1, description="DC stored per AC charged")] = (
        _CARBON.charge_efficiency
    )
    discharge_efficiency: Annotated[float, Field(gt=0, le=1, description="AC delivered per DC taken")] = (
        _CARBON.discharge_efficiency
    )
    standby_w: Annotated[Watt, Field(description="what each storage unit loses at rest, DC")] = 0.0
    prices: Annotated[str, Field(description="price table, path beside the site file")] | None = None
    price_per_kwh: Annotated[float, Field(ge=-100, le=100)] | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = _CARBON.currency
    embodied_kg: Annotated[float, Field(ge=0, le=1e9, description="CO2e of making the IT equipment")] | None = None
    embodied_years: Annotated[float, Field(gt=0, le=100, description="its expected life")] = _CARBON.embodied_years
    slots: Annotated[int, Field(ge=1, le=10_000_000, description="GPUs, or what else jobs reserve, in all")] | None = (
        None
    )
    fetch: Annotated[tuple[Fetch, ...], Field(max_length=8)] = ()
    readings: (
        Annotated[str, Field(description="register readings of water and heat: CSV or folder, beside the site file")]
        | None
    ) = None
    ledger: Annotated[str, Field(description="SQLite path or database URL")] | None = None
    interval_s: Literal[300, 900, 1800, 3600] = _CARBON.interval_s
    source_g_per_kwh: Annotated[
        dict[str, Annotated[float, Field(ge=0, le=5000)]],
        Field(max_length=64, description="of the sources of a generation mix, by column or psrType"),
    ] = Field(default_factory=dict)
    not_generation: Annotated[
        tuple[str, ...], Field(max_length=64, description="columns of a generation mix that are no source")
    ] = ()
    factor_scope: Annotated[
        Literal["direct", "lifecycle"] | None, Field(description="which factors count where a file has both")
    ] = None
    implausible_factors: Annotated[
        Literal["use", "hold"],
        Field(description="factors that fall to a third or treble in one step: used and flagged, or the last one held"),
    ] = _CARBON.implausible_factors
    meter_w_max: Annotated[
        float | None,
        Field(gt=0, le=1e10, description="largest power that a meter can show; default: 3 times the connection"),
    ] = None
    register_range_kwh: Annotated[
        dict[str, Annotated[float, Field(gt=0, le=1e9)]],
        Field(max_length=64, description="where a register begins at 0 again, by flow, like grid.import = 100000"),
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_place(self) -> "Carbon":
        if self.fetch and not self.factors:
            raise ValueError('fetch needs factors = "FOLDER/", where it keeps what it was told')
        return self


class MeasuredConverter(Strict):
    """How one converter follows its setpoint."""

    dead_ms: Annotated[float, Field(ge=0, le=60_000, description="until it begins to answer")] = 0.0
    lag_ms: Annotated[float, Field(ge=0, le=60_000, description="then, of a first-order answer")] = 0.0
    ramp_w_per_s: Annotated[float | None, Field(gt=0, description="steepest move seen; for people")] = None
    gain: Annotated[float, Field(ge=0, le=2, description="gives so much of what it is told; 0 = not measured")] = 0.0


class Commissioning(Strict):
    """What `tidegate commission` measured, and where it is signed. The loop begins with it, and measures anew."""

    at_utc: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")] | None = None
    report: Annotated[str, Field(description="file beside this one")] | None = None
    protocol: Annotated[str, Field(description="former name of report")] | None = None
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="public key that signed it")] | None = None
    test_w: Watt | None = None
    pcs_lag_ms: Annotated[float, Field(ge=0, description="63 % of a step")] | None = None
    pcs_revert_ms: Annotated[Reverts | None, Field(description="after the controller died; of several by name")] = None
    meter_interval_ms: Annotated[float, Field(ge=0, description="between new values of the grid meter")] | None = None
    meter_interval_spread_ms: Annotated[float, Field(ge=0, description="of that")] | None = None
    meter_delay_ms: Annotated[float, Field(description="grid meter after the converter's reading")] | None = None
    meter_delay_spread_ms: Annotated[float, Field(ge=0, description="of that")] | None = None
    meter_resolution_w: Annotated[float, Field(ge=0, description="least change that it shows")] | None = None
    meter_gain: Annotated[float, Field(description="shows so much of a step, + as it should")] | None = None
    converter: Annotated[dict[Name, MeasuredConverter], Field(description="each by its name")] = Field(
        default_factory=dict
    )


class Site(Strict):
    """A site file. `folder` is where it lies: paths inside it are relative to that."""

    schema_version: Annotated[Literal[1], Field(alias="schema", description="version of this file format")]
    site: SiteHead
    serial: tuple[Serial, ...] = ()
    tcp: tuple[Tcp, ...] = ()
    can: tuple[Can, ...] = ()
    device: tuple[Device, ...] = ()
    storage: tuple[Storage, ...] = ()
    input: Annotated[tuple[Input, ...], Field(max_length=LINES_MAX)] = ()
    output: Annotated[tuple[Output, ...], Field(max_length=LINES_MAX)] = ()
    limits: Limits = Limits()
    island: Island | None = None
    control: Control = Control()
    schedule: Annotated[tuple[Slot, ...], Field(max_length=64)] = ()
    safety: Safety = Safety()
    gateway: Gateway = Gateway()
    recorder: Recorder = Recorder()
    console: Console | None = None
    watchdog: Watchdog | None = None
    carbon: Carbon = Carbon()
    telemetry: Annotated[tuple[Telemetry, ...], Field(max_length=SOURCES_MAX)] = ()
    notify: Notify | None = None
    commissioning: Commissioning | None = None
    simulation: Simulation | None = None
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Where the site file lies."""
        return self._folder

    @property
    def simulated(self) -> bool:
        """Whether any bus of it is simulated."""
        lines = [one.device for one in self.serial] + [one.host for one in self.tcp]
        return "sim" in lines or any(one.interface == "sim" for one in self.can)


# ------------------------------------------------------------------------------------------------------- reading


def read_site_text(path: Path) -> str:
    """The text of a site file. Raises SiteError for what must not be read: missing, huge, writable by everybody."""
    shown = str(path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        said = "no such file; give the path of a site file, such as config/demo/site.toml"
        raise SiteError(shown, [said], EXIT_UNREADABLE) from None
    except OSError as error:
        raise SiteError(shown, [f"cannot be read: {error.strerror}"], EXIT_UNREADABLE) from None
    if path.is_symlink():
        target = os.path.realpath(path)
        said = f"is a symbolic link to {target}; name that file, so that what is checked is what runs"
        raise SiteError(shown, [said], EXIT_UNREADABLE)
    if not stat.S_ISREG(found.st_mode):
        raise SiteError(shown, ["is not a regular file; expected a TOML file"], EXIT_UNREADABLE)
    if found.st_mode & stat.S_IWOTH:
        raise SiteError(shown, ["is writable by everybody; run: chmod o-w " + shown], EXIT_UNREADABLE)
    if found.st_size > SITE_BYTES_MAX:
        raise SiteError(
            shown, [f"has {found.st_size} bytes, a site file has at most {SITE_BYTES_MAX}"], EXIT_UNREADABLE
        )
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise SiteError(shown, [f"cannot be read: {error.strerror}; check its permissions"], EXIT_UNREADABLE) from None
    except UnicodeDecodeError as error:
        raise SiteError(shown, [f"is not UTF-8 at byte {error.start}; save it as UTF-8"], EXIT_CONTENT) from None


def load_site(path: str | os.PathLike[str]) -> Site:
    """The site in this file, with every rule checked that needs no device map.

    Raises SiteError with all problems; compile_site finds those that need the maps and the bus times.
    """
    place = Path(path)
    text = read_site_text(place)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SiteError(str(place), [f"is not TOML: {error}"]) from None
    site, problems = parse_site(raw, text)
    if site is None or problems:
        raise SiteError(str(place), problems)
    site._folder = place.resolve().parent
    return site


def parse_site(raw: Table, text: str = "") -> tuple[Site | None, list[str]]:
    """(site or None, problems) of the parsed TOML; text gives the lines for the messages."""
    if "schema" not in raw:
        return None, ["schema is missing: expected schema = 1 as the first line"]
    if raw["schema"] != 1:
        return None, [
            f"schema = {raw['schema']!r}: this version reads schema 1; see CHANGELOG.md for how to move a file"
        ]
    site: Site | None = None
    problems = []
    try:
        # By way of JSON, because strict validation takes a list for a tuple only there.
        site = Site.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        for one in error.errors():
            loc = tuple(
                step for step in one["loc"] if step not in ("constrained-int", "int", "str", "literal['spec','chars']")
            )
            problems.append(f"{where(loc, raw, text)}: {_explain(one, loc)}")
    return site, problems + cross_check(raw, lambda loc: where(loc, raw, text))


def where(loc: tuple[int | str, ...], raw: Any, text: str) -> str:
    """The path of a key for people: rows by their name, the line in the file where it can be told."""
    parts: list[str] = []
    at = raw
    for step in loc:
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            at = None
        if isinstance(step, int) and parts:
            parts[-1] += f"[{at['name'] if isinstance(at, dict) and isinstance(at.get('name'), str) else step}]"
        else:
            parts.append(str(step))
    line = line_of(text, loc) if text else 0
    return ".".join(parts) + (f" (line {line})" if line else "")


UNIT_ENDINGS = (
    *("_w_per_s", "_kw_per_s", "_per_s", "_w_max", "_kw_max", "_a_max", "_ma_max", "_w", "_kw", "_mw", "_wh", "_kwh"),
    *("_mwh", "_a", "_ma", "_v", "_mv", "_c", "_k", "_s", "_ms", "_us", "_ns", "_hz", "_min", "_percent", "_pct"),
)


def _stem(key: str) -> str:
    for ending in sorted(UNIT_ENDINGS, key=len, reverse=True):
        if key.endswith(ending):
            return key.removesuffix(ending)
    return key


def _explain(one: Any, loc: tuple[int | str, ...]) -> str:
    kind, given = one["type"], one.get("input")
    if kind == "extra_forbidden":
        key, known = str(loc[-1]), key_errors.known_keys(Site, loc[:-1])
        same = [name for name in known if _stem(name) == _stem(key)]
        if same:
            return f"unknown key; the quantity is written with another unit here: {same[0]} (convert the value)"
        return key_errors.unknown_key(key, known)
    if kind == "missing":
        return "is missing and has no default; add it"
    said = one["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {said}, got {given!r}"
