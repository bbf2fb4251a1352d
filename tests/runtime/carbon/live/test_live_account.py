"""Live figures over seeded days: what was shown last of each period against what was booked for it."""

import random
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from tidegate.runtime.carbon.factors.files import COLUMNS
from tidegate.runtime.carbon.factors.series import iso as stamp
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.live.live_account import LiveAccount, midnight_utc_s
from tidegate.runtime.carbon.live.live_figures import Figures
from tidegate.runtime.carbon.live.stood_up import StoodUp, differences
from tidegate.runtime.carbon.sidecar.service import Sidecar

DAY = 1_717_200_000 // 86_400 * 86_400
STEP_S = 2
PERIOD_S = 900
CLOSING_S = 2  # the sidecar looks once more when a period is about to end
BOOT = "a" * 32
POINTS = ("grid.import_wh", "grid.export_wh", "pv.energy_wh", "room.energy_wh", "cool.energy_wh", "site.grid_in_ws",
          "site.grid_out_ws", "site.grid_covered_s", "site.pv_in_ws", "site.pv_out_ws", "site.pv_covered_s",
          "site.ess_discharged_ws", "site.ess_charged_ws", "site.ess_covered_s", "bms1.soc")  # fmt: skip
DESCRIBE = {
    "site": {"name": "s", "timezone": "UTC"},
    "points": [{"name": name} for name in POINTS],
    "nodes": [
        {"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
        {"role": "pv", "device": "pv", "positive_wh": "pv.energy_wh"},
        {"role": "it", "device": "room", "positive_wh": "room.energy_wh"},
        {"role": "cooling", "device": "cool", "positive_wh": "cool.energy_wh"},
        {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None},
    ],
    "units": [{"name": "cabinet", "pcs": "pcs1", "energy_wh": 60_000.0}],
}


class Day:
    """A site's meter records, second by second: a room with steps, cooling, sun, a battery that follows."""

    def __init__(self, seed, resolution_wh=0.1, pv_w=20_000):
        self.rng = random.Random(seed)
        self.resolution_wh, self.pv_w = resolution_wh, pv_w
        self.true_wh = dict.fromkeys(POINTS[:5], 5000.0)
        self.ws = dict.fromkeys(POINTS[5:14], 0.0)
        self.room_w, self.ess_w, self.seq = 30_000.0, 0.0, 0
        self.silent = set()
        self.soc, self.sky = 0.5, 1.0

    def step(self, utc_s):
        rng, hour = self.rng, (utc_s - DAY) / 3600
        if rng.random() < 0.004:
            self.room_w = rng.uniform(10_000, 60_000)
        if rng.random() < 0.002:
            self.ess_w = rng.uniform(-15_000, 15_000)
        if rng.random() < 0.005:
            self.sky = rng.uniform(0.3, 1.0)
        room = self.room_w * rng.uniform(0.97, 1.03)
        cool = 0.12 * room + 1500
        pv = max(0.0, self.pv_w * (1 - ((hour - 12) / 6) ** 2)) * self.sky
        grid = room + cool - pv - self.ess_w
        moved = {
            "grid.import_wh": max(0.0, grid), "grid.export_wh": max(0.0, -grid), "pv.energy_wh": pv,
            "room.energy_wh": room, "cool.energy_wh": cool,
        }  # fmt: skip
        for name, watts in moved.items():
            self.true_wh[name] += watts * STEP_S / 3600
        for name, watts in (
            ("site.grid_in_ws", max(0.0, grid)), ("site.grid_out_ws", max(0.0, -grid)), ("site.pv_in_ws", pv),
            ("site.ess_discharged_ws", max(0.0, self.ess_w)), ("site.ess_charged_ws", max(0.0, -self.ess_w)),
            ("site.grid_covered_s", 1), ("site.pv_covered_s", 1), ("site.ess_covered_s", 1),
        ):  # fmt: skip
            self.ws[name] += watts * STEP_S
        points = {name: wh // self.resolution_wh * self.resolution_wh for name, wh in self.true_wh.items()}
        points |= self.ws | {"bms1.soc": self.soc}
        self.soc -= self.ess_w * STEP_S / 3600 / 60_000 * (1 / 0.97 if self.ess_w > 0 else 0.97)
        if not 0.1 < self.soc < 0.9:
            self.ess_w = -self.ess_w
        self.seq += 1
        t_ns = self.seq * STEP_S * 10**9
        return {
            "boot": BOOT, "seq": self.seq, "t_ns": t_ns, "utc_ns": utc_s * 10**9, "utc_sync": "S",
            "points": {name: (None, 3) if name in self.silent else (value, 1) for name, value in points.items()},
        }  # fmt: skip


def factor_file(path, seed, missing=()):
    rng = random.Random(seed)
    rows = [",".join(COLUMNS)]
    for start in range(DAY, DAY + 86_400, 1800):
        if not any(begin <= (start - DAY) / 3600 < end for begin, end in missing):
            factor = rng.randint(200, 500)
            row = (stamp(start), stamp(start + 1800), "X", factor, "g/kWh", "average", "direct", "actual",
                   "table", "1")  # fmt: skip
            rows.append(",".join(map(str, row)))
    path.write_text("\n".join(rows) + "\n")


def whole_day(
    tmp_path, seed, *, hours=24.0, missing=(), resolution_wh=0.1, silent=None, timezone="UTC", pv_w=20_000, every_s=150
):
    """(live, every look's rows by moment) of a day of which each minute was looked at."""
    (tmp_path / "f").mkdir()
    factor_file(tmp_path / "f" / "a.csv", seed, missing)
    describe = {**DESCRIBE, "site": {"name": "s", "timezone": timezone}, "carbon": {"factors": "f"}}
    one = Sidecar(describe, Ledger(tmp_path / "l.db"), folder=tmp_path)
    one.refresh()
    live = LiveAccount(describe, one)
    day, looks = Day(seed, resolution_wh, pv_w), {}
    for start in range(DAY, DAY + int(hours * 3600), PERIOD_S):
        last = start + PERIOD_S - CLOSING_S
        edges = [*range(start, last, every_s), last, start + PERIOD_S]
        for begin, end in pairwise(edges):
            if silent is not None:
                day.silent = {silent[0]} if silent[1] <= (begin - DAY) / 3600 < silent[2] else set()
            one.take([day.step(utc_s) for utc_s in range(begin, end, STEP_S)])
            if end < start + PERIOD_S:
                looks[end] = live.look(end)
    one.take([day.step(DAY + int(hours * 3600))])
    looks[DAY + int(hours * 3600)] = live.look(DAY + int(hours * 3600))
    return live, looks


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_shown_last_of_a_period_is_what_is_booked(tmp_path, seed):
    live, looks = whole_day(tmp_path, seed)
    stood = live.stood_up
    assert stood.periods == 96
    assert stood.within >= 0.99 * stood.periods, stood
    assert stood.unflagged == 0, stood.named
    shown = [rows["site"][0]["now"] for rows in looks.values()]
    assert sum(one["good"] for one in shown) > 0.8 * len(shown)
    assert all(one["provisional"] and one["pue"] > 1 for one in shown if one["good"])


def test_where_the_grid_gives_in_bursts_what_differs_was_flagged(tmp_path):
    live, _ = whole_day(tmp_path, 4, hours=14.0, pv_w=45_000, every_s=20)  # about as much sun as the site uses
    stood = live.stood_up
    assert stood.periods == 56 and stood.unflagged == 0, stood.named
    assert stood.within + stood.flagged == stood.periods and stood.within > 0.9 * stood.periods


def at(looks, hours):
    return looks[min(looks, key=lambda utc_s: abs(utc_s - DAY - hours * 3600))]["site"][0]


def test_an_hour_without_a_factor_is_never_shown_as_good(tmp_path):
    live, looks = whole_day(tmp_path, 5, hours=4.0, missing=[(1.0, 4.0)])
    assert at(looks, 0.9)["now"]["good"]
    held, missing = at(looks, 1.4)["now"], at(looks, 3.9)
    assert not held["good"] and any("factor is a held one" in text for text in held["doubts"])
    assert any("factor is a held one" in text for text in missing["today"]["doubts"])
    assert not missing["today"]["good"]
    assert live.stood_up.unflagged == 0


def test_a_meter_that_falls_silent_is_named_while_it_is(tmp_path):
    live, looks = whole_day(tmp_path, 6, hours=2.0, silent=("room.energy_wh", 1.0, 1.6))
    assert at(looks, 0.9)["now"]["good"]
    silent = at(looks, 1.2)["now"]
    assert not silent["good"] and any(text.startswith("room.load: silent for") for text in silent["doubts"])
    assert live.stood_up.unflagged == 0, live.stood_up.named


def test_a_register_of_whole_kilowatt_hours_is_too_coarse_at_first_and_says_so(tmp_path):
    live, looks = whole_day(tmp_path, 7, hours=2.0, resolution_wh=1000.0)
    assert not any(rows["site"][0]["now"]["good"] for rows in looks.values())
    assert any("counts in 1 kWh" in text for text in at(looks, 1.5)["now"]["doubts"])
    assert live.stood_up.unflagged == 0, live.stood_up.named


def test_a_journal_that_stands_still_is_named_by_its_age(tmp_path):
    live, _ = whole_day(tmp_path, 8, hours=0.5)
    (site,) = live.look(DAY + 1800 + 300)["site"]
    assert site["now"]["doubts"][0].startswith("no meter record for") and not site["today"]["good"]


def test_what_lies_between_midnight_and_the_first_record_is_missing_today(tmp_path):
    _, looks = whole_day(tmp_path, 9, hours=1.0, timezone="Asia/Kolkata")  # midnight was at 18:30 UTC
    today = at(looks, 0.9)["today"]
    assert today["since_utc_s"] == DAY - 19_800 and not today["good"]
    assert today["doubts"][0] == "5:30:00 h since midnight are not in the account"


def test_kilograms_since_midnight_go_on_over_the_end_of_a_period_and_begin_anew_at_midnight(tmp_path):
    _, looks = whole_day(tmp_path, 10, hours=3.0, timezone="Atlantic/Azores")  # UTC in summer
    kg = [rows["site"][0]["today"]["kg"] for rows in looks.values()]
    assert all(after >= before for before, after in pairwise(kg)) and kg[-1] > kg[0] > 0
    nodes = {row["name"]: row for row in looks[max(looks)]["node"]}
    assert set(nodes) == {"room", "cool"} and nodes["room"]["more"] == {"role": "it"}
    assert sum(row["today"]["kg"] for row in nodes.values()) <= kg[-1]


@pytest.mark.parametrize(("zone", "utc", "midnight"), [
    ("Europe/Berlin", "2024-03-31T12:00", "2024-03-30T23:00"),
    ("Europe/Berlin", "2024-10-27T12:00", "2024-10-26T22:00"),
    ("Asia/Kathmandu", "2024-06-01T00:00", "2024-05-31T18:15"), ("UTC", "2024-06-01T00:00", "2024-06-01T00:00"),
])  # fmt: skip
def test_midnight_is_the_sites_own_also_on_the_days_of_a_change(zone, utc, midnight):
    seconds = [int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in (utc, midnight)]
    assert midnight_utc_s(ZoneInfo(zone), seconds[0]) == seconds[1]


def figures(kg=1.0, kwh=4.0, pue=1.2, direct=0.3, elapsed_s=900):
    return Figures(int(kwh * 1e6), int(kg * 1e9), pue, direct, 0.0, elapsed_s)


@pytest.mark.parametrize(("booked", "names"), [
    (figures(), []), (figures(kg=1.009), []), (figures(kg=1.03), ["g/kWh", "kg/h"]), (figures(pue=1.3), ["PUE"]),
    (figures(pue=None), ["PUE"]), (figures(direct=0.35), ["renewable share direct"]),
])  # fmt: skip
def test_a_difference_of_more_than_one_percent_is_named(booked, names):
    found = differences(figures(), booked)
    assert [text.partition(" shown")[0].rpartition(" ")[0] for text in found] == names


def test_only_a_difference_that_was_shown_as_good_counts_as_a_fault():
    stood = StoodUp()
    for start, good, booked in ((0, True, figures()), (900, False, figures(kg=2)), (1800, True, figures(kg=2))):
        stood.show(start, figures(), good)
        stood.booked(start, booked)
    stood.booked(2700, figures())  # never shown: nothing to compare
    assert (stood.periods, stood.within, stood.flagged, stood.unflagged) == (3, 1, 1, 1)
    assert stood.named == ["period 1800: g/kWh 250 shown, 500 booked, kg/h 4 shown, 8 booked"]
