"""What an entry of each kind holds, by name, and how bodies of before are read with the names of today.

Version 1 of the bodies of periods and jobs called milliwatt-hours `mwh`, which an auditor reads as megawatt-hours.
Their text stays in the ledger as it was signed; whoever reads an entry gets the names of version 2.
"""

from typing import Any, NotRequired, Required, TypedDict

from tidegate.runtime.carbon.factors.series import LookupRow

CHARGE_BOOKED = "charge booked at purchase"  # outflow of the policy at_charge


class FlowRow(TypedDict):
    """A metered flow of a period."""

    energy_milliwh: int
    quality: str
    method: str
    flags: list[str]
    open_milliwh: int | None
    close_milliwh: int | None
    integral_milliwh: int | None
    covered_ms: int
    w_max: NotRequired[int]  # highest power of a second, where the fast power was read all the time
    shape_milliwh: NotRequired[list[int]]  # of each minute, by the fast power: what finer factors are weighted by


class OutflowRow(TypedDict):
    """What one node received."""

    name: str
    kind: str
    energy_milliwh: int
    ug: int
    origins: dict[str, int]


class StockRow(TypedDict):
    """A battery's stock over a period."""

    opening_milliwh: int
    opening_ug: int
    energy_milliwh: int
    ug: int
    origins: dict[str, int]


class OpeningRow(TypedDict):
    """What was in a battery when the account began."""

    energy_milliwh: int
    ug_per_kwh: int
    why: str


class MethodRow(TypedDict):
    """How a period was attributed."""

    policy: str
    losses: str
    unknown_ug_per_kwh: int
    residual_ppm: int
    residual_milliwh: int


class ConsequenceRow(TypedDict):
    """What charging caused and discharging avoided, by marginal factors."""

    factor: LookupRow
    charge_ug: int
    avoided_ug: int


class PeriodBody(TypedDict):
    """A closed period."""

    v: int
    site: str
    start_utc_s: int
    length_s: int
    records: int
    lost: int
    soc_ppm: int | None
    utc_sync: str
    flags: list[str]
    by_difference: str | None
    flows: dict[str, FlowRow]
    method: MethodRow
    factors: dict[str, LookupRow]
    inflow_ug: dict[str, int]
    created_ug: int
    outflows: list[OutflowRow]
    residual_milliwh: int
    loss_milliwh: dict[str, int]
    loss_ug: dict[str, int]
    stock: dict[str, StockRow]
    opening: NotRequired[dict[str, OpeningRow]]
    price_u_per_kwh: NotRequired[int]
    cfe_ppm: NotRequired[int]
    residual_ug_per_kwh: NotRequired[int]  # of the residual mix, where it is known
    consequence: NotRequired[ConsequenceRow]
    replaces: NotRequired[int]


class NodeRow(TypedDict):
    """How the metered energy of a load was shared."""

    metered_milliwh: int
    basis: str
    software_milliwh: int | None
    idle_milliwh: int
    idle_ug: int
    metered_ug: NotRequired[int]  # this and the next two since jobs that cannot be placed are kept apart
    unplaced_milliwh: NotRequired[int]
    unplaced_ug: NotRequired[int]


class SourceRow(TypedDict):
    """A document, by name and digest."""

    name: str
    sha256: str


# job, owner, node, start_utc_s, end_utc_s, milliwatt-hours, ug, software's milliwatt-hours, slot seconds, units
JobRow = tuple[str, str, str, int, int, int, int, int | None, int, dict[str, int]]
IdleRow = tuple[int, str, int, int, int]  # hour_utc_s, node, milliwatt-hours, ug, millionths of the currency


class SettlementBody(TypedDict):
    """A day's shares of its jobs."""

    v: int
    start_utc_s: int
    nodes: dict[str, NodeRow]
    jobs: list[JobRow]
    idle: list[IdleRow]
    unplaced: NotRequired[list[JobRow]]  # jobs that no load is known of; node is what they named
    set_aside: list[str]
    set_aside_count: int
    sources: list[SourceRow]
    aside_entry: NotRequired[int]
    reconciled: NotRequired[list[str]]  # what differs from the settlement of before


class GridRow(TypedDict):
    """Where the grid's factors come from."""

    source: str
    sha256: str
    zone: str
    notes: list[str]


class EmbodiedRow(TypedDict):
    """Emissions of making the IT equipment."""

    ug: int
    life_s: int
    slots: int


class MethodBody(TypedDict, total=False):
    """How the account is kept from here on."""

    software: str
    build: str
    period_s: int
    policy: str
    losses: str
    true_up: str
    flows: dict[str, tuple[str, str | None, str | None]]
    storages: dict[str, list[int]]
    by_difference: str | None
    currency: str
    embodied: EmbodiedRow | None
    kinds: dict[str, str]
    notes: list[str]
    grid_factor: GridRow
    meter_milliw_max: int  # above this mean a register that comes by file is not believed


class EditFactors(TypedDict):
    """Restated factors."""

    source: str
    sha256: str
    zone: str


class EditBody(TypedDict):
    """Why periods were booked anew."""

    author: str
    reason: str
    periods: int
    from_utc_s: int
    to_utc_s: int
    edits: list[tuple[int, str, int]]
    factors: EditFactors | None


