"""The demo as a command: the run in virtual time end to end, and input that it must refuse."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.cli import demo_command
from tidegate.runtime.cli.demo_command import demo, demo_site


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
