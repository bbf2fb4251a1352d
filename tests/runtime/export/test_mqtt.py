"""The MQTT bridge against a real broker: what is retained is true, through restarts of the broker and silence."""

import json
import shutil
import subprocess
import threading

import pytest

bridge = pytest.importorskip("tidegate.runtime.export.mqtt_bridge")
paho = pytest.importorskip("paho.mqtt.client")

BASE = "tidegate/test-site"


class Broker:
    """mosquitto without a memory: what was retained is gone when it starts anew."""

    def __init__(self, folder, port):
        self.program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        self.file, self.port, self.process = folder / "broker.conf", port, None
        self.file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")

    def start(self):
        self.process = subprocess.Popen([self.program, "-c", str(self.file)], stderr=subprocess.DEVNULL)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None


@pytest.fixture
def broker(tmp_path, free_port):
    one = Broker(tmp_path, free_port())
    if one.program is None:
        pytest.skip("mosquitto is not installed")
    yield one
    one.stop()


class Hearer:
    """A client that begins anew with what the broker retains, and notes all that comes."""

    def __init__(self, port, eventually):
        self.all, self.last = [], {}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._note
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        eventually(lambda: self.client.connect("127.0.0.1", port), lambda code: code == 0)
        self.client.loop_start()

    def _note(self, client, data, message):
        text = message.payload.decode()
        self.all.append((message.topic, text))
        self.last[message.topic] = text

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def hear(broker, eventually):
    opened = []

    def listen():
        opened.append(Hearer(broker.port, eventually))
        return opened[-1]

    yield listen
    for one in opened:
        one.close()


@pytest.fixture
def bridged(pushing, gateway, broker):
    """Starts the bridge in a thread; ends it."""
    stop = threading.Event()
    threads = []

    def start(**more):
        def run():
            with gateway.client() as site:
                bridge.serve(site, "127.0.0.1", broker.port, stop=stop, **more)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return stop

    yield start
    stop.set()
    for one in threads:
        one.join(30)
        assert not one.is_alive()


def points(seen):
    return {topic for topic, text in seen.items() if "/point/" in topic and text}


def test_records_come_once_and_the_end_takes_the_values_away(pushing, broker, bridged, hear, eventually):
    broker.start()
    heard = hear()
    stop = bridged()
    eventually(lambda: heard.last, lambda seen: seen.get(f"{BASE}/point/site.grid_w"))
    for _ in range(5):
        pushing.meter()
    count = lambda: [json.loads(text)["seq"] for topic, text in heard.all if topic.endswith("/meter")]  # noqa: E731
    assert eventually(count, lambda seqs: len(seqs) >= 5) == [0, 1, 2, 3, 4]
    assert heard.last[f"{BASE}/status"] == "online" and heard.last[f"{BASE}/point/site.grid_w"] == "41230"
    stop.set()
    eventually(lambda: heard.last, lambda seen: seen[f"{BASE}/status"] == "offline" and not points(seen))


def test_all_points_are_back_after_the_broker_has_lost_its_memory(pushing, broker, bridged, hear, eventually):
    broker.start()
    bridged()
    first = hear()
    before = eventually(lambda: points(first.last), lambda seen: len(seen) > 50)
    broker.stop()
    broker.start()
    again = hear()
    eventually(lambda: points(again.last), lambda seen: seen >= before)
    assert again.last[f"{BASE}/status"] == "online"


def test_a_broker_that_is_not_there_yet_is_waited_for(pushing, broker, bridged, hear, eventually):
    bridged()
    for _ in range(3):
        pushing.meter()
    broker.start()
    heard = hear()
    eventually(lambda: heard.last, lambda seen: seen.get(f"{BASE}/status") == "online" and points(seen))
    count = lambda: [json.loads(text)["seq"] for topic, text in heard.all if topic.endswith("/meter")]  # noqa: E731
    pushing.meter()
    assert eventually(count, lambda seqs: 3 in seqs)


def test_a_site_that_falls_silent_is_offline_without_values_and_comes_back(pushing, broker, bridged, hear, eventually):
    broker.start()
    bridged()
    heard = hear()
    before = eventually(lambda: points(heard.last), lambda seen: len(seen) > 50)
    pushing.speaks.clear()
    eventually(lambda: heard.last, lambda seen: seen[f"{BASE}/status"] == "offline" and not points(seen))
    late = hear()  # who comes now hears nothing that looks alive
    eventually(lambda: late.last, lambda seen: seen.get(f"{BASE}/status") == "offline")
    assert not points(late.last)
    pushing.speaks.set()
    eventually(lambda: heard.last, lambda seen: seen[f"{BASE}/status"] == "online" and points(seen) >= before)


def test_a_bridge_that_dies_leaves_offline_by_the_brokers_own_word(broker, hear, eventually):
    broker.start()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="dying")
    one = bridge.Bridge({"site": {"name": "test-site"}}, client)
    client.will_set(f"{one.base}/status", bridge.OFFLINE, qos=1, retain=True)
    eventually(lambda: client.connect("127.0.0.1", broker.port), lambda code: code == 0)
    client.loop_start()
    eventually(client.is_connected)
    one._heard = 1e18
    one.take(None)
    heard = hear()
    eventually(lambda: heard.last, lambda seen: seen.get(f"{BASE}/status") == "online")
    client.loop_stop()
    client._sock_close()
    eventually(lambda: heard.last, lambda seen: seen[f"{BASE}/status"] == "offline")


class Full:
    """A client whose queue is full for a while."""

    def __init__(self, times):
        self.left, self.sent = times, []

    def is_connected(self):
        return False

    def publish(self, topic, text, qos=0, retain=False):
        self.left -= 1
        full = self.left >= 0
        if not full:
            self.sent.append((topic, text))
        code = bridge.MQTTErrorCode.MQTT_ERR_QUEUE_SIZE if full else bridge.MQTTErrorCode.MQTT_ERR_SUCCESS
        return type("Info", (), {"rc": code})()


def test_a_record_waits_for_a_full_queue_and_is_not_dropped():
    client = Full(2)
    bridge.Bridge({"site": {"name": "test-site"}}, client).take({"kind": "meter", "seq": 7, "points": {}})
    assert [(topic, json.loads(text)["seq"]) for topic, text in client.sent] == [(f"{BASE}/meter", 7)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(53.900000000000006, "53.9"), (230.10000610351562, "230.1"), (41230.0, "41230"), (-0.0, "0"), (0.1 + 0.2, "0.3"),
     (123456789.5, "123456789.5"), (1e12, "1000000000000"), (0.625, "0.625"), (1e-7, "0.0000001"), (50.0, "50")],
)  # fmt: skip
def test_values_have_the_digits_that_were_measured(value, text):
    from tidegate.runtime.export.decimals import decimals, rounded

    assert decimals(value) == text and rounded(value) == float(text)


def test_every_thousandth_is_shown_as_it_was_measured():
    from tidegate.runtime.export.decimals import decimals

    wrong = [n for n in range(-200_000, 200_000, 7) if float(decimals(n * 0.001)) != round(n * 0.001, 3)]
    assert not wrong
