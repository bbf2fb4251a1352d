"""Whether a site keeps a recording here: what its file says, and what is installed."""

import importlib.util
from typing import Any


def missing(describe: dict[str, Any]) -> str:
    """Why this site on this installation keeps no recording; nothing if it does. describe : of the compiled program."""
    if not (describe.get("recorder") or {}).get("mib", 0):
        return "the site file says [recorder] mib = 0"
    if importlib.util.find_spec("mcap") is None:
        return "mcap is not installed there (pip install 'tidegate[recorder]')"
    return ""
