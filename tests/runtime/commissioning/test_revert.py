"""How each converter of a site falls back: a silence for each, at its own power, and its own time in the site file."""

import contextlib
import copy
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

from tidegate.config.site import parse_site
from tidegate.runtime.commissioning import revert, sitefile
from tidegate.runtime.commissioning.commissioning_report import FINDING, OK, UNCLEAR, Report

TEXT = (Path(__file__).parents[3] / "config/sites/simulated.toml").read_text()
POWER_W = 1000.0


def site_of(units, before=None):
    """A site of so many converters on one port of a real machine."""
    raw = copy.deepcopy(tomllib.loads(TEXT))
    raw.pop("simulation", None)
    for number, port in enumerate(raw["serial"]):
        port["device"] = f"/dev/ttyUSB{number}"
    raw["can"][0]["interface"] = "can0"
    meter, pcs, bms = raw["device"][:3]
    raw["device"], (unit,), can = [meter], raw["storage"], raw["can"][0]
    raw["can"], raw["storage"] = [], []
    for number in range(1, units + 1):
        raw["can"].append({**can, "name": f"can{number}", "interface": f"can{number}"})
        raw["device"].append({**pcs, "name": f"pcs{number}", "unit_id": number})
        raw["device"].append({**bms, "name": f"bms{number}", "bus": f"can{number}"})
        raw["storage"].append({**unit, "name": f"u{number}", "pcs": f"pcs{number}", "bms": f"bms{number}"})
    if before:
        raw["commissioning"] = {"pcs_revert_ms": before}
    site, problems = parse_site(raw)
    assert problems == []
    return site


class Hall:
    """Converters that fall back so long after each silence; what the steps order of them and see.

    load_w: of the s since the silence began, 0 before it. cuts: silences before which the power was cut.
    """

    def __init__(self, monkeypatch, site, after_s, shares, load_w=lambda gone: 5000.0, cuts=0, deaf=()):
        self.site, self.after_s, self.shares, self.load_w, self.cuts, self.deaf = (
            site,
            after_s,
            shares,
            load_w,
            cuts,
            deaf,
        )
        self.began = None
        self.total_w = 0.0
        self.orders, self.silences, self.restored = [], 0, 0
        self.derated = set()
        monkeypatch.setattr(revert, "Plant", lambda client: self)
        monkeypatch.setattr(revert, "PowerReader", lambda port, device, found, shared=None: Reader(self, device.name))
        monkeypatch.setattr(revert, "LEVEL_S", 0.001)
        monkeypatch.setattr(revert, "TAKE_S", 0.05)
        monkeypatch.setattr(revert, "OWN_S", 0.01)
        monkeypatch.setattr(revert, "REVERT_SLACK_S", 0.5)

    def wait_armed(self):
        assert self.began is None, "armed while its core is dead"

    @contextlib.contextmanager
    def client(self):
        yield SimpleNamespace(lease=lambda *_: contextlib.nullcontext(SimpleNamespace(lost=None)))

    def move(self, lease, power_w, hold_s):
        self.orders.append(power_w)
        self.total_w = power_w

    def check(self):
        pass

    def last_setpoint_w(self, pcs):
        return self.total_w * self.shares[pcs]

    @property
    def gone_s(self):
        return 0.0 if self.began is None else time.monotonic() - self.began

    def watts(self, name):
        return 0.0 if self.gone_s > self.after_s[name] else self.total_w * self.shares[name]

    def value(self, point):
        name = point.removesuffix(".power_w")
        return self.watts(name) if name in self.shares else self.load_w(self.gone_s) - sum(map(self.watts, self.shares))

    def silence(self):
        if self.silences < self.cuts:
            self.total_w = 0.0
        self.silences += 1
        self.began = time.monotonic()
        return self.began

    def restore(self):
        self.restored += self.began is not None
        self.began, self.total_w = None, 0.0


class Reader:
    def __init__(self, hall, name):
        self.hall, self.name, self.where = hall, name, f"{name} on its port"

    def power_w(self):
        time.sleep(0.005)
        return None if self.name in self.hall.deaf else self.hall.value(f"{self.name}.power_w")

    def close(self):
        pass


def measured(monkeypatch, site, after_s, shares, revert_s=5.0, **more):
    hall, report = Hall(monkeypatch, site, after_s, shares, **more), Report()
    task = SimpleNamespace(site=site, power_w=POWER_W, hold_s=1.0, revert_s=revert_s)
    revert.silence(hall, task, report, lambda _: None)
    return hall, report


def lines(report):
    return {line.topic: line.verdict for line in report.rows}


