"""Latches over a restart: what the file survives, and what the whole site does after kill -9.

TIDEGATE_LATCH_KILLS sets how many pairs of core and gateway are killed (default 12).
"""

import contextlib
import errno
import json
import os
import pty
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import tty
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tests.runtime.supervisor.test_supervisor import Run, gone, run  # noqa: F401
from tidegate.ext.abi import program
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle.loop import Core
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.core.process import latches_of
from tidegate.runtime.core.sealed import sealed
from tidegate.runtime.state import latches
from tidegate.runtime.state.held import HELD, held_dir
from tidegate.runtime.state.journal import Journal
from tidegate.runtime.state.latches import Latched, LatchFile, words_of
from tidegate.runtime.supervisor.preflight import place_of, prepare
from tidegate.runtime.supervisor.supervisor import Supervisor

SILENT, ALARM, LOST = (FAULT_IDS.index(name) for name in ("bms_silent", "bms_alarm", "latches_lost"))
SIM = "tidegate.hal.sim"
KILLS = int(os.environ.get("TIDEGATE_LATCH_KILLS", "12"))
AT_ONCE = 4
ALARM_FRAME = struct.pack("=IB3x8s", 0x35A, 8, bytes.fromhex("A6 AA AA 02 AA AA AA 00"))  # high voltage


def until(done: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.02)
    return bool(done())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    kept = [Latched(1 << ALARM | 1 << SILENT, ALARM), Latched(0, -1)]
    LatchFile(tmp_path, ["a", "b"]).write(kept)
    assert LatchFile(tmp_path, ["a", "b"]).read() == (kept, "")
    assert LatchFile(tmp_path, ["b", "a"]).read() == (kept[::-1], ""), "kept by name, not by place"
    assert latches_of(words_of(kept)[1::2]) == [(0, kept[0].bits, ALARM)]


def test_no_file_is_nothing_latched(tmp_path: Path) -> None:
    assert LatchFile(tmp_path, ["a"]).read() == ([Latched(0, -1)], "")


def test_a_file_cut_or_changed_at_any_byte_is_a_latch(tmp_path: Path) -> None:
    file = LatchFile(tmp_path, ["a", "b"])
    kept = [Latched(1 << ALARM, ALARM), Latched(0, -1)]
    file.write(kept)
    whole = file.path.read_bytes()
    lost = [Latched(1 << LOST, LOST)] * 2
    for at in range(len(whole)):
        for raw in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x04]) + whole[at + 1 :]):
            file.path.write_bytes(raw)
            got, damage = file.read()
            # Space for space and the like: the same content in other bytes is no damage.
            assert (got == lost and str(file.path) in damage) or (got == kept and raw.strip()), (at, raw)
    file.path.write_bytes(whole.replace(b"bms_alarm", b"bms_quiet"))
    assert file.read()[0] == lost


@pytest.mark.parametrize(
    "units", [{"gone": {"latched": ["bms_alarm"], "first": None}}, {"a": {"latched": ["x"]}}, [], 3]
)
def test_a_latch_that_belongs_to_nothing_here_is_not_dropped(tmp_path: Path, units: Any) -> None:
    file = LatchFile(tmp_path, ["a"])
    body = {"v": 1, "units": units}
    file.path.write_text(json.dumps({**body, "sha256": latches._digest(body)}))
    assert file.read()[0] == [Latched(1 << LOST, LOST)]


def test_a_folder_in_the_place_of_the_file_is_a_latch(tmp_path: Path) -> None:
    (tmp_path / latches.FILE).mkdir()
    got, damage = LatchFile(tmp_path, ["a"]).read()
    assert got == [Latched(1 << LOST, LOST)] and os.strerror(errno.EISDIR) in damage


def test_what_a_broken_write_left_beside_the_file_changes_nothing(tmp_path: Path) -> None:
    file = LatchFile(tmp_path, ["a"])
    file.write([Latched(1 << ALARM, ALARM)])
    (tmp_path / f".{latches.FILE}.01234567").write_bytes(b'{"v"')
    assert file.read() == ([Latched(1 << ALARM, ALARM)], "")
    assert [one.name for one in tmp_path.iterdir()] == [latches.FILE]


@pytest.fixture
def core() -> tuple[Core, Shared]:
    _, blob = prepare(place_of(DEMO), accounts=False)
    shared = Shared.memfd()[0]
    return Core(blob, shared), shared


def run_cycles(one: Core, first: int, count: int) -> None:
    for number in range(first, first + count):
        one.cycle(10**9 + number * 10**6, 10**6, number)


def test_the_core_starts_with_what_it_is_given_and_tells_no_change(core: tuple[Core, Shared], tmp_path: Path) -> None:
    one, shared = core
    one.restore(0, 1 << LOST, LOST)
    run_cycles(one, 0, 20)
    assert shared.latches == (0, [1 << LOST], [LOST])
    assert LatchFile(tmp_path, ["a"]).keep(shared) and not list(tmp_path.iterdir()), "nothing new to keep"


