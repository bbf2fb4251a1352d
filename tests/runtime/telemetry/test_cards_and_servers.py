"""Cards of this machine by NVML against a driver library of ours; IPMI and OpenTelemetry through a Prometheus."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.runtime.telemetry.agents import Web, eventually, prometheus
from tidegate.config.telemetry_sources import Telemetry
from tidegate.runtime.telemetry import nvml_cards
from tidegate.runtime.telemetry.http_get import Access, HttpError
from tidegate.runtime.telemetry.nvml_cards import NvmlCards, NvmlError
from tidegate.runtime.telemetry.prometheus_source import PrometheusServer

# The calls of NVML's C interface that are made, over three cards: one that works, one at rest, one that says no power.
DRIVER = """
#include <string.h>
#include <unistd.h>
#include <stdlib.h>
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
static int cards[3] = {0, 1, 2};
int nvmlInit_v2(void) { if (getenv("NVML_HANGS")) sleep(600); return getenv("NVML_FAILS") ? 9 : 0; }
int nvmlInitWithFlags(unsigned f) { return nvmlInit_v2(); }
int nvmlShutdown(void) { return 0; }
const char* nvmlErrorString(int code) { return "driver text"; }
int nvmlDeviceGetCount_v2(unsigned* n) { *n = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void** h) { *h = &cards[i]; return 0; }
int nvmlDeviceGetPowerUsage(void* h, unsigned* mw) {
    int i = *(int*)h; *mw = i == 0 ? 412500 : 71000; return i == 2 ? 3 : 0; }
int nvmlDeviceGetUtilizationRates(void* h, rates_t* r) { r->gpu = *(int*)h == 0 ? 97 : 0; r->memory = 0; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void* h, unsigned* n, process_t* p) {
    unsigned have = *(int*)h == 0 ? 2 : 0, room = *n; *n = have;
    if (have == 0) return 0;
    if (room < have || !p) return 7;
    memset(p, 0, have * sizeof *p); p[0].pid = 41; p[1].pid = 42; return 0; }
"""
ASK = """
import asyncio, json, sys
from pathlib import Path
from tidegate.runtime.telemetry import nvml_cards
nvml_cards.CALL_S = 1.0
cards = nvml_cards.NvmlCards("A01", Path(sys.argv[1]))
cards.host = "n1"
async def run():
    found = []
    for _ in range(2):
        try:
            heard = await cards.hear()
            found.append([[s.thing.name, s.thing.rack, s.thing.job, s.watts, s.busy] for s in heard.samples]
                         + heard.problems)
        except nvml_cards.NvmlError as why:
            found.append(str(why))
    print(json.dumps(found))
asyncio.run(run())
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "driver.c").write_text(DRIVER)
    words = [compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "driver.c"]
    subprocess.run(words, check=True)
    (folder / "41").mkdir()
    (folder / "41" / "cgroup").write_text("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n")
    (folder / "42").mkdir()
    (folder / "42" / "cgroup").write_text("0::/user.slice\n")
    (folder / "42" / "comm").write_text("train.py\n")
    return folder


