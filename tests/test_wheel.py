"""The wheel that users install holds everything and runs away from the checkout."""

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EPOCH = "1700000000"


def run(*words: object, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed; its own words are the failure's message."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    clean.update(environment)
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel that was built from the sdist, away from the checkout.

    Not optimized: whether the sources are whole shows sooner so, and `make build` compiles them as they are shipped.
    """
    place = tmp_path_factory.mktemp("wheel")
    words = ("-m", "build", "--no-isolation", "--outdir", place / "dist", ROOT)
    run(sys.executable, *words, cwd=place, TIDEGATE_QUICK_BUILD="1", SOURCE_DATE_EPOCH=EPOCH)
    (wheel,) = (place / "dist").glob("*.whl")
    venv.create(place / "env", with_pip=True)
    python = place / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[carbon,tools]", cwd=place)
    return place


@pytest.mark.timeout(900)
def test_wheel_from_sdist_holds_every_extension(installed: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT / "ext").with_suffix("").parts) for path in (ROOT / "ext").rglob("*.pyx")
    )
    assert len(modules) >= 10
    code = "import importlib, sys; [importlib.import_module('tidegate.ext.' + name) for name in sys.argv[1:]]; print(1)"
    assert run(installed / "env/bin/python", "-c", code, *modules, cwd=installed).strip() == "1"


@pytest.mark.timeout(900)
def test_wheel_holds_every_data_file(installed: Path) -> None:
    """Maps, tables, templates, headers: whatever is no Python source, C source or compiled module."""
    (wheel,) = (installed / "dist").glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    built = {".pyx", ".c", ".so", ".pyc"}
    here = {
        f"tidegate/{path.relative_to(ROOT)}"
        for folder in ("runtime", "ext", "hal", "config")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in built
    }
    assert {Path(name).suffix for name in here} >= {".j2", ".toml", ".csv", ".json", ".dbc", ".h", ".pxd", ".typed"}
    assert not here - packed


@pytest.mark.timeout(900)
def test_a_second_build_in_another_folder_gives_the_same_bytes(installed: Path, tmp_path: Path) -> None:
    """Some of the compiled modules and every other file; all of it twice is `make reproduce`."""
    (sdist,) = (installed / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    (source,) = (tmp_path / "elsewhere").iterdir()
    again = ["abi.image", "safety.gate", "control.dispatch", "estimate.interval", "record.replay"]
    words = ("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source)
    run(sys.executable, *words, cwd=tmp_path, TIDEGATE_QUICK_BUILD="1", TIDEGATE_ONLY_MODULES=" ".join(again),
        SOURCE_DATE_EPOCH=EPOCH, PYTHONHASHSEED="7")  # fmt: skip
    (first,), (second,) = ((place / "dist").glob("*.whl") for place in (installed, tmp_path))
    one, other = zipfile.ZipFile(first), zipfile.ZipFile(second)
    kept = [name for name in one.namelist() if not name.endswith((".so", "/RECORD")) or made_of(name) in again]
    assert sorted(made_of(name) for name in kept if name.endswith(".so")) == sorted(again)
    assert [name for name in other.namelist() if not name.endswith("/RECORD")] == [
        name for name in kept if not name.endswith("/RECORD")
    ]
    assert [name for name in kept if one.read(name) != other.read(name)] == []


def made_of(name: str) -> str:
    """The module, as setup.py lists it, of a file in the wheel."""
    return name.removeprefix("tidegate/ext/").partition(".")[0].replace("/", ".")


@pytest.mark.timeout(900)
def test_the_wheel_holds_its_bills_of_materials(installed: Path) -> None:
    (wheel,) = (installed / "dist").glob("*.whl")
    packed = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/sboms/" in name]
    assert sorted(name.rpartition("/")[2] for name in packed) == ["tidegate.cdx.json", "tidegate.spdx.json"]


@pytest.mark.timeout(900)
def test_quick_demo_runs_from_the_wheel(installed: Path) -> None:
    run(installed / "env/bin/tidegate", "demo", "--quick", "--out", installed / "out", cwd=installed)
    summary = json.loads((installed / "out" / "summary.json").read_text())
    assert summary["carbon"]["balance_error_ug"] == 0
    assert (installed / "out" / "report.html").stat().st_size > 10_000


@pytest.mark.timeout(900)
def test_a_newcomer_hears_a_site_with_the_wheel_and_the_readmes_lines(installed: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "Client" in block)
    assert len(code.strip().splitlines()) <= 6 and "tidegate run simulated" in readme
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "TIDEGATE"))
    }
    clean.update(TIDEGATE_RUNTIME_DIR=str(installed / "run"), TIDEGATE_STATE_DIR=str(installed / "state"))
    how: dict[str, Any] = {"cwd": installed, "env": clean, "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen([installed / "env/bin/tidegate", "run", "simulated"], **how) as site:
        try:
            assert site.stdout is not None
            assert " runs; core pid" in site.stdout.readline()
            with subprocess.Popen([installed / "env/bin/python", "-u", "-c", code], **how) as newcomer:
                try:
                    assert newcomer.stdout is not None
                    assert "'site.grid_w': Point(value=" in newcomer.stdout.readline()
                    first, second = (newcomer.stdout.readline().split() for _ in range(2))
                    assert int(second[0]) == int(first[0]) + 1 and second[1].startswith("[")
                finally:
                    newcomer.kill()
        finally:
            site.terminate()
            assert site.wait(60) == 0
