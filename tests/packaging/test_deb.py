"""The package as a machine gets it: installed, run by its unit, upgraded, removed, purged. Needs `make deb`."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging import machine
from tests.page import AGAIN, MACHINE, Step, missing, steps
from tidegate.runtime.state import sandbox

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/install.md"
PACKAGED = ("runtime", "ext", "hal", "config", "packaging", "setup.py", "pyproject.toml")
UNIT = "tidegate@hall"
STATE = "/var/lib/tidegate/simulated"
WAIT_S = 90.0
# Written anew at each start, with a number that tells the newer of two copies: what they say is kept, not their bytes.
NUMBERED = ("/latches.json", "/stops.json")
# What stands in for LimitRTPRIO and LimitMEMLOCK where nobody may raise limits. The sandbox around them is the unit's.
DROP_IN = f"/etc/systemd/system/{UNIT}.service.d"
STAND_IN = (
    "[Service]\\nCapabilityBoundingSet=CAP_SYS_NICE CAP_IPC_LOCK\\nAmbientCapabilities=CAP_SYS_NICE CAP_IPC_LOCK\\n"
)
LATCH = """
import pathlib
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.state.latches import Latched, LatchFile
row = FAULT_IDS.index("temp_high_trip")
LatchFile(pathlib.Path("{state}") / "held", ["cabinet"]).write([Latched(1 << row, row)])
"""
# As `commission` does: root wrote the file, the service's user changes it.
CHANGE = """
import pathlib
from tidegate.runtime.commissioning.new_file import replace
site = pathlib.Path("/etc/tidegate/hall.toml")
replace(site, site.read_text() + "# commissioned\\n")
"""
USER = """
import pathlib
from tidegate.runtime.console.users import Users
from tidegate.runtime.state.paths import private_folder
Users(private_folder(pathlib.Path("{state}/console"), 0o700)).put("mara", "maintain", "three tides a day")
"""


def newest_source() -> float:
    """When the last file that goes into the package was changed."""
    listed = subprocess.run(["git", "ls-files", *PACKAGED], cwd=ROOT, capture_output=True, text=True)
    return max((os.path.getmtime(ROOT / one) for one in listed.stdout.splitlines() if (ROOT / one).exists()), default=0)


def with_next_version(package: Path) -> bytes:
    """The same package as the next version: its control file changed, the packed files as they are."""
    fields = subprocess.run(["dpkg-deb", "--ctrl-tarfile", str(package)], capture_output=True, check=True).stdout
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(fields)) as old, tarfile.open(fileobj=made, mode="w") as new:
        for member in old:
            if not member.isfile():
                new.addfile(member)
                continue
            held = old.extractfile(member)
            assert held is not None
            data = held.read()
            if member.name == "./control":
                data = re.sub(rb"^Version: (.*)$", rb"Version: \1+next", data, flags=re.M)
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    out = b"!<arch>\n"
    for name, data in members(package):
        name, data = ("control.tar", made.getvalue()) if name.startswith("control.tar") else (name, data)
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def members(package: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of what an ar file holds."""
    held = package.read_bytes()
    at = 8
    while at < len(held):
        name, size = held[at : at + 16].decode().strip().rstrip("/"), int(held[at + 48 : at + 58])
        yield name, held[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the package under its own name, and the same with a higher version as next.deb."""
    found = sorted((ROOT / "dist").glob("tidegate_*.deb"), key=os.path.getmtime)
    if not found:
        pytest.skip("no package in dist; run: make deb")
    if os.path.getmtime(found[-1]) < newest_source():
        pytest.skip(f"{found[-1].name} is older than the sources; run: make deb")
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(found[-1], folder)
    (folder / "next.deb").write_bytes(with_next_version(found[-1]))
    return folder


@pytest.fixture(scope="module")
def board(packages, tmp_path_factory):
    lack = machine.lacks()
    if lack:
        pytest.skip(lack)
    try:
        made = machine.Machine(tmp_path_factory.mktemp("board") / "machine", packages)
    except OSError as why:
        pytest.skip(f"no machine can be made here: {why}")
    if not may_raise_limits():
        made.run("mkdir", "-p", DROP_IN)
        made.run("sh", "-c", f"printf '{STAND_IN}' >{DROP_IN}/limits.conf")
    yield made
    made.close()


def may_raise_limits() -> bool:
    """CAP_SYS_RESOURCE: without it, as in many containers, no LimitRTPRIO= of any unit can be granted."""
    return bool(int(re.search(r"CapEff:\s+(\w+)", Path("/proc/self/status").read_text())[1], 16) & 1 << 24)  # type: ignore[index]


def journal(board) -> str:
    return board.run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT)


def typed(board, step: Step) -> str:
    """Type a line of the page as root, in the folder with the package; gives what came, once that is what it shows."""
    until = time.monotonic() + WAIT_S
    while True:
        code = None if step.words.startswith((*MACHINE, *AGAIN, "systemctl is-active")) else 0
        said = board.run("sh", "-c", f"cd /srv/packages && {step.words}", code=code)
        lacks = missing(step, said)
        if lacks is None:
            return said
        again = step.words.startswith((*AGAIN, "journalctl", "systemctl is-active"))
        assert again and time.monotonic() < until, f"# {step.words}\n{said}\nnot seen: {lacks}\n{journal(board)}"
        time.sleep(0.5)


def until_it_runs(board) -> str:
    """What `tidegate why` says once the site gives a reason for its setpoint."""
    until = time.monotonic() + WAIT_S
    while "because of" not in (said := board.run("tidegate", "why", code=None)):
        assert time.monotonic() < until, said + journal(board)
        time.sleep(0.5)
    return said


def filters(board, pid: str) -> int:
    """How many filters of calls a process is under."""
    return int(re.search(r"Seccomp_filters:\s+(\d+)", board.run("cat", f"/proc/{pid}/status"))[1])  # type: ignore[index]


def properties(board, *names: str) -> dict[str, str]:
    said = board.run("systemctl", "show", UNIT, *(f"--property={name}" for name in names))
    return dict(line.split("=", 1) for line in said.splitlines())


def kept(board) -> dict[str, str]:
    """Path and SHA-256 of everything that an upgrade has to keep, but for what a running site goes on writing."""
    places = ("/var/lib/tidegate", "/etc/tidegate", "/etc/default/tidegate")
    said = board.run(
        "find",
        *places,
        "-type",
        "f",
        "!",
        "-path",
        "*/journal/*",
        "!",
        "-name",
        "ledger*",
        "!",
        "-name",
        ".lock",
        "-exec",
        "sha256sum",
        "{}",
        "+",
    )
    found = {path: digest for digest, path in (line.split(maxsplit=1) for line in said.splitlines())}
    for path in (one for one in found if one.endswith(NUMBERED)):
        told = json.loads(board.run("cat", path))
        del told["number"], told["sha256"]
        found[path] = json.dumps(told, sort_keys=True)
    return found


@pytest.mark.timeout(900)
def test_installed_run_upgraded_removed_purged(board):
    # The page's lines, from the package to a site that controls.
    said = {step.words: typed(board, step) for step in steps(PAGE, 1)}
    version = board.run("dpkg-query", "-W", "-f=${Version}", "tidegate")
    assert said["tidegate --version"].split()[-1] == version
    assert board.run("stat", "-c", "%U %a", "/var/lib/tidegate", "/run/tidegate") == "tidegate 750\n" * 2
    assert "dialout" in board.run("id", "-Gn", "tidegate").split()
    assert not board.run("dpkg", "--verify", "tidegate")
    assert float(board.run("tidegate", "get", "site.grid_w").split()[1]) > 0
    wrong = board.run("tidegate", "run", "/etc/tidegate/hall.toml", code=None)
    assert (
        "runuser -u tidegate" in wrong and "Traceback" not in wrong
    )  # else root leaves files that the unit cannot write
    stranger = board.run("tidegate", "why", user="nobody", code=None)
    assert "adduser nobody tidegate" in stranger and "Traceback" not in stranger

    # The sandbox gives the loop what it needs: FIFO for the loop's thread, all memory locked, nothing refused.
    core = re.search(r"core pid (\d+)", journal(board))[1]  # type: ignore[index]
    status = board.run("cat", f"/proc/{core}/status")
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    assert int(re.search(r"VmLck:\s+(\d+)", status)[1]) > 0  # type: ignore[index]
    policies = board.run("sh", "-c", f"cut -d' ' -f41 /proc/{core}/task/*/stat").split()
    assert "1" in policies, f"no thread of the core runs FIFO: {policies}\n{journal(board)}"

    # Each process has taken more from itself than the unit took from all of them: a filter of its own, and Landlock.
    outer = filters(board, properties(board, "MainPID")["MainPID"])
    for module in ("core.process", "gateway", "recording", "carbon"):
        pid = board.run("pgrep", "-f", f"tidegate.runtime.{module} --").split()[0]
        assert filters(board, pid) == outer + 1, f"{module}\n{journal(board)}"
    refused = [line for line in journal(board).splitlines() if "SystemCallFilter" in line or "no Landlock" in line]
    assert not refused or not sandbox.version(), refused

    # A loop that stands still: systemd's watchdog starts the site again. What no restart mends is left alone.
    board.run("kill", "-STOP", core)
    until = time.monotonic() + WAIT_S
    while properties(board, "NRestarts", "ActiveState") != {"NRestarts": "1", "ActiveState": "active"}:
        assert time.monotonic() < until, journal(board)
        time.sleep(0.5)
    assert "Watchdog timeout" in journal(board)
    until_it_runs(board)
    board.run("sh", "-c", "sed 's/^energy_wh.*/energy_wh = \"much\"/' /etc/tidegate/hall.toml >/etc/tidegate/bad.toml")
    board.run("systemctl", "start", "tidegate@bad", code=1)
    assert "energy_wh" in board.run("journalctl", "--no-pager", "-u", "tidegate@bad")
    left = board.run("systemctl", "show", "tidegate@bad", "--property=ActiveState,NRestarts").split()
    assert sorted(left) == ["ActiveState=failed", "NRestarts=0"]
    assert "Assertion failed" in board.run("systemctl", "start", "tidegate@nowhere", code=None)
    board.run("rm", "/etc/tidegate/bad.toml")

    # What a person or a fault leaves behind: a key, a console user, a latch, an option of the machine's own.
    board.run("systemctl", "stop", UNIT)
    assert "ended with setpoint 0" in journal(board)
    board.run("tidegate", "keys", "-s", "simulated", "make", "scada", "--out", "/tmp/scada.key", user="tidegate")
    for code in (LATCH, USER, CHANGE):
        board.run("/usr/lib/tidegate/bin/python3", "-c", code.format(state=STATE), user="tidegate")
    board.run("sh", "-c", "echo '# ours' >>/etc/default/tidegate")
    board.run("systemctl", "start", UNIT)
    assert "temp_high_trip" in until_it_runs(board)
    before = kept(board)
    names = {path.rsplit("/", 1)[-1] for path in before}
    assert {"latches.json", "users.json", "roles.toml", "hall.toml", "tidegate"} <= names, names
    assert board.run("test", "-s", f"{STATE}/carbon/ledger.db") == ""

    # An upgrade stops the site at 0 W, changes the files, starts it again, and has lost nothing.
    began = properties(board, "ExecMainPID")
    board.run("dpkg", "-i", "/srv/packages/next.deb")
    assert board.run("dpkg-query", "-W", "-f=${Version}", "tidegate") == f"{version}+next"
    assert "temp_high_trip" in until_it_runs(board)
    assert journal(board).count("ended with setpoint 0") == 2 and properties(board, "ExecMainPID") != began
    assert properties(board, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert kept(board) == before
    keys = board.run("tidegate", "keys", "-s", "simulated", "list", user="tidegate")
    assert "scada" in keys

    # Removed: the site has ended, its state is there. Purged: nothing is.
    board.run("dpkg", "-r", "tidegate")
    assert journal(board).count("ended with setpoint 0") == 3 and kept(board) == before
    board.run("test", "!", "-e", "/usr/bin/tidegate")
    board.run("dpkg", "--purge", "tidegate")
    for gone in ("/var/lib/tidegate", "/etc/tidegate", "/etc/default/tidegate", "/usr/lib/tidegate"):
        board.run("test", "!", "-e", gone)


def test_files_of_the_package_belong_to_root_and_nobody_else_writes_them(packages):
    rows = subprocess.run(
        ["dpkg-deb", "-c", str(next(packages.glob("tidegate_*.deb")))], capture_output=True, text=True, check=True
    )
    for line in rows.stdout.splitlines():
        mode, owner = line.split()[:2]
        assert owner == "root/root" and (mode[0] == "l" or (mode[5] != "w" and mode[8] != "w")), line
    paths = {line.split()[5] for line in rows.stdout.splitlines()}
    assert {"./usr/lib/systemd/system/tidegate@.service", "./usr/lib/udev/rules.d/60-tidegate.rules"} <= paths
    assert not [path for path in paths if path.startswith(("./usr/local", "./home", "./root", "./work"))]
