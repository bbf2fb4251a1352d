"""The journal: what was synced is found again, damage is never taken for data."""

import os
import random
import struct
from pathlib import Path

import pytest

from tidegate.runtime.state.journal import HEADER, RECORD, DiskFiles, Journal, Record

BOOT_A, BOOT_B = b"a" * 16, b"b" * 16


def record(seq: int, boot: bytes = BOOT_A, size: int = 40) -> Record:
    return Record(boot, seq, 1_000_000_000 * seq, seq, random.Random(seq).randbytes(size))


def write(folder: Path, seqs: range, boot: bytes = BOOT_A, **more) -> Journal:
    journal = Journal(folder, "meter", **more)
    for seq in seqs:
        journal.append(record(seq, boot))
    journal.sync()
    return journal


def seqs(journal: Journal, boot: bytes | None = None, seq: int = -1) -> list[tuple[bytes, int]]:
    found, at, end = [], (boot, seq), False
    while not end:
        records, end = journal.after(*at, 7)
        found += [(one.boot, one.seq) for one in records]
        for one in records:
            assert one == record(one.seq, one.boot)
        if records:
            at = (records[-1].boot, records[-1].seq)
    return found


def test_what_was_synced_is_found_by_the_next_process(tmp_path):
    write(tmp_path, range(100)).close()
    again = Journal(tmp_path, "meter")
    assert again.last == {BOOT_A: (99, 99)} and not again.damages
    assert seqs(again) == [(BOOT_A, n) for n in range(100)]
    assert seqs(again, BOOT_A, 41) == [(BOOT_A, n) for n in range(42, 100)]
    assert again.verify() == []


def test_nothing_is_durable_before_sync(tmp_path):
    journal = Journal(tmp_path, "meter")
    journal.append(record(0))
    assert journal.last == {} and journal.pending == 1
    assert seqs(journal) == []
    assert [one.seq for one in journal.sync()] == [0]
    assert seqs(journal) == [(BOOT_A, 0)]


def test_records_of_several_boots_follow_each_other(tmp_path):
    write(tmp_path, range(10), segment_bytes=600).close()
    write(tmp_path, range(5), BOOT_B, segment_bytes=600).close()
    journal = Journal(tmp_path, "meter", segment_bytes=600)
    assert len(journal.segments) >= 2
    assert seqs(journal, BOOT_A, 7) == [(BOOT_A, 8), (BOOT_A, 9)] + [(BOOT_B, n) for n in range(5)]


def test_segments_end_at_their_size_and_are_chained(tmp_path):
    journal = Journal(tmp_path, "meter", segment_bytes=1000)
    for seq in range(100):
        journal.append(record(seq))
        journal.sync()
    assert len(journal.segments) > 5
    assert journal.verify() == []
    journal.close()
    assert Journal(tmp_path, "meter").verify() == []


def test_an_unknown_boot_is_gone(tmp_path):
    journal = write(tmp_path, range(3))
    with pytest.raises(KeyError):
        journal.after(BOOT_B, 0, 10)


@pytest.mark.parametrize("cut", range(1, RECORD.size + 72 + 1))
def test_a_torn_tail_is_cut_off_and_reported_at_any_length(tmp_path, cut):
    write(tmp_path, range(5)).close()
    path = next(tmp_path.glob("meter-*.seg"))
    os.truncate(path, path.stat().st_size - cut)
    journal = Journal(tmp_path, "meter")
    kept = 4
    assert seqs(journal) == [(BOOT_A, n) for n in range(kept)]
    assert journal.last[BOOT_A][0] == kept - 1
    if cut < RECORD.size + 72:
        assert [d.what for d in journal.damages] == ["torn tail"]
    for seq in range(kept, 9):
        journal.append(record(seq))
    journal.sync()
    assert seqs(journal) == [(BOOT_A, n) for n in range(9)]
    assert journal.verify() == []


def test_a_flipped_bit_is_found_and_costs_only_its_record(tmp_path):
    write(tmp_path, range(20)).close()
    path = next(tmp_path.glob("meter-*.seg"))
    size = RECORD.size + 32 + 40
    raw = bytearray(path.read_bytes())
    raw[HEADER.size + 7 * size + 60] ^= 4
    path.write_bytes(raw)
    journal = Journal(tmp_path, "meter")
    assert [one for _, one in seqs(journal)] == [n for n in range(20) if n != 7]
    assert len(journal.damages) == 1 and "not whole" in journal.damages[0].what
    assert journal.verify() != []


