"""The adapter of an island's devices: its file, foreign slaves by TCP and RTU, and the command beside a site."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import pytest

from tests.runtime.island.simulated_devices import FILE
from tests.runtime.planner.foreign_process import free_port, running, until
from tests.runtime.rtu_peer import Slaves, Wire
from tidegate.runtime.island.island_devices import IslandDevices, devices_safe, only_devices
from tidegate.runtime.island.island_metrics import metrics_text
from tidegate.runtime.island.island_unit import IslandFileError, read_island_file
from tidegate.runtime.island.order_desk import IslandError
from tidegate.runtime.supervisor.supervisor import Supervisor
from tidegate.runtime.tools.modbus_register import Lines, Register, RegisterError

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "tests" / "ext" / "bus"
CLI = [sys.executable, "-m", "tidegate.runtime.cli"]


# ---- the file ----


@pytest.mark.parametrize(("old", "new", "says"), [
    ("[unit]", "[unix]", r"\[unix\] is no table"), ('name = "yard"\n', "", "name = None"),
    ('name = "yard"', 'name = "../yard"', "write 1 to 32"), ("silent_s = 5", "silent_s = 0", "from 1 to 3600"),
    ("silent_s = 5", "silence_s = 5", "silence_s is no key"), ('host = "10.0.0.20"\n', "", "no host and no serial"),
    ("[genset.running]\nregister = 11\n", "[genset.runs]\nregister = 11\n", r"\[genset.running\]: is missing"),
    ("register = 10\n", "register = -1\n", "whole number from 0"),
    ('kind = "coil"', 'kind = "discrete"', "write coil, holding"),
    ('kind = "coil"', 'kind = "coil"\non = 2', "1 and 0"),
    ('kind = "coil"', "on = [1, 2]", "as many words"), ('kind = "coil"', "on = 1\noff = 1", "other ones"),
    ('kind = "coil"', "on = 70000", "from 0 to 65535"), ('kind = "coil"', 'reads_back = "no"', "true or false"),
    ("start_s = 60", 'start_s = 60\nwithout_word = "stop"', "keep or release"),
    ("start_s = 60", "start_s = nan", "start_s = nan"),
    ("nameplate_w = 10000", "nameplate_w = true", "write a number"), ("[[pv]]", "[pv]", "yard.toml: Cannot"),
    ('name = "barn"', 'name = "roof"', "two have one name"), ('unit_of = "percent"', "", "W or percent"),
    ("nameplate_w = 10000", "nameplate_w = 10000\nlimit_w_min = 9000\nlimit_w_max = 8000", "lower it"),
    ("nameplate_w = 10000", "nameplate_w = 10000\nsafe_w = 20000", "from 0 to 10000"),
    ("[pv.enable]\nregister = 99\n", '[pv.enable]\nregister = 99\nkind = "input"\n', "write coil, holding"),
    ("[unit]", "[unit", "yard.toml"),
])  # fmt: skip
def test_a_file_that_is_wrong_is_refused_with_its_place(tmp_path, old, new, says):
    path = tmp_path / "yard.toml"
    assert old in FILE
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(IslandFileError, match=says):
        read_island_file(path)


def test_a_file_without_a_device_allows_nothing_and_is_refused(tmp_path):
    path = tmp_path / "yard.toml"
    path.write_text(FILE.partition("[genset]")[0])
    with pytest.raises(IslandFileError, match="nothing may be written"):
        read_island_file(path)


def page_files():
    """The files that the page shows."""
    page = (ROOT / "docs" / "island-devices.md").read_text()
    return re.findall(r"```toml\n(.*?)```", page, flags=re.S)


def test_an_adapter_is_the_only_one_of_its_unit_and_the_guard_of_another_leaves_it_alone(tmp_path):
    path = tmp_path / "yard.toml"
    path.write_text(page_files()[0])
    held = only_devices(tmp_path, "yard")
    with pytest.raises(IslandError, match="an adapter of the unit yard runs already"):
        only_devices(tmp_path, "yard")
    (tmp_path / "island-claim-yard.json").write_text(
        '{"genset": [false, 0, true, []], "pv": {"roof": [100, 0, 40, 40]}}'
    )
    assert devices_safe(tmp_path, path, os.getpid() + 1) == ""
    assert devices_safe(tmp_path, path, os.getpid(), dry_run=True) == ""
    held.close()
    only_devices(tmp_path, "yard").close()


# ---- foreign slaves ----


def at(line, unit_of_it=1):
    """A page's file on another line; libmodbus' server has one unit."""
    return re.sub(r"^(host|serial|baud|parity) = .*\n", "", page_files()[0], flags=re.M).replace(
        "[genset]\nunit = 1 ", f"{line}\n[genset]\nunit = {unit_of_it} "
    ).replace('name = "roof"\nunit = 2', f'name = "roof"\nunit = {unit_of_it}')  # fmt: skip


@pytest.fixture(params=["tcp", "rtu"])
def foreign(request, tmp_path):
    """(file, reader of a register) of a libmodbus server that holds genset and inverter."""
    if not shutil.which("cc") or not Path("/usr/include/modbus/modbus.h").exists():
        pytest.skip("libmodbus is not installed here (Debian package libmodbus-dev) or there is no C compiler")
    tcp = request.param == "tcp"
    source = SOURCES / ("libmodbus_tcp_server.c" if tcp else "libmodbus_server.c")
    subprocess.run(["cc", "-O1", "-o", tmp_path / "server", source, "-lmodbus"], check=True)
    wire, port = Wire(), free_port()
    where = {"host": "127.0.0.1", "port": port} if tcp else {"serial": wire.client, "baud": 115200}
    line = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {**where, "ask_s": 5}.items())
    path = tmp_path / "yard.toml"
    path.write_text(at(line))

    def read(register, kind="holding"):
        with Lines(5.0) as lines:
            return lines.read(Register(register, **where, kind=kind))

    def write(register, value, kind="holding"):
        with Lines(5.0) as lines:
            lines.write(Register(register, **where, kind=kind), value)

    with running(str(tmp_path / "server"), str(port) if tcp else wire.server, cwd=tmp_path):
        until(lambda: read(1) == 1, "the server does not answer", despite=(RegisterError,))
        write(99, 0)
        write(100, 100)
        yield path, read, write
    wire.close()


def said(island, wanted, limit_w=None):
    rows = {"site.island": [island, 1], "site.genset_wanted": [wanted, 1], "site.pv_limit_w": [limit_w, 1]}
    return lambda: {"points": rows, "ages_ms": dict.fromkeys(rows, 1.0)}


def test_the_page_s_file_starts_limits_and_gives_back_on_a_foreign_slave(tmp_path, foreign):
    path, read, write = foreign
    write(10, 0, "coil")
    clock = [0.0]
    devices = IslandDevices(read_island_file(path), tmp_path, said(2, 1, 4_000.0), monotonic=lambda: clock[0],
                            utc=lambda: 1.8e9 + clock[0])  # fmt: skip
    devices.round()
    assert (read(10, "coil"), read(99), read(100)) == (1, 1, 40)
    devices.hear = said(0, 0)
    for clock[0] in (1.0, 601.0, 632.0):
        devices.round()
    assert (read(10, "coil"), read(99), read(100)) == (0, 0, 100) and not devices.desk.limits
    rows = [json.loads(line) for line in (tmp_path / "island-audit-yard.jsonl").read_text().splitlines()]
    assert [row["became"] for row in rows] == ["asked"] * 4


def test_a_device_without_the_registers_of_the_file_refuses_by_name(tmp_path, foreign):
    path, _, _ = foreign
    path.write_text(path.read_text().replace("register = 10\n", "register = 5000\n").replace("= 100\n", "= 6000\n"))
    devices = IslandDevices(read_island_file(path), tmp_path, said(2, 1, 4_000.0))
    devices.round()
    assert any("coil 5000" in text for text in devices.doubts.values())
    assert any("holding register 6000" in text for text in devices.doubts.values())
    assert not devices.desk.limits


def test_the_page_s_words_reach_a_controller_on_a_serial_line(tmp_path):
    wire = Wire()
    slaves = Slaves(wire.server, {1: {3: {4104: 0, 4105: 0, 1030: 0}}}, baud=19200)
    path = tmp_path / "diesel.toml"
    path.write_text(page_files()[1].replace("/dev/ttyUSB1", wire.client))
    try:
        devices = IslandDevices(read_island_file(path), tmp_path, said(1, 1))
        devices.round()
        with Lines() as lines:
            found = [lines.read(Register(k, serial=wire.client, baud=19200, type="uint16")) for k in (4104, 4105)]
        assert found == [35705, 29830] and devices.desk.genset.confirmed and not devices.doubts
    finally:
        slaves.close()
        wire.close()


# ---- the command ----


def island_site():
    """config/sites/island.toml without what happens there, and with a genset that may be released at once."""
    text = Path(str(files("tidegate.config").joinpath("sites/island.toml"))).read_text()
    head = text.partition("[simulation]")[0].replace("run_s_min = 600", "run_s_min = 1")
    return head + "[simulation]\nload_w = 25000\ngenset_start_s = 2\n"


def test_the_command_follows_a_site_that_runs_and_after_a_kill_the_guard_leaves_all_safe(tmp_path, foreign):
    """kill -9, the guard, a second start, Ctrl-C; the genset keeps running, as the page's file has it."""
    path, read, write = foreign
    if read(10, "coil"):
        write(10, 0, "coil")
    text = re.sub(r"^safe_w .*\n", "", path.read_text(), flags=re.M).replace(
        "nameplate_w = 10000", "nameplate_w = 100000"
    )
    path.write_text(text)
    site = tmp_path / "island.toml"
    site.write_text(
        island_site() + 'contact = [{ input = "transfer", does = "active", at_s = 5, for_s = 3000 }]\n'
        'faults = [{ kind = "island", on_s = 5, off_s = 3005 }]\n'
    )
    supervisor = Supervisor(str(site), runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=print)
    port, folder = free_port(), tmp_path / "devices"
    words = [*CLI, "island-devices", "run", "--endpoint", supervisor.endpoint, "--folder", str(folder)]
    words += ["--unit", str(path)]
    status = [*CLI, "island-devices", "status", "--folder", str(folder)]
    out = tmp_path / "out"
    with supervisor, supervisor.client() as client:
        with running(*words, "--port", str(port), cwd=tmp_path) as adapter:
            until(lambda: read(10, "coil") == 1, out.read_text(), despite=(RegisterError,))
            until(lambda: json.loads((folder / "island-status-yard.json").read_text())["genset"]["asked"], "no status",
                  despite=(OSError, ValueError))  # fmt: skip
            shown = subprocess.run(status, capture_output=True, text=True, check=True).stdout
            assert "genset: started by us" in shown and "roof: " in shown
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
            assert 'tidegate_island_genset_asked{unit="yard"} 1' in metrics
            until(lambda: read(99) == 1 and read(100) < 60, "PV is not limited", despite=(RegisterError,))
            adapter.kill()
            until(lambda: (read(99), read(100)) == (0, 100), "the guard does not put it back", despite=(RegisterError,))
            assert read(10, "coil") == 1, "the genset keeps running"
        until(lambda: json.loads((folder / "island-claim-yard.json").read_text())["pv"] == {}, "the claim stays")
        with running(*words, cwd=tmp_path) as adapter:
            old = json.loads((folder / "island-status-yard.json").read_text())["utc_s"]
            until(lambda: json.loads((folder / "island-status-yard.json").read_text())["utc_s"] > old, out.read_text())
            rows = [json.loads(line) for line in (folder / "island-audit-yard.jsonl").read_text().splitlines()]
            assert [row for row in rows if row["what"] == "genset"][1:] == [], "not started a second time"
            adapter.send_signal(signal.SIGINT)
            assert adapter.wait(120) == 0
        notes = [row for row in client.replay("event")[0] if row["event"] == "note"]
        assert any("genset: start (asked)" in row["detail"] for row in notes)
    assert read(10, "coil") == 1


