"""`tidegate restart`, and a first start of a bare installation: what they say and what they leave."""

import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

from tests.runtime.supervisor.test_supervisor import TIDEGATE, Run
from tidegate.runtime.api.blocking_client import Client

SITE = Path(str(files("tidegate.config").joinpath("sites/simulated.toml"))).read_text()
BILLED = "[control]\ndemand_w_max = 39000\ndemand_billing = 'month'\n"
# As if the extra had never been installed: its packages are not found. The processes that run starts are not changed.
BARE = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sqlalchemy", "cryptography", "jinja2", "matplotlib", "fpdf", "babel"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
sys.meta_path.insert(0, Refuse())
import importlib.util
real = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return real(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
from tidegate.runtime.cli.main import main
main()
"""


def command(run, *words):
    return subprocess.run([*TIDEGATE, *words], env=run.environment, capture_output=True, text=True, timeout=240)


@pytest.fixture
def run(tmp_path):
    site = tmp_path / "hall.toml"
    site.write_text(SITE.replace("[control]\n", BILLED))
    site.chmod(0o644)
    one = Run(site, tmp_path)
    one.site = site
    one.wait_running()
    yield one
    one.process.terminate()
    assert one.process.wait(60) == 0, one.said


def test_restart_takes_the_changed_file_and_a_broken_one_changes_nothing(run):
    endpoint = f"ipc://{run.folder / 'run' / 'simulated'}"
    with Client(endpoint, timeout_s=10) as client:
        first = client.ask("health")["boot"]
        assert client.describe()["control"]["peak_w_max"] == 40_000
    good = run.site.read_text()
    run.site.write_text(good.replace("peak_w_max = 40000", "peak_w_max = 90000"))
    refused = command(run, "restart")
    assert refused.returncode == 65 and "peak_w_max" in refused.stderr and "runs on" in refused.stderr
    with Client(endpoint, timeout_s=10) as client:
        assert client.ask("health")["boot"] == first
    run.site.write_text(good.replace("peak_w_max = 40000", "peak_w_max = 39500"))
    done = command(run, "restart", "simulated")
    assert done.returncode == 0 and "restarted" in done.stdout, done.stderr + run.said
    with Client(endpoint, timeout_s=10) as client:
        assert client.ask("health")["boot"] != first and client.describe()["control"]["peak_w_max"] == 39_500
    assert "restart was ordered; the power goes to zero first" in run.said and "ended with setpoint 0" in run.said
    until = time.monotonic() + 60  # the gateway answers before the last process of the start has
    while run.said.count(" runs; core pid") < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert run.said.count(" runs; core pid") == 2, run.said


def test_a_signal_alone_does_not_restart_a_file_that_cannot_start(run):

    run.site.write_text("schema = 1\n")
    os.kill(run.process.pid, signal.SIGUSR2)
    with Client(f"ipc://{run.folder / 'run' / 'simulated'}", timeout_s=10) as client:
        for _ in range(200):
            if "not restarted" in run.said:
                break
            client.why()
            time.sleep(0.1)
    assert "not restarted" in run.said and run.process.poll() is None


def test_a_first_start_says_nothing_of_files_that_cannot_be_there_yet(run):
    with Client(f"ipc://{run.folder / 'run' / 'simulated'}", timeout_s=10) as client:
        events, _ = client.replay("event", count=512)
    said = [(one["event"], one["name"], one["detail"]) for one in events]
    assert said and not [one for one in said if "Errno" in one[2] or "No such file" in one[2]]
    assert "Errno" not in run.said


def test_restart_without_a_site_names_what_runs(tmp_path):
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run([*TIDEGATE, "restart"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69 and "name the site" in done.stderr


def test_without_the_extra_the_site_runs_and_says_what_is_missing(tmp_path):
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(tmp_path / "run"), "TIDEGATE_STATE_DIR": str(tmp_path / "state")}
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([sys.executable, "-c", BARE, "run", "simulated"], stdout=log, stderr=log, env=env)
    try:
        run = Run.__new__(Run)
        run.folder, run.process = tmp_path, process
        run.wait_running()
        lines = [line for line in run.said.splitlines() if "carbon" in line]
        assert len(lines) == 1 and "pip install 'tidegate[carbon]'" in lines[0] and "sqlalchemy" in lines[0]
        assert "Traceback" not in run.said
    finally:
        process.terminate()
        assert process.wait(60) == 0
        log.close()
