"""The remote start of a genset: given, kept, released, and what of it does not come true. In virtual time."""

import itertools
import json
import os
import random

import pytest

from tests.runtime.island.simulated_devices import FILE, GENSET, ROOF, Yard
from tidegate.runtime.island.island_unit import IslandFileError

START = (GENSET, 10)
SEEDS = int(os.environ.get("TIDEGATE_ISLAND_GENSET_SEEDS", "3"))


def starts(yard):
    return [(t, word) for t, unit, register, word in yard.writes if (unit, register) == START]


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


@pytest.fixture
def island(yard):
    """The grid has gone at 10 s, and the genset was asked for."""
    yard.pass_time(10)
    yard.goes(1, wanted=1).pass_time(1)
    assert starts(yard) == [(11.0, 1)]
    return yard


def test_it_is_started_when_the_loop_asks_and_the_audit_has_it_before(tmp_path):
    yard = Yard(tmp_path)
    yard.pass_time(10)
    assert not yard.writes and not yard.audit()
    seen = []
    whole = yard.write_words

    def write_words(at, words):
        claim = json.loads((tmp_path / "island-claim-yard.json").read_text())
        seen.append(([row["became"] for row in yard.audit()], claim["genset"][0]))
        whole(at, words)

    yard.write_words = write_words
    yard.goes(1, wanted=1).pass_time(1)
    assert seen == [(["asked"], True)], "who comes after a kill in the write knows of it"
    assert ("island-devices", "genset: start (asked)") in yard.notes
    yard.goes(2).pass_time(300)
    assert len(starts(yard)) == 1 and not yard.adapter.doubts
    assert yard.adapter.status()["genset"] == {
        "asked": True, "since_utc_s": 1_800_000_011, "stands": True, "running": True, "waits": "",
    }  # fmt: skip


def test_it_is_released_only_when_the_grid_is_known_back_and_nobody_wants_it(island):
    island.goes(2).pass_time(200)
    island.goes(0).pass_time(100)
    assert len(starts(island)) == 1, "the loop still wants it"
    island.goes(1, wanted=0).pass_time(100)
    assert len(starts(island)) == 1, "the grid is not back"
    island.goes(0).pass_time(29)
    island.goes(1).pass_time(1)
    island.goes(0).pass_time(30)
    assert len(starts(island)) == 1, "back for 29 s, then for 29 s"
    island.pass_time(1)
    assert [word for _, word in starts(island)] == [1, 0] and not island.adapter.desk.genset.on


def test_converters_that_carry_the_site_count_as_known_too(island):
    island.goes(3).pass_time(150)
    assert len(starts(island)) == 1
    island.goes(3, wanted=0).pass_time(1)
    assert [word for _, word in starts(island)] == [1, 0]


@pytest.mark.parametrize("how", ["silent", "old", "ends", "gone"])
def test_without_a_word_it_keeps_running_unless_the_file_releases_it(tmp_path, how):
    for text, words in (
        (FILE, [1]),
        (FILE.replace("[genset.start]", 'without_word = "release"\n[genset.start]'), [1, 0]),
    ):
        folder = tmp_path / str(len(words))
        folder.mkdir()
        yard = Yard(folder, text)
        yard.goes(1, wanted=1).pass_time(200)
        if how == "silent":
            yard.speaks = False
            yard.pass_time(5)
            assert len(starts(yard)) == 1, "a word is believed for silent_s"
            yard.pass_time(1)
        elif how == "old":
            answer = yard.hear()
            answer["ages_ms"]["site.island"] = 5001.0
            yard.start(hear=lambda answer=answer: answer)
            yard.pass_time(6)
        elif how == "ends":
            yard.adapter.round(ends=True)
        else:
            yard.start(hear=None)
            yard.adapter.round(ends=True)
        assert [word for _, word in starts(yard)] == words and yard.adapter.left() == ""
        assert bool(yard.doubted("said nothing")) is (how in ("silent", "old"))