def test_a_disk_that_refuses_is_said_and_asked_again(core: tuple[Core, Shared], tmp_path: Path) -> None:
    one, shared = core
    run_cycles(one, 0, 3)
    folder = tmp_path / "state"
    folder.mkdir()
    file = LatchFile(folder, ["a"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        one.set_can_fd(0, ours.fileno())
        theirs.send(ALARM_FRAME)
        run_cycles(one, 3, 10)
    assert shared.latch_changes > 0
    folder.rmdir()
    assert not file.keep(shared) and str(file.path) in file.error and shared.latch_kept == 0
    folder.mkdir()
    assert until(lambda: file.keep(shared), 10) and not file.error
    assert shared.latch_kept == shared.latch_changes
    assert file.read()[0][0].bits == shared.latches[1][0] != 0


# ---------------------------------------------------------------- kill -9 at random moments after a latch


class Pair:
    """Core and gateway as the supervisor starts them, on buses where nobody says anything but what the test says."""

    def __init__(self, folder: Path, blob: bytes) -> None:
        self.describe = program.describe(blob)
        self.file = LatchFile(held_dir(folder), [row["name"] for row in self.describe["units"]])
        self.memory, shared_fd = Shared.memfd()
        program_fd = sealed("program", blob)
        self.fds, words = [shared_fd, program_fd], []
        for row in self.describe["ports"]:
            master, slave = pty.openpty()
            tty.setraw(slave)
            self.fds += [master, slave]
            words += ["--serial", f"{row['name']}={slave}"]
        for row in self.describe["can"]:
            ends = [end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
            self.fds += ends
            self.bus = ends[1]
            words += ["--can", f"{row['name']}={ends[0]}"]
        memory = ["--program-fd", str(program_fd), "--shared-fd", str(shared_fd)]
        (folder / "run").mkdir()
        self.folders = ["--runtime-dir", str(folder / "run"), "--state-dir", str(folder)]
        self.journal = folder / "journal"
        self.core = self._start("tidegate.runtime.core.process", [*memory, *words])
        assert until(lambda: self.memory.running or self.core.poll() is not None), "the core did not start"
        self.gateway = self._start("tidegate.runtime.gateway", [*memory, *self.folders])

    def _start(self, module: str, words: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            pass_fds=self.fds,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def alarm(self) -> None:
        """The BMS raises an alarm: a row that latches in the same cycle."""
        os.write(self.bus, ALARM_FRAME)

    def kill(self, first: str) -> None:
        """kill -9 of both, `first` before the other."""
        both = {"core": self.core, "gateway": self.gateway}
        for process in (both.pop(first), *both.values()):
            process.kill()
        for process in (self.core, self.gateway):
            process.wait()

    def told(self) -> set[str]:
        """Rows of which the journal, and so perhaps the world, knows that they latched."""
        if not self.journal.exists():
            return set()
        journal = Journal(self.journal, "event")
        events = [
            msgpack.unpackb(record.payload) for segment in journal.segments for record in journal.records(segment)
        ]
        return {event["name"] for event in events if event["event"] == "latch" and event["previous"] == 1}

    def close(self) -> None:
        self.kill("core")
        for fd in self.fds:
            os.close(fd)


def test_a_latch_is_there_after_kill_9_of_core_and_gateway_at_random_moments(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    _, blob = prepare(place_of(DEMO), accounts=False)
    outcomes = {"told": 0, "kept by the gateway": 0, "kept after it": 0}
    for batch in range(0, KILLS, AT_ONCE):
        pairs: list[Pair] = []
        try:
            for number in range(batch, min(batch + AT_ONCE, KILLS)):
                folder = tmp_path / str(number)
                folder.mkdir()
                pairs.append(Pair(folder, blob))
            waiting = {pair: dice.choice([0.0, 0.002, 0.01, 0.05, 0.2]) * dice.random() for pair in pairs}
            end_s = time.monotonic() + 120.0
            for pair in pairs:
                pair.alarm()
            while waiting:
                assert time.monotonic() < end_s, f"nothing latched, seed {seed}"
                for pair in [pair for pair in waiting if pair.memory.latch_changes > 0]:
                    time.sleep(waiting.pop(pair))
                    pair.kill(dice.choice(["core", "gateway"]))
                time.sleep(0.0005)
            for pair in pairs:
                _, bits, first = pair.memory.latches
                told, on_disk = pair.told(), pair.file.read()[0][0]
                assert told <= set(names(on_disk.bits)), f"told before it was kept, seed {seed}"
                outcomes["told"] += bool(told)
                outcomes["kept by the gateway" if on_disk.bits == bits[0] else "kept after it"] += 1
                assert pair.file.keep(pair.memory), "as the supervisor does when the core is gone"
                again, damage = pair.file.read()
                assert (again, damage) == ([Latched(bits[0], first[0])], ""), f"seed {seed}"
                restarted(blob, again)
        finally:
            for pair in pairs:
                pair.close()
    assert sum(outcomes.values()) - outcomes["told"] == KILLS and KILLS > 0
    print(f"seed {seed}: {outcomes}")


def events_in(folder: Path) -> list[dict[str, Any]]:
    """What the journal of a gateway that has ended holds."""
    if not folder.exists():
        return []
    journal = Journal(folder, "event")
    return [msgpack.unpackb(record.payload) for segment in journal.segments for record in journal.records(segment)]


def names(bits: int) -> list[str]:
    return [name for row, name in enumerate(FAULT_IDS) if bits >> row & 1]


def restarted(blob: bytes, latched: list[Latched]) -> None:
    """A core that is given them stays tripped with them, first cause included."""
    memory = Shared.memfd()[0]
    core = Core(blob, memory)
    for unit, bits, first in latches_of(words_of(latched)[1::2]):
        core.restore(unit, bits, first)
    run_cycles(core, 0, 50)
    _, bits, first = memory.latches
    assert bits[0] & latched[0].bits == latched[0].bits and first[0] == latched[0].first
    image = memory.read_image()
    assert image is not None
    mode = [row["name"] for row in program.describe(blob)["points"]].index("site.mode")
    assert MODES_BY_NUMBER[int(image[mode].value)] == "tripped"


# ---------------------------------------------------------------- the whole site


def answers(one: Run) -> dict[str, Any]:
    """What `why` says, or nothing while the gateway is starting."""
    with contextlib.suppress(ClientError, OSError), one.client() as client:
        return client.why()
    return {}


def kept(state: Path) -> list[str]:
    body = json.loads((state / "demo" / HELD / latches.FILE).read_text())
    return [name for unit in body["units"].values() for name in unit["latched"]]


def test_a_latch_is_on_disk_before_it_is_told_and_outlives_kill_9_of_everything(run: Any, tmp_path: Path) -> None:  # noqa: F811
    one = run()
    one.wait_running()
    assert until(lambda: answers(one).get("mode") in ("run", "derated")), one.said
    pids = one.children()
    with one.client() as client:
        news = client.subscribe("event")
        os.kill(pids[SIM], signal.SIGSTOP)  # the plant falls silent
        for record in news:
            if record.get("event") == "latch" and record["name"] == "bms_silent":
                break
        assert "bms_silent" in kept(one.state), "told before it was kept"
    for pid in (one.process.pid, *pids.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    one.process.wait()
    assert gone(one) == {}

    again = run()
    again.wait_running()
    assert "latched before" in again.said and "bms_silent" in again.said
    first_boot = answers(again)
    assert first_boot["mode"] == "tripped" and any("bms_silent" in one for one in first_boot["latches"])
    # The plant is well again and autostart is on: only the latch keeps it from arming.
    time.sleep(2.0)
    assert answers(again)["mode"] == "tripped" and answers(again)["setpoint_w"] == 0
    with again.client() as client:
        client.ack()
    assert until(lambda: answers(again).get("mode") in ("run", "derated")), again.said
    assert again.end() == 0
    assert kept(again.state) == [], "acknowledged is acknowledged"
    restored = [one["detail"] for one in events_in(again.state / "demo" / "journal") if one["name"] == "restored"]
    assert len(restored) == 1 and "bms_silent" in restored[0]


def test_a_latch_outlives_kill_9_of_the_core_alone(tmp_path: Path) -> None:
    folders = {"runtime": tmp_path / "run", "state": tmp_path / "state"}
    said: list[str] = []
    with Supervisor(DEMO, **folders, sidecar=False, out=said.append) as site:
        os.kill(site.children["gateway"].pid, signal.SIGSTOP)  # nobody but the supervisor can keep it
        os.kill(site.children["sim"].pid, signal.SIGSTOP)
        assert until(lambda: site.shared is not None and site.shared.latches[1][0] >> SILENT & 1)
        os.kill(site.children["core"].pid, signal.SIGKILL)
        assert site.wait(30.0) and "core" in site.failure
        os.kill(site.children["gateway"].pid, signal.SIGCONT)
        os.kill(site.children["sim"].pid, signal.SIGCONT)
    assert "bms_silent" in kept(tmp_path / "state")
    with Supervisor(DEMO, **folders, sidecar=False, out=said.append) as site:
        assert any("bms_silent" in line for line in said)
        with site.client() as client:
            assert any("bms_silent" in one for one in client.why()["latches"])


def test_a_damaged_file_starts_latched_until_acknowledged(tmp_path: Path) -> None:
    folders = {"runtime": tmp_path / "run", "state": tmp_path / "state"}
    place = tmp_path / "state" / "demo" / HELD / latches.FILE
    place.parent.mkdir(parents=True, mode=0o750)
    place.write_text("{")
    said: list[str] = []
    with Supervisor(DEMO, **folders, sidecar=False, out=said.append) as site, site.client() as client:
        assert any(str(place) in line for line in said)
        assert until(lambda: client.why()["reason"] is not None)
        time.sleep(1.5)
        now = client.why()
        assert now["mode"] == "tripped" and any("latches_lost" in one for one in now["latches"])
        client.ack()
        assert until(lambda: client.why()["mode"] in ("run", "derated"))
    assert kept(tmp_path / "state") == []
