"""Idle machines sleep and wake: against machines of the test's own, a Redfish emulator, an IPMI one, a real Slurm."""

import importlib.util
import json
import shutil
import socket
import sys
import time
from functools import partial

import pytest

from tests.runtime.planner import foreign_process, slurm_node
from tests.runtime.planner.foreign_process import free_port, running
from tidegate.runtime.carbon.live.idle_energy import servers_at_rest
from tidegate.runtime.planner.node_power import BETWEEN, OFF, ON, Node, NodeError, SlurmPower, power_of, read_nodes
from tidegate.runtime.planner.node_sleep import NodeSleep, SleepAllowed, wake_all
from tidegate.runtime.telemetry.energy_store import BUCKET_S, FILE, EnergyStore, Row

NOW = 1_800_000_000


class Machine:
    """Goes off and on when it is asked, a look later."""

    def __init__(self):
        self.is_on, self.work, self.refuses, self.asked = True, "", "", []

    def state(self):
        return ON if self.is_on else OFF

    def busy(self):
        return self.work

    def order(self, word, on):
        self.asked.append(word)
        if self.refuses:
            raise NodeError(self.refuses)
        self.is_on = on

    def sleep(self):
        self.order("sleep", False)

    def wake(self):
        self.order("wake", True)


class Hall:
    """Three machines at rest, and a plan whose advice the test gives."""

    def __init__(self, folder, **allowed):
        self.folder, self.machines = folder, {name: Machine() for name in ("n1", "n2", "n3")}
        self.at_rest = {"n1": 300.0, "n2": 500.0, "n3": 400.0}
        self.allowed = SleepAllowed(**{"asleep_max": 2, **allowed})
        self.start()

    def start(self):
        nodes = tuple(Node(name, "slurm", name) for name in self.machines)
        self.adapter = NodeSleep(nodes, self.folder, self.allowed, lambda now: self.at_rest, powers=dict(self.machines))

    def advise(self, word, at=NOW):
        (self.folder / "planner.json").write_text(json.dumps({"planned_utc_s": int(at), "advice": {"word": word}}))

    @property
    def off(self):
        return [name for name, one in self.machines.items() if not one.is_on]

    def audit(self):
        rows = [json.loads(line) for line in (self.folder / "node-sleep-audit.jsonl").read_text().splitlines()]
        return [(row["node"], row.get("order", ""), row["became"].partition(":")[0]) for row in rows]


@pytest.fixture
def hall(tmp_path):
    return Hall(tmp_path)


def test_the_idle_ones_that_draw_most_sleep_while_work_may_wait_and_all_wake_when_it_says_run(hall):
    hall.advise("may wait")
    hall.adapter.round(NOW)
    assert hall.off == ["n2", "n3"], "two at most, those that draw most"
    hall.adapter.round(NOW + 30)
    hall.advise("run")
    hall.adapter.round(NOW + 60)
    assert hall.off == []
    hall.adapter.round(NOW + 90)
    assert hall.adapter.asleep == {} and json.loads((hall.folder / "node-sleep.json").read_text()) == {}
    hall.advise("shed")
    hall.adapter.round(NOW + 120)
    assert hall.off == ["n1"], "what has just woken stays awake for a while"
    assert hall.audit()[:4] == [("n2", "sleep", "asked"), ("n3", "sleep", "asked"), ("n2", "wake", "asked"),
                                ("n3", "wake", "asked")]  # fmt: skip


@pytest.mark.parametrize("gone", ["no status", "old", "spoiled", "let go"])
def test_without_a_plan_all_wake_and_none_sleeps(hall, gone):
    hall.advise("may wait")
    hall.adapter.round(NOW)
    assert hall.off == ["n2", "n3"]
    if gone == "no status":
        (hall.folder / "planner.json").unlink()
    elif gone == "spoiled":
        (hall.folder / "planner.json").write_text("{")
    hall.adapter.round(NOW + (5000 if gone == "old" else 30), let_go=gone == "let go")
    assert hall.off == []
    hall.adapter.round(NOW + 5100)
    assert hall.adapter.asleep == {} and hall.off == []


def test_what_works_or_is_not_at_rest_or_is_the_last_one_awake_does_not_sleep(tmp_path):
    hall = Hall(tmp_path, asleep_max=9, awake_min=2)
    hall.advise("may wait")
    hall.machines["n2"].work = "Slurm has it as ALLOCATED"
    del hall.at_rest["n3"]
    hall.adapter.round(NOW)
    assert hall.off == ["n1"] and any("n2" in text and "stays awake" in text for text in hall.adapter.doubts)
    hall.machines["n2"].work = ""
    hall.adapter.round(NOW + 30)
    assert hall.off == ["n1"], "two are to be awake"


