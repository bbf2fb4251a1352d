"""The first hour in a browser, to its end: init on simulated buses, doctor, commission with a signed report."""

import os
import re
import subprocess
import sys
import time

import pytest

from tests.runtime.web.conftest import PASSWORD, WAIT_S
from tests.runtime.web.test_page_in_browser import CHROMIUM, FLAGS, SHOTS, WAIT_MS, violations

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(900),
]
JOB_MS = 280_000  # a command of its own, on a machine that others use
UNCLEAR_MAX = 3  # on a busy machine a reading may come too late for a step; the page says to do it again
ANSWERS = {"serial": "buses/meters buses/pcs", "can": "slcan:buses/bms", "energy_wh": "60000", "charge_w_max": "30000",
           "discharge_w_max": "30000", "connection_import_w_max": "60000", "peak_w_max": "50000"}  # fmt: skip


def command(folder, *words):
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(folder / "run"), "TIDEGATE_STATE_DIR": str(folder / "state"),
           "PYTHONUNBUFFERED": "1"}  # fmt: skip
    how = {"cwd": folder, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-m", "tidegate.runtime.cli", *words], **how)


def line_with(process, pattern):
    said, until = "", time.monotonic() + WAIT_S
    while time.monotonic() < until and (line := process.stdout.readline()):
        said += line
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"no {pattern!r} in:\n{said}")


def ended(tab, words):
    """Wait until the command of these words has ended; (its code, what it printed)."""
    found = tab.wait_for_function(
        """words => {
        const one = [...document.querySelectorAll('main code')].find((code) => code.textContent.startsWith(words));
        const status = one?.closest('section').querySelector('[role=status]').textContent;
        return /code -?[0-9]+/.test(status ?? '') && [status, one.closest('section').querySelector('pre').textContent];
        }""",
        arg=words, timeout=JOB_MS,
    ).json_value()  # fmt: skip
    return int(re.search(r"code (-?\d+)", found[0])[1]), found[1]


def confirmed(tab, button, arms=False):
    tab.click(button)
    if arms:
        tab.fill("#arm-password", PASSWORD)
        tab.click("dialog button.main")
    tab.wait_for_selector("dialog button:has-text('Do it')")
    violations(tab, button)
    tab.click("dialog button:has-text('Do it')")
    tab.wait_for_function("() => /Done/.test(document.querySelector('dialog [role=status]').textContent)")
    tab.click("dialog button:has-text('Close')")


def test_init_doctor_and_commission_run_to_their_end_in_a_browser(tmp_path):
    going = [command(tmp_path, "simulate", "--at", "buses")]
    path = tmp_path / "hall.toml"
    try:
        line_with(going[0], "(simulated cabinet)")
        line_with(going[0], "(buses/bms)")
        going.append(command(tmp_path, "web", "serve", "--set-up", "--pair", "--port", "0", "hall.toml"))
        port = line_with(going[1], r"https://127\.0\.0\.1:(\d+)")
        code = line_with(going[1], r"code ([A-Z0-9]{5}-[A-Z0-9]{5}),")
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            phone = {"width": 390, "height": 844}
            tab = browser.new_context(ignore_https_errors=True, locale="en-GB", viewport=phone).new_page()
            tab.set_default_timeout(WAIT_MS)
            tab.goto(f"https://127.0.0.1:{port}/")
            for field, text in (("code", code), ("user", "anna"), ("password", PASSWORD), ("again", PASSWORD)):
                tab.fill(f"#{field}", text)
            tab.click("button.main")
            tab.click("main button:has-text('Set-up')")  # no site runs yet, and the page says so
            for name, text in ANSWERS.items():
                tab.fill(f"#init-{name}", text)
            confirmed(tab, "form button:has-text('Draft the site file')", arms=True)
            status, said = ended(tab, "tidegate init")
            assert status == 0 and "written and good" in said, said
            assert 'name = "hall"' in path.read_text()
            tab.wait_for_selector("textarea#site-text")  # the file that init wrote, without a reload
            assert tab.input_value("#site-text") == path.read_text()
            SHOTS.mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=SHOTS / "after-init-en-390.png", full_page=True)

            tab.click("button:has-text('tidegate doctor')")
            status, said = ended(tab, "tidegate doctor")
            assert status in (0, 1, 2) and re.search(r"\d+ ok, \d+ cost you something, \d+ to fix", said), said

            tab.click("summary:has-text('Commission')")
            tab.check("#commission-start")
            for _ in range(UNCLEAR_MAX):
                confirmed(tab, "form button:has-text('Commission')")
                status, said = ended(tab, "tidegate commission")
                if "unclear " not in said:
                    break
            tab.screenshot(path=SHOTS / "after-commission-en-390.png", full_page=True)
            assert "signed by" in said and "values written" in said, said
            violations(tab, "after commission")
            assert "The site says nothing" in tab.inner_text("#banner")
            over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0
            going.append(command(tmp_path, "run", "hall.toml", "--no-carbon"))
            line_with(going[-1], "(runs; core pid)")
            tab.click("nav a[href='#now']")  # the page that was opened before there was a site finds it
            tab.wait_for_function("() => !document.body.classList.contains('old') && document.querySelector('.number')")
            browser.close()
        assert "[commissioning]" in path.read_text()
        assert list((tmp_path / "state" / "hall" / "web").glob("commissioning-*.html"))
    finally:
        for one in reversed(going):
            one.terminate()
            one.communicate(timeout=120)