def test_metrics_have_no_row_for_what_is_not_known():
    row = {"name": "roof", "reached": False, "limit_w": None, "power_w": None, "obeys": True}
    text = metrics_text("yard", {"utc_s": 1_800_000_000, "island": None, "genset": None, "pv": [row], "doubts": ["a"]})
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    assert rows == [
        'tidegate_island_round_time_seconds{unit="yard"} 1800000000', 'tidegate_island_site_heard{unit="yard"} 0',
        'tidegate_island_doubts{unit="yard"} 1', 'tidegate_island_pv_obeys{unit="yard",inverter="roof"} 1',
    ]  # fmt: skip


def test_status_without_an_adapter_and_with_an_old_one_says_so(tmp_path):
    status = [*CLI, "island-devices", "status", "--folder", str(tmp_path)]
    none = subprocess.run(status, capture_output=True, text=True)
    assert none.returncode == 69 and "no adapter has run here yet" in none.stderr
    path = tmp_path / "yard.toml"
    path.write_text(page_files()[0].replace('host = "10.0.0.20"', f'host = "127.0.0.1"\nport = {free_port()}'))
    IslandDevices(read_island_file(path), tmp_path, said(0, 0), utc=lambda: time.time() - 3600).round()
    shown = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert "no round since: is it running?" in shown and "doubt: roof: 127.0.0.1" in shown and "reads nothing" in shown
