"""The safety gate in one text: safety.c with the headers that only it includes in their places.

What changes the gate (planted faults, mutants, recorded decisions) works on this text, so that a change can sit in any
part of it and the compiler still sees one unit.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ext" / "safety"
PARTS = ("gate_bank.h", "gate_envelope.h", "gate_rows.h")


def gate_source() -> str:
    """The text of safety.c with its parts; safety.h stays an include."""
    text = (FOLDER / "safety.c").read_text()
    for part in PARTS:
        line = f'#include "safety/{part}"\n'
        if text.count(line) != 1:
            raise ValueError(f"safety.c includes {part} {text.count(line)} times")
        text = text.replace(line, body(part))
    return text


def body(part: str) -> str:
    """A part without its guard and its own includes."""
    return re.sub(r"^#(ifndef|define|endif|include)\b.*\n", "", (FOLDER / part).read_text(), flags=re.MULTILINE)
