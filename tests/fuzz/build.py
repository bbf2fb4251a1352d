"""Compile a test's own Cython module against the checkout: `build("rtu_storm")` gives the imported module."""

import hashlib
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def build(name: str) -> ModuleType:
    """Cython and C compile tests/fuzz/<name>.pyx where it or a header changed; the result lies in build/fuzz."""
    source, out = HERE / f"{name}.pyx", ROOT / "build" / "fuzz"
    out.mkdir(parents=True, exist_ok=True)
    inputs = [source, *sorted((ROOT / "ext").rglob("*.pxd")), *sorted((ROOT / "ext").rglob("*.h"))]
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    built = out / f"{name}_{stamp}" / (name + sysconfig.get_config_var("EXT_SUFFIX"))
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        c_file = built.parent / f"{name}.c"
        flags = ["-3", "-X", "boundscheck=False", "-X", "wraparound=False", "-X", "cdivision=True"]
        run([sys.executable, "-m", "cython", *flags, "-I", str(ROOT / "build" / "ns"), str(source), "-o", str(c_file)])
        include = ["-I", sysconfig.get_paths()["include"], "-I", str(ROOT / "ext")]
        part = built.with_suffix(".part")
        run(["cc", "-O2", "-fPIC", "-shared", "-w", *include, str(c_file), "-o", str(part)])
        part.rename(built)
    spec = importlib.util.spec_from_file_location(name, built)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed:\n{done.stdout}{done.stderr}")
