"""Corrections: what was booked stays, and a newer entry says what is in force, why and by whom.

Two causes: an edit of a metered energy, and a restated factor. Either changes the carbon that went into the batteries,
so every later period that comes out differently is booked anew too, all in one transaction with the stocks that the
booking goes on from. A report of before names its last entry and is checked against the ledger as it stood then.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.runtime.carbon.engine.account import FACTOR_IMPLAUSIBLE, Accountant, shape_of, stock_record
from tidegate.runtime.carbon.engine.attribution import Lot, Method, Stock
from tidegate.runtime.carbon.engine.booking import BookedPeriod
from tidegate.runtime.carbon.engine.counter import EDITED, Flow, FlowPeriod
from tidegate.runtime.carbon.engine.topology import Nodes, Storage
from tidegate.runtime.carbon.factors.series import ALWAYS, FactorLookup, Factors, LookupRow, Shape, iso
from tidegate.runtime.carbon.ledger.bodies import EditFactors, MethodBody, PeriodBody
from tidegate.runtime.carbon.ledger.ledger import Entry, Ledger, LedgerError


class CorrectionError(ValueError):
    """A correction that cannot be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A metered energy, set by a person."""

    start_utc_s: int
    flow: str
    energy_milliwh: int


@dataclass(frozen=True, slots=True)
class Done:
    """What a correction changed."""

    periods: int
    first_utc_s: int
    last_utc_s: int


class _Recorded(Factors):
    """The factors that one period was booked with; `grid` takes the place of the grid's where it was restated."""

    def __init__(self, body: PeriodBody, kinds: Mapping[str, str], grid: FactorLookup | None = None) -> None:
        super().__init__(None, 0, "")
        self._body = body
        self._kinds = kinds
        self._grid = grid

    def grid_at(
        self, utc_s: int, known_utc_s: int | None = None, length_s: int = 1, shape: Shape = None
    ) -> FactorLookup:
        if self._grid is not None:
            return self._grid
        found = _found(self._body["factors"]["grid"])
        return replace(found, odd=FACTOR_IMPLAUSIBLE in self._body["flags"])

    def source_at(self, role: str) -> FactorLookup:
        rows = self._body["factors"]
        return _found(next(row for name, row in rows.items() if self._kinds.get(name, name) == role))

    def marginal_at(
        self, utc_s: int, known_utc_s: int | None = None, length_s: int = 1, shape: Shape = None
    ) -> FactorLookup | None:
        consequence = self._body.get("consequence")
        return None if consequence is None else _found(consequence["factor"])

    def price_at(self, utc_s: int, length_s: int = 1, shape: Shape = None) -> int | None:
        return self._body.get("price_u_per_kwh")

    def residual_at(self, utc_s: int, length_s: int = 1, shape: Shape = None) -> int | None:
        return self._body.get("residual_ug_per_kwh")

    def cfe_ppm_at(self, utc_s: int, length_s: int = 1, shape: Shape = None) -> int | None:
        return self._body.get("cfe_ppm")


def _found(row: LookupRow) -> FactorLookup:
    return FactorLookup(row["ug_per_kwh"], row["status"], row["source"], row["step_utc_s"], row["version"])


def nodes_from(method: MethodBody) -> Nodes:
    """The flows and batteries that a method entry names."""
    flows = []
    for name, (kind, register, integral) in method["flows"].items():
        flows.append(Flow(name, name.rpartition(".")[0], kind, register, integral))
    storages = tuple(Storage(name, *row) for name, row in method["storages"].items())
    return Nodes(tuple(flows), storages, method["by_difference"], dict(method["kinds"]), tuple(method["notes"]))


def booked_from(body: PeriodBody, edits: Mapping[str, int]) -> BookedPeriod:
    """The metered period behind a ledger body, with the edits of its flows."""
    flows = {}
    for name, row in body["flows"].items():
        milliwh, quality, method, flags = row["energy_milliwh"], row["quality"], row["method"], list(row["flags"])
        if name in edits:
            flags.append(f"EDITED {milliwh}")
            milliwh, quality, method = edits[name], EDITED, "edited"
        flows[name] = FlowPeriod(
            milliwh, quality, method, flags, row["open_milliwh"], row["close_milliwh"], row["integral_milliwh"],
            row["covered_ms"] / 1000.0, row.get("w_max"), row.get("shape_milliwh"),
        )  # fmt: skip
    kept = [flag for flag in body["flags"] if flag.split()[0] not in _MADE_ANEW]
    return BookedPeriod(body["start_utc_s"], body["length_s"], flows, kept, body["records"], body["lost"],
                        body["soc_ppm"], body["utc_sync"])  # fmt: skip


# Flags that the accountant sets.
_MADE_ANEW = ("BALANCE", "STOCK_UNDERFLOW", "TRUE_UP", "REVERSED_SIGN", FACTOR_IMPLAUSIBLE)


