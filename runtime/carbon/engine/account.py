"""From booked energy to the ledger's period entry: factors, attribution, consequence, all in whole numbers."""

from typing import TypedDict

from tidegate.runtime.carbon.engine.attribution import (
    Inflow,
    Lot,
    Method,
    Move,
    Period,
    Result,
    Stock,
    attribute,
    stock_carbon_ug,
    stock_energy_milliwh,
)
from tidegate.runtime.carbon.engine.booking import BookedPeriod
from tidegate.runtime.carbon.engine.counter import FlowPeriod
from tidegate.runtime.carbon.engine.topology import Nodes
from tidegate.runtime.carbon.factors.series import FactorLookup, Factors
from tidegate.runtime.carbon.integers import PPM, carbon_ug
from tidegate.runtime.carbon.ledger.bodies import (
    BODY_VERSION,
    ConsequenceRow,
    FlowRow,
    MethodRow,
    OpeningRow,
    OutflowRow,
    PeriodBody,
)

OPENING = "opening"  # origin of what was in the battery before the account began
FACTOR_IMPLAUSIBLE = "FACTOR_IMPLAUSIBLE"  # the grid's factor is far from its neighbours in time
DAY_S = 86_400


# Lots, oldest first: milliwatt-hours, ug, and (origin, milliwatt-hours) of its parts.
StockRecord = list[tuple[int, int, list[tuple[str, int]]]]


class AccountState(TypedDict):
    """What a later accountant needs to go on, as plain values."""

    opened: bool
    stocks: dict[str, StockRecord]