def test_a_dry_run_writes_down_once_and_orders_nothing(tmp_path):
    hall = Hall(tmp_path, dry_run=True)
    hall.advise("may wait")
    for _ in range(3):
        hall.adapter.round(NOW)
    assert hall.off == [] and hall.audit() == [("n2", "sleep", "dry run"), ("n3", "sleep", "dry run")]


def test_a_machine_that_was_off_or_that_somebody_woke_is_theirs(hall):
    hall.machines["n2"].is_on = False
    hall.advise("may wait")
    hall.adapter.round(NOW)
    assert set(hall.adapter.asleep) == {"n3"}, "n2 is off by somebody else, n1 is the one that stays awake"
    hall.adapter.round(NOW + 30)
    hall.machines["n3"].is_on = True  # by its owner
    hall.at_rest.clear()
    hall.adapter.round(NOW + 60)
    assert hall.adapter.asleep == {}
    hall.adapter.round(NOW + 90, let_go=True)
    assert hall.machines["n2"].asked == [] and hall.off == ["n2"]


def test_what_refuses_is_named_and_asked_again_and_what_never_ends_is_left_alone(hall):
    hall.advise("may wait")
    hall.adapter.round(NOW)
    hall.machines["n2"].refuses = "node n2: no answer"
    hall.advise("run")
    hall.adapter.round(NOW + 30)
    assert hall.off == ["n2"] and "node n2: no answer" in hall.adapter.doubts
    hall.machines["n2"].refuses = ""
    hall.adapter.round(NOW + 60)
    assert hall.off == []
    hall.advise("may wait", NOW + 10_000)
    hall.machines["n1"].order = lambda word, on: None  # asked, and nothing happens
    del hall.at_rest["n2"], hall.at_rest["n3"]
    hall.adapter.round(NOW + 10_000)
    hall.advise("may wait", NOW + 11_000)
    hall.adapter.round(NOW + 11_000)
    assert hall.adapter.asleep == {} and any("n1 was asked to sleep 15 min ago" in one for one in hall.adapter.doubts)


def test_a_start_after_a_kill_knows_who_sleeps_by_our_order(hall):
    hall.advise("may wait")
    hall.adapter.round(NOW)
    hall.start()
    (hall.folder / "planner.json").unlink()
    hall.adapter.round(NOW + 30)
    assert hall.off == []
    (hall.folder / "node-sleep.json").write_text("{")
    with pytest.raises(NodeError, match="who sleeps by our order is not known"):
        hall.start()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing may sleep"),
        ("[[node]]\nname='a'", "one of slurm, redfish, ipmi"),
        ("[[node]]\nname='a'\nslurm='a'\nipmi='b'", "one of slurm, redfish, ipmi"),
        ("[[node]]\nname='a'\nslurm='a b'", "one node's name"),
        ("[[node]]\nname='a'\nslurm='a'\nspeed=1", "speed is no key"),
        ("[[node]]\nname='a'\nredfish='http://10.0.0.1/redfish/v1/Systems/1'", "password in the clear"),
        ("[[node]]\nname='a'\nredfish='https://10.0.0.1/redfish'", "/redfish/v1/Systems/ID"),
        ("[[node]]\nname='a'\nipmi='10.0.0.1'", "user and password_file"),
        ("[[node]]\nname='a'\nslurm='a'\n[[node]]\nname='a'\nslurm='b'", "there already"),
        ("[[node]", "nodes.toml"),
    ],
)
def test_a_file_of_machines_that_is_wrong_is_refused(tmp_path, text, said):
    (tmp_path / "nodes.toml").write_text(text)
    with pytest.raises(NodeError, match=said):
        read_nodes(tmp_path / "nodes.toml")


# ---- who is at rest ----


def test_at_rest_is_who_was_seen_to_rest_in_each_five_minutes_to_the_newest(tmp_path):
    store = EnergyStore(tmp_path / FILE)
    begin = NOW // BUCKET_S * BUCKET_S

    def rows(host, buckets, working=()):
        for k in buckets:
            at = begin + k * BUCKET_S
            job = "train" if k in working else ""
            yield Row(at, "s", "room", "server", host, host, "A", "", "", 25_000, 0, 0, BUCKET_S)
            yield Row(at, "g", "room", "card", f"{host}-g", host, "A", "ml" if job else "", job, 5_000,
                      0 if job else 5_000, 0, BUCKET_S)  # fmt: skip

    store.put([*rows("rests", range(12)), *rows("worked", range(12), {3}), *rows("late", range(11)),
               *rows("begins", range(13), {12})], [], [])  # fmt: skip
    store.put([Row(begin, "s", "room", "server", "unknown", "unknown", "A", "", "", 1, 0, 0, BUCKET_S)], [], [])
    now = begin + 12 * BUCKET_S + 60
    assert servers_at_rest(store, now, 3600) == {"rests": pytest.approx(300.0)}
    assert set(servers_at_rest(store, now, 1800)) == {"rests", "worked"}
    assert servers_at_rest(store, now + BUCKET_S, 3600) == {}, "the newest five minutes are not told yet"
    store.close()


