"""A site as an edge node of Sparkplug B on an MQTT broker: `tidegate export mqtt --sparkplug GROUP`.

Topics spBv1.0/GROUP/TYPE/SITE[/DEVICE]. Node: what the controller works out (`site/grid_w`, `unit0/state`), with the
word of a number as `.../word`. Devices: those of the site, with their points. Births carry name, alias, type and unit;
data carry what has changed, by alias, at most once a second; a point that is not good is null.

A site that falls silent is a node that died: NDEATH, and the connection ends; when it speaks again it is born anew. The
only command that is taken is `Node Control/Rebirth`: MQTT has no lease.
Source: Eclipse Sparkplug 3.0.0, chapters 4 to 6.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from tidegate.hal.description import Description, Point, decode
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.api.named import word_of
from tidegate.runtime.export.listening import messages_until, silent_after_s
from tidegate.runtime.export.sparkplug_payload import BOOLEAN, DOUBLE, INT64, STRING, BadPayload, Metric, asked, encoded

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
EVERY_S = 1.0
REBIRTH_EVERY_S = 1.0  # a host that asks without end is served so often
RETRY_S = (1, 5)
NUMBERS = 256  # of seq and bdSeq
FORBIDDEN = "+/#"  # in an element of a topic
END_S = 5.0

logger = logging.getLogger("tidegate.export")


class Row(NamedTuple):
    """A metric's own: where its value comes from. word: it is the word of the point."""

    name: str
    alias: int
    point: str
    unit: str
    word: bool


class SparkplugNode:
    """One site. Every method but `born` and `told` is the caller's thread's; those two are the broker's."""

    def __init__(
        self, describe: Message, client: paho.Client, group: str, utc: Callable[[], float] = time.time
    ) -> None:
        self._client, self._group, self._utc = client, group, utc
        self._lock = threading.RLock()
        self._seq = self._birth = 0
        self._alive = False
        self._sent: dict[int, object] = {}
        self._points: Mapping[str, tuple[float | None, int]] = {}
        self._due_s = self._rebirth_s = -1e9
        self._wanted = False
        self.describe(describe)

    def describe(self, describe: Message) -> None:
        """Take over what the site is."""
        with self._lock:
            self.site = decode(describe, Description)
            self.words: Message = describe.get("words") or {}
            self.node = self.site.site.name
            names = {one.name for one in self.site.devices}
            rows: dict[str, list[Row]] = {"": [], **{name: [] for name in sorted(names)}}
            alias = 1
            for point in self.site.points:
                if point.hidden:
                    continue
                device, _, signal = point.name.partition(".")
                owner = device if device in names else ""
                for row in self._rows(point, signal if owner else f"{device}/{signal}", alias):
                    rows[owner].append(row)
                    alias = row.alias + 1
            self._rows_of = {owner: found for owner, found in rows.items() if found or not owner}

    def _rows(self, point: Point, name: str, alias: int) -> list[Row]:
        found = [Row(name, alias, point.name, point.unit, False)]
        if point.name in self.words:
            found.append(Row(f"{name}/word", alias + 1, point.name, "", True))
        return found

    def topic(self, kind: str, device: str = "") -> str:
        """The topic of a message."""
        return "/".join([NAMESPACE, self._group, kind, self.node, *([device] if device else [])])

    # ---- life ----

    def death(self) -> bytes:
        """The payload of the NDEATH of the coming, or present, birth."""
        return encoded([Metric("bdSeq", INT64, self._birth)], self._utc_ms(), None)

    def will(self) -> None:
        """Leave the next NDEATH with the broker, before a connection is made."""
        self._client.will_set(self.topic("NDEATH"), self.death(), qos=1, retain=False)

    def lost(self) -> None:
        """A connection ended: the next one is another birth."""
        with self._lock:
            self._alive = False
            self._birth = (self._birth + 1) % NUMBERS
            self.will()

    def born(self) -> None:
        """The broker answers: commands are listened to, and births follow as soon as the site has spoken."""
        with self._lock:
            self._client.subscribe(self.topic("NCMD"), qos=1)
            self._wanted = True

    def told(self, topic: str, payload: bytes) -> None:
        """A message for us: only a rebirth is taken."""
        if topic != self.topic("NCMD"):
            return
        try:
            commands = asked(payload)
        except BadPayload as why:
            logger.warning("NCMD that is no payload: %s", why)
            return
        with self._lock:
            if commands.get(REBIRTH):
                self._wanted = True
        for name in commands:
            if name != REBIRTH:
                logger.warning("NCMD %s is not taken: orders need a lease, which MQTT does not have", name[:64])

    def kill(self) -> None:
        """Say that the node is dead; the connection has to end behind it."""
        with self._lock:
            if self._alive:
                sent = self._client.publish(self.topic("NDEATH"), self.death(), qos=1, retain=False)
                self._alive = False
                with contextlib.suppress(RuntimeError, ValueError):  # it is gone, and the broker speaks for us
                    sent.wait_for_publish(END_S)

    # ---- values ----

    def take(self, snapshot: Message) -> None:
        """Publish what a snapshot says."""
        with self._lock:
            self._points = snapshot["points"]
            if not self._client.is_connected():
                return
            now_s = time.monotonic()
            if self._wanted and now_s - self._rebirth_s >= REBIRTH_EVERY_S:
                self._wanted, self._rebirth_s = False, now_s
                self._births()
                self._due_s = now_s + EVERY_S
            elif self._alive and now_s >= self._due_s:
                self._due_s = now_s + EVERY_S
                self._data()

    def _births(self) -> None:
        self._seq, self._sent = 0, {}
        own = [Metric("bdSeq", INT64, self._birth), Metric(REBIRTH, BOOLEAN, False)]
        for device, rows in self._rows_of.items():
            metrics = [self._metric(row) for row in rows]
            metrics = metrics if device else [*own, *metrics]
            self._publish("DBIRTH" if device else "NBIRTH", device, metrics, birth=True)
        self._alive = True

    def _data(self) -> None:
        for device, rows in self._rows_of.items():
            changed = [row for row in rows if self._sent.get(row.alias, self) != self._value(row)]
            if changed:
                metrics = [replace(self._metric(row), name="") for row in changed]
                self._publish("DDATA" if device else "NDATA", device, metrics)

    def _metric(self, row: Row) -> Metric:
        value = self._sent[row.alias] = self._value(row)
        return Metric(row.name, STRING if row.word else DOUBLE, value, row.alias, row.unit)

    def _value(self, row: Row) -> float | str | None:
        value, _ = self._points.get(row.point, (None, 0))
        return word_of(self.words, row.point, self._unit_of(row.point), value) if row.word else value

    def _unit_of(self, point: str) -> str:
        return self.site.point_units.get(point, "")

    def _publish(self, kind: str, device: str, metrics: list[Metric], *, birth: bool = False) -> None:
        payload = encoded(metrics, self._utc_ms(), self._seq, birth=birth)
        sent = self._client.publish(self.topic(kind, device), payload, qos=0, retain=False)
        if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._seq = (self._seq + 1) % NUMBERS
        else:
            self._wanted = True  # a number that was not sent would be a hole: it is born anew

    def _utc_ms(self) -> int:
        return int(self._utc() * 1000)