def test_a_release_without_a_word_waits_for_the_least_time_and_is_left_to_the_guard(tmp_path):
    yard = Yard(tmp_path, FILE.replace("[genset.start]", 'without_word = "release"\n[genset.start]'))
    yard.goes(1, wanted=1).pass_time(10)
    yard.adapter.round(ends=True)
    assert len(starts(yard)) == 1 and "not released yet: runs for 111 s more" in yard.adapter.left()
    yard.start(hear=None)
    yard.pass_time(110, ends=True)
    assert len(starts(yard)) == 1 and yard.adapter.left()
    yard.pass_time(1, ends=True)
    assert [word for _, word in starts(yard)] == [1, 0] and yard.adapter.left() == ""


def test_a_restart_of_adapter_or_site_breaks_no_least_time(island):
    island.start()
    island.goes(0, wanted=0).pass_time(100)  # a site that starts again has forgotten all
    assert len(starts(island)) == 1 and "runs for 20 s more" in island.adapter.genset.waits
    island.start()
    island.pass_time(31)
    assert [word for _, word in starts(island)] == [1, 0]
    released_s = starts(island)[-1][0]
    island.goes(1, wanted=1).pass_time(1)
    island.start()
    island.pass_time(1)
    assert "rests for" in island.adapter.genset.waits and len(starts(island)) == 2
    island.pass_time(60)
    assert starts(island)[-1] == (released_s + 40, 1)


def test_a_clock_that_is_set_back_makes_no_least_time_shorter(island):
    island.adapter.desk.utc = lambda: 1.7e9 + island.t
    island.goes(0, wanted=0).pass_time(200)
    assert len(starts(island)) == 1 and "runs for 120 s more" in island.adapter.genset.waits


def test_it_is_not_started_more_often_in_a_day_than_the_file_allows(tmp_path):
    yard = Yard(tmp_path, FILE.replace("[genset.start]", "starts_per_day_max = 2\n[genset.start]"))
    for _ in range(3):
        yard.goes(1, wanted=1).pass_time(160)
        yard.goes(0, wanted=0).pass_time(80)
    assert [word for _, word in starts(yard)] == [1, 0, 1, 0]
    yard.goes(1, wanted=1).pass_time(1)
    assert yard.doubted("started 2 times in a day")
    yard.t += 86_400
    yard.pass_time(1)
    assert starts(yard)[-1][1] == 1 and not yard.doubted("in a day")


@pytest.mark.parametrize("fault", ["silent", "refuses", "deaf"])
def test_an_order_that_does_not_come_through_is_named_and_given_again(yard, fault):
    getattr(yard, fault).add(GENSET)
    yard.goes(1, wanted=1).pass_time(10)
    named = {"silent": "no answer", "refuses": "exception 4", "deaf": "[1] were written, [0] stand there"}[fault]
    assert yard.doubted(named) or any(named in row["became"] for row in yard.audit())
    refused = [row for row in yard.audit() if row["became"].startswith("refused")]
    assert 3 <= len(refused) <= 4, "every three seconds"
    assert not yard.adapter.desk.genset.confirmed
    assert [row for row in yard.notes if row[0] == "island device"]
    getattr(yard, fault).clear()
    yard.pass_time(4)
    assert yard.values[START] == 1 and yard.adapter.desk.genset.confirmed and not yard.adapter.doubts
    assert len(yard.adapter.desk.genset.starts_utc_s) == 1
    assert any("no more" in text for _, text in yard.notes)


def test_a_release_that_does_not_come_through_stays_claimed_and_is_given_again(island):
    island.goes(0, wanted=0).pass_time(100)
    island.refuses.add(GENSET)
    island.pass_time(60)
    assert island.adapter.desk.genset.on and island.doubted("genset: release")
    island.refuses.clear()
    island.pass_time(4)
    assert not island.adapter.desk.genset.on and island.values[START] == 0


