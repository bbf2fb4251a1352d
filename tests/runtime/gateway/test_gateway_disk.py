"""A disk that is really full, or really read-only, under a gateway process: a tmpfs of 1 MiB that the test mounts.

Needs the right to mount (root, as in CI); what a failing disk does to the journal itself is tested without it.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime.gateway.test_gateway_kill import GatewayProcess
from tidegate.runtime.api.blocking_client import Client


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB at the place of the state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1M,mode=0750", "tidegate-test", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


class Pushing:
    """Heads, records and what the site says while a test waits for something."""

    def __init__(self, core, heard):
        self.core, self.heard = core, heard
        self.meters: list[int] = []
        self.error = ""

    def until(self, true, seconds=30.0):
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            self.core.step()
            self.core.meter()
            message = self.heard.receive(0.05)
            if message is not None and message["kind"] == "head":
                self.error = message["journal_error"]
            elif message is not None and message["kind"] == "meter":
                self.meters.append(message["seq"])
        return true()


def named(site) -> list[str]:
    """The names of all events, asked for at most four times a second, which any client may."""
    time.sleep(0.25)
    return [event["name"] for event in site.replay("event")[0]]


def test_a_full_disk_stops_no_command_is_told_and_costs_no_record(core, tmp_path, small_disk):
    core.values["site.mode"] = (3.0, 1)
    core.step()
    core.beat()
    gateway = GatewayProcess(core, tmp_path)
    try:
        with Client(f"ipc://{gateway.runtime}", timeout_s=10) as site:
            boot = site.ask("health")["boot"]
            seen = Pushing(core, site.subscribe("meter", "head", since={"meter": (boot, -1)}))
            assert seen.until(lambda: len(seen.meters) > 3)
            ballast = fill(small_disk)
            assert seen.until(lambda: "space" in seen.error), "the head must tell of the disk"
            with site.lease() as lease:
                assert lease.setpoint(0.0, 1)["status"] == "applied"
            assert site.health()["journal"]["error"]
            pid = site.health()["gateway"]["pid"]
            ballast.unlink()
            assert seen.until(lambda: not seen.error), "it must recover without a restart"
            wanted = core.memory.meter_head
            assert seen.until(lambda: len(seen.meters) >= wanted)
            assert seen.meters == list(range(len(seen.meters)))
            assert site.health()["gateway"]["pid"] == pid
            told = ("failing", "recovered")  # the second is told after the head shows no error, and written after that
            assert seen.until(lambda: all(name in named(site) for name in told)), named(site)
    finally:
        gateway.close()


def test_a_gateway_starts_over_a_read_only_disk_and_goes_on_when_it_is_writable(core, tmp_path, small_disk):
    core.step()
    core.beat()
    first = GatewayProcess(core, tmp_path)
    with Client(f"ipc://{first.runtime}", timeout_s=10) as site:
        boot = site.ask("health")["boot"]
        seen = Pushing(core, site.subscribe("meter", "head", since={"meter": (boot, -1)}))
        assert seen.until(lambda: len(seen.meters) > 3)
    first.kill()
    (segment,) = small_disk.glob("journal/meter-*.seg")
    os.truncate(segment, segment.stat().st_size - 7)  # torn, and nobody can cut it off now
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    second = GatewayProcess(core, tmp_path)
    try:
        with Client(f"ipc://{second.runtime}", timeout_s=10) as site:
            seen = Pushing(core, site.subscribe("meter", "head", since={"meter": (boot, -1)}))
            assert seen.until(lambda: "ead-only" in seen.error)
            assert site.limit(import_w_max=30_000.0, for_s=5)["status"] == "applied"
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
            assert seen.until(lambda: not seen.error)
            wanted = core.memory.meter_head
            assert seen.until(lambda: len(seen.meters) >= wanted)
            assert seen.meters == list(range(len(seen.meters)))
    finally:
        second.close()
