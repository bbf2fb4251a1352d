"""The planner that runs by itself, in virtual time against a gateway of the test's own."""

import json
import math
import os
import subprocess
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from click.testing import CliRunner

from tidegate.config.site import load_site
from tidegate.runtime.api.connection import ClientError, Point
from tidegate.runtime.api.messages import QUALITIES
from tidegate.runtime.cli.plan_commands import plan
from tidegate.runtime.cli.planner_commands import planner
from tidegate.runtime.planner import live_planner
from tidegate.runtime.planner.adapter_audit import adapter_doubts, end_doubts, write_doubts
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, write_jobs
from tidegate.runtime.planner.day_ahead import Wishes, backup_reserve
from tidegate.runtime.planner.forecast_diary import ForecastDiary
from tidegate.runtime.planner.forecasts import Expected
from tidegate.runtime.planner.live_planner import LivePlanner
from tidegate.runtime.planner.plan_inputs import Horizon, PlanError, Storage
from tidegate.runtime.planner.planner_metrics import metrics_text, serve_metrics
from tidegate.runtime.planner.price_folder import read_prices
from tidegate.runtime.planner.site_history import Quarter, SiteHistory, read_history, write_history

ROOT = Path(__file__).parents[3]
SITE = load_site(str(ROOT / "config/sites/simulated.toml"))
BEGIN = int(datetime(2025, 3, 1, tzinfo=UTC).timestamp())
GOOD = QUALITIES.index("good")


class Gateway:
    """A site whose load repeats each day: 20 kW, at 17 to 20 h 35 kW. Records once a second, made when asked for."""

    def __init__(self, begin=BEGIN, boots=((BEGIN, 10**11),)):
        self.boots = [(f"{i:032x}", first, last) for i, (first, last) in enumerate(boots)]
        self.begin, self.now = begin, begin
        self.soc, self.quality = 0.5, "good"
        self.sent, self.asked = [], 0
        self.refuse = None

    @staticmethod
    def load_ws(utc_s):
        days, second = divmod(utc_s - BEGIN, 86_400)
        evening = min(max(second - 17 * 3600, 0), 3 * 3600)
        return 1e3 * (20 * (86_400 * days + second) + 15 * (3 * 3600 * days + evening))

    def record(self, boot, first, seq):
        utc_s = first + seq
        points = {"site.grid_in_ws": (self.load_ws(utc_s) - self.load_ws(first), GOOD), "site.grid_out_ws": (0.0, GOOD),
                  "site.grid_covered_s": (float(seq), GOOD), "site.ess_discharged_ws": (0.0, GOOD),
                  "site.ess_charged_ws": (0.0, GOOD), "site.ess_covered_s": (float(seq), GOOD)}  # fmt: skip
        return {"boot": boot, "seq": seq, "utc_ns": utc_s * 10**9 + 3 * 10**8, "points": points}

    def replay(self, stream, boot=None, seq=-1, count=256):
        assert (stream, count) == ("meter", 1)
        self.asked += 1
        names = [name for name, _, _ in self.boots]
        at = 0 if boot is None else names.index(boot)
        wanted = seq + 1 if boot is not None else 0
        for name, first, last in self.boots[at:]:
            if first + wanted <= min(last, self.now):
                return [self.record(name, first, wanted)], False
            wanted = 0
        return [], True

    def get(self, *names):
        return {"site.soc": Point(self.soc, QUALITIES.index(self.quality))}

    def schedule(self, steps, end_utc_s, *, rank="order"):
        assert rank == "planner"
        if self.refuse:
            raise self.refuse
        self.sent.append((steps, end_utc_s))
        return {"status": "applied"}