def test_an_engine_that_answers_and_does_not_start_is_named_after_start_s(yard):
    yard.wont_start = True
    yard.goes(1, wanted=1).pass_time(60)
    assert not yard.adapter.doubts
    yard.goes(4).pass_time(1)
    assert yard.doubted("does not read running") and len(starts(yard)) == 1
    assert ("island device", "yard: genset: told to start 60 s ago and more, and 10.0.0.20:502 unit 1 discrete 11 does "
                             "not read running") in yard.notes  # fmt: skip
    yard.wont_start = False
    yard.goes(2).pass_time(10)
    assert not yard.adapter.doubts


@pytest.mark.parametrize(("stuck", "island", "named"), [
    (1, 4, "gets no power from it"), (0, 2, "carries the site, and"), (1, 2, ""), (0, 0, ""),
])  # fmt: skip
def test_a_reading_that_stands_still_is_named_where_the_site_sees_otherwise(yard, stuck, island, named):
    yard.still.add(GENSET)
    yard.values[GENSET, 11] = stuck
    yard.goes(island, wanted=int(island != 0)).pass_time(30)
    early = yard.doubted("carries the site, and")
    assert bool(early) is (named == "carries the site, and")
    yard.pass_time(31)
    assert bool(yard.adapter.doubts) is bool(named), yard.adapter.doubts
    if stuck:
        assert bool(yard.doubted("gets no power from it")) is (island == 4)


def test_an_engine_that_runs_on_after_its_release_is_named_after_stop_s(island):
    island.goes(2).pass_time(200)
    island.still.add(GENSET)
    island.goes(0, wanted=0).pass_time(31 + 299)
    assert not island.adapter.doubts
    island.pass_time(2)
    assert island.doubted("still reads running")


def test_a_start_by_somebody_else_is_theirs(yard):
    yard.values[START] = 1
    yard.goes(1, wanted=1).pass_time(10)
    assert not yard.writes and "somebody else" in yard.adapter.genset.waits
    yard.goes(0, wanted=0).pass_time(400)
    assert not yard.writes and yard.values[START] == 1


def test_a_start_that_somebody_took_off_is_named_and_given_again_after_start_s(island):
    island.goes(2).pass_time(10)
    island.values[START] = 0
    island.pass_time(1)
    assert island.doubted("took its start off")
    island.pass_time(48)
    assert len(starts(island)) == 1
    island.pass_time(2)
    assert [word for _, word in starts(island)] == [1, 1] and len(island.adapter.desk.genset.starts_utc_s) == 2
    island.goes(0, wanted=0).pass_time(150)
    island.values[START] = 1
    island.pass_time(10)
    assert island.values[START] == 1, "released by us, then started by somebody else"


WORDS = """[genset.start]
register = 4104
type = "uint16"
on = [35705, 29830]
off = [35701, 29834]
reads_back = false
"""


def test_a_controller_that_takes_commands_as_words_gets_them_and_is_asked_again_when_it_does_not_run(tmp_path):
    text = FILE.replace('[genset.start]\nregister = 10\nkind = "coil"\n', WORDS)
    assert text != FILE
    yard = Yard(tmp_path, text)
    yard.goes(1, wanted=1).pass_time(60)
    assert [row[2:] for row in yard.writes] == [(4104, 35705), (4105, 29830)]
    yard.pass_time(2)
    assert [row[2:] for row in yard.writes[2:]] == [(4104, 35705), (4105, 29830)], "it does not run: once more"
    yard.still.add(GENSET)
    yard.values[GENSET, 11] = 1
    yard.goes(2).pass_time(200)
    assert len(yard.writes) == 4
    yard.goes(0, wanted=0).pass_time(32)
    assert [row[2:] for row in yard.writes[4:]] == [(4104, 35701), (4105, 29834)]


def test_until_the_site_is_heard_once_nothing_is_touched_that_is_not_claimed(yard):
    touched = []
    whole = yard.read
    yard.read = lambda at: (touched.append(at.unit), whole(at))[1]
    yard.speaks = False
    yard.goes(1, wanted=1).pass_time(20)
    assert not touched and not yard.writes and yard.doubted("the site has said nothing")
    yard.speaks = True
    yard.pass_time(1)
    assert touched and starts(yard)
    yard.start()
    touched.clear()
    yard.speaks = False
    yard.pass_time(1)
    assert GENSET in touched, "what is claimed is looked at"


