"""What a page in a browser lives through: sleep, dead streams, restarts, two people, lost meters, long names."""

import asyncio
import contextlib
import re
import socket
import threading
from types import SimpleNamespace

import pytest

from tests.runtime.web.conftest import DESCRIBED, PASSWORD, WAIT_S, eventually, fault, served
from tests.runtime.web.test_page_in_browser import CHROMIUM, FLAGS, SHOTS, WAIT_MS, violations
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.web.login_codes import Pairing
from tidegate.runtime.web.page_actions import PageActions, Wanted
from tidegate.runtime.web.web_sessions import Session

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(600),
]
LONG = "cabinet_of_the_second_hall_beside_the_transformer_station_north"
LIVE = "() => !document.body.classList.contains('old') && document.querySelector('.number')"
OLD = "() => document.body.classList.contains('old')"


@pytest.fixture
def browser():
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield made
        made.close()


class Proxy:
    """A way to the page whose connections can be made to carry nothing more, as after a phone's sleep or a lost NAT."""

    def __init__(self, port):
        self._to, self._held, self.taken = port, [], 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self.taken += 1
                far = socket.create_connection(("127.0.0.1", self._to), timeout=WAIT_S)
                gone = threading.Event()
                self._held.append((near, far, gone))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other, gone), daemon=True).start()

    @staticmethod
    def _carry(one, other, gone):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not gone.is_set():
                    other.sendall(data)
        if not gone.is_set():
            for end in (one, other):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def go_dead(self):
        """All connections that are open stay so and carry nothing; new ones are good."""
        for *_, gone in self._held:
            gone.set()

    def close(self):
        self._listening.close()
        for near, far, _ in self._held:
            near.close()
            far.close()


def entered(browser, page, user="anna", port=None, width=390, locale="en-GB"):
    """A tab of its own browser context in which somebody has just made a login."""
    context = browser.new_context(ignore_https_errors=True, locale=locale, viewport={"width": width, "height": 844})
    tab = context.new_page()
    tab.set_default_timeout(WAIT_MS)
    tab.goto(f"https://127.0.0.1:{port or page.port}/#pair={Pairing(page.state / 'web').make('maintain')}")
    for field, text in (("user", user), ("password", PASSWORD), ("again", PASSWORD)):
        tab.fill(f"#{field}", text)
    tab.click("button.main")
    tab.wait_for_function(LIVE)
    return tab


def armed(tab, button="Run"):
    """The dialog of an order, up to its confirmation."""
    tab.click(f"main button:has-text('{button}')")
    tab.fill("#arm-password", PASSWORD)
    tab.click("dialog button.main")
    tab.wait_for_selector("dialog button:has-text('Do it')")


def test_a_stream_that_died_in_silence_is_opened_anew(browser, page):
    proxy = Proxy(page.port)
    try:
        tab = entered(browser, page, port=proxy.port)
        proxy.go_dead()
        tab.wait_for_function(OLD)
        assert tab.inner_text("#banner") != ""
        tab.wait_for_function(LIVE)
        assert tab.inner_text("#banner") == ""
    finally:
        proxy.close()


def test_after_a_sleep_or_out_of_sight_no_number_is_live_before_a_new_one_has_come(browser, page):
    tab = entered(browser, page)
    page.process.send_signal(19)  # SIGSTOP: nothing comes any more
    try:
        # The monotonic clock of a phone stands still while it sleeps; its wall clock does not.
        seen = tab.evaluate("""async () => {
            const real = Date.now;
            Date.now = () => real() + 600000;
            await new Promise((done) => { setTimeout(done, 4000); });
            const said = [document.body.classList.contains('old'), document.getElementById('banner').textContent];
            Date.now = real;
            return said;
        }""")
        assert seen[0] and "old and struck through" in seen[1] and "load the page again" in seen[1], seen
    finally:
        page.process.send_signal(18)
    tab.wait_for_function(LIVE)
    # A tab that nobody sees gives its connection back, and one that comes back opens a fresh one.
    tab.clock.install()
    tab.reload()
    tab.wait_for_function(LIVE)
    began, over = [], []
    tab.on("request", lambda one: began.append(one) if "live?" in one.url else None)
    tab.on("requestfailed", lambda one: over.append(one) if "live?" in one.url else None)
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {configurable: true, value: hidden});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    tab.evaluate(hide, True)
    tab.clock.fast_forward(25_000)
    assert eventually(lambda: tab.wait_for_timeout(50) or over) and not began
    tab.evaluate(hide, False)
    assert eventually(lambda: tab.wait_for_timeout(50) or began)
    tab.wait_for_function(LIVE)
    tab.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    assert eventually(lambda: tab.wait_for_timeout(50) or len(began) == 2)
    tab.wait_for_function(LIVE)


