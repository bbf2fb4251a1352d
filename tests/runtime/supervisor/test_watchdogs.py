"""Watchdogs, fed by the loop's own proof of life and by nothing else; and the core as it is seen from outside."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tests.runtime.supervisor.test_supervisor import Run, gone, run  # noqa: F401
from tidegate.config.site import SiteError
from tidegate.ext.abi.shared import GUARD_NAMES, Writer
from tidegate.runtime.core.locked_memory import LockedMemory
from tidegate.runtime.gateway.guard_events import HOLD_NS, Guarded
from tidegate.runtime.supervisor.guard import (
    GONE,
    LATE,
    LOOK_S,
    PRIORITY_LOST,
    STALL_PERIODS,
    STALLED,
    UNLOCKED,
    Change,
    Feed,
    Guard,
    Judge,
    Seen,
)
from tidegate.runtime.supervisor.supervisor import StartError, Supervisor
from tidegate.runtime.supervisor.watchdogs import Board, Notify, WatchdogError

MS = 1_000_000
GOOD = Seen(running=True, t_ns=1, proof=1, escalation=0, fifo=80, unlocked=False)


def until(done: Callable[[], Any], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.005)
    return bool(done())


# ---------------------------------------------------------------- what is seen means: virtual time


def test_a_loop_that_stops_at_any_phase_is_seen_within_three_periods_and_10_ms() -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    look_ns = int(LOOK_S * 1e9)
    for _ in range(600):
        period_ns = dice.choice([250_000, 1 * MS, 10 * MS, 100 * MS])
        judge = Judge(period_ns, fifo=80)
        last_cycle_ns = 10**12 + dice.randrange(10**9)
        now_ns = last_cycle_ns - 5 * period_ns - dice.randrange(look_ns)
        while not judge.holding:
            now_ns += look_ns
            newest_ns = min(last_cycle_ns, now_ns - now_ns % period_ns)
            changes = judge.look(now_ns, GOOD._replace(t_ns=newest_ns))
            assert now_ns > last_cycle_ns or not changes, f"accused while it ran, seed {seed}"
        assert changes[0].cause == STALLED
        assert now_ns - last_cycle_ns <= STALL_PERIODS * period_ns + 10 * MS, f"seed {seed}, period {period_ns}"


@pytest.mark.parametrize(
    ("cause", "bad"),
    [
        (GONE, {"fifo": None}), (STALLED, {"t_ns": 10**9 - 9 * MS}), (LATE, {"escalation": 3}),
        (PRIORITY_LOST, {"fifo": 0}), (PRIORITY_LOST, {"fifo": 79}), (UNLOCKED, {"unlocked": True}),
    ],
)  # fmt: skip
def test_each_cause_is_seen_by_the_first_look_and_told_once_and_ends(cause: int, bad: dict[str, Any]) -> None:
    judge, now_ns = Judge(MS, fifo=80), 10**9
    good = GOOD._replace(t_ns=now_ns - MS)
    assert judge.look(now_ns, good) == [] and judge.alive
    assert [change[:2] for change in judge.look(now_ns, good._replace(**bad))] == [(cause, True)]
    assert judge.look(now_ns, good._replace(**bad)) == []
    assert judge.times[cause] == 1 and judge.holding == 1 << cause
    assert judge.alive == (cause in (PRIORITY_LOST, UNLOCKED)), "what costs no cycle starves no watchdog"
    assert judge.look(now_ns, good) == [Change(cause, False, "over")] and judge.alive


def test_a_core_that_never_had_fifo_has_not_lost_it() -> None:
    assert Judge(MS, fifo=0).look(10**9, GOOD._replace(t_ns=10**9, fifo=0)) == []


def test_a_watchdog_is_fed_only_when_due_alive_and_with_a_new_proof() -> None:
    fed: list[int] = []
    feed = Feed("x", 1.0, lambda: fed.append(1))
    assert feed.step(0, True, 5)
    assert not feed.step(10 * 10**9, True, 5), "the same proof again, however long ago"
    assert not feed.step(10 * 10**9, False, 6), "a new proof of a loop that is not in time"
    assert feed.step(10 * 10**9, True, 6)
    assert not feed.step(10 * 10**9 + 999 * MS, True, 7), "not due yet"
    assert feed.step(11 * 10**9, True, 8) and len(fed) == feed.fed == 3


def test_a_watchdog_that_does_not_take_it_is_said_and_tried_again() -> None:
    def refuse() -> None:
        raise OSError(5, "Input/output error")

    feed = Feed("board", 1.0, refuse)
    assert not feed.step(0, True, 1) and feed.error == "board: Input/output error" and feed.fed == 0
    feed._feed = lambda: None
    assert feed.step(1, True, 1) and feed.error == ""


def test_each_cause_is_an_event_once_throttled_and_counted() -> None:
    def seen(holding: list[str], **times: int) -> dict[str, Any]:
        return {"times": {name: times.get(name, 0) for name in GUARD_NAMES}, "holding": holding}

    told = Guarded(seen([]))
    assert told.step(1, seen([])) == []
    (name, detail), *more = told.step(2, seen(["stalled"], stalled=1))
    assert name == "stalled" and "no watchdog is fed" in detail and not more
    assert told.step(3, seen(["stalled"], stalled=1)) == []
    assert [name for name, _ in told.step(4, seen([], stalled=1))] == ["stalled over"]
    assert told.step(5, seen([], stalled=7)) == [], "held off"
    (name, detail), over = told.step(2 + HOLD_NS, seen([], stalled=9))
    assert "8 times since" in detail and "9 in all" in detail and over[0] == "stalled over"
    # What a gateway before has told is not told again, but its end is.
    assert [name for name, _ in Guarded(seen(["late"], late=3)).step(1, seen([], late=3))] == ["late over"]


# ---------------------------------------------------------------- systemd's socket


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@tidegate-test-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listens:
        listens.bind("\0" + name[1:] if name.startswith("@") else name)
        listens.settimeout(60.0)
        yield listens, name


def test_what_systemd_hears(systemd: tuple[socket.socket, str]) -> None:
    listens, name = systemd
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notify = Notify.from_environment(environment)
    assert environment == {"HOME": "/"}, "no child speaks in our name"
    assert notify.feed_every_s == 2.0
    notify.ready("site x runs")
    assert listens.recv(999) == b"READY=1\nSTATUS=site x runs\nWATCHDOG_USEC=8000000"
    notify.alive()
    notify.patience(120.0)
    notify.stopping()
    assert [listens.recv(999) for _ in range(3)] == [b"WATCHDOG=1", b"WATCHDOG_USEC=120000000", b"STOPPING=1"]
    notify.close()


@pytest.mark.parametrize(
    ("environment", "every_s", "said"),
    [
        ({}, None, ""),
        ({"NOTIFY_SOCKET": "/nowhere/at/all"}, None, ""),
        ({"WATCHDOG_USEC": "8000000"}, None, ""),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"}, None, ""),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None, ""),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None, "WATCHDOG_USEC=soon"),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, None, "NOTIFY_SOCKET=vsock:2:1"),
    ],
)
def test_without_systemd_or_with_nonsense_nothing_is_fed_and_nonsense_is_said(
    environment: dict[str, str], every_s: float | None, said: str
) -> None:
    notify = Notify.from_environment(environment)
    assert notify.feed_every_s == every_s and said in notify.error
    notify.ready("x")
    notify.stopping()
    notify.close()


# ---------------------------------------------------------------- the board's device


def test_a_file_in_the_place_of_the_device_is_fed_and_disarmed_only_at_an_orderly_end(tmp_path: Path) -> None:
    place = tmp_path / "watchdog"
    for disarm, wanted in ((False, b"\0\0"), (True, b"\0\0V")):
        place.write_bytes(b"")
        board = Board(str(place), 10)
        assert board.feed_every_s == 2.5 and str(place) in board.note
        board.alive()
        board.alive()
        board.close(disarm=disarm)
        assert place.read_bytes() == wanted


def test_a_device_that_is_missing_or_refused_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WatchdogError, match=r"watchdog\.device: .*none: no such device; load its driver"):
        Board(str(tmp_path / "none"), 10)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WatchdogError, match="a FIFO that nobody reads"):
        Board(str(tmp_path / "fifo"), 10)
    site = site_with(tmp_path, tmp_path / "none")
    with pytest.raises(StartError, match=r"watchdog\.device: .*none is missing or not ours to write"):
        Supervisor(site, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False).start()


@pytest.mark.parametrize(
    ("text", "key"),
    [('device = "watchdog"', "watchdog.device"), ("timeout_s = 1", "watchdog.timeout_s"), ("feed_s = 1", "feed_s")],
)
def test_a_watchdog_that_the_site_file_gets_wrong_is_refused_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    site = site_with(tmp_path, Path("/dev/watchdog"))
    site.write_text(site.read_text().replace('device = "/dev/watchdog"\ntimeout_s = 2', text))
    with pytest.raises(SiteError, match=key.replace(".", r"\.")):
        Supervisor(site, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False)


# ---------------------------------------------------------------- seen from outside: real threads and processes


def test_unlocked_memory_of_another_process_is_seen() -> None:
    code = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.mlockall(3), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(libc.munlockall(), flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None and it.stdin is not None
        if it.stdout.readline() != "0\n":
            it.stdin.close()
            pytest.skip("this machine does not let us lock memory (ulimit -l)")
        locked = LockedMemory(it.pid)
        assert locked.kib() > 0 and not locked.lost()
        it.stdin.write("\n")
        it.stdin.flush()
        assert it.stdout.readline() == "0\n"
        assert locked.lost() and locked.kib() == 0
        it.stdin.close()
        it.wait()
        assert locked.lost(), "gone is not locked"
        locked.close()


@pytest.fixture
def fake_core() -> Iterator[Writer]:
    """A core's memory; its loop is the thread of this test."""
    memory, fd = Writer.memfd()
    memory.set_head(boot_id=bytes(16), program_sha256=bytes(32), t_start_ns=1, utc_offset_ns=0, n_points=1, n_units=1,
                    core_pid=os.getpid())  # fmt: skip
    memory.put_grants(loop_tid=ctypes.CDLL(None).gettid(), fifo=0, locked=False)
    yield memory
    os.close(fd)


