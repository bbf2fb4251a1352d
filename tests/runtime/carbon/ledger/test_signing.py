"""Signed blocks, anchors, and the command that names what was tampered with."""

import json
import os
import random
import sqlite3
from itertools import pairwise

import pytest
from click.testing import CliRunner

from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import Factors
from tidegate.runtime.carbon.ledger.ledger import GENESIS, Ledger, chain
from tidegate.runtime.carbon.ledger.signing import anchor_line, read_anchors, sign, verify
from tidegate.runtime.cli.carbon_commands import carbon
from tidegate.runtime.state.device_key import DeviceKey, KeyFileError

FLIPS = int(os.environ.get("CARBON_FLIPS", "150"))
DESCRIBE = {
    "points": [{"name": n} for n in ("grid.import_wh", "site.ess_discharged_ws", "site.ess_charged_ws",
                                     "site.ess_covered_s")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": None},
              {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None}],
    "units": [{"name": "cabinet", "energy_wh": 60_000.0}],
}  # fmt: skip


def signed(path, count=30, key=None):
    """A ledger of `count` periods, signed every ten entries."""
    key = key or DeviceKey.at(path.with_suffix(".pem"))
    ledger = Ledger(path)
    ledger.begin("s")
    accountant = Accountant("s", nodes_of(described(DESCRIBE)), Factors(None, 200_000_000, "test"))
    rng = random.Random(1)
    for number in range(count):
        milliwh = {
            "grid.import": rng.randrange(10_000_000),
            "cabinet.charge": rng.randrange(10**6),
            "cabinet.discharge": 0,
        }
        flows = {k: FlowPeriod(v, "good", "register", [], 0, v, None, 900.0) for k, v in milliwh.items()}
        body = accountant.book(BookedPeriod(900 * number, 900, flows, [], 900, 0, 500_000, "S"))
        ledger.append([("period", 900 * number, body)], {"cursor": str(number)})
        sign(ledger, key, "s", least=10)
    return ledger


