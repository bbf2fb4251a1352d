"""What people read of a grid meter's witnesses: a sentence for each word of their points."""

import pytest

from tidegate.runtime.findings.witnesses import WITNESSES, witness_words
from tidegate.runtime.gateway import words

NUMBERED = {"site.meter_registers": words.METER_REGISTERS, "site.meter_phases": words.METER_PHASES,
            "site.meter_question": words.METER_QUESTIONS}  # fmt: skip
DESCRIBED = {point: {str(number): word for number, word in enumerate(table)} for point, table in NUMBERED.items()}


def test_every_word_has_its_sentence_but_the_one_for_nothing_that_could_speak() -> None:
    assert set(WITNESSES) == set(NUMBERED)
    for point, table in NUMBERED.items():
        assert set(WITNESSES[point][1]) == set(table) - {"none read", "nothing"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"site.meter_registers": 2.0, "site.meter_phases": 7.0},
         ["energy registers agree with its power", "phases show nothing of what is on L3"]),
        ({"site.meter_registers": 0.0, "site.meter_phases": 0.0}, []),
        ({"site.meter_registers": None}, []),
        ({"site.meter_phases": 99.0}, []),
        ({"site.meter_question": 0.0}, []),
        ({"site.meter_question": 6.0}, ["the battery stands to see whether it swings by itself"]),
    ],
)  # fmt: skip
def test_a_witness_speaks_by_its_word(values: dict[str, float | None], said: list[str]) -> None:
    assert witness_words(DESCRIBED, values) == said
