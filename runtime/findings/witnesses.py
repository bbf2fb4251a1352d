"""What a grid meter's own registers and phases say of its power now, and what the battery asks it, in words."""

from collections.abc import Mapping

# Point -> who speaks, and what each word of the point means to people; a word that is not here says nothing.
WITNESSES: dict[str, tuple[str, dict[str, str]]] = {
    "site.meter_registers": ("energy registers", {
        "waits": "have not counted enough yet", "agrees": "agree with its power",
        "stands": "stand still: they show nothing now", "held": "catch up at once: nothing is held against them",
        "too slow": "are no witness: it shows something new too seldom", "against": "contradict its power",
    }),
    "site.meter_phases": ("phases", {
        "waits": "have not shown enough yet", "agrees": "add up to its power",
        "apart": "have never added up to its power: nothing is held against them", "against": "contradict its power",
        "first phase lost": "show nothing of what is on L1", "second phase lost": "show nothing of what is on L2",
        "third phase lost": "show nothing of what is on L3",
    }),
    "site.meter_question": ("the battery", {
        "standing value": "steps to see whether a value that stands is alive",
        "phase": "steps to see whether each phase shows it",
        "sign or share": "steps to see whether the meter is turned, or shows another share of it",
        "age": "steps to see how old the readings are by now",
        "battery seen": "steps to see whether the meter shows it at all",
        "chase": "stands to see whether it swings by itself",
        "steps beside": "steps now and then beside what is wanted, until the meter has shown it",
    }),
}  # fmt: skip


def witness_words(words: Mapping[str, Mapping[str, str]], values: Mapping[str, float | None]) -> list[str]:
    """Of each witness whether it speaks for the power now; one that the meter's map does not have is left out.

    words: point -> number -> word, as the gateway describes the site. values: of the points.
    """
    found = []
    for point, (who, said) in WITNESSES.items():
        value = values.get(point)
        word = words.get(point, {}).get(f"{value:g}", "") if value is not None else ""
        if word in said:
            found.append(f"{who} {said[word]}")
    return found
