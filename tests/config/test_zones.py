"""Time zones on a board that has no tz database: UTC is one all the same, others name what is missing."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib.resources import files

import pytest

from tidegate.config.zones import zone_of

WITHOUT_DATABASE = """
import sys, zoneinfo
sys.modules["tzdata"] = None
zoneinfo.reset_tzpath([])
from tidegate.config.site import SiteError, load_site
from tidegate.config.zones import zone_of
from pathlib import Path
site = Path(sys.argv[1])
print(load_site(str(site)).site.timezone)
site.write_text(site.read_text().replace("[site]", '[site]\\ntimezone = "Europe/Berlin"', 1))
try: load_site(str(site))
except SiteError as error: print(error)
"""


def test_utc_is_known_without_a_database_and_others_say_what_lacks(tmp_path):
    site = tmp_path / "board.toml"
    lines = files("tidegate.config").joinpath("sites/simulated.toml").read_text().splitlines()
    site.write_text("\n".join(line for line in lines if not line.startswith("timezone")))
    words = [sys.executable, "-c", WITHOUT_DATABASE, str(site)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env={"PYTHONTZPATH": ""})
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "UTC"
    assert any("'Europe/Berlin'" in line and "tzdata" in line for line in others), done.stdout


def test_a_zone_counts_as_its_name_says():
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert moment.astimezone(zone_of("UTC")).hour == 12 and str(zone_of("UTC")) == "UTC"
    assert moment.astimezone(zone_of("Europe/Berlin")).hour == 14


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc/passwd", "Europe", "a name!"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match=r"no zone that is known here.*tzdata"):
        zone_of(name)