def priced(tmp_path, days=8):
    """Dear from 17 to 20 h, cheap at night."""
    folder = tmp_path / "prices"
    folder.mkdir(exist_ok=True)
    rows = ["time_utc,price_eur_per_mwh"]
    for k in range(24 * days):
        at = datetime.fromtimestamp(BEGIN + 3600 * k, UTC)
        rows.append(f"{at:%Y-%m-%dT%H:%MZ},{400 if 17 <= at.hour < 20 else 50 if at.hour < 4 else 200}")
    (folder / "de.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def live(tmp_path):
    gateway = Gateway()
    folder = tmp_path / "planner"
    folder.mkdir()
    made = LivePlanner(gateway, SITE, priced(tmp_path), folder, Wishes())
    return gateway, made


def at_day(gateway, day, hour=0.0):
    gateway.now = BEGIN + int(86_400 * day + 3600 * hour) + 6
    return gateway.now


def test_load_is_read_from_the_journal_by_the_quarter_hour(live):
    gateway, made = live
    made.step(at_day(gateway, 3))
    assert gateway.asked < 3 * 96 + 10, "one question a quarter hour, whatever the journal holds"
    load, pv = made.history.series(BEGIN, 3 * 96)
    expected = np.where((np.arange(3 * 96) % 96 >= 68) & (np.arange(3 * 96) % 96 < 80), 35.0, 20.0)
    assert load == pytest.approx(expected, abs=0.02) and (pv == 0).all()
    asked = gateway.asked
    made.step(at_day(gateway, 3, 0.25))
    assert gateway.asked - asked <= 3


def test_a_plan_is_sent_that_serves_the_dear_evening(live):
    gateway, made = live
    made.step(at_day(gateway, 3))
    assert made.told.state == "planned", made.told.text
    ((steps, end_utc_s),) = gateway.sent
    assert end_utc_s == BEGIN + 4 * 86_400
    evening = [one for one in steps if 17 <= (one["start_utc_s"] - BEGIN) % 86_400 / 3600 < 20]
    assert (
        evening and all(one["setpoint_w"] >= 0 for one in evening) and max(one["setpoint_w"] for one in evening) > 10e3
    )
    assert min(one["setpoint_w"] for one in steps) < -1e3
    told = json.loads((made.folder / "planner.json").read_text())
    for one in told["forecasts"].values():
        assert one["pinball"][one["by"]] == min(one["pinball"].values()) and one["text"].startswith(one["by"])
    assert told["plans"] == 1 and len(told["battery_kw"]) == 96 and told["advice"]["word"] in ("run", "may wait")


def test_the_battery_s_plan_stands_on_the_load_that_the_cooling_s_plan_makes(live):
    """Cold is made from 8 to 10 h and used from 17 to 20 h: both plans have the same grid power in mind."""
    gateway, made = live
    now = at_day(gateway, 3)
    made.step(now)
    alone = made.made
    moved = [6.0 if 32 <= k < 40 else -4.0 if 68 <= k < 80 else 0.0 for k in range(96)]
    told = {"utc_s": now, "line": "", "moved_kw": {"begin_utc_s": BEGIN + 3 * 86_400, "step_s": 900, "kw": moved}}
    path = made.folder / "cooling-advice-crac1.json"
    path.write_text(json.dumps(told))
    made.step(now)
    both = made.made
    before, after = alone.plan.horizon, both.plan.horizon
    assert after.load_kw - before.load_kw == pytest.approx(moved, abs=1e-6)
    grid = after.load_kw - both.plan.battery_kw
    assert both.plan.import_kw - both.plan.export_kw == pytest.approx(grid, abs=1e-3)
    assert both.outlook.load.middle == pytest.approx(alone.outlook.load.middle + moved, abs=1e-6)
    assert both.outlook.load.high - both.outlook.load.middle == pytest.approx(
        alone.outlook.load.high - alone.outlook.load.middle, abs=1e-6)  # fmt: skip
    done = CliRunner().invoke(planner, ["status", "--folder", str(made.folder)])
    assert "cooling's plan moves: 12.0 kWh more (at most 6.0 kW), 12.0 kWh less (at most 4.0 kW)" in done.output
    path.write_text("{")
    made.step(now)
    assert made.made.plan.horizon.load_kw == pytest.approx(before.load_kw)
    assert any("cooling-advice-crac1.json" in text for text in made.told.doubts)


def test_what_is_missing_costs_a_plan_and_is_said(live):
    gateway, made = live
    made.step(at_day(gateway, 1))
    assert made.told.state == "no new plan" and "1.0 days of load are known" in made.told.text
    for soc, quality in ((None, "invalid"), (0.4, "stale")):
        gateway.soc, gateway.quality = soc, quality
        made.step(at_day(gateway, 3))
        assert made.told.state == "no new plan" and "site.soc is not good" in made.told.text
    gateway.soc, gateway.quality = 0.5, "good"
    for path in made.prices.glob("*.csv"):
        path.write_text("no table\n")
    made.step(at_day(gateway, 3, 1))
    assert made.told.state == "no new plan" and "price_eur_per_kwh: nothing is known" in made.told.text
    priced(made.prices.parent)
    (made.prices / "broken.csv").write_bytes(b"\xff\x00")
    (made.folder / "jobs.json").write_text("[{]")
    made.step(at_day(gateway, 3, 2))
    assert made.told.state == "no new plan" and "jobs.json" in made.told.text
    (made.folder / "jobs.json").unlink()
    made.step(at_day(gateway, 3, 3))
    assert made.told.state == "planned" and any("broken.csv: is not UTF-8" in text for text in made.told.doubts)
    assert len(gateway.sent) == 1 and made.told.failures == 5


def test_holes_of_load_and_prices_are_told(live):
    gateway, made = live
    made.step(at_day(gateway, 3))
    assert made.told.state == "planned" and not made.told.doubts
    del made.history.quarters[BEGIN + 86_400]
    rows = (made.prices / "de.csv").read_text().splitlines()
    rows[30] = rows[30].partition(",")[0] + ","
    (made.prices / "de.csv").write_text("\n".join(rows) + "\n")
    made.step(at_day(gateway, 3, 0.25))
    assert any("load_kw: 1 blank steps" in text for text in made.told.doubts)
    assert any("price: 4 blank steps" in text for text in made.told.doubts)


def test_carbon_comes_from_the_same_folder(live):
    gateway, made = live
    made.wishes = Wishes(carbon_eur_per_kg=5.0)
    made.step(at_day(gateway, 3))
    assert made.told.state == "no new plan" and "g_per_kwh" in made.told.text
    rows = [f"{datetime.fromtimestamp(BEGIN + 3600 * k, UTC):%Y-%m-%dT%H:%MZ},{900 if k % 24 == 8 else 100}"
            for k in range(24 * 8)]  # fmt: skip
    (made.prices / "z.csv").write_text("time_utc,g_per_kwh\n" + "\n".join(rows) + "\n")
    made.step(at_day(gateway, 3))
    assert made.told.state == "planned" and made.told.doubts == [], (made.told.text, made.told.doubts)
    assert made.made.plan.battery_kw[32:36].mean() > 15


def test_it_stands_back_from_a_persons_plan_and_comes_back(live):
    gateway, made = live
    gateway.refuse = ClientError("not-allowed", "the plan is uid:7's order", {"holder": "uid:7"})
    made.step(at_day(gateway, 3))
    assert made.told.state == "stands back" and made.told.failures == 0 and made.made is None
    gateway.refuse = ClientError("not-allowed", "that needs the role operate")
    made.step(at_day(gateway, 3, 0.25))
    assert made.told.state == "no new plan" and made.told.failures == 1
    gateway.refuse = None
    made.step(at_day(gateway, 3, 0.5))
    assert made.told.state == "planned"


def test_a_solver_that_gives_nonsense_or_nothing_sends_nothing(live, monkeypatch):
    gateway, made = live
    made.step(at_day(gateway, 3))
    good = made.made

    def nonsense(*words, **more):
        power = np.full(96, math.nan)
        return type(good)(**{**good.__dict__, "plan": type(good.plan)(**{**good.plan.__dict__, "discharge_kw": power})})

    def stopped(*words, **more):
        raise PlanError("no plan within 20 s: the one before stays in force until its own end")

    for broken in (nonsense, stopped):
        made._plan = broken
        made.step(at_day(gateway, 3, 0.5))
        assert made.told.state == "no new plan" and len(gateway.sent) == 1 and made.made is good


def test_a_restart_cuts_a_quarter_hour_and_says_so_and_nothing_is_read_twice(tmp_path):
    cut = BEGIN + 3600 * 30 + 400
    gateway = Gateway(boots=((BEGIN, cut), (cut + 60, 10**11)))
    history = SiteHistory(has_pv=False)
    gateway.now = BEGIN + 86_400 * 2 + 6
    history.catch_up(gateway, 1000)
    assert history.cut == 1 and len(history.quarters) == 2 * 96 - 1
    assert pytest.approx(history.quarters[BEGIN + 3600 * 31].load_kw * 1e3, abs=20) == 1e3 * 20
    path = tmp_path / "history.csv"
    write_history(path, history)
    again = read_history(path, has_pv=False)
    assert again.quarters.keys() == history.quarters.keys()
    assert again.quarters[BEGIN].load_kw == pytest.approx(20, abs=0.02)
    gateway.now += 900
    assert again.catch_up(gateway) <= 4 and len(again.quarters) == 2 * 96
    path.write_text("x\ny,z\n")
    with pytest.raises(PlanError, match=r"history\.csv"):
        read_history(path, has_pv=False)
    assert read_history(tmp_path / "none.csv", has_pv=True).quarters == {}


@pytest.mark.parametrize("jump_s", [-7200, 7200, 40 * 86_400])
def test_a_clock_that_is_set_is_followed_and_ends_nothing(live, jump_s):
    """The wall clock jumps between two looks: the next step is planned from the new time, by its quarter hours."""
    _, made = live
    moments = [BEGIN + 900.0 * k + jump_s * (k >= 3) + 10 for k in range(6)]
    stepped, stop = [], threading.Event()

    def step(now):
        stepped.append(now)
        made.told.state = "planned"

    def clock():
        if not moments:
            stop.set()
            return stepped[-1]
        return moments.pop(0)

    made.step = step
    live_planner.LOOK_S, kept = 0.0, live_planner.LOOK_S
    try:
        made.run(stop, lambda line: None, clock)
    finally:
        live_planner.LOOK_S = kept
    assert [now - jump_s * (k >= 2) for k, now in enumerate(stepped)] == [BEGIN + 900.0 * k + 10 for k in range(1, 6)]


def test_announced_jobs_are_placed_in_the_same_plan(live):
    gateway, made = live
    now = at_day(gateway, 3, 12)
    soon = AnnouncedJob("train", 10.0, 2.0, now, now + 18 * 3600, expected_utc_s=BEGIN + 3 * 86_400 + 17 * 3600)
    write_jobs(made.folder, (soon, AnnouncedJob("far", 5.0, 1.0, now + 90_000, now + 95_000)))
    made.step(now)
    assert made.told.state == "planned", made.told.text
    told = made.status()
    ((begin, end),) = told["jobs"][0]["runs_utc_s"]
    assert end - begin == 2 * 3600 and not any(17 <= (at - BEGIN) % 86_400 / 3600 < 20 for at in range(begin, end, 900))
    assert told["jobs"][0]["saves_eur"] > 1 and any("job far may begin only after" in text for text in told["doubts"])


def test_jobs_by_command(tmp_path):
    def run(*words):
        return CliRunner().invoke(plan, ["jobs", words[0], "--folder", str(tmp_path), *words[1:]])

    when = ("--earliest", "2025-03-10T10:00Z", "--deadline", "2025-03-11T06:00Z")
    assert run("add", "one", "--kw", "12", "--kwh", "24", *when).exit_code == 0
    assert run("add", "two", "--kwh", "30", "--hours", "3", "--interruptible", *when).exit_code == 0
    assert run("list").output.splitlines() == [
        "one: 12 kW for 2 h, 2025-03-10 10:00Z to 2025-03-11 06:00Z",
        "two: 10 kW for 3 h, in pieces, 2025-03-10 10:00Z to 2025-03-11 06:00Z",
    ]
    for words, code, said in (
        (("add", "one", "--kw", "1", "--hours", "1", *when), 65, "job one is there already"),
        (("add", "x", "--kw", "1", *when), 64, "two of --kw, --kwh and --hours"),
        (("add", "x", "--kw", "1", "--hours", "1", *when[:2], "--deadline", when[1]), 65, "the deadline is not after"),
        (("add", "x", "--kw", "1", "--hours", "1", "--deadline", "noon"), 64, "--deadline noon: is no time"),
        (("remove", "three"), 65, "job three is not there"),
    ):  # fmt: skip
        done = run(*words)
        assert done.exit_code == code and said in done.output
    hours = str(ROOT / "tests/data/planner/de_lu_gpu_room_2025H1.csv")
    site = str(ROOT / "config/sites/simulated.toml")
    done = CliRunner().invoke(plan, ["show", site, hours, "--now", "2025-03-10T14:00Z", "--jobs", str(tmp_path)])
    assert done.exit_code == 0 and "job one: " in done.output and "job two: " in done.output
    assert run("remove", "one").exit_code == 0 and run("list").output.startswith("two")


def test_a_backup_is_kept_for_as_long_as_was_asked_and_no_longer():
    storage = Storage(60, 30, 30, 1.0, 1.0, 0.05, 0.95)
    load, sun = np.full(24, 10.0), np.where(np.arange(24) >= 12, 10.0, 0.0)
    at = Horizon(0, 3600, load, sun, load, load, np.ones(24, dtype=bool))
    keep = backup_reserve(at, storage, 3.0, 0.5)
    assert keep[:9] == pytest.approx(3 + 3 * 5.0) and keep[9:13] == pytest.approx([3 + 10, 3 + 5, 3, 3])
    assert backup_reserve(at, storage, 48.0, 1.0).max() <= storage.most_kwh


def test_prices_of_hours_and_quarters_of_several_files(tmp_path):
    folder = tmp_path
    (folder / "a.csv").write_text("time_utc,price_eur_per_mwh\n2025-10-01T00:00Z,100\n2025-10-01T01:00Z,-50\n")
    (folder / "b.csv").write_text(
        "time_utc,price_eur_per_kwh\n2025-10-01T01:00Z,0.3\n2025-10-01T01:15Z,0.4\n2025-10-01T02:00Z,0.5\n"
    )
    begin = int(datetime(2025, 10, 1, tzinfo=UTC).timestamp())
    price, said = read_prices(folder, begin, 14, 900)
    assert price[:4] == pytest.approx(0.1) and price[4:9] == pytest.approx([0.3, 0.4, 0.4, 0.4, 0.5])
    assert np.isnan(price[9:]).all() and said == []
    (folder / "c.csv").write_text("time_utc,price_eur_per_kwh\n2025-10-01T01:00Z,0.3\n2025-10-01T00:00Z,0.4\n")
    (folder / "d.csv").write_text("price_eur_per_kwh\n0.3\n")
    again, said = read_prices(folder, begin, 14, 900)
    assert np.array_equal(again, price, equal_nan=True) and "row 3, time_utc" in said[0] and "row 1" in said[1]
    with pytest.raises(PlanError, match="is no folder"):
        read_prices(tmp_path / "none", begin, 14, 900)


def test_zeros_for_half_a_day_and_long_holes_are_doubted(tmp_path):
    rows = [f"2025-10-{1 + k // 24:02}T{k % 24:02}:00Z,0" for k in range(13)] + ["2025-10-01T20:00Z,100"]
    (tmp_path / "a.csv").write_text("time_utc,price_eur_per_mwh\n" + "\n".join(rows) + "\n")
    _, said = read_prices(tmp_path, int(datetime(2025, 10, 1, tzinfo=UTC).timestamp()), 96, 900)
    assert any("stands for 8 h" in text for text in said) and any("prices are 0 for 20 h" in text for text in said)


def test_forecasts_are_judged_by_the_day(tmp_path):
    diary = ForecastDiary(tmp_path / "forecasts.json")
    middle = np.arange(96.0)
    expected = Expected("blend", middle, middle - 1, middle + 1, np.zeros((1, 96)), {}, {})
    diary.expect("load", expected, 86_400, 900)
    diary.expect("load", expected, 86_400 + 900, 900)
    assert len(diary.waiting) == 1, "the first of a day is kept"
    actual = np.concatenate([middle[:48] + 0.5, middle[48:] + 5])
    diary.settle("load", 86_400, 900, actual, 2 * 86_400 - 1)
    assert not diary.errors, "the day is not over"
    diary.settle("load", 86_400, 900, actual, 2 * 86_400)
    (one,) = diary.errors
    assert one.covered == 0.5 and one.kendall_tau > 0.9 and one.steps == 96
    diary.write()
    assert ForecastDiary(diary.path).newest() == [one]
    diary.path.write_text("{")
    assert "are not known" in ForecastDiary(diary.path).lost


def test_metrics_are_what_prometheus_reads(live):
    gateway, made = live
    made.step(at_day(gateway, 3))
    text = metrics_text('a "site"', made.status())
    assert 'tidegate_planner_state{site="a \\"site\\"",state="planned"} 1' in text
    assert "tidegate_planner_plans_total" in text and f" {gateway.now}" in text
    if which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_an_adapter_doubts_stands_in_the_planner_s_status_and_so_does_its_silence(live):
    gateway, made = live
    write_doubts(made.folder, "gpu-caps", ["GPU GPU-cccc: its driver lets nobody set its power limit"])
    made.step(at_day(gateway, 3))
    assert "gpu-caps: GPU GPU-cccc: its driver lets nobody set its power limit" in made.status()["doubts"]
    count = len(made.status()["doubts"])
    assert f'tidegate_planner_doubts{{site="a"}} {count}' in metrics_text("a", made.status())
    os.utime(made.folder / "doubts-gpu-caps.json", (1e9, 1e9))
    assert any("is the adapter gpu-caps running?" in text for text in adapter_doubts(made.folder))
    (made.folder / "doubts-gpu-caps.json").write_text("{")
    assert any("is the adapter gpu-caps running?" in text for text in adapter_doubts(made.folder))
    end_doubts(made.folder, "gpu-caps")
    assert adapter_doubts(made.folder) == []


def test_the_price_like_signal_is_served_beside_the_metrics_once_there_is_a_plan(live):
    gateway, made = live
    server = serve_metrics("a", made.status, "127.0.0.1", 0)

    def fetch(path):
        return urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=30).read()

    try:
        with pytest.raises(urllib.error.HTTPError, match="no plan yet"):
            fetch("/advice")
        made.step(at_day(gateway, 3))
        signal = json.loads(fetch("/advice"))
        assert signal["step_s"] == 900 and len(signal["meter_eur_per_kwh"]) == 96 and signal["site"] == "a"
        assert signal["meter_eur_per_kwh"][0] == pytest.approx(signal["advice"]["eur_per_kwh"], abs=1e-5)
        assert b"tidegate_planner_plans_total" in fetch("/metrics")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch("/else")
    finally:
        server.shutdown()