def wrong_name(text: str) -> str:
    """What is wrong with a name in a topic, "" = nothing."""
    return f"{text!r}: has one of {FORBIDDEN}, or is empty" if not text or set(text) & set(FORBIDDEN) else ""


def serve(
    client: Client,
    host: str,
    port: int,
    group: str,
    *,
    user: str | None = None,
    password: str | None = None,
    tls: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Be the edge node until `stop`. A broker that is not there, at the start or later, is waited for.

    Raises ValueError for a name that no topic may have.
    """
    describe = client.describe()
    if wrong := wrong_name(group) or wrong_name(str(describe["site"]["name"])):
        raise ValueError(wrong)
    client.timeout_s = EVERY_S
    mqtt = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"tidegate-spb-{describe['site']['name']}")
    mqtt.reconnect_delay_set(*RETRY_S)
    if user is not None:
        mqtt.username_pw_set(user, password)
    if tls:
        mqtt.tls_set()
    node = SparkplugNode(describe, mqtt, group)
    mqtt.on_connect = lambda *_: node.born()
    mqtt.on_disconnect = lambda *_: node.lost()
    mqtt.on_message = lambda _, data, message: node.told(message.topic, bytes(message.payload))
    node.will()
    heard = client.subscribe("snapshot")
    silent_s = silent_after_s(node.site.site.snapshot_hz)
    program, last_s, runs = str(describe.get("sha256") or ""), -1e9, False
    try:
        for message in messages_until(stop, heard):
            now_s = time.monotonic()
            if message is not None and message["kind"] == "snapshot":
                last_s = now_s
                if program and message["program"] != program:
                    try:
                        node.describe(client.describe())
                    except ClientError:
                        continue
                    program = str(message["program"])
                    node.born()
                if not runs:
                    mqtt.connect_async(host, port)
                    mqtt.loop_start()
                    runs = True
                node.take(message)
            elif runs and now_s - last_s > silent_s:
                _end(node, mqtt)
                runs = False
    finally:
        if runs:
            _end(node, mqtt)


def _end(node: SparkplugNode, mqtt: paho.Client) -> None:
    """The node dies, and its connection with it."""
    node.kill()
    mqtt.disconnect()
    mqtt.loop_stop()
