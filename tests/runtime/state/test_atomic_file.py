"""A file that is replaced whole, and synced where it has to outlive a loss of power."""

import os

import pytest

from tidegate.runtime.state import atomic_file


@pytest.mark.parametrize(("durable", "syncs"), [(True, 2), (False, 0)])
def test_a_file_is_replaced_whole_and_synced_with_its_folder_only_where_it_has_to_last(
    tmp_path, monkeypatch, durable, syncs
):
    path, synced = tmp_path / "status.json", []
    path.write_bytes(b"old")
    before = path.stat().st_ino
    monkeypatch.setattr(os, "fsync", synced.append)
    atomic_file.replace(path, b"new", durable=durable)
    assert path.read_bytes() == b"new" and path.stat().st_ino != before and len(synced) == syncs
    assert [one.name for one in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_that_fails_leaves_the_old_one_and_nothing_beside_it(tmp_path, monkeypatch, durable):
    path = tmp_path / "status.json"
    path.write_bytes(b"old")

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_file.replace(path, b"new", durable=durable)
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["status.json"]
