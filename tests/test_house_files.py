"""The files that say how this project is worked on agree with each other and with what is installed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_everything_that_pyproject_names_is_pinned_to_a_version_that_it_allows() -> None:
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    pinned, wrong = pins(), []
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        if requirement.name != "tidegate" and (version is None or version not in requirement.specifier):
            wrong.append(f"{requirement}: pinned to {version}; run make constraints")
    assert len(wanted) > 20 and not wrong


def test_constraints_name_versions_and_no_place_to_fetch_them_from() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text and " @ " not in text and "--" not in text
    assert all(re.fullmatch(r"(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+)", line) for line in text.splitlines())


def test_ci_and_the_package_install_the_pinned_versions() -> None:
    for script in ("tests/tools/setup.sh", "packaging/deb.sh"):
        assert "constraints.txt" in (ROOT / script).read_text(), script


def test_citation_and_package_have_one_version_and_one_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert f"## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text()


def test_commit_hooks_run_the_tools_of_make_lint_and_fetch_nothing() -> None:
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config"], cwd=ROOT, check=True)
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.M)
    assert recipe
    tools = set(re.findall(r"bin/([a-z-]+)", recipe[1]))
    hooks = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repos[0]["hooks"]}
    assert len(tools) >= 3 and hooks - {"python"} == tools
    assert all(hook["language"] == "system" for hook in repos[0]["hooks"])


def test_every_folder_of_tests_is_named_like_the_room_that_it_tests() -> None:
    rooms = [path for top in ("ext", "hal", "config", "runtime") for path in (ROOT / "tests" / top).rglob("*/")]
    rooms = [room.relative_to(ROOT / "tests") for room in rooms if any(room.glob("test_*.py"))]
    assert len(rooms) > 20 and not [str(room) for room in rooms if not (ROOT / room).is_dir()]


def test_the_readme_names_what_ci_runs() -> None:
    called = re.findall(r"\bmake ([a-z-]+)", re.sub(r"#.*", "", (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    (sentence,) = re.findall(r"^CI runs (.*)\.$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert re.findall(r"`make ([a-z-]+)`", sentence) == called
