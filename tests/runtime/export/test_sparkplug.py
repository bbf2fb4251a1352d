"""The edge node of Sparkplug B against mosquitto, read by a decoder of somebody else (pysparkplug)."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.runtime.export.test_mqtt import broker  # noqa: F401 - a fixture

node = pytest.importorskip("tidegate.runtime.export.sparkplug_node")
payload = pytest.importorskip("tidegate.runtime.export.sparkplug_payload")
paho = pytest.importorskip("paho.mqtt.client")

# Beside our packages, not among them: it asks for a paho-mqtt of before 2, of which only its client makes use.
PEER = Path(__file__).parents[3] / "build" / "pysparkplug"
PINNED = "pysparkplug==0.6.1"
GROUP, SITE = "plant", "test-site"


@pytest.fixture(scope="module")
def peer():
    """The module of the other decoder."""
    if not (PEER / "pysparkplug").is_dir():
        words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(PEER), PINNED]
        if subprocess.run(words, check=False).returncode:
            pytest.skip(f"{PINNED} cannot be installed here")
    sys.path.insert(0, str(PEER))
    try:
        import pysparkplug

        yield pysparkplug
    finally:
        sys.path.remove(str(PEER))


class Host:
    """What a host application hears: (type, device, payload as the other decoder reads it), in order."""

    def __init__(self, port, eventually, peer):
        self.kinds = {"NBIRTH": peer.NBirth, "DBIRTH": peer.DBirth, "NDATA": peer.NData, "DDATA": peer.DData,
                      "NDEATH": peer.NDeath}  # fmt: skip
        self.all, self.births, self.wrong, self.retained = [], {}, [], []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._heard
        self.client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", qos=1)
        eventually(lambda: self.client.connect("127.0.0.1", port), lambda code: code == 0)
        self.client.loop_start()
        self.port = port

    def _heard(self, client, data, message):
        try:
            space, group, kind, name, *device = message.topic.split("/")
            assert (space, group, name) == ("spBv1.0", GROUP, SITE)
            if kind == "NCMD":
                return
            if message.retain:
                self.retained.append(message.topic)
            of = device[0] if device else ""
            birth = self.births.get(of) if kind.endswith("DATA") else None
            read = self.kinds[kind].decode(message.payload, **({} if birth is None else {"birth": birth}))
            if kind.endswith("BIRTH"):
                self.births[of] = read
            self.all.append((kind, of, read))
        except Exception as why:  # told by the test, not lost in paho's thread
            self.wrong.append(f"{message.topic}: {type(why).__name__} {why}")

    def of(self, *kinds):
        return [row for row in list(self.all) if row[0] in kinds]

    def command(self, peer, name, value=True):
        metric = peer.Metric(timestamp=1, name=name, datatype=peer.DataType.BOOLEAN, value=value)
        raw = peer.NCmd(timestamp=1, metrics=(metric,)).encode(include_dtypes=True)
        self.client.publish(f"spBv1.0/{GROUP}/NCMD/{SITE}", raw, qos=1)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()
        assert self.wrong == [] and self.retained == []


@pytest.fixture
def host(broker, eventually, peer):  # noqa: F811
    broker.start()
    made = Host(broker.port, eventually, peer)
    yield made
    made.close()


@pytest.fixture
def serving(pushing, gateway, broker):  # noqa: F811
    """Starts the node in a thread; the event ends it."""
    stop = threading.Event()

    def run():
        with gateway.client() as site:
            node.serve(site, "127.0.0.1", broker.port, GROUP, stop=stop)

    thread = threading.Thread(target=run)

    def start():
        thread.start()
        return stop

    yield start
    stop.set()
    if thread.is_alive():
        thread.join(60)
    assert not thread.is_alive()


def values(read):
    return {one.name: one.value for one in read.metrics}


def in_order(rows):
    """Numbers that rise by one behind each birth of the node."""
    expected = None
    for kind, _, read in rows:
        if kind == "NDEATH":
            expected = None
            continue
        expected = 0 if kind == "NBIRTH" else (expected + 1) % 256
        assert read.seq == expected, (kind, read.seq, expected)


def birth(host, eventually, number=0, count=3):
    """Births of the node and its devices: at least so many messages, of this bdSeq."""

    def seen():
        rows = host.of("NBIRTH", "DBIRTH")
        starts = [at for at, (kind, _, read) in enumerate(rows) if kind == "NBIRTH" and values(read)["bdSeq"] == number]
        return rows[starts[-1] :] if starts else []

    return eventually(seen, lambda rows: len(rows) >= count, seconds=60)


def latest(host, kind, name):
    """The newest metric of that name."""
    found = [one for row in host.of(kind) for one in row[2].metrics if one.name == name]
    return found[-1] if found else None


def test_births_carry_every_point_and_data_what_has_changed(pushing, gateway, serving, host, eventually):
    described = [one.name for one in gateway.gateway.server.site.described.points if not one.hidden]
    assert len(described) > 90
    serving()
    births = birth(host, eventually)
    assert [kind for kind, _, _ in births] == ["NBIRTH", "DBIRTH", "DBIRTH"]
    own = values(births[0][2])
    assert own["bdSeq"] == 0 and own["Node Control/Rebirth"] is False
    assert own["site/grid_w"] == 41230.0 and own["site/mode/word"] == "run"
    devices = {device: values(read) for _, device, read in births[1:]}
    assert devices["bms1"]["soc"] == 0.625 and "temp_c" in devices["bms1"] and devices["bms1"]["temp_c"] is None
    told = {name.replace("/", ".", 1) for name in own} | {
        f"{d}.{name}" for d, found in devices.items() for name in found
    }
    assert set(described) <= told
    aliases = [one.alias for _, _, read in births for one in read.metrics if one.alias is not None]
    assert len(set(aliases)) == len(aliases)
    pushing.core.values["site.grid_w"] = (39_000.0, 1)
    eventually(lambda: latest(host, "NDATA", "site/grid_w"), lambda one: one is not None and one.value == 39_000.0)
    assert "site/ess_w" not in values(host.of("NDATA")[-1][2])  # it has not changed
    pushing.core.values["bms1.soc"] = (0.5, 3)  # no good reading: null, not a number
    eventually(lambda: latest(host, "DDATA", "soc"), lambda one: one is not None and one.is_null)
    in_order(host.all)


def test_a_host_has_it_born_again_and_nothing_else_is_taken(pushing, serving, host, eventually, peer):
    serving()
    birth(host, eventually)
    host.command(peer, "site/setpoint_w")
    host.client.publish(f"spBv1.0/{GROUP}/NCMD/{SITE}", b"\xff\xff\xff", qos=1)
    host.command(peer, "Node Control/Rebirth", False)
    before = len(host.of("NBIRTH"))
    host.command(peer, "Node Control/Rebirth")
    eventually(lambda: len(host.of("NBIRTH")), lambda n: n > before)
    birth(host, eventually)
    assert len(host.of("NBIRTH")) == before + 1 and host.of("NDEATH") == []
    in_order(host.all)


def test_a_lost_connection_is_a_death_and_a_birth_of_the_next_number(pushing, serving, broker, eventually, peer):  # noqa: F811
    broker.start()
    serving()
    first = Host(broker.port, eventually, peer)
    first.command(peer, "Node Control/Rebirth")
    birth(first, eventually)
    broker.stop()  # its will goes with it, and the host's own connection too
    broker.start()
    second = Host(broker.port, eventually, peer)
    second.command(peer, "Node Control/Rebirth")
    births = birth(second, eventually, number=1)
    assert values(births[0][2])["bdSeq"] == 1
    in_order(second.all)
    first.close()
    second.close()


def test_the_broker_says_that_a_node_died_that_is_gone_without_a_word(pushing, gateway, broker, eventually, peer):  # noqa: F811
    broker.start()
    host = Host(broker.port, eventually, peer)
    words = [sys.executable, "-m", "tidegate.runtime.cli", "export", "mqtt", "--endpoint", gateway.client().endpoint,
             "--port", str(broker.port), "--sparkplug", GROUP]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        birth(host, eventually)
    finally:
        process.kill()
        process.wait(60)
    deaths = eventually(lambda: host.of("NDEATH"))
    assert deaths[0][2].bd_seq_metric.value == 0
    host.close()


def test_a_silent_site_is_a_dead_node_and_is_born_again(pushing, serving, host, eventually):
    serving()
    birth(host, eventually)
    pushing.speaks.clear()
    deaths = eventually(lambda: host.of("NDEATH"), seconds=60)
    assert [read.bd_seq_metric.value for _, _, read in deaths] == [0]
    count = len(host.all)
    pushing.speaks.set()
    birth(host, eventually, number=1)
    assert host.all[count][0] == "NBIRTH"
    in_order(host.all)


def test_an_end_is_a_death(pushing, serving, host, eventually):
    stop = serving()
    birth(host, eventually)
    stop.set()
    deaths = eventually(lambda: host.of("NDEATH"))
    assert deaths[0][2].bd_seq_metric.value == 0


@pytest.mark.parametrize("group", ["", "a/b", "a+", "#"])
def test_a_group_that_no_topic_may_have_is_refused(pushing, gateway, group):
    with gateway.client() as site, pytest.raises(ValueError, match="has one of"):
        node.serve(site, "127.0.0.1", 1, group)


def test_numbers_go_round_and_signed_ones_come_back(peer):
    sent = [payload.Metric("bdSeq", payload.INT64, 255), payload.Metric("x", payload.INT64, -7),
            payload.Metric("none", payload.DOUBLE, None)]  # fmt: skip
    raw = payload.encoded(sent, 1_700_000_000_000, 255, birth=True)
    read = peer.NBirth.decode(raw)
    assert values(read) == {"bdSeq": 255, "x": -7, "none": None} and read.seq == 255
    assert read.timestamp == 1_700_000_000_000 and [one.is_null for one in read.metrics] == [False, False, True]
