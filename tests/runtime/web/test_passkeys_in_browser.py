"""Passkeys in Chromium with its virtual authenticator: made, used for a login and an order, removed, and where not."""

import contextlib

import pytest

from tests.runtime.web.conftest import PASSWORD, eventually, notes
from tests.runtime.web.test_page_in_browser import CHROMIUM, FLAGS, SHOTS, WAIT_MS, violations
from tidegate.runtime.web.login_codes import Pairing

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("webauthn", reason="the extra web is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.timeout(600),
]
OLD = "Object.defineProperty(window, 'PublicKeyCredential', {value: undefined});"


@contextlib.contextmanager
def chromium():
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield made
        made.close()


def opened(browser, page, host="localhost", script="", path=""):
    made = browser.new_context(
        ignore_https_errors=True, locale="en-GB", viewport={"width": 390, "height": 844}
    ).new_page()
    made.set_default_timeout(WAIT_MS)
    if script:
        made.add_init_script(script)
    made.goto(f"https://{host}:{page.port}/{path}")
    return made


def entered(tab):
    tab.fill("#user", "anna")
    tab.fill("#password", PASSWORD)
    tab.click("form button.main")
    tab.wait_for_selector("nav a[aria-current]")


def setup_in(tab, language):
    tab.select_option("#language", language)
    tab.wait_for_function("language => document.documentElement.lang === language", arg=language)
    tab.wait_for_selector("#passkey-name")
    violations(tab, f"passkeys in {language}")
    over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 0, language


def test_a_passkey_in_a_browser_from_first_to_last(page):
    with chromium() as browser:
        tab = opened(browser, page, path=f"#pair={Pairing(page.state / 'web').make('maintain')}")
        device = tab.context.new_cdp_session(tab)
        device.send("WebAuthn.enable")
        kind = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
                "isUserVerified": True, "automaticPresenceSimulation": True}  # fmt: skip
        authenticator = device.send("WebAuthn.addVirtualAuthenticator", {"options": kind})["authenticatorId"]
        tab.fill("#user", "anna")
        tab.fill("#password", PASSWORD)
        tab.fill("#again", PASSWORD)
        tab.click("button.main")
        tab.wait_for_selector("nav a[aria-current]")
        tab.evaluate("location.hash = 'setup'")
        tab.fill("#passkey-name", "phone of anna")
        tab.fill("#passkey-password", PASSWORD)
        tab.click("button:has-text('Make a passkey')")
        tab.wait_for_selector("li:has-text('phone of anna')")
        for language in ("de", "zh", "en"):
            setup_in(tab, language)
        SHOTS.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=SHOTS / "passkeys-en-390.png", full_page=True)

        tab.click("button:has-text('Log out')")
        violations(tab, "login with a passkey")
        tab.screenshot(path=SHOTS / "passkey-login-en-390.png")
        tab.click("button#passkey")
        tab.wait_for_selector("nav a[aria-current]")
        tab.evaluate("location.hash = 'now'")
        tab.click("main button:has-text('Run')")
        tab.click("dialog button:has-text('With a passkey')")
        tab.wait_for_selector("dialog button:has-text('Do it')")

        device.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": False})
        tab.click("dialog button:not(.main)")
        tab.click("button:has-text('Log out')")
        tab.click("button#passkey")
        tab.wait_for_selector("p.wrong:has-text('The passkey was not used')")
        device.send("WebAuthn.setUserVerified", {"authenticatorId": authenticator, "isUserVerified": True})
        tab.click("button#passkey")
        tab.wait_for_selector("nav a[aria-current]")
        tab.evaluate("location.hash = 'setup'")
        tab.click("button:has-text('Remove phone of anna')")
        # What was opened with it ends with it.
        tab.wait_for_selector("form #user")
        tab.click("button#passkey")
        tab.wait_for_selector("p.wrong:has-text('not known here')")
        rows = eventually(lambda: [one for one in notes(page) if one[0] == "web passkey removed"] and notes(page))
        assert sum(name == "web login" and "passkey phone of anna" in detail for name, detail in rows) == 2

        # By an address, and in a browser that knows none, the page says so, and the password goes on.
        plain = opened(browser, page, host="127.0.0.1")
        plain.wait_for_selector("text=Passkeys need a name")
        assert plain.locator("main a[href^='https://']").count() >= 1 and plain.locator("#passkey").count() == 0
        violations(plain, "login at an address")
        old = opened(browser, page, script=OLD)
        old.wait_for_selector("text=This browser knows no passkeys")
        assert old.locator("#passkey").count() == 0
        entered(old)
        old.evaluate("location.hash = 'setup'")
        old.wait_for_selector("main >> text=This browser knows no passkeys")
        assert old.locator("#passkey-name").count() == 0
