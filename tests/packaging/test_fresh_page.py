"""From the commands of docs/web.md to live values on a phone-sized browser; `fresh_page.py` times it from a wheel on.

TIDEGATE_FRESH_WHEEL=FILE also installs that wheel into an environment of its own and asks for at most three minutes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
from tests.packaging import fresh_page

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
WHEEL = os.environ.get("TIDEGATE_FRESH_WHEEL", "")


def test_two_commands_lead_to_live_values_on_a_phone(tmp_path):
    took, over = fresh_page.from_command_to_page(str(Path(sys.executable).with_name("tidegate")), tmp_path)
    assert [what for what, _ in took][-1] == "the page, a login, live values" and over <= 0


@pytest.mark.skipif(not WHEEL, reason="TIDEGATE_FRESH_WHEEL names no wheel")
@pytest.mark.timeout(900)
def test_from_a_fresh_install_to_the_page_in_three_minutes():
    done = subprocess.run([sys.executable, fresh_page.__file__, WHEEL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
