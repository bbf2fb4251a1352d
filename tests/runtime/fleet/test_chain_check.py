"""What a hub takes and what it names: each lie about a ledger, at each entry of it, by its kind and its entry."""

import json
import os
import random

import pytest

from tests.runtime.fleet.conftest import Unit
from tidegate.runtime.carbon.ledger.ledger import chain
from tidegate.runtime.carbon.ledger.signing import change_key, rename, restored
from tidegate.runtime.fleet.chain_check import Mark, take
from tidegate.runtime.fleet.ledger_batch import Batch, BatchError, Row, pack, unpack
from tidegate.runtime.state.device_key import DeviceKey

LIES = int(os.environ.get("FLEET_LIES", "1500"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Rows and marks of two sites, with their keys; the first has eight blocks."""
    made = []
    for site in ("hall", "yard"):
        unit = Unit(tmp_path_factory.mktemp(site), site)
        unit.write(12, blocks=8)
        made.append(([Row(*row) for row in unit.rows()], Mark(unit.key.public, site), unit))
    return made


def none_held(seq):
    raise AssertionError(f"entry {seq} was asked for")


def ends(rows):
    return [row.seq for row in rows if row.kind == "block"]


def test_a_whole_ledger_is_taken_in_any_batches(two):
    rows, mark, unit = two[0]
    rng = random.Random(3)
    for _ in range(50):
        at, kept = mark, []
        cuts = sorted([*rng.sample(ends(rows), rng.randint(1, 8)), rows[-1].seq])
        first = 0
        for cut in dict.fromkeys(cuts):
            good, at, finding = take(at, rows[first : cut + 1], none_held)
            assert finding is None
            kept, first = kept + good, cut + 1
        assert kept == rows and (at.seq, at.hash) == unit.ledger.head


def test_what_comes_again_changes_nothing(two):
    rows, mark, _ = two[0]
    _, half, _ = take(mark, rows[: ends(rows)[3] + 1], none_held)
    held = {row.seq: row.hash for row in rows}
    assert take(half, rows[:20], held.get) == ([], half, None)
    good, after, finding = take(half, rows, held.get)
    assert finding is None and good == rows[half.seq + 1 :] and after.seq == rows[-1].seq


def flipped(rows, at, rng, _):
    row = rows[at]
    field = rng.choice(("kind", "start_utc_s", "body", "hash"))
    value = getattr(row, field)
    if field == "start_utc_s":
        changed = value ^ (1 << rng.randrange(31))
    else:
        raw = bytearray(value.encode())
        spot = rng.randrange(len(raw))
        raw[spot] ^= 1 << rng.randrange(7)
        changed = raw.decode("latin-1")
    return [*rows[:at], row._replace(**{field: changed}), *rows[at + 1 :]], "flipped", at


def withheld(rows, at, rng, _):
    return rows[at:], "withheld", at


def reordered(rows, at, rng, _):
    at = min(at, len(rows) - 2)
    return [*rows[:at], rows[at + 1], rows[at], *rows[at + 2 :]], "reordered", at + 1


def foreign(rows, at, rng, other):
    """The chain goes on with an entry of another site."""
    return [*rows[:at], other[at], *rows[at + 1 :]], "flipped", at


def computed_anew(rows, at, rng, _):
    """Somebody without the key changes an entry and repairs every hash behind it: the next block does not hold."""
    made, previous = rows[:at], rows[at - 1].hash
    for row in rows[at:]:
        body = row.body if row.seq != at else json.dumps({"energy_milliwh": -1}, separators=(",", ":"))
        previous = chain(previous, row.seq, row.kind, row.start_utc_s, body)
        made.append(row._replace(body=body, hash=previous))
    block = next(seq for seq in ends(rows) if seq >= at)
    return made, "foreign", block


def test_every_lie_is_named_with_its_entry_and_nothing_of_it_is_kept(two):
    """Population: seeded draws of lie and place; FLEET_LIES=10000 for all of them."""
    (rows, mark, _), (others, _, _) = two
    kinds = (flipped, withheld, reordered, foreign, computed_anew)
    for seed in range(LIES):
        rng = random.Random(seed)
        at = rng.randrange(1, len(rows))
        if kinds[seed % 5] is computed_anew and rows[at].kind != "note":
            at -= 1
        told, kind, seq = kinds[seed % 5](rows, at, rng, others)
        good, after, finding = take(mark, told, none_held)
        assert finding is not None, seed
        place = finding.seq
        if kinds[seed % 5] is flipped and rows[at].kind == "note" and finding.kind == "foreign":
            place = at
        assert (finding.kind, place) == (kind, seq), (seed, kinds[seed % 5].__name__, str(finding))
        assert good == rows[: after.seq + 1] and after.seq < at, seed


def test_a_fork_is_named_at_its_entry(two):
    rows, mark, _ = two[0]
    held = {row.seq: row.hash for row in rows}
    for at in range(len(rows)):
        told = [*rows[:at], rows[at]._replace(hash="0" * 64), *rows[at + 1 :]]
        good, after, finding = take(Mark(mark.key, "hall", rows[-1].seq, rows[-1].hash, rows[-1].seq), told, held.get)
        assert good == [] and after.seq == rows[-1].seq and (finding.kind, finding.seq) == ("forked", at)


def test_the_whole_ledger_of_another_site_or_key_is_foreign(two):
    (rows, mark, _), (others, other_mark, _) = two
    assert take(mark, others, none_held)[2].kind == "foreign"
    good, after, finding = take(Mark(other_mark.key, "hall"), rows, none_held)
    assert (good, after.seq, finding.kind, finding.seq) == ([], -1, "foreign", ends(rows)[0])
    assert "expected" in finding.what


def test_entries_without_a_block_stay_out(two):
    rows, mark, _ = two[0]
    good, after, finding = take(mark, rows[:-1], none_held)
    assert after.seq == ends(rows)[-2] == good[-1].seq and finding.kind == "unsigned"


def test_key_changes_and_renamings_are_followed_and_a_silent_one_is_not(tmp_path, unit):
    one = unit("hall")
    one.write()
    new = DeviceKey.at(tmp_path / "new.pem")
    change_key(one.ledger, "hall", new, "me", "replaced", one.key)
    rename(one.ledger, "south", "me", "moved")
    first = one.key.public
    one.key, one.site = new, "south"
    one.write()
    rows = [Row(*row) for row in one.rows()]
    good, after, finding = take(Mark(first, "hall"), rows, none_held)
    assert finding is None and good == rows and (after.key, after.named) == (new.public, "south")
    lost = DeviceKey.at(tmp_path / "lost.pem")
    change_key(one.ledger, "south", lost, "me", "the old unit burnt")
    one.key = lost
    one.write()
    good, kept, finding = take(after, [Row(*row) for row in one.rows(after.seq + 1)], none_held)
    assert (good, kept, finding.kind) == ([], after, "foreign") and "without a word of the old key" in finding.what


def test_a_site_that_was_put_back_is_told_apart_from_a_fork(tmp_path, unit):
    one = unit("hall")
    one.write(blocks=2)
    rows = [Row(*row) for row in one.rows()]
    held = {row.seq: row.hash for row in rows}
    back = Unit(tmp_path / "backup", "hall") if (tmp_path / "backup").mkdir() is None else None
    assert back is not None
    restored(back.ledger, "me", "the disk broke", {})
    told = [Row(*row) for row in back.rows()]
    at = Mark(one.key.public, "hall", rows[-1].seq, rows[-1].hash, rows[-1].seq)
    held[0] = told[0].hash
    finding = take(at, told, held.get)[2]
    assert (finding.kind, finding.seq) == ("restored", 1) and "by me: the disk broke" in finding.what


def test_bytes_that_are_no_batch_are_refused_whatever_they_are():
    rng = random.Random(9)
    whole = pack(Batch("hall", [Row(0, "open", 0, "{}", "0" * 64)]))
    assert unpack(whole).site == "hall"
    for _ in range(3000):
        raw = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        data = bytes(raw[: rng.randint(0, len(raw))])
        try:
            unpack(data)
        except BatchError:
            continue
        raise AssertionError(data.hex())
    import zlib

    with pytest.raises(BatchError, match="more than 64 MiB"):
        unpack(zlib.compress(b"\0" * (65 << 20)))
