"""The recorder of a site that runs: a file on request and on a fault, and the same decisions again from it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mcap", reason="mcap is not installed (pip install 'tidegate[recorder]')")

from tests.demo_site import SLOW_DEMO as DEMO
from tests.recorded_file import recorded, recorded_fault
from tidegate.config.site import load_site
from tidegate.ext.cycle.recorder import MIB_MIN, record_t_ns
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.recording import __main__ as recorder_process
from tidegate.runtime.recording.__main__ import (
    AGAIN_S,
    RecordingTrigger,
    file_name,
    leave_room,
    prune,
    record,
    record_whole,
    unused,
)
from tidegate.runtime.recording.recording_file import read
from tidegate.runtime.supervisor.supervisor import Supervisor

TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]


def tidegate(*words):
    return subprocess.run([*TIDEGATE, *map(str, words)], capture_output=True, text=True, timeout=300)


def eventually(found, timeout_s=120.0):
    until = time.monotonic() + timeout_s
    while not (got := found()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return got


def test_a_site_that_runs_is_recorded_and_decides_alike(tmp_path):
    """By itself when its devices fall silent, and on request; the loop may be late as often as it likes."""
    supervisor = Supervisor(str(DEMO), runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=print)
    folder = supervisor.state / "recordings"
    with supervisor, supervisor.client() as client:
        eventually(lambda: client.why()["mode"] in ("run", "derated"))
        devices = supervisor.children["sim"].pid
        os.kill(devices, signal.SIGSTOP)
        try:
            (fault,) = eventually(lambda: list(folder.glob("*.mcap")))
        finally:
            os.kill(devices, signal.SIGCONT)
        asked = tidegate("record", "--endpoint", supervisor.endpoint, "--cause", "a try", "--wait", "200")
        assert asked.returncode == 0, asked.stderr
        assert supervisor.core_said["rss_kib"] > supervisor.core_said["ring_kib"] == 64 << 10
    asked_for = Path(asked.stdout.strip())
    assert asked_for.parent == folder and asked_for != fault
    for path, cause in ((fault, "fault "), (asked_for, "a try")):
        recording = read(path)
        assert cause in recording.meta["cause"] and recording.meta["verified"] == "yes"
        assert recording.site == DEMO.read_text()
        again = tidegate("replay", path)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "all decided alike to the byte" in again.stdout


def test_a_site_without_a_recorder_says_so(tmp_path):
    site = load_site(str(DEMO))
    site = site.model_copy(update={"recorder": site.recorder.model_copy(update={"mib": 0.0})})
    site._folder = DEMO.parent
    supervisor = Supervisor(site, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=print)
    with supervisor, supervisor.client() as client:
        assert "recorder" not in supervisor.children
        assert supervisor.core_said["ring_kib"] == 0
        with pytest.raises(ClientError, match=r"\[recorder\] mib = 0") as refused:
            client.record("nobody keeps it")
        assert refused.value.code == "unavailable"


def event(kind, name="", code=0, previous=0, detail=""):
    return {"kind": "event", "event": kind, "name": name, "code": code, "previous": previous, "detail": detail}


def test_what_makes_a_file_and_what_does_not():
    judge = RecordingTrigger(automatic=True)
    judge.hear(event("fault_on", "bms_silent", previous=4), 100.0)
    assert judge.take(200.0) == ""  # a site that has not run stands tripped for reasons that are no news
    judge.hear(event("mode", "run"), 200.0)
    judge.hear(event("fault_on", "temp_high_warn", previous=1), 200.0)
    assert judge.take(210.0) == ""  # a warning takes nothing away
    judge.hear(event("fault_on", "bms_silent", previous=4), 300.0)
    assert judge.take(300.5) == ""  # what follows it belongs to it
    assert judge.take(302.5) == "fault bms_silent"
    judge.hear(event("overrun", "2", code=2), 310.0)
    assert judge.take(315.0) == ""  # at most one a minute
    judge.hear(event("overrun", "2", code=2), 303.0 + AGAIN_S)
    assert judge.take(310.0 + AGAIN_S) == "overrun 2"
    judge.hear(event("record", "requested", detail="maria: it hums"), 311.0 + AGAIN_S)
    assert judge.take(311.0 + AGAIN_S) == "request maria: it hums"  # a person does not wait
    assert not judge.take_whole(307.0 + 2 * AGAIN_S)  # of the overrun, a minute behind it
    assert judge.take_whole(308.0 + 2 * AGAIN_S) and not judge.take_whole(999.0)
    quiet = RecordingTrigger(automatic=False)
    quiet.hear(event("mode", "run"), 0.0)
    quiet.hear(event("latch", "pcs_fault", previous=1), 0.0)
    assert quiet.take(100.0) == ""


def test_a_faults_file_gets_the_minute_that_followed_and_loses_none_before(tmp_path):
    kept = recorded_fault(tmp_path)
    short = recorded_fault(tmp_path, end_utc_s=kept.fault_utc_s + 2.0, seconds=9.0)
    before = short.path.read_bytes()
    said = record_whole((short.path, "fault x", short.run.t_ns), kept.run.ring, kept.run.blob, "")
    assert said["whole"] == str(short.path) and said["verified"] and said["cycles"] > short.run.cycles
    # A ring that has gone round: what it no longer holds stands in the first file alone.
    short.path.write_bytes(before)
    small = recorded.run(4, mib=MIB_MIN)
    assert record_t_ns(small.records) > short.run.t_ns - 9 * 10**9
    said = record_whole((short.path, "fault x", short.run.t_ns), small.ring, small.blob, "")
    assert "mib" in said["because"] and short.path.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_names_of_files_are_plain_and_old_ones_go(tmp_path):
    assert file_name("fault bms/../x", 0.0) == "19700101T000000Z-fault-bms-x.mcap"
    assert file_name("request a b; rm -rf /", 0.0) == "19700101T000000Z-request.mcap"
    (tmp_path / "19700101T000000Z-fault-request_invalid.mcap").touch()
    for number in range(6):
        (tmp_path / file_name(f"fault f{number}", number)).touch()
        (tmp_path / file_name("request", number)).touch()
    assert unused(tmp_path / "19700101T000004Z-request.mcap").name == "19700101T000004Z-request-2.mcap"
    prune(tmp_path, 2)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len([name for name in left if "request" in name]) == 6
    assert [name for name in left if "fault" in name] == [
        "19700101T000004Z-fault-f4.mcap", "19700101T000005Z-fault-f5.mcap",
    ]  # fmt: skip


def small_disk(monkeypatch, folder, blocks):
    """A disk of so many kilobytes, on which only these files lie."""

    def statvfs(_):
        used = sum(-(-path.stat().st_size // 1024) for path in folder.iterdir())
        return SimpleNamespace(f_bavail=blocks - used, f_blocks=blocks, f_frsize=1024)

    monkeypatch.setattr(recorder_process.os, "statvfs", statvfs)


def test_recordings_leave_a_quarter_of_the_disk_to_the_account(tmp_path, monkeypatch, capsys):
    for number in range(6):
        (tmp_path / file_name(f"fault f{number}", number)).write_bytes(bytes(10 << 10))
    (tmp_path / file_name("request", 9)).write_bytes(bytes(10 << 10))
    small_disk(monkeypatch, tmp_path, 80)
    assert leave_room(tmp_path)  # 60 may lie there: six of these
    assert len(list(tmp_path.glob("*fault*"))) == 5
    assert leave_room(tmp_path, 15 << 10)  # and room for one more
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [name.partition("-")[2] for name in left] == [
        "fault-f3.mcap", "fault-f4.mcap", "fault-f5.mcap", "request.mcap",
    ]  # fmt: skip

    def write(path, *_, **__):
        path.write_bytes(bytes(70 << 10))
        return {"cycles": 1}

    monkeypatch.setattr(recorder_process, "write", write)
    said = record(tmp_path, None, b"", "", "fault new", 20)  # larger than what may lie there
    assert "no room" in said["failed"] and "no room" in capsys.readouterr().err
    assert [path.name.partition("-")[2] for path in tmp_path.iterdir()] == ["request.mcap"]
    small_disk(monkeypatch, tmp_path, 20)  # what somebody asked for stays, and nothing comes beside it
    assert "no room" in record(tmp_path, None, b"", "", "fault new", 20)["failed"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_recorder_that_was_ended_while_it_wrote_leaves_no_half_file(tmp_path):
    """The next one clears it away."""
    supervisor = Supervisor(str(DEMO), runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=print)
    half = supervisor.state / "recordings" / "x.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"\x89MCAP0\r\n")
    with supervisor:
        said = [json.loads(line) for line in supervisor.children["recorder"].said if line.startswith("{")]
        assert said[0]["recorder"] == "ready"
        assert not half.exists()
