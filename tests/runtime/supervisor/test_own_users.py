"""A site whose processes have users of their own, as the installed unit starts them: what each reaches by that alone.

Needs root: it makes the package's users in a mount namespace and starts `tidegate run` as the service's user with the
unit's capabilities. What is tried is tried by a program with the user and the groups of a process and without its
Landlock and its filter of calls, so that only what the kernel says of users is shown (what those take away on top:
test_privileges.py).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.gateway.test_access import free_port
from tidegate.runtime.supervisor.child import eventually

ROOT = Path(__file__).resolve().parents[3]
SYSUSERS = ROOT / "packaging/sysusers/tidegate.conf"
SITE = ROOT / "config/sites/simulated.toml"
WORLD = Path(__file__).with_name("own_users_world.sh")
WAIT_S = 120.0
TOOLS = ("unshare", "nsenter", "setpriv", "systemd-sysusers")
MORE = """
[gateway]
endpoint = "tcp://127.0.0.1:{port}"

[[telemetry]]
name = "rack"
kind = "prometheus"
url = "http://127.0.0.1:9"
exporter = "dcgm"
"""
PROCESSES = {  # process -> module that it runs
    "core": "tidegate.runtime.core.process",
    "gateway": "tidegate.runtime.gateway",
    "remote": "tidegate.runtime.gateway.remote",
    "recorder": "tidegate.runtime.recording",
    "carbon": "tidegate.runtime.carbon",
    "telemetry": "tidegate.runtime.telemetry",
}
TRIES = """
import json, os, socket, sys
from pathlib import Path
state, run, site, bus, pids = *map(Path, sys.argv[1:5]), json.loads(sys.argv[5])
def put(folder):
    made = folder / ".try"
    made.write_text("x")
    made.unlink()
def change(path): os.close(os.open(path, os.O_WRONLY))
def meet(path):
    with socket.socket(socket.AF_UNIX) as line: line.connect(str(path))
tries = {f"write {one}": (lambda one=one: put(state / one)) for one in
         ("held", "journal", "keys", "recordings", "carbon", "telemetry", "console", "web", "notify", ".")}
tries |= {
    "change the ledger": lambda: change(state / "carbon/ledger.db"),
    "write beside the site file": lambda: put(site.parent),
    "change the site file": lambda: change(site),
    "put a socket in the place of another": lambda: put(run),
    "take the place of the door": lambda: put(run / "remote"),
    "speak at the door": lambda: meet(run / "remote/door"),
    "open a bus": lambda: change(bus),
    "read the server's key": lambda: (state / "keys/server.key").read_text(),
    "read the device's key": lambda: (state / "carbon-key.pem").read_text(),
    "read the users": lambda: (state / "console/users.json").read_text(),
    "remove the lock": lambda: (os.rename(run / "lock", run / ".away"), os.rename(run / ".away", run / "lock")),
}
for name, pid in pids.items():
    tries[f"signal {name}"] = lambda pid=pid: os.kill(pid, 0)
    tries[f"open the descriptors of {name}"] = lambda pid=pid: os.listdir(f"/proc/{pid}/fd")
    tries[f"write the memory of {name}"] = lambda pid=pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
done = []
for name, what in tries.items():
    try: what(); done.append(name)
    except OSError: pass
print(json.dumps(done))
"""
OWN = ("signal {}", "open the descriptors of {}", "write the memory of {}")
ORDERS = """
import sys
from tidegate.runtime.api.blocking_client import Client, ClientError
with Client(sys.argv[1]) as client:
    for op, fields in (("control", {"place": "remote"}), ("note", {"name": "try"}),
                       ("policy", {"name": "peak_w_max", "value": 40000.0, "for_ms": 1000})):
        try:
            client.ask(op, **fields)
            print(op)
        except ClientError as why:
            print(why, file=sys.stderr)
    print("reads", bool(client.why()["mode"]))