def test_no_feed_without_a_cycle_and_none_while_the_loop_starves_them(fake_core: Writer) -> None:
    fed: list[int] = []
    guard = Guard(fake_core, os.getpid(), MS, [Feed("device", 0.0, lambda: fed.append(1))])
    now_ns = 10**12

    def cycle(proof: int) -> None:
        fake_core.advance(proof=proof)
        fake_core.write_image(proof, now_ns, [(0.0, now_ns, 1, 1)])

    for proof in range(1, 6):
        cycle(proof)
        guard.look(now_ns + MS)
        now_ns += MS
    assert len(fed) == 5
    for _ in range(100):  # no cycle any more
        now_ns += MS
        guard.look(now_ns)
    assert len(fed) == 5 and fake_core.guard()["holding"] == ["stalled"]
    assert fake_core.guard()["fed_device"] == 5 and fake_core.guard()["times"]["stalled"] == 1
    cycle(5)  # cycles, and no proof with them: the gate was not passed
    guard.look(now_ns + MS)
    assert len(fed) == 5 and fake_core.guard()["holding"] == []
    cycle(6)
    guard.look(now_ns + MS)
    assert len(fed) == 6
    guard.stop()


def site_with(folder: Path, device: Path) -> Path:
    """The demo's site with a watchdog of the board."""
    site = folder / "site.toml"
    text = DEMO.read_text().replace('load_trace = "', f'load_trace = "{DEMO.parent}/')
    site.write_text(f'{text}\n[watchdog]\ndevice = "{device}"\ntimeout_s = 2\n')
    return site


