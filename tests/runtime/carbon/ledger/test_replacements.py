"""A device key that was replaced, a ledger that was put back, one that lies where nothing may be written."""

import os

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.sidecar.test_service import Journal, bodies, journal, sidecar
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.signing import anchor_line, change_key, key_changes, read_anchors, sign, verify
from tidegate.runtime.carbon.sidecar.service import catch_up
from tidegate.runtime.cli.carbon_commands import carbon
from tidegate.runtime.state.device_key import DeviceKey


def signed_ledger(tmp_path, key, notes=3):
    ledger = Ledger(tmp_path / "l.db")
    ledger.begin("s")
    ledger.append([("note", 0, {"what": f"n{i}"}) for i in range(notes)])
    sign(ledger, key, "s", least=1)
    return ledger


@pytest.mark.parametrize("kept", [True, False])
def test_a_replaced_key_is_followed_and_named(tmp_path, kept):
    old, new = DeviceKey.at(tmp_path / "old.pem"), DeviceKey.at(tmp_path / "new.pem")
    ledger = signed_ledger(tmp_path, old)
    words = ["key", "change", str(tmp_path / "l.db"), "--new", str(tmp_path / "new.pem"), "--author", "A", "--reason",
             "board replaced", *(["--old", str(tmp_path / "old.pem")] if kept else [])]  # fmt: skip
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0, result.output
    ledger = Ledger(tmp_path / "l.db")
    ledger.append([("note", 0, {"what": "later"})])
    sign(ledger, new, "s", least=1)
    assert verify(ledger) == [] and verify(ledger, key=new.public) == []
    trusting_old = verify(ledger, key=old.public)
    assert (trusting_old == []) is kept  # who knows only the old key takes no word but its own
    (said,) = key_changes(ledger)
    assert "by A: board replaced" in said and ("NOT signed by the old key" in said) is not kept
    assert said in CliRunner().invoke(carbon, ["verify", str(tmp_path / "l.db")]).output


def test_another_key_without_a_word_is_still_a_problem(tmp_path):
    ledger = signed_ledger(tmp_path, DeviceKey.at(tmp_path / "old.pem"))
    other = DeviceKey.at(tmp_path / "other.pem")
    ledger.append([("note", 0, {"what": "later"})])
    sign(ledger, other, "s", least=1)
    assert "signed by key" in str(verify(ledger)[0])
    with pytest.raises(LedgerError, match="the last block is signed with this very key"):
        change_key(ledger, "s", other, "A", "r")


def test_a_change_that_the_new_key_did_not_sign_is_named(tmp_path):
    old, new = DeviceKey.at(tmp_path / "old.pem"), DeviceKey.at(tmp_path / "new.pem")
    ledger = signed_ledger(tmp_path, old)
    body = change_key(ledger, "s", new, "A", "r", old)
    ledger.append([("key", 0, {**body, "old": new.public, "new": old.public})])
    assert any("the new key did not sign its change" in str(row) for row in verify(ledger))


def test_a_ledger_put_back_from_a_backup_says_so_and_is_booked_again(tmp_path):
    records = journal(6000)
    one = sidecar(tmp_path / "l.db")
    catch_up(one, Journal(records[:2000]))
    one.commit()
    one.ledger.close()
    backup = (tmp_path / "l.db").read_bytes()
    one = sidecar(tmp_path / "l.db")
    catch_up(one, Journal(records))
    one.commit()
    whole = bodies(tmp_path / "l.db")
    anchors = anchor_line(one.ledger, "s")
    one.ledger.close()
    for name in ("l.db", "l.db-wal", "l.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "l.db").write_bytes(backup)
    (tmp_path / "anchors").write_text(anchors + "\n")
    words = ["restored", str(tmp_path / "l.db"), "--anchors", str(tmp_path / "anchors"), "--author", "A", "--reason",
             "disk broke"]  # fmt: skip
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0 and "1 anchored entries are lost" in result.output, result.output
    again = sidecar(tmp_path / "l.db")
    catch_up(again, Journal(records))
    again.commit()
    assert len(bodies(tmp_path / "l.db")) == len(whole)
    assert verify(again.ledger, anchors=read_anchors([anchors], "a")) == []
    said = CliRunner().invoke(carbon, ["verify", str(tmp_path / "l.db"), "--anchors", str(tmp_path / "anchors")]).output
    assert "restored from a backup by A: disk broke; 1 anchored entries of before are lost" in said
    later = Ledger(tmp_path / "l.db")
    with pytest.raises(LedgerError, match="say that it was restored before the sidecar runs on it"):
        from tidegate.runtime.carbon.ledger.signing import restored

        restored(later, "A", "r", {3: "0" * 64})


@pytest.mark.parametrize("name", ["l#1.db", "a b.db", "50%25.db", "l;mode=memory.db"])
def test_a_path_of_any_name_is_one_file(tmp_path, name):
    ledger = Ledger(tmp_path / name)
    ledger.begin("s")
    ledger.close()
    assert Ledger(tmp_path / name, read_only=True).head[0] == 0
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {name}


def test_a_ledger_where_nothing_may_be_written_is_read_unless_entries_wait_beside_it(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "l.db")
    ledger.begin("s")
    ledger.close()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if str(path) == str(tmp_path) else real(path, mode))
    found = Ledger(tmp_path / "l.db", read_only=True)
    assert "immutable" in str(found._engine.url) and found.verify() == []
    (tmp_path / "l.db-wal").write_bytes(b"entries")
    with pytest.raises(LedgerError, match=r"l.db: its newest entries wait in l.db-wal"):
        Ledger(tmp_path / "l.db", read_only=True)
