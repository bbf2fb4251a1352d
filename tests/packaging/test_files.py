"""The files of the package by themselves: what can be said of them without building it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tidegate.runtime.state import process_users

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "systemd" / "tidegate@.service"
PLANNER = PACKAGING / "systemd" / "tidegate-planner@.service"
# 0 is a sandbox in which nothing runs, 100 is none at all. Real-time priority, devices, buses and the right to start
# processes as other users cost the site's unit the rest, the network the others.
EXPOSURE_MAX = {
    "tidegate@hall": 33,
    "tidegate-web@hall": 15,
    "tidegate-notify@hall": 15,
    "tidegate-planner@hall": 15,
    "tidegate-island-devices@hall": 15,
    "tidegate-fleet@hall": 15,
    "tidegate-hub": 15,
    "tidegate-hub-page": 15,
    "tidegate-hub-broker": 15,
    "tidegate-backup@hall": 15,
}
SYSUSERS = PACKAGING / "sysusers" / "tidegate.conf"


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def analyze(tmp_path):
    """systemd-analyze on the unit in a root folder of its own, in which its program exists."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for unit in UNIT.parent.iterdir():
        shutil.copy(unit, folder)
    for target in ("sysinit", "basic", "shutdown", "multi-user", "network", "network-online"):
        (folder / f"{target}.target").write_text(f"[Unit]\nDescription={target}\nDefaultDependencies=no\n")
    (folder / "system.slice").write_text("[Unit]\nDescription=slice\nDefaultDependencies=no\n")
    (folder / "-.slice").write_text("[Unit]\nDescription=slice\nDefaultDependencies=no\n")
    program = tmp_path / "usr/bin/tidegate"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", f"--root={tmp_path}", *words], capture_output=True, text=True, timeout=60
        )

    return run


def test_systemd_understands_every_line_of_the_unit(analyze):
    done = analyze("verify", "tidegate@hall.service")
    said = [line for line in (done.stdout + done.stderr).splitlines() if "tidegate" in line]
    assert not said


def test_the_planners_unit_is_understood_and_can_starve_nobody(analyze):
    done = analyze("verify", "tidegate-planner@hall.service")
    said = [line for line in (done.stdout + done.stderr).splitlines() if "planner" in line]
    assert not said
    unit = PLANNER.read_text()
    assert "DynamicUser=yes" in unit and "CPUQuota=" in unit and "MemoryMax=" in unit and "LimitRTPRIO" not in unit


def test_an_unknown_setting_would_be_noticed(analyze, tmp_path):
    unit = tmp_path / "usr/lib/systemd/system/tidegate@.service"
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = analyze("verify", "tidegate@hall.service")
    assert "NoNewPrivilege" in done.stdout + done.stderr


@pytest.mark.parametrize("name", list(EXPOSURE_MAX))
def test_each_sandbox_is_as_tight_as_it_was(analyze, name):
    words = ["--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX[name]}", f"{name}.service"]
    done = analyze("security", *words)
    assert done.returncode == 0, done.stdout[-400:] + done.stderr
    looked = analyze("verify", f"{name}.service")
    assert not [line for line in (looked.stdout + looked.stderr).splitlines() if name.split("@")[0] in line]


def test_each_point_of_the_sites_unit_stands_in_the_documentation_with_what_it_is_for(analyze):
    words = ["--offline=true", "--no-pager", "--json=short", "tidegate@hall.service"]
    rows = json.loads(analyze("security", *words).stdout)
    costs = {row["name"] for row in rows if float(row.get("exposure") or 0) > 0}
    page = (PACKAGING.parent / "docs" / "architecture.md").read_text()
    part = page.partition("### What the site's unit is not kept from")[2].partition("\n### ")[0]
    told = [re.findall(r"`([^`]+)`", line.partition(" | ")[0]) for line in part.splitlines() if line.startswith("| `")]
    assert costs == {name for names in told for name in names}


def test_no_unit_is_left_out():
    units = {path.name.removesuffix(".service").replace("@", "@hall") for path in UNIT.parent.glob("*.service")}
    assert units == set(EXPOSURE_MAX)


def test_each_unit_and_each_process_has_a_user_of_its_own_that_the_package_makes():
    made = re.findall(r"^u (\S+)", SYSUSERS.read_text(), re.M)
    users = {}
    for path in UNIT.parent.glob("*.service"):
        named, dynamic = re.findall(r"^(?:User=(\S+)|(DynamicUser)=yes)", path.read_text(), re.M)[0]
        users[path.name] = named or dynamic
    assert users.pop("tidegate-planner@.service") == users.pop("tidegate-island-devices@.service") == "DynamicUser"
    assert users == {
        "tidegate@.service": process_users.SERVICE,
        "tidegate-backup@.service": process_users.SERVICE,
        "tidegate-web@.service": "tidegate-web",
        "tidegate-notify@.service": "tidegate-notify",
        "tidegate-fleet@.service": "tidegate-fleet",
        "tidegate-hub.service": "tidegate-hub",
        "tidegate-hub-page.service": "tidegate-hub",
        "tidegate-hub-broker.service": "tidegate-hub",
    }
    processes = {process_users.user_of(one) for one in process_users.CHILDREN}
    assert len(made) == len(set(made)) and processes | set(users.values()) == set(made)


def test_the_services_user_is_in_the_group_of_each_room_and_a_process_in_no_other():
    members = [tuple(row) for row in re.findall(r"^m (\S+)\s+(\S+)", SYSUSERS.read_text(), re.M)]
    rooms = {process_users.user_of(room.process) for room in process_users.ROOMS}
    assert {group for who, group in members if who == process_users.SERVICE} == rooms | {"dialout"}
    others = {(who, group) for who, group in members if who != process_users.SERVICE and group != process_users.SERVICE}
    # The core opens the buses; the gateway looks names of keys up, and meets the other behind the door.
    assert others == {("tidegate-core", "dialout"), ("tidegate-gateway", "tidegate-remote")}


def test_the_unit_gives_the_loop_what_it_asks_for_and_ends_the_supervisor_alone():
    unit = settings()
    assert int(unit["LimitRTPRIO"][0]) >= 80 and unit["LimitMEMLOCK"] == ["infinity"]
    assert unit["Type"] == ["notify"] and int(unit["WatchdogSec"][0]) > 0
    assert unit["KillMode"] == ["mixed"] and "RestrictRealtime" not in unit
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] and unit["NoNewPrivileges"] == ["yes"]
    # One for the core, and what the supervisor needs to start each process as another user and to end it.
    assert set(unit["CapabilityBoundingSet"][0].split()) == {"CAP_NET_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"}


def test_the_unit_lets_processes_confine_themselves():
    """systemd's own set has neither, and what the unit does not name its processes cannot take away from themselves."""
    allowed = {call for line in settings()["SystemCallFilter"] for call in line.split()}
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"} <= allowed


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_plain_sh(name):
    script = PACKAGING / "debian" / name
    assert script.stat().st_mode & 0o111 and script.read_text().startswith("#!/bin/sh\nset -e\n")
    assert subprocess.run(["sh", "-n", str(script)], capture_output=True).returncode == 0


def test_folders_of_unit_and_tmpfiles_are_the_same():
    made = re.findall(r"^d (\S+)", (PACKAGING / "tmpfiles/tidegate.conf").read_text(), re.M)
    assert set(settings()["ReadWritePaths"][0].split()) == set(made)
    assert re.findall(r"rm -rf (/.*)", (PACKAGING / "debian/postrm").read_text())[0].split() == sorted(
        made, key=lambda one: ["/var", "/etc", "/run"].index(one[:4])
    )
