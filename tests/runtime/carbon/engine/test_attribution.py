"""The attribution against conservation, and against a second implementation in fractions written from the rules."""

import os
import random
from fractions import Fraction as F

import pytest

from tidegate.runtime.carbon.engine.attribution import LOSSES, POLICIES, Inflow, Lot, Method, Move, Period, attribute
from tidegate.runtime.carbon.integers import carbon_ug, share, to_whole

DAYS = int(os.environ.get("CARBON_DAYS", "150"))  # 100000 for the full property run; see docs/carbon.md


# ---- the second implementation: slow, plain, no code in common ----


def plain_split(total, weights):
    """Exact quotas in fractions, rounded down, what is left to the largest fractions, first of equals."""
    whole = sum(weights)
    quotas = [F(total) * w / whole if whole else F(0) for w in weights]
    out = [q.numerator // q.denominator for q in quotas]
    while sum(out) < total:
        gaps = [q - o for q, o in zip(quotas, out, strict=True)]
        best = gaps.index(max(gaps))
        out[best] += 1
        quotas[best] = F(out[best])
    return out


def plain_period(period, tanks, method):
    """tanks: {battery: [[energy, carbon, {origin: energy}], ...]}, changed. -> {outflow: (milliwh, ug, origins)}"""
    lost = {m.name: 0 for m in period.moves}
    sources = []  # (origin, milliwh, local)
    carbon = {True: 0, False: 0}
    for flow in period.inflows:
        sources.append((flow.name, flow.energy_milliwh, flow.local))
        carbon[flow.local] += round(F(flow.energy_milliwh * flow.factor_ug_per_kwh, 10**6))
    for m in period.moves:
        tank = tanks.setdefault(m.name, [])
        need = F(m.discharge_milliwh) * 10**6 / m.discharge_ppm
        need = -((-need.numerator) // need.denominator)
        have = sum(lot[0] for lot in tank)
        delivered = m.discharge_milliwh
        missing = 0
        if need > have:
            delivered, missing = plain_split(delivered, [have, need - have])
            need = have
        from_tank, got = {}, 0
        todo = need
        while todo:
            lot = tank[0]
            bite = min(todo, lot[0])
            ug = plain_split(lot[1], [bite, lot[0] - bite])[0]
            names = sorted(lot[2])
            for name, milliwh in zip(names, plain_split(bite, [lot[2][n] for n in names]), strict=True):
                from_tank[name] = from_tank.get(name, 0) + milliwh
                lot[2][name] -= milliwh
            lot[0] -= bite
            lot[1] -= ug
            got += ug
            todo -= bite
            lot[2] = {n: v for n, v in lot[2].items() if v}
            if not lot[0]:
                tank.pop(0)
        if method.losses == "expense" and need:
            got, gone = plain_split(got, [delivered, need - delivered])
            lost[m.name] += gone
        names = sorted(from_tank)
        for name, milliwh in zip(names, plain_split(delivered, [from_tank[n] for n in names]), strict=True):
            sources.append((name + "@storage", milliwh, False))
        carbon[False] += got
        if missing:
            sources.append(("unknown@storage", missing, False))
            if method.policy != "at_charge":
                carbon[False] += round(F(missing * method.unknown_ug_per_kwh, 10**6))
    wants = [["load", n, e] for n, e in period.loads] + [["export", n, e] for n, e in period.exports]
    wants += [["charge", m.name, m.charge_milliwh] for m in period.moves]
    spare = sum(s[1] for s in sources) - sum(w[2] for w in wants)
    if spare < 0:
        sources.append(("unmetered", -spare, False))
        carbon[False] += round(F(-spare * method.unknown_ug_per_kwh, 10**6))
    wants.append(["residual", "residual", max(spare, 0)])
    if method.policy == "priority":
        pv = sum(e for _, e, is_local in sources if is_local)
        from_pv = [0] * len(wants)
        for kinds in (["load", "residual"], ["charge"], ["export"]):
            group = [i for i, w in enumerate(wants) if w[0] in kinds]
            give = min(pv, sum(wants[i][2] for i in group))
            for i, part in zip(group, plain_split(give, [wants[i][2] for i in group]), strict=True):
                from_pv[i] = part
            pv -= give
        rounds = [
            ([(n, e) for n, e, is_local in sources if is_local], carbon[True], from_pv),
            (
                [(n, e) for n, e, is_local in sources if not is_local],
                carbon[False],
                [w[2] - p for w, p in zip(wants, from_pv, strict=True)],
            ),
        ]
    else:
        order = [(n, e) for n, e, loc in sources if loc] + [(n, e) for n, e, loc in sources if not loc]
        rounds = [(order, carbon[True] + carbon[False], [w[2] for w in wants])]
    answer = [[w[2], 0, {}] for w in wants]
    for origin, ug, sinks in rounds:
        pot = [e for _, e in origin]
        for i, part in enumerate(plain_split(ug, sinks)):
            answer[i][1] += part
        for i, sink in enumerate(sinks):
            for j, part in enumerate(plain_split(sink, pot)):
                pot[j] -= part
                if part:
                    answer[i][2][origin[j][0]] = answer[i][2].get(origin[j][0], 0) + part
    for i, w in enumerate(wants):
        if w[0] == "charge":
            plain_charge(next(m for m in period.moves if m.name == w[1]), answer[i], tanks, method, lost)
    return {w[1]: tuple(a) for w, a in zip(wants, answer, strict=True)}, lost


def plain_charge(m, charge, tanks, method, lost):
    tank = tanks[m.name]
    energy, ug, origins = charge
    stored = energy * m.charge_ppm // 10**6
    if method.policy == "at_charge":
        ug = 0
    elif method.losses == "expense" and energy:
        ug, gone = plain_split(ug, [stored, energy - stored])
        lost[m.name] += gone
    stems = {}
    for name, milliwh in origins.items():
        stem = name.split("@")[0]
        stems[stem] = stems.get(stem, 0) + milliwh
    names = sorted(stems)
    kept = dict(zip(names, plain_split(stored, [stems[n] for n in names]), strict=True)) if energy else {}
    kept = {n: v for n, v in kept.items() if v}
    plain_put(tank, stored, ug, kept, method, m.name, lost)
    plain_lower(tank, min(m.drain_milliwh, sum(t[0] for t in tank)), method, m.name, lost)
    if m.true_up_milliwh is not None:
        have = sum(t[0] for t in tank)
        if m.true_up_milliwh < have:
            plain_lower(tank, have - m.true_up_milliwh, method, m.name, lost)
        elif m.true_up_milliwh > have:
            plain_put(tank, m.true_up_milliwh - have, 0, {"unknown": m.true_up_milliwh - have}, method, m.name, lost)


def plain_put(tank, energy, ug, origins, method, name, lost):
    if energy == 0:
        if tank:
            tank[-1][1] += ug
        else:
            lost[name] += ug
        return
    if method.policy == "fifo" or not tank:
        tank.append([energy, ug, dict(origins)])
        return
    tank[0][0] += energy
    tank[0][1] += ug
    for origin, milliwh in origins.items():
        tank[0][2][origin] = tank[0][2].get(origin, 0) + milliwh


def plain_lower(tank, energy, method, name, lost):
    if not energy:
        return
    cuts = plain_split(energy, [t[0] for t in tank])
    waiting = 0
    for lot, cut in zip(list(tank), cuts, strict=True):
        if method.losses == "expense":
            gone = plain_split(lot[1], [cut, lot[0] - cut])[0]
            lot[1] -= gone
            lost[name] += gone
        names = sorted(lot[2])
        lot[0] -= cut
        if lot[0]:
            kept = plain_split(lot[0], [lot[2][n] for n in names])
            lot[2] = {n: v for n, v in zip(names, kept, strict=True) if v}
            lot[1] += waiting
            waiting = 0
        else:
            waiting += lot[1]
            tank.remove(lot)
    if waiting and tank:
        tank[-1][1] += waiting
    else:
        lost[name] += waiting


# ---- random site-days ----


def random_day(rng):
    """Quarter hours of a site that may lack meters, run its battery empty, or lose energy."""
    batteries = [f"battery{i}" for i in range(rng.choice((1, 1, 1, 2)))]
    scale = rng.choice((3, 1000, 20_000_000))
    efficiency = {b: (rng.randint(1, 10**6), rng.randint(1, 10**6)) if rng.random() < 0.1 else
                  (rng.randint(900_000, 10**6), rng.randint(900_000, 10**6)) for b in batteries}  # fmt: skip
    for _ in range(rng.randint(1, 12)):
        draw = lambda p=0.8: rng.randint(0, scale) if rng.random() < p else 0  # noqa: E731
        inflows = [Inflow("grid", draw(), rng.randint(0, 900_000_000))]
        inflows += [Inflow("pv", draw(0.6), 0, True)] if rng.random() < 0.7 else []
        inflows += [Inflow("genset", draw(0.3), 700_000_000, True)] if rng.random() < 0.2 else []
        moves = []
        for b in batteries:
            charge, discharge = (draw(), 0) if rng.random() < 0.5 else (0, draw())
            if rng.random() < 0.2:
                charge, discharge = draw(), draw()
            moves.append(
                Move(b, charge, discharge, *efficiency[b], drain_milliwh=draw(0.2) // 50,
                     true_up_milliwh=draw() if rng.random() < 0.05 else None)
            )  # fmt: skip
        loads = [("it", draw()), ("cooling", draw() // 10), ("lighting", draw(0.2) // 100)]
        if rng.random() < 0.6:  # close the balance, as meters of a good site nearly do
            spare = sum(f.energy_milliwh for f in inflows) + sum(m.discharge_milliwh - m.charge_milliwh for m in moves)
            loads = [("it", max(0, spare * 9 // 10)), ("cooling", max(0, spare // 20)), ("lighting", 0)]
        exports = (("export", draw(0.2)),) if rng.random() < 0.5 else ()
        yield Period(tuple(inflows), tuple(loads), exports, tuple(moves))


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("policy", POLICIES)
def test_carbon_is_conserved_and_a_second_implementation_agrees_on_random_site_days(policy, losses):
    method = Method(policy, losses)
    each = max(1, DAYS // (len(POLICIES) * len(LOSSES)))
    for seed in range(each):
        rng = random.Random(seed)
        stocks, tanks = {}, {}
        for number, period in enumerate(random_day(rng)):
            at = f"seed {seed}, period {number}, {policy}, {losses}"
            result = attribute(period, stocks, method)
            assert result.balance_error_ug == 0, at
            plain, lost = plain_period(period, tanks, method)
            ours = {
                o.name: (o.energy_milliwh, o.carbon_ug, o.origins) for o in result.outflows if "booked" not in o.name
            }
            assert ours == plain, at
            assert result.loss_ug == lost, at
            stocks = result.stocks
            as_plain = {
                name: [[lot.energy_milliwh, lot.carbon_ug, dict(lot.origins)] for lot in stock]
                for name, stock in stocks.items()
            }
            assert as_plain == tanks, at


@pytest.mark.parametrize("policy", POLICIES)
def test_energy_by_origin_adds_up_to_each_outflow_and_each_source(policy):
    for seed in range(40):
        stocks = {}
        for period in random_day(random.Random(1000 + seed)):
            result = attribute(period, stocks, Method(policy))
            for out in result.outflows:
                if out.origins:
                    assert sum(out.origins.values()) == out.energy_milliwh
            for flow in period.inflows:
                assert sum(o.origins.get(flow.name, 0) for o in result.outflows) == flow.energy_milliwh
            for stock in result.stocks.values():
                for lot in stock:
                    assert sum(milliwh for _, milliwh in lot.origins) == lot.energy_milliwh > 0
            stocks = result.stocks


def test_scope_2_total_does_not_depend_on_the_policy():
    totals = set()
    for policy in POLICIES:
        stocks, total = {}, 0
        for period in random_day(random.Random(7)):
            result = attribute(period, stocks, Method(policy))
            total += result.inflow_ug["grid"]
            stocks = result.stocks
        totals.add(total)
    assert len(totals) == 1


# ---- cases worked by hand ----

KWH = 1_000_000
G = 1_000_000


def kwh_period(grid, pv, it, charge=0, discharge=0, factor_g=200, export=0, **move):
    return Period(
        (Inflow("grid", grid * KWH, factor_g * G), Inflow("pv", pv * KWH, 0, True)),
        (("it", it * KWH),),
        (("export", export * KWH),),
        (Move("battery", charge * KWH, discharge * KWH, **move),),
    )


def test_a_loss_under_carry_makes_the_stored_kilowatt_hour_dirtier():
    opened = attribute(kwh_period(10, 0, 0, charge=10, charge_ppm=900_000, discharge_ppm=900_000), {}, Method())
    (lot,) = opened.stocks["battery"]
    assert (lot.energy_milliwh, lot.carbon_ug) == (9 * KWH, 2000 * G)
    closed = attribute(
        Period((), (("it", 8_100_000),), (), (Move("battery", 0, 8_100_000, discharge_ppm=900_000),)),
        opened.stocks,
        Method(),
    )
    assert closed.stocks["battery"] == ()
    assert [o.carbon_ug for o in closed.outflows if o.name == "it"] == [2000 * G]  # 247 g/kWh: 200 over 0.81


def test_a_loss_under_expense_is_written_to_storage_loss():
    method = Method(losses="expense")
    opened = attribute(kwh_period(10, 0, 0, charge=10, charge_ppm=900_000, discharge_ppm=900_000), {}, method)
    assert opened.loss_ug["battery"] == 200 * G
    closed = attribute(
        Period((), (("it", 8_100_000),), (), (Move("battery", 0, 8_100_000, discharge_ppm=900_000),)),
        opened.stocks,
        method,
    )
    assert closed.loss_ug["battery"] == 180 * G
    assert [o.carbon_ug for o in closed.outflows if o.name == "it"] == [1620 * G]  # 200 g/kWh


def test_solar_energy_that_went_through_the_battery_is_told_apart():
    charged = attribute(kwh_period(0, 10, 0, charge=10), {}, Method())
    used = attribute(kwh_period(5, 0, 10, discharge=5), charged.stocks, Method())
    it = next(o for o in used.outflows if o.name == "it")
    assert it.origins == {"grid": 5 * KWH, "pv@storage": 5 * KWH}
    assert it.carbon_ug == 1000 * G


def test_fifo_gives_the_oldest_charge_first():
    method = Method("fifo")
    first = attribute(kwh_period(4, 0, 0, charge=4, factor_g=100), {}, method)
    second = attribute(kwh_period(4, 0, 0, charge=4, factor_g=300), first.stocks, method)
    out = attribute(kwh_period(0, 0, 5, discharge=5), second.stocks, method)
    assert next(o for o in out.outflows if o.name == "it").carbon_ug == (400 + 300) * G


def test_priority_sends_local_generation_to_the_load_before_the_battery():
    out = attribute(kwh_period(10, 6, 8, charge=8), {}, Method("priority"))
    it, charge = (next(o for o in out.outflows if o.name == name) for name in ("it", "battery"))
    assert it.origins == {"pv": 6 * KWH, "grid": 2 * KWH}
    assert charge.origins == {"grid": 8 * KWH}


def test_at_charge_books_the_purchase_and_leaves_discharge_free():
    method = Method("at_charge")
    first = attribute(kwh_period(4, 0, 0, charge=4), {}, method)
    assert [o.carbon_ug for o in first.outflows if "booked" in o.name] == [800 * G]
    out = attribute(kwh_period(0, 0, 4, discharge=4), first.stocks, method)
    assert next(o for o in out.outflows if o.name == "it").carbon_ug == 0


def test_energy_missing_from_the_stock_is_priced_high_and_flagged():
    out = attribute(kwh_period(0, 0, 4, discharge=4), {}, Method(unknown_ug_per_kwh=900 * G))
    assert out.created_ug == 3600 * G
    assert out.flags == ["STOCK_UNDERFLOW battery"]


@pytest.mark.parametrize(("it", "flagged"), [(10, False), (9, True), (11, True)])
def test_a_residual_is_named_and_flagged_on_both_sides(it, flagged):
    out = attribute(kwh_period(10, 0, it), {}, Method())
    assert out.residual_milliwh == (10 - it) * KWH
    assert ("BALANCE" in out.flags) is flagged
    assert ("unmetered" in out.inflow_ug) is (it > 10)


def test_carbon_left_in_an_emptied_battery_goes_to_storage_loss():
    stocks = {"battery": (Lot(5, 70, (("grid", 5),)),)}
    out = attribute(Period((), (), (), (Move("battery", drain_milliwh=9),)), stocks, Method())
    assert out.stocks["battery"] == ()
    assert out.loss_ug == {"battery": 70}


@pytest.mark.parametrize(
    ("period", "words"),
    [
        (Period((Inflow("grid", -1, 0),), ()), "inflow grid: -1"),
        (Period((Inflow("grid", 1.5, 0),), ()), "inflow grid: 1.5"),
        (Period((Inflow("grid", 1, 0),), (("grid", 1),)), "load grid: the name is used twice"),
        (Period((), (("residual", 1),)), "load residual: the name is reserved"),
        (Period((), (), (), (Move("b", charge_ppm=0),)), "storage b: charge_ppm 0"),
        (Period((), (), (), (Move("b", discharge_ppm=1_000_001),)), "storage b: discharge_ppm 1000001"),
    ],
)
def test_a_period_with_a_wrong_number_is_refused_by_name(period, words):
    with pytest.raises(ValueError, match=words):
        attribute(period, {}, Method())


# ---- whole numbers ----


def test_parts_add_up_and_stay_within_one_of_their_exact_share():
    rng = random.Random(3)
    for _ in range(2000):
        weights = [rng.randint(0, 10 ** rng.randint(0, 12)) for _ in range(rng.randint(1, 9))]
        total = rng.randint(0, 10**15) if sum(weights) else 0
        parts = share(total, weights)
        assert sum(parts) == total
        assert all(
            abs(p * sum(weights) - total * w) < sum(weights) or p == 0 for p, w in zip(parts, weights, strict=True)
        )


def test_nothing_can_be_split_over_no_weight():
    with pytest.raises(ValueError, match="every weight is 0"):
        share(1, [0, 0])
    assert share(0, [0, 0]) == [0, 0]


@pytest.mark.parametrize(
    ("milliwh", "factor", "ug"), [(1, 500_000, 0), (3, 500_000, 2), (1, 500_001, 1), (10**6, 7, 7)]
)
def test_carbon_is_rounded_half_to_even(milliwh, factor, ug):
    assert carbon_ug(milliwh, factor) == ug


def test_text_becomes_a_whole_number_without_float_error():
    assert to_whole("0.1", 10) == 1
    assert to_whole("68.0", 1_000_000) == 68_000_000