class Fifo:
    """A FIFO in the place of the device; counts what arrives."""

    def __init__(self, place: Path) -> None:
        os.mkfifo(place)
        self.fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
        self.got = b""

    def count(self) -> int:
        with contextlib.suppress(BlockingIOError):
            self.got += os.read(self.fd, 4096)
        return len(self.got)


def test_a_core_that_stands_still_starves_the_board_and_is_seen_and_told(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "watchdog")
    said: list[str] = []
    folders = {"runtime": tmp_path / "run", "state": tmp_path / "state"}
    site = site_with(tmp_path, tmp_path / "watchdog")
    with Supervisor(site, **folders, sidecar=False, out=said.append) as one, one.client() as client:
        assert until(lambda: fifo.count() >= 2), said
        news = client.subscribe("event")
        guard, memory = one.guard, one.shared
        assert guard is not None and memory is not None
        os.kill(one.children["core"].pid, signal.SIGSTOP)
        try:
            assert until(lambda: "stalled" in memory.guard()["holding"])
            fed, looks = fifo.count(), guard.looks
            # Seen by the first look after three periods; how far apart looks are here, this run measured.
            assert guard.judge.stall_seen_ns <= STALL_PERIODS * 10 * MS + 10 * MS + guard.gaps_ns_max
            time.sleep(2.5)  # longer than the device waits
            assert fifo.count() == fed and guard.looks > looks, "fed by a timer"
        finally:
            os.kill(one.children["core"].pid, signal.SIGCONT)
        assert until(lambda: fifo.count() > fed), "not fed again"
        names: set[str] = set()

        def told() -> bool:
            record = news.receive(0.2)
            if record is not None and record.get("event") == "core":
                names.add(record["name"])
            return {"stalled", "stalled over"} <= names

        assert until(told), names
        assert until(lambda: any("core stalled" in line for line in said))
        assert client.health()["guard"]["fed_device"] >= 3
    assert fifo.count() and fifo.got.endswith(b"V"), "an orderly end disarms it"
    os.close(fifo.fd)


