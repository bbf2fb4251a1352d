"""packaging/meta-tidegate: what it says of this checkout holds, and the linter of such layers finds nothing."""

import hashlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LAYER = ROOT / "packaging/meta-tidegate"
RECIPE = next(LAYER.glob("recipes-tidegate/tidegate/tidegate_*.bb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def words(variable: str) -> set[str]:
    """What a variable of the recipe lists."""
    found = re.search(rf'^{re.escape(variable)}\s*\+?=\s*"(.*?)"', RECIPE.read_text().replace("\\\n", " "), re.M)
    assert found, variable
    return set(found[1].split())


def test_the_recipe_is_of_this_version_and_licence():
    assert RECIPE.stem == f"tidegate_{PROJECT['version']}"
    assert words("LICENSE") == {PROJECT["license"]}
    md5 = hashlib.md5((ROOT / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    assert words("LIC_FILES_CHKSUM") == {f"file://LICENSE;md5={md5}"}


def test_the_recipe_depends_on_what_the_package_depends_on():
    needed = {f"python3-{Requirement(one).name.lower()}" for one in PROJECT["dependencies"]}
    assert words("RDEPENDS:${PN}") - needed == {"python3-modules"} and needed <= words("RDEPENDS:${PN}")


def test_what_the_recipe_installs_is_there_and_packed():
    text = RECIPE.read_text()
    installed = dict(re.findall(r"install -D -m 0644 \$\{S\}/(\S+) \$\{D\}(\S+)", text))
    assert len(installed) >= 5 and all((ROOT / source).is_file() for source in installed)
    packed = words("FILES:${PN}") | words("CONFFILES:${PN}")
    assert packed == set(installed.values())
    (unit,) = words("SYSTEMD_SERVICE:${PN}")
    assert any(target.endswith(f"/{unit}") for target in installed.values())


def test_the_kernel_fragment_has_each_option_once_with_what_the_core_cannot_do_without():
    lines = (LAYER / "recipes-kernel/linux/files/tidegate.cfg").read_text().splitlines()
    options = [line.partition("=")[0] for line in lines if not line.startswith("#")]
    assert len(set(options)) == len(options) and all(re.fullmatch(r"CONFIG_[A-Z0-9_]+", one) for one in options)
    needed = "PREEMPT_RT HIGH_RES_TIMERS CAN_RAW FUTEX EPOLL MEMFD_CREATE SECCOMP_FILTER SECURITY_LANDLOCK WATCHDOG"
    assert {f"CONFIG_{name}" for name in needed.split()} <= set(options)


def lint(layer: Path) -> subprocess.CompletedProcess[str]:
    """The linter's verdict; skips where it is not installed."""
    script = Path(__file__).with_name("layer.sh")
    done = subprocess.run([str(script), str(layer)], capture_output=True, text=True, timeout=600)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    return done


def test_the_linter_finds_nothing_and_sees_what_is_wrong(tmp_path):
    done = lint(LAYER)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = tmp_path / "layer"
    shutil.copytree(LAYER, broken)
    recipe = broken / RECIPE.relative_to(LAYER)
    recipe.write_text(recipe.read_text().replace("SUMMARY = ", "SUMMARY="))
    assert lint(broken).returncode != 0
