"""Factors over HTTP from a server on this machine: kept in files, used offline, never in the way of the booking."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from datetime import UTC, datetime
from importlib.resources import files

import pytest

from tests.runtime.cabinet import eventually
from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tidegate.config.site import Carbon
from tidegate.runtime.carbon.factors import fetch as fetching
from tidegate.runtime.carbon.factors.fetch import Fetcher, FetchError, Source, fetch, sources_of
from tidegate.runtime.carbon.factors.files import factors_of
from tidegate.runtime.carbon.factors.series import iso, parse_time
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up

G = 1_000_000
NOW = 1_767_261_600  # 2026-01-01T10:00Z
SECRET = "s3cr3t-token"


def at(text):
    return parse_time(text, "test")


class Server(http.server.ThreadingHTTPServer):
    """Answers with what a test put under a path; keeps every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {}
        self.asked = []
        self.hold = None  # an event: answers wait for it
        self.reached = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self):
        if self.hold is not None:
            self.hold.set()
        self.shutdown()
        self.thread.join(60)
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((parts.path, dict(urllib.parse.parse_qsl(parts.query)), headers))
        self.server.reached.set()
        if self.server.hold is not None:
            self.server.hold.wait(250)
        status, body = next(
            (answer for path, answer in self.server.answers.items() if parts.path.startswith(path)), (404, b"")
        )
        try:
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", f"{self.server.root}/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the client has gone away

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.stop()


def key_file(tmp_path, text=SECRET, mode=0o600):
    path = tmp_path / "key"
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return path


def source(server, service, tmp_path, zone="DE", text=SECRET, signal="co2_moer"):
    key = None if service == "gb-carbon-intensity" else key_file(tmp_path, text)
    return Source(service, "" if key is None else zone, signal, server.root, key, 900.0)


def gb(*rows):
    return json.dumps({"data": [
        {"from": start, "to": end, "intensity": {"forecast": forecast, "actual": actual, "index": "low"}}
        for start, end, forecast, actual in rows]}).encode()  # fmt: skip


def em(value, updated, start="2026-01-01T09:00:00.000Z"):
    row = {"zone": "DE", "carbonIntensity": value, "datetime": start, "updatedAt": updated,
           "emissionFactorType": "lifecycle", "isEstimated": True, "estimationMethod": "T",
           "temporalGranularity": "hourly"}  # fmt: skip
    return json.dumps({"zone": "DE", "data": [row]}).encode()


WT = json.dumps({
    "meta": {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh", "warnings": [],
             "data_point_period_seconds": 300, "generated_at": "2026-01-01T09:58:00+00:00"},
    "data": [{"point_time": "2026-01-01T09:50:00+00:00", "value": 1000.0, "version": "2024-10-01"}],
}).encode()  # fmt: skip
A75 = b"""<?xml version="1.0"?><GL_MarketDocument xmlns="urn:x"><TimeSeries>
<inBiddingZone_Domain.mRID>10Y1001A1001A82H</inBiddingZone_Domain.mRID><curveType>A03</curveType>
<MktPSRType><psrType>B04</psrType></MktPSRType><Period><timeInterval><start>2026-01-01T09:00Z</start>
<end>2026-01-01T10:00Z</end></timeInterval><resolution>PT60M</resolution><Point><position>1</position>
<quantity>100</quantity></Point></Period></TimeSeries></GL_MarketDocument>"""


def used(cache, **more):
    """The factors of a site that has this folder, with no server to ask."""
    settings = {"factors": cache.name, "fetch": [{"service": "gb-carbon-intensity"}], **more}
    return factors_of(settings, cache.parent)


