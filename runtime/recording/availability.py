"""Whether a site keeps a recording here: what its file says, and what is installed."""

import importlib.util

from tidegate.hal.description import Description


def missing(site: Description) -> str:
    """Why this site on this installation keeps no recording; nothing if it does."""
    if not site.recorder.mib:
        return "the site file says [recorder] mib = 0"
    if importlib.util.find_spec("mcap") is None:
        return "mcap is not installed there (pip install 'tidegate[recorder]')"
    return ""
