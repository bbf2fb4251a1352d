"""Registers to values and back; Python's view, for tests and tools."""

from collections.abc import Mapping, Sequence

Point = tuple[float, int, int, int]  # value, t_ns, quality, changes

def decode(
    program: bytes,
    block: int,
    regs: Sequence[int],
    points: Mapping[int, Point] | None = None,
    t_ns: int = 1,
    status: int = 0,
) -> dict[int, Point]: ...
def encode(program: bytes, command: int, value: float, points: Mapping[int, Point] | None = None) -> list[int]: ...