def test_gb_carbon_intensity_is_asked_kept_and_used_offline(server, tmp_path):
    cache = tmp_path / "f"
    server.answers["/intensity/"] = (200, gb(("2026-01-01T09:30Z", "2026-01-01T10:00Z", 210, 200),
                                             ("2026-01-01T10:00Z", "2026-01-01T10:30Z", 220, None)))  # fmt: skip
    assert fetch(source(server, "gb-carbon-intensity", tmp_path), cache, NOW) == 2
    assert server.asked[0][0] == "/intensity/2025-12-31T10:00Z/2026-01-01T11:00Z"
    server.stop()
    factors = used(cache)
    assert [(factors.grid_at(NOW + s).ug_per_kwh // G, factors.grid_at(NOW + s).status) for s in (-60, 60, 1860)] == [
        (200, "actual"), (220, "forecast"), (220, "held")
    ]  # fmt: skip
    assert {step.issued_utc_s for step in factors.grid.steps} == {NOW}
    assert factors.grid_at(NOW + 60, known_utc_s=NOW - 1).status == "fallback"


def test_the_same_answer_adds_nothing_and_a_restated_one_a_version(server, tmp_path):
    cache = tmp_path / "f"
    one = source(server, "gb-carbon-intensity", tmp_path)
    server.answers["/intensity/"] = (200, gb(("2026-01-01T10:00Z", "2026-01-01T10:30Z", 220, None)))
    assert fetch(one, cache, NOW) == 1
    (path,) = cache.iterdir()
    before = path.read_bytes()
    assert before.startswith(b"# tidegate factors 1\nstart_utc,")
    assert fetch(one, cache, NOW + 900) == 0 and path.read_bytes() == before
    server.answers["/intensity/"] = (200, gb(("2026-01-01T10:00Z", "2026-01-01T10:30Z", 220, 231)))
    assert fetch(one, cache, NOW + 1800) == 1
    assert path.read_bytes().startswith(before)
    factors = used(cache)
    assert (factors.grid_at(NOW).ug_per_kwh, factors.grid_at(NOW).status) == (231 * G, "actual")
    assert factors.grid_at(NOW, known_utc_s=NOW + 1000).ug_per_kwh == 220 * G


def test_electricity_maps_keeps_the_time_at_which_it_was_issued(server, tmp_path):
    cache = tmp_path / "f"
    one = source(server, "electricity-maps", tmp_path)
    server.answers["/v3/carbon-intensity/past-range"] = (200, em(281, "2026-01-01T09:40:00.000Z"))
    assert fetch(one, cache, NOW) == 1
    path, query, headers = server.asked[0]
    assert (query["zone"], query["start"], query["end"]) == ("DE", "2025-12-31T10:00:00Z", "2026-01-01T11:00:00Z")
    assert headers["auth-token"] == SECRET and SECRET not in path
    server.answers["/v3/carbon-intensity/past-range"] = (200, em(290, "2026-01-01T11:00:00.000Z"))
    assert fetch(one, cache, NOW + 7200) == 1
    moment = at("2026-01-01T09:30Z")
    factors = used(cache)
    assert factors.grid_at(moment).ug_per_kwh == 290 * G
    assert factors.grid_at(moment, at("2026-01-01T10:00Z")).record() == {
        "ug_per_kwh": 281 * G, "status": "estimated", "source": "Electricity Maps v3 DE",
        "step_utc_s": at("2026-01-01T09:00Z"), "version": "2026-01-01T09:40:00.000Z",
    }  # fmt: skip
    assert SECRET not in "".join(file.read_text() for file in cache.iterdir())


def test_watttime_is_logged_into_and_stays_out_of_the_inventory(server, tmp_path):
    cache = tmp_path / "f"
    one = source(server, "watttime", tmp_path, "CAISO_NORTH", "me:pass word")
    server.answers["/login"] = (200, b'{"token": "t0ken"}')
    server.answers["/v3/historical"] = (200, WT)
    assert fetch(one, cache, NOW) == 1
    import base64

    assert server.asked[0][2]["authorization"] == "Basic " + base64.b64encode(b"me:pass word").decode()
    path, query, headers = server.asked[1]
    assert (path, headers["authorization"]) == ("/v3/historical", "Bearer t0ken")
    assert (query["region"], query["signal_type"]) == ("CAISO_NORTH", "co2_moer")
    factors = used(cache)
    assert factors.grid_at(NOW - 500).status == "fallback"
    assert factors.marginal_at(NOW - 500).ug_per_kwh == 453_592_370
    assert factors.marginal.steps[0].issued_utc_s == at("2026-01-01T09:58Z")


def test_entsoe_gives_its_mix(server, tmp_path):
    cache = tmp_path / "f"
    one = source(server, "entsoe", tmp_path, "10Y1001A1001A82H")
    server.answers["/api"] = (200, A75)
    assert fetch(one, cache, NOW) == 1
    query = server.asked[0][1]
    assert (query["documentType"], query["processType"], query["in_Domain"]) == ("A75", "A16", "10Y1001A1001A82H")
    assert (query["periodStart"], query["periodEnd"], query["securityToken"]) == (
        "202512311000", "202601011100", SECRET
    )  # fmt: skip
    assert used(cache).grid_at(NOW - 60).ug_per_kwh == 490 * G


def test_after_an_absence_it_asks_for_what_is_missing_and_a_week_at_most(server, tmp_path):
    cache = tmp_path / "f"
    one = source(server, "gb-carbon-intensity", tmp_path)
    server.answers["/intensity/"] = (200, gb(("2026-01-01T09:30Z", "2026-01-01T10:00Z", 1, 200)))
    fetch(one, cache, NOW)
    for later, start in ((3 * 86_400, "2026-01-01T10:00Z"), (30 * 86_400, "2026-01-24T10:00Z")):
        fetch(one, cache, NOW + later)
        assert server.asked[-1][0].split("/")[2] == start


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"", "HTTP 401 .*: the key was refused"),
        (403, b"", "HTTP 403 .*: the key may not read this zone"),
        (429, b"", "HTTP 429 .*: asked too often"),
        (500, b"", "HTTP 500"),
        (302, b"", "HTTP 302 .*: it moved"),
        (200, b"", "not JSON"),
        (200, b"<html>", "not JSON"),
        (200, b"[1, 2]", "row 0: '1' where an object with named fields is expected"),
        (200, b"{}", "no rows under history or data"),
        (200, em(281_000, "2026-01-01T09:40:00.000Z"), "above 3 kg/kWh"),
        (200, em(-1, "2026-01-01T09:40:00.000Z"), "is negative"),
        (200, em(281, "2026-01-01T09:40:00.000Z", "2026-01-01T09:00:00"), "has no offset"),
        (200, em(281, "2026-01-01T09:40:00.000Z", "2026-01-01T08:30:00.000Z"), "overlap"),
    ],
)
def test_an_answer_that_cannot_be_used_changes_no_file_and_tells_no_key(server, tmp_path, status, body, words):
    cache = tmp_path / "f"
    one = source(server, "electricity-maps", tmp_path)
    server.answers["/v3/"] = (200, em(300, "2026-01-01T09:10:00.000Z"))
    fetch(one, cache, NOW)
    before = {path: path.read_bytes() for path in cache.iterdir()}
    server.answers["/v3/"] = (status, body)
    with pytest.raises(FetchError, match=words) as caught:
        fetch(one, cache, NOW + 900)
    assert SECRET not in str(caught.value) and "electricity-maps DE" in str(caught.value)
    assert {path: path.read_bytes() for path in cache.iterdir()} == before
    assert not [path for path, _, _ in server.asked if path == "/elsewhere"]
    assert used(cache).grid_at(at("2026-01-01T09:30Z")).ug_per_kwh == 300 * G


