"""The files of the package by themselves: what can be said of them without building it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "systemd" / "tidegate@.service"
PLANNER = PACKAGING / "systemd" / "tidegate-planner@.service"
# 0 is a sandbox in which nothing runs, 100 is none at all. Real-time priority, devices and the network cost the rest.
EXPOSURE_MAX = 26


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
    shutil.copy(UNIT, folder)
    shutil.copy(PLANNER, folder)
    for target in ("sysinit", "basic", "shutdown", "multi-user", "network"):
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


def test_the_sandbox_is_as_tight_as_it_was(analyze):
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", "tidegate@hall.service")
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_the_unit_gives_the_loop_what_it_asks_for_and_ends_the_supervisor_alone():
    unit = settings()
    assert int(unit["LimitRTPRIO"][0]) >= 80 and unit["LimitMEMLOCK"] == ["infinity"]
    assert unit["Type"] == ["notify"] and int(unit["WatchdogSec"][0]) > 0
    assert unit["KillMode"] == ["mixed"] and "RestrictRealtime" not in unit
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ["CAP_NET_ADMIN"] and unit[
        "NoNewPrivileges"
    ] == ["yes"]


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