"""
# What a process does at its work, besides looking at itself. Everything else of TRIES the kernel refuses.
MAY = {
    "core": {"open a bus"},
    "gateway": {"write held", "write journal", "put a socket in the place of another", "take the place of the door",
                "speak at the door", "read the server's key", "remove the lock"},
    "remote": {"take the place of the door", "speak at the door", "read the server's key"},
    "recorder": {"write recordings"},
    "carbon": {"write carbon", "change the ledger", "read the device's key"},
    "telemetry": {"write telemetry"},
    "web": {"write console", "write web", "read the users"},
    "notify": {"write notify"},
    "fleet": set(),
}  # fmt: skip
MAY_ORDER = {
    "carbon": {"note"},
    "recorder": {"note"},
    "web": {"policy", "note"},
    "gateway": {"control", "policy", "note"},
}


def lacks() -> str:
    if os.geteuid() != 0:
        return "needs root: it makes users and becomes them"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"missing: {', '.join(missing)}" if missing else ""


pytestmark = [pytest.mark.skipif(bool(lacks()), reason=lacks() or "-"), pytest.mark.timeout(600)]


class Box:
    """A machine's users and one site on it. run : its log."""

    def __init__(self, top: Path) -> None:
        self.top = top
        etc = top / "root/etc"
        etc.mkdir(parents=True)
        for name in ("passwd", "group"):
            shutil.copy(f"/etc/{name}", etc)
        words = ["systemd-sysusers", f"--root={top / 'root'}", str(SYSUSERS)]
        subprocess.run(words, check=True, capture_output=True)
        ids = {line.split(":")[0]: int(line.split(":")[2]) for line in (etc / "passwd").read_text().splitlines()}
        groups = {line.split(":")[0]: int(line.split(":")[2]) for line in (etc / "group").read_text().splitlines()}
        self.uids = ids
        for name, mode in (("state", 0o750), ("run", 0o750), ("etc", 0o2750)):
            (top / name).mkdir()
            os.chown(top / name, ids["tidegate"], groups["tidegate"])
            (top / name).chmod(mode)
        self.site = top / "etc/hall.toml"
        self.site.write_text(SITE.read_text() + MORE.format(port=free_port()))
        self.site.chmod(0o640)
        os.chown(self.site, ids["tidegate"], groups["tidegate"])
        self.bus = top / "ttyBUS0"  # a stand-in for a port's node: whose right it is to open it is what is asked
        self.bus.touch(0o660)
        os.chown(self.bus, 0, groups["dialout"])
        self.bus.chmod(0o660)
        self.state, self.runtime = top / "state/simulated", top / "run/simulated"
        holder = ["unshare", "--mount", str(WORLD), str(etc / "passwd"), str(etc / "group"), sys.base_prefix, str(ROOT)]
        self._holder = subprocess.Popen([*holder, "--", "sleep", "infinity"])
        ready = Path(f"/proc/{self._holder.pid}/comm")
        assert eventually(lambda: ready.read_text() == "sleep\n", 30.0)
        self._log = (top / "log").open("ab")
        self._site: subprocess.Popen[bytes] | None = None

    def words(self, user: str, *words: str, capabilities: str = "") -> list[str]:
        """Words that run a program there as a user, with all its groups."""
        more = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"] if capabilities else []
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *more]
        return ["nsenter", f"--target={self._holder.pid}", "--mount", f"--wd={ROOT}", *who, *words]

    def environment(self) -> dict[str, str]:
        places = {"TIDEGATE_STATE_DIR": str(self.top / "state"), "TIDEGATE_RUNTIME_DIR": str(self.top / "run")}
        return {**os.environ, **places, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}

    def python(self, user: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        line = self.words(user, sys.executable, "-c", code, *words)
        return subprocess.run(line, env=self.environment(), capture_output=True, text=True, timeout=WAIT_S)

    def tidegate(self, user: str, *words: str) -> str:
        line = self.words(user, sys.executable, "-m", "tidegate.runtime.cli", *words)
        done = subprocess.run(line, env=self.environment(), capture_output=True, text=True, timeout=WAIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def said(self) -> str:
        return (self.top / "log").read_text(errors="replace")

    def start(self, capabilities: str) -> int:
        """The site, as the unit starts it, one that runs ended before; the supervisor's pid once all of it runs."""
        if not self._ended():
            self.end()
        assert eventually(lambda: not any(self.pid(one) for one in PROCESSES), WAIT_S)
        self._log.truncate(0)
        line = self.words("tidegate", sys.executable, "-m", "tidegate.runtime.cli", "run", str(self.site),
                          capabilities=capabilities)  # fmt: skip
        self._site = subprocess.Popen(line, env=self.environment(), stdout=self._log, stderr=self._log)
        assert eventually(lambda: " runs; core pid" in self.said or self._ended(), WAIT_S)
        assert not self._ended(), self.said
        return self._site.pid

    def _ended(self) -> bool:
        return self._site is None or self._site.poll() is not None

    def end(self) -> str:
        """Stop it as systemd does; what it said."""
        assert self._site is not None
        self._site.terminate()
        self._site.wait(60)
        return self.said

    def kill(self) -> None:
        assert self._site is not None
        self._site.kill()
        self._site.wait()

    def pid(self, process: str) -> int:
        """The process of this site, 0 if there is none."""
        mark = f"TIDEGATE_RUNTIME_DIR={self.top / 'run'}".encode()
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if PROCESSES[process].encode() in words and mark in (entry / "environ").read_bytes().split(b"\0"):
                    return int(entry.name)
            except (OSError, ValueError):
                continue
        return 0

    def is_stopped(self) -> bool:
        """What its gateway says; false while none answers."""
        code = "import sys; from tidegate.runtime.api.blocking_client import Client; c = Client(sys.argv[1]); "
        done = self.python("tidegate", code + "print(c.why()['stopped']); c.close()", f"ipc://{self.runtime}")
        return done.stdout == "True\n"

    def close(self) -> None:
        if not self._ended():
            self.kill()
        self._log.close()
        self._holder.kill()
        self._holder.wait()


KEPT = ("keys/server.key", "keys/roles.toml", "carbon-key.pem", "console/users.json")
CAPABILITIES = "+setuid,+setgid,+kill"
LEFT = """
import os, pathlib
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.console.users import Users
from tidegate.runtime.state.held import held_dir
from tidegate.runtime.state.latches import Latched, LatchFile
from tidegate.runtime.state.paths import private_folder
state = pathlib.Path({state!r})
row = FAULT_IDS.index("temp_high_trip")
LatchFile(held_dir(state), ["cabinet"]).write([Latched(1 << row, row)])
Users(private_folder(state / "console", 0o700)).put("mara", "maintain", "three tides a day")
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Box, dict[str, bytes]]]:
    """A site that ran under one user and left a latch, a key, a login; then it starts with users of its own."""
    top = Path(tempfile.mkdtemp(prefix="tidegate-users-"))
    top.chmod(0o755)
    box = Box(top)
    try:
        box.start("")
        assert {os.stat(f"/proc/{box.pid(one)}").st_uid for one in PROCESSES} == {box.uids["tidegate"]}
        assert "all processes run as one user: only the unit" in box.said
        assert eventually(lambda: (box.state / "carbon/ledger.db").exists(), WAIT_S)
        said = box.end()
        assert "ended with setpoint 0" in said, said
        box.tidegate("tidegate", "keys", "--site", "simulated", "make", "scada", "--out", str(top / "state/scada.key"))
        done = box.python("tidegate", LEFT.format(state=str(box.state)))
        assert done.returncode == 0, done.stderr
        kept = {name: (box.state / name).read_bytes() for name in KEPT}
        box.start(CAPABILITIES)
        yield box, kept
    finally:
        box.close()
        shutil.rmtree(top, ignore_errors=True)


@pytest.fixture(scope="module")
def box(shared: tuple[Box, dict[str, bytes]]) -> Box:
    return shared[0]


def test_each_process_has_its_own_user_and_no_capability(box: Box) -> None:
    for name in PROCESSES:
        assert eventually(lambda name=name: box.pid(name) > 0, WAIT_S), f"{name}\n{box.said}"
        status = Path(f"/proc/{box.pid(name)}/status").read_text()
        uids = {int(word) for word in re.search(r"Uid:(.*)", status)[1].split()}  # type: ignore[index]
        assert uids == {box.uids[f"tidegate-{name}"]}, name
        assert re.search(r"CapEff:\s+0+\n", status) and re.search(r"CapPrm:\s+0+\n", status), f"{name}\n{status}"


def test_what_a_site_under_one_user_left_is_there_and_is_used(shared: tuple[Box, dict[str, bytes]]) -> None:
    box, kept = shared
    assert {name: (box.state / name).read_bytes() for name in kept} == kept
    assert "temp_high_trip" in box.tidegate("tidegate", "why")
    assert "scada" in box.tidegate("tidegate", "keys", "--site", "simulated", "list")
    assert "belongs to" not in box.said and "Permission denied: " not in box.said, box.said
    assert not re.search(r"(carbon|gateway|remote|recorder) (ended|needs a person)", box.said), box.said
    owners = {os.stat(one).st_uid for one in (box.state / "journal").iterdir()}
    assert owners == {box.uids["tidegate"], box.uids["tidegate-gateway"]}, "the journal goes on behind what was there"


@pytest.mark.parametrize("name", list(MAY))
def test_a_user_reaches_its_own_and_nothing_else(box: Box, name: str) -> None:
    pids = {one: box.pid(one) for one in PROCESSES} | {"supervisor": box._site.pid if box._site else 0}
    done = box.python(f"tidegate-{name}", TRIES, str(box.state), str(box.runtime), str(box.site), str(box.bus),
                      json.dumps(pids))  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = {one.format(name) for one in OWN} if name in PROCESSES else set()
    assert set(json.loads(done.stdout)) - own == MAY[name]


def test_the_service_s_user_reaches_what_people_put_there(box: Box) -> None:
    """So that what is refused above is refused by who asks, and not by what is asked."""
    done = box.python("tidegate", TRIES, str(box.state), str(box.runtime), str(box.site), str(box.bus), "{}")
    assert set().union(*MAY.values()) - {"change the ledger"} <= set(json.loads(done.stdout))


@pytest.mark.parametrize("name", list(MAY))
def test_a_user_orders_what_is_its_work(box: Box, name: str) -> None:
    done = box.python(f"tidegate-{name}", ORDERS, f"ipc://{box.runtime}")
    assert done.stdout.split("\n")[-2:] == ["reads True", ""], done.stdout + done.stderr
    assert set(done.stdout.split("\n")[:-2]) == MAY_ORDER.get(name, set()), done.stderr


def test_whoever_may_enter_reads_a_ledger_that_is_being_written(box: Box) -> None:
    code = "import sys; from tidegate.runtime.carbon.ledger.ledger import Ledger; "
    code += "print(Ledger(sys.argv[1], read_only=True).head)"
    done = box.python("tidegate-fleet", code, str(box.state / "carbon/ledger.db"))
    assert done.returncode == 0 and done.stdout.startswith("("), done.stderr


def test_a_stop_reaches_a_core_of_another_user_although_the_supervisor_stands_still(box: Box) -> None:
    assert box._site is not None
    os.kill(box._site.pid, signal.SIGSTOP)
    try:
        code = "import sys; from tidegate.runtime.state.halt import halt; print(halt(sys.argv[1]) or 'given')"
        done = box.python("tidegate-fleet", code, f"ipc://{box.runtime}")
        assert done.stdout == "given\n", done.stdout + done.stderr
        assert eventually(lambda: "by a signal" in box.tidegate("tidegate", "why"), WAIT_S), box.tidegate(
            "tidegate", "why"
        )
    finally:
        os.kill(box._site.pid, signal.SIGCONT)
    assert eventually(lambda: (box.state / "held/stopped").exists(), WAIT_S), "kept over a restart"


def test_a_process_that_was_killed_comes_back_as_the_same_user(box: Box) -> None:
    before = box.pid("gateway")
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: box.pid("gateway") not in (0, before), WAIT_S), box.said
    assert os.stat(f"/proc/{box.pid('gateway')}").st_uid == box.uids["tidegate-gateway"]
    assert eventually(
        lambda: "reads True" in box.python("tidegate-fleet", ORDERS, f"ipc://{box.runtime}").stdout, WAIT_S
    )


def test_nobody_outlives_the_supervisor_whoever_they_are(box: Box) -> None:
    box.kill()
    assert eventually(lambda: not any(box.pid(one) for one in PROCESSES), WAIT_S)


def test_the_safe_end_reaches_all_of_them(box: Box) -> None:
    box.start(CAPABILITIES)
    said = box.end()
    assert "ended with setpoint 0" in said, said
    assert not any(box.pid(one) for one in PROCESSES)


def test_the_supervisor_becomes_nobody_else(tmp_path: Path) -> None:
    """As root, whom without the filter nothing would refuse."""
    code = """
import os, sys
from tidegate.runtime.state.syscalls import forbid_users
lack = forbid_users([61001, 61002], [61001, 61002])
assert not lack, lack
def refused(call, *ids):
    try:
        call(*ids)
    except PermissionError:
        return True
    return False
assert refused(os.setresuid, 0, 0, 0) and refused(os.setresuid, 61001, 61001, 0) and refused(os.setresuid, 1000, -1, -1)
assert refused(os.setresgid, 0, 0, 0) and refused(os.setuid, 61001) and refused(os.setreuid, 61001, 61001)
os.setresgid(61002, 61002, 61002)
os.setresuid(61001, 61001, 61001)
assert os.getresuid() == (61001, 61001, 61001) and os.getresgid() == (61002, 61002, 61002)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
