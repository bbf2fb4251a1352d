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
    """Converters that fall back so long after each silence; what the steps order of them and see."""

    def __init__(self, monkeypatch, site, after_s, shares):
        self.site, self.after_s, self.shares = site, after_s, shares
        self.began = None
        self.total_w = 0.0
        self.orders, self.silences, self.restored = [], 0, 0
        monkeypatch.setattr(revert, "Plant", lambda client: self)
        monkeypatch.setattr(revert, "PowerReader", lambda port, device, found: Reader(self, device.name))

    def wait_armed(self):
        assert self.began is None, "armed while its core is dead"

    @contextlib.contextmanager
    def client(self):
        yield SimpleNamespace(lease=lambda *_: contextlib.nullcontext(SimpleNamespace(lost=None)))

    def move(self, lease, power_w, hold_s):
        self.orders.append(power_w)
        self.total_w = power_w

    def watts(self, name):
        gone = self.began is not None and time.monotonic() - self.began > self.after_s[name]
        return 0.0 if gone else self.total_w * self.shares[name]

    def value(self, point):
        name = point.removesuffix(".power_w")
        return self.watts(name) if name in self.shares else 5000.0 - sum(map(self.watts, self.shares))

    def silence(self):
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
        return self.hall.value(f"{self.name}.power_w")

    def close(self):
        pass


def measured(monkeypatch, site, after_s, shares, revert_s=5.0):
    hall, report = Hall(monkeypatch, site, after_s, shares), Report()
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
    assert "grid on its port" in report.rows[0].says


def test_a_site_without_a_port_to_watch_from_is_left_out(monkeypatch):
    site, problems = parse_site(tomllib.loads(TEXT))
    assert problems == []
    hall, report = measured(monkeypatch, site, {"pcs1": 0.2}, {"pcs1": 1.0})
    assert hall.silences == 0 and report.tables == {}
