"""docs/threat-model.md: each attack of the audit has its tests, and every test or folder that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
TESTS = re.compile(r"`(tests/[\w/.]+)::(\w+)`")
ATTACKS = 20


def test_each_attack_of_the_audit_has_its_row_and_its_tests():
    rows = {int(number): rest for number, rest in re.findall(r"^\| (\d+) \|(.*)$", PAGE, re.M)}
    assert list(rows) == list(range(1, ATTACKS + 1))
    for number, rest in rows.items():
        attack, right, parts, tests = (cell.strip() for cell in rest.strip().strip("|").split(" | "))
        assert attack and right and parts and TESTS.search(tests), f"row {number}"


def test_every_test_that_is_named_is_there():
    found = TESTS.findall(PAGE)
    assert len(found) > 40
    lost = [
        f"{file}::{name}"
        for file, name in found
        if not (ROOT / file).is_file() or f"\ndef {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert not lost


def test_every_place_of_tests_that_is_named_is_there():
    found = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(found) > 20
    assert not [one for one in found if not (ROOT / one).exists()]
