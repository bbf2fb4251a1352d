"""The page's history: what was read is there again, over restarts and within its bound; what was not read is a hole."""

import math
import sqlite3

import pytest

from tidegate.runtime.web.history_store import DAY_S, Chunk, HistoryStore, Ring

BOOT = "ab" * 16
NOON = 1_795_953_600  # a whole quarter hour
SMALL = (Ring(1, 60, 300), Ring(10, 60, 3000), Ring(60, 60, DAY_S))


def record(at, seq, grid_w=1000.0, quality=1, **points):
    """A meter record, `at` seconds after noon."""
    shown = {"site.grid_w": (grid_w, quality), "site.grid_in_ws": (5.0, 1), "site.soc": (0.5, 1)}
    shown |= {name.replace("_of_", "."): value for name, value in points.items()}
    return {"kind": "meter", "boot": BOOT, "seq": seq, "utc_ns": (NOON + at) * 10**9 + 5, "points": shown}


def test_a_second_is_read_as_it_was_written(tmp_path):
    store = HistoryStore(tmp_path / "history.sqlite")
    for at in range(10):
        store.take(record(at, at, 100.0 * at))
    step_s, slots = store.read("site.grid_w", NOON, NOON + 10, 600)
    assert step_s == 1
    assert [(slot.utc_s - NOON, slot.mean) for slot in slots] == [(at, 100.0 * at) for at in range(10)]
    assert store.names() == ["site.grid_w", "site.soc"], "integrals are no series"
    store.close()


def test_least_and_most_of_the_second_are_kept_at_every_width(tmp_path):
    store = HistoryStore(tmp_path / "history.sqlite")
    for at in range(1800):
        spike = {"site_of_grid_max_w": (9e3, 1), "site_of_grid_min_w": (-2e3, 1)} if at == 777 else {}
        store.take(record(at, at, 1000.0, **spike))
    for width in (1800, 100, 10):
        _, slots = store.read("site.grid_w", NOON, NOON + 1800, width)
        assert max(slot.most for slot in slots) == 9e3 and min(slot.least for slot in slots) == -2e3
        assert all(slot.mean == pytest.approx(1000.0) for slot in slots)
        assert len(slots) <= width + 1
    store.close()


@pytest.mark.parametrize("value", [(None, 3), (None, 4), (None, 0)])
def test_what_was_not_read_leaves_a_hole(tmp_path, value):
    store = HistoryStore(tmp_path / "history.sqlite")
    for at in range(30):
        store.take(record(at, at, *(value if 10 <= at < 20 else (1.0, 1))))
    _, slots = store.read("site.grid_w", NOON, NOON + 30, 600)
    assert [slot.utc_s - NOON for slot in slots] == [*range(10), *range(20, 30)]
    store.close()


def test_no_hole_over_a_hundred_restarts(tmp_path):
    """Killed at any moment: the journal gives again what lies behind the position that is on disk."""
    path, journal = tmp_path / "history.sqlite", [record(at, at, float(at)) for at in range(5000)]
    given = 0
    for life in range(100):
        store = HistoryStore(path)
        position = store.position
        begin = 0 if position is None else position[1] + 1
        given = min(len(journal), max(given, 50 * (life + 1)))
        for row in journal[begin:given]:
            store.take(row)
        if life == 99:
            store.close()
        else:
            store._db.close()  # as a kill leaves it: what was not written is lost
    store = HistoryStore(path)
    assert store.position == (BOOT, 4999)
    _, slots = store.read("site.grid_w", NOON, NOON + 5000, 5000)
    assert [(slot.utc_s - NOON, slot.mean, slot.readings) for slot in slots] == [
        (n, float(n), 1.0) for n in range(5000)
    ]
    _, slots = store.read("site.grid_w", NOON, NOON + 5000, 20)
    assert sum(slot.readings for slot in slots) == 5000, "no reading counts twice in a coarser ring"
    store.close()


def test_rings_end_where_they_should_and_a_coarser_one_is_read_then(tmp_path):
    store = HistoryStore(tmp_path / "history.sqlite", rings=SMALL)
    for at in range(0, 4 * 900):
        store.take(record(at, at, float(at)))
    store.flush()
    last = NOON + 3600
    assert store.ring_for(last - 100, last, 600) == SMALL[0]
    assert store.ring_for(NOON, NOON + 100, 600) == SMALL[2], "seconds and tens of seconds of then are gone"
    step_s, slots = store.read("site.grid_w", NOON, last, 600)
    assert step_s == 60 and len(slots) == 60 and slots[0].least == 0.0 and slots[-1].most == 3599.0
    store.close()


def test_the_file_stays_within_its_bound(tmp_path):
    import random

    noise = random.Random(7)
    store = HistoryStore(tmp_path / "history.sqlite", size_max=150_000, rings=(Ring(1, 900, 90 * DAY_S), *SMALL[1:]))
    for at in range(0, 20 * 900):
        store.take(record(at, at, noise.random() * 1e5))
    store.flush()
    assert store._used() <= 150_000
    _, slots = store.read("site.grid_w", NOON + 19 * 900, NOON + 20 * 900, 900)
    assert len(slots) == 900, "the newest stays"
    store.close()


def test_a_chunk_is_the_same_again(tmp_path):
    chunk = Chunk.empty(7)
    chunk.put(3, 1.5, -1.0, 2.0)
    chunk.put(3, 2.5, 0.0, 4.0)
    again = Chunk.of(chunk.packed())
    assert (again.mean[3], again.least[3], again.most[3], again.readings[3]) == (2.0, -1.0, 4.0, 2.0)
    assert all(math.isnan(again.mean[at]) for at in range(7) if at != 3)


def test_a_clock_that_jumps_ahead_takes_no_more_than_a_day(tmp_path):
    store = HistoryStore(tmp_path / "history.sqlite")
    for day in range(3):
        for at in range(0, 1800, 60):
            store.take(record(day * DAY_S + at, day * 1800 + at))
    store.take(record(4000 * DAY_S, 9999))
    store.flush()
    assert store.read("site.grid_w", NOON + 2 * DAY_S, NOON + 2 * DAY_S + 1800, 1800)[1]
    store.close()


def test_a_damaged_chunk_is_left_out_and_named(tmp_path):
    path = tmp_path / "history.sqlite"
    store = HistoryStore(path)
    for at in range(1000):
        store.take(record(at, at))
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE chunk SET data = x'00' WHERE ring = 0")
    store = HistoryStore(path)
    assert store.read("site.grid_w", NOON, NOON + 900, 900)[1] == []
    assert "damaged" in store.problem
    store.close()


def test_a_file_that_is_none_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "history.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match=r"move it away"):
        HistoryStore(tmp_path / "history.sqlite")
