"""The words of what is told by number: a point's number as people say it, by the tables that `describe` gives."""

from collections.abc import Mapping

Words = Mapping[str, Mapping[str, str]]
"""Point -> number -> word; of a point of bits, place of the bit -> word."""


def word_of(words: Words, name: str, unit: str, value: float | None) -> str | None:
    """The word of a point's value; of bits all that are set, or "none". None where the point has no words."""
    table = words.get(name)
    if table is None or value is None:
        return None
    number = int(value)
    if unit != "bits":
        return table.get(str(number), f"unknown {number}")
    found = [table.get(str(bit), f"bit {bit}") for bit in range(number.bit_length()) if number >> bit & 1]
    return ", ".join(found) or "none"
