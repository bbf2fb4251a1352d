"""The journal after a loss of power: nothing that was acknowledged is lost, nothing damaged is given out.

TIDEGATE_POWER_IMAGES sets how many disks are looked at (default 600).
"""

import contextlib
import importlib.util
import os
import random
from pathlib import Path

import pytest

from tests.tools.spread import spread
from tidegate.runtime.state.journal import Journal, Record

_spec = importlib.util.spec_from_file_location("diskmodel", Path(__file__).with_name("diskmodel.py"))
assert _spec is not None and _spec.loader is not None
diskmodel = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(diskmodel)

IMAGES = int(os.environ.get("TIDEGATE_POWER_IMAGES", "600"))
FOLDER = Path("/journal")
BOOTS = [bytes([n]) * 16 for n in range(1, 9)]


def payload(boot: bytes, seq: int) -> bytes:
    return random.Random(boot[0] * 1_000_003 + seq).randbytes(1 + (seq * 131) % 900)


def use(files, dice, boot, first, acknowledged, lives) -> int:
    """Append and sync until the power goes or the life is over; gives the next sequence."""
    journal = Journal(FOLDER, "meter", files=files, segment_bytes=dice.choice([500, 3000, 100_000]))
    seq = first
    for _ in range(lives):
        for _ in range(dice.randrange(1, 9)):
            journal.append(Record(boot, seq, seq, seq, payload(boot, seq)))
            seq += 1
        acknowledged += [(record.boot, record.seq) for record in journal.sync()]
    return seq


def read_all(journal):
    found, at, end = [], (None, -1), False
    while not end:
        records, end = journal.after(*at, 50)
        found += records
        if records:
            at = (records[-1].boot, records[-1].seq)
    return found


def one_image(seed: int) -> tuple[int, int]:
    """(acknowledged, damages reported) of one crashed disk; raises AssertionError with the seed."""
    dice = random.Random(seed)
    files = diskmodel.ModelFiles()
    acknowledged: list[tuple[bytes, int]] = []
    damages = 0
    for boot in BOOTS[: dice.randrange(1, 4)]:
        files.crash_at = files.operations + dice.randrange(1, 60)
        with contextlib.suppress(diskmodel.Crash):
            use(files, dice, boot, 0, acknowledged, 20)
        files = files.after_power_loss(dice)
        journal = Journal(FOLDER, "meter", files=files)
        damages += len(journal.damages)
        found = read_all(journal)
        for record in found:
            assert record.payload == payload(record.boot, record.seq), f"seed {seed}: damaged data given out"
        keys = [(record.boot, record.seq) for record in found]
        assert len(keys) == len(set(keys)), f"seed {seed}: a record twice"
        assert [key for key in keys if key in set(acknowledged)] == acknowledged, f"seed {seed}: acknowledged lost"
        acknowledged = keys  # what is found now was given out, and must stay
    return len(acknowledged), damages


@pytest.mark.parametrize("block", range(6))
def test_no_acknowledged_record_is_lost_and_no_damage_is_given_out(block):
    seen = spread(one_image, range(block * IMAGES // 6, (block + 1) * IMAGES // 6))
    records, damages = (sum(counts) for counts in zip(*seen, strict=True))
    assert records > IMAGES // 6 and damages > IMAGES // 60, "the disks were not hurt enough to show anything"
