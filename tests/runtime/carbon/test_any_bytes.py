"""Every reader of the account against any bytes: real files, changed at random, and what else people drop in.

A reader gives something or refuses, with the name of the file in the text; the sidecar goes on in either case.
"""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.carbon.factors.test_factors import GB, row, table
from tests.runtime.carbon.factors.test_services import MIX, a75, em, wt
from tests.runtime.carbon.jobs.test_jobs import DAY, SACCT, kepler, matrix
from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tidegate.runtime.carbon.factors.files import read_document, read_prices
from tidegate.runtime.carbon.factors.instruments import read_instruments
from tidegate.runtime.carbon.factors.series import FactorError
from tidegate.runtime.carbon.jobs.csv_rows import read_jobs, read_map
from tidegate.runtime.carbon.jobs.work import JobError
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.readings.readings import read_readings
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up

READINGS = (
    "time_utc,meter,quantity,reading,unit\n2026-03-01T00:00Z,w,water,100.000,m3\n2026-04-01T00:00Z,w,water,161,m3\n"
)
PRICES = "time_utc,price_eur_per_mwh\n2025-01-01T00:00Z,12.5\n2025-01-01T01:00Z,-3\n"
INSTRUMENTS = "start_utc,end_utc,wh,g_per_kwh,source\n2026-01-01T00:00Z,2026-01-01T01:00Z,5000,0,wind\n"
CODECARBON = (
    "timestamp,project_name,run_id,duration,emissions,energy_consumed\n2024-03-01T02:00:00+00:00,nlp,r1,3600,0.1,1.5\n"
)
PORTAL = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
    "Carbon intensity gCO₂eq/kWh (Life cycle),Data source,Data estimated\n"
    "2026-01-01 00:00:00,Germany,Germany,DE,281.5,330.1,entsoe.eu,false\n"
    "2026-01-01 01:00:00,Germany,Germany,DE,280,331,entsoe.eu,true\n"
)
PUSHED = json.dumps({"job": "x", "start_utc_s": DAY, "end_utc_s": DAY + 60, "units": {"token": 5}}) + "\n"
PROM = f'kepler_pod_cpu_joules_total{{pod_name="p",zone="package"}} 5 {DAY}000\n'

READERS = {
    "factors": (lambda path: read_document(path), FactorError,
                [table(row()), GB, MIX, PORTAL, em().decode(), wt().decode(), a75().decode(),
                 '{"data": [{"from": "2026-01-01T00:00Z", "to": "2026-01-01T00:30Z", "intensity": {"actual": 5}}]}']),
    "prices": (lambda path: read_prices(path, "EUR"), FactorError, [PRICES]),
    "readings": (lambda path: read_readings(path), FactorError, [READINGS]),
    "instruments": (lambda path: read_instruments(path), FactorError, [INSTRUMENTS]),
    "jobs": (lambda path: read_jobs(path), JobError,
             [SACCT, PUSHED, f"[{PUSHED}]", PROM, CODECARBON, matrix((kepler("a"), [0, 3600])).decode()]),
    "map": (lambda path: read_map(path, "host", "node"), JobError, ["host,node\ngpu01,rack1\n"]),
}  # fmt: skip
BAD = [
    b"", b" ", b"\n", b"\r", b"[1,2]", b"[]", b"{}", b"{", b"null", b"[null]", b'{"a": 1e999999}', b"[[[[[[", b"5",
    b"1e999999", b"\xff\xfe\x00\x00", b"\xef\xbb\xbf", b"<a/>", b"<a>", b"a,b\r1,2\r", b'"', b"\x00" * 99,
    b"[" * 99_999,
    "Größe;Wert\n1;2\n".encode("cp1252"), b'{"history": 5}', b'{"history": [[1]]}', b'{"meta": [], "data": 3}',
    b'{"data": {"intensity": 1}}', b'{"data": ["intensity"]}', b'{"status": "success", "data": [1]}',
    b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": 1}]}}', b"# tidegate factors 9",
    b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b'{"history": [{"carbonIntensity": 1e99999, "datetime": "x"}]}',
    b'[{"job": 1, "start_utc_s": 1e999999, "end_utc_s": 2}]', b'[{"job": 1, "start_utc_s": "x", "end_utc_s": null}]',
    b"time_utc,gas_mw\n9999-12-31T23:59-23:59,5\n", b"time_utc,gas_mw\n2025-01-01T00:00Z,1e999999\n",
    b"JobID|Start|End\n1|99999999999999999999|5\n", b"JobID|Start|End|NodeList\n1|1|2|gpu[1-999999999]\n",
]  # fmt: skip