def cards_of(driver, **more):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **more}
    done = subprocess.run([sys.executable, "-c", ASK, str(driver)], env=environment, capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cards_are_read_with_who_holds_them_and_one_without_power_is_named(driver):
    first, second = cards_of(driver)
    assert first == second and first[:2] == [["n1 GPU 0", "A01", "4711, train.py", 412.5, 0.97],
                                             ["n1 GPU 1", "A01", "", 71.0, 0.0]]  # fmt: skip
    assert "n1 GPU 2: says no power" in first[2]


def test_a_driver_that_fails_is_named_and_one_that_hangs_is_left_and_keeps_no_process_alive(driver):
    assert all("NVML: " in text for text in cards_of(driver, NVML_FAILS="1"))
    begun = time.monotonic()
    first, second = cards_of(driver, NVML_HANGS="1")
    assert "within 1 s" in first and "still has not answered" in second and time.monotonic() - begun < 110


def test_without_a_driver_the_source_says_so():
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    if list(nvml_cards.device_files()):
        pytest.skip("this machine has a card")
    with pytest.raises(NvmlError, match="NVML: "):
        asyncio.run(NvmlCards("", Path("/proc")).hear())


@pytest.mark.parametrize("more", [{"hosts": ("a",)}, {"url": "http://127.0.0.1:1"}, {"exporter": "dcgm"}])
def test_nvml_takes_no_host(more):
    assert Telemetry(name="gpus", kind="nvml").kind == "nvml"
    with pytest.raises(ValidationError, match="is not for nvml"):
        Telemetry(name="gpus", kind="nvml", **more)


# ---- through a Prometheus ----


@pytest.fixture
def web():
    one = Web()
    yield one
    one.close()


def ask(url, exporter, racks=()):
    return asyncio.run(PrometheusServer(url, exporter, Access(), dict(racks), 20.0).hear())


IPMI = b"""ipmi_dcmi_power_consumption_watts 412
ipmi_power_watts{id="7",name="PS1 Input"} 210
ipmi_power_watts{id="8",name="PS2 Input"} 205
ipmi_temperature_celsius{id="1",name="Inlet Temp"} 23.5
ipmi_temperature_celsius{id="2",name="CPU1 Temp"} 61
"""


def test_servers_are_read_from_what_the_ipmi_exporter_says(tmp_path, web):
    """The exporter's own metric names, through a real Prometheus."""
    web.pages["/metrics"] = IPMI
    with prometheus(tmp_path, web) as url:
        heard = eventually(lambda: ask(url, "ipmi", {"127.0.0.1": "A01"}), lambda one: one.samples)
    (sample,) = heard.samples
    assert (sample.watts, sample.thing.level, sample.thing.rack) == (412.0, "server", "A01") and not heard.problems
    assert {(one.what, one.value) for one in heard.readings} == {("inlet_c", 23.5), ("temp_c", 61.0)}


def vector(*rows):
    result = [{"metric": labels, "value": [1000.0, text]} for labels, text in rows]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_one_sensor_is_a_servers_power_and_several_are_named_and_not_added(web):
    one = ({"instance": "bmc1", "name": "Pwr Consumption"}, "300")
    two = [({"instance": "bmc2", "name": name}, "200") for name in ("PS1 Input", "PS2 Input")]
    web.pages["/api/v1/query"] = lambda path: vector(one, *two) if "ipmi_power" in path else vector()
    heard = ask(f"http://{web.host}", "ipmi")
    assert [(s.thing.name, s.watts) for s in heard.samples] == [("bmc1", 300.0)]
    assert "bmc2 has no DCMI power, and 2 sensors in watts that may overlap (PS1 Input, PS2 Input)" in heard.problems[0]


def test_hosts_of_opentelemetry_are_servers_and_their_parts_are_not(web):
    parts = [({"hw_type": "cpu", "hw_id": "cpu0"}, "90"), ({"hw_type": "host", "hw_id": "n2"}, "500")]
    whole = [({"host_name": "n1"}, "400"), ({"host_name": "n3"}, "-1")]
    web.pages["/api/v1/query"] = lambda path: vector(*whole) if "host_power" in path else vector(*parts)
    heard = ask(f"http://{web.host}", "otel", {"n2": "B02"})
    assert {(s.thing.name, s.watts, s.thing.rack) for s in heard.samples} == {("n1", 400.0, ""), ("n2", 500.0, "B02")}
    assert "n3 says -1 W" in heard.problems[0]
    web.pages["/api/v1/query"] = lambda path: vector() if "host_power" in path else vector(parts[0])
    with pytest.raises(HttpError, match="parts are never added up"):
        ask(f"http://{web.host}", "otel")
