"""The demo as a command: the run in virtual time end to end, and input that it must refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tidegate.config.site import load_site
from tidegate.hal.sim.trace import TraceError, read_trace
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.cli import demo_command
from tidegate.runtime.cli.demo_command import demo, demo_site
from tidegate.runtime.demo.demo_subject import largest_load_w, subject_of
from tidegate.runtime.demo.virtual_run import Trace, trace_of


@pytest.fixture
def site(tmp_path):
    """The demo's site with a short trace of its own: quiet, a step over the limit, quiet."""
    folder = tmp_path / "site"
    shutil.copytree(demo_site().parent, folder)
    text = (folder / "site.toml").read_text(encoding="utf-8")
    rows = [f"{t},{50_000 if 60 <= t < 120 else 21_000}" for t in range(0, 240, 2)]
    (folder / "trace.csv").write_text("t_s,power_w_filled\n" + "\n".join(rows) + "\n", encoding="utf-8")
    trace = "smc_h100_9node_unet3d_20240509_2s.csv"
    (folder / "site.toml").write_text(text.replace(trace, "trace.csv"), encoding="utf-8")
    return folder


def run(site: Path, out: Path, *words: str):
    return CliRunner().invoke(demo, ["--no-live", "--site", str(site / "site.toml"), "--out", str(out), *words])


def test_the_whole_run_ends_with_a_report_and_a_ledger_that_verifies(site, tmp_path):
    result = run(site, tmp_path / "out")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["carbon"]["balance_error_ug"] == 0
    above = summary["virtual"]["energy_above_limit_wh"]
    assert above["with"] < above["without"] / 10
    assert summary["virtual"]["violations"] == dict.fromkeys(summary["virtual"]["violations"], 0)
    assert verify(Ledger(tmp_path / "out" / "ledger.db", read_only=True)) == []
    assert "report" in result.output and (tmp_path / "out" / "report.html").stat().st_size > 50_000
    # The registers of the simulated meters and the plant's own totals agree.
    assert summary["carbon"]["it_wh"] == pytest.approx((180 * 21 + 60 * 50) / 3.6, rel=0.02)


def test_the_same_seed_gives_the_same_stream_ledger_and_numbers(site, tmp_path):
    found = []
    for name in ("1", "2"):
        assert run(site, tmp_path / name).exit_code == 0
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        for key in ("wall_s", "cpu_s", "speed_x_realtime"):
            summary["virtual"].pop(key)
        bodies = [e.body for e in Ledger(tmp_path / name / "ledger.db", read_only=True).entries("period")]
        found.append((summary, bodies))
    assert found[0] == found[1]


def subject(path: Path):
    site = load_site(path)
    return subject_of(site, trace_of(site))


def test_the_shipped_trace_is_described_and_another_is_only_named(site, tmp_path):
    shipped, other = subject(demo_site()), subject(site / "site.toml")
    assert (
        "72 H100" in shipped.title and "8 H100 each" in shipped.load and shipped.recorded_utc and not shipped.cautions
    )
    assert "30 kW / 60 kWh" in shipped.cabinet and "immersion" in shipped.cooling and shipped.factors.startswith("GB")
    for words in (other.title, other.load, other.scope):
        assert "trace.csv" in words and not {"H100", "measured", "immersion-cooled"} & set(words.split())
    assert other.recorded_utc is None
    result = run(site, tmp_path / "out", "--quick")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (
        not any(words in page + result.output for words in ("H100", "MLCommons"))
        and "by nmpowell" in page
        and "trace.csv" in result.output
        and summary["cautions"] == []
    )
    assert summary["carbon"]["grid_import_simulated_wh"] == pytest.approx(summary["carbon"]["grid_import_wh"], rel=0.01)


@pytest.mark.parametrize("mean_s", [1.0, 7.0, 100.0, 1e4])
def test_the_largest_load_counts_the_cooling_s_share_of_the_running_mean(mean_s):
    """Beside arithmetic second by second."""
    rng = np.random.default_rng(int(mean_s))
    t_s = np.cumsum(rng.integers(1, 9, 120)).astype(float)
    power = rng.uniform(10e3, 90e3, 120)
    trace = Trace(Path("x.csv"), "w", t_s - t_s[0], power, "")
    seconds = np.arange(int(trace.t_s[-1]) + 1)
    each = power[np.searchsorted(trace.t_s, seconds, side="right") - 1]
    running = np.concatenate([np.full(int(mean_s), power[0]), each[:-1]])
    means = np.array([running[k : k + int(mean_s)].mean() for k in range(len(seconds))])
    before = np.concatenate([[power[0]], each[:-1]])
    plain = (np.maximum(each, before) + 0.2 * means).max()
    assert largest_load_w(trace, 0.2, mean_s) == pytest.approx(plain)
    assert largest_load_w(trace, 0.0, mean_s) == power.max() < plain


