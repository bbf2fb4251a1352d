"""The page of a fleet in a real browser: worst first, alarms, the account, one site; every width; silence is shown."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runtime.carbon.ledger.conftest import new_database, server  # noqa: F401
from tests.runtime.fleet.conftest import Unit
from tests.runtime.fleet.many_sites import DAY_S, METHOD, Site
from tests.runtime.web.conftest import PASSWORD, Visitor
from tests.runtime.web.test_page_in_browser import CHROMIUM, FLAGS, SHOTS, violations
from tidegate.runtime.carbon.ledger.signing import sign
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.ledger_batch import Row
from tidegate.runtime.fleet.site_condition import Condition, Minute
from tidegate.runtime.web.login_codes import Pairing

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(600),
]
WIDTHS = (320, 1440)
READY = {"sites": "table", "alarms": "table", "account": "dl", "site=hall": "svg.chart"}


class FleetPage:
    """A hub's database with some sites, and the page's process."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.store = folder / "hub", HubStore(url)
        self.folder.mkdir()
        (self.folder / "hub.json").write_text(json.dumps({"database": url}))
        self.day_utc_s = int(time.time()) // DAY_S * DAY_S - DAY_S
        self.fill(folder)
        words = ["hub", "page", "--folder", str(self.folder), "--port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.runtime.cli", *words],
            env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        found = re.search(r"https://127\.0\.0\.1:(\d+)", line)
        assert found, line + self.process.stdout.read()
        self.port, self.ca = int(found[1]), self.folder / "web" / "ca.pem"

    def fill(self, folder: Path):
        """Four sites: one with an alarm and a wrong clock, one that is fine, one with a finding, one never heard."""
        now_s = int(time.time())
        for number, name in enumerate(("hall", "yard", "pier")):
            one = Unit(folder, name)
            one.ledger.append([("method", self.day_utc_s, METHOD)])
            Site(name, number).write(one.ledger, 1, self.day_utc_s)
            sign(one.ledger, one.key, name, least=1)
            self.store.enrol(name, one.key.public)
            self.store.place(
                name,
                "North Ltd",
                f"SE{number + 3}",
                59_330_000 - 900_000 * number,
                18_070_000 - 2_000_000 * (number == 1),
            )
            rows = [Row(*row) for row in one.rows()]
            assert self.store.take(name, rows, b"")[1] is None
        alarm = {"id": "bms_silent", "text": "the BMS is silent", "reaction": "zero", "unit": "cabinet"}
        start = now_s // 60 * 60 - 7200
        minutes = [
            Minute(start + 60 * n, {"site.grid_w": (1e3 * (n % 40), -2e4, 4e4, 60), "bms1.soc": (0.5, 0.4, 0.6, 60)})
            for n in range(110) if not 40 < n < 50
        ]  # fmt: skip
        events = [{"boot": "b", "seq": n, "utc_ns": (start + n) * 10**9, "event": "fault_on", "name": "bms_silent"}
                  for n in range(5)]  # fmt: skip
        now = {"version": "0.1.0", "mode": "run", "utc_sync": "S", "certificate_until_utc_s": now_s + 300 * DAY_S}
        self.store.take_condition(Condition("hall", {**now, "utc_s": now_s - 5000, "alarms": [alarm]}, events, minutes))
        self.store.take_condition(Condition("yard", {**now, "utc_s": now_s}))
        self.store.take("pier", [Row(500, "note", 0, "{}", "0" * 64)], b"x")
        self.store.enrol("dock", "0" * 64)

    def close(self):
        self.process.terminate()
        try:
            assert self.process.wait(60) == 0, self.process.stdout.read()
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.store.close()


@pytest.fixture(scope="module")
def fleet_page(server, tmp_path_factory):  # noqa: F811
    made = FleetPage(tmp_path_factory.mktemp("fleet"), new_database(server))
    yield made
    made.close()


