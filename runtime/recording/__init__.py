"""The recorder: the last minutes of every cycle in memory, in a file when something happens, and in a replay."""

import importlib.util
from typing import Any


def lack(describe: dict[str, Any]) -> str:
    """Why this site on this installation keeps no recording; nothing if it does. describe : of the compiled program."""
    if not (describe.get("recorder") or {}).get("mib", 0):
        return "the site file says [recorder] mib = 0"
    if importlib.util.find_spec("mcap") is None:
        return "mcap is not installed there (pip install 'tidegate[recorder]')"
    return ""
