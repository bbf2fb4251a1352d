"""A unit's ledger read with what Python brings alone gives what the ledger's own reader gives, and stays small."""

import json
import sqlite3
import subprocess
import sys

import pytest

from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.ledger_file import SCHEMA_VERSION
from tidegate.runtime.fleet.unit.own_ledger import ServedLedger, own_ledger

MEMORY_MIB = 32.0


def seen(ledger):
    return ledger.site, list(ledger.raw_rows(0)), list(ledger.raw_rows(7)), ledger.newest_block(), ledger.restored()


@pytest.mark.parametrize("restored", [False, True])
def test_both_readers_give_the_same(unit, restored):
    one = unit("hall % #1")
    one.write(6, blocks=2)
    if restored:
        one.ledger.append([("restored", 0, {"author": "a", "reason": "r"})])
        one.write(3)
    file, own = own_ledger(one.path, "hall % #1"), ServedLedger(Ledger(one.path, read_only=True))
    assert seen(file) == seen(own)
    assert len(seen(file)[1]) > 12 and bool(file.restored()) is restored
    assert seen(own_ledger(f"sqlite:///{one.path}", "hall % #1")) == seen(own)
    assert seen(own_ledger(one.path, "another name")) == seen(own)  # a file is of one site; the hub compares names
    file.close()


def test_a_ledger_without_entries_has_no_block(tmp_path):
    Ledger(tmp_path / "a.db").close()
    found = own_ledger(tmp_path / "a.db", "hall")
    assert seen(found) == ("hall", [], [], None, [])


def test_a_store_of_before_says_its_site_in_its_opening_entry(tmp_path):
    base = sqlite3.connect(tmp_path / "old.db")
    base.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, kind, start_utc_s, body, hash)")
    base.execute("INSERT INTO entries VALUES (0, 'open', 0, ?, 'h')", (json.dumps({"schema": 1, "site": "hall"}),))
    base.commit()
    found = own_ledger(tmp_path / "old.db", "x")
    assert (found.site, len(list(found.raw_rows(0)))) == ("hall", 1)


def test_what_is_no_ledger_or_a_newer_one_is_named(tmp_path, unit):
    with pytest.raises(LedgerError, match="no ledger there"):
        own_ledger(tmp_path / "none.db", "hall")
    (tmp_path / "text.db").write_text("no database\n" * 100)
    with pytest.raises(LedgerError, match="cannot be opened as a ledger"):
        own_ledger(tmp_path / "text.db", "hall")
    one = unit()
    with sqlite3.connect(one.path) as base:
        body = json.dumps({"schema": SCHEMA_VERSION + 1, "site": "hall"})
        base.execute("UPDATE entries SET body = ? WHERE seq = 0", (body,))
    with pytest.raises(LedgerError, match=f"schema {SCHEMA_VERSION + 1}.*update tidegate"):
        own_ledger(one.path, "hall")
    with sqlite3.connect(one.path) as base:
        base.execute("UPDATE entries SET body = 'torn' WHERE seq = 0")
    assert own_ledger(one.path, "hall").site == "hall"  # for verify, and the hub, to name


def test_the_sender_takes_no_database_library_and_stays_small(unit, tmp_path):
    """The process of `tidegate fleet run` with a ledger read and packed, without a hub."""
    pytest.importorskip("nats")
    one = unit()
    one.write(96, blocks=1)
    code = """if True:
        import asyncio, sys
        import tidegate.runtime.cli.fleet_commands
        from tidegate.runtime.fleet.unit.lean_nats import import_lean_nats
        import_lean_nats()
        from tidegate.runtime.fleet.unit import site_sender
        from tidegate.runtime.fleet.unit.own_ledger import own_ledger
        from tidegate.runtime.fleet.ledger_batch import pack
        async def go():
            ledger = own_ledger(sys.argv[1], "hall")
            assert sum(len(pack(batch)) for batch in site_sender.batches(ledger, -1)) > 1000
        asyncio.run(go())
        heavy = {"sqlalchemy", "psycopg", "aiohttp", "numpy", "pydantic"} & set(sys.modules)
        rss = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
        print(*sorted(heavy), int(rss.split()[1]))
    """
    done = subprocess.run([sys.executable, "-c", code, str(one.path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *heavy, kib = done.stdout.split()
    assert heavy == []
    assert int(kib) / 1024 < MEMORY_MIB


def test_a_library_that_is_in_use_is_left_alone():
    pytest.importorskip("nats")
    pytest.importorskip("aiohttp")
    code = """if True:
        import sys
        from tidegate.runtime.fleet.unit.lean_nats import import_lean_nats
        if len(sys.argv) > 1:
            import aiohttp as before
        import_lean_nats()
        assert ("aiohttp" in sys.modules) == (len(sys.argv) > 1)
        import aiohttp
        assert len(sys.argv) == 1 or aiohttp is before
    """
    for words in ([], ["in use"]):
        subprocess.run([sys.executable, "-c", code, *words], check=True)


@pytest.mark.parametrize(
    ("data", "word"),
    [(b'{"said": "no site of mine"}', "no site of mine"), (b"{torn", "nothing that can be read"),
     (b"[1]", "nothing that can be read"), (b"", "nothing that can be read"), (b"\xff", "nothing that can be read")],
)  # fmt: skip
def test_an_answer_that_is_no_mark_ends_nothing(data, word):
    pytest.importorskip("nats")
    from tidegate.runtime.fleet.unit.site_sender import heard, word_in

    assert heard(data) is None and word_in(data) == word
