"""How a card that was cut (MIG), or that several pods hold by turns (time slicing), is shared: by slices, then evenly.

DCGM says the power of the whole card on the line of each of its slices and pods. A card is therefore counted once: each
slice has its part by its size (3g of 7), pods that hold one slice at a time share it evenly, and what nobody holds is
unclaimed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SIZES = {"A30": 4}  # compute slices of a card; the others that can be cut have SLICES_OF_CARD
SLICES_OF_CARD = 7

Holder = tuple[str, str]  # namespace, pod or job; both "" = nobody


def size_of(labels: Mapping[str, str]) -> tuple[int, int]:
    """(slices, of how many) of what a line is about; a whole card is all of them."""
    whole = next((size for name, size in SIZES.items() if name in labels.get("modelName", "")), SLICES_OF_CARD)
    found = re.match(r"(\d)g\.", labels.get("GPU_I_PROFILE", ""))
    return (min(int(found[1]), whole), whole) if found else (whole, whole)


@dataclass(slots=True)
class CutCard:
    """The lines of one card at one moment."""

    watts: float = 0.0
    whole: int = SLICES_OF_CARD
    slices: dict[str, tuple[int, set[Holder]]] = field(default_factory=dict)  # GPU_I_ID, "" = not cut

    def add(self, labels: Mapping[str, str], watts: float, holder: Holder) -> None:
        """One line; every one says the power of the whole card."""
        self.watts = max(self.watts, watts)
        size, self.whole = size_of(labels)
        _, holders = self.slices.setdefault(labels.get("GPU_I_ID", ""), (size, set()))
        if any(holder):
            holders.add(holder)

    def parts(self) -> Iterable[tuple[Holder, float]]:
        """(holder, W); they add up to the card's power."""
        slices = dict(self.slices)
        if len(slices) > 1:
            slices.pop("", None)  # the whole card, beside its slices
        of = max(self.whole, sum(size for size, _ in slices.values()))
        found: dict[Holder, float] = {}
        free = of
        for size, holders in slices.values():
            free -= size if holders else 0
            for holder in holders:
                found[holder] = found.get(holder, 0.0) + self.watts * size / of / len(holders)
        if free or not found:
            found["", ""] = self.watts * free / of
        return found.items()
