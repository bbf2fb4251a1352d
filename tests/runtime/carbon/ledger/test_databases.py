"""The ledger's promises on both databases: the same tests on SQLite and on a PostgreSQL of our own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.runtime.carbon.sidecar.test_service import Journal, journal, sidecar
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.signing import sign, verify
from tidegate.runtime.carbon.sidecar.service import catch_up
from tidegate.runtime.state.device_key import DeviceKey

ROOT = Path(__file__).parents[4]
KILLS = int(os.environ.get("CARBON_KILLS", "20"))


def execute(url, sql):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(sql))
    engine.dispose()


def filled(url, count=12):
    ledger = Ledger(url)
    ledger.begin("a site")
    for number in range(count):
        ledger.append([("note", 900 * number, {"energy_milliwh": number * 7})], {"cursor": str(number)})
    return ledger


def test_a_ledger_opened_again_has_the_same_head_and_verifies(fresh):
    url = fresh()
    head = filled(url).head
    again = Ledger(url)
    assert again.head == head and again.verify() == [] and again.state("cursor") == "11"
    assert [e.body["energy_milliwh"] for e in again.entries("note", 900, 2700)] == [7, 14]


def test_both_databases_give_the_same_hashes(fresh, tmp_path):
    assert filled(fresh()).head == filled(f"sqlite:///{tmp_path / 'twin.db'}").head


def test_a_second_writer_is_refused(fresh):
    url = fresh()
    one = filled(url, 1)
    two = Ledger(url)
    one.append([("note", 0, {"a": 1})])
    with pytest.raises(LedgerError, match="one writer only"):
        two.append([("note", 0, {"b": 1})], {"cursor": "99"})
    assert one.verify() == [] and one.state("cursor") == "0"


def test_a_changed_or_missing_entry_is_named(fresh):
    for sql, words in (
        ("update entries set body = replace(body, '35', '36') where seq = 6", "entry 6: changed"),
        ("delete from entries where seq = 6", "entry 7: entry 6 missing"),
        ("update state set body = '7'", "state 'cursor' changed"),
    ):
        url = fresh()
        filled(url).close()
        execute(url, sql)
        assert any(words in str(damage) for damage in Ledger(url).verify())


def test_a_reader_writes_nothing(fresh):
    url = fresh()
    filled(url, 1).close()
    reader = Ledger(url, read_only=True)
    with pytest.raises(LedgerError, match="nothing was written"):
        reader.append([("note", 0, {})])
    assert Ledger(url).head[0] == 1


def test_signed_blocks_verify(fresh, tmp_path):
    ledger = filled(fresh())
    assert sign(ledger, DeviceKey.at(tmp_path / "k.pem"), "a site", least=5)
    assert verify(ledger) == []


def bodies(url):
    return [(e.seq, e.hash) for e in Ledger(url).entries("period")]


KILLER = """
    import os, random, signal, sys, time
    sys.path.insert(0, sys.argv[1])
    from tests.runtime.carbon.sidecar.test_service import Journal, journal, sidecar, catch_up
    from tidegate.runtime.carbon.sidecar import service
    from tidegate.runtime.carbon.ledger.ledger import Ledger
    url, seed, most = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    service.COMMIT_RECORDS = service.ASK = 64  # a commit every few milliseconds: most kills hit one, or its neighbour
    records, rng, kills = journal(12_000, boots=2), random.Random(seed), 0
    while True:
        child = os.fork()
        if child == 0:
            one = sidecar(url)
            catch_up(one, Journal(records))
            one.commit()
            os._exit(0)
        if kills < most:
            time.sleep(rng.uniform(0.0, 0.12))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        if kills % 10 == 0:
            assert Ledger(url).verify() == []
    print(kills)
"""


def test_kill_9_while_booking_loses_and_doubles_nothing(fresh):
    seed = int(os.environ.get("CARBON_SEED", "8"))
    whole, killed, rounds = fresh(), 0, 0
    one = sidecar(whole)
    catch_up(one, Journal(journal(12_000, boots=2)))
    one.commit()
    while killed < KILLS:
        cut = fresh()
        words = [sys.executable, "-c", textwrap.dedent(KILLER), str(ROOT), cut, str(seed + rounds),
                 str(KILLS - killed)]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, (seed + rounds, done.stderr[-2000:])
        killed, rounds = killed + int(done.stdout), rounds + 1
        assert verify(Ledger(cut)) == [], seed + rounds
        assert bodies(whole) == bodies(cut), seed + rounds