# ---- real ways ----


until = partial(foreign_process.until, despite=(NodeError,))


def sleeps_and_wakes(folder, node):
    """The whole adapter over one machine: it sleeps, and the guard's function wakes it."""
    power = power_of(node)
    until(lambda: power.state() == ON, "the emulator did not start")
    (folder / "planner.json").write_text(json.dumps({"planned_utc_s": NOW, "advice": {"word": "may wait"}}))
    allowed = SleepAllowed(awake_min=0)
    adapter = NodeSleep((node,), folder, allowed, lambda now: {node.name: 300.0})
    adapter.round(NOW)
    assert adapter.doubts == []
    until(lambda: power.state() == OFF, "it does not sleep")
    lines = [f"{key} = {json.dumps(value)}" for key, value in (("name", node.name), (node.way, node.address),
             ("port", node.port), ("user", node.user), ("password_file", node.password_file)) if value]  # fmt: skip
    (folder / "nodes.toml").write_text("[[node]]\n" + "\n".join(lines) + "\n")
    until(lambda: wake_all(folder, folder / "nodes.toml") == "", "it does not wake")
    assert power.state() == ON


@pytest.mark.skipif(importlib.util.find_spec("sushy_tools") is None, reason="sushy-tools is not installed")
def test_a_system_of_a_redfish_emulator_sleeps_and_wakes(tmp_path):
    port, uuid = free_port(), "11111111-1111-1111-1111-111111111111"
    (tmp_path / "emulator.conf").write_text(
        f"SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n"
        f"SUSHY_EMULATOR_STATE_DIR = {str(tmp_path)!r}\n"
        f"SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{uuid}', 'name': 'n1', 'power_state': 'On', 'nics': []}}]\n"
    )
    code = "import sys; from sushy_tools.emulator.main import main; sys.argv[0] = 'sushy-emulator'; sys.exit(main())"
    with running(sys.executable, "-c", code, "--fake", "--config", str(tmp_path / "emulator.conf"), cwd=tmp_path):
        node = Node("n1", "redfish", f"http://127.0.0.1:{port}/redfish/v1/Systems/{uuid}")
        sleeps_and_wakes(tmp_path, node)
        with pytest.raises(NodeError, match="404"):
            power_of(Node("n2", "redfish", f"http://127.0.0.1:{port}/redfish/v1/Systems/none")).state()
    with pytest.raises(NodeError, match="n1"):
        power_of(node).state()


def the_command_puts_it_to_sleep_and_after_a_kill_the_guard_wakes_it(folder):
    state, plan = folder / "site", {"planned_utc_s": int(time.time()), "advice": {"word": "may wait"}}
    state.mkdir()
    store, now = EnergyStore(state / FILE), int(time.time()) // BUCKET_S * BUCKET_S
    for at in range(now - 14 * BUCKET_S, now + 8 * BUCKET_S, BUCKET_S):
        server = Row(at, "s", "room", "server", "n1", "n1", "A", "", "", 25_000, 0, 0, BUCKET_S)
        card = Row(at, "g", "room", "card", "n1-g", "n1", "A", "", "", 5_000, 5_000, 0, BUCKET_S)
        store.put([server, card], [], [])
    store.close()
    (folder / "planner.json").write_text(json.dumps(plan))
    nodes = str(folder / "nodes.toml")
    words = ["planner", "node-sleep", "--endpoint", f"ipc://{folder}", "--timeout", "0.2", "--folder", str(folder)]
    words += ["--state", str(state), "--nodes", nodes, "--awake-min", "0", "--every", "1"]
    with running(sys.executable, "-m", "tidegate.runtime.cli", *words, cwd=folder) as adapter:
        until(lambda: (folder / "power").read_text() == "0\n", "the command does not put it to sleep")
        until(lambda: (folder / "doubts-node-sleep.json").exists(), "the command does not speak")
        adapter.kill()
        until(lambda: (folder / "power").read_text() == "1\n", "the guard does not wake it")
        until(lambda: json.loads((folder / "node-sleep.json").read_text()) == {}, "the guard does not look after it")


