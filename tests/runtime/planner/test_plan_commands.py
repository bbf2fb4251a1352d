"""`tidegate plan`: its tables, its refusals, and a plan that a running site takes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from click.testing import CliRunner

from tidegate.config.site import load_site
from tidegate.runtime.api.connection import Point
from tidegate.runtime.api.messages import QUALITIES
from tidegate.runtime.cli import plan_commands
from tidegate.runtime.cli.plan_commands import plan
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, write_jobs
from tidegate.runtime.planner.hours_table import read_hours
from tidegate.runtime.planner.outlook import month_peak_kw, storage_of
from tidegate.runtime.planner.plan_inputs import PlanError

ROOT = Path(__file__).parents[3]
SITE = str(ROOT / "config/sites/simulated.toml")
HOURS = str(ROOT / "tests/data/planner/de_lu_gpu_room_2025H1.csv")
NOW = ("--now", "2025-03-10T14:00Z", "--fees", "0.13")
HEAD = "time_utc,load_kw,pv_kw,price_eur_per_kwh\n"


def run(*words):
    return CliRunner().invoke(plan, words)


def test_show_gives_each_hour_and_says_what_is_forecast():
    done = run("show", SITE, HOURS, *NOW)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert sum(line.startswith(("Mon 10 ", "Tue 11 ")) for line in lines) == 24
    assert "~ load from step 0 on is forecast by" in done.output and "cost " in lines[-1]


def test_the_same_as_json_holds_the_steps_that_are_sent():
    done = run("show", SITE, HOURS, *NOW, "--json")
    made = json.loads(done.stdout)
    assert len(made["battery_kw"]) == 24 and made["known_steps"] == {"load": 0, "pv": 0, "price": 24}
    assert made["steps"][0]["start_utc_s"] == made["start_utc_s"] and made["end_utc_s"] - made["start_utc_s"] == 86_400


def test_why_gives_a_sentence_with_its_figures():
    done = run("why", SITE, HOURS, "17:30", *NOW)
    assert done.exit_code == 0 and "discharges" in done.output and "a kWh at the meter is worth" in done.output
    assert "report this plan" not in done.output
    assert run("why", SITE, HOURS, "25:00", *NOW).exit_code == 64
    assert "not within the 2 hours" in run("why", SITE, HOURS, "09:00", *NOW, "--ahead", "2").output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column time_utc"),
        ("time_utc,load_kw\n", "has no column price_eur_per_kwh"),
        (HEAD + "2025-01-01T00:00Z,1,,1\n", "has 1 rows"),
        (HEAD + "2025-01-01T00:00Z,1,,1\nx,1,,1\n", "row 3, time_utc: 'x' is no time"),
        (HEAD + "2025-01-01T00:00,1,,1\n", "row 2, time_utc: '2025-01-01T00:00' has no offset"),
        (HEAD + "2025-01-01T00:00Z,1,,1\n2025-01-01T01:00Z,1;5,,1\n", "row 3, load_kw: '1;5' is no number"),
        (HEAD + "2025-01-01T00:00Z,inf,,1\n", "row 2, load_kw: 'inf' cannot be"),
        (HEAD + "2025-01-01T00:00Z,1,,1\n2025-01-01T00:07Z,1,,1\n", "row 3 comes 420 s after"),
        (HEAD + "2025-01-01T00:00Z,1,,1\n2025-01-01T01:00Z,1,,1\n2025-01-01T03:00Z,1,,1\n", "row 4 comes 7200 s after"),
        (HEAD + "2025-01-01T00:00Z,1,,1\n2025-01-01T01:00Z,1,,1\n2025-01-01T01:00Z,1,,1\n", "row 4 comes 0 s after"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_is_refused_with_row_and_remedy(text, said, tmp_path):
    path = tmp_path / "hours.csv"
    path.write_text(text)
    done = run("show", SITE, str(path))
    assert done.exit_code == 65 and said in done.output and done.output.startswith("plan: ")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b"\x00" * 50, b"time_utc,load_kw,pv_kw,price_eur_per_kwh\r", b"[1,2]"]
)
def test_bytes_that_are_no_table_are_refused(data, tmp_path):
    path = tmp_path / "hours.csv"
    path.write_bytes(data)
    with pytest.raises(PlanError, match=r"hours\.csv"):
        read_hours(path)


def test_a_day_of_zero_prices_is_doubted_and_a_few_are_not(tmp_path):
    path = tmp_path / "hours.csv"
    for zeros, doubted in ((24, True), (3, False)):
        rows = [f"2025-01-{1 + k // 24:02}T{k % 24:02}:00Z,10,,{0 if k < zeros else 0.2}" for k in range(72)]
        path.write_text(HEAD + "\n".join(rows) + "\n")
        assert any("a feed that broke" in text for text in read_hours(path).doubts) == doubted


def test_too_little_past_is_refused():
    done = run("show", SITE, HOURS, "--now", "2025-01-01T05:00Z")
    assert done.exit_code == 65 and "at least 2 days before it" in done.output
    done = run("show", SITE, HOURS, "--now", "2031-01-01T05:00Z")
    assert done.exit_code == 65 and "reach up to it" in done.output


def test_a_backtest_shows_the_rules_beside_the_plan(tmp_path):
    path = tmp_path / "hours.csv"
    path.write_text("\n".join(Path(HOURS).read_text().splitlines()[: 1 + 24 * 10]) + "\n")
    done = run("backtest", SITE, str(path), "--warm", "8", "--every", "6", "--fees", "0.13")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["no", "clock", "2", "plan", "foresight"]
    assert "100.0%" in done.stdout.splitlines()[-1]
    assert run("backtest", SITE, str(path), "--warm", "30").exit_code == 65


def test_with_a_demand_charge_nothing_is_charged_above_the_months_own_peak():
    """A cheap hour would be worth a new peak to a plan that knows energy only."""
    made = {}
    for words in ((), ("--demand", "8")):
        done = run("show", SITE, HOURS, "--now", "2025-03-10T12:00Z", "--fees", "0.13", "--json", *words)
        assert done.exit_code == 0, done.output
        made[words] = json.loads(done.stdout)
    table = read_hours(Path(HOURS))
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime(2025, 3, 10, 12, tzinfo=UTC)
    peak_kw = month_peak_kw(table, now, berlin)
    march = table.step_at(datetime(2025, 2, 28, 23, tzinfo=UTC))
    assert peak_kw == max(table.load_kw[march : table.step_at(now)] - table.pv_kw[march : table.step_at(now)])
    plan = made["--demand", "8"]
    hours = zip(plan["import_kw"], plan["battery_kw"], strict=True)
    assert all(grid <= peak_kw + 0.01 for grid, battery in hours if battery < -0.01)
    assert max(plan["import_kw"]) <= max(made[()]["import_kw"]) + 0.01


class Site:
    """A client of a site whose state of charge is this."""

    def __init__(self, soc, quality):
        self.point = Point(soc, quality)

    def get(self, name):
        return {name: self.point}


@pytest.mark.parametrize(("soc", "quality"), [(None, "invalid"), (0.4, "stale")])
def test_no_plan_is_sent_from_a_guess_of_the_state_of_charge(soc, quality):
    with pytest.raises(SystemExit) as ended:
        plan_commands._soc_now(Site(soc, QUALITIES.index(quality)))
    assert ended.value.code == 69
    assert plan_commands._soc_now(Site(0.4, QUALITIES.index("good"))) == 0.4


def table_of(tmp_path, rows):
    path = tmp_path / "hours.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("command", ["show", "why"])
def test_blanks_of_the_past_are_told_and_those_to_come_are_not(command, tmp_path):
    rows = [f"2025-01-{1 + k // 24:02}T{k % 24:02}:00Z,{'' if k in (5, 6) or k >= 60 else 10},0,0.2" for k in range(72)]
    path = table_of(tmp_path, rows)
    words = ("14:00",) if command == "why" else ()
    done = run(command, SITE, str(path), *words, "--now", "2025-01-03T12:00Z", "--ahead", "6")
    assert done.exit_code == 0, done.output
    assert "load_kw: 2 blank steps stand as the value before them, at most 2 h on end" in done.output
    assert "pv_kw: " not in done.output


def test_a_hole_in_the_published_prices_is_told(tmp_path):
    rows = [f"2025-01-{1 + k // 24:02}T{k % 24:02}:00Z,10,0,{'' if 62 <= k < 65 else 0.2}" for k in range(72)]
    done = run("show", SITE, str(table_of(tmp_path, rows)), "--now", "2025-01-03T12:00Z", "--ahead", "6")
    assert done.exit_code == 0 and "price_eur_per_kwh: 3 blank steps" in done.output


def test_a_sun_that_is_blank_throughout_is_none_and_told(tmp_path):
    rows = [f"2025-01-{1 + k // 24:02}T{k % 24:02}:00Z,10,,0.2" for k in range(72)]
    done = run("show", SITE, str(table_of(tmp_path, rows)), "--now", "2025-01-03T12:00Z", "--ahead", "6")
    assert done.exit_code == 0 and "pv_kw is blank in every row: planned without sun" in done.output
    rows[3] = rows[3].replace(",,", ",1.5,")  # one value long ago: what the sun does now is not known
    done = run("show", SITE, str(table_of(tmp_path, rows)), "--now", "2025-01-03T12:00Z", "--ahead", "6")
    assert done.exit_code == 65 and "pv_kw: nothing is known of the last day" in done.output


def test_quarters_and_hours_in_one_table_are_spread_and_told(tmp_path):
    quarters = [f"2025-01-03T{k // 4:02}:{15 * (k % 4):02}Z,8,0,0.3" for k in range(96)]
    rows = [f"2025-01-{1 + k // 24:02}T{k % 24:02}:00Z,10,0,{0.1 + k / 1000}" for k in range(48)] + quarters
    table = read_hours(table_of(tmp_path, rows))
    assert table.step_s == 900 and len(table.load_kw) == 48 * 4 + 96
    assert table.price_eur_per_kwh[4 * 7 : 4 * 8] == pytest.approx(0.107) and table.load_kw[4 * 48] == 8
    assert any("48 of 144 rows are longer than 900 s" in text for text in table.doubts)


@pytest.mark.parametrize(("begin", "hours", "day"), [("2025-03-30", 23, "+01:00"), ("2025-10-26", 25, "+02:00")])
def test_local_days_of_23_and_25_hours_are_read_whole(begin, hours, day, tmp_path):
    zone = ZoneInfo("Europe/Berlin")
    first = int(datetime.fromisoformat(f"{begin}T00:00{day}").timestamp())
    next_day = (datetime.fromisoformat(begin).day + 1) % 32 or 1
    local = [datetime.fromtimestamp(first + 3600 * k, zone) for k in range(hours + 1)]
    assert local[-1].hour == 0 and local[-1].day == next_day
    table = read_hours(table_of(tmp_path, [f"{at.isoformat()},{k},0,0.2" for k, at in enumerate(local)]))
    assert table.load_kw.tolist() == list(range(hours + 1)) and not table.doubts
    wall_clock = [f"{at:%Y-%m-%dT%H:%M}{day},1,0,0.2" for at in local]  # as if summer time did not exist
    with pytest.raises(PlanError, match="row"):
        read_hours(table_of(tmp_path, wall_clock))


def test_losses_and_wear_are_the_sites_or_those_given(tmp_path):
    """The site file's efficiencies; a spread that pays with them does not with twice the losses, nor with more wear."""
    site = tmp_path / "site.toml"
    site.write_text(Path(SITE).read_text() + "\n[carbon]\ncharge_efficiency = 0.9\ndischarge_efficiency = 0.8\n")
    storage = storage_of(load_site(str(site)))
    assert (storage.charge_efficiency, storage.discharge_efficiency) == (0.9, 0.8)
    moved = {}
    for words in (
        (),
        ("--wear", "0.5"),
        ("--efficiency", "30=0.5"),
        ("--efficiency", "5=0.7", "--efficiency", "20=0.97"),
    ):
        done = run("show", SITE, HOURS, *NOW, *words, "--json")
        assert done.exit_code == 0, done.output
        moved[words] = sum(abs(kw) for kw in json.loads(done.stdout)["battery_kw"])
    none, wear, losses, curve = moved.values()
    assert none > 10 and curve > 10 and wear < 1 and losses < none
    done = run("show", SITE, HOURS, *NOW, "--efficiency", "5")
    assert done.exit_code == 64 and "write KW=SHARE" in done.output
    assert "rising powers above 0" in run("show", SITE, HOURS, *NOW, "--efficiency", "-5=0.9").output


