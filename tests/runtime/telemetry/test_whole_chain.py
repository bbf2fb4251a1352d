"""A running site with telemetry: the supervisor keeps the process, and racks and pods stand among the live figures."""

import os
import signal
import time

import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tests.runtime.telemetry.agents import Web, card_vector, redfish
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.supervisor.supervisor import Supervisor


def eventually(ask, good, seconds=150.0):
    until = time.monotonic() + seconds
    got = None
    while time.monotonic() < until:
        try:
            got = ask()
            if good(got):
                return got
        except (OSError, ClientError) as why:
            got = why
        time.sleep(0.3)
    raise AssertionError(f"never good: {got}")


@pytest.fixture
def web():
    one = Web()
    yield one
    one.close()


def test_racks_and_pods_are_shown_live_and_a_killed_process_comes_back(tmp_path, web):
    redfish(web)
    web.pages["/api/v1/query"] = card_vector
    for path in DEMO.parent.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    site = tmp_path / "site.toml"
    site.write_text(
        f'{DEMO.read_text()}\n[[telemetry]]\nname = "bmcs"\nkind = "redfish"\nscheme = "http"\nevery_s = 1\n'
        f'hosts = ["{web.host}"]\nracks = {{ "{web.host}" = "A01" }}\n[[telemetry]]\nname = "gpus"\n'
        f'kind = "prometheus"\nexporter = "dcgm"\nevery_s = 1\nurl = "http://{web.host}"\n'
    )
    with Supervisor(site, runtime=tmp_path / "run", state=tmp_path / "state") as one, one.client() as client:
        racks = eventually(lambda: client.ask("carbon", of="rack")["rows"], lambda rows: rows)
        assert [(row["name"], row["more"]["counted_by"]) for row in racks] == [("A01", "server")]
        assert racks[0]["counted_kwh"] > 0.0 and racks[0]["today"]["energy_kwh"] > 0.0
        assert not racks[0]["today"]["good"], "the account has just begun"
        jobs = eventually(lambda: client.ask("carbon", of="job", name="train-0")["rows"], lambda rows: rows)
        assert jobs[0]["more"]["namespace"] == "ml" and jobs[0]["today"]["energy_kwh"] > 0.0
        nodes = {row["name"]: row for row in client.ask("carbon", of="node")["rows"]}
        load = nodes[racks[0]["node"]]
        expected = load["today"]["energy_kwh"] - load["counted_kwh"]
        assert load["difference_kwh"] == pytest.approx(expected, abs=1e-5)
        killed = one.children["telemetry"].pid
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: one.children["telemetry"].pid, lambda pid: pid not in (0, killed))
        assert one.children["core"].alive
