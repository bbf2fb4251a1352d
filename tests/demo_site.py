"""The demo's site for tests that only want a running one: at 10 ms a cycle no stall of a shared machine trips it."""

import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

_SHIPPED = Path(str(files("tidegate.config").joinpath("demo")))
_FOLDER = tempfile.TemporaryDirectory(prefix="tidegate-demo-")
SLOW_DEMO = Path(shutil.copytree(_SHIPPED, Path(_FOLDER.name) / "demo")) / "site.toml"
_TEXT = SLOW_DEMO.read_text(encoding="utf-8")
assert "period_us = 1000\n" in _TEXT
SLOW_DEMO.write_text(_TEXT.replace("period_us = 1000\n", "period_us = 10000\n"), encoding="utf-8")
