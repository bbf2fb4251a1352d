"""Sharing among jobs against a plain implementation of the rules, to the integer, on random sites."""

import os
import random
from fractions import Fraction

import pytest

from tidegate.runtime.carbon.jobs.settle import settled
from tidegate.runtime.carbon.jobs.sharing import ALL, shared
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.ledger.bodies import settlement_error

DAY = 1_709_251_200  # 2024-03-01
SITES = int(os.environ.get("CARBON_SITES", "3000"))
LENGTH = 60


# ---- the rules once more, plainly: second by second where there is time, with fractions, one job at a time ----


def split(total, weights):
    """Whole parts of a total by weight; what is left over goes to the largest fractions, the first of equals first."""
    exact = [Fraction(total * weight, sum(weights)) for weight in weights]
    parts = [int(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def runs(work, second):
    return work.start_utc_s <= second < work.end_utc_s


def software(work, start):
    whole, length = work.measured_milliwh, work.end_utc_s - work.start_utc_s

    def until(at):
        at = min(max(at, work.start_utc_s), work.end_utc_s)
        return whole * (at - work.start_utc_s) // length

    return until(start + LENGTH) - until(start)


def reserved(work, start):
    held = work.slots * len(range(max(start, work.start_utc_s), min(start + LENGTH, work.end_utc_s)))
    active = work.end_utc_s - work.start_utc_s - work.paused_s
    return held * active // (work.end_utc_s - work.start_utc_s)


def plain(loads, works):
    """-> {load: (energy by job, idle, unplaced)}, energy of the unplaced by job; each as [mWh, ug]."""
    if len(loads) > 1 and not any(work.node in loads for work in works):
        sums = [[sum(rows[i][k] for rows in loads.values()) for k in (2, 3)] for i in range(len(loads["r0"]))]
        loads = {ALL: [(*row[:2], *both, None) for row, both in zip(loads["r0"], sums, strict=True)]}
    where = {id(work): work.node for work in works}
    if len(loads) == 1:
        where = {key: node or next(iter(loads)) for key, node in where.items()}
    lost = [work for work in works if where[id(work)] not in loads]
    found, by_lost = {}, {}
    owed = {}  # (period, basis) -> what is unplaced of all loads
    for name, rows in loads.items():
        here = [work for work in works if where[id(work)] == name]
        measured = (here or lost) and all(work.measured_milliwh is not None for work in [*here, *lost])
        weight = software if measured else reserved
        busy = [sum(any(runs(w, s) and w.claimed for w in [*here, *lost]) for s in range(row[0], row[0] + LENGTH))
                for row in rows]  # fmt: skip
        still = [row[2] for row, seconds in zip(rows, busy, strict=True) if seconds == 0]
        jobs, idle, unplaced = {}, [0, 0], [0, 0]
        for row, seconds in zip(rows, busy, strict=True):
            start, _, milliwh, ug, _ = row
            rest = LENGTH - seconds
            still_part = milliwh * rest // LENGTH
            if still and seconds:
                still_part = min(still_part, sum(still) * rest // (LENGTH * len(still)))
            mine = [w for w in here if w.start_utc_s < start + LENGTH and w.end_utc_s > start]
            adrift = [w for w in lost if w.start_utc_s < start + LENGTH and w.end_utc_s > start]
            weights = [weight(w, start) * len(loads) for w in mine]
            weights += [sum(weight(w, start) for w in adrift if w.claimed),
                        sum(weight(w, start) for w in adrift if not w.claimed)]  # fmt: skip
            if not any(weights):
                still_part = milliwh
            still_ug = split(ug, [still_part, milliwh - still_part])[0] if milliwh else ug
            idle = [idle[0] + still_part, idle[1] + still_ug]
            if not any(weights):
                continue
            pairs = list(zip(split(milliwh - still_part, weights), split(ug - still_ug, weights), strict=True))
            for w, pair in zip(mine, pairs, strict=False):
                to = jobs.setdefault(w.id, [0, 0]) if w.claimed else idle
                to[0], to[1] = to[0] + pair[0], to[1] + pair[1]
            idle = [idle[k] + pairs[-1][k] for k in (0, 1)]
            unplaced = [unplaced[k] + pairs[-2][k] for k in (0, 1)]
            one = owed.setdefault((start, bool(measured)), [0, 0])
            one[0], one[1] = one[0] + pairs[-2][0], one[1] + pairs[-2][1]
        found[name] = (jobs, idle, unplaced)
    for (start, measured), total in owed.items():
        adrift = [w for w in lost if w.claimed and w.start_utc_s < start + LENGTH and w.end_utc_s > start]
        weights = [(software if measured else reserved)(w, start) for w in adrift]
        if not any(total):
            continue
        for k in (0, 1):
            for w, part in zip(adrift, split(total[k], weights), strict=True):
                by_lost.setdefault(w.id, [0, 0])[k] += part
    return found, by_lost


def site(rng):
    loads = {
        f"r{i}": [
            (DAY + LENGTH * p, LENGTH, milliwh := rng.choice([0, rng.randrange(10**7), rng.randrange(50)]),
             milliwh * rng.randrange(900) + rng.randrange(3), None)
            for p in range(rng.randrange(1, 5) if i == 0 else 1)
        ]
        for i in range(rng.randrange(1, 5))
    }  # fmt: skip
    periods = len(loads["r0"])
    for name in loads:
        while len(loads[name]) < periods:
            at = len(loads[name])
            milliwh = rng.randrange(10**7)
            loads[name].append((DAY + LENGTH * at, LENGTH, milliwh, milliwh * rng.randrange(900), None))
    works = []
    measured, floating = rng.random() < 0.5, rng.random() < 0.6
    for number in range(rng.randrange(8)):
        start = DAY + rng.randrange(-LENGTH, periods * LENGTH)
        end = start + rng.randrange(1, 170)
        nodes = [*loads] + (["", "", "mars"] if floating else [])
        works.append(
            Work(f"j{number}", start, end, node=rng.choice(nodes), slots=rng.randrange(1, 9), where="test",
                 measured_milliwh=rng.choice([0, rng.randrange(10**7)]) if measured or rng.random() < 0.5 else None,
                 paused_s=rng.choice([0, 0, rng.randrange(end - start)]), claimed=rng.random() < 0.8)
        )  # fmt: skip
    return loads, works


@pytest.mark.parametrize("part", range(4))
def test_a_plain_implementation_gives_the_same_integers(part):
    """A hundred thousand: CARBON_SITES=100000 python -m pytest --timeout 0 ..., some minutes on one core."""
    rng = random.Random(f"sharing {part}")
    unplaced = idle = several = 0
    for number in range(SITES // 4):
        loads, works = site(rng)
        got, (expected, by_lost) = shared(loads, works), plain(loads, works)
        assert set(got.loads) == set(expected), number
        for name, load in got.loads.items():
            jobs, still, spread = expected[name]
            mine = {work.id: [row.energy_milliwh, row.ug] for work, row in load.jobs}
            assert {job: row for job, row in mine.items() if any(row)} == {j: r for j, r in jobs.items() if any(r)}
            assert [load.idle_milliwh, load.idle_ug] == still, (number, name)
            assert [load.unplaced_milliwh, load.unplaced_ug] == spread, (number, name)
            whole = [sum(row[k] for row in mine.values()) + still[k] + spread[k] for k in (0, 1)]
            assert whole == [sum(row[2] for row in load.periods), sum(row[3] for row in load.periods)]
            unplaced, idle, several = unplaced + bool(spread[0]), idle + bool(still[0]), several + (len(mine) > 1)
        rest = {work.id: [row.energy_milliwh, row.ug] for work, row in got.unplaced}
        assert {job: row for job, row in rest.items() if any(row)} == {j: r for j, r in by_lost.items() if any(r)}
    assert min(unplaced, idle, several) > SITES // 40  # each case was met


# ---- what was seen ----


def bodies(**kwh):
    """A day of quarter hours; kwh of each load in the whole day."""
    return [
        {"start_utc_s": DAY + 900 * i, "length_s": 900,
         "outflows": [{"name": name, "kind": "load", "energy_milliwh": value * 10**6 // 96, "ug": value * 10**6}
                      for name, value in kwh.items()]}
        for i in range(96)
    ]  # fmt: skip


def kwh_by_job(body):
    found = {}
    for row in body["jobs"]:
        found[row[0]] = found.get(row[0], 0) + row[5] / 1e6
    return found


def piece(job, node, slots, **more):
    return Work(job, DAY, DAY + 86_400, node=node, slots=slots, where="test", **more)


def test_a_job_over_two_racks_has_its_share_of_each():
    works = [piece("big", "rack1", 8), piece("big", "rack2", 8), piece("a", "rack1", 1), piece("b", "rack2", 1)]
    body = settled(bodies(rack1=240, rack2=240), works, [], ["rack1", "rack2"])
    found = kwh_by_job(body)
    assert found["big"] == pytest.approx(480 * 8 / 9) and found["a"] == found["b"] == pytest.approx(240 / 9)
    assert all(node["idle_milliwh"] == 0 for node in body["nodes"].values()) and settlement_error(body) is None


def test_a_job_is_never_credited_on_a_rack_where_it_did_not_run():
    works = [piece("big", "rack1", 8), piece("big", "rack2", 8), piece("a", "rack1", 1)]
    body = settled(bodies(rack1=240, rack2=240, rack3=240), works, [], ["rack1", "rack2", "rack3"])
    assert body["nodes"]["rack3"]["idle_milliwh"] == 240 * 10**6
    assert kwh_by_job(body)["big"] == pytest.approx(240 * 8 / 9 + 240)


def test_an_unclaimed_card_is_idle_beside_a_job():
    works = [piece("a", "it", 1, measured_milliwh=10**6), piece("card", "it", 1, measured_milliwh=10**6, claimed=False)]
    body = settled(bodies(it=96), works, [], ["it"])
    assert kwh_by_job(body) == {"a": 48.0} and body["nodes"]["it"]["idle_milliwh"] == 48 * 10**6


def test_a_suspended_job_counts_less():
    body = settled(bodies(it=96), [piece("a", "it", 1, paused_s=43_200), piece("b", "it", 1)], [], ["it"])
    assert kwh_by_job(body) == pytest.approx({"a": 32.0, "b": 64.0}, rel=1e-5)


def test_a_load_that_came_during_the_day_is_shared_too():
    rows = bodies(rack1=240, rack2=240)
    for body in rows[:50]:
        body["outflows"] = body["outflows"][:1]
    body = settled(rows, [piece("a", "", 1)], [], ["rack1", "rack2"])
    assert body["nodes"][ALL]["metered_milliwh"] == 240 * 10**6 + 46 * 2_500_000 and settlement_error(body) is None


def test_a_settlement_that_was_changed_is_named():
    body = settled(bodies(rack1=240, rack2=240), [piece("a", "rack1", 1), piece("b", "", 1)], [], ["rack1", "rack2"])
    assert settlement_error(body) is None
    for change in (
        lambda b: b["nodes"]["rack1"].update(idle_milliwh=b["nodes"]["rack1"]["idle_milliwh"] + 1),
        lambda b: b["nodes"]["rack2"].update(unplaced_ug=0),
        lambda b: b["jobs"].pop(),
        lambda b: b["unplaced"].clear(),
    ):
        other = {**body, "nodes": {name: dict(row) for name, row in body["nodes"].items()}, "jobs": [*body["jobs"]],
                 "unplaced": [*body["unplaced"]]}  # fmt: skip
        change(other)
        assert settlement_error(other) is not None


def test_twelve_thousand_jobs_on_sixty_four_racks_lose_nothing():
    rng = random.Random(64)
    racks = [f"rack{i}" for i in range(64)]
    works = []
    for number in range(3000):
        start = DAY + rng.randrange(80_000)
        for node in rng.sample(racks, 4):
            works.append(Work(f"j{number}", start, start + rng.randrange(1, 20_000), node=node, slots=4, where="test"))
    works += [Work(f"lost{i}", DAY + i, DAY + i + 5000, where="test") for i in range(100)]
    body = settled(bodies(**dict.fromkeys(racks, 240)), works, [], racks)
    whole = sum(row[5] for row in body["jobs"]) + sum(row[5] for row in body["unplaced"])
    whole += sum(node["idle_milliwh"] for node in body["nodes"].values())
    assert whole == 64 * 240 * 10**6 and settlement_error(body) is None
    assert len({row[0] for row in body["jobs"]}) == 3000 and len(body["unplaced"]) == 100
