"""PV limits of an island: shared, stepped, written, kept or not, and the owner's own again. In virtual time."""

import os
import random

import pytest

from tests.runtime.island.simulated_devices import BARN, ROOF, Yard
from tests.runtime.island.simulated_devices import FILE as WHOLE
from tidegate.runtime.island.island_devices import word_of
from tidegate.runtime.island.order_desk import IslandError

SEEDS = int(os.environ.get("TIDEGATE_ISLAND_PV_SEEDS", "4"))
FILE = WHOLE.partition("[genset]")[0] + "[[pv]]" + WHOLE.partition("[[pv]]")[2]
SAFE = FILE.replace('name = "roof"', 'name = "roof"\nsafe_w = 1000').replace(
    'name = "barn"', 'name = "barn"\nsafe_w = 3000'
)


def limits(yard):
    return yard.values[ROOF, 100] * 100.0, yard.values[BARN, 100]


def writes(yard, unit):
    return [(t, value) for t, one, register, value in yard.writes if (one, register) == (unit, 100)]


@pytest.fixture
def yard(tmp_path):
    """Full sun, and a genset that carries the site; 20 kW of PV have a place."""
    yard = Yard(tmp_path, FILE)
    yard.sun = {ROOF: 1.0, BARN: 1.0}
    yard.pass_time(10)
    assert not yard.writes
    yard.goes(2, wanted=1, limit_w=20_000.0).pass_time(1)
    return yard


def test_the_limit_is_shared_by_nameplate_in_whole_steps_below_it_and_put_in_force(yard):
    assert limits(yard) == (5_000.0, 15_000.0) and yard.values[BARN, 99] == 1
    yard.goes(2, limit_w=19_999.0).pass_time(1)
    assert limits(yard) == (4_800.0, 14_400.0), "steps of two hundredths of the nameplate"
    yard.pass_time(60)
    assert not yard.adapter.doubts and len(writes(yard, ROOF)) == 2
    row = yard.audit()[-1]
    assert (row["what"], row["limit"], row["limit_w"], row["became"]) == ("barn", 14_400.0, 14_400, "asked")


def test_less_is_written_at_once_and_more_only_after_raise_s(yard):
    for limit_w in (16_000.0, 12_000.0, 8_000.0):
        yard.goes(2, limit_w=limit_w).pass_time(1)
        assert sum(limits(yard)) == limit_w
    yard.goes(2, limit_w=40_000.0).pass_time(9)
    assert sum(limits(yard)) == 8_000.0
    yard.pass_time(1)
    assert limits(yard) == (10_000.0, 30_000.0)


def test_no_more_raises_in_an_hour_than_the_file_allows_and_lowering_is_never_refused(tmp_path):
    yard = Yard(tmp_path, FILE.replace("raise_s = 10", "raise_s = 1\nraises_per_hour_max = 3"))
    for k in range(20):
        yard.goes(2, limit_w=10_000.0 if k % 2 else 20_000.0).pass_time(2)
        assert sum(limits(yard)) <= (10_000.0 if k % 2 else 20_000.0)
    raised = [b for (_, a), (_, b) in zip(writes(yard, ROOF), writes(yard, ROOF)[1:], strict=False) if b > a]
    assert len(raised) == 3 and sum(limits(yard)) == 9_600.0
    yard.t += 3600
    yard.goes(2, limit_w=20_000.0).pass_time(2)
    assert sum(limits(yard)) == 20_000.0


def test_the_owner_s_own_limits_and_the_file_s_are_never_passed(tmp_path):
    text = FILE.replace('name = "barn"', 'name = "barn"\nlimit_w_min = 6000\nlimit_w_max = 24000')
    yard = Yard(tmp_path, text)
    yard.values[ROOF, 100] = 37  # the owner's own: 3.7 kW
    yard.goes(2, limit_w=40_000.0).pass_time(20)
    assert limits(yard) == (3_700.0, 24_000.0) and not writes(yard, ROOF)
    yard.goes(2, limit_w=4_000.0).pass_time(1)
    assert limits(yard) == (1_000.0, 6_000.0)
    assert yard.doubted("barn: 3000 W have a place, and the file allows no limit below 6000 W")
    yard.goes(2, limit_w=40_000.0).pass_time(20)
    assert limits(yard) == (3_700.0, 24_000.0)
    yard.goes(0).pass_time(31)
    assert limits(yard) == (3_700.0, 30_000.0) and yard.values[BARN, 99] == 0