def test_a_record_taken_out_breaks_the_chain(tmp_path):
    write(tmp_path, range(20)).close()
    path = next(tmp_path.glob("meter-*.seg"))
    size = RECORD.size + 32 + 40
    raw = path.read_bytes()
    path.write_bytes(raw[: HEADER.size + 5 * size] + raw[HEADER.size + 6 * size :])
    assert any("chain" in line for line in Journal(tmp_path, "meter").verify())


def test_a_segment_taken_out_breaks_the_chain(tmp_path):
    journal = Journal(tmp_path, "meter", segment_bytes=400)
    for seq in range(30):
        journal.append(record(seq))
        journal.sync()
    journal.close()
    journal.segments[2].path.unlink()
    assert any("does not continue" in line for line in Journal(tmp_path, "meter").verify())


def test_old_blocks_of_another_segment_are_not_taken_for_records(tmp_path):
    write(tmp_path, range(20)).close()
    old = next(tmp_path.glob("meter-*.seg")).read_bytes()
    journal = Journal(tmp_path, "meter")
    for seq in range(20, 25):
        journal.append(record(seq))
    journal.sync()
    path = journal.segments[-1].path
    journal.close()
    with open(path, "ab") as file:  # the file system gave blocks of a deleted file back
        file.write(old[HEADER.size :])
    again = Journal(tmp_path, "meter")
    assert [one for _, one in seqs(again)] == list(range(25))
    assert again.damages and again.damages[0].repaired


class Failing(DiskFiles):
    """A disk that fails when it is told to."""

    def __init__(self) -> None:
        self.fail = ""

    def write(self, handle: int, data: bytes) -> None:
        if self.fail == "full":
            os.write(handle, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        super().write(handle, data)

    def sync(self, handle: int) -> None:
        if self.fail == "sync":
            raise OSError(5, "Input/output error")
        super().sync(handle)

    def create(self, path: Path) -> int:
        if self.fail == "read-only":
            raise OSError(30, "Read-only file system")
        return super().create(path)


@pytest.mark.parametrize("how", ["full", "sync", "read-only"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_failing_disk_loses_nothing_that_is_kept_and_recovers(tmp_path, how, before):
    files = Failing()
    journal = Journal(tmp_path, "meter", files=files)
    for seq in range(before):
        journal.append(record(seq))
    journal.sync()
    if how == "read-only":
        journal.append(record(before, BOOT_B))  # a new boot needs a new file
    else:
        journal.append(record(before))
    files.fail = how
    for _ in range(3):
        with pytest.raises(OSError):
            journal.sync()
    assert journal.pending == 1 and journal.last.get(BOOT_A, (-1, -1))[0] == before - 1
    files.fail = ""
    assert len(journal.sync()) == 1
    journal.close()
    again = Journal(tmp_path, "meter")
    assert [one for _, one in seqs(again)] == list(range(before + 1))
    assert again.verify() == []


def test_a_length_that_is_not_true_is_not_believed(tmp_path):
    write(tmp_path, range(5)).close()
    path = next(tmp_path.glob("meter-*.seg"))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, HEADER.size + 4, 0x7FFFFFFF)
    path.write_bytes(raw)
    journal = Journal(tmp_path, "meter")
    assert [one for _, one in seqs(journal)] == [1, 2, 3, 4]
    assert len(journal.damages) == 1


def test_dropping_the_oldest_never_takes_the_one_that_is_written(tmp_path):
    journal = Journal(tmp_path, "meter", segment_bytes=400)
    for seq in range(30):
        journal.append(record(seq))
        journal.sync()
    while journal.drop_oldest():
        pass
    assert len(journal.segments) == 1
    assert seqs(journal)[-1] == (BOOT_A, 29)


class FullDisk(DiskFiles):
    """A disk that takes no new file while `full`."""

    full = True

    def create(self, path: Path) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().create(path)


def test_a_disk_that_takes_no_new_file_costs_no_record_of_an_earlier_process(tmp_path):
    write(tmp_path, range(5)).close()
    disk = FullDisk()
    journal = Journal(tmp_path, "meter", files=disk)
    for seq in range(5, 8):
        journal.append(record(seq))
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            journal.sync()
        assert seqs(journal) == [(BOOT_A, n) for n in range(5)]
    disk.full = False
    assert [one.seq for one in journal.sync()] == [5, 6, 7]
    journal.close()
    again = Journal(tmp_path, "meter")
    assert seqs(again) == [(BOOT_A, n) for n in range(8)] and again.verify() == [] and not again.damages
