"""What a scanner of web pages looks for, by hand: sessions, other sites, TLS, roles, headers, what errors give away."""

import contextlib
import re
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from tests.runtime.web.conftest import PASSWORD, eventually

PATHS = ("/", "/app.js", "/session", "/api/v1/get", "/openapi.json", "/history/series", "/nothing", "/ca.pem")
EVERYWHERE = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer"}


def logged_in(page, user="anna"):
    """anna's page; the first time she makes her login."""
    first = page.visitor()
    if not first.ask("/session")[2]["has_users"]:
        return page.visitor(user)
    assert first.ask("/session/login", {"user": user, "password": PASSWORD})[0] == 200
    return first


def headers_everywhere(page):
    stranger, anna = page.visitor(), logged_in(page)
    for who in (stranger, anna):
        for path in PATHS:
            status, headers, body = who.ask(path)
            given = {name.lower(): value for name, value in headers.items()}
            for name, value in EVERYWHERE.items():
                assert given.get(name) == value, (path, status, name)
            assert "script-src 'self'" in given["content-security-policy"], path
            assert "access-control-allow-origin" not in given, path
            assert not {"server", "x-powered-by"} & given.keys(), path
            assert b"Traceback" not in (body if isinstance(body, bytes) else str(body).encode()), path
    for path in ("/session", "/api/v1/get"):
        assert "no-store" in {k.lower(): v for k, v in anna.ask(path)[1].items()}["cache-control"], path


def no_fixation(page):
    """Fixation: a cookie that was there before the login is no session after it."""
    anna = logged_in(page)
    name = anna.cookie.partition("=")[0]
    victim = page.visitor()
    victim.cookie = f"{name}=prepared-by-somebody"
    status, headers, _ = victim.ask("/session/login", {"user": "anna", "password": PASSWORD})
    assert status == 200 and victim.cookie not in (f"{name}=prepared-by-somebody", anna.cookie)
    attacker = page.visitor()
    attacker.cookie = f"{name}=prepared-by-somebody"
    assert attacker.ask("/api/v1/get")[0] == 401
    flags = {k.lower(): v for k, v in headers.items()}["set-cookie"].lower()
    assert all(flag in flags for flag in ("secure", "httponly", "samesite=strict", "path=/")) and "domain" not in flags
    assert len(victim.cookie.partition("=")[2]) >= 32


def ends_for_good(page):
    anna = logged_in(page)
    kept = anna.cookie
    for wrong in (kept[:-1] + ("A" if kept[-1] != "A" else "B"), kept + "A", kept.partition("=")[0] + "="):
        other = page.visitor()
        other.cookie = wrong
        assert other.ask("/api/v1/get")[0] == 401
    assert anna.ask("/session/logout", {})[0] == 200
    again = page.visitor()
    again.cookie = kept
    assert again.ask("/api/v1/get")[0] == 401, "what was kept of it is of no use"


def nothing_from_another_site(page):
    anna = logged_in(page)
    foreign = ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"},
               {"sec_fetch_site": "same-site"})  # fmt: skip
    for path, body in (("/session/arm", {"password": PASSWORD}), ("/session/logout", {}),
                       ("/orders/prepare", {"action": "stop"}), ("/orders/confirm", {"token": "x"}),
                       ("/session/login", {"user": "anna", "password": PASSWORD})):  # fmt: skip
        for headers in foreign:
            assert anna.ask(path, body, **headers)[0] == 403, (path, headers)
        # What a form of another page can send without asking first; a logout that has no body does no harm.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert path == "/session/logout" or anna.ask(path, body, content_type=kind)[0] in (400, 403, 415), path
        assert anna.ask(path, method="OPTIONS", origin="https://evil.example")[0] in (403, 404, 405)
    assert anna.ask("/session")[2]["user"] == "anna", "she is logged in still"


def no_escalation(page):
    logged_in(page)
    bert = page.visitor("bert", "read")
    for path, body in (("/session/arm", {"password": PASSWORD}), ("/orders/prepare", {"action": "run"}),
                       ("/orders/prepare", {"action": "shelve", "unit": "cabinet", "alarm": "bms_silent",
                                            "for_ms": 1000, "reason": "r"}),
                       ("/api/v1/mode", {"mode": "stop"}), ("/api/v1/limit", {"for_ms": 1000})):  # fmt: skip
        assert bert.ask(path, body)[0] == 403, path
    assert bert.ask("/setup/file")[0] == 403
    for more in ({"role": "maintain"}, {"user": "anna"}, {"for_remote": False}):
        assert bert.ask("/api/v1/mode", {"mode": "stop", **more})[0] in (400, 403)
    assert bert.ask("/session/login", {"user": "bert", "password": PASSWORD, "role": "maintain"})[0] == 400
    assert bert.ask("/session")[2]["role"] == "read"
    assert bert.ask("/session", x_forwarded_for="127.0.0.1", x_role="maintain")[2]["role"] == "read"


