"""A stop that needs neither gateway nor network, and a supervisor that outlives what the machine refuses it."""

import contextlib
import errno
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tests.runtime.supervisor.test_supervisor import Run, run  # noqa: F401
from tidegate.ext.abi.shared import OrderKind, Writer
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.state.halt import halt
from tidegate.runtime.state.held import HELD
from tidegate.runtime.supervisor import child as child_module
from tidegate.runtime.supervisor.child import Child, eventually, waited
from tidegate.runtime.supervisor.supervisor import Supervisor

LIVES = ["-c", "import time; print('ready', flush=True); time.sleep(100)"]


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """A supervisor over one child that only lives, whose thread runs."""
    said: list[str] = []
    made = Supervisor(DEMO, out=said.append, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False)
    made.said = said  # type: ignore[attr-defined]
    made.children["gateway"] = Child("gateway", LIVES, [])
    made.children["gateway"].start()
    made._monitor = threading.Thread(target=made._keep, daemon=True)
    made._monitor.start()
    yield made
    made.ask_to_stop()
    made.children["gateway"].end(2.0)


FAILURES = [
    (os, "pidfd_open", OSError(errno.EMFILE, "Too many open files")),
    (os, "pidfd_open", OSError(errno.ENOMEM, "no memory")),
    (subprocess, "Popen", OSError(errno.EAGAIN, "Resource temporarily unavailable")),
    (subprocess, "Popen", OSError(errno.EMFILE, "Too many open files")),
    (subprocess, "Popen", OSError(errno.ENOMEM, "no memory")),
    (subprocess, "Popen", MemoryError()),
    (select, "poll", OSError(errno.EINTR, "interrupted")),
    (select, "poll", MemoryError()),
    (os, "eventfd_read", OSError(errno.EBADF, "bad")),
    (threading.Thread, "start", RuntimeError("can't start new thread")),
]


@pytest.mark.parametrize(("where", "name", "failure"), FAILURES)
def test_no_refusal_of_the_machine_ends_who_restarts_the_others(site, monkeypatch, where, name, failure):
    before = site.children["gateway"].pid
    failed = []

    def fail(*args: Any, **more: Any) -> Any:
        failed.append(1)
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(where, name, fail)
        os.kill(before, signal.SIGKILL)
        until = time.monotonic() + 10
        while time.monotonic() < until and not failed and site.children["gateway"].pid == before:
            site._watch.knock()
            time.sleep(0.02)
        time.sleep(0.3)
    assert eventually(lambda: site.children["gateway"].pid != before and site.children["gateway"].alive, 20.0)
    assert site._monitor.is_alive()
    assert eventually(site.children["gateway"].ready.is_set, 10.0), "its lines are read again"
    site.ask_to_stop()
    assert site.wait(10.0), "and it still obeys"


def test_what_cannot_be_printed_ends_nothing(site):
    def fail(line: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    site._print = fail
    before = site.children["gateway"].pid
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: site.children["gateway"].pid != before and site.children["gateway"].alive, 20.0)


def test_a_thread_that_ended_all_the_same_is_started_again_and_a_signal_is_obeyed_without_it(site):
    site._monitor = threading.Thread(target=lambda: None)
    site._monitor.start()
    site._monitor.join()
    assert not site.wait(0.6)
    assert site._monitor.is_alive()
    site._stopping = True
    site._monitor = threading.Thread(target=lambda: None)
    site._monitor.start()
    assert site.wait(5.0)


def test_the_gateway_is_never_given_up(site, monkeypatch):
    monkeypatch.setattr("tidegate.runtime.supervisor.supervisor.HEALTHY_PAUSE_S", 0.001)
    for _ in range(9):
        before = site.children["gateway"].pid
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: site.children["gateway"].pid != before and site.children["gateway"].alive, 20.0)  # noqa: B023
    assert not site.children["gateway"].given_up


def test_a_stop_by_signal_is_in_the_core_s_memory_at_once_and_marked_on_disk(site):
    memory, fd = Writer.memfd()
    site.shared = memory
    site.order_stop()
    order = memory.order(OrderKind.STOP)
    assert order.expires_t_ns > time.monotonic_ns() + 10**18 // 10
    site.wait(0.6)
    assert (site.state / HELD / "stopped").exists() and (site.runtime / "stopped").exists()
    site.shared = None
    os.close(fd)


def told(one: Run) -> dict[str, Any]:
    """What the site says of itself, nothing while nobody answers."""
    with contextlib.suppress(ClientError), one.client() as client:
        return dict(client.why())
    return {}


