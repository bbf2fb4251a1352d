"""How soon a person has to look at an alarm, by what the controller does about it itself."""

from typing import Literal

Priority = Literal["low", "medium", "high"]
PRIORITIES: tuple[Priority, ...] = ("low", "medium", "high")
OF_REACTION: dict[str, Priority] = {
    "none": "low",
    "warn": "low",
    "derate": "medium",
    "ramp_zero": "medium",
    "zero": "high",
    "zero_silent": "high",
    "open": "high",
}


def priority_of(reaction: str) -> Priority:
    """Its priority; a reaction that this release does not know is not played down."""
    return OF_REACTION.get(reaction, "high")
