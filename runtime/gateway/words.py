"""The tables of `describe.words`: which of a site's points are told by number, and the word of each number."""

from collections.abc import Iterable

from tidegate.ext.abi import image, shared
from tidegate.ext.safety.gate import REACTIONS
from tidegate.hal.description import Description

CAN_STATES = [word for word, kind in shared.BUS_STATES if kind == "can"]
# The words that ext/abi/image.h has beside these points; a test compares.
METER_VERDICTS = ("believed", "frozen", "turned", "another share", "contradicts its energy", "contradicts its phases")
METER_REGISTERS = ("none read", "waits", "agrees", "stands", "held", "too slow", "against")
METER_PHASES = (
    "none read", "waits", "agrees", "apart", "against", "first phase lost", "second phase lost", "third phase lost",
)  # fmt: skip
METER_QUESTIONS = (
    "nothing", "standing value", "phase", "sign or share", "age", "battery seen", "chase", "steps beside",
)  # fmt: skip
ISLAND_STATES = ("grid", "dark", "genset", "forming", "genset missing")
GRID_ANSWERS = ("open", "yes", "no", "unproven")
STEP_TESTS = ("open", "passed", "failed")
FAULT_WORD_BITS = 32
FAULT_WORDS = ("lo", "hi", "64", "96")


def words_of(site: Description) -> dict[str, dict[str, str]]:
    """Point -> number -> word; for points of bits, place of the bit -> word."""
    found = {
        "site.mode": _numbered(image.MODES_BY_NUMBER),
        "site.reason": _numbered(image.REASONS_BY_NUMBER),
        "site.preference": _numbered(image.REASONS_BY_NUMBER),
        "site.reaction": _numbered(REACTIONS),
        "site.loop_escalation": _numbered(shared.ESCALATION_NAMES),
        "site.can_state": _numbered(CAN_STATES),
        "site.unenforced_bits": _numbered(image.REASONS_BY_NUMBER),
        "site.meter_verdict": _numbered(METER_VERDICTS),
        "site.meter_registers": _numbered(METER_REGISTERS),
        "site.meter_phases": _numbered(METER_PHASES),
        "site.meter_question": _numbered(METER_QUESTIONS),
        "site.grid_answer": _numbered(GRID_ANSWERS),
        "site.island": _numbered(ISLAND_STATES),
    }
    faults = site.fault_names()
    owners = ["site", *(f"unit{at}" for at in range(len(site.units)))]
    for place, word in enumerate(FAULT_WORDS):
        first = place * FAULT_WORD_BITS
        rows = {str(row - first): name for row, name in faults.items() if first <= row < first + FAULT_WORD_BITS}
        found |= {f"{owner}.{what}_{word}": rows for owner in owners for what in ("fault_bits", "latch_bits")}
    for at in range(len(site.units)):
        found |= {
            f"unit{at}.state": _numbered(image.MODES_BY_NUMBER),
            f"unit{at}.reaction": _numbered(REACTIONS),
            f"unit{at}.step_test": _numbered(STEP_TESTS),
            f"unit{at}.first_fault": {"-1": "none"} | {str(row): name for row, name in faults.items()},
        }
    there = {point.name for point in site.points}
    return {name: table for name, table in found.items() if name in there}


def _numbered(words: Iterable[str]) -> dict[str, str]:
    return {str(number): word for number, word in enumerate(words)}
