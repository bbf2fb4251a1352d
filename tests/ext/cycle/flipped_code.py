"""A process that turns a bit of its own machine code over, or of the constants beside it, and cycles a core on.

    python -m tests.ext.cycle.flipped_code PLACE

PLACE: "none"; "code MODULE", in a function that has done its work (a module's start); "constants MODULE", the last byte
that is mapped of it and not to be written; "data MODULE", its variables, which may change. Prints one object: bytes
watched, cycles of a whole look, whether the place is among them, rows latched before and after.
"""

import ctypes
import importlib
import json
import mmap
import os
import sys
from pathlib import Path

from tests.ext.cycle.test_selftest import Lone
from tests.ext.safety.mode_rig import site
from tidegate.ext.abi import image
from tidegate.ext.cycle import code

LOOK_BYTES = 256  # of the code, a cycle


def mapped(module: str, access: str) -> list[tuple[int, int]]:
    """Addresses (first, behind the last) of a module's mappings with this access."""
    name = importlib.import_module(f"tidegate.ext.{module}").__file__
    assert name is not None
    rows = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if Path(name).name in line]
    spans = [row[0].split("-") for row in rows if row[1].startswith(access)]
    return [(int(first, 16), int(last, 16)) for first, last in spans]


def place_of(what: str, module: str, watched: list[tuple[int, int]]) -> int:
    """Address of the byte that is to flip."""
    if what == "code":
        name = importlib.import_module(f"tidegate.ext.{module}").__file__
        start = ctypes.cast(getattr(ctypes.CDLL(name), f"PyInit_{module.split('.')[-1]}"), ctypes.c_void_p).value
        assert start is not None
        return start + 1
    if what == "constants":
        rows = mapped(module, "r--p")
        return max(at + size for at, size in watched if any(first <= at < last for first, last in rows)) - 1
    return mapped(module, "rw-p")[-1][0]


def flip(address: int) -> None:
    """Turn bit 0 over; the mapping is private, so no other process sees it."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = address & ~(mmap.PAGESIZE - 1)
    if libc.mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.c_uint8.from_address(address).value ^= 1


def main(what: str, module: str = "") -> int:
    lone = Lone(site())
    total = code.watch(lone.core, os.path.dirname(os.path.dirname(image.__file__ or "")))
    watched = code.spans(lone.core)
    whole = sum(-(-size // LOOK_BYTES) for _, size in watched)
    lone.cycles(whole + 2)
    said: dict[str, object] = {"bytes": total, "whole": whole, "before": lone.latched()}
    if what != "none":
        address = place_of(what, module, watched)
        said["watched"] = any(first <= address < first + size for first, size in watched)
        flip(address)
        lone.cycles(2 * whole)
        said["after"] = lone.latched()
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
