"""docs/web.md: its lines are typed; the REST lines too, with curl where the machine has it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra web is not installed")

from tests.page import steps
from tests.runtime.cli.test_install_page import Shell

PAGE = Path(__file__).parents[3] / "docs" / "web.md"


@pytest.fixture
def shell(tmp_path):
    made = Shell(tmp_path)
    yield made
    made.close()


def test_the_page_is_served_by_its_own_lines_and_programs_read_it(shell, tmp_path):
    typed = steps(PAGE, 0)
    assert typed[0].words == "pip install 'tidegate[web]'" and len(typed) == 4
    for step in typed[1:3]:
        assert shell.type(step) is None, step.words
    done = subprocess.run(typed[3].words, shell=True, cwd=tmp_path, env=shell.env, capture_output=True, text=True)
    assert done.returncode == 0 and re.search(r"code \w{5}-\w{5}, role maintain, for 10 minutes", done.stdout), (
        done.stderr
    )
    assert re.search(r"open https://\S+:8443/#pair=\w{10}\n", done.stdout)
    token = ""
    for step in steps(PAGE, 1)[:2]:
        done = subprocess.run(step.words, shell=True, cwd=tmp_path, env=shell.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        token = done.stdout.strip()
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shutil.copy(next((tmp_path / "state").rglob("ca.pem")), tmp_path / "ca.crt")
    read, order = re.search(r"```bash\n(.*?)```", PAGE.read_text(), re.S)[1].splitlines()
    env = {**shell.env, "TOKEN": token}
    done = subprocess.run(f"{read} -sS", shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert '"site.soc":[' in done.stdout, done.stderr
    order = order.replace("--json", "-H 'content-type: application/json' -d")  # of curl 7.82 and later
    done = subprocess.run(f"{order} -sS", shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert '"code":"not-allowed"' in done.stdout, "a reader orders nothing"
    assert shell.type(steps(PAGE, 1)[2]) is None
