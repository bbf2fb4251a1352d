"""The fault table: faults.toml read, checked against the compiled core, and given to the gate as integers.

A site file may make rows stricter (react sooner, clear later, latch); what would weaken one is refused.
"""

import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.ext.safety.gate import REACTIONS, TIME_MS_MAX

MILLI_MAX = 2_147_483.0  # thresholds travel as thousandths in 32 bits
CHANGES = ("debounce_ms", "clear_ms", "latched")  # what a site file may make stricter

Text = Annotated[str, Field(min_length=3, max_length=240)]
Milliseconds = Annotated[int, Field(ge=0, le=TIME_MS_MAX, strict=True)]
Number = Annotated[float, Field(ge=-MILLI_MAX, le=MILLI_MAX, allow_inf_nan=False)]
Unit = Literal["share", "1", "K", "V", "A", "W", "s", "frames"]


Row: TypeAlias = dict[str, object]


class FaultRow(BaseModel):
    """One row of faults.toml; the file's head says what each column means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{2,30}$")]
    what: Text
    threshold: Number | None = None
    unit: Unit | None = None
    floor: Number | None = None
    floor_unit: Unit | None = None
    debounce_ms: Milliseconds
    debounce_ms_max: Milliseconds
    reaction: Literal["warn", "derate", "ramp_zero", "zero", "zero_silent", "open"]
    derate_permille: Annotated[int, Field(ge=0, le=999, strict=True)] | None = None
    latched: Annotated[bool, Field(strict=True)]
    clear_ms: Annotated[int, Field(ge=1, le=TIME_MS_MAX, strict=True)]
    clear: Text
    flap_max: Annotated[int, Field(ge=0, le=6, strict=True)] = 0
    text: Text
    note: Text | None = None

    def problems(self) -> list[str]:
        """What contradicts itself, each line with the key and the remedy."""
        found = []
        if self.debounce_ms > self.debounce_ms_max:
            found.append(
                f"debounce_ms: {self.debounce_ms} is longer than the hazard allows, debounce_ms_max = "
                f"{self.debounce_ms_max}; lower it"
            )
        if (self.reaction == "derate") != (self.derate_permille is not None):
            found.append("derate_permille: belongs to rows with reaction derate and to no other")
        if (self.threshold is None) != (self.unit is None):
            found.append("unit: a threshold needs its unit, and a unit its threshold")
        if (self.floor is None) != (self.floor_unit is None):
            found.append("floor_unit: a floor needs its unit, and a unit its floor")
        if self.latched and self.flap_max:
            found.append("flap_max: a row that latches at once has no use for it; leave it out")
        if self.reaction == "open" and not self.latched:
            found.append("latched: contactors that were opened need a person; set it to true")
        return found

    def gate_row(self) -> dict[str, int]:
        """Fields of gate_fault_row_t."""
        return {
            "reaction": REACTIONS.index(self.reaction),
            "latched": int(self.latched),
            "debounce_ms": self.debounce_ms,
            "clear_ms": self.clear_ms,
            "derate_permille": self.derate_permille or 0,
            "flap_max": self.flap_max,
            "threshold_milli": round((self.threshold or 0.0) * 1000),
            "floor_milli": round((self.floor or 0.0) * 1000),
        }


def read_table(text: str, problems: list[str]) -> list[FaultRow]:
    """The rows of a fault table's TOML text; whatever is wrong goes to `problems`, all of it at once."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"faults.toml: {error}")
        return []
    problems.extend(f"faults.toml: unknown key {key!r}; only [[fault]]" for key in table if key != "fault")
    entries = table.get("fault", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append("faults.toml: fault must be a list of tables, each begun by [[fault]]")
        return []
    rows = []
    for position, entry in enumerate(entries):
        place = f"faults.toml: fault[{position}] {entry.get('id', 'without id')!s}"
        try:
            row = FaultRow(**entry)
        except ValidationError as error:
            problems.extend(f"{place}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            continue
        problems.extend(f"{place}.{problem}" for problem in row.problems())
        rows.append(row)
    ids = tuple(str(entry.get("id")) for entry in entries)
    if ids != FAULT_IDS:
        for one in FAULT_IDS:
            if one not in ids:
                problems.append(f"faults.toml: no row for {one}, which the core watches; add it")
        for one in ids:
            if one not in FAULT_IDS:
                problems.append(f"faults.toml: {one} is not watched by the core; remove it")
            elif ids.count(one) > 1:
                problems.append(f"faults.toml: {one} stands {ids.count(one)} times; keep one")
        if sorted(ids) == sorted(FAULT_IDS):
            problems.append(
                "faults.toml: the rows are not in the order of the compiled core, which is the order of the bits"
            )
    return rows


@cache
def default_table() -> tuple[FaultRow, ...]:
    """The table that ships. Raises ValueError with every problem, should it not fit the core that it ships with."""
    problems: list[str] = []
    rows = read_table(files("tidegate.config").joinpath("faults.toml").read_text(encoding="utf-8"), problems)
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(rows)


def _stricter(row: FaultRow, change: object, problems: list[str]) -> FaultRow:
    """The row with a site's changes (an object with debounce_ms, clear_ms, latched or None each)."""
    wanted: Row = {}
    for key in CHANGES:
        value = getattr(change, key, None)
        if value is None:
            continue
        before = getattr(row, key)
        weaker = value > before if key == "debounce_ms" else value < before
        if weaker:
            problems.append(
                f"safety.faults.{row.id}.{key}: {str(value).lower()} is weaker than the table's {str(before).lower()}; "
                f"only stricter is allowed"
            )
        elif key == "clear_ms" and value > TIME_MS_MAX:
            problems.append(f"safety.faults.{row.id}.clear_ms: {value} is more than {TIME_MS_MAX}; lower it")
        else:
            wanted[key] = value
    if wanted.get("latched"):
        wanted["flap_max"] = 0
    return row.model_copy(update=wanted)


def rest_blind(rows: dict[int, Row], described: list[Row]) -> None:
    """For a site that may go on discharging without its meter: the meter's rows warn.

    What they would forbid is then forbidden by the way into the gate: no charging, no discharge above the site's value.
    """
    for ident in ("meter_stale", "meter_invalid"):
        number = FAULT_IDS.index(ident)
        rows[number] |= {"reaction": REACTIONS.index("warn"), "flap_max": 0}
        described[number] |= {"reaction": "warn", "flap_max": 0}


def load_faults(changes: Mapping[str, object], problems: list[str]) -> tuple[dict[int, Row], list[Row]]:
    """(rows for the gate by number, what the describe blob says of them).

    changes: fault id -> object with debounce_ms, clear_ms, latched or None each. What would make a fault slower to
    react, faster to clear or forget a latch is refused with a line in `problems`.
    """
    rows: dict[int, Row] = {}
    described: list[Row] = []
    for number, row in enumerate(default_table()):
        if row.id in changes:
            row = _stricter(row, changes[row.id], problems)
        rows[number] = dict(row.gate_row())
        described.append({**row.model_dump(exclude_none=True), "row": number})
    known = set(FAULT_IDS)
    for ident in changes:
        if ident not in known:
            problems.append(f"safety.faults.{ident}: no fault has this id; there are {', '.join(FAULT_IDS)}")
    return rows, described


# What a cabinet can suffer without a row that says so: (what, why, what happens instead).
UNSEEN = (
    ("a frame or reply that is wrong: checksum, length, kind, stuck or jumping counter, exception, echo, late answer",
     "it is refused where it arrives and is no reading",
     "the reading it should have brought ages: `bms_stale`, `pcs_stale`, `meter_stale`; counted for each device"),
    ("a second sender of a BMS frame, a second master on a serial line", "bytes do not say who sent them",
     "counters, checksums and identity words refuse what does not fit; who forges all of them is believed"),
    ("a flooded bus, frames lost in the kernel", "reading has a bounded share of a cycle, so the loop does not feel it",
     "readings that were pushed out age; drops are counted"),
    ("another device or firmware at an address", "it is known before the first write",
     "nothing is written to it and its unit does not arm"),
    ("a meter's sign or phases swapped, a unit or scale of a map wrong", "a row would need to know the right ones",
     "`tidegate commission` measures them; a converter's own shows at each arming, `pcs_step_failed`, and so does a "
     "meter that does not see the battery, or with the wrong sign, `grid_unmoved`"),
    ("a fuse or transformer that gets too warm", "there is no thermal model, only limits of power and current",
     "the control keeps below the limits; what it cannot keep is `grid_over_limit`"),
    ("smoke, gas, water, insulation, a welded contactor, a weak cell", "only what the BMS map has is read",
     "the BMS's own alarm bits: `bms_alarm`, `bms_warning`"),
    ("a contactor opened under load", "the BMS opens when it must, and asks nobody", "its readings say it afterwards"),
    ("an emergency stop or door switch", "the controller has no digital inputs: it is not the safety function",
     "wire it to the converter or the BMS; the loss of either is a row"),
    ("an energy counter that turns over, is reset or runs backwards", "no setpoint rests on it",
     "the carbon ledger books a gap"),
    ("wall clock steps", "control knows monotonic time only", "records carry both clocks"),
    ("the core's own death, a stall, lost priority, memory not locked", "who is dead cannot say so",
     "the supervisor and the converter's own watchdog see it from outside"),
    ("disks, processes beside the core, network, keys, orders of strangers", "none of them can change a setpoint",
     "the gateway's events, `tidegate doctor`"),
)  # fmt: skip


def as_markdown() -> str:
    """The table for people: docs/faults.md."""
    lines = [
        "# What can go wrong, and what happens then",
        "",
        "Made from `config/faults.toml` by `python -m tidegate.config.faults > docs/faults.md`; a test holds it",
        "current. Reactions, weakest first: warn, derate (the envelope shrinks), ramp_zero (to zero at the stop rate),",
        "zero (in the next write), zero_silent (and no heartbeat), open (and the contactors are asked to open). The",
        "highest wins. *Latched* rows stay until someone acknowledges them with the cause gone; above derate they also",
        "trip the unit, which then waits to be armed. A row with *flaps* latches at that many activations within the",
        "hour, and each doubles its clear time. Times are of the controller alone; the ages of readings come first.",
        "",
        "| bit | id | when | acts after | does | over when | clears after | latched |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(default_table()):
        numbers = []
        if row.threshold is not None:
            numbers.append(f"threshold {row.threshold:g} {row.unit}".replace(" share", "").removesuffix(" 1"))
        if row.floor is not None:
            numbers.append(f"floor {row.floor:g} {row.floor_unit}")
        when = row.what + (f" ({', '.join(numbers)})" if numbers else "")
        does = row.reaction + (f" to {row.derate_permille / 10:g} %" if row.derate_permille is not None else "")
        latched = "yes" if row.latched else f"at {row.flap_max} flaps" if row.flap_max else "no"
        lines.append(
            f"| {number} | `{row.id}` | {when} | {row.debounce_ms} ms (at most {row.debounce_ms_max}) | {does} "
            f"| {row.clear} | {row.clear_ms} ms | {latched} |"
        )
    lines += ["", "## Why a row is as it is", ""]
    lines += [f"- `{row.id}`: {row.note}" for row in default_table() if row.note]
    lines += ["", "## What has no row", "", "| what | why | what happens instead |", "|---|---|---|"]
    lines += [f"| {what} | {why} | {instead} |" for what, why, instead in UNSEEN]
    return "\n".join(lines) + "\n"


def header_text(table: str) -> str:
    """The rows for the compiled core, from the TOML text alone: ext/safety/fault_table.h."""
    rows = tomllib.loads(table)["fault"]
    lines = [f'    X(FAULT_{row["id"].upper()}, "{row["id"]}") /* {row["what"]} */' for row in rows]
    head = (
        "/* ext/safety/fault_table.h: the rows of the fault table, in bit order.\n"
        " *\n"
        " * Made from config/faults.toml by `python -m tidegate.config.faults header`; a test holds it current.\n"
        " */\n"
    )
    return head + "#define FAULT_TABLE(X) \\\n" + " \\\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["header"]:  # written in place: the core is built from it
        root = Path(__file__).resolve().parents[1]
        (root / "ext/safety/fault_table.h").write_text(header_text((root / "config/faults.toml").read_text()))
    else:
        print(as_markdown(), end="")