def test_what_was_saved_is_measured_and_by_arithmetic(live):
    """One evening of the third day the battery gave 10 kW for an hour at 0.40 EUR, and took 12 kW at night for 0.05."""
    gateway, made = live
    made.wishes = Wishes(fees_eur_per_kwh=0.1, wear_eur_per_kwh=0.02)
    made.step(at_day(gateway, 3))
    assert made.saved[-1].eur == pytest.approx(0.0, abs=1e-6), "a battery at rest saves nothing"
    evening, night = BEGIN + 2 * 86_400 + 18 * 3600, BEGIN + 2 * 86_400
    for k in range(4):
        made.history.quarters[evening + 900 * k] = Quarter(35.0, 0.0, 25.0)
        made.history.quarters[night + 900 * k] = Quarter(20.0, 0.0, 32.0)
    made.step(at_day(gateway, 3, 0.25))
    days = {one.day: one for one in made.saved}
    assert days["2025-03-03"].eur == pytest.approx(10 * 0.5 - 12 * 0.15 - 10 * 0.02, abs=1e-3)
    assert days["2025-03-03"].quarters == 96 and "3.00 EUR on 2025-03-03" in made.status()["saved_line"]
    made.history.quarters[evening] = Quarter(35.0, 0.0, None)
    made.step(at_day(gateway, 3, 0.5))
    assert {one.day: one.quarters for one in made.saved}["2025-03-03"] == 95


def test_status_by_command(live):
    gateway, made = live
    said = CliRunner().invoke(planner, ["status", "--folder", str(made.folder)])
    assert said.exit_code == 69 and "no planner has planned here" in said.output
    made.step(at_day(gateway, 3))
    said = CliRunner().invoke(planner, ["status", "--folder", str(made.folder)])
    assert (
        said.exit_code == 0 and said.output.startswith("planned (2025-03-04 00:00:06Z)") and "advice: " in said.output
    )