def test_a_load_that_only_its_cooling_takes_beyond_limit_and_battery_is_named(site):
    """50 kW of servers are within what limit and battery have, with their cooling they are not."""
    path = site / "site.toml"
    read = load_site(path)
    can_w = read.control.peak_w_max + sum(one.discharge_w_max for one in read.storage)
    largest_w = float(trace_of(read).power_w.max())
    assert not subject(path).cautions and largest_w < can_w
    share = min(1.0, 1.2 * (can_w / largest_w - 1))
    text = path.read_text(encoding="utf-8").replace("cooling_mean_s = 600", "cooling_mean_s = 1.0")
    path.write_text(text.replace("cooling_share = 0.08", f"cooling_share = {share:.3f}"), encoding="utf-8")
    (told,) = subject(path).cautions
    assert "its cooling included, are more than limit and battery together" in told


def test_the_part_of_the_trace_that_the_site_file_names_is_replayed(site, monkeypatch):
    path = site / "site.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed = 1\n", "seed = 1\nstart_s = 40\nlength_s = 90\n"))
    trace = trace_of(load_site(path))
    began = []
    monkeypatch.setattr(
        "tidegate.runtime.demo.live_run.live_site", lambda site, start_s, seconds: began.append(start_s)
    )
    monkeypatch.setattr("tidegate.runtime.demo.live_run.run_live", lambda *_: 1 / 0)
    CliRunner().invoke(demo, ["--site", str(path), "--out", str(site / "out")])
    assert began == [40.0 + trace.steepest_s()]  # the live act cuts the file, not what was cut of it
    assert trace.seconds == 90.0 and trace.power_w[0] == 21e3 and trace.power_w[trace.t_s >= 20.0][0] == 50e3


def test_what_makes_a_figure_doubtful_is_told_at_the_end_in_the_summary_and_on_the_page(site, tmp_path):
    """A load far beyond every meter's range with a gap in it, and factors of another year."""
    rows = [f"{t},{3e8 if t > 20 else 2e4}" for t in (*range(0, 60, 2), *range(120, 240, 2))]
    (site / "trace.csv").write_text("t_s,power_w_filled\n" + "\n".join(rows) + "\n", encoding="utf-8")
    factors = site / "gb_national_30min_20230314.csv"
    factors.write_text(factors.read_text(encoding="utf-8").replace("2023-", "2021-"), encoding="utf-8")
    result = run(site, tmp_path / "out")
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "out" / "summary.json").read_text())["cautions"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in (
        "62 s, from 58 s of the replay on",
        "no controller holds the limit",
        "of the 1",
        "was not in operation",
        "fallback factor",
    ):
        (caution,) = [one for one in told if words in one]
        assert f"caution     {caution}" in result.output and words in page, words
    assert len(told) == 5 and "not defined, no IT energy" in result.output


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0,100", "2,100"], "give a longer trace"),
        (["0,100"], "give a longer trace"),
        ([], "expected a header row and at least one"),
        (["0,100", "200,-5"], "line 3, power_w_filled: -5 W is below 0 W: a load takes power"),
    ],
)
def test_a_trace_that_is_no_load_or_too_short_is_refused(site, tmp_path, rows, words):
    (site / "trace.csv").write_text("\n".join(["t_s,power_w_filled", *rows]) + "\n", encoding="utf-8")
    result = run(site, tmp_path / "out")
    assert result.exit_code == demo_command.EXIT_CONTENT and words in result.output and "Traceback" not in result.output


def test_a_file_with_a_byte_order_mark_is_read_and_other_separators_are_named(tmp_path):
    path = tmp_path / "load.csv"
    path.write_text("t_s,w\n0,1\n", encoding="utf-8-sig")
    assert read_trace(path, "w")[1].tolist() == [1.0]
    path.write_text("t_s;w\n0;1\n", encoding="utf-8")
    with pytest.raises(TraceError, match="its fields stand between ';', commas are read"):
        read_trace(path, "w")


@pytest.mark.parametrize(
    ("row", "words"),
    [("62,", "is blank; fill the gap"), ("62,high", "'high' is not a number"), ("62,nan", "is not a finite number")],
)
def test_a_trace_with_a_gap_or_text_is_refused_by_line_and_nothing_starts(site, tmp_path, row, words, monkeypatch):
    monkeypatch.setattr("tidegate.runtime.demo.virtual_run.run_whole", None)
    text = (site / "trace.csv").read_text(encoding="utf-8")
    (site / "trace.csv").write_text(text.replace("62,50000", row), encoding="utf-8")
    result = run(site, tmp_path / "out")
    assert result.exit_code == demo_command.EXIT_CONTENT
    assert "trace.csv: line 33" in result.output and words in result.output and "nothing was started" in result.output
    assert not (tmp_path / "out").exists()


def test_a_site_with_an_unknown_key_is_refused(site, tmp_path):
    with (site / "site.toml").open("a", encoding="utf-8") as file:
        file.write("\n[colour]\nred = 1\n")
    result = run(site, tmp_path / "out")
    assert result.exit_code != 0 and "colour" in result.output
    assert not (tmp_path / "out").exists()


def test_factors_that_cannot_be_used_are_refused_before_anything_starts(site, tmp_path):
    path = site / "gb_national_30min_20230314.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("57,68.0", "57,many"), encoding="utf-8")
    result = run(site, tmp_path / "out")
    assert result.exit_code == demo_command.EXIT_CONTENT and "line 2: 'many' is not a number" in result.output
