"""A real site that is stopped: the Modbus server and the broker tell it, each from a process of its own."""

import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.runtime.supervisor.test_supervisor import TIDEGATE, Run

pytest.importorskip("pymodbus")
paho = pytest.importorskip("paho.mqtt.client")

SITE = Path(str(files("tidegate.config").joinpath("sites/simulated.toml")))
GRID_W = 40_000 + 70 + 18  # model 203, W


@pytest.fixture
def run(tmp_path):
    one = Run(SITE, tmp_path)
    one.wait_running()
    yield one
    if one.process.poll() is None:
        one.process.terminate()
        one.process.wait(90)


@pytest.fixture
def beside(run):
    """Starts an exporter of the site as its own process."""
    started = []

    def start(*words):
        words = [*TIDEGATE, "export", words[0], "-e", f"ipc://{run.folder / 'run' / 'simulated'}", *words[1:]]
        started.append(subprocess.Popen(words, env={**os.environ, "TIDEGATE_RUNTIME_DIR": str(run.folder / "run")}))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        assert process.wait(30) in (0, -15)


def test_a_bridge_that_is_ended_takes_its_values_away(run, beside, free_port, eventually, tmp_path):
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if mosquitto is None:
        pytest.skip("mosquitto is not installed")
    mqtt = free_port()
    (tmp_path / "broker.conf").write_text(f"listener {mqtt} 127.0.0.1\nallow_anonymous true\n")
    seen = {}
    hearer = paho.Client(paho.CallbackAPIVersion.VERSION2)
    hearer.on_message = lambda client, data, message: seen.__setitem__(message.topic, message.payload.decode())
    hearer.on_connect = lambda client, *_: client.subscribe("#")
    with subprocess.Popen([mosquitto, "-c", str(tmp_path / "broker.conf")], stderr=subprocess.DEVNULL) as broker:
        try:
            eventually(lambda: hearer.connect("127.0.0.1", mqtt), lambda code: code == 0)
            hearer.loop_start()
            process = beside("mqtt", "--port", str(mqtt))
            eventually(lambda: seen, lambda got: got.get("tidegate/simulated/point/site.grid_w"), 60)
            process.terminate()
            assert process.wait(30) == 0
            eventually(lambda: seen, lambda got: got["tidegate/simulated/status"] == "offline")
            eventually(lambda: [t for t, said in seen.items() if said and "/point/" in t], lambda got: not got)
        finally:
            hearer.loop_stop()
            broker.terminate()


def test_a_site_that_was_stopped_looks_alive_to_nobody(run, beside, free_port, eventually, tmp_path):
    from pymodbus.client import ModbusTcpClient

    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if mosquitto is None:
        pytest.skip("mosquitto is not installed")
    modbus, mqtt = free_port(), free_port()
    (tmp_path / "broker.conf").write_text(f"listener {mqtt} 127.0.0.1\nallow_anonymous true\n")
    seen = {}
    hearer = paho.Client(paho.CallbackAPIVersion.VERSION2)
    hearer.on_message = lambda client, data, message: seen.__setitem__(message.topic, message.payload.decode())
    hearer.on_connect = lambda client, *_: client.subscribe("#")
    with subprocess.Popen([mosquitto, "-c", str(tmp_path / "broker.conf")], stderr=subprocess.DEVNULL) as broker:
        try:
            eventually(lambda: hearer.connect("127.0.0.1", mqtt), lambda code: code == 0)
            hearer.loop_start()
            beside("modbus", "--port", str(modbus))
            beside("mqtt", "--port", str(mqtt), "--home-assistant")
            with ModbusTcpClient("127.0.0.1", port=modbus, timeout=10) as scada:
                eventually(scada.connect, bool, 60)
                read = lambda: scada.read_holding_registers(GRID_W, count=1)  # noqa: E731
                eventually(read, lambda got: not got.isError(), 60)
                eventually(lambda: seen, lambda got: got.get("tidegate/simulated/word/site.mode"), 60)
                eventually(
                    lambda: seen, lambda got: got.get("tidegate/simulated/status") == "online", 60
                )  # of another QoS
                assert any(topic.startswith("homeassistant/sensor/tidegate_simulated/") for topic in seen)
                run.process.terminate()
                assert run.process.wait(90) == 0
                assert eventually(read, lambda got: got.isError()).exception_code == 11
                eventually(lambda: seen, lambda got: got["tidegate/simulated/status"] == "offline")
                left = lambda: [t for t, said in seen.items() if said and "simulated/point/" in t]  # noqa: E731
                eventually(left, lambda got: not got)
        finally:
            hearer.loop_stop()
            broker.terminate()
