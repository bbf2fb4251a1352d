"""Power caps of GPUs: NVIDIA's own Python binding over a library of the tests' own, in processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pynvml", reason="the extra gpu is not installed")

HERE = Path(__file__).parent
NOW = 1_800_000_000
PRELUDE = """
import os, sys, time
from pathlib import Path
from tidegate.runtime.planner.gpu_caps import CapsAllowed, GpuCaps, restore
from tidegate.runtime.planner.gpu_devices import GpuError, Nvml
from tidegate.runtime.planner.adapter_guard import Guard
import functools
folder, NOW = Path(sys.argv[1]), 1_800_000_000
"""


class Machine:
    """Two GPUs of 700 W behind the fake library."""

    def __init__(self, folder, library):
        self.folder, self.state = folder, folder / "driver"
        self.environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(self.state)}
        self.set(700, 700)

    def set(self, *watts, refuses=0, enforced_least=0):
        words = (*(one * 1000 for one in watts), refuses, enforced_least * 1000)
        self.state.write_text(" ".join(str(one) for one in words))

    @property
    def watts(self):
        return tuple(int(one) // 1000 for one in self.state.read_text().split()[:2])

    def advise(self, word, at=NOW):
        (self.folder / "planner.json").write_text(json.dumps({"planned_utc_s": int(at), "advice": {"word": word}}))

    def run(self, code):
        script = self.folder / "part.py"
        script.write_text(PRELUDE + code)
        done = subprocess.run([sys.executable, str(script), str(self.folder)], env=self.environment, timeout=200,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def audit(self):
        return [json.loads(line) for line in (self.folder / "gpu-caps-audit.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(HERE / "fake_nvml.c")],
                   check=True)  # fmt: skip
    return folder


@pytest.fixture
def machine(tmp_path, library):
    return Machine(tmp_path, library)


ROUND = "caps = GpuCaps(Nvml(), folder, CapsAllowed(%s)); caps.round(NOW%s); print(caps.error)"


def test_a_cap_is_set_read_back_and_taken_off_by_the_advice(machine):
    machine.advise("may wait")
    assert machine.run(ROUND % ("", "")) == "" and machine.watts == (490, 490)
    machine.advise("shed")
    assert machine.run(ROUND % ("shed_share=0.1", "")) == "" and machine.watts == (200, 200)  # the driver's own least
    machine.advise("run")
    assert machine.run(ROUND % ("", "")) == "" and machine.watts == (700, 700)
    assert json.loads((machine.folder / "gpu-caps.json").read_text()) == {}
    ordered = [row["limit_mw"] for row in machine.audit() if row["uuid"] != "GPU-cccc"]
    assert ordered == [490_000] * 2 + [200_000] * 2 + [700_000] * 2


def test_a_limit_that_was_lower_before_comes_back_as_it_was_and_only_what_is_allowed_is_capped(machine):
    machine.set(500, 600)
    machine.advise("may wait")
    assert machine.run(ROUND % ("uuids=('GPU-bbbb',)", "")) == "" and machine.watts == (500, 420)
    machine.advise("may wait", NOW - 5000)  # nobody's plan any more
    assert machine.run(ROUND % ("uuids=('GPU-bbbb',)", "")) == "" and machine.watts == (500, 600)


def test_a_dry_run_writes_down_and_changes_nothing(machine):
    machine.advise("shed")
    machine.run(ROUND % ("dry_run=True", ""))
    assert machine.watts == (700, 700) and {row["became"] for row in machine.audit() if row["uuid"] != "GPU-cccc"} == {
        "dry run"
    }


def test_a_limit_that_somebody_else_set_stays_theirs(machine):
    machine.advise("shed")
    machine.run(ROUND % ("", ""))
    machine.set(350, 610)
    assert machine.run(ROUND % ("", ", let_go=True")) == "" and machine.watts == (700, 610)


def test_what_the_driver_refuses_or_does_not_enforce_is_named(machine):
    machine.advise("shed")
    machine.set(700, 700, refuses=1)
    assert "Insufficient Permissions" in machine.run(ROUND % ("", "")) and machine.watts == (700, 700)
    machine.set(700, 700, enforced_least=600)
    assert "350 W were set, 600 W are enforced" in machine.run(ROUND % ("", ""))
    machine.state.unlink()
    assert "reading the GPUs" in machine.run(ROUND % ("", ""))


def test_a_gpu_whose_limit_nobody_can_set_is_named_each_round_and_in_the_audit_once(machine):
    twice = "caps = GpuCaps(Nvml(), folder, CapsAllowed(%s)); caps.round(NOW); caps.round(NOW); print(caps.doubts)"
    machine.advise("run")
    assert machine.run(twice % "") == "['GPU GPU-cccc: its driver lets nobody set its power limit; it is never capped']"
    assert [row["uuid"] for row in machine.audit()] == ["GPU-cccc"]
    assert machine.run(twice % "uuids=('GPU-aaaa',)") == "[]"  # it was never asked for
    assert "GPU-dddd is allowed and not on this machine" in machine.run(twice % "uuids=('GPU-dddd',)")
    machine.state.unlink()
    assert "reading the GPUs" in machine.run(twice % "")  # a driver that is gone is a doubt too


def test_a_file_that_is_spoiled_is_no_reason_to_guess(machine):
    (machine.folder / "gpu-caps.json").write_text("{")
    code = "try: GpuCaps(Nvml(), folder, CapsAllowed())\nexcept GpuError as why: print(why)"
    assert "what the GPUs had before is not known" in machine.run(code)


def test_an_adapter_that_is_killed_leaves_no_gpu_capped(machine):
    machine.advise("shed", time.time())
    script = machine.folder / "killed.py"
    script.write_text(
        PRELUDE
        + """
if __name__ == "__main__":
    guard = Guard(functools.partial(restore, folder), 1000.0)
    caps = GpuCaps(Nvml(), folder, CapsAllowed())
    caps.round()
    print("capped", flush=True)
    time.sleep(1000)
"""
    )
    with subprocess.Popen([sys.executable, str(script), str(machine.folder)], env=machine.environment, text=True,
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout.readline() == "capped\n" and machine.watts == (350, 350)
        process.kill()
        end = time.monotonic() + 120
        while machine.watts != (700, 700):
            assert time.monotonic() < end, "the guard puts the limits back"
            time.sleep(0.1)


def test_a_start_after_a_kill_of_adapter_and_guard_puts_the_limits_back(machine):
    machine.advise("shed")
    machine.run(ROUND % ("", ""))
    assert machine.watts == (350, 350)
    (machine.folder / "planner.json").unlink()
    machine.run(ROUND % ("", ""))
    assert machine.watts == (700, 700)
