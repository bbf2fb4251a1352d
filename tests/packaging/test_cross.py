"""packaging/cross.py: what it says of a module's C library, and what it says where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "packaging/cross.py"


def cross(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """A run of the script."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **extra},
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("cc") is None or shutil.which("readelf") is None, reason="cc or readelf is missing")
def test_the_oldest_c_library_of_a_module_is_that_of_its_newest_symbol(tmp_path):
    plain, newer = tmp_path / "plain.so", tmp_path / "newer.so"
    for module, code in ((plain, "int f(int x) { return x; }"), (newer, (
        "#define _GNU_SOURCE\n#include <sys/epoll.h>\n"
        "int f(int w, struct epoll_event *e) { return epoll_pwait2(w, e, 1, 0, 0); }"
    ))):  # fmt: skip
        words = ["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(module)]
        subprocess.run(words, input=code, text=True, check=True, timeout=60)
    assert cross("glibc", plain).stdout == "2.17\n", "wheels begin there"
    assert cross("glibc", plain, newer).stdout == "2.35\n", "epoll_pwait2 came with that"


def test_what_is_missing_is_named_with_its_package(tmp_path):
    done = cross("root", "armhf", PATH=str(tmp_path))
    assert done.returncode == 77
    assert all(name in done.stderr for name in ("mmdebstrap", "gcc-arm-linux-gnueabihf", "qemu-user-static"))


@pytest.mark.parametrize("words", [(), ("build",), ("build", "vax"), ("env", "here"), ("dance", "arm64")])
def test_words_that_it_does_not_know_are_refused_with_its_usage(words):
    done = cross(*words)
    assert done.returncode == 2 and "KIND: arm64" in done.stderr
