"""The fault table as data: it fits the core, and everything that contradicts itself is refused."""

from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest

from tidegate.config.faults import as_markdown, default_table, header_text, load_faults, read_table
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.ext.safety.gate import REACTIONS

TEXT = files("tidegate.config").joinpath("faults.toml").read_text(encoding="utf-8")


def problems_of(before: str, after: str) -> str:
    assert before in TEXT
    problems: list[str] = []
    read_table(TEXT.replace(before, after, 1), problems)
    return "\n".join(problems)


def test_the_shipped_table_has_the_rows_of_the_core_in_their_order() -> None:
    assert tuple(row.id for row in default_table()) == FAULT_IDS


def test_every_row_says_when_it_is_over_and_what_people_are_told() -> None:
    for row in default_table():
        assert row.clear and row.text and row.clear_ms > 0, row.id


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('id = "bms_stale"', 'id = "bms_late"', "no row for bms_stale"),
        ('id = "bms_stale"', 'id = "bms_late"', "bms_late is not watched"),
        ('id = "bms_stale"', 'id = "bms_never"', "stands 2 times"),
        ('id = "bms_stale"', 'id = "BMS stale"', "String should match pattern"),
        ('reaction = "open"', 'reaction = "explode"', "'zero_silent' or 'open'"),
        ('reaction = "open"', 'reaction = "none"', "'zero_silent' or 'open'"),
        ("debounce_ms = 500", "debounce_ms = -1", "greater than or equal to 0"),
        ("debounce_ms = 500", "debounce_ms = 1001", "longer than the hazard allows"),
        ("debounce_ms = 500", "debounce_ms = 0.5", "debounce_ms"),
        ("debounce_ms = 500", 'debounce_ms = "500"', "debounce_ms"),
        ("debounce_ms = 500\n", "", "Field required"),
        ("clear_ms = 500", "clear_ms = 0", "clear_ms"),
        ("clear_ms = 500\n", "", "Field required"),
        ("clear_ms = 500", "clear_ms = 2000001", "clear_ms"),
        ('clear = "all are fresh"\n', "", "clear: Field required"),
        ('text = "the BMS is late"\n', "", "text: Field required"),
        ("latched = true", "latched = 1", "latched"),
        ('reaction = "open"\nlatched = true', 'reaction = "open"\nlatched = false', "contactors that were opened"),
        ("derate_permille = 500", "derate_permille = 1000", "derate_permille"),
        ("derate_permille = 500\n", "", "belongs to rows with reaction derate"),
        ('reaction = "warn"', 'reaction = "warn"\nderate_permille = 500', "belongs to rows with reaction derate"),
        ("flap_max = 6", "flap_max = 7", "flap_max"),
        ("latched = true", "latched = true\nflap_max = 3", "no use for it"),
        ('threshold = 0.02\nunit = "share"', "threshold = 0.02", "a threshold needs its unit"),
        ("threshold = 0.02", "threshold = inf", "finite"),
        ("threshold = 0.02", "threshold = 3e9", "threshold"),
        ('floor_unit = "V"\n', "", "a floor needs its unit"),
        ('unit = "K"', 'unit = "degF"', "unit"),
        ("debounce_ms = 500", "debounce_s = 5", "Extra inputs are not permitted"),
        ("[[fault]]", "[[faults]]", "unknown key 'faults'"),
        ("[[fault]]", "[[fault", "faults.toml:"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(before: str, after: str, expected: str) -> None:
    assert expected in problems_of(before, after)


def test_rows_in_another_order_are_refused() -> None:
    head, first, second, *rest = TEXT.split("[[fault]]")
    problems: list[str] = []
    read_table("[[fault]]".join([head, second, first, *rest]), problems)
    assert any("order" in problem for problem in problems)


def test_all_problems_are_told_at_once() -> None:
    text = TEXT.replace("debounce_ms = 500", "debounce_ms = -1").replace('reaction = "open"', 'reaction = "shut"')
    problems: list[str] = []
    read_table(text, problems)
    assert len([p for p in problems if "debounce_ms" in p]) > 1 and any("reaction" in p for p in problems)


def test_the_page_about_faults_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    assert page.read_text(encoding="utf-8") == as_markdown(), "run python -m tidegate.config.faults > docs/faults.md"


def test_the_cores_rows_are_those_of_the_table() -> None:
    header = Path(__file__).parents[2] / "ext" / "safety" / "fault_table.h"
    assert header.read_text(encoding="utf-8") == header_text(TEXT), "run python -m tidegate.config.faults header"


def change(**columns: object) -> SimpleNamespace:
    return SimpleNamespace(**{"debounce_ms": None, "clear_ms": None, "latched": None, **columns})


def test_a_site_may_make_a_row_stricter() -> None:
    problems: list[str] = []
    rows, described = load_faults({"pcs_outside": change(debounce_ms=10, clear_ms=9000, latched=True)}, problems)
    number = FAULT_IDS.index("pcs_outside")
    assert not problems
    assert (rows[number]["debounce_ms"], rows[number]["clear_ms"], rows[number]["latched"]) == (10, 9000, 1)
    assert described[number]["id"] == "pcs_outside" and described[number]["row"] == number


@pytest.mark.parametrize(
    "columns", [{"debounce_ms": 251}, {"clear_ms": 1999}, {"clear_ms": 2_000_001}], ids=lambda columns: str(columns)
)
def test_a_site_may_not_weaken_a_row(columns: dict[str, int]) -> None:
    problems: list[str] = []
    load_faults({"pcs_outside": change(**columns)}, problems)
    assert len(problems) == 1 and f"safety.faults.pcs_outside.{next(iter(columns))}" in problems[0]


def test_a_site_may_not_remove_a_latch() -> None:
    problems: list[str] = []
    load_faults({"bms_alarm": change(latched=False)}, problems)
    assert problems == [
        "safety.faults.bms_alarm.latched: false is weaker than the table's true; only stricter is allowed"
    ]


def test_a_site_may_not_name_a_fault_that_does_not_exist() -> None:
    problems: list[str] = []
    load_faults({"bms_on_fire": change()}, problems)
    assert len(problems) == 1 and "no fault has this id" in problems[0] and "bms_alarm" in problems[0]


def test_the_gate_gets_integers() -> None:
    rows, _ = load_faults({}, [])
    row = rows[FAULT_IDS.index("dc_v_mismatch")]
    assert row["threshold_milli"] == 20 and row["floor_milli"] == 5000
    assert row["reaction"] == REACTIONS.index("derate") and row["derate_permille"] == 500