def test_each_converter_of_a_site_has_a_silence_and_a_time_of_its_own(monkeypatch):
    site = site_of(2, {"pcs1": 9000.0, "pcs2": 9000.0})
    hall, report = measured(monkeypatch, site, {"pcs1": 0.2, "pcs2": 0.6}, {"pcs1": 0.5, "pcs2": 0.5})
    assert hall.silences == 2 and hall.restored == 1 and max(hall.orders) == 2 * POWER_W
    found = report.tables["commissioning"]["pcs_revert_ms"]
    assert set(found) == {"pcs1", "pcs2"} and found["pcs1"] >= 150 and found["pcs2"] >= 550
    assert found["pcs2"] - found["pcs1"] >= 200, "each was seen by its own register"
    assert lines(report) == {"revert of pcs1": OK, "revert of pcs2": OK}
    made = tomllib.loads(sitefile.edited(TEXT + "\n[commissioning]\nby = 'x'\n", report.tables, {}))
    assert made["commissioning"] == {"by": "x", "pcs_revert_ms": found}


def test_one_that_does_not_fall_back_or_took_nothing_is_said_and_keeps_what_was_known(monkeypatch):
    site = site_of(3, {"pcs3": 2500.0})
    after_s = {"pcs1": 0.1, "pcs2": 1e9, "pcs3": 0.1}
    _, report = measured(monkeypatch, site, after_s, {"pcs1": 0.5, "pcs2": 0.5, "pcs3": 0.0}, revert_s=0.5)
    assert lines(report) == {"revert of pcs1": OK, "revert of pcs2": FINDING, "revert of pcs3": UNCLEAR}
    found = report.tables["commissioning"]["pcs_revert_ms"]
    assert set(found) == {"pcs1", "pcs3"} and found["pcs3"] == 2500.0


def test_a_single_converter_is_seen_by_the_grid_meter_and_has_a_number(monkeypatch):
    hall, report = measured(monkeypatch, site_of(1), {"pcs1": 0.2}, {"pcs1": 1.0})
    assert isinstance(report.tables["commissioning"]["pcs_revert_ms"], int) and max(hall.orders) == POWER_W
    assert "grid on " in report.rows[0].says


def one(monkeypatch, **more):
    """A single converter that falls back after 0.6 s, seen by the grid meter."""
    more = {"after_s": {"pcs1": 0.6}, "shares": {"pcs1": 1.0}, **more}
    hall, report = measured(monkeypatch, site_of(1), **more)
    (row,) = report.rows
    return hall, row, report.tables.get("commissioning", {}).get("pcs_revert_ms")


def test_a_load_that_moves_as_much_as_the_step_does_not_look_like_a_fall(monkeypatch):
    _, row, found_ms = one(monkeypatch, load_w=lambda gone: 5000.0 + (POWER_W if gone > 0.2 else 0.0))
    assert row.verdict == OK and found_ms >= 550


def test_a_converter_that_holds_its_power_is_found_whatever_the_load_does(monkeypatch):
    _, row, found_ms = one(
        monkeypatch, after_s={"pcs1": 1e9}, revert_s=1.0, load_w=lambda gone: 5000.0 + (POWER_W if gone > 0.2 else 0.0)
    )
    assert row.verdict == FINDING and "watchdog" in row.remedy and found_ms is None


def test_a_load_that_hides_the_fall_is_told_and_not_taken_for_a_missing_watchdog(monkeypatch):
    hall, row, found_ms = one(monkeypatch, revert_s=1.5, load_w=lambda gone: 5000.0 - (POWER_W if gone > 0.6 else 0.0))
    assert row.verdict == UNCLEAR and "did not show when" in row.says and "calmer" in row.remedy
    assert "watchdog" not in row.remedy and hall.silences == revert.ATTEMPTS and found_ms is None


def test_power_that_was_cut_just_before_the_silence_is_held_again(monkeypatch):
    hall, row, found_ms = one(monkeypatch, cuts=1)
    assert row.verdict == OK and hall.silences == 2 and found_ms >= 550, "and no fall in the first one"
    hall, row, found_ms = one(monkeypatch, cuts=99)
    assert row.verdict == UNCLEAR and "cut before the silence" in row.says and found_ms is None
    assert hall.silences == revert.ATTEMPTS


def test_a_single_converter_that_took_nothing_is_never_told_to_set_its_watchdog(monkeypatch):
    hall, row, _ = one(monkeypatch, shares={"pcs1": 0.0})
    assert row.verdict == UNCLEAR and "took 0 W of 1000 W" in row.says and "watchdog" not in row.remedy
    assert hall.silences == 0


def test_who_does_not_answer_in_the_silence_gives_no_verdict_about_the_watchdog(monkeypatch):
    for deaf in (["grid"], ["pcs1"]):
        _, row, found_ms = one(monkeypatch, after_s={"pcs1": 1e9}, revert_s=0.8, deaf=deaf)
        assert row.verdict == UNCLEAR and "did not answer in the silence" in row.says and found_ms is None


def test_a_site_without_a_port_to_watch_from_is_left_out(monkeypatch):
    site, problems = parse_site(tomllib.loads(TEXT))
    assert problems == []
    hall, report = measured(monkeypatch, site, {"pcs1": 0.2}, {"pcs1": 1.0})
    assert hall.silences == 0 and report.tables == {}
