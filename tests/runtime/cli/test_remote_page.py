"""docs/remote.md: its lines are typed on two machines, which here are network namespaces with a cable between them."""

import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.page import steps
from tests.runtime.cli.test_install_page import Shell

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "remote.md"


class NamespaceShell(Shell):
    """Types commands in a folder of a machine that has a network of its own."""

    def __init__(self, folder: Path, namespace: str) -> None:
        super().__init__(folder)
        self.namespace = namespace
        # `ip netns exec` puts another /sys over this one; nsenter changes the network alone.
        self.inside = ["nsenter", f"--net=/run/netns/{namespace}"]

    def typed(self, words: str) -> str:
        return f"{' '.join(self.inside)} {words}"

    def run(self, words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.typed(words), shell=True, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=180
        )


@pytest.fixture
def machines():
    """Two namespaces, unit 10.213.7.1 and client 10.213.7.2; the test's own machine sees nothing of it."""
    ip = shutil.which("ip", path=f"/usr/sbin:/sbin:{os.environ['PATH']}")
    if ip is None or shutil.which("nsenter") is None:
        pytest.skip("ip (iproute2) or nsenter (util-linux) is not installed")
    word = secrets.token_hex(3)
    names = [f"tg-unit-{word}", f"tg-away-{word}"]
    made = []

    def do(words: str) -> None:
        done = subprocess.run([ip, *words.split()], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine lets nobody make network namespaces: {done.stderr.strip()}")

    try:
        for name in names:
            do(f"netns add {name}")
            made.append(name)
        do(f"-n {names[0]} link add cable type veth peer name cable netns {names[1]}")
        for at, name in enumerate(names, 1):
            do(f"-n {name} addr add 10.213.7.{at}/24 dev cable")
            do(f"-n {name} link set cable up")
            do(f"-n {name} link set lo up")
        yield names
    finally:
        for name in made:
            subprocess.run([ip, "netns", "del", name], check=False)


@pytest.fixture
def shells(tmp_path, machines):
    """(the unit, the other machine), the unit's site file made as the page says."""
    sides = []
    for name, namespace in zip(("unit", "away"), machines, strict=True):
        (tmp_path / name).mkdir()
        sides.append(NamespaceShell(tmp_path / name, namespace))
    line = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.S)[1]
    site = (ROOT / "config" / "sites" / "simulated.toml").read_text().replace('name = "simulated"', 'name = "hall"')
    assert '[gateway]\nendpoint = "tcp://' in line and '"hall"' in site
    (tmp_path / "unit" / "hall.toml").write_text(f"{site}\n{line}")
    (tmp_path / "unit" / "hall.toml").chmod(0o644)
    yield sides
    for side in sides:
        side.close()


def type_all(shell, block):
    typed = steps(PAGE, block)
    for step in typed:
        step.words = shell.typed(step.words)
        assert shell.type(step) is None, step.words
    return typed


def test_the_page_lets_another_machine_in_with_one_line_and_one_command(shells):
    unit, away = shells
    assert len(type_all(unit, 0)) == 3
    shutil.move(unit.folder / "scada.key", away.folder / "scada.key")
    # A site needs some seconds to arm; the page's own first line is `why`, which is typed again until it comes.
    again = away.run("tidegate why --key scada.key")
    assert again.returncode == 0, again.stderr
    assert len(type_all(away, 1)) == 4

    # The other side: a reader orders nothing, a stranger gets no answer, and who is revoked is out.
    order = away.run("tidegate set stop --key scada.key")
    assert order.returncode == 77 and "not-allowed" in order.stderr
    assert away.run("tidegate get site.mode -e tcp://10.213.7.1:7400 --timeout 1").returncode == 69
    granted = unit.run("tidegate keys grant scada --role operate")
    assert granted.returncode == 0 and "operate" in granted.stdout
    assert unit.run("tidegate keys revoke scada").returncode == 0
    until_refused = [away.run("tidegate why --key scada.key --timeout 1") for _ in range(12)]
    assert until_refused[-1].returncode == 69 and "this key granted" in until_refused[-1].stderr


def run_python(shell, code):
    words = [*shell.inside, sys.executable, "-c", code]
    return subprocess.run(words, cwd=shell.folder, env=shell.env, capture_output=True, text=True, timeout=60)


def test_the_python_of_the_page_runs_on_the_other_machine(shells):
    unit, away = shells
    type_all(unit, 0)
    shutil.move(unit.folder / "scada.key", away.folder / "scada.key")
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)[1]
    done = run_python(away, code)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
