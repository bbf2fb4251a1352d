"""Which rows of the fault table are true now, as Python sees it."""

from typing import Final

FAULT_IDS: Final[tuple[str, ...]]

class Diagnosis:
    def __init__(self, program: bytes | bytearray, unit: int = 0) -> None: ...
    def step(self, image: bytes | bytearray, t_ns: int, dt_ns: int = 1_000_000) -> list[str]: ...
    def repeat(self, image: bytes | bytearray, t_ns: int, count: int) -> int: ...
