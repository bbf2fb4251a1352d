"""The example of docs/carbon.md gives the numbers that the page works out by hand."""

import json
import re
from pathlib import Path

from tidegate.runtime.cli.carbon_commands import attribute_document

PAGE = Path("docs/carbon.md").read_text(encoding="utf-8")


def test_the_quarter_hour_worked_by_hand_is_what_the_program_says():
    example = re.search(r"```json\n(.*?)```", PAGE, flags=re.S)
    assert example is not None
    (period,) = json.loads(json.dumps(attribute_document(json.loads(example.group(1)))))["periods"]
    found = {out["name"]: (out["energy_milliwh"], out["ug"]) for out in period["outflows"]}
    assert found["it"] == (9_000_000, 1_918_781_726)
    assert found["cooling"] == (800_000, 170_558_376)
    assert found["residual"] == (50_000, 10_659_898)
    assert period["stocks"]["battery"] == [[7_000_000, 1_400_000_000, [["grid", 7_000_000]]]]
    assert period["balance_error_ug"] == 0
    for words in ("1.918781726 kg", "0.170558376 kg", "0.010659898 kg", "213.198 g/kWh"):
        assert words in PAGE
    assert round(2_100_000_000 / 9_850_000, 3) == 213.198