def test_a_server_that_is_gone_or_silent_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.2)
    server.hold = threading.Event()
    one = source(server, "entsoe", tmp_path)
    with pytest.raises(FetchError, match=r"entsoe DE: no answer from http://127.0.0.1:\d+: .*timed out") as caught:
        fetch(one, tmp_path / "f", NOW)
    assert SECRET not in str(caught.value)
    server.stop()
    with pytest.raises(FetchError, match="no answer from"):
        fetch(one, tmp_path / "f", NOW)


def test_an_answer_without_end_is_cut_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "ANSWER_MAX", 1000)
    server.answers["/v3/"] = (200, b" " * 1001)
    with pytest.raises(FetchError, match="longer than 1000 bytes"):
        fetch(source(server, "electricity-maps", tmp_path), tmp_path / "f", NOW)


def test_a_key_that_others_may_read_or_that_is_missing_is_refused(server, tmp_path):
    one = source(server, "electricity-maps", tmp_path)
    one.key_file.chmod(0o644)
    with pytest.raises(FetchError, match="may be read by others; chmod 600 it"):
        fetch(one, tmp_path / "f", NOW)
    key_file(tmp_path, "")
    with pytest.raises(FetchError, match="is empty"):
        fetch(one, tmp_path / "f", NOW)
    one.key_file.unlink()
    with pytest.raises(FetchError, match="No such file"):
        fetch(one, tmp_path / "f", NOW)
    assert server.asked == []


