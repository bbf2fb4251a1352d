"""The register image of a SunSpec device: points by (model, name) over one list of words."""

import math
import struct
from collections.abc import Iterable

from tidegate.hal import sunspec

FORMATS = {"u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "u64": ">Q", "s64": ">q", "sunssf": ">h"}
RANGES = {"u16": (0, 2**16), "s16": (-(2**15), 2**15), "u32": (0, 2**32), "s32": (-(2**31), 2**31),
          "u64": (0, 2**64), "s64": (-(2**63), 2**63), "sunssf": (-10, 11)}  # fmt: skip
PAD = 0x8000


class Registers:
    """Models one after the other behind "SunS". A point that was never put is "not implemented" in SunSpec's own way.

    That is a pattern of its type (an accumulator's is 0), and what a value becomes that does not fit its register: a
    clamped one would look like a measured one.
    """

    def __init__(self, models: Iterable[int]) -> None:
        self.models = tuple(models)
        self.starts: dict[int, int] = {}
        at = len(sunspec.SUNS)
        for number in self.models:
            self.starts[number] = at
            at += sunspec.model(number).length
        self.words = [0] * (at + 2)
        self.words[0 : len(sunspec.SUNS)] = sunspec.SUNS
        self.words[at : at + 2] = [sunspec.END, 0]
        self._points = {(number, name): p for number in self.models for name, p in sunspec.model(number).points.items()}
        for (number, name), point in self._points.items():
            if name == "Pad":
                self.words[self.place(number, name)[0]] = PAD
            elif point.type in FORMATS:
                self.put(number, name, None)
        for number in self.models:
            self.put(number, "ID", number)
            self.put(number, "L", sunspec.model(number).length - 2)

    def place(self, number: int, name: str) -> tuple[int, int]:
        """(first word, words) of a point."""
        point = self._points[number, name]
        return self.starts[number] + point.offset, point.size

    def put(self, number: int, name: str, value: float | None) -> None:
        """Write a raw value; None, no number and what does not fit are "not implemented"."""
        point = self._points[number, name]
        low, high = RANGES[point.type]
        none = point.sentinel or 0
        fits = value is not None and math.isfinite(value) and low <= round(value) < high
        raw = round(value) if fits and value is not None else none
        data = (raw & (1 << 16 * point.size) - 1).to_bytes(2 * point.size, "big")
        at, size = self.place(number, name)
        self.words[at : at + size] = struct.unpack(f">{size}H", data)

    def scaled(self, number: int, name: str, value: float | None) -> None:
        """Write a value in the point's own unit, by the scale factor that was put."""
        sf = self._points[number, name].sf
        exponent = self.get(number, sf) if sf else 0
        self.put(number, name, None if value is None else value * 10.0**-exponent)

    def text(self, number: int, name: str, value: str) -> None:
        """Write a text, cut to its room and filled with zeros."""
        at, size = self.place(number, name)
        data = value.encode("ascii", "replace")[: size * 2].ljust(size * 2, b"\0")
        self.words[at : at + size] = struct.unpack(f">{size}H", data)

    def get(self, number: int, name: str) -> int:
        """The raw value of a point."""
        at, size = self.place(number, name)
        point = self._points[number, name]
        return int(struct.unpack(FORMATS[point.type], struct.pack(f">{size}H", *self.words[at : at + size]))[0])

    def clear(self, number: int, keep: Iterable[str]) -> None:
        """Make every point of a model "not implemented" but those named."""
        kept = {"ID", "L", *keep}
        for (model, name), point in self._points.items():
            if model == number and name not in kept:
                if point.type in FORMATS:
                    self.put(number, name, None)
                elif name != "Pad":
                    self.text(number, name, "")
