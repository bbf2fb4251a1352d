"""The planner's process beside a running site: it plans, is killed, stands back; the loop goes on."""

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.runtime.cabinet import TIDEGATE, eventually
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.api.messages import QUALITIES
from tidegate.runtime.planner.site_history import Quarter, SiteHistory, write_history

SITE = str(Path(__file__).parents[3] / "config/sites/simulated.toml")


@pytest.fixture
def site(tmp_path_factory):
    """A client of `tidegate run`, once the state of charge is good."""
    folder = tmp_path_factory.mktemp("s")
    places = {"TIDEGATE_RUNTIME_DIR": str(folder / "run"), "TIDEGATE_STATE_DIR": str(folder / "state")}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen([*TIDEGATE, "run", SITE], env={**os.environ, **places}, stdout=said, stderr=said)
    try:
        with Client(f"ipc://{folder}/run/simulated", timeout_s=5.0) as client:

            def good():
                try:
                    return QUALITIES[client.get("site.soc")["site.soc"].quality] == "good"
                except ClientError:
                    return False

            assert eventually(good, 120.0), (folder / "said").read_text()
            yield client
    finally:
        process.terminate()
        process.wait(60)


def prepared(folder):
    """Three days of a load that is known, prices of yesterday to tomorrow."""
    (folder / "prices").mkdir()
    now = int(time.time()) // 900 * 900
    history = SiteHistory(False, {now - 900 * k: Quarter(35.0, 0.0, 35.0) for k in range(1, 3 * 96)})
    write_history(folder / "history.csv", history)
    rows = ["time_utc,price_eur_per_kwh"]
    for k in range(-48, 48):
        at = datetime.fromtimestamp((now // 3600 + k) * 3600, UTC)
        rows.append(f"{at:%Y-%m-%dT%H:%MZ},{0.05 if at.hour % 8 < 4 else 0.4}")
    (folder / "prices/a.csv").write_text("\n".join(rows) + "\n")


def test_a_planner_plans_dies_and_stands_back_while_the_loop_goes_on(site, tmp_path):
    prepared(tmp_path)
    words = [
        "planner",
        "run",
        "--endpoint",
        site.endpoint,
        "--prices",
        str(tmp_path / "prices"),
        "--folder",
        str(tmp_path),
    ]
    said = tmp_path / "said"

    def told():
        path = tmp_path / "planner.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def start():
        with said.open("ab") as out:
            return subprocess.Popen([*TIDEGATE, *words, SITE], stdout=out, stderr=out)

    planner = start()
    try:
        assert eventually(lambda: told().get("state") == "planned", 120.0), (told(), said.read_text())
        assert told()["plans"] == 1 and len(told()["battery_kw"]) == 96
        cycles = site.health()["loop"]["cycles"]
        planner.send_signal(signal.SIGSTOP)  # hung: nothing waits for it
        assert eventually(lambda: site.health()["loop"]["cycles"] > cycles + 500, 120.0)
        planner.kill()
        planner.wait(30)
        cycles = site.health()["loop"]["cycles"]
        assert eventually(lambda: site.health()["loop"]["cycles"] > cycles + 500, 120.0)
        now = int(time.time())
        assert site.schedule([(now - 10, 1000.0)], now + 7200)["status"] == "applied", "any order replaces its plan"
        with pytest.raises(ClientError, match="stands back"):
            site.schedule([(now - 10, 2000.0)], now + 7200, rank="planner")
        planner = start()
        assert eventually(lambda: told().get("state") == "stands back", 120.0), (told(), said.read_text())
        assert "a planner stands back from it" in told()["text"]
    finally:
        planner.kill()
        planner.wait(30)