def test_the_owner_s_own_comes_back_exactly_once_the_grid_is_known_back(yard):
    yard.goes(0).pass_time(30)
    assert sum(limits(yard)) == 20_000.0
    yard.pass_time(1)
    assert limits(yard) == (10_000.0, 30_000.0) and yard.values[BARN, 99] == 0 and not yard.adapter.desk.limits
    count = len(yard.writes)
    yard.pass_time(50)
    assert len(yard.writes) == count


def test_a_limit_that_stands_is_written_again_only_where_the_file_has_it_so(tmp_path):
    """For inverters that fall back by themselves; limit and enable, and not while nothing of ours stands there."""
    for text, count in ((FILE, 1), (FILE.replace("raise_s = 10", "raise_s = 10\nrewrite_s = 20"), 4)):
        folder = tmp_path / str(count)
        folder.mkdir()
        yard = Yard(folder, text)
        yard.pass_time(50)
        yard.goes(2, limit_w=20_000.0).pass_time(62)
        assert len(writes(yard, BARN)) == count and {value for _, value in writes(yard, BARN)} == {15_000}
        assert len([row for row in yard.writes if row[1:3] == (BARN, 99)]) == count and not yard.adapter.doubts
        assert len(yard.audit()) == 2 * count
        yard.goes(0).pass_time(90)
        assert limits(yard) == (10_000.0, 30_000.0)
        done = len(yard.writes)
        yard.pass_time(60)
        assert len(yard.writes) == done


def test_an_inverter_that_cannot_be_told_is_counted_with_its_nameplate(yard):
    yard.silent.add(ROOF)
    yard.pass_time(2)
    assert limits(yard)[1] == 9_600.0 and yard.doubted("roof: 10.0.0.20:502 unit 2")
    yard.silent.add(BARN)
    yard.pass_time(2)
    yard.silent.clear()
    yard.pass_time(30)
    assert sum(limits(yard)) == 20_000.0 and not yard.adapter.doubts


@pytest.mark.parametrize("fault", ["refuses", "deaf"])
def test_a_limit_that_is_refused_or_does_not_stand_is_named_and_taken_from_the_other(yard, fault):
    getattr(yard, fault).add(ROOF)
    yard.goes(2, limit_w=12_000.0).pass_time(2)
    assert yard.doubted("exception 4" if fault == "refuses" else "stands there")
    assert limits(yard)[1] <= 12_000.0 - 4_990.0, "what the roof goes on giving is not there for the barn"
    yard.pass_time(30)
    assert yard.doubted("exception 4" if fault == "refuses" else "stands there"), "each round, and not each try"
    assert len([row for row in yard.notes if row[0] == "island device"]) == 1
    getattr(yard, fault).clear()
    yard.pass_time(15)
    assert limits(yard) == (3_000.0, 9_000.0) and not yard.adapter.doubts


def test_an_inverter_that_answers_and_does_not_do_it_is_named_after_answer_s_and_taken_from_the_other(tmp_path):
    yard = Yard(tmp_path, FILE)
    yard.sun = {ROOF: 1.0, BARN: 1.0}
    yard.disobeys.add(ROOF)
    yard.goes(2, limit_w=20_000.0).pass_time(30)
    assert not yard.adapter.doubts and limits(yard)[1] == 15_000.0
    yard.pass_time(3)
    assert yard.doubted("roof: gives more than the limit of 5000 W") and limits(yard)[1] <= 10_000.0
    yard.disobeys.clear()
    yard.pass_time(15)
    assert not yard.adapter.doubts and limits(yard) == (5_000.0, 15_000.0)


def test_one_that_follows_a_limit_which_falls_each_second_is_not_blamed(yard):
    """It answers within ten seconds, and is always above what is asked of it now."""
    late = []
    whole = yard.limit_of
    yard.limit_of = lambda unit: (late.append((yard.t, unit, whole(unit))), max(
        [w for t, one, w in late if one == unit and t >= yard.t - 10]))[1]  # fmt: skip
    for k in range(60):
        yard.goes(2, limit_w=20_000.0 - 300.0 * k).pass_time(1)
        assert not yard.adapter.doubts