def test_a_full_disk_loses_nothing_that_was_kept(server, tmp_path, monkeypatch):
    cache = tmp_path / "f"
    one = source(server, "gb-carbon-intensity", tmp_path)
    server.answers["/intensity/"] = (200, gb(("2026-01-01T09:30Z", "2026-01-01T10:00Z", 1, 200)))
    fetch(one, cache, NOW)
    server.answers["/intensity/"] = (200, gb(("2026-01-01T09:30Z", "2026-01-01T10:00Z", 1, 210)))

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FetchError, match="No space left on device; nothing was kept"):
        fetch(one, cache, NOW + 900)
    assert used(cache).grid_at(NOW - 60).ug_per_kwh == 200 * G


def test_a_failure_is_said_once_asked_again_later_and_its_end_is_said(server, tmp_path):
    said = []
    one = source(server, "gb-carbon-intensity", tmp_path)
    thread = Fetcher([one], tmp_path / "f", said.append)
    server.answers["/intensity/"] = (500, b"")
    for t_s in range(0, 4000, 100):
        thread.turn(float(t_s), NOW + t_s)
    assert len(said) == 1 and "HTTP 500" in said[0] and "goes on to be used" in said[0]
    assert 3 <= len(server.asked) <= 5
    server.answers["/intensity/"] = (200, gb(("2026-01-01T09:30Z", "2026-01-01T10:00Z", 1, 200)))
    thread.turn(1e6, NOW)
    assert said[1:] == ["gb-carbon-intensity: answers again"]