def guessing_is_locked(page):
    logged_in(page)
    stranger = page.visitor()
    said = {name: stranger.ask("/session/login", {"user": name, "password": "not it at all"})[::2]
            for name in ("anna", "nobody")}  # fmt: skip
    assert said["anna"][0] == said["nobody"][0] == 403 and said["anna"][1]["text"] == said["nobody"][1]["text"]
    locked = eventually(lambda: stranger.ask("/session/login", {"user": "anna", "password": "wrong again"})[0] == 429)
    assert locked and stranger.ask("/session/login", {"user": "anna", "password": PASSWORD})[0] == 429


def handshake(port, version, ciphers="ALL:@SECLEVEL=0"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain, context.wrap_socket(plain) as one:
        return one.version(), one.cipher()[0]


def no_old_tls(page):
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(page.port, version)
    assert handshake(page.port, ssl.TLSVersion.TLSv1_3)[0] == "TLSv1.3"
    assert handshake(page.port, ssl.TLSVersion.TLSv1_2)[1].startswith("ECDHE"), "forward secrecy"
    for weak in ("AES128-SHA", "AES256-SHA", "ECDHE-ECDSA-AES128-SHA"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(page.port, ssl.TLSVersion.TLSv1_2, f"{weak}:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert plain.recv(1000) == b"" or b"200" not in plain.recv(1000)


RAW = [
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"\x16\x03\x01" * 40 + b"\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
]  # fmt: skip


def no_false_requests(page):
    for raw in RAW:
        sent_raw(page, raw)


def sent_raw(page, raw):
    visitor = page.visitor()
    with (
        socket.create_connection(("127.0.0.1", page.port), timeout=60) as plain,
        visitor.context.wrap_socket(plain, server_hostname="127.0.0.1") as one,
    ):
        with contextlib.suppress(OSError):  # it may be cut off while it sends
            one.sendall(raw.replace(b"Host: 127.0.0.1\r", f"Host: 127.0.0.1:{page.port}\r".encode()))
        answer = b""
        try:
            while part := one.recv(4096):
                answer += part
                if b"\r\n\r\n" in answer:
                    break
        except (OSError, ssl.SSLError):
            pass
    assert not answer.startswith(b"HTTP/1.1 200") or (b"Content-Length: 5" in raw and b"root:" not in answer)
    assert visitor.ask("/session")[0] == 200


def no_crowd(page):
    held, end = [], time.monotonic() + 60

    def crowd():
        while time.monotonic() < end and len(held) < 200:
            try:
                held.append(socket.create_connection(("127.0.0.1", page.port), timeout=5))
            except OSError:
                time.sleep(0.05)

    threads = [threading.Thread(target=crowd) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    def served():
        try:
            return page.visitor().ask("/session")[0] == 200
        except OSError:
            return False

    assert eventually(served)
    for one in held:
        one.close()


def rss_kib(page):
    text = Path(f"/proc/{page.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1])


def test_two_hundred_connections_over_tls_take_little_memory(page):
    """asyncio's buffer alone would be 256 KiB each; what answers on them ends with the page, without a traceback."""
    anna = page.visitor("anna")
    context = page.visitor().context
    request = f"GET /live?hz=1 HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nCookie: {anna.cookie}\r\n\r\n".encode()
    before, held = rss_kib(page), []
    for n in range(200):
        plain = socket.create_connection(
            ("127.0.0.1", page.port), timeout=60, source_address=(f"127.0.0.{2 + n // 30}", 0)
        )
        held.append(context.wrap_socket(plain, server_hostname="127.0.0.1"))
        held[-1].sendall(request)
        assert held[-1].recv(12) == b"HTTP/1.1 200" or n >= 6, "six streams of a login"
    grown = rss_kib(page) - before
    assert len(held) == 200 and grown <= 200 * 128, f"{grown / 200:.0f} KiB a connection"
    page.process.terminate()
    assert "Traceback" not in page.process.stdout.read()
    for one in held:
        one.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("attacks", [
    (headers_everywhere, no_fixation, ends_for_good, nothing_from_another_site),
    (no_escalation, no_old_tls, no_false_requests, no_crowd, guessing_is_locked),
], ids=["sessions and other sites", "roles, TLS and crowds"])  # fmt: skip
def test_what_a_scanner_tries_finds_nothing(page, attacks):
    for attack in attacks:
        attack(page)
