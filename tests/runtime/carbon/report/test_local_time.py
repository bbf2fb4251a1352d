"""Days and months of the place, and a span that is not there as a whole."""

import json
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.sidecar.test_service import HOUR, Journal, journal, sidecar
from tidegate.runtime.carbon.factors.series import parse_time
from tidegate.runtime.carbon.report.local_time import day_start, month_of, next_day, shown, span_of
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.carbon.sidecar.service import catch_up
from tidegate.runtime.cli.carbon_commands import carbon


def at(text):
    return parse_time(text, "test")


@pytest.mark.parametrize(
    ("text", "zone", "start", "end"),
    [
        ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # 23 hours
        ("2026-10-25", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # 25 hours
        ("2026-03", "Europe/Berlin", "2026-02-28T23:00Z", "2026-03-31T22:00Z"),
        ("2026", "Asia/Shanghai", "2025-12-31T16:00Z", "2026-12-31T16:00Z"),
        ("2026-12", "America/New_York", "2026-12-01T05:00Z", "2027-01-01T05:00Z"),
        ("2026-03-14", "UTC", "2026-03-14T00:00Z", "2026-03-15T00:00Z"),
    ],
)
def test_a_span_of_the_place_is_worked_out_in_utc(text, zone, start, end):
    assert span_of(text, zone) == (at(start), at(end))


def test_every_moment_lies_in_its_local_day_and_month():
    berlin = ZoneInfo("Europe/Berlin")
    moment = at("2025-12-31T20:00Z")
    for _ in range(24 * 400):
        first = day_start(moment, berlin)
        assert first <= moment < next_day(first, berlin) and month_of(moment, berlin)[0] <= first
        assert shown(first, "%H:%M", berlin) == "00:00"
        moment += 3600
    assert next_day(day_start(HOUR, UTC), UTC) - day_start(HOUR, UTC) == 86_400


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "../../etc/passwd", ""])
def test_a_zone_that_is_none_is_refused_with_the_remedy(zone, tmp_path):
    with pytest.raises(ValueError, match="is no zone that is known here; write it like Europe/Berlin"):
        span_of("2026-03", zone)


def test_a_report_of_a_local_day_verifies_and_says_first_what_is_missing(tmp_path):
    one = sidecar(tmp_path / "l.db")
    catch_up(one, Journal(journal(3700, step_s=5)))
    one.commit()
    one.ledger.close()
    words = ["report", str(tmp_path / "l.db"), "--span", shown(HOUR, "%Y-%m-%d", ZoneInfo("Asia/Shanghai")), "--zone",
             "Asia/Shanghai", "--no-pdf", "--out", str(tmp_path / "r")]  # fmt: skip
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "r" / "report.json").read_text())
    assert said["span"]["zone"] == "Asia/Shanghai" and said["span"]["not_booked_s"] == 86_400 - 3600
    page = (tmp_path / "r" / "report.en.html").read_text()
    first = page.split('<p class="note">', 1)[1].split("</p>", 1)[0]
    assert "not booked: 23.00 h" in first and first.index("not booked") < first.index("booked ·")
    assert "substituted: " in page and "Gaps and substituted values: none" not in page
    verify = CliRunner().invoke(
        carbon, ["verify", str(tmp_path / "l.db"), "--report", str(tmp_path / "r" / "report.json")]
    )
    assert verify.exit_code == 0, verify.output


def test_a_span_that_is_there_as_a_whole_says_nothing_of_the_kind(tmp_path):
    one = sidecar(tmp_path / "l.db")
    catch_up(one, Journal(journal(5400, step_s=5)))
    one.commit()
    write(one.ledger, HOUR + 900, HOUR + 3600, tmp_path / "r", pdf=False)
    assert "not booked" not in (tmp_path / "r" / "report.en.html").read_text()