def test_the_page_only_reads_and_only_for_those_who_are_let_in(fleet_page):
    stranger = Visitor(fleet_page.port, fleet_page.ca)
    for path in ("/fleet", "/fleet/site?name=hall", "/fleet/account?month=2026-10"):
        assert stranger.ask(path)[0] == 401, path
    assert stranger.ask("/")[0] == 200
    for path in ("/orders/prepare", "/session/arm", "/api/v1/set", "/fleet"):
        assert stranger.ask(path, {})[0] in (404, 405), path
    code = Pairing(fleet_page.folder / "web").make("maintain")
    assert stranger.ask("/session/pair", {"code": code, "user": "ola", "password": PASSWORD})[0] == 200
    status, _, body = stranger.ask("/fleet")
    assert status == 200 and body["count"] == 4 and body["counts"] == {"high": 2, "medium": 1, "low": 0, "fine": 1}
    rows = {row["site"]: row for row in body["sites"]}
    assert [row["site"] for row in body["sites"]] == ["hall", "pier", "dock", "yard"]
    assert [reason[1] for reason in rows["hall"]["reasons"]] == ["alarm", "clock"]
    assert rows["hall"]["clock_off_s"] <= -5000 and rows["pier"]["reasons"][0][1] == "finding"
    assert "withheld" in rows["pier"]["reasons"][0][2] and rows["dock"]["reasons"][0][1] == "never"
    assert stranger.ask("/fleet?find=YARD")[2]["found"] == 1
    assert body["alarms"] == [["hall", "high", "alarm", "the BMS is silent", 0]]
    assert stranger.ask("/fleet/site?name=nowhere")[0] >= 400
    status, _, one = stranger.ask("/fleet/site?name=pier")
    assert status == 200 and one["letters"][0][2] == "withheld" and one["minutes"] == []
    for month, code in (("2026-13", 400), ("x", 400), ("1999-01", 503)):
        assert stranger.ask(f"/fleet/account?month={month}")[0] == code, month


def test_every_screen_at_every_width(fleet_page):
    SHOTS.mkdir(parents=True, exist_ok=True)
    month = time.strftime("%Y-%m", time.gmtime(fleet_page.day_utc_s))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        tab = browser.new_context(ignore_https_errors=True, locale="en-GB").new_page()
        tab.set_default_timeout(60_000)
        complaints = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        code = Pairing(fleet_page.folder / "web").make("maintain")
        tab.goto(f"https://127.0.0.1:{fleet_page.port}/#pair={code}")
        for field, text in (("#user", "eva"), ("#password", PASSWORD), ("#again", PASSWORD)):
            tab.fill(field, text)
        tab.click("button.main")
        tab.wait_for_selector("nav a[aria-current]")
        for turn, (screen, ready) in enumerate(READY.items()):
            tab.emulate_media(color_scheme=("light", "dark")[turn % 2])
            tab.evaluate("screen => { location.hash = screen; }", screen)
            if screen == "account":
                tab.wait_for_selector("#month")
                tab.fill("#month", month)
            tab.wait_for_selector(ready, state="attached")
            tab.wait_for_function(
                "screen => document.getElementById('main').dataset.ready === `#${screen}`", arg=screen
            )
            for language in ("zh", "de", "en"):
                tab.select_option("#language", language)
                tab.wait_for_function("one => document.documentElement.lang === one", arg=language)
                tab.wait_for_selector(ready, state="attached")
                for width in WIDTHS:
                    what = f"fleet-{screen.replace('=', '-')}-{language}-{width}"
                    tab.set_viewport_size({"width": width, "height": 900})
                    over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    assert over <= 0, f"{what} is wider than the window by {over}"
                    if language == "en":
                        violations(tab, what)
                        tab.screenshot(path=SHOTS / f"{what}.png", full_page=True)
        assert tab.evaluate("document.querySelectorAll('svg.chart path.s-trace').length") >= 3  # holes are holes
        assert complaints == []
        # A hub that stands still is not shown as one that answers.
        tab.evaluate("location.hash = 'sites'")
        tab.wait_for_selector("svg[role=img]")
        tab.context.set_offline(True)
        tab.wait_for_function("() => document.getElementById('banner').textContent.includes('does not answer')")
        violations(tab, "fleet-silent")
        browser.close()
