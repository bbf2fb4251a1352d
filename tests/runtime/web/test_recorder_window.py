"""The recorder's window at the page: who may ask, what comes, several at once, and a recording on request."""

import concurrent.futures
import gzip
import json
import time

import pytest

from tests.runtime.web.conftest import PASSWORD, SITE, eventually, recordings
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.web.replayed_moments import WAITING_MAX

pytest.importorskip("mcap", reason="mcap is not installed (pip install 'tidegate[recorder]')")

from tests.recorded_file import recorded_fault


def test_a_recorded_minute_comes_decided_again(page):
    path = "/recordings/around"
    assert page.visitor().ask(f"{path}?at=1")[0] == 401
    anna = page.visitor("anna")
    status, _, body = anna.ask(f"{path}?at=1")
    assert status == 200 and body["recorded"] is False
    kept = recorded_fault(recordings(page), end_utc_s=time.time() - 200)
    status, headers, body = anna.ask(f"{path}?at={kept.fault_utc_s}", accept_encoding="gzip")
    assert status == 200 and headers["content-encoding"] == "gzip"
    said = json.loads(gzip.decompress(body))
    assert said["file"] == kept.path.name and said["differs"] is None and said["rest_due"] is False
    kept.path.unlink()  # decided once: the answer is kept
    assert anna.ask(f"{path}?at={kept.fault_utc_s}")[2] == said
    for at in ("", "?at=", "?at=x", "?at=-1", "?at=nan"):
        assert anna.ask(path + at)[0] == 400, at


def test_a_crowd_that_asks_is_answered_one_by_one_or_refused(page):
    anna = page.visitor("anna")
    with concurrent.futures.ThreadPoolExecutor(2 * WAITING_MAX) as several:
        answers = list(several.map(lambda at: anna.ask(f"/recordings/around?at={at}")[0], range(2 * WAITING_MAX)))
    assert set(answers) == {200, 429} and answers.count(200) >= WAITING_MAX


def test_a_recording_is_asked_for_by_who_may_operate(page):
    anna = page.visitor("anna")
    reader = page.visitor("rita", "read")
    assert reader.ask("/session/arm", {"password": PASSWORD})[0] == 403
    assert anna.ask("/orders/prepare", {"action": "record"})[0] == 403  # not armed
    assert anna.ask("/session/arm", {"password": PASSWORD})[0] == 200
    status, _, body = anna.ask("/orders/prepare", {"action": "record", "reason": "it hums"})
    assert status == 200 and body["effect"] == {"name": "effect.record"}
    status, _, body = anna.ask("/orders/confirm", {"token": body["token"]})
    assert status == 200 and body["status"] == "applied", body
    with Client(f"ipc://{page.env['TIDEGATE_RUNTIME_DIR']}/{SITE}") as client:
        said = eventually(lambda: [one for one in client.replay("event")[0] if one["event"] == "record"])
    assert said[0]["detail"].endswith("it hums") and "anna" in said[0]["detail"]
