"""The stack canary: every compiled module has it, and with our flags an overrun ends the process."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FLAG = "-fstack-protector-strong"
SMASH = """
#include <string.h>
__attribute__((noinline)) static int copy(const char *from, unsigned size) {
    char kept[16];
    memcpy(kept, from, size);
    return kept[size % 16u];
}
int main(int argc, char **argv) {
    static char from[64];
    return copy(from, argc > 1 ? 48u : 16u);
}
"""


def flags() -> list[str]:
    """What setup.py gives the compiler for our modules."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    found = re.search(r"^CFLAGS = \[.*?^\]", text, re.M | re.S)
    assert found is not None
    return re.findall(r'"(-[^"{]+)"', found[0])


def test_our_flags_ask_for_it() -> None:
    assert FLAG in flags()


@pytest.mark.skipif(shutil.which("nm") is None, reason="binutils are not installed")
@pytest.mark.parametrize("room", ["cycle/loop", "cycle/recorder", "safety/gate", "bus/can", "bus/tcp"])
def test_a_module_that_keeps_arrays_on_its_stack_has_it(room: str) -> None:
    (module,) = (ROOT / "ext").glob(f"{room}.*.so")
    said = subprocess.run(["nm", "-D", module], capture_output=True, text=True, check=True).stdout
    assert "__stack_chk_fail" in said


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_an_overrun_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "smash.c").write_text(SMASH)
    given = [flag for flag in flags() if flag.startswith("-f") and "prefix-map" not in flag]
    words = ["gcc", "-O0", *given, "-U_FORTIFY_SOURCE", "smash.c", "-o", "smash"]
    subprocess.run(words, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "smash"]).returncode == 0
    done = subprocess.run([tmp_path / "smash", "more"], capture_output=True)
    assert done.returncode == -signal.SIGABRT and b"stack smashing" in done.stderr
