"""What comes from outside is bounded, escaped, refused or warned of."""

import io
import json
import socket
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from tidegate.hal import maps
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.carbon.factors import fetch as fetching
from tidegate.runtime.carbon.factors import services
from tidegate.runtime.carbon.factors.fetch import Fetcher, FetchError, Source
from tidegate.runtime.carbon.factors.series import FactorError, parse_factor
from tidegate.runtime.cli.device_commands import devices
from tidegate.runtime.cli.site_commands import check
from tidegate.runtime.console.users import UserError, Users, is_easy
from tidegate.runtime.state.csv_cells import cell

DEMO_FOLDER = Path(__file__).parents[2] / "config/demo"
DEMO = (DEMO_FOLDER / "site.toml").read_text()

ENTSOE = """<GL_MarketDocument xmlns="urn:x"><TimeSeries><curveType>A03</curveType><MktPSRType><psrType>B04</psrType>
</MktPSRType><Period><timeInterval><start>2026-01-01T00:00Z</start><end>{end}</end></timeInterval>
<resolution>PT15M</resolution><Point><position>1</position><quantity>5</quantity></Point></Period></TimeSeries>
</GL_MarketDocument>"""


def gb(**row):
    start = {"from": "2026-01-01T00:00Z", "to": "2026-01-01T00:30Z", "intensity": {"actual": 5}}
    return json.dumps({"data": [{**start, **row}]}).encode()


@pytest.mark.parametrize(("reader", "raw"), [
    (services.entsoe, ENTSOE.format(end="9999-12-31T00:00Z").encode()),
    (services.entsoe, ENTSOE.format(end="2025-01-01T00:00Z").encode()),
    (services.gb_api, gb(to="9999-12-31T00:00Z")),
    (services.gb_api, gb(intensity={"actual": "1e999999999"})),
    (services.gb_api, b'{"data": [{"from": "2026-01-01T00:00Z", "to": "2026-01-01T00:30Z", '
                      b'"intensity": {"actual": 1e999999999}}]}'),
    (services.gb_api, b"[" * 200_000),
    (services.electricity_maps, b'{"history": ' + b"[" * 200_000),
    (services.watttime, json.dumps({
        "meta": {"signal_type": "co2_moer", "units": "lbs_co2_per_mwh", "data_point_period_seconds": 10**12},
        "data": [{"point_time": "2026-01-01T00:00Z", "value": 5}]}).encode()),
])  # fmt: skip
def test_an_answer_that_asks_for_more_than_any_answer_is_refused_at_once(reader, raw):
    began = time.process_time()
    with pytest.raises(FactorError):
        reader(raw, "answer")
    spent = time.process_time() - began
    began = time.process_time()
    assert services.entsoe(ENTSOE.format(end="2026-12-31T00:00Z").encode(), "a year").steps
    assert spent < 5 * (time.process_time() - began) + 0.5


def test_a_factor_between_the_bounds_is_still_exact():
    assert parse_factor("412.5", "g/kWh", "x") == 412_500_000
    assert parse_factor("1e-400", "g/kWh", "x") == 0
    with pytest.raises(FactorError):
        parse_factor(str(Decimal(10) ** 40), "g/kWh", "x")


def source(port: int) -> Source:
    return Source("gb-carbon-intensity", "", "", f"http://127.0.0.1:{port}", None, 60.0)


def test_a_body_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr(fetching, "WHOLE_S", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        peer, _ = listener.accept()
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while not ended.wait(0.05):
                peer.sendall(b" ")
        except OSError:
            pass
        peer.close()

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        with pytest.raises(FetchError, match="took longer"):
            fetching.ask(source(listener.getsockname()[1]), 0, 1800)
    finally:
        ended.set()
        thread.join(5)
        listener.close()


@pytest.mark.parametrize("failure", [RecursionError(), MemoryError(), KeyError("x"), OverflowError(), ValueError()])
def test_no_answer_ends_the_thread_that_asks(tmp_path, monkeypatch, failure):
    def fail(*_):
        raise failure

    monkeypatch.setattr(fetching, "ask", fail)
    said = []
    fetcher = Fetcher([source(1)], tmp_path, said.append)
    fetcher.turn(0.0, 1_800_000_000)
    assert len(said) == 1 and "goes on to be used" in said[0]
    fetcher.turn(1e6, 1_800_000_000)


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "|x"])
def test_what_a_spreadsheet_would_run_is_text(text):
    assert cell(text) == "'" + text


