"""The ledger: what was appended is found again unchanged, or the damage is named."""

import random
import sqlite3

import pytest

from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError, canonical


def filled(path, count=20):
    ledger = Ledger(path)
    ledger.begin("a site")
    for number in range(count):
        ledger.append(
            [("period", 900 * number, {"start_utc_s": 900 * number, "energy_milliwh": number * 7})],
            {"cursor": str(number)},
        )
    return ledger


def test_a_ledger_opened_again_has_the_same_head_and_verifies(tmp_path):
    ledger = filled(tmp_path / "l.db")
    head = ledger.head
    ledger.close()
    again = Ledger(tmp_path / "l.db")
    assert again.head == head
    assert again.verify() == []
    assert [e.body["energy_milliwh"] for e in again.entries("period", 900, 2700)] == [7, 14]
    assert again.state("cursor") == "19"


def test_entries_and_state_are_written_together_or_not_at_all(tmp_path):
    ledger = filled(tmp_path / "l.db", 3)
    head = ledger.head
    with pytest.raises(ValueError, match="neither text nor a whole number"):
        ledger.append([("period", 0, {"energy_milliwh": 1}), ("period", 0, {"energy_milliwh": 1.5})], {"cursor": "99"})
    assert ledger.head == head
    assert ledger.state("cursor") == "2"


def test_a_second_writer_is_refused(tmp_path):
    one = filled(tmp_path / "l.db", 1)
    two = Ledger(tmp_path / "l.db")
    one.append([("note", 0, {"a": 1})])
    with pytest.raises(LedgerError, match="one writer only"):
        two.append([("note", 0, {"b": 1})])
    assert one.verify() == []


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("update entries set body = replace(body, '35', '36') where seq = 6", "entry 6: changed"),
        ("update entries set start_utc_s = 1 where seq = 6", "entry 6: changed"),
        ("update entries set kind = 'note' where seq = 6", "entry 6: changed"),
        ("delete from entries where seq = 6", "entry 7: entry 6 missing"),
        ("update state set body = '7'", "state 'cursor' changed"),
    ],
)
def test_a_changed_or_missing_entry_is_named(tmp_path, sql, words):
    filled(tmp_path / "l.db").close()
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute(sql)
    assert any(words in str(damage) for damage in Ledger(tmp_path / "l.db").verify())


def test_two_entries_in_each_others_place_are_named(tmp_path):
    filled(tmp_path / "l.db").close()
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute("update entries set seq = -1 where seq = 4")
        connection.execute("update entries set seq = 4 where seq = 5")
        connection.execute("update entries set seq = 5 where seq = -1")
    assert {4, 5} <= {damage.seq for damage in Ledger(tmp_path / "l.db").verify()}


def test_any_flipped_bit_of_a_row_is_found(tmp_path):
    filled(tmp_path / "l.db").close()
    rng = random.Random(5)
    with sqlite3.connect(tmp_path / "l.db") as connection:
        rows = connection.execute("select seq, body, hash from entries").fetchall()
        for _ in range(60):
            seq, body, digest = rng.choice(rows)
            column, text = rng.choice((("body", body), ("hash", digest)))
            raw = bytearray(text.encode())
            at = rng.randrange(len(raw))
            raw[at] ^= 1 << rng.randrange(7)
            connection.execute(f"update entries set {column} = ? where seq = ?", (raw.decode("latin-1"), seq))
            connection.commit()
            found = Ledger(tmp_path / "l.db", read_only=True).verify()
            assert found and found[0].seq in (seq, seq + 1), (seq, column, at)
            connection.execute(f"update entries set {column} = ? where seq = ?", (text, seq))
        connection.commit()
    assert Ledger(tmp_path / "l.db", read_only=True).verify() == []


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    filled(tmp_path / "l.db", 1).close()
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute("""update entries set body = '{"schema":99}' where seq = 0""")
    with pytest.raises(LedgerError, match="written by schema 99"):
        Ledger(tmp_path / "l.db")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "l.db").write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(LedgerError, match="cannot be opened as a ledger"):
        Ledger(tmp_path / "l.db")


def test_a_missing_ledger_is_not_made_by_a_reader(tmp_path):
    with pytest.raises(LedgerError, match="no ledger there"):
        Ledger(tmp_path / "none.db", read_only=True)
    assert not (tmp_path / "none.db").exists()


def test_a_read_only_ledger_says_that_nothing_was_written(tmp_path):
    filled(tmp_path / "l.db", 1).close()
    ledger = Ledger(tmp_path / "l.db", read_only=True)
    with pytest.raises(LedgerError, match="nothing was written"):
        ledger.append([("note", 0, {})])


def test_one_body_has_one_text():
    assert canonical({"b": 1, "a": ["ä", None, True]}) == '{"a":["ä",null,true],"b":1}'
    for bad in ({"a": 1.0}, {1: 2}, {"a": [float("nan")]}):
        with pytest.raises(ValueError, match="body"):
            canonical(bad)