def rows(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("select seq, kind, start_utc_s, body, hash from entries order by seq").fetchall()


def put(path, found):
    with sqlite3.connect(path) as connection:
        connection.execute("delete from entries")
        connection.executemany("insert into entries values ('s', ?, ?, ?, ?, ?)", found)


def test_a_signed_ledger_verifies_and_its_blocks_cover_it_without_gaps(tmp_path):
    ledger = signed(tmp_path / "l.db")
    assert verify(ledger) == []
    blocks = [(e.body["first"], e.body["last"]) for e in ledger.entries("block")]
    assert blocks[0][0] == 0 and len(blocks) >= 3
    assert all(b[0] == a[1] + 1 for a, b in pairwise(blocks))


def test_a_chain_computed_anew_is_found_by_its_blocks(tmp_path):
    """Somebody without the key changes a number and repairs every hash behind it."""
    signed(tmp_path / "l.db").close()
    found, previous = [], GENESIS
    for seq, kind, start, body, _ in rows(tmp_path / "l.db"):
        if seq == 5:
            body = body.replace('"records":900', '"records":901')
        previous = chain(previous, seq, kind, start, body)
        found.append((seq, kind, start, body, previous))
    put(tmp_path / "l.db", found)
    ledger = Ledger(tmp_path / "l.db")
    assert ledger.verify() == []
    assert "block does not sign the entry before it" in str(verify(ledger)[0])


def test_a_ledger_written_anew_with_another_key_is_found_by_key_and_by_anchor(tmp_path):
    first = signed(tmp_path / "a.db")
    key, anchor = DeviceKey.at(tmp_path / "a.pem").public, anchor_line(first, "s")
    forged = signed(tmp_path / "b.db", 29)
    assert verify(forged) == []
    assert "signed by key" in str(verify(forged, key=key)[0])
    assert "was anchored and is missing" in str(verify(forged, anchors=read_anchors([anchor], "x"))[0])
    longer = signed(tmp_path / "c.db", 40)
    assert "was written anew" in str(verify(longer, anchors=read_anchors([anchor], "x"))[0])
    assert verify(first, key=key, anchors=read_anchors([anchor], "x")) == []


def test_a_cut_tail_is_found_by_an_anchor_only(tmp_path):
    ledger = signed(tmp_path / "l.db")
    anchors = read_anchors([anchor_line(ledger, "s")], "x")
    ledger.close()
    put(tmp_path / "l.db", rows(tmp_path / "l.db")[:-2])
    cut = Ledger(tmp_path / "l.db")
    assert "was anchored and is missing" in str(verify(cut, anchors=anchors)[-1])


def test_any_flipped_bit_is_detected_and_located(tmp_path):
    signed(tmp_path / "l.db").close()
    original = rows(tmp_path / "l.db")
    rng = random.Random(11)
    for trial in range(FLIPS):
        at = rng.randrange(len(original))
        row = list(original[at])
        column = rng.randrange(5)
        if column in (0, 2):
            row[column] ^= 1 << rng.randrange(31)
        else:
            raw = bytearray(row[column].encode())
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            row[column] = bytes(raw).decode("latin-1")
        if column == 0 and row[0] in {r[0] for r in original}:
            continue  # the database refuses a number that is taken
        put(tmp_path / "l.db", [*original[:at], tuple(row), *original[at + 1 :]])
        ledger = Ledger(tmp_path / "l.db", read_only=True)
        seqs = {damage.seq for damage in verify(ledger)}
        ledger.close()
        near = {original[at][0], original[at][0] + 1, row[0]}
        if column == 0 and at == len(original) - 1:
            near.add(original[at][0])
        assert seqs & near, (trial, at, column, seqs)


def test_a_key_file_is_made_once_and_read_by_its_owner_only(tmp_path):
    key = DeviceKey.at(tmp_path / "k.pem")
    assert DeviceKey.at(tmp_path / "k.pem").public == key.public
    assert (tmp_path / "k.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_tampered_key_file_is_refused(tmp_path, content):
    (tmp_path / "k.pem").write_bytes(content)
    with pytest.raises(KeyFileError, match="not a PEM private key"):
        DeviceKey.at(tmp_path / "k.pem")


def test_the_command_names_the_damage_and_says_so_by_its_exit_code(tmp_path):
    signed(tmp_path / "l.db").close()
    runner = CliRunner()
    good = runner.invoke(carbon, ["verify", str(tmp_path / "l.db")])
    assert good.exit_code == 0 and "0 damaged" in good.output and "without an anchor" in good.output
    line = runner.invoke(carbon, ["anchor", str(tmp_path / "l.db"), "--to", str(tmp_path / "a.txt")])
    assert json.loads(line.output)["hash"] == Ledger(tmp_path / "l.db").head[1]
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute("delete from entries where seq = 7")
    bad = runner.invoke(carbon, ["verify", str(tmp_path / "l.db"), "--anchors", str(tmp_path / "a.txt")])
    assert bad.exit_code == 1 and "entry 8: entry 7 missing before it" in bad.output
    none = runner.invoke(carbon, ["verify", str(tmp_path / "none.db")])
    assert none.exit_code == 78


def test_attribute_reads_a_file_and_refuses_a_wrong_one_by_period(tmp_path):
    runner = CliRunner()
    document = {
        "periods": [
            {
                "inflows": [{"name": "grid", "energy_milliwh": 4_000_000, "factor_ug_per_kwh": 200_000_000}],
                "loads": {"it": 3_000_000},
                "storages": [{"name": "battery", "charge_milliwh": 1_000_000}],
            }
        ]
    }
    (tmp_path / "f.json").write_text(json.dumps(document), encoding="utf-8")
    shown = runner.invoke(carbon, ["attribute", str(tmp_path / "f.json")])
    period = json.loads(shown.output)["periods"][0]
    assert period["outflows"][0]["ug"] == 600_000_000 and period["balance_error_ug"] == 0
    document["periods"][0]["loads"]["it"] = 1.5
    (tmp_path / "f.json").write_text(json.dumps(document), encoding="utf-8")
    bad = runner.invoke(carbon, ["attribute", str(tmp_path / "f.json")])
    assert bad.exit_code == 65 and "period 0: load it: 1.5 is not a whole number" in bad.output


def chained(found):
    """Rows numbered and chained anew, as somebody without the key can do it."""
    made, previous = [], GENESIS
    for seq, (_, kind, start, body, _) in enumerate(found):
        previous = chain(previous, seq, kind, start, body)
        made.append((seq, kind, start, body, previous))
    return made


def strip_blocks(path):
    put(path, chained([row for row in rows(path) if row[1] != "block"]))


def strip_last_block(path):
    found = rows(path)
    last = max(row[0] for row in found if row[1] == "block")
    put(path, chained([row for row in found if row[0] != last]))


def cut_tail(path):
    found = rows(path)
    last = max(row[0] for row in found if row[1] == "block")
    put(path, found[: last - 2])


def forget_state(path):
    with sqlite3.connect(path) as connection:
        connection.execute("delete from state")


@pytest.mark.parametrize("deed", [
    (strip_blocks,), (strip_blocks, forget_state), (strip_last_block,), (cut_tail,),
])  # fmt: skip
def test_what_was_taken_out_of_a_signed_ledger_is_named(tmp_path, deed):
    path = tmp_path / "l.db"
    ledger = signed(path)
    key = DeviceKey.at(path.with_suffix(".pem")).public
    assert verify(ledger, key=key) == []
    ledger.close()
    for one in deed:
        one(path)
    done = CliRunner().invoke(carbon, ["verify", str(path), "--key", key])
    assert done.exit_code == 1 and "0 damaged" not in done.output, done.output
    if forget_state not in deed:
        assert verify(Ledger(path)), "without the key too, since the ledger knows that it was signed"


def test_a_tail_longer_than_a_device_leaves_unsigned_is_named_and_a_shorter_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate.runtime.carbon.ledger.signing.UNSIGNED_MAX", 20)
    ledger = signed(tmp_path / "l.db", 30)
    last = max(entry.seq for entry in ledger.entries("block"))
    while ledger.head[0] - last < 20:
        ledger.append([("note", 0, {"text": "x"})])
    assert verify(ledger) == []
    done = CliRunner().invoke(carbon, ["verify", str(tmp_path / "l.db")])
    assert done.exit_code == 0 and "the newest 20 entries lie behind the last block" in done.output, done.output
    ledger.append([("note", 0, {"text": "x"})])
    assert "21 entries behind the last block" in str(verify(ledger)[-1])


@pytest.mark.parametrize(("lines", "said"), [
    (lambda a: [a.replace('"s"', '"another site"')], "another site"),
    (lambda a: [a, json.dumps({**json.loads(a), "hash": "0" * 64})], "twice"),
    (lambda a: [json.dumps({**json.loads(a), "hash": "0" * 64}), a], "written anew"),
    (lambda a: [a, a.replace('"s"', '"t"')], "two sites"),
])  # fmt: skip
def test_anchors_of_another_site_or_that_contradict_each_other_are_named(tmp_path, lines, said):
    ledger = signed(tmp_path / "l.db")
    line = anchor_line(ledger, "s")
    ledger.close()
    assert verify(Ledger(tmp_path / "l.db"), anchors=read_anchors([line, line], "x")) == []
    (tmp_path / "a.txt").write_text("\n".join(lines(line)))
    done = CliRunner().invoke(carbon, ["verify", str(tmp_path / "l.db"), "--anchors", str(tmp_path / "a.txt")])
    assert done.exit_code == 1 and said in done.output, done.output


def test_a_block_of_another_site_is_named(tmp_path):
    key = DeviceKey.at(tmp_path / "k.pem")
    ledger = Ledger(tmp_path / "l.db")
    ledger.begin("s")
    sign(ledger, key, "another", least=1)
    assert "block of site 'another'" in str(verify(ledger)[0])