def test_a_core_that_dies_leaves_the_board_to_its_reset_and_is_told(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "watchdog")
    said: list[str] = []
    folders = {"runtime": tmp_path / "run", "state": tmp_path / "state"}
    site = site_with(tmp_path, tmp_path / "watchdog")
    with Supervisor(site, **folders, sidecar=False, out=said.append) as one:
        assert until(lambda: fifo.count() >= 1), said
        os.kill(one.children["core"].pid, signal.SIGKILL)
        assert one.wait(60.0)
    assert one.shared is not None and one.shared.guard()["holding"] == ["gone"]
    assert fifo.count() and b"V" not in fifo.got
    assert any("core gone" in line for line in said) and any("the board restarts" in line for line in said), said
    os.close(fifo.fd)


def test_priority_that_is_taken_away_is_seen_and_given_back(tmp_path: Path) -> None:
    said: list[str] = []
    with Supervisor(DEMO, runtime=tmp_path / "run", state=tmp_path / "s", sidecar=False, out=said.append) as one:
        memory = one.shared
        assert memory is not None
        if not memory.loop_counters()["fifo"]:
            pytest.skip("this machine gives no SCHED_FIFO")
        os.sched_setscheduler(memory.loop_tid, os.SCHED_OTHER, os.sched_param(0))
        assert until(lambda: memory.guard()["times"]["priority-lost"] == 1), said
        assert until(lambda: os.sched_getscheduler(memory.loop_tid) & 0xFF == os.SCHED_FIFO), "not given back"
        assert until(lambda: "priority-lost" not in memory.guard()["holding"])
        assert until(lambda: any("core priority-lost" in line for line in said))


def test_a_service_is_ready_alive_while_cycles_pass_and_says_that_it_stops(tmp_path: Path, monkeypatch: Any) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(place))
        systemd.settimeout(60.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(place))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        one = Run(DEMO, tmp_path)
        try:
            heard = systemd.recv(999)
            while not heard.startswith(b"READY=1"):
                assert heard == b"WATCHDOG=1", one.said
                heard = systemd.recv(999)
            assert b"WATCHDOG_USEC=400000" in heard and b"site demo runs" in heard
            for _ in range(3):
                assert systemd.recv(999) == b"WATCHDOG=1"
            core = one.children()["tidegate.runtime.core.process"]
            os.kill(core, signal.SIGSTOP)
            try:
                systemd.settimeout(3.0)
                with pytest.raises(TimeoutError):
                    while True:  # what was on its way
                        systemd.recv(999)
            finally:
                os.kill(core, signal.SIGCONT)
            systemd.settimeout(60.0)
            assert systemd.recv(999) == b"WATCHDOG=1"
            assert one.end() == 0, one.said
            systemd.settimeout(0.0)
            rest = []
            with pytest.raises(BlockingIOError):
                while True:
                    rest.append(systemd.recv(999))
            assert b"STOPPING=1" in rest and set(rest) <= {b"STOPPING=1", b"WATCHDOG=1"}
            assert gone(one) == {}
        finally:
            one.close()