def test_a_line_of_the_site_s_own_ends_the_adapter_before_it_is_touched(tmp_path):
    yard = Yard(tmp_path, FILE.replace('host = "10.0.0.20"', 'serial = "/dev/ttyUSB7"'))
    ports = [{"name": "meters", "device": "/dev/ttyUSB7", "transport": "serial"}]
    yard.read = None
    yard.adapter.ports = lambda: ports
    with pytest.raises(IslandFileError, match="the site's own bus meters"):
        yard.pass_time(1)


def test_a_dry_run_writes_down_and_orders_nothing(tmp_path):
    yard = Yard(tmp_path, dry_run=True)
    yard.goes(1, wanted=1).pass_time(100)
    yard.goes(0, wanted=0).pass_time(100)
    yard.goes(1, wanted=1, limit_w=1000.0).pass_time(10)
    assert not yard.writes and not (tmp_path / "island-claim-yard.json").exists()
    assert [row["on"] for row in yard.audit() if row["what"] == "genset"] == [True, True]
    assert {row["became"] for row in yard.audit()} == {"dry run"}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_least_times_hold_and_nothing_is_released_before_the_grid_is_known(tmp_path, seed):
    """Losses, returns, silences, restarts of site and adapter, a guard between them, and devices that refuse."""
    chance = random.Random(seed)
    yard = Yard(tmp_path, FILE.partition("[[pv]]")[0])
    known_s, orders = [], []
    whole = yard.write_words

    def write_words(at, words):
        whole(at, words)
        orders.append((yard.t, words[0], yard.t - known_s[0] if known_s else 0.0))

    yard.write_words = write_words
    for _ in range(60):
        yard.goes(chance.choice((0, 0, 1, 2, 3, 4)), wanted=chance.choice((0, 1)))
        yard.speaks = chance.random() < 0.9
        for faulty in (yard.silent, yard.refuses, yard.deaf):
            faulty.clear()
            if chance.random() < 0.1:
                faulty.add(GENSET)
        if chance.random() < 0.2:
            yard.start(hear=None).round(ends=True)
            yard.start()
            known_s.clear()
        for _ in range(chance.randrange(1, 150)):
            if yard.speaks and yard.island in (0, 3):
                known_s[:] = known_s or [yard.t + 1]
            else:
                known_s.clear()
            yard.pass_time(1)
    assert len(orders) > 3
    for (before_s, before, _), (t, word, known_for_s) in itertools.pairwise(orders):
        if word != before:
            assert t - before_s >= (40 if word else 120), (seed, t)
        if not word:
            assert known_for_s >= 30, (seed, t)


def test_a_guard_that_undid_all_while_the_adapter_hung_is_no_secret_to_it(tmp_path):
    text = FILE.replace("[genset.start]", 'without_word = "release"\n[genset.start]')
    yard = Yard(tmp_path, text)
    yard.goes(2, wanted=1, limit_w=20_000.0).pass_time(200)
    hung = yard.adapter
    yard.start(hear=None).round(ends=True)
    assert yard.values[START] == 0 and yard.limit_of(ROOF) == 10_000.0
    yard.adapter = hung
    yard.pass_time(1)
    assert yard.limit_of(ROOF) == 5_000.0 and yard.values[START] == 0
    assert "rests for" in hung.genset.waits, "the guard's release is a release"
    yard.pass_time(40)
    assert yard.values[START] == 1
    yard.goes(0, wanted=0).pass_time(160)
    assert yard.values[START] == 0 and yard.limit_of(ROOF) == 10_000.0


def test_no_order_is_given_that_cannot_be_written_down(yard, monkeypatch):
    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(yard.adapter.desk._loud, "write", full)
    yard.goes(1, wanted=1).pass_time(3)
    assert not yard.writes and yard.doubted("No space left on device")
