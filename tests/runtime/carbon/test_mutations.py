"""Real files with random damage: no reader raises what is not its own, and no row of a table vanishes without a word.

CARBON_MUTATIONS sets how many of each file there are; 10,000 take some minutes.
"""

import os
import random
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.runtime.carbon.test_any_bytes import (
    CODECARBON,
    INSTRUMENTS,
    PORTAL,
    PRICES,
    PUSHED,
    READERS,
    READINGS,
    given_up,
)
from tidegate.runtime.carbon.factors.files import read_document, read_prices
from tidegate.runtime.carbon.factors.instruments import read_instruments
from tidegate.runtime.carbon.factors.series import FactorError
from tidegate.runtime.carbon.jobs.csv_rows import read_jobs
from tidegate.runtime.carbon.jobs.work import JobError
from tidegate.runtime.carbon.readings.ocmf import OcmfError, documents, readings, signed
from tidegate.runtime.carbon.readings.readings import read_readings
from tidegate.runtime.carbon.report.letterhead import read_letterhead

MUTATIONS = int(os.environ.get("CARBON_MUTATIONS", "60"))
PIECES = [b'"', b"'", b"\r", b"\n", b",", b";", b"|", b"\t", b"\x00", b"{", b"}", b"[", b"]", b"<", b">", b"=", b"#"]
PIECES += [b":", b"-", b"+", b"e9", b"1e999", b"NaN", b"inf", b"null", b"\xff", b"\xe4", b"\xef\xbb\xbf", b"\\", b"%"]
PIECES += [b"0" * 40, b"99999999999999999999", b"9999-12-31", b"1969-12-31", b"T24:00", b"+99:00", b" "]
WHOLE = [(kind, number) for kind, (_, _, files) in READERS.items() for number in range(len(files))]


def damaged(raw, rng):
    """A file with one to five pieces cut, doubled, moved, turned or put in."""
    raw = bytearray(raw)
    for _ in range(rng.randrange(1, 6)):
        at, size = rng.randrange(len(raw) + 1), rng.randrange(1, 30)
        how = rng.randrange(7)
        if how == 0:
            del raw[at : at + size]
        elif how == 1:
            raw[at:at] = rng.choice(PIECES)
        elif how == 2 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif how == 3:
            raw[at : at + size] = rng.choice(PIECES)
        elif how == 4:
            raw[at:at] = raw[rng.randrange(len(raw) + 1) :][:size]
        elif how == 5:
            lines = bytes(raw).split(b"\n")
            rng.shuffle(lines)
            raw = bytearray(b"\n".join(lines))
        else:
            raw[at : at + 1] = str(rng.randrange(-(10**12), 10**12)).encode()
    return bytes(raw)


@pytest.mark.parametrize(("kind", "number"), WHOLE)
def test_damaged_files_are_read_or_refused_by_name(kind, number, tmp_path):
    read, error, files = READERS[kind]
    rng, path = random.Random(f"{kind} {number}"), tmp_path / "fuzz.txt"
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(files[number].encode(), rng))
        given_up(read, error, path)


@pytest.mark.parametrize("contained", [False, True])
def test_damaged_signed_readings_are_refused_or_say_the_same(contained):
    key = ec.generate_private_key(ec.SECP256R1())
    row = {"TM": "2024-03-01T01:00:00,000+0100 S", "RV": 5, "RI": "1-0:1.8.0", "RU": "kWh", "ST": "G"}
    text = signed({"FV": "1.0", "PG": "F7", "MS": "M1", "RD": [row]}, key)
    raw = (f"<values><value><signedData>{text}</signedData></value></values>" if contained else text).encode()
    rng = random.Random(f"ocmf {contained}")
    for _ in range(MUTATIONS):
        try:
            found, _ = readings(documents(damaged(raw, rng), "m", key.public_key()), "m")
        except OcmfError as refusal:
            assert str(refusal).startswith("m")
            continue
        assert {value for one in found for _, value, *_ in one.rows} == {5_000_000}


def test_a_damaged_letterhead_is_read_or_refused_by_name(tmp_path):
    rng, path = random.Random("letterhead"), tmp_path / "head.toml"
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(b'operator = "Hall"\naddress = ["a", "b"]\nlogo = "no.png"\n', rng))
        try:
            read_letterhead(path)
        except ValueError as refusal:
            assert "head.toml" in str(refusal) or "no" in str(refusal)


# Text, how it is read, how many of its rows an answer accounts for: kept, or named as set aside.
TABLES = {
    "readings": (READINGS, lambda path: sum(len(one.rows) for one in read_readings(path)), FactorError),
    "prices": (PRICES, lambda path: len(read_prices(path, "EUR").steps), FactorError),
    "instruments": (INSTRUMENTS, lambda path: len(read_instruments(path)), FactorError),
    "portal": (PORTAL, lambda path: sum(len(s.steps) + len(s.notes) for s in read_document(path)), FactorError),
    "codecarbon": (CODECARBON, lambda path: sum(map(len, read_jobs(path))), JobError),
    "pushed": (PUSHED * 3, lambda path: sum(map(len, read_jobs(path))), JobError),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_row_of_a_damaged_table_vanishes(name, tmp_path):
    """One or two letters of the rows are others; whatever is not refused still accounts for each row."""
    text, rows_of, error = TABLES[name]
    rng, path = random.Random(name), tmp_path / "fuzz.txt"
    head = 0 if name == "pushed" else text.index("\n") + 1
    rows = len(text[head:].strip().split("\n"))
    read = 0
    for _ in range(MUTATIONS):
        changed = list(text)
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(head, len(text))
            if changed[at] not in '\n"':
                changed[at] = rng.choice("0123456789abcXYZ.,-:; ~#")
        path.write_text("".join(changed), encoding="utf-8")
        try:
            got = rows_of(path)
        except error:
            continue
        read += 1
        assert got >= rows, "".join(changed)
    assert read, "some of them can be read"
    assert re.search(r"\d", text)
