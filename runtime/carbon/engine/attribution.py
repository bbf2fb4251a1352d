"""Who gets which carbon: one period through the pool of a site and through its batteries.

A battery is a stock of energy *and* of carbon. Discharge is priced on the stock at the opening of the period, so no
equation has to be solved in a circle, and what leaves the stock is what entered it. Everything is whole numbers (mWh
and micrograms, see integers.py); for every period and every policy

    carbon of inflows + opening stock + created = carbon of outflows + storage loss + closing stock

holds exactly. `attribute` is a pure function: no clock, no file, no state.

The Scope 2 total does not depend on the policy: it is metered import times the factor of the period of import. The
policy only moves carbon between time, tenants, export and loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate.runtime.carbon.integers import PPM, carbon_ug, share
from tidegate.runtime.carbon.ledger.bodies import CHARGE_BOOKED

POLICIES = ("average", "fifo", "priority", "at_charge")
LOSSES = ("carry", "expense")
THROUGH_STORAGE = "@storage"  # appended to an origin that came out of a battery
LOTS_MAX = 512  # under fifo; the two oldest merge beyond

RESIDUAL = "residual"  # outflow: metered in, nowhere metered out
UNMETERED = "unmetered"  # inflow: metered out, nowhere metered in
UNKNOWN = "unknown"  # origin of energy that a stock delivered and never received

BALANCE = "BALANCE"
STOCK_UNDERFLOW = "STOCK_UNDERFLOW"
TRUE_UP = "TRUE_UP"


@dataclass(frozen=True, slots=True)
class Method:
    """How the account is kept; named in every report.

    unknown_ug_per_kwh is the conservative factor for what no meter or stock explains; residual_ppm and
    residual_milliwh: a residual above both sets the flag BALANCE.
    """

    policy: str = "average"
    losses: str = "carry"
    unknown_ug_per_kwh: int = 1_000_000_000
    residual_ppm: int = 20_000
    residual_milliwh: int = 100_000

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy {self.policy!r}: expected one of {', '.join(POLICIES)}")
        if self.losses not in LOSSES:
            raise ValueError(f"losses {self.losses!r}: expected one of {', '.join(LOSSES)}")
        if self.unknown_ug_per_kwh < 0:
            raise ValueError(f"unknown_ug_per_kwh {self.unknown_ug_per_kwh}: expected 0 or more")


@dataclass(frozen=True, slots=True)
class Inflow:
    """Energy that entered the site's bus from outside, with its factor. `local`: on-site generation."""

    name: str
    energy_milliwh: int
    factor_ug_per_kwh: int
    local: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """What one battery did in a period, at its AC terminals; drain and true-up on the DC side."""

    name: str
    charge_milliwh: int = 0
    discharge_milliwh: int = 0
    charge_ppm: int = PPM  # DC stored per AC charged
    discharge_ppm: int = PPM  # AC delivered per DC taken
    drain_milliwh: int = 0
    true_up_milliwh: int | None = None  # energy that the stock is set to at the end


@dataclass(frozen=True, slots=True)
class Lot:
    """A part of a stock: DC energy, its carbon, and where the energy came from (the parts add up to the energy)."""

    energy_milliwh: int
    carbon_ug: int
    origins: tuple[tuple[str, int], ...]


Stock = tuple[Lot, ...]  # oldest first; one lot at most unless the policy is fifo


@dataclass(frozen=True, slots=True)
class Period:
    """Metered energy of one period, mWh, every number 0 or more."""

    inflows: tuple[Inflow, ...]
    loads: tuple[tuple[str, int], ...]
    exports: tuple[tuple[str, int], ...] = ()
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True, slots=True)
class Outflow:
    """What one node received: energy, carbon, and the energy by origin."""

    name: str
    kind: str  # load, export, residual or charge
    energy_milliwh: int
    carbon_ug: int
    origins: dict[str, int]


@dataclass(slots=True)
class Result:
    """Everything that one period did, and the closing stocks."""

    outflows: list[Outflow]
    stocks: dict[str, Stock]
    inflow_ug: dict[str, int]
    created_ug: int  # carbon of energy that a stock delivered and never received
    loss_ug: dict[str, int]  # carbon written to storage loss, by battery
    loss_milliwh: dict[str, int]  # energy lost between charge and discharge, drain included, by battery
    residual_milliwh: int  # in minus out; below 0 means unmetered inflow
    opening_ug: int
    flags: list[str] = field(default_factory=list)

    @property
    def closing_ug(self) -> int:
        return sum(lot.carbon_ug for stock in self.stocks.values() for lot in stock)

    @property
    def balance_error_ug(self) -> int:
        """Carbon in minus carbon out minus change of stock; 0 unless the arithmetic is broken."""
        came = sum(self.inflow_ug.values()) + self.created_ug + self.opening_ug
        booked = sum(out.carbon_ug for out in self.outflows if out.kind != "charge" or out.name == CHARGE_BOOKED)
        return came - booked - sum(self.loss_ug.values()) - self.closing_ug