def test_two_people_order_at_once_and_each_gets_an_answer(browser, page):
    anna, bert = entered(browser, page, "anna"), entered(browser, page, "bert")
    armed(anna)
    armed(bert)
    for tab in (anna, bert):
        tab.click("dialog button:has-text('Do it')")
    for tab in (anna, bert):
        tab.wait_for_function("() => document.querySelector('dialog [role=status]').textContent.length > 3")
        tab.click("dialog button:has-text('Close')")
    # Somebody's confirmation is of no use to somebody else, nor a second time.
    armed_again = anna.evaluate("""async () => {
        const how = {method: 'POST', headers: {'content-type': 'application/json'}, body: '{"action": "run"}'};
        return (await (await fetch('orders/prepare', how)).json()).token;
    }""")
    confirm = """async (token) => {
        const how = {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({token})};
        return (await (await fetch('orders/confirm', how)).json()).code ?? 'carried out';
    }"""
    assert bert.evaluate(confirm, armed_again) == "late"
    assert anna.evaluate(confirm, armed_again) == "carried out"
    assert anna.evaluate(confirm, armed_again) == "late"
    # A login that is taken ends the order that is on its screen.
    anna.click("main button:has-text('Run')")
    anna.wait_for_selector("dialog button:has-text('Do it')")
    assert page.command("revoke", "--login", "anna").returncode == 0
    anna.wait_for_selector("form #user")
    assert anna.locator("dialog[open]").count() == 0


def test_an_order_is_good_only_in_the_run_of_the_site_that_it_was_asked_in():
    live = SimpleNamespace(boot="a", state={}, site=None)
    actions = PageActions(SimpleNamespace(ask=asked_for), live)
    session = Session("s", "anna", "maintain", 0.0)
    run, again, stop = (actions.prepare(session, Wanted(action))["token"] for action in ("run", "run", "stop"))
    assert asyncio.run(actions.confirm(session, run)) == {"status": "applied"}
    live.boot = "b"
    with pytest.raises(Refused, match="restarted meanwhile"):
        asyncio.run(actions.confirm(session, again))
    assert asyncio.run(actions.confirm(session, stop)) == {"status": "applied"}, "a stop only makes things safer"


async def asked_for(op, **fields):
    return {"status": "applied"}


def test_a_lost_meter_is_neither_zero_nor_live_and_export_has_its_room(browser, core, tmp_path):
    core.describe["limits"] = {**core.describe.get("limits", {}), "connection_export_w_max": 10_000.0}
    with served(core, tmp_path) as page:
        tab = entered(browser, page)
        for watts, words in ((-4_000.0, "Room up to the export limit6.00 kW"),
                             (-12_000.0, "Above the export limit by2.00 kW")):  # fmt: skip
            page.core.values["site.grid_w"] = (watts, 1)
            pair = "`${one.innerText}${one.nextSibling.innerText}`"
            rows = "[...document.querySelectorAll('dt')]"
            tab.wait_for_function(f"words => {rows}.some((one) => {pair}.includes(words))", arg=words)
        violations(tab, "export above its limit")
        for name in list(page.core.values):
            page.core.values[name] = (0.0, 3)
        label = "document.querySelector('svg[role=img]').getAttribute('aria-label')"
        tab.wait_for_function(f"() => {label}.match(/not known/g)?.length >= 3")
        text = tab.inner_text("main").split("Why this setpoint")[0]
        assert not re.search(r"(?<!\d)0\.00 kW", text) and re.search(r"Limit in force\s+\u2013", text), text
        SHOTS.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=SHOTS / "lost-meter-390.png", full_page=True)


def test_long_names_in_german_fit_a_small_phone(browser, core, tmp_path):
    kept = dict(DESCRIBED)
    DESCRIBED["units"] = [{"name": LONG, "bms": "bms1", "pcs": "pcs1"}]
    DESCRIBED["devices"] = [{**one, "title": LONG, "name": f"{one['name']}"} for one in kept["devices"]]
    try:
        with served(core, tmp_path) as page:
            fault(page.core)
            tab = entered(browser, page, width=320, locale="de-DE")
            SHOTS.mkdir(parents=True, exist_ok=True)
            for screen in ("now", "alarms", "devices", "setup"):
                tab.evaluate("hash => { location.hash = hash; }", screen)
                tab.wait_for_selector(f"nav a[href='#{screen}'][aria-current]")
                tab.wait_for_selector("main .card, main li.alarm")
                tab.wait_for_timeout(500)
                over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                tab.screenshot(path=SHOTS / f"long-{screen}-de-320.png", full_page=True)
                assert over <= 0, f"{screen} is wider than the window by {over}"
    finally:
        DESCRIBED.update(kept)