@pytest.mark.parametrize("value", ["-5", "-1.25", "+3e8", "plain", "", "a=b", -5, 1.5, None, "2026-01-01T00:00Z"])
def test_numbers_and_plain_text_stay_as_they_are(value):
    assert cell(value) == value


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x07", "\x9b31m", "a\u202eb", "\x7f"])
def test_a_command_s_text_that_a_terminal_would_obey_is_refused(text):
    import msgpack

    with pytest.raises(Refused, match="control"):
        messages.decode(msgpack.packb({"v": 2, "id": "1", "op": "note", "name": "x", "detail": text}))
    assert "\x1b" not in messages.shown(text) and messages.shown("Zähler 7 °C") == "Zähler 7 °C"


def test_watch_shows_what_it_hears_and_obeys_none_of_it():
    from tidegate.runtime.api.answers import SiteDescription
    from tidegate.runtime.cli.watch import Screen

    screen = Screen(SiteDescription())
    head = {"v": 2, "site": "s\x1b]0;x\x07", "boot": "0" * 32, "seq": 0, "cycle": 1, "t_ns": 1, "utc_ns": 1,
            "utc_sync": "S", "program": "0" * 64}  # fmt: skip
    screen.take({**head, "kind": "event", "event": "note", "unit": -1, "code": 0, "name": "\x1b[2J[red]x",
                 "previous": 0, "value": None, "limit": None, "detail": "\x1b[31mowned"})  # fmt: skip
    screen.take({**head, "kind": "snapshot", "points": {}, "loop": {}})
    out = io.StringIO()
    Console(file=out, force_terminal=False, width=100).print(screen.render())
    assert "\x1b" not in out.getvalue() and "\x07" not in out.getvalue() and "owned" in out.getvalue()


@pytest.mark.parametrize("password", [
    "password", "Password1", "p4ssw0rd", "P@ssw0rd!", "passwort123", "12345678", "87654321", "qwertyui", "11111111",
    "aaaabbbb", "anna1234", "admin2026", "Tidegate1", "abcdefgh", "letmein!!", "changeme", "operator1", "qwerty123",
    "testtest", "1q2w3e4r",
])  # fmt: skip
def test_a_password_that_is_tried_first_is_refused(tmp_path, password):
    with pytest.raises(UserError):
        Users(tmp_path, cost=16).put("anna", "maintain", password)


@pytest.mark.parametrize(
    "password", ["correct-horse", "rain falls on tin", "k7#Vq2pLx", "Busbar-Lantern-40", "Zwölf Boxen"]
)
def test_a_password_that_is_not_is_taken(password):
    assert not is_easy(password, "anna")


def checked(tmp_path: Path, text: str) -> tuple[int, str]:
    for data in DEMO_FOLDER.glob("*.csv"):
        (tmp_path / data.name).symlink_to(data)
    (tmp_path / "site.toml").write_text(text)
    done = CliRunner().invoke(check, [str(tmp_path / "site.toml")])
    return done.exit_code, done.output


def with_line(device: str, line: str) -> str:
    head, found, rest = DEMO.partition(f'name = "{device}"')
    assert found, device
    return f"{head}{found}\n{line}{rest}"