class ReadingSource(TypedDict, total=False):
    """Where readings come from."""

    kind: Required[str]
    name: Required[str]
    sha256: Required[str]
    key: str
    page: str
    flow: str | None
    document: str
    algorithm: str


class ReadingBody(TypedDict):
    """Readings of one register."""

    v: int
    meter: str
    quantity: str
    unit: str
    rows: list[tuple[int, int, str, str, str]]
    source: ReadingSource


class MeterBody(TypedDict):
    """What a person says of a meter. what : exchange, with both readings, or range, with where it ends as closing."""

    v: int
    what: str
    meter: str
    quantity: str
    unit: str
    at_utc_s: int
    closing: int
    opening: int
    author: str
    reason: str


class KeyBody(TypedDict):
    """The device's key was replaced. signature : of the new key; by_old : of the old one, "" = it is lost."""

    v: int
    site: str
    old: str
    new: str
    signature: str
    by_old: str
    author: str
    reason: str


class RestoredBody(TypedDict):
    """The ledger was put back from a backup. lost : anchored entries that stood behind it, seq and hash."""

    v: int
    author: str
    reason: str
    lost: list[tuple[int, str]]


class RenamedBody(TypedDict):
    """The site of the ledger is called otherwise from here on."""

    v: int
    old: str
    new: str
    author: str
    reason: str


class BlockBody(TypedDict):
    """A signature over entries."""

    site: str
    first: int
    last: int
    root: str
    key: str
    signature: str


class NoteBody(TypedDict, total=False):
    """What a person should know: inputs that were refused, jobs that were set aside."""

    v: int
    what: str
    about: str
    set_aside: list[str]
    set_aside_count: int


class FactorBody(TypedDict):
    """The grid's factors from here on."""

    v: int
    grid: GridRow


BODY_VERSION = 2  # of periods and settlements of jobs


def current(kind: str, body: Any) -> Any:
    """The body of an entry with the names of BODY_VERSION; changes the one that it is given.

    Raises AttributeError or TypeError for a body that no release has written.
    """
    if kind == "period" and body.get("v") == 1:
        for flow in body["flows"].values():
            _rename(flow, "mwh", "energy_milliwh")
            _rename(flow, "open_mwh", "open_milliwh")
            _rename(flow, "close_mwh", "close_milliwh")
            _rename(flow, "integral_mwh", "integral_milliwh")
        for outflow in body["outflows"]:
            _rename(outflow, "mwh", "energy_milliwh")
        for stock in body["stock"].values():
            _rename(stock, "mwh", "energy_milliwh")
            _rename(stock, "opening_mwh", "opening_milliwh")
        for opening in body.get("opening", {}).values():
            _rename(opening, "mwh", "energy_milliwh")
        _rename(body["method"], "residual_mwh", "residual_milliwh")
        _rename(body, "residual_mwh", "residual_milliwh")
        _rename(body, "loss_mwh", "loss_milliwh")
        body["v"] = BODY_VERSION
    elif kind == "job" and body.get("v") == 1:
        for node in body["nodes"].values():
            _rename(node, "metered_mwh", "metered_milliwh")
            _rename(node, "software_mwh", "software_milliwh")
            _rename(node, "idle_mwh", "idle_milliwh")
        body["v"] = BODY_VERSION
    return body


def _rename(row: dict[str, object], old: str, new: str) -> None:
    if old in row:
        row[new] = row.pop(old)


def period_error_ug(body: PeriodBody) -> int:
    """Carbon that came in and was there, less what went out, was lost and is there: 0 unless a number was changed."""
    booked = sum(o["ug"] for o in body["outflows"] if o["kind"] != "charge" or o["name"] == CHARGE_BOOKED)
    stocks = body["stock"].values()
    return (
        sum(body["inflow_ug"].values())
        + body["created_ug"]
        + sum(stock["opening_ug"] for stock in stocks)
        - booked
        - sum(body["loss_ug"].values())
        - sum(stock["ug"] for stock in stocks)
    )


def settlement_error(body: SettlementBody) -> str | None:
    """Where jobs, idle and unplaced of a settlement are not what was metered; None if all is there.

    Settlements of before knew nothing of unplaced jobs and are not checked.
    """
    if "unplaced" not in body:
        return None
    jobs: dict[str, list[int]] = {name: [0, 0] for name in body["nodes"]}
    for _, _, node, _, _, milliwh, ug, _, _, _ in body["jobs"]:
        row = jobs.setdefault(node, [0, 0])
        row[0] += milliwh
        row[1] += ug
    spread = [0, 0]
    for name, node_row in body["nodes"].items():
        milliwh = jobs[name][0] + node_row["idle_milliwh"] + node_row["unplaced_milliwh"]
        ug = jobs[name][1] + node_row["idle_ug"] + node_row["unplaced_ug"]
        if (milliwh, ug) != (node_row["metered_milliwh"], node_row["metered_ug"]):
            return f"jobs, idle and unplaced of {name} are {milliwh} mWh and {ug} ug, not what was metered"
        spread[0] += node_row["unplaced_milliwh"]
        spread[1] += node_row["unplaced_ug"]
    if [sum(row[5] for row in body["unplaced"]), sum(row[6] for row in body["unplaced"])] != spread:
        return "the jobs that cannot be placed do not add up to what is unplaced"
    return None