def test_a_power_that_stands_still_while_its_limit_moves_is_named(yard):
    yard.still.add(BARN)
    yard.values[BARN, 101] = 2_000
    for k in range(12):
        yard.goes(2, limit_w=16_000.0 + 2_000.0 * (k % 2)).pass_time(6)
    assert yard.doubted("barn: 10.0.0.20:502 unit 3 holding register 101 has not moved")
    yard.still.clear()
    yard.pass_time(2)
    assert not yard.adapter.doubts


def test_a_lower_limit_of_somebody_else_is_theirs_and_a_higher_one_is_not_kept(yard):
    yard.values[ROOF, 100] = 20
    yard.pass_time(20)
    assert limits(yard)[0] == 2_000.0 and not yard.adapter.doubts
    assert [row for row in yard.audit() if row["became"] == "changed by somebody else"]
    yard.values[BARN, 100] = 30_000
    yard.pass_time(1)
    assert yard.doubted("it does not keep its limit") and limits(yard)[1] < 15_000.0
    yard.values[BARN, 99] = 0
    yard.adapter.desk.limits["barn"] = yard.adapter.desk.limits["barn"]._replace(before_enable=1.0)
    yard.adapter.desk.keep()
    yard.pass_time(1)
    assert yard.doubted("is not in force") and yard.values[BARN, 99] == 1
    yard.goes(0).pass_time(40)
    assert limits(yard)[0] == 2_000.0


def test_what_somebody_set_before_the_way_back_is_left_to_them(yard):
    yard.goes(0).pass_time(10)
    yard.silent.update((ROOF, BARN))
    yard.pass_time(25)
    yard.silent.clear()
    yard.values[ROOF, 100] = 90
    yard.pass_time(1)
    assert yard.values[ROOF, 100] == 90 and not yard.adapter.desk.limits and limits(yard)[1] == 30_000


@pytest.mark.parametrize("how", ["silent", "ends", "gone"])
def test_without_a_word_the_file_s_safe_limit_holds_or_the_owner_s_own(tmp_path, how):
    for text, there in ((FILE, (10_000.0, 30_000.0)), (SAFE, (1_000.0, 3_000.0))):
        folder = tmp_path / ("safe" if text is SAFE else "own")
        folder.mkdir()
        yard = Yard(folder, text)
        yard.goes(2, wanted=1, limit_w=20_000.0).pass_time(5)
        if how == "silent":
            yard.speaks = False
            yard.pass_time(4)
            assert sum(limits(yard)) == 20_000.0
            yard.pass_time(2)
        elif how == "ends":
            yard.adapter.round(ends=True)
        else:
            yard.start(hear=None).round(ends=True)
        assert limits(yard) == there and yard.adapter.left() == ""
        if text is SAFE:  # the one that comes after knows what to put back
            yard.speaks = True
            yard.start()
            yard.goes(0).pass_time(32)
            assert limits(yard) == (10_000.0, 30_000.0) and not yard.adapter.desk.limits


def test_a_dry_run_after_a_real_one_writes_nothing_and_names_what_stands(tmp_path):
    yard = Yard(tmp_path, WHOLE)
    yard.goes(2, wanted=1, limit_w=20_000.0).pass_time(5)
    kept, count = (tmp_path / "island-claim-yard.json").read_bytes(), len(yard.writes)
    yard.start(dry_run=True)
    yard.values[ROOF, 100] = 20
    yard.goes(2, limit_w=8_000.0).pass_time(20)
    yard.goes(0, wanted=0).pass_time(200)
    yard.values[1, 10] = 0
    yard.adapter.round(ends=True)
    assert len(yard.writes) == count and (tmp_path / "island-claim-yard.json").read_bytes() == kept
    assert yard.doubted("a dry run does not give the owner's own back")


def test_an_end_with_the_grid_there_gives_the_owner_s_own_back_in_any_case(tmp_path):
    yard = Yard(tmp_path, SAFE)
    yard.goes(2, wanted=1, limit_w=20_000.0).pass_time(5)
    yard.goes(0).pass_time(2)
    yard.adapter.round(ends=True)
    assert limits(yard) == (10_000.0, 30_000.0) and not yard.adapter.desk.limits


