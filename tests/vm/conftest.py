"""These tests need a kernel with CAN and real drivers: `make test-vm` runs them inside one, all but what needs none."""

import os
from pathlib import Path

import pytest

ELSEWHERE = ("test_guests.py",)  # judges what guests said; needs none


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    guest = bool(os.environ.get("TIDEGATE_VM"))
    why = (
        "needs no test machine, whose processor is emulated and slow: make test"
        if guest
        else "needs the test machine: make test-vm"
    )
    for item in items:
        if here in item.path.parents and (item.path.name in ELSEWHERE) == guest:
            item.add_marker(pytest.mark.skip(reason=why))