def variants(text):
    """The same file as other programs write it; each still reads as a whole, or is refused by name."""
    raw = text.encode()
    return [raw, b"\xef\xbb\xbf" + raw, raw.replace(b"\n", b"\r\n"), raw.replace(b"\n", b"\r"), raw.rstrip(),
            raw + b"\n\n", raw.decode().encode("utf-16"), raw.replace(b",", b";"), raw[: len(raw) // 2]]  # fmt: skip


def given_up(read, error, path):
    """What a reader says; fails on any other exception than its own, or one that does not name the file."""
    try:
        return read(path), None
    except error as refusal:
        assert path.name.partition(".")[0] in str(refusal), f"{refusal!r} does not name the file"
        assert len(str(refusal)) < 1000
        return None, str(refusal)


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_reads_the_honest_file_and_refuses_the_others_by_name(kind, tmp_path):
    read, error, files = READERS[kind]
    for number, text in enumerate(files):
        for at, raw in enumerate(variants(text)):
            path = tmp_path / f"file{number}-{at}.txt"
            path.write_bytes(raw)
            found, why = given_up(read, error, path)
            if at in (0, 1, 2, 3, 4, 5):
                assert found, f"{kind} {number} {at}: {why}"
            if at == 6:
                assert why is not None and "UTF-16" in why
    for at, raw in enumerate(BAD):
        path = tmp_path / f"bad{at}.txt"
        path.write_bytes(raw)
        given_up(read, error, path)


@st.composite
def spoiled(draw, files):
    raw = bytearray(draw(st.sampled_from(files)).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        how = draw(st.integers(0, 4))
        if how == 0:
            raw[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=6))
        elif how == 1:
            raw[at:at] = draw(
                st.sampled_from([b'"', b"\r", b"\n", b",", b";", b"\x00", b"[", b"1e999999", b"-", b"\xe4", b"=", b"|"])
            )
        elif how == 2:
            del raw[at : at + draw(st.integers(1, 40))]
        elif how == 3:
            raw[at:at] = raw[: draw(st.integers(0, 80))]
        else:
            raw[at : at + 1] = str(draw(st.integers(-(10**25), 10**25))).encode()
    return bytes(raw)


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_raises_nothing_but_its_own_error(kind, tmp_path):
    read, error, files = READERS[kind]
    path = tmp_path / "fuzz.txt"

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        spoiled(files)
        | st.binary(max_size=200)
        | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
    )
    def run(raw):
        path.write_bytes(raw)
        given_up(read, error, path)

    run()


# ---- in the sidecar ----


def site(**carbon):
    return {**DESCRIBE, "carbon": carbon}


@pytest.mark.parametrize("raw", [*BAD, b"a,b\r1,2\r"])
def test_a_refused_file_at_the_start_costs_the_factor_and_nothing_else(raw, tmp_path):
    (tmp_path / "f.csv").write_bytes(raw)
    (tmp_path / "r.csv").write_bytes(raw)
    (tmp_path / "p.csv").write_bytes(raw)
    settings_ = {"factors": "f.csv", "readings": "r.csv", "prices": "p.csv"}
    one = Sidecar(site(**settings_), Ledger(tmp_path / "l.db"), folder=tmp_path)
    trouble = one.refresh()
    assert any("f.csv" in text for text in trouble)
    catch_up(one, Journal(journal(1900)))
    one.commit()
    (_, second) = one.ledger.entries("period")
    assert second.body["factors"]["grid"]["status"] == "fallback" and "INPUT_REFUSED" in second.body["flags"]
    assert one.ledger.verify() == []
    again = Sidecar(site(**settings_), Ledger(tmp_path / "l.db"), folder=tmp_path)  # and after the next power cut
    assert any("f.csv" in text for text in again.refresh())


def test_any_file_dropped_in_while_it_runs_changes_nothing_and_is_named(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "r").mkdir()
    good = table(row(start_utc="2024-01-01T00:00Z", end_utc="2034-01-01T00:00Z"))
    (tmp_path / "f" / "a.csv").write_text(good)
    one = Sidecar(site(factors="f", readings="r"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    assert one.refresh() == []
    for number, raw in enumerate(BAD):
        for folder in ("f", "r"):
            (tmp_path / folder / "dropped.csv").write_bytes(raw)
        trouble = one.refresh()
        assert any("dropped.csv" in text for text in trouble) and one.factors.grid is not None, number
        assert one.factors.grid_at(HOUR).ug_per_kwh == 300_000_000
        started = Sidecar(site(factors="f", readings="r"), Ledger(tmp_path / f"{number}.db"), folder=tmp_path)
        assert started.factors.grid_at(HOUR).ug_per_kwh == 300_000_000  # the others count after a power cut too
        for folder in ("f", "r"):
            (tmp_path / folder / "dropped.csv").unlink()
        assert one.refresh() == []


def test_a_file_that_was_good_and_is_spoiled_keeps_what_it_said(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.csv").write_text(table(row(start_utc="2024-01-01T00:00Z", end_utc="2034-01-01T00:00Z")))
    one = Sidecar(site(factors="f"), Ledger(tmp_path / "l.db"), folder=tmp_path)
    one.refresh()
    (tmp_path / "f" / "a.csv").write_bytes(b"\xff spoiled")
    (trouble,) = one.refresh()
    assert "a.csv" in trouble and one.factors.grid_at(HOUR).status == "actual"


@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_and_a_folder_in_the_place_of_a_file_are_refused_and_never_waited_for(kind, tmp_path):
    read, error, _ = READERS[kind]
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(error, match=r"pipe.csv: no plain file; put a file there"):
        read(tmp_path / "pipe.csv")


def test_a_file_that_is_too_long_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "long.csv").open("wb") as file:
        file.truncate(10**12)  # a hole
    for read, error in ((read_document, FactorError), (read_readings, FactorError), (read_jobs, JobError)):
        with pytest.raises(error, match=r"long.csv: 1000000000000 bytes, at most \d+ are read; split it"):
            read(tmp_path / "long.csv")