def correct(
    ledger: Ledger,
    *,
    author: str,
    reason: str,
    edits: Sequence[Edit] = (),
    factors: Factors | None = None,
    start_utc_s: int | None = None,
    end_utc_s: int | None = None,
) -> Done:
    """Book anew what edits or restated factors change, from the first such period to the newest one.

    factors : restated ones, used for periods in [start, end) where they give another number than what was booked.
    Raises CorrectionError for an edit of what is not booked, or if nothing would change; LedgerError as `append`.
    """
    if not author.strip() or not reason.strip():
        raise CorrectionError("a correction names its author and its reason")
    wanted: dict[int, dict[str, int]] = {}
    for edit in edits:
        if edit.energy_milliwh < 0:
            raise CorrectionError(f"{edit.flow} at {iso(edit.start_utc_s)}: {edit.energy_milliwh} mWh is negative")
        wanted.setdefault(edit.start_utc_s, {})[edit.flow] = edit.energy_milliwh
    methods = list(ledger.entries("method"))
    if not methods:
        raise CorrectionError(f"{ledger.url}: no method is recorded; nothing was booked by a sidecar")
    nodes = nodes_from(methods[-1].body)
    true_up = methods[-1].body.get("true_up", "daily")  # ledgers of before it was recorded knew no other
    accountant: Accountant | None = None
    rows: list[tuple[str, int, Mapping[str, object]]] = []
    for entry in ledger.in_force("period"):
        body = entry.body
        own = wanted.pop(entry.start_utc_s, {})
        for name in own:
            if name not in body["flows"]:
                raise CorrectionError(f"{name}: no such flow; known: {', '.join(sorted(body['flows']))}")
        grid = None
        if factors is not None and (start_utc_s or 0) <= entry.start_utc_s < (end_utc_s or ALWAYS):
            new = factors.grid_at(entry.start_utc_s, None, body["length_s"], shape_of(booked_from(body, {}), "import"))
            if new.status != "fallback" and new.ug_per_kwh != body["factors"]["grid"]["ug_per_kwh"]:
                grid = new
        changed = bool(own) or grid is not None
        if accountant is None and not changed:
            continue
        if accountant is None:
            accountant = _opened(ledger, entry, nodes, true_up)
        accountant.method = Method(**body["method"])
        made = accountant.book(booked_from(body, own), factors=_Recorded(body, nodes.kinds, grid))
        if "opening" in body:
            made["opening"] = body["opening"]
        before = {key: value for key, value in body.items() if key != "replaces"}
        if made != before:
            made["replaces"] = entry.seq
            rows.append(("period", entry.start_utc_s, made))
    if wanted:
        missing = min(wanted)
        raise CorrectionError(f"no period is booked at {iso(missing)}; a period is named by its start")
    if not rows or accountant is None:
        raise CorrectionError("nothing would change")
    first, last = rows[0][1], rows[-1][1]
    why = {
        "author": author, "reason": reason, "periods": len(rows), "from_utc_s": first, "to_utc_s": last,
        "edits": [[e.start_utc_s, e.flow, e.energy_milliwh] for e in edits],
        "factors": _factors_record(factors),
    }  # fmt: skip
    state = ledger.state("booking")
    put = {}
    if state is not None:
        kept = json.loads(state)
        kept["accountant"]["stocks"] = {name: stock_record(stock) for name, stock in accountant.stocks.items()}
        put["booking"] = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    ledger.append([("edit", first, why), *rows], put)
    return Done(len(rows), first, last)


def _factors_record(factors: Factors | None) -> EditFactors | None:
    if factors is None or factors.grid is None:
        return None
    return {"source": factors.grid.source, "sha256": factors.grid.sha256, "zone": factors.grid.zone}


def _opened(ledger: Ledger, first: Entry[PeriodBody], nodes: Nodes, true_up: str) -> Accountant:
    """An accountant with the stocks at the opening of a period. Lots of fifo are not in a body: they are made again."""
    accountant = Accountant(first.body["site"], nodes, Factors(None, 0, ""), Method(**first.body["method"]), true_up)
    accountant.opened = True
    if first.body["method"]["policy"] == "fifo":
        begun = False
        for entry in ledger.in_force("period", end=first.start_utc_s):
            if not begun:
                accountant.stocks = _stocks_of(entry.body, opening=True)
                begun = True
            accountant.book(booked_from(entry.body, {}), factors=_Recorded(entry.body, nodes.kinds))
        if begun:
            return accountant
    before = None
    for entry in ledger.in_force("period", end=first.start_utc_s, start=first.start_utc_s - 7 * 86_400):
        before = entry
    if before is not None:
        accountant.stocks = _stocks_of(before.body, opening=False)
    else:
        accountant.stocks = _stocks_of(first.body, opening=True)
    expected = {name: (s["opening_milliwh"], s["opening_ug"]) for name, s in first.body["stock"].items()}
    for name, (milliwh, ug) in expected.items():
        stock = accountant.stocks.get(name, ())
        if (sum(lot.energy_milliwh for lot in stock), sum(lot.carbon_ug for lot in stock)) != (milliwh, ug):
            raise LedgerError(f"{ledger.url}: entry {first.seq}: stock {name} does not open where the period before "
                              "closed; run tidegate carbon verify")  # fmt: skip
    return accountant


def _stocks_of(body: PeriodBody, *, opening: bool) -> dict[str, Stock]:
    stocks: dict[str, Stock] = {}
    for name, row in body["stock"].items():
        milliwh, ug = (row["opening_milliwh"], row["opening_ug"]) if opening else (row["energy_milliwh"], row["ug"])
        origins = (("opening", milliwh),) if opening else tuple(sorted(row["origins"].items()))
        if milliwh:
            stocks[name] = (Lot(milliwh, ug, origins),)
    return stocks
