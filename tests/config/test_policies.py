"""One row a policy: site file, program, API, command line and docs follow from POLICY_TABLE in ext/abi/settings.h."""

import math
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from tidegate.config.policy_table import as_markdown
from tidegate.config.site import Control
from tidegate.ext.abi import program, settings, shared
from tidegate.hal import description
from tidegate.runtime.gateway import ops

ROOT = Path(__file__).parents[2]
ROWS = list(settings.POLICY_BY_NAME.values())


def test_the_page_of_the_policies_is_current() -> None:
    page = ROOT / "docs" / "policies.md"
    assert page.read_text() == as_markdown(), "run python -m tidegate.config.policy_table > docs/policies.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_has_its_key_its_field_and_its_name_in_the_api(row: settings.Policy) -> None:
    assert row.name in Control.model_fields and row.name in program.CONTROL_FIELDS
    assert row.name in get_args(ops.PolicyName)
    assert getattr(Control(), row.name) == getattr(description.Control(), row.name)
    assert shared.order_name(shared.ORDER_POLICY_FIRST + ROWS.index(row)) == row.name
    assert math.isinf(settings.defaults()[row.name]) == (row.off == settings.OFF and row.range == "from zero")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_site_file_and_api_refuse_the_same_values(row: settings.Policy) -> None:
    step = 1e-9 if row.is_share else 1.0
    for value in (-row.hi - step, -row.hi, -step, 0.0, step, row.hi, row.hi + step):
        try:
            Control(**{row.name: bool(value) if row.range == "switch" and value in (0.0, 1.0) else value})
            taken = True
        except ValidationError:
            taken = False
        if row.range == "switch" and 0 < value < 1:
            continue  # the API takes a share of following, the file only all or nothing
        assert taken == (row.refusal(value) == ""), value


def test_wider_is_what_lets_more_happen() -> None:
    peak, reserve, target = (settings.POLICY_BY_NAME[name] for name in ("peak_w_max", "reserve_soc", "target_soc"))
    assert peak.is_wider(50e3, 40e3) and peak.is_wider(peak.off, 40e3) and not peak.is_wider(40e3, 50e3)
    assert reserve.is_wider(0.1, 0.2) and not reserve.is_wider(0.2, 0.1)
    assert not target.is_wider(0.1, 0.9) and not target.is_wider(0.9, 0.1)
