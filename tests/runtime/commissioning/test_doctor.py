"""`tidegate doctor`: each finding on machines made of files, the command on this one."""

import json
import os
import pty
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate.config.site import Can, Serial
from tidegate.runtime.cli.doctor_command import doctor, latency_words
from tidegate.runtime.commissioning import bus_checks, latency, machine, separation, storage
from tidegate.runtime.commissioning.machine import COSTS, FIX, OK, Machine

SIMULATED = Path(__file__).parents[3] / "config/sites/simulated.toml"


def board(root: Path, files: dict[str, str], **rights) -> Machine:
    """A machine made of files below a folder."""
    for name, text in {"sys/devices/system/cpu/online": "0-3\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    asked = {"rtprio": lambda: 95, "memlock": lambda: -1, "may_lock": lambda: True, **rights}
    return Machine(root, **asked)


CPU = "sys/devices/system/cpu/"
GOOD = {
    "sys/kernel/realtime": "1\n",
    "proc/sys/kernel/osrelease": "6.1.0-rt\n",
    f"{CPU}isolated": "3\n",
    f"{CPU}cpu0/cpufreq/scaling_governor": "performance\n",
    "proc/irq/24/effective_affinity_list": "0\n",
}


def test_a_good_board_is_called_good(tmp_path):
    found = machine.look(board(tmp_path, GOOD))
    assert {one.topic: one.verdict for one in found if one.topic != "clock"} == dict.fromkeys(
        ["kernel", "rt priority", "locked memory", "governor", "cpu isolation", "interrupts", "idle states"], OK
    )
    assert not any(one.remedy for one in found if one.topic != "clock")


@pytest.mark.parametrize(
    ("topic", "files", "rights", "verdict", "remedy"),
    [
        ("kernel", {"sys/kernel/realtime": "0", "proc/version": "SMP PREEMPT_DYNAMIC"}, {}, COSTS, "linux-image-rt"),
        ("rt priority", {}, {"rtprio": lambda: 0}, FIX, "rtprio 95"),
        ("locked memory", {}, {"memlock": lambda: 65536, "may_lock": lambda: False}, FIX, "memlock unlimited"),
        ("governor", {f"{CPU}cpu0/cpufreq/scaling_governor": "powersave"}, {}, COSTS, "echo performance"),
        ("cpu isolation", {f"{CPU}isolated": ""}, {}, COSTS, "isolcpus=managed_irq,domain,3"),
        ("cpu isolation", {f"{CPU}online": "0"}, {}, COSTS, "board"),
        ("interrupts", {"proc/irq/31/effective_affinity_list": "3"}, {}, COSTS, "irqaffinity=0,1,2"),
    ],
)
def test_what_a_board_lacks_is_said_with_the_command(tmp_path, topic, files, rights, verdict, remedy):
    found = {one.topic: one for one in machine.look(board(tmp_path, {**GOOD, **files}, **rights))}
    assert found[topic].verdict == verdict and remedy in found[topic].remedy
    others = {name: one.verdict for name, one in found.items() if name not in (topic, "clock")}
    assert set(others.values()) == {OK}


def test_a_preempt_rt_kernel_is_known_by_its_version_too(tmp_path):
    text = "Linux version 6.1.0-13-rt-amd64 #1 SMP PREEMPT_RT Debian"
    assert machine.kernel(board(tmp_path, {"proc/version": text})).verdict == OK


def test_deep_idle_matters_only_where_it_cannot_be_held_off(tmp_path):
    idle = f"{CPU}cpu0/cpuidle/state3/"
    files = {f"{idle}latency": "890", f"{idle}name": "C6", f"{idle}disable": "0"}
    found = machine.idle_states(board(tmp_path, files))
    assert found.verdict == COSTS and "C6 takes 890 us" in found.says
    assert machine.idle_states(board(tmp_path, {**files, f"{idle}disable": "1"})).verdict == OK
    assert machine.idle_states(board(tmp_path, {**files, "dev/cpu_dma_latency": ""})).verdict == OK


def test_a_clock_that_nobody_disciplines_costs(tmp_path):
    assert machine.clock_words(5, 0x40, 16_000_000).remedy == "apt install chrony"
    assert machine.clock_words(0, 0, 2_500_000).verdict == COSTS
    assert machine.clock_words(0, 0, 800).verdict == OK


# ------------------------------------------------------------------------------------------------- buses


@pytest.mark.parametrize(("landlock", "filters", "uid", "verdict", "words"), [
    (6, True, 998, OK, "one user, parted by Landlock 6"),
    (7, True, 998, OK, "Landlock 7"),
    (0, True, 998, COSTS, "no Landlock"),
    (2, True, 998, COSTS, "not TCP"),
    (5, True, 998, COSTS, "does not bound signals"),
    (6, False, 998, COSTS, "no filter of calls"),
    (6, True, 0, COSTS, "root"),
])  # fmt: skip
def test_what_parts_the_processes_is_said(landlock, filters, uid, verdict, words):
    found = separation.look(landlock=landlock, filters=filters, uid=uid, own_users=False)
    assert (found.verdict, bool(found.remedy)) == (verdict, verdict == COSTS) and words in found.says
    assert "one user" in found.says, "that users do not part them is said wherever it is asked"
    parted = separation.look(landlock=landlock, filters=filters, uid=uid, own_users=True)
    assert parted.verdict == verdict and "one user" not in parted.says and "where the unit starts it" in parted.says


def test_a_missing_port_and_a_file_are_to_be_fixed(tmp_path):
    plain = tmp_path / "file"
    plain.write_text("")
    for where, said in (
        ("/dev/ttyNOPE", "No such file"),
        (str(plain), "not a serial port"),
        ("/dev/null", "not a serial"),
    ):
        (found,) = bus_checks.serial(Serial(name="x", device=where))
        assert found.verdict == FIX and said in found.says and found.remedy


def test_an_ftdi_adapter_that_holds_bytes_costs(tmp_path):
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    knob = tmp_path / "bus/usb-serial/devices" / Path(name).name / "latency_timer"
    knob.parent.mkdir(parents=True)
    knob.write_text("16\n")
    found = bus_checks.serial(Serial(name="x", device=name), str(tmp_path))[0]
    assert found.verdict == COSTS and "16 ms" in found.says and "latency_timer" in found.remedy
    knob.write_text("1\n")
    assert bus_checks.serial(Serial(name="x", device=name), str(tmp_path))[0].verdict == OK
    os.close(master)
    os.close(slave)


UP = {"flags": ["UP"], "linkinfo": {"info_kind": "can", "info_data": {
    "state": "ERROR-ACTIVE", "bittiming": {"bitrate": 500000}, "berr_counter": {"tx": 0, "rx": 0}}}}  # fmt: skip


def interface(state="ERROR-ACTIVE", rate=500000, rx=0, flags=("UP",)):
    data = {"state": state, "bittiming": {"bitrate": rate}, "berr_counter": {"tx": 0, "rx": rx}}
    return {"flags": list(flags), "linkinfo": {"info_kind": "can", "info_data": data}}


@pytest.mark.parametrize(
    ("said", "verdict", "remedy"),
    [
        (interface(), OK, ""),
        (interface(flags=()), FIX, "ip link set can0 up type can bitrate 500000"),
        (interface(rate=250000), FIX, "down; ip link set can0 up"),
        (interface(state="BUS-OFF"), FIX, "termination"),
        (interface(state="ERROR-WARNING", rx=97), COSTS, "termination"),
    ],
)
def test_a_can_interface_is_judged_by_what_ip_says(said, verdict, remedy):
    (found,) = bus_checks.can_words(Can(name="bms", interface="can0"), said)
    assert found.verdict == verdict and remedy in found.remedy


def test_a_can_interface_that_is_not_there_is_to_be_fixed():
    (found,) = bus_checks.can(Can(name="bms", interface="cannone9"))
    assert found.verdict == FIX or "iproute2" in found.remedy
    (found,) = bus_checks.can(Can(name="bms", interface="slcan:/dev/ttyNOPE"))
    assert found.verdict == FIX and "no such device" in found.says


# ------------------------------------------------------------------------------------------------- disk, latency


def test_folders_open_to_everybody_are_to_be_fixed(tmp_path):
    tmp_path.chmod(0o757)
    assert storage.folder("state folder", tmp_path).remedy == f"chmod o-w {tmp_path}"
    tmp_path.chmod(0o750)
    assert storage.folder("state folder", tmp_path).verdict == OK
    assert "will be made" in storage.folder("state folder", tmp_path / "a/b").says


def test_a_disk_smaller_than_the_journal_costs(tmp_path):
    room, sync = storage.disk(tmp_path, 10**9)
    assert room.verdict == COSTS and "journal_mb_max" in room.remedy
    assert sync.values["max_ms"] >= sync.values["median_ms"] > 0


def test_a_disk_that_takes_no_files_is_to_be_fixed():
    found = storage.sync_time(Path("/proc"))
    assert found.verdict == FIX and found.topic == "disk sync"


@pytest.mark.parametrize(("worst_us", "verdict"), [(40, OK), (250, OK), (900, COSTS), (4000, COSTS)])
def test_latency_bands_say_what_the_worst_cycle_means(worst_us, verdict):
    row = {"p50_us": 5.0, "p99_us": 20.0, "max_us": float(worst_us)}
    found = latency_words({"loop": row, "cyclictest": None, "fifo": True, "ratio_p99": None})
    assert found.verdict == verdict and f"{worst_us} us at worst" in found.says and "rt-tests" in found.says


def test_bands_are_in_order_and_end_with_everything():
    limits = [limit for limit, _, _ in latency.BANDS]
    assert limits == sorted(limits) and latency.band(1e12)[0] == COSTS


# ------------------------------------------------------------------------------------------------- the command


def test_doctor_measures_the_loop_and_says_it_as_json():
    done = CliRunner().invoke(doctor, [str(SIMULATED), "--json", "--seconds", "0.6"])
    said = json.loads(done.stdout)
    worst = {one["verdict"] for one in said["findings"]}
    assert done.exit_code == said["exit_code"] == (2 if FIX in worst else 1 if COSTS in worst else 0)
    found = {one["topic"]: one for one in said["findings"]}
    assert found["site file"]["verdict"] == found["serial meters"]["verdict"] == found["can bms"]["verdict"] == OK
    measured = found["latency"]["values"]
    assert 0 < measured["loop"]["p50_us"] <= measured["loop"]["p99_us"] <= measured["loop"]["max_us"]


def test_doctor_of_a_wrong_site_file_says_so_and_goes_on(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text("schema = 1\n")
    done = CliRunner().invoke(doctor, [str(path), "--seconds", "0"])
    assert done.exit_code == 2 and f"fix       site file: {path}" in done.output and "kernel:" in done.output
    assert f"tidegate check {path}" in done.output


def test_doctor_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TIDEGATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TIDEGATE_RUNTIME_DIR", str(tmp_path / "run"))
    CliRunner().invoke(doctor, [str(SIMULATED), "--seconds", "0"])
    assert not list(tmp_path.iterdir())