def test_the_demo_is_good_and_a_site_without_margins_is_warned_of(tmp_path):
    for name in ("good", "bare"):
        (tmp_path / name).mkdir()
    code, said = checked(tmp_path / "good", DEMO)
    assert code == 0 and "soc window" not in said
    bare = DEMO.replace("soc_min = 0.1", "soc_min = 0.0").replace("soc_max = 0.95", "soc_max = 1.0")
    code, said = checked(tmp_path / "bare", bare)
    assert code == 0 and "no margin in its soc window" in said


@pytest.mark.parametrize(("device", "line"), [
    ("bms1", "age_max_ms = 600000"), ("bms1", "age_max_ms = 6000"), ("pcs1", "age_max_ms = 6000"),
    ("grid", "age_max_ms = 61000"), ("cabinet", "temp_max_c = 80"), ("cabinet", "temp_max_c = 61"),
])  # fmt: skip
def test_a_time_or_threshold_beyond_its_hazard_is_refused_by_name(tmp_path, device, line):
    text = with_line(device, line)
    if "temp_max_c" in line:
        text = DEMO.replace("temp_max_c = 50", line)
    code, said = checked(tmp_path, text)
    assert code != 0 and line.split(" ")[0] in said, said


@pytest.mark.parametrize(("device", "line"), [
    ("bms1", "age_max_ms = 4000"), ("pcs1", "age_max_ms = 5000"), ("grid", "age_max_ms = 60000"),
])  # fmt: skip
def test_a_time_within_its_hazard_is_good(tmp_path, device, line):
    code, said = checked(tmp_path, with_line(device, line))
    assert code == 0, said


def test_a_time_out_that_would_hold_a_setpoint_back_is_refused(tmp_path):
    code, said = checked(tmp_path, with_line("pcs1", "timeout_ms = 600000"))
    assert code != 0 and "0 W could be on the wire" in said


OWN_MAP = """schema = 1
[map]
name = "own"
extends = "{base}"
protocol = "{protocol}"
kind = "{kind}"
title = "x"
source = "x"
"""


@pytest.mark.parametrize(("device", "base", "protocol", "rows", "name"), [
    ("bms1", "bms-35x-hv", "can", "[[frame]]\nid = 0x355\nperiod_ms = 0", "bms1.soc"),
    ("bms1", "bms-35x-hv", "can", "[[frame]]\nid = 0x351\nage_ms = 600000", "bms1.charge_a_max"),
    ("pcs1", "sunspec-701", "sunspec", '[[point]]\nname = "power_w"\npoll = "once"', "pcs1.power_w"),
])  # fmt: skip
def test_a_map_whose_readings_never_grow_old_is_refused(tmp_path, device, base, protocol, rows, name):
    """The same as age_max_ms = 600000, by way of a map of one's own."""
    kind = "bms" if device == "bms1" else "pcs"
    (tmp_path / "own.toml").write_text(OWN_MAP.format(base=base, protocol=protocol, kind=kind) + rows)
    head, _, rest = DEMO.partition(f'name = "{device}"')
    code, said = checked(tmp_path, f'{head}name = "{device}"' + rest.replace(f'map = "{base}"', 'map = "own.toml"', 1))
    assert code != 0 and name in said and "what it guards allows" in said, said


def test_a_map_of_somebody_else_is_shown_and_none_of_it_obeyed(tmp_path):
    """Its title, its doubts and what is wrong with it go to a terminal."""
    text = (maps.map_folder() / "chint-dtsu666.toml").read_text(encoding="utf-8")
    text = text.replace('name = "chint-dtsu666"', 'name = "own"').replace(
        'title = "', 'title = "\\u001b]0;owned\\u0007', 1
    )
    path = tmp_path / "own.toml"
    path.write_text(text)
    done = CliRunner().invoke(devices, ["show", str(path)])
    assert done.exit_code == 0 and "owned" in done.output and "\x1b" not in done.output and "\x07" not in done.output
    path.write_text(text.replace('unit = "W"', 'unit = "\\u001b[2J"', 1))
    done = CliRunner().invoke(devices, ["check", str(path)])
    assert done.exit_code != 0 and "[2J" in done.output and "\x1b" not in done.output