# ---- stocks ----


def stock_energy_milliwh(stock: Stock) -> int:
    return sum(lot.energy_milliwh for lot in stock)


def stock_carbon_ug(stock: Stock) -> int:
    return sum(lot.carbon_ug for lot in stock)


def _tidy(origins: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, milliwh) for name, milliwh in origins.items() if milliwh))


def _merged(lots: Sequence[Lot]) -> Lot:
    origins: dict[str, int] = {}
    for lot in lots:
        for name, milliwh in lot.origins:
            origins[name] = origins.get(name, 0) + milliwh
    return Lot(sum(lot.energy_milliwh for lot in lots), sum(lot.carbon_ug for lot in lots), _tidy(origins))


def _shrunk(lot: Lot, energy_milliwh: int, keep_ug: int) -> Lot:
    """The lot with less energy, its origins in proportion."""
    parts = share(energy_milliwh, [milliwh for _, milliwh in lot.origins])
    return Lot(energy_milliwh, keep_ug, _tidy({name: part for (name, _), part in zip(lot.origins, parts, strict=True)}))


def _take(stock: Stock, energy_milliwh: int) -> tuple[Stock, int, dict[str, int]]:
    """Take DC energy from the oldest lots: remaining stock, carbon taken, energy taken by origin."""
    taken_ug = 0
    taken: dict[str, int] = {}
    lots = list(stock)
    while energy_milliwh and lots:
        part = lots.pop(0)
        if part.energy_milliwh > energy_milliwh:
            whole = part
            left = whole.energy_milliwh - energy_milliwh
            part_ug, left_ug = share(whole.carbon_ug, [energy_milliwh, left])
            part = _shrunk(whole, energy_milliwh, part_ug)
            gone = dict(part.origins)
            lots.insert(0, Lot(left, left_ug, _tidy({n: milliwh - gone.get(n, 0) for n, milliwh in whole.origins})))
        energy_milliwh -= part.energy_milliwh
        taken_ug += part.carbon_ug
        for name, milliwh in part.origins:
            taken[name] = taken.get(name, 0) + milliwh
    return tuple(lots), taken_ug, taken


def _lower(stock: Stock, energy_milliwh: int, losses: str) -> tuple[Stock, int]:
    """Remove DC energy from every lot in proportion. -> stock, carbon lost (carry keeps it, expense writes it off)."""
    if not stock or not energy_milliwh:
        return stock, 0
    lost_ug = 0
    orphan_ug = 0
    lots: list[Lot] = []
    for lot, gone in zip(stock, share(energy_milliwh, [lot.energy_milliwh for lot in stock]), strict=True):
        left = lot.energy_milliwh - gone
        keep_ug = lot.carbon_ug
        if losses == "expense":
            off, keep_ug = share(lot.carbon_ug, [gone, left])
            lost_ug += off
        if left:
            lots.append(_shrunk(lot, left, keep_ug + orphan_ug))
            orphan_ug = 0
        else:
            orphan_ug += keep_ug  # an empty lot hands its carbon to the next younger one
    if orphan_ug:
        if lots:
            lots[-1] = replace(lots[-1], carbon_ug=lots[-1].carbon_ug + orphan_ug)
        else:
            lost_ug += orphan_ug  # nothing is left to carry it
    return tuple(lots), lost_ug


def _add(stock: Stock, lot: Lot, policy: str) -> tuple[Stock, int]:
    """Put a charge into the stock. -> stock, carbon that found no energy to lie on."""
    if lot.energy_milliwh == 0:
        if not stock:
            return stock, lot.carbon_ug
        return (*stock[:-1], replace(stock[-1], carbon_ug=stock[-1].carbon_ug + lot.carbon_ug)), 0
    if policy != "fifo":
        return (_merged([*stock, lot]),), 0
    lots = (*stock, lot)
    if len(lots) > LOTS_MAX:
        lots = (_merged(lots[:2]), *lots[2:])
    return lots, 0


# ---- the pool ----


@dataclass(slots=True)
class _Pool:
    """Sources that mix, and what they feed. Energies in and out are equal."""

    sources: list[tuple[str, int]]
    carbon_ug: int
    sinks: list[int]


def _spread(pool: _Pool) -> tuple[list[int], list[dict[str, int]]]:
    """Every sink takes carbon in proportion to its energy, and origins alike. -> carbon, origins, per sink."""
    carbon = share(pool.carbon_ug, pool.sinks)
    names = [name for name, _ in pool.sources]
    left = [milliwh for _, milliwh in pool.sources]
    origins = []
    for sink in pool.sinks:
        # From what the sinks before have left: rows and columns both come out whole, and nothing below 0.
        parts = share(sink, left)
        left = [have - part for have, part in zip(left, parts, strict=True)]
        row: dict[str, int] = {}
        for name, part in zip(names, parts, strict=True):
            if part:
                row[name] = row.get(name, 0) + part
        origins.append(row)
    return carbon, origins


