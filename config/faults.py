"""The fault table: rows of faults.toml as the gate takes them, with what a site file makes stricter."""

import tomllib
from importlib.resources import files
from typing import Any

REACTIONS = {"none": 0, "warn": 1, "derate": 2, "ramp_zero": 3, "zero": 4, "zero_silent": 5, "open": 6}


def load_faults(changes: dict[str, Any], problems: list[str]) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """(rows for the gate by number, what the describe blob says of them).

    changes: fault id -> object with debounce_ms, clear_ms, latched or None each. What would make a fault slower to
    react, faster to clear or forget a latch is refused with a line in `problems`.
    """
    entry = files("tidegate.config").joinpath("faults.toml")
    table = tomllib.loads(entry.read_text(encoding="utf-8")) if entry.is_file() else {}
    rows, described = {}, []
    by_id = {}
    for position, row in enumerate(table.get("fault", [])):
        number = row.get("row", position)
        by_id[row["id"]] = row
        change = changes.get(row["id"])
        row = {**row}
        for key in ("debounce_ms", "clear_ms", "latched"):
            wanted = getattr(change, key, None) if change is not None else None
            if wanted is None:
                continue
            before = row.get(key, 0)
            weaker = wanted > before if key == "debounce_ms" else wanted < before
            if weaker:
                problems.append(
                    f"safety.faults.{row['id']}.{key}: {wanted} is weaker than the table's {before}; "
                    f"only stricter is allowed"
                )
            row[key] = wanted
        reaction = row["reaction"]
        rows[number] = {
            "reaction": REACTIONS[reaction] if isinstance(reaction, str) else int(reaction),
            "latched": int(row.get("latched", 0)),
            "debounce_ms": int(row.get("debounce_ms", 0)),
            "clear_ms": int(row.get("clear_ms", 0)),
            "derate_permille": int(row.get("derate_permille", 0)),
        }
        described.append({**row, "row": number})
    for ident in changes:
        if ident not in by_id:
            problems.append(f"safety.faults.{ident}: no fault has this id; `tidegate faults` lists them")
    return rows, described