def test_the_booking_goes_on_while_a_service_does_not_answer_and_takes_its_factors_when_it_does(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(fetching, "TIMEOUT_S", 250.0)
    server.hold = threading.Event()
    hour = datetime.fromtimestamp(HOUR, UTC).strftime("%Y-%m-%dT%H:%MZ")
    end = datetime.fromtimestamp(HOUR + 86_400, UTC).strftime("%Y-%m-%dT%H:%MZ")
    server.answers["/intensity/"] = (200, gb((hour, end, 1, 77)))
    settings = {"factors": "f", "fetch": [{"service": "gb-carbon-intensity", "url": server.root}]}
    one = Sidecar({**DESCRIBE, "carbon": settings}, Ledger(tmp_path / "l.db"), folder=tmp_path)
    thread = Fetcher(sources_of(settings, tmp_path), tmp_path / "f", lambda _: None)
    thread.start()
    assert server.reached.wait(60)
    records = journal(5400)
    assert one.refresh() == []
    catch_up(one, Journal(records[:2000]))
    assert one.periods == 2 and not (tmp_path / "f").exists()  # booked, and the service still holds its answer
    server.hold.set()
    assert eventually(lambda: list((tmp_path / "f").glob("fetched-*.csv")), 120)
    thread.ended = True
    assert one.refresh() == []
    catch_up(one, Journal(records))
    one.commit()
    grid = [entry.body["factors"]["grid"] for entry in one.ledger.entries("period")]
    assert [row["status"] for row in grid] == ["fallback"] * 2 + ["actual"] * 4
    assert grid[-1]["ug_per_kwh"] == 77 * G and grid[-1]["source"] == "GB Carbon Intensity API"


@pytest.mark.timeout(600)
def test_a_running_site_asks_and_its_sidecar_takes_the_factors_without_a_restart(server, tmp_path):
    """The real processes: `tidegate run` of the shipped simulated site, with a service that it may ask."""
    now = int(time.time()) // 1800 * 1800
    server.answers["/intensity/"] = (
        200,
        gb((iso(now - 1800), iso(now), 1, 99), (iso(now), iso(now + 1800), 101, None)),
    )
    shipped = files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8")
    site = tmp_path / "site.toml"
    site.write_text(
        f"""{shipped}
[carbon]
factors = "f/"

[[carbon.fetch]]
service = "gb-carbon-intensity"
url = "{server.root}"
every_s = 60
"""
    )
    environment = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(tmp_path / "run"), "no_proxy": "127.0.0.1"}
    words = [
        sys.executable,
        "-m",
        "tidegate.runtime.cli",
        "run",
        str(site),
        "--state-dir",
        str(tmp_path / "state"),
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        try:
            assert server.reached.wait(120), (tmp_path / "log").read_text()

            def taken():
                path = tmp_path / "state" / "simulated" / "carbon" / "ledger.db"
                if not path.exists():
                    return False
                try:
                    return [e.body["grid"]["source"] for e in Ledger(path, read_only=True).entries("factor")]
                except LedgerError:
                    return False  # it is being made

            assert eventually(taken, 240), (tmp_path / "log").read_text()
            assert taken() == ["GB Carbon Intensity API"]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(120) == 0, (tmp_path / "log").read_text()
            finally:
                process.kill()
                process.wait()


def test_nobody_is_asked_unless_the_site_file_says_so(tmp_path):
    assert sources_of({}, tmp_path) == []
    assert sources_of(Carbon(factors="f/").model_dump(), tmp_path) == []
    (one,) = sources_of(
        Carbon.model_validate_json('{"factors": "f/", "fetch": [{"service": "gb-carbon-intensity"}]}').model_dump(),
        tmp_path,
    )
    assert one.root == "https://api.carbonintensity.org.uk" and one.key_file is None


@pytest.mark.parametrize(
    ("carbon", "words"),
    [
        ({"fetch": [{"service": "gb-carbon-intensity"}]}, "fetch needs factors"),
        ({"factors": "f/", "fetch": [{"service": "electricity-maps", "zone": "DE"}]}, "needs key_file"),
        ({"factors": "f/", "fetch": [{"service": "entsoe", "key_file": "k"}]}, "needs zone"),
        ({"factors": "f/", "fetch": [{"service": "weather"}]}, "electricity-maps"),
        (
            {"factors": "f/", "fetch": [{"service": "entsoe", "zone": "Z", "key_file": "k", "url": "http://x.y:80/a"}]},
            "a key needs https",
        ),
        ({"factors": "f/", "fetch": [{"service": "gb-carbon-intensity", "url": "ftp://x"}]}, "pattern"),
        ({"factors": "f/", "fetch": [{"service": "gb-carbon-intensity", "every_s": 1}]}, "greater than or equal to 60"),
    ],
)
def test_a_site_file_that_cannot_fetch_is_refused(carbon, words):
    with pytest.raises(ValueError, match=words):
        Carbon.model_validate_json(json.dumps(carbon))
