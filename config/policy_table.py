"""The settings of [control] that may also change at run time, for people and for the site file's schema.

Each is one row of POLICY_TABLE in ext/abi/settings.h. `python -m tidegate.config.policy_table > docs/policies.md`
"""

from typing import Annotated

from pydantic import Field

from tidegate.ext.abi.settings import OFF, POLICY_BY_NAME, Policy
from tidegate.hal import description

RANGES = {
    "from zero": "0 to {hi:.0f}",
    "above zero": "above 0, to {hi:.0f}",
    "signed": "-{hi:.0f} to {hi:.0f}",
    "switch": "0 or 1; true or false in the site file",
}


def site_fields() -> dict[str, tuple[object, object]]:
    """name -> (type, default) of each policy's key in the site file, as pydantic's create_model takes them."""
    plain = description.Control()
    return {row.name: (_type_of(row), getattr(plain, row.name)) for row in POLICY_BY_NAME.values()}


def _type_of(row: Policy) -> object:
    if row.range == "switch":
        return Annotated[bool, Field(description=row.text)]
    least = {"gt": 0} if row.range == "above zero" else {"ge": row.lo}
    number = Annotated[float, Field(**least, le=row.hi, description=row.text)]
    return number if getattr(description.Control(), row.name) is not None else number | None


def as_markdown() -> str:
    """The table for people: docs/policies.md."""
    lines = [
        "# Policies: what the control aims at",
        "",
        "Made from `ext/abi/settings.h` by `python -m tidegate.config.policy_table > docs/policies.md`; a test",
        "holds it current. Each is a key of `[control]` in the site file; an order of the API ([policy](api.md)) gives",
        "it another value while the site runs. What is tighter holds at once; what is wider needs the role maintain.",
        "How they work together: [control.md](control.md).",
        "",
        "| key | unit | what it does | range | without it | tighter | off |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = description.Control()
    for row in POLICY_BY_NAME.values():
        default = getattr(plain, row.name)
        given = "none" if default is None else str(default).lower() if isinstance(default, bool) else f"{default:g}"
        unit = "share" if row.is_share and row.range != "switch" else "" if row.is_share else row.unit
        ends = RANGES[row.range].format(hi=row.hi)
        off = "none" if row.off == OFF else f"{row.off:g}"
        lines.append(f"| `{row.name}` | {unit} | {row.text} | {ends} | {given} | {row.tighter or '-'} | {off} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