def test_carbon_has_a_price_of_its_own_and_is_named(tmp_path):
    """One price throughout: only carbon says when. Without --carbon nothing moves; without the column it is refused."""
    head = HEAD.replace("\n", ",g_per_kwh\n")
    rows = [f"2025-01-{1 + k // 24:02}T{k % 24:02}:00Z,20,0,0.2,{500 if k % 24 >= 16 else 100}" for k in range(120)]
    path = tmp_path / "hours.csv"
    path.write_text(head + "\n".join(rows) + "\n")
    moved = {}
    for words in ((), ("--carbon", "0.3"), ("--carbon", "0.01")):
        done = run("show", SITE, str(path), "--now", "2025-01-03T00:00Z", *words, "--json")
        assert done.exit_code == 0, done.output
        moved[words] = np.array(json.loads(done.stdout)["battery_kw"])
    assert abs(moved[()]).max() < 0.1
    assert moved["--carbon", "0.01"].min() > -0.1, "what losses and wear cost more than it saves is not charged for"
    dirty = moved["--carbon", "0.3"]
    assert dirty[16:].sum() > 10 and dirty[:16].min() < -5 and dirty[:16].max() < 0.1
    done = run("show", SITE, str(path), "--now", "2025-01-03T00:00Z", "--carbon", "0.3")
    assert "hold carbon at 0.3 EUR/kg: no bill has that" in done.output
    done = run("show", SITE, HOURS, *NOW, "--carbon", "0.3")
    assert done.exit_code == 65 and "no g_per_kwh is there" in done.output


