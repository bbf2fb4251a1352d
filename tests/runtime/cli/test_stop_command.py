"""`tidegate stop`: by a signal where it may, by the API where it may not, and said where neither."""

import os
import signal
import time

import pytest
from click.testing import CliRunner

from tidegate.runtime.cli import stop_commands
from tidegate.runtime.state.paths import SiteLock


@pytest.fixture
def site(core, start_gateway, tmp_path, monkeypatch):
    """A gateway that answers, and a lock that names us as the supervisor."""
    core.values["site.mode"] = (3.0, 1)
    core.step()
    core.beat()
    root = tmp_path / "root"
    monkeypatch.setattr(stop_commands, "_roots", lambda: [root])
    monkeypatch.setattr(stop_commands, "SEEN_S", 1.0)
    root.mkdir()
    gateway = start_gateway()
    (root / "hall").symlink_to(gateway.runtime)
    lock = SiteLock("hall", gateway.runtime)
    lock.acquire()
    yield core
    lock.release()


def stop(*words):
    return CliRunner().invoke(stop_commands.stop, list(words))


def test_the_supervisor_gets_the_signal_and_the_stop_is_confirmed(site, monkeypatch):
    got = []

    def kill(pid, number):
        got.append((pid, number))
        site.memory.put_order(7, 1.0, time.monotonic_ns() + 10**15, 1)

    monkeypatch.setattr(os, "kill", kill)
    done = stop()
    assert got == [(os.getpid(), signal.SIGUSR1)] and "stopped by signal" in done.output, done.output


def test_who_may_not_signal_stops_by_the_api(site, monkeypatch):
    def kill(pid, number):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    done = stop("hall")
    assert "stopped by the API" in done.output and site.memory.order(0).value == 2.0, done.output


def test_a_site_that_does_not_run_is_said(site):
    done = stop("nowhere")
    assert done.exit_code == 69 and "hall" in done.output