IPMI_LAN = """name "sim"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{folder}/chassis.sh 0x20"
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "ops" "secret" admin 10 none md2 md5 straight
"""
IPMI_MC = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
# The chassis behind the BMC: "get power" and "set power N" or "set shutdown N", each after the BMC's own address.
CHASSIS = """#!/bin/sh
case "$2 $3" in
  "get power") echo "power:$(cat {folder}/power)";;
  "set power") echo "$4" > {folder}/power;;
  "set shutdown") echo 0 > {folder}/power; echo soft >> {folder}/ends;;
esac
"""


@pytest.mark.skipif(not (shutil.which("ipmi_sim") and shutil.which("ipmitool")), reason="openipmi is not installed")
def test_a_machine_of_an_ipmi_emulator_sleeps_and_wakes(tmp_path):
    port = free_port()
    (tmp_path / "lan.conf").write_text(IPMI_LAN.format(port=port, folder=tmp_path))
    (tmp_path / "sim.emu").write_text(IPMI_MC)
    (tmp_path / "chassis.sh").write_text(CHASSIS.format(folder=tmp_path))
    (tmp_path / "chassis.sh").chmod(0o755)
    (tmp_path / "power").write_text("1\n")
    (tmp_path / "password").write_text("secret\n")
    words = ("ipmi_sim", "-c", "lan.conf", "-f", "sim.emu", "-s", str(tmp_path / "state"), "-n")
    with running(*words, cwd=tmp_path):
        node = Node("n1", "ipmi", "127.0.0.1", port, "ops", str(tmp_path / "password"))
        sleeps_and_wakes(tmp_path, node)
        assert (tmp_path / "ends").read_text() == "soft\n", "its operating system is asked, its power is not cut"
        the_command_puts_it_to_sleep_and_after_a_kill_the_guard_wakes_it(tmp_path)
        (tmp_path / "password").write_text("wrong\n")
        with pytest.raises(NodeError, match="ipmitool"):
            power_of(node).state()


@pytest.mark.skipif(bool(slurm_node.missing()), reason=slurm_node.missing() or "all there")
def test_a_node_of_a_real_slurm_is_powered_down_by_slurm_s_own_programs_and_up_again(tmp_path, monkeypatch):
    saving = (
        f"\nSuspendProgram={tmp_path}/suspend.sh\nResumeProgram={tmp_path}/resume.sh\nSuspendTime=86400\n"
        "SuspendTimeout=5\nResumeTimeout=60\n"
    )
    for name in ("suspend", "resume"):
        (tmp_path / f"{name}.sh").write_text(f"#!/bin/sh\necho {name} $1 >> {tmp_path}/programs\n")
        (tmp_path / f"{name}.sh").chmod(0o755)
    monkeypatch.setattr(slurm_node, "CONF", slurm_node.CONF.replace("MinJobAge=2\n", "MinJobAge=2" + saving))
    with slurm_node.SlurmNode(tmp_path / "slurm") as slurm:
        name = socket.gethostname().partition(".")[0]
        power = SlurmPower(name, slurm.words)
        assert (power.state(), power.busy()) == (ON, "")
        job = slurm.submit(600)
        until(lambda: "ALLOCATED" in power.busy() or "MIXED" in power.busy(), "a job makes it busy")
        slurm.ask("scancel", str(job))
        until(lambda: power.busy() == "", "it is idle again")
        node = Node(name, "slurm", name)
        (tmp_path / "planner.json").write_text(json.dumps({"planned_utc_s": NOW, "advice": {"word": "may wait"}}))
        adapter = NodeSleep((node,), tmp_path, SleepAllowed(awake_min=0), lambda now: {name: 300.0},
                            powers={name: power})  # fmt: skip
        adapter.round(NOW)
        assert adapter.doubts == []
        programs = tmp_path / "programs"
        until(lambda: programs.exists() and f"suspend {name}" in programs.read_text(), "Slurm's program did not run")
        until(lambda: power.state() == OFF, "Slurm has it as powered down")
        adapter.round(NOW + 30)
        until(lambda: slurm.ask("scontrol", "-o", "show", "node", name).find("POWERED_DOWN") > 0, "it is down")
        (tmp_path / "planner.json").unlink()
        adapter.round(NOW + 60)
        until(lambda: f"resume {name}" in programs.read_text(), "Slurm's other program did not run")
        until(lambda: power.state() in (ON, BETWEEN), "it is not down any more")
    with pytest.raises(NodeError):
        power.state()