def runs(one: Run) -> bool:
    return told(one).get("mode") in ("run", "derated")


def zero(one: Run) -> bool:
    why = told(one)
    return bool(why) and why["stopped"] and why["mode"] not in ("run", "derated") and why["setpoint_w"] == 0.0


def test_without_a_gateway_a_signal_stops_the_battery_and_a_restart_of_all_keeps_it(run: Any, tmp_path: Path) -> None:  # noqa: F811
    one = run()
    assert eventually(lambda: runs(one), 120.0)
    gateway = one.children()["tidegate.runtime.gateway"]
    os.kill(gateway, signal.SIGSTOP)  # frozen: neither answers nor ends
    try:
        assert halt(f"ipc://{one.folder / 'run'}/demo") == ""
        time.sleep(1.0)
    finally:
        os.kill(gateway, signal.SIGCONT)
    assert eventually(lambda: zero(one), 30.0)
    one.process.kill()
    one.process.wait()
    assert eventually(lambda: not one.children(), 30.0)
    two = run()
    assert eventually(lambda: told(two) != {}, 120.0)
    assert told(two)["stopped"] and told(two)["stops"]["stop"]["local"]
    time.sleep(2.0)
    assert told(two)["mode"] not in ("run", "derated", "arming")
    with two.client() as client:
        client.run()
    assert eventually(lambda: runs(two), 120.0)


def test_the_core_takes_the_signal_itself_where_no_supervisor_can(run: Any) -> None:  # noqa: F811
    one = run()
    assert eventually(lambda: runs(one), 120.0)
    core = one.children()["tidegate.runtime.core.process"]
    os.kill(one.process.pid, signal.SIGSTOP)
    try:
        os.kill(core, signal.SIGUSR1)
        assert eventually(lambda: zero(one), 30.0)
    finally:
        os.kill(one.process.pid, signal.SIGCONT)


def test_a_blind_watch_still_finds_who_ended(monkeypatch: Any) -> None:
    watch, one = child_module.Watch(), Child("x", LIVES, [])
    one.start()
    monkeypatch.setattr(os, "pidfd_open", lambda pid: (_ for _ in ()).throw(OSError(errno.EMFILE, "many")))
    assert watch.wait([one], 5.0) == []
    os.kill(one.pid, signal.SIGKILL)
    assert eventually(lambda: watch.wait([one], 5.0) == [one], 10.0)
    watch.close()


BEATS = [
    "-c",
    "import time\nfrom tidegate.runtime.state.beat import Beat\nbeat = Beat()\nprint('ready', flush=True)\n"
    "while True:\n    beat.give()\n    time.sleep(0.05)\n",
]


def test_one_that_stands_still_is_ended_and_started_again_and_one_that_lives_is_not(site, monkeypatch):
    monkeypatch.setattr("tidegate.runtime.supervisor.supervisor.FROZEN_S", 8.0)
    one = site.children["remote"] = Child("remote", BEATS, [], beats=True)
    one.start()
    site._watch.knock()
    assert eventually(lambda: one._beat_s <= time.monotonic(), 20.0)
    before = one.pid
    time.sleep(10.0)
    assert one.pid == before, "it gives signs of life"
    os.kill(before, signal.SIGSTOP)
    assert eventually(lambda: one.pid != before and one.alive, 60.0)
    assert any("sign of life" in line for line in site.said)
    one.end(2.0)


def test_one_that_stood_still_before_its_first_sign_of_life_is_ended_too(site, monkeypatch):
    monkeypatch.setattr("tidegate.runtime.supervisor.supervisor.FROZEN_S", 1.0)
    monkeypatch.setattr(child_module, "FIRST_BEAT_S", 1.0)
    one = site.children["remote"] = Child("remote", LIVES, [], beats=True)
    one.start()
    before = one.pid
    site._watch.knock()
    assert eventually(lambda: one.pid != before, 60.0)
    one.end(2.0)


@pytest.mark.parametrize("why", [MemoryError(), RuntimeError("can't allocate lock")])
def test_whoever_waits_goes_on_where_there_is_no_memory_for_a_lock(monkeypatch, why):
    """So the supervisor ended in the sweep of `make syscall-faults`: `malloc` failed while it waited."""
    event = threading.Event()

    def refuse(*_):
        raise why

    monkeypatch.setattr(threading, "_allocate_lock", refuse)
    with pytest.raises(type(why)):
        event.wait(0.01)
    assert not waited(event, 0.01)
    event.set()
    assert waited(event, 0.01)