def _priority(local: list[tuple[str, int]], local_ug: int, rest: list[tuple[str, int]], rest_ug: int,
              kinds: list[str], sinks: list[int]) -> list[_Pool]:  # fmt: skip
    """Local generation first to the loads, then to charge, then to export; everything else takes what remains."""
    have = sum(milliwh for _, milliwh in local)
    first = [0] * len(sinks)
    for group in (("load", "residual"), ("charge",), ("export",)):
        members = [i for i, kind in enumerate(kinds) if kind in group]
        wanted = sum(sinks[i] for i in members)
        given = min(have, wanted)
        for i, part in zip(members, share(given, [sinks[i] for i in members]), strict=True):
            first[i] = part
        have -= given
    return [
        _Pool(local, local_ug, first),
        _Pool(rest, rest_ug, [sink - part for sink, part in zip(sinks, first, strict=True)]),
    ]


# ---- one period ----


def check(period: Period) -> None:
    """Raise ValueError naming what is wrong with a period."""
    named: set[str] = set()
    entries = [
        *(("inflow", inflow.name, (inflow.energy_milliwh, inflow.factor_ug_per_kwh)) for inflow in period.inflows),
        *(("load", name, (milliwh,)) for name, milliwh in period.loads),
        *(("export", name, (milliwh,)) for name, milliwh in period.exports),
        *(
            ("storage", m.name, (m.charge_milliwh, m.discharge_milliwh, m.drain_milliwh, m.true_up_milliwh or 0))
            for m in period.moves
        ),
    ]
    for kind, name, numbers in entries:
        if name in named:
            raise ValueError(f"{kind} {name}: the name is used twice in one period")
        if name in (RESIDUAL, UNMETERED, UNKNOWN, CHARGE_BOOKED) or THROUGH_STORAGE in name:
            raise ValueError(f"{kind} {name}: the name is reserved")
        named.add(name)
        for number in numbers:
            if not isinstance(number, int) or number < 0:
                raise ValueError(f"{kind} {name}: {number!r} is not a whole number of 0 or more")
    for move in period.moves:
        for what, ppm in (("charge_ppm", move.charge_ppm), ("discharge_ppm", move.discharge_ppm)):
            if not 0 < ppm <= PPM:
                raise ValueError(f"storage {move.name}: {what} {ppm} is outside 1..{PPM}")


