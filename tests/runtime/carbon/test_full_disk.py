"""A disk that is full when the sidecar starts: it waits for room, and gives up for nothing else."""

import errno
import sqlite3

import pytest
import sqlalchemy as sa

from tidegate.runtime.carbon import __main__ as sidecar
from tidegate.runtime.carbon.ledger.ledger import LedgerError


def full_database(tmp_path):
    """The error that a ledger has from a database without room, from the library itself."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'full.db'}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        try:
            connection.exec_driver_sql("CREATE TABLE t (a text)")
            connection.exec_driver_sql("CREATE TABLE u (a text)")
        except sa.exc.DatabaseError as error:
            try:
                raise LedgerError("nothing was written") from error
            except LedgerError as found:
                return found
    raise AssertionError("the database took it")


class PostgresFull(Exception):
    sqlstate = "53100"


def caused(by):
    try:
        raise LedgerError("nothing was written") from by
    except LedgerError as found:
        return found


def test_a_full_disk_is_told_from_what_needs_a_person(tmp_path):
    assert sidecar.disk_is_full(full_database(tmp_path))
    assert sidecar.disk_is_full(OSError(errno.ENOSPC, "no space")) and sidecar.disk_is_full(caused(PostgresFull()))
    for other in (
        LedgerError("another ledger"),
        OSError(errno.EACCES, "no"),
        caused(sqlite3.OperationalError("locked")),
    ):
        assert not sidecar.disk_is_full(other)


def test_the_sidecar_waits_for_room_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sidecar, "FULL_PAUSE_S", 0.01)
    left = [full_database(tmp_path), OSError(errno.ENOSPC, "no space")]

    def work():
        if left:
            raise left.pop()
        return "made"

    assert sidecar.patiently(work, sidecar.Stop()) == "made" and not left
    said = capsys.readouterr()
    assert said.err.count("waiting for room") == 1 and said.out == '{"carbon": "waits for room"}\n'


def test_it_does_not_wait_for_another_cause_nor_past_a_stop():
    def refused():
        raise LedgerError("somebody else appended")

    with pytest.raises(LedgerError, match="somebody else"):
        sidecar.patiently(refused, sidecar.Stop())
    stop = sidecar.Stop()

    def full():
        stop.ask()
        raise OSError(errno.ENOSPC, "no space")

    assert sidecar.patiently(full, stop) is None