def test_an_end_that_cannot_be_made_good_is_left_to_the_guard(yard):
    yard.silent.add(BARN)
    yard.adapter.round(ends=True)
    assert "barn: the limit of before, 30000, is not back yet" in yard.adapter.left()
    assert limits(yard)[0] == 10_000.0


def test_in_the_dark_nothing_is_raised_and_a_safe_limit_is_written_before_the_genset_comes(tmp_path):
    yard = Yard(tmp_path, SAFE)
    yard.goes(1, wanted=1).pass_time(2)
    assert limits(yard) == (1_000.0, 3_000.0)
    plain = Yard(tmp_path.joinpath("plain") if tmp_path.joinpath("plain").mkdir() is None else None, FILE)
    plain.goes(1, wanted=1).pass_time(2)
    assert not writes(plain, ROOF) and not writes(plain, BARN)
    plain.goes(2, limit_w=8_000.0).pass_time(1)
    plain.goes(1).pass_time(60)
    assert sum(limits(plain)) == 8_000.0


def test_claims_that_cannot_be_read_are_refused_with_what_to_do(tmp_path):
    for kept in (
        "{",
        "[]",
        '{"genset": [1, 0, true, []], "pv": {}}',
        '{"genset": [true, 0, true, []], "pv": {"a": [1]}}',
    ):
        (tmp_path / "island-claim-yard.json").write_text(kept)
        with pytest.raises(IslandError, match="by hand, then remove the file"):
            Yard(tmp_path, FILE)


def test_what_the_site_says_is_taken_only_fresh_and_whole():
    def answer(**changed):
        points = {"site.island": [2, 1], "site.genset_wanted": [1, 1], "site.pv_limit_w": [5.0, 1]}
        return {"points": {**points, **changed.get("points", {})},
                "ages_ms": {**dict.fromkeys(points, 4000.0), **changed.get("ages", {})}}  # fmt: skip

    assert word_of(answer(), 5.0) == ("genset", True, 5.0)
    assert word_of(answer(points={"site.pv_limit_w": [None, 3]}), 5.0) == ("genset", True, None)
    assert word_of(answer(ages={"site.pv_limit_w": 5001.0}), 5.0) == ("genset", True, None)
    for name in ("site.island", "site.genset_wanted"):
        for bad in ({"points": {name: [None, 3]}}, {"points": {name: [1, 2]}}, {"ages": {name: 5001.0}},
                    {"ages": {name: None}}):  # fmt: skip
            assert word_of(answer(**bad), 5.0) is None
    assert word_of(answer(points={"site.island": [9, 1]}), 5.0) is None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_limits_stay_at_or_below_what_is_allowed_and_all_is_given_back(tmp_path, seed):
    """Seeded days of losses, returns, silences, faults of devices and restarts of the adapter."""
    chance = random.Random(seed)
    yard = Yard(tmp_path, SAFE if seed % 2 else FILE)
    yard.sun = {ROOF: chance.random(), BARN: chance.random()}
    for _ in range(120):
        yard.goes(chance.choice((0, 1, 2, 2, 2, 3)), wanted=chance.randrange(2), limit_w=chance.uniform(0, 45e3))
        if yard.island < 2:
            yard.limit_w = None
        yard.speaks = chance.random() < 0.9
        for faulty in (yard.silent, yard.refuses, yard.deaf, yard.disobeys):
            faulty.clear()
            if chance.random() < 0.15:
                faulty.add(chance.choice((ROOF, BARN)))
        if chance.random() < 0.1:
            yard.start()
        for _ in range(chance.randrange(1, 25)):
            yard.pass_time(1)
            whole = not yard.silent | yard.refuses | yard.deaf
            if whole and yard.speaks and yard.island in (2, 3) and not yard.adapter.doubts:
                assert yard.limit_of(ROOF) + yard.limit_of(BARN) <= yard.limit_w + 1.0, (seed, yard.t)
            assert yard.values[ROOF, 100] <= 100 and yard.values[BARN, 100] <= 30_000
    for faulty in (yard.silent, yard.refuses, yard.deaf, yard.disobeys):
        faulty.clear()
    yard.speaks = True
    yard.goes(0, wanted=0).pass_time(60)
    assert not yard.adapter.desk.limits and yard.values[BARN, 99] == 0
    assert limits(yard) == (10_000.0, 30_000.0)