def attribute(period: Period, stocks: Mapping[str, Stock], method: Method) -> Result:
    """Give every outflow of one period its carbon and its origins, and return the closing stocks.

    period : metered energies in mWh and factors in ug/kWh.
    stocks : opening stock by battery name; a battery that is not in it starts empty.
    method : policy, treatment of losses, conservative factor.
    Raises ValueError naming the entry if a number is negative, not whole or a name repeats.
    """
    check(period)
    flags: list[str] = []
    expense = method.losses == "expense"
    book_at_charge = method.policy == "at_charge"
    after: dict[str, Stock] = {name: stock for name, stock in stocks.items()}
    opening_ug = sum(stock_carbon_ug(stock) for stock in stocks.values())
    loss_ug = {move.name: 0 for move in period.moves}
    loss_milliwh = {move.name: 0 for move in period.moves}
    created_ug = 0

    # Sources: what came in from outside, then what the batteries gave from their opening stock.
    inflow_ug = {flow.name: carbon_ug(flow.energy_milliwh, flow.factor_ug_per_kwh) for flow in period.inflows}
    local = [(flow.name, flow.energy_milliwh) for flow in period.inflows if flow.local]
    local_ug = sum(inflow_ug[flow.name] for flow in period.inflows if flow.local)
    rest = [(flow.name, flow.energy_milliwh) for flow in period.inflows if not flow.local]
    rest_ug = sum(inflow_ug.values()) - local_ug

    for move in period.moves:
        stock = after.get(move.name, ())
        wanted = -(-move.discharge_milliwh * PPM // move.discharge_ppm)  # rounded up: the stock gives at least that
        have = stock_energy_milliwh(stock)
        served, short = move.discharge_milliwh, 0
        if wanted > have:
            served, short = share(move.discharge_milliwh, [have, wanted - have])
            wanted = have
            flags.append(f"{STOCK_UNDERFLOW} {move.name}")
        stock, taken_ug, taken = _take(stock, wanted)
        if expense and taken_ug:
            taken_ug, off = share(taken_ug, [served, wanted - served])
            loss_ug[move.name] += off
        loss_milliwh[move.name] += wanted - served
        names = sorted(taken)
        for name, milliwh in zip(names, share(served, [taken[name] for name in names]), strict=True):
            rest.append((name + THROUGH_STORAGE, milliwh))
        rest_ug += taken_ug
        if short:
            short_ug = 0 if book_at_charge else carbon_ug(short, method.unknown_ug_per_kwh)
            rest.append((UNKNOWN + THROUGH_STORAGE, short))
            rest_ug += short_ug
            created_ug += short_ug
        after[move.name] = stock

    # Sinks, and the residual under its own name.
    names_out = [name for name, _ in period.loads]
    kinds = ["load"] * len(period.loads)
    sinks = [milliwh for _, milliwh in period.loads]
    for name, milliwh in period.exports:
        names_out.append(name)
        kinds.append("export")
        sinks.append(milliwh)
    for move in period.moves:
        names_out.append(move.name)
        kinds.append("charge")
        sinks.append(move.charge_milliwh)
    came = sum(milliwh for _, milliwh in local) + sum(milliwh for _, milliwh in rest)
    residual = came - sum(sinks)
    if residual < 0:
        rest.append((UNMETERED, -residual))
        inflow_ug[UNMETERED] = carbon_ug(-residual, method.unknown_ug_per_kwh)
        rest_ug += inflow_ug[UNMETERED]
    if abs(residual) > max(method.residual_milliwh, came * method.residual_ppm // PPM):
        flags.append(BALANCE)
    names_out.append(RESIDUAL)
    kinds.append("residual")
    sinks.append(max(residual, 0))

    # Proportional sharing in each pool.
    if method.policy == "priority":
        pools = _priority(local, local_ug, rest, rest_ug, kinds, sinks)
    else:
        pools = [_Pool(local + rest, local_ug + rest_ug, sinks)]
    carbon = [0] * len(sinks)
    origins: list[dict[str, int]] = [{} for _ in sinks]
    for pool in pools:
        for i, (ug, row) in enumerate(zip(*_spread(pool), strict=True)):
            carbon[i] += ug
            for name, milliwh in row.items():
                origins[i][name] = origins[i].get(name, 0) + milliwh
    outflows = [
        Outflow(name, kind, milliwh, ug, dict(sorted(row.items())))
        for name, kind, milliwh, ug, row in zip(names_out, kinds, sinks, carbon, origins, strict=True)
    ]

    # Charge goes into the stocks; then standby drain and true-up.
    booked_ug = 0
    booked_milliwh = 0
    by_name = {out.name: out for out in outflows if out.kind == "charge"}
    for move in period.moves:
        charge = by_name[move.name]
        added = charge.energy_milliwh * move.charge_ppm // PPM
        lost = charge.energy_milliwh - added
        into_ug = charge.carbon_ug
        if book_at_charge:
            booked_ug += into_ug
            booked_milliwh += charge.energy_milliwh
            into_ug = 0
        elif expense and into_ug:
            into_ug, off = share(into_ug, [added, lost])
            loss_ug[move.name] += off
        base: dict[str, int] = {}
        for name, milliwh in charge.origins.items():
            stem = name.removesuffix(THROUGH_STORAGE)
            base[stem] = base.get(stem, 0) + milliwh
        stems = sorted(base)
        parts = share(added, [base[stem] for stem in stems])
        lot = Lot(added, into_ug, _tidy(dict(zip(stems, parts, strict=True))))
        stock = after[move.name]
        if added or into_ug:
            stock, homeless_ug = _add(stock, lot, method.policy)
            loss_ug[move.name] += homeless_ug
        drained = min(move.drain_milliwh, stock_energy_milliwh(stock))
        stock, off = _lower(stock, drained, method.losses)
        loss_ug[move.name] += off
        loss_milliwh[move.name] += lost + drained
        if move.true_up_milliwh is not None:
            have = stock_energy_milliwh(stock)
            if move.true_up_milliwh < have:
                stock, off = _lower(stock, have - move.true_up_milliwh, method.losses)
                loss_ug[move.name] += off
            elif move.true_up_milliwh > have:
                found = Lot(move.true_up_milliwh - have, 0, ((UNKNOWN, move.true_up_milliwh - have),))
                stock, _ = _add(stock, found, method.policy)
            if move.true_up_milliwh != have:
                loss_milliwh[move.name] += have - move.true_up_milliwh
                flags.append(f"{TRUE_UP} {move.name} {move.true_up_milliwh - have:+d}")
        after[move.name] = stock
    if booked_milliwh:
        outflows.append(Outflow(CHARGE_BOOKED, "charge", booked_milliwh, booked_ug, {}))

    return Result(outflows, after, inflow_ug, created_ug, loss_ug, loss_milliwh, residual, opening_ug, flags)