class Accountant:
    """Keeps the stocks and turns each booked period into the body of a ledger entry.

    true_up : "daily" sets the stock's energy to the battery's state of charge at each UTC midnight, "never" leaves it.
    """

    def __init__(self, site: str, nodes: Nodes, factors: Factors, method: Method | None = None,
                 true_up: str = "daily") -> None:  # fmt: skip
        if true_up not in ("daily", "never"):
            raise ValueError(f"true_up {true_up!r}: expected daily or never")
        self.site = site
        self.nodes = nodes
        self.factors = factors
        self.method = method or Method()
        self.true_up = true_up
        self.stocks: dict[str, Stock] = {}
        self.opened = False

    # ---- state, as plain values ----

    def state(self) -> AccountState:
        return {"opened": self.opened, "stocks": {name: stock_record(stock) for name, stock in self.stocks.items()}}

    def restore(self, state: AccountState) -> None:
        self.opened = state["opened"]
        self.stocks = {name: stock_from(record) for name, record in state["stocks"].items()}

    # ---- one period ----

    def book(self, booked: BookedPeriod, known_utc_s: int | None = None, factors: Factors | None = None) -> PeriodBody:
        """Attribute one period and return its ledger body.

        known_utc_s : use factors as known at that time. factors : use these instead of the site's own.
        """
        factors = factors or self.factors
        shape = shape_of(booked, "import")
        grid = factors.grid_at(booked.start_utc_s, known_utc_s, booked.length_s, shape)
        flags = list(booked.flags)
        if grid.odd:
            flags.append(FACTOR_IMPLAUSIBLE)
        opening: dict[str, OpeningRow] = {}
        if not self.opened:
            opening = self._open(booked, grid)
            self.opened = True
        period, used = self._period(booked, grid, factors)
        opened = {name: (stock_energy_milliwh(stock), stock_carbon_ug(stock)) for name, stock in self.stocks.items()}
        result = attribute(period, self.stocks, self.method)
        if result.balance_error_ug:
            raise ArithmeticError(f"period {booked.start_utc_s}: carbon is off by {result.balance_error_ug} ug")
        flags += result.flags
        flags += _suspicious(booked, result)
        self.stocks = result.stocks
        body: PeriodBody = {
            "v": BODY_VERSION,
            "site": self.site,
            "start_utc_s": booked.start_utc_s,
            "length_s": booked.length_s,
            "records": booked.records,
            "lost": booked.lost,
            "soc_ppm": booked.soc_ppm,
            "utc_sync": booked.utc_sync,
            "flags": flags,
            "by_difference": self.nodes.by_difference,
            "flows": {name: _flow_record(flow) for name, flow in booked.flows.items()},
            "method": method_row(self.method),
            "factors": {name: found.record() for name, found in used.items()},
            "inflow_ug": result.inflow_ug,
            "created_ug": result.created_ug,
            "outflows": outflow_rows(result),
            "residual_milliwh": result.residual_milliwh,
            "loss_milliwh": result.loss_milliwh,
            "loss_ug": result.loss_ug,
            "stock": {
                name: {
                    "opening_milliwh": opened.get(name, (0, 0))[0],
                    "opening_ug": opened.get(name, (0, 0))[1],
                    "energy_milliwh": stock_energy_milliwh(stock),
                    "ug": stock_carbon_ug(stock),
                    "origins": _origins(stock),
                }
                for name, stock in self.stocks.items()
            },
        }
        if opening:
            body["opening"] = opening
        price = factors.price_at(booked.start_utc_s, booked.length_s, shape)
        cfe_ppm = factors.cfe_ppm_at(booked.start_utc_s, booked.length_s, shape)
        residual = factors.residual_at(booked.start_utc_s, booked.length_s, shape)
        if residual is not None:
            body["residual_ug_per_kwh"] = residual
        if price is not None:
            body["price_u_per_kwh"] = price
        if cfe_ppm is not None:
            body["cfe_ppm"] = cfe_ppm
        consequence = self._consequence(booked, known_utc_s, factors)
        if consequence:
            body["consequence"] = consequence
        return body

    def _open(self, booked: BookedPeriod, grid: FactorLookup) -> dict[str, OpeningRow]:
        """The battery was not empty when the account began: price what was in it like the grid at that moment."""
        opening: dict[str, OpeningRow] = {}
        for storage in self.nodes.storages:
            if booked.soc_ppm is None or not storage.energy_milliwh:
                continue
            moved = sum(
                flow.energy_milliwh * sign
                for name, flow in booked.flows.items()
                for kind, sign in (("discharge", 1), ("charge", -1))
                if name == f"{storage.node}.{kind}"
            )
            milliwh = max(0, storage.energy_milliwh * booked.soc_ppm // PPM + moved)
            if milliwh:
                self.stocks[storage.node] = (Lot(milliwh, carbon_ug(milliwh, grid.ug_per_kwh), ((OPENING, milliwh),)),)
                opening[storage.node] = {
                    "energy_milliwh": milliwh,
                    "ug_per_kwh": grid.ug_per_kwh,
                    "why": "state of charge at the start, priced at the grid factor of the first period",
                }
        return opening

    def _period(
        self, booked: BookedPeriod, grid: FactorLookup, factors: Factors
    ) -> tuple[Period, dict[str, FactorLookup]]:
        inflows, loads, exports = [], [], []
        used: dict[str, FactorLookup] = {}
        charge: dict[str, int] = {}
        discharge: dict[str, int] = {}
        for flow in self.nodes.flows:
            milliwh = booked.flows[flow.name].energy_milliwh
            if flow.kind == "import":
                used[flow.node] = grid
                inflows.append(Inflow(flow.node, milliwh, grid.ug_per_kwh))
            elif flow.kind == "generation":
                found = used[flow.node] = factors.source_at(self.nodes.kinds.get(flow.node, flow.node))
                inflows.append(Inflow(flow.node, milliwh, found.ug_per_kwh, True))
            elif flow.kind == "load":
                loads.append((flow.node, milliwh))
            elif flow.kind == "export":
                exports.append(("export", milliwh))
            elif flow.kind == "charge":
                charge[flow.node] = milliwh
            else:
                discharge[flow.node] = milliwh
        moves = []
        midnight = (booked.start_utc_s + booked.length_s) % DAY_S == 0
        for storage in self.nodes.storages:
            true_up = None
            if midnight and self.true_up == "daily" and booked.soc_ppm is not None and storage.energy_milliwh:
                true_up = storage.energy_milliwh * booked.soc_ppm // PPM
            moves.append(
                Move(
                    storage.node,
                    charge.get(storage.node, 0),
                    discharge.get(storage.node, 0),
                    storage.charge_ppm,
                    storage.discharge_ppm,
                    storage.standby_milliw * booked.length_s // 3600,
                    true_up_milliwh=true_up,
                )
            )
        if self.nodes.by_difference is not None:
            came = sum(inflow.energy_milliwh for inflow in inflows) + sum(discharge.values())
            gone = sum(milliwh for _, milliwh in loads) + sum(milliwh for _, milliwh in exports) + sum(charge.values())
            loads.insert(0, (self.nodes.by_difference, max(0, came - gone)))
        return Period(tuple(inflows), tuple(loads), tuple(exports), tuple(moves)), used

    def _consequence(self, booked: BookedPeriod, known_utc_s: int | None, factors: Factors) -> ConsequenceRow | None:
        """What the battery changed elsewhere, by marginal factors. A ledger of its own, apart from the inventory."""
        shape = shape_of(booked, "charge", "discharge")
        marginal = factors.marginal_at(booked.start_utc_s, known_utc_s, booked.length_s, shape)
        if marginal is None:
            return None
        moved = {"charge": 0, "discharge": 0}
        for flow in self.nodes.flows:
            if flow.kind in moved:
                moved[flow.kind] += booked.flows[flow.name].energy_milliwh
        return {
            "factor": marginal.record(),
            "charge_ug": carbon_ug(moved["charge"], marginal.ug_per_kwh),
            "avoided_ug": carbon_ug(moved["discharge"], marginal.ug_per_kwh),
        }


def shape_of(booked: BookedPeriod, *kinds: str) -> list[int] | None:
    """mWh by minute of the flows of some kinds, by which finer factors are weighted; None where one is not known."""
    flows = [flow for name, flow in booked.flows.items() if name.rpartition(".")[2] in kinds and flow.energy_milliwh]
    shapes = [flow.shape_milliwh for flow in flows if flow.shape_milliwh is not None]
    if not shapes or len(shapes) < len(flows):
        return None
    return [sum(minute) for minute in zip(*shapes, strict=True)]


def break_even_ppm(charge_ppm: int, discharge_ppm: int) -> int:
    """Ratio of the factors, discharge over charge, above which moving energy saves carbon: 1 / round trip, in ppm."""
    return -(-PPM * PPM * PPM // (charge_ppm * discharge_ppm))


def outflow_rows(result: Result) -> list[OutflowRow]:
    """What went where in one period, as it is written down; energies in milliwatt-hours, carbon in ug."""
    return [
        {
            "name": outflow.name,
            "kind": outflow.kind,
            "energy_milliwh": outflow.energy_milliwh,
            "ug": outflow.carbon_ug,
            "origins": outflow.origins,
        }
        for outflow in result.outflows
    ]


def stock_record(stock: Stock) -> StockRecord:
    return [(lot.energy_milliwh, lot.carbon_ug, list(lot.origins)) for lot in stock]


def stock_from(record: StockRecord) -> Stock:
    return tuple(Lot(milliwh, ug, tuple((name, part) for name, part in origins)) for milliwh, ug, origins in record)


def _origins(stock: Stock) -> dict[str, int]:
    found: dict[str, int] = {}
    for lot in stock:
        for name, milliwh in lot.origins:
            found[name] = found.get(name, 0) + milliwh
    return dict(sorted(found.items()))


def method_row(method: Method) -> MethodRow:
    """How a period was attributed, for the ledger."""
    return {
        "policy": method.policy, "losses": method.losses, "unknown_ug_per_kwh": method.unknown_ug_per_kwh,
        "residual_ppm": method.residual_ppm, "residual_milliwh": method.residual_milliwh,
    }  # fmt: skip


def _flow_record(flow: FlowPeriod) -> FlowRow:
    row: FlowRow = {
        "energy_milliwh": flow.energy_milliwh,
        "quality": flow.quality,
        "method": flow.method,
        "flags": flow.flags,
        "open_milliwh": flow.opening_milliwh,
        "close_milliwh": flow.closing_milliwh,
        "integral_milliwh": flow.integral_milliwh,
        "covered_ms": round(flow.covered_s * 1000),
    }
    if flow.w_max is not None:
        row["w_max"] = flow.w_max
    if flow.shape_milliwh is not None and any(flow.shape_milliwh):
        row["shape_milliwh"] = flow.shape_milliwh
    return row


def _suspicious(booked: BookedPeriod, result: Result) -> list[str]:
    """A direction that closes the balance when it is turned round: a current transformer or a sign is reversed."""
    residual = result.residual_milliwh
    if "BALANCE" not in result.flags:
        return []
    found = []
    for name, flow in booked.flows.items():
        node, _, kind = name.partition(".")
        # Turning a flow round changes the balance by twice its energy, in the direction of its kind.
        sign = 1 if kind in ("import", "generation", "discharge") else -1
        turned = residual - 2 * sign * flow.energy_milliwh
        if flow.energy_milliwh and abs(turned) * 10 < abs(residual):
            found.append(f"REVERSED_SIGN {node} {kind}")
    return found