def test_what_if_puts_the_plan_beside_the_one_under_another_limit_and_says_what_cannot_be_held(tmp_path):
    done = run("what-if", SITE, HOURS, *NOW, "--soc", "0.9", "--peak-limit", "36")
    assert done.exit_code == 0, done.output
    rows = {line[:22].strip(): [float(one) for one in line[22:].split()] for line in done.stdout.splitlines()[1:5]}
    one, two, more = rows["highest import, kW"]
    assert two <= 36.005 < one and more == pytest.approx(two - one, abs=0.011)
    assert rows["energy and peak, EUR"][1] >= rows["energy and peak, EUR"][0]  # a limit makes no plan cheaper
    done = run("what-if", SITE, HOURS, *NOW, "--peak-limit", "3")
    assert "\nif: the connection's import limit cannot be held" in done.output
    assert "\nas it is:" not in done.output
    write_jobs(tmp_path, (AnnouncedJob("late", 10.0, 3.0, 1741615200, 1741629600),))
    done = run("what-if", SITE, HOURS, *NOW, "--jobs", str(tmp_path), "--jobs-later", "12")
    one, two, _ = (float(text) for text in done.stdout.splitlines()[1][22:].split())
    assert two < one - 0.5, "work of 30 kWh that may wait for the night costs less"
    assert run("what-if", SITE, HOURS, *NOW).exit_code == 64
