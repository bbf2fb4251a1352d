"""The what-if of the page's Plan screen: the page's process asks a planner on loopback, in a real browser too."""

import http.server
import shutil
import socket
import threading
from pathlib import Path

import pytest

from tests.runtime.planner.test_live_planner import Gateway, at_day, priced
from tests.runtime.web.conftest import PASSWORD, served
from tests.runtime.web.test_page_in_browser import FLAGS, SHOTS, WAIT_MS, violations
from tidegate.config.site import load_site
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, write_jobs
from tidegate.runtime.planner.day_ahead import Wishes
from tidegate.runtime.planner.live_planner import LivePlanner
from tidegate.runtime.planner.planner_metrics import serve_metrics
from tidegate.runtime.web.login_codes import Pairing

SITE = load_site(str(Path(__file__).parents[3] / "config/sites/simulated.toml"))
CHROMIUM = shutil.which("chromium")


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def page(core, tmp_path, port):
    with served(core, tmp_path, "--planner-port", str(port)) as made:
        yield made


@pytest.fixture
def planner(tmp_path, port):
    """A planner that has planned once: a load of 20 kW with 35 kW in the evening, and a job in its folder."""
    folder = tmp_path / "planner"
    folder.mkdir()
    gateway = Gateway()
    made = LivePlanner(gateway, SITE, priced(tmp_path), folder, Wishes())
    now = at_day(gateway, 3)
    write_jobs(folder, (AnnouncedJob("train", 12.0, 2.0, now, now + 3 * 3600),))
    made.step(now)
    assert made.told.state == "planned", made.told.text
    server = serve_metrics("a", made.status, "127.0.0.1", port, made.what_if)
    yield made
    server.shutdown()
    server.server_close()


def test_both_plans_come_from_the_planner_itself_and_nothing_is_sent(page, planner):
    reader = page.visitor("berta")
    sent = len(planner.client.sent)
    status, _, body = reader.ask("/plan/what-if?peak_limit_kw=30&jobs_later_h=")
    assert status == 200, body
    assert body["if"]["import_kw_max"] <= 30.001 < body["as_it_is"]["import_kw_max"]
    assert body["if"]["cost_eur"] >= body["as_it_is"]["cost_eur"] - 1e-3, "a limit is never a gain"
    assert body["end_utc_s"] - body["start_utc_s"] == 86_400 and body["relaxed_if"] == []
    later = reader.ask("/plan/what-if?jobs_later_h=12")[2]
    assert later["if"]["cost_eur"] <= later["as_it_is"]["cost_eur"] + 1e-3, "time is never a loss"
    tight = reader.ask("/plan/what-if?peak_limit_kw=5")[2]
    assert any("cannot be held" in text for text in tight["relaxed_if"])
    assert tight["if"]["cost_eur"] < 2 * tight["as_it_is"]["cost_eur"], "what passing a limit counts is on no bill"
    assert len(planner.client.sent) == sent


REFUSED = {
    "": "what is to be otherwise",
    "peak_limit_kw=0": "what is to be otherwise",
    "peak_limit_kw=-1": "give a number from 0",
    "peak_limit_kw=nan": "give a number from 0",
    "jobs_later_h=1e9": "from 0 to 168",
    "peak_limit_kw=sixty": "write numbers",
    "power=60": "a what-if has peak_limit_kw and jobs_later_h",
}


def test_what_cannot_be_asked_is_refused_with_the_remedy_and_one_question_is_asked_at_a_time(page, planner):
    reader = page.visitor("berta")
    for query, said in REFUSED.items():
        status, _, body = reader.ask(f"/plan/what-if?{query}")
        assert status == 400 and said in body["text"], query
    with planner._asking:
        body = reader.ask("/plan/what-if?peak_limit_kw=30")[2]
    assert "another question is being worked out" in body["text"]


def test_without_a_planner_that_answers_the_page_says_so(page, port):
    assert page.visitor().ask("/plan/what-if?peak_limit_kw=30")[0] == 401
    reader = page.visitor("berta")
    status, _, body = reader.ask("/plan/what-if?peak_limit_kw=30")
    assert status == 503 and f"no planner answers at 127.0.0.1:{port}" in body["text"]

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", port), Foreign) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, _, body = reader.ask("/plan/what-if?peak_limit_kw=30")
        server.shutdown()
    assert status == 503 and "is that a planner?" in body["text"]


def test_a_planner_without_a_plan_says_so(page, tmp_path, port):
    (tmp_path / "planner").mkdir()
    made = LivePlanner(Gateway(), SITE, priced(tmp_path), tmp_path / "planner", Wishes())
    server = serve_metrics("a", made.status, "127.0.0.1", port, made.what_if)
    body = page.visitor("berta").ask("/plan/what-if?peak_limit_kw=30")[2]
    server.shutdown()
    server.server_close()
    assert "there is no plan yet" in body["text"]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.timeout(600)
def test_the_plan_screen_asks_and_shows_both_in_every_language(page, planner):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        tab = browser.new_context(ignore_https_errors=True, locale="en-GB").new_page()
        tab.set_default_timeout(WAIT_MS)
        tab.goto(f"https://127.0.0.1:{page.port}/#pair={Pairing(page.state / 'web').make('maintain')}")
        for place, text in (("#user", "anna"), ("#password", PASSWORD), ("#again", PASSWORD)):
            tab.fill(place, text)
        tab.click("button.main")
        tab.wait_for_selector("nav a[aria-current]")
        for language, width, asked in (("en", 1440, "30"), ("zh", 320, "30"), ("de", 768, "5")):
            tab.select_option("#language", language)
            tab.wait_for_function("language => document.documentElement.lang === language", arg=language)
            tab.evaluate("() => { location.hash = 'now'; }")
            tab.wait_for_selector("nav a[href='#now'][aria-current]")
            tab.evaluate("() => { location.hash = 'plan'; }")
            tab.fill("#if-peak", asked)
            tab.set_viewport_size({"width": width, "height": 900})
            tab.click("#what-if button")
            tab.wait_for_selector("#what-if td >> nth=15")
            cells = [one.inner_text() for one in tab.query_selector_all("#what-if td")]
            assert len(cells) == 16
            over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, f"{language} is wider than the window by {over}"
            assert ("cannot be held" in tab.inner_text("#what-if")) == (asked == "5")
            violations(tab, f"what-if {language}")
            tab.screenshot(path=SHOTS / f"what-if-{language}-{width}.png", full_page=True)
        browser.close()
