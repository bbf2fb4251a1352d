"""The core's calls on machines of other word widths: as compiled here, and for 32-bit ARM with both widths of time."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("word_width.c")
EXT = Path(__file__).parents[3] / "ext"
ARM = "arm-linux-gnueabihf-gcc", ("qemu-arm-static",)
TIME64 = ("-D_TIME_BITS=64", "-D_FILE_OFFSET_BITS=64")


@pytest.mark.parametrize(("compiler", "runner", "flags", "widths"), [
    ("cc", (), (), None),
    (*ARM, (), (4, 4)),
    (*ARM, TIME64, (4, 8)),
], ids=["here", "armhf", "armhf-time64"])  # fmt: skip
def test_waits_and_stamps_hold_for_each_width_of_time(tmp_path, compiler, runner, flags, widths):
    for tool in (compiler, *runner):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    program = tmp_path / "word_width"
    words = [compiler, "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-static", *flags,
             f"-I{EXT}", str(SOURCE), "-o", str(program), "-lm"]  # fmt: skip
    subprocess.run(words, check=True, timeout=300)
    done = subprocess.run([*runner, str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = {name: int(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert widths is None or (told["long"], told["time_t"]) == widths
    assert told["waits"] <= 3, "a deadline that the kernel reads wrongly is over at once, and the thread spins"
    assert told["old"] == 1_700_000_000_000_000_005
    assert told["new"] == 4_900_000_000_000_000_007, "a stamp of the year 2125"
    assert told["epoll_idle"] == 0 and told["epoll_idle_ms"] >= 49, "a wait, not a turn of a loop that spins"
    assert (told["epoll_ready"], told["epoll_mark"]) == (1, 41)
