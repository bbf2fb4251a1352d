"""People are told once of what concerns them; nothing is lost while nobody can be reached; nobody else is called."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("apprise", reason="the extra notify is not installed")

from tests.runtime.conftest import GatewayThread
from tidegate.config.notify_targets import Notify
from tidegate.ext.abi.shared import EVENT_NAMES
from tidegate.ext.safety.gate import REACTIONS
from tidegate.hal.description import Description, Fault, SiteHead
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.findings.priority import OF_REACTION, priority_of
from tidegate.runtime.notify.alarm_messages import AlarmMessages, Target
from tidegate.runtime.notify.message_queue import Fresh, MessageQueue
from tidegate.runtime.notify.notifier import Notifier, NotifyError, send, targets_of
from tidegate.runtime.state.backup_outcome import NOTED_FAILED
from tidegate.runtime.state.noted_failures import ISLAND_DEVICE

WAIT_S = 60.0
SITE = Description(
    site=SiteHead(name="hall"),
    faults=(
        Fault(
            id="bms_silent",
            row=0,
            text="the BMS is silent",
            what="no frame",
            clear="frames",
            reaction="zero",
            latched=True,
        ),
        Fault(id="warm", row=1, text="cells are warm", what="heat", clear="cool", reaction="derate"),
        Fault(id="odd", row=2, text="odd", what="odd", clear="even", reaction="warn"),
    ),
)
ALL = Target("all", "json://x", "low", "maintain")
HIGH = Target("night", "json://x", "high", "operate")


def eventually(true):
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def event(kind, name, at_s, seq=0):
    return {
        "kind": "event",
        "boot": "ab" * 16,
        "seq": seq,
        "event": kind,
        "name": name,
        "unit": -1,
        "utc_ns": int(at_s * 1e9),
    }


def test_each_reaction_has_a_priority_and_an_unknown_one_is_not_played_down():
    assert set(OF_REACTION) == set(REACTIONS)
    assert priority_of("made up later") == "high"


def test_a_backup_that_fails_each_night_is_told_to_who_maintains_once_while_it_lasts():
    makes = AlarmMessages(SITE, [ALL, HIGH], 900.0, {})
    failed = {**event("note", NOTED_FAILED, 1000.0), "detail": "uid:0: /stick: no such folder"}
    (message,), _ = makes.of(failed)
    assert message.target == "all" and "no such folder" in message.body and "the backup failed" in message.title
    assert makes.of({**failed, "utc_ns": 1100 * 10**9, "detail": "uid:0: another reason"})[0] == []
    assert makes.of(event("note", "backup", 1200.0)) == ([], {}) == makes.of(event("note", "web login", 1200.0))


def test_a_device_of_an_island_that_does_not_do_it_is_told_to_who_maintains_each_for_itself():
    makes = AlarmMessages(SITE, [ALL, HIGH], 900.0, {})
    noted = {**event("note", ISLAND_DEVICE, 1000.0), "detail": "uid:0: yard: genset: does not read running"}
    (message,), _ = makes.of(noted)
    assert message.target == "all" and "does not read running" in message.body
    assert "a genset or an inverter does not do what the site asks for" in message.title
    assert makes.of({**noted, "utc_ns": 1100 * 10**9})[0] == []
    assert len(makes.of({**noted, "utc_ns": 1101 * 10**9, "detail": "uid:0: yard: roof: no connection"})[0]) == 1
    assert makes.of(event("note", "island-devices", 1200.0)) == ([], {}), "what it ordered is no failure"


def test_who_is_told_what():
    makes = AlarmMessages(SITE, [ALL, HIGH], 900.0, {})
    told = {
        name: [one.target for one in makes.of(event("fault_on", name, 1000.0))[0]]
        for name in ("bms_silent", "warm", "odd")
    }
    assert told == {"bms_silent": ["all", "night"], "warm": ["all"], "odd": ["all"]}
    assert [one.target for one in makes.of(event("latch", "bms_silent", 1001.0))[0]] == ["all"], "who may acknowledge"
    assert makes.of(event("command", "limit", 1002.0)) == ([], {})
    message = makes.of(event("fault_on", "nobody knows", 1003.0))[0][0]
    assert "high" in message.title and "nobody knows" in message.body
    body = AlarmMessages(SITE, [ALL], 900.0, {}).of(event("fault_on", "bms_silent", 1000.0))[0][0].body
    for words in (
        "the BMS is silent",
        "cause: no frame",
        "it ends when: frames",
        "1970-01-01 00:16:40 UTC",
        "acknowledge",
    ):
        assert words in body


def test_an_alarm_that_comes_a_hundred_times_is_one_message():
    makes = AlarmMessages(SITE, [ALL], 900.0, {})
    told = []
    for turn in range(100):
        told += makes.of(event("fault_on", "warm", 1000.0 + turn * 20))[0]
        told += makes.of(event("fault_off", "warm", 1010.0 + turn * 20))[0]
    assert len(told) == 1
    last = 1010.0 + 99 * 20
    assert makes.of(event("fault_on", "warm", last + 899))[0] == []
    assert makes.of(event("fault_off", "warm", last + 900))[0] == []
    assert len(makes.of(event("fault_on", "warm", last + 900 + 901))[0]) == 1, "after a quiet time it is told again"
    assert len(makes.of(event("fault_on", "odd", last))[0]) == 1, "another alarm is another message"


def test_what_was_queued_is_there_after_a_restart_and_an_event_makes_its_messages_once(tmp_path):
    queue = MessageQueue(tmp_path / "notify.sqlite")
    assert queue.position is None
    queue.take([Fresh("a", "t1", "b", 1), Fresh("b", "t2", "b", 2)], ("ab" * 16, 7), {"fault site warm": 5.0})
    queue.close()
    queue = MessageQueue(tmp_path / "notify.sqlite")
    assert queue.position == ("ab" * 16, 7) and queue.seen() == {"fault site warm": 5.0} and len(queue) == 2
    first = queue.next("a")
    assert first.title == "t1" and queue.next("nobody") is None
    assert queue.next("a") == first, "it stays until it was sent"
    queue.sent(first)
    assert queue.next("a") is None and queue.next("b").title == "t2"
    queue.close()


def test_a_queue_that_is_full_drops_the_oldest_and_counts_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate.runtime.notify.message_queue.MESSAGES_MAX", 10)
    queue = MessageQueue(tmp_path / "notify.sqlite")
    queue.take([Fresh("a", f"t{n}", "b", n) for n in range(13)], None)
    assert len(queue) == 10 and queue.next("a").title == "t3"
    assert queue.take_dropped() == 3 and queue.take_dropped() == 0


class Receiver:
    """A web hook that can be away."""

    def __init__(self, port=0):
        self.got = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(inner):
                self.got.append(json.loads(inner.rfile.read(int(inner.headers["content-length"]))))
                inner.send_response(200)
                inner.end_headers()

            def do_GET(inner):
                self.got.append(inner.path)
                inner.send_response(200)
                inner.end_headers()

            def log_message(inner, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def test_a_message_really_goes_out_and_a_refused_one_is_known():
    hook = Receiver()
    target = Target("hook", f"json://127.0.0.1:{hook.port}/")
    assert send(target, "title", "body") is True
    assert hook.got[0]["title"] == "title" and hook.got[0]["message"] == "body"
    hook.close()
    assert send(target, "title", "body") is False
    assert "json" not in repr(target), "an address may hold a secret"


def test_alarms_of_a_site_reach_people_also_over_a_network_that_was_away(core, tmp_path, monkeypatch):
    """While nobody can be reached nothing is lost or doubled, over a restart of the notifier too."""
    monkeypatch.setattr("tidegate.runtime.notify.notifier.RETRY_S", 0.05)
    run, state = tmp_path / "run", tmp_path / "state"
    run.mkdir(), state.mkdir()
    gateway = GatewayThread(core, run, state)
    core.step()
    sent, reachable = [], threading.Event()

    def deliver(target, title, body):
        if reachable.is_set():
            sent.append((target.name, body.splitlines()[0]))
        return reachable.is_set()

    def start():
        stop = threading.Event()
        queue = MessageQueue(tmp_path / "notify.sqlite")
        client = Client(f"ipc://{run}")
        notifier = Notifier(client, Notify(quiet_s=10), [ALL], queue, deliver)
        thread = threading.Thread(target=notifier.run, args=(stop,), daemon=True)
        thread.start()

        def end():
            stop.set()
            thread.join(WAIT_S)
            assert not thread.is_alive()
            client.close()
            waiting = len(queue)
            queue.close()
            return waiting

        return notifier, queue, end

    fault_on = EVENT_NAMES.index("fault_on")
    notifier, queue, end = start()
    eventually(lambda: notifier._makes.site.site.name == "test-site")
    core.snapshot()
    eventually(lambda: (core.snapshot(), time.sleep(0.05), notifier._heard_s > 0)[2])
    time.sleep(0.3)  # the subscription stands: what comes from here on is live or replayed
    core.event(fault_on, unit=0, code=0)
    eventually(lambda: len(queue) == 1)
    assert end() == 1 and sent == []
    core.event(fault_on, unit=0, code=1)  # while no notifier runs
    notifier, queue, end = start()
    eventually(lambda: len(queue) == 2)
    reachable.set()
    eventually(lambda: len(sent) == 2)
    eventually(lambda: len(queue) == 0)
    assert end() == 0
    assert [body.split("(")[1] for _, body in sent] == ["bms_silent)", "bms_alarm)"]
    gateway.close()


def test_a_silent_site_is_told_once_and_the_heartbeat_stays_away(tmp_path):
    now = [100.0]
    queue = MessageQueue(tmp_path / "notify.sqlite")
    notifier = Notifier(None, Notify(silent_s=30), [ALL, HIGH], queue, monotonic=lambda: now[0])
    notifier.take({"kind": "snapshot"})
    for now[0] in (110.0, 129.0):
        notifier.take(None)
    assert len(queue) == 0 and notifier.lives()
    for now[0] in (131.0, 140.0, 500.0):
        notifier.take(None)
    assert len(queue) == 2 and not notifier.lives(), "once to each"
    assert "says nothing" in queue.next("night").title
    notifier.take({"kind": "snapshot"})
    assert len(queue) == 4 and notifier.lives(), "and once that it speaks again"


def test_the_heartbeat_beats_while_the_site_lives():
    from tidegate.runtime.notify.notifier import Heartbeat

    hook, stop, lives = Receiver(), threading.Event(), [True]
    beat = Heartbeat(f"http://127.0.0.1:{hook.port}/ping", 0.02, lambda: lives[0], stop)
    beat.start()
    eventually(lambda: len(hook.got) >= 3)
    lives[0] = False
    time.sleep(0.1)
    count = len(hook.got)
    time.sleep(0.2)
    assert len(hook.got) <= count + 1, "one may have been under way"
    stop.set()
    beat.join(WAIT_S)
    hook.close()


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (None, 0o600, "write one Apprise URL"),
        ("json://127.0.0.1/", 0o644, "chmod 600"),
        ("nonsense", 0o600, "no Apprise URL"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_showing_it(tmp_path, text, mode, words):
    if text is not None:
        (tmp_path / "ops.url").write_text(text)
        (tmp_path / "ops.url").chmod(mode)
    with pytest.raises(NotifyError, match=words) as why:
        targets_of(Notify(to=({"name": "ops", "url_file": "ops.url"},)), tmp_path)
    assert "127.0.0.1" not in str(why.value)


def test_two_targets_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        Notify(to=({"name": "ops", "url_file": "a"}, {"name": "ops", "url_file": "b"}))


def test_the_site_file_of_the_page_and_its_commands_work(tmp_path):
    """docs/notify.md: the table is read, `test` names who took it; without a table nobody is called."""
    import re
    import subprocess
    import sys
    from pathlib import Path

    root = Path(__file__).resolve().parents[3]
    table = re.search(r"```toml\n(.*?)```", (root / "docs" / "notify.md").read_text(), re.S)[1]
    site = (root / "config" / "sites" / "simulated.toml").read_text()
    (tmp_path / "hall.toml").write_text(f"{site}\n{table}")
    (tmp_path / "bare.toml").write_text(site)
    hook = Receiver()
    for name, port in (("on-call", hook.port), ("service", 9)):
        (tmp_path / f"{name}.url").write_text(f"json://127.0.0.1:{port}/\n")
        (tmp_path / f"{name}.url").chmod(0o600)

    def typed(*words):
        line = [sys.executable, "-m", "tidegate.runtime.cli", "notify", *words]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S)

    done = typed("test", "hall.toml")
    assert done.stdout.splitlines() == ["on-call: taken", "service: NOT TAKEN"] and done.returncode == 69, done.stderr
    assert [one["title"] for one in hook.got] == ["simulated: test message"]
    assert typed("test", "hall.toml", "--to", "on-call").returncode == 0
    bare = typed("run", "bare.toml")
    assert bare.returncode == 64 and "nobody is told of anything" in bare.stderr
    hook.close()
