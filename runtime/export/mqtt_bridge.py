"""The site on an MQTT broker: `tidegate export mqtt`.

Topics under PREFIX/SITE, all retained but `meter` and `event`:

- `status`: `online` while the site speaks and we reach the broker; else `offline`, by our word or by the broker (last
  will). What is retained beside `offline` is of before.
- `point/NAME`: the value as text with the digits that were measured, at most once a second; empty while it is not good,
  and all of them when the site is silent. `word/NAME`: the name of what has a number (mode, reason).
- `alarms`: what is active or latched, with cause, since when and remedy, as JSON. `findings`: what the evidence says.
- `carbon/KIND`: a page of live figures, JSON; retained where it is the only one.
- `meter`, `event`: each record once, QoS 1, JSON as in docs/api.md.

Nothing is taken from the broker: MQTT has no lease.
"""

import json
import threading
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from tidegate.hal.description import Description, decode
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.api.named import word_of
from tidegate.runtime.export.decimals import decimals, rounded
from tidegate.runtime.export.home_assistant import discovery
from tidegate.runtime.export.listening import messages_until, silent_after_s

EVERY_S = 1.0
ASK_S = 1.0  # a site that answers no sooner is silent by then
ALARMS_EVERY_S = 1.0
QUEUED_MAX = 10_000
FULL_S = 0.2  # until a full queue is tried again
RETRY_S = (1, 5)
ONLINE, OFFLINE = "online", "offline"


class Bridge:
    """Publishes one site. `client` is a paho client, or anything with its publish() and is_connected()."""

    def __init__(
        self,
        describe: Message,
        client: paho.Client,
        prefix: str = "tidegate",
        alarms: Callable[[], Message] | None = None,
        home_assistant: str | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._stop = stop or threading.Event()
        self._client, self._prefix, self._alarms_of, self._home = client, prefix, alarms, home_assistant
        self._shown: dict[str, str] = {}
        self._anew = threading.Event()  # set by the broker's thread: it may have forgotten everything
        self._anew.set()
        self._due = self._alarms_due = 0.0
        self._heard = -1e9
        self.describe(describe)
        self.base = f"{prefix}/{self.site.site.name}"

    def describe(self, describe: Message) -> None:
        """Take over what the site is."""
        self.site = decode(describe, Description)
        self.words: Message = describe.get("words") or {}
        self._units = self.site.point_units
        self._silent_s = silent_after_s(self.site.site.snapshot_hz)
        self._anew.set()

    # ---- told by others ----

    def connected(self, *_: object) -> None:
        """The broker answers, perhaps without its memory: say everything again."""
        self._anew.set()

    def take(self, message: Message | None) -> None:
        """Publish what a message says; None when there was none for a moment."""
        if message is not None and message["kind"] == "snapshot":
            self._heard = time.monotonic()
        self._state()
        if message is None:
            return
        if message["kind"] in ("meter", "event", "gap"):
            self._record(message)
        elif message["kind"] == "carbon":
            self._carbon(message)
        elif message["kind"] == "snapshot" and (time.monotonic() >= self._due or self._anew.is_set()):
            self._due = time.monotonic() + EVERY_S
            self._snapshot(message)

    @property
    def fresh(self) -> bool:
        """Whether the site has spoken of late."""
        return time.monotonic() - self._heard < self._silent_s

    # ---- what is published ----

    def _state(self) -> None:
        if not self._client.is_connected():
            return
        if self._anew.is_set() and self.fresh:
            self._anew.clear()
            self._shown.clear()
            if self._home is not None:
                for topic, text in discovery(self.site, self.base, self._home, self.words):
                    self._keep(topic, text, qos=1)
        if not self.fresh:
            for topic in [topic for topic, text in self._shown.items() if text and not topic.endswith("/status")]:
                self._keep(topic, "")
        self._keep(f"{self.base}/status", ONLINE if self.fresh else OFFLINE, qos=1)

    def _keep(self, topic: str, text: str, qos: int = 0) -> None:
        """Publish what stays on the broker, if it is not what stays there already."""
        if self._shown.get(topic) == text:
            return
        if self._client.publish(topic, text, qos=qos, retain=True).rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._shown[topic] = text

    def _record(self, message: Message) -> None:
        """Publish a record once. While the queue is full it is tried again: nobody else has this one any more."""
        shown = {**message}
        if isinstance(message.get("points"), dict):
            shown["points"] = {
                name: [None if value is None else rounded(value), quality]
                for name, (value, quality) in message["points"].items()
            }
        text = json.dumps(shown)
        while (
            self._client.publish(f"{self.base}/{message['kind']}", text, qos=1).rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        ):
            if self._stop.wait(FULL_S):
                return
            self._state()

    def _carbon(self, message: Message) -> None:
        """A page of live figures: the only one stays on the broker while the site speaks, one of several passes by."""
        topic, text = f"{self.base}/carbon/{message['of']}", json.dumps(message)
        if message["pages"] != 1:
            self._client.publish(topic, text, qos=1)
        elif self._client.is_connected():
            self._keep(topic, text, qos=1)

    def _snapshot(self, message: Message) -> None:
        if not self._client.is_connected():
            return
        for name, (value, _) in message["points"].items():
            self._keep(f"{self.base}/point/{name}", "" if value is None else decimals(value))
            if name in self.words:
                said = word_of(self.words, name, self._units.get(name, ""), value)
                self._keep(f"{self.base}/word/{name}", said or "")
        self._alarms()

    def _alarms(self) -> None:
        if self._alarms_of is None or time.monotonic() < self._alarms_due:
            return
        self._alarms_due = time.monotonic() + ALARMS_EVERY_S
        try:
            answer = self._alarms_of()
        except ClientError:
            return
        now_s = time.time()
        found = []
        for alarm in answer["alarms"]:
            since_s = alarm["since_s"]
            since_utc_s = None if since_s is None else round(now_s - since_s)
            found.append({**{key: alarm[key] for key in alarm if key != "since_s"}, "since_utc_s": since_utc_s})
        self._keep(f"{self.base}/findings", json.dumps(answer.get("findings", [])), qos=1)
        before = self._shown.get(f"{self.base}/alarms", "")
        if not before or _without_times(json.loads(before)) != _without_times(found):
            self._keep(f"{self.base}/alarms", json.dumps(found), qos=1)

    def end(self) -> None:
        """Say that nobody looks any more, and take the values away."""
        self._heard = -1e9
        self._state()


def _without_times(alarms: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{key: value for key, value in alarm.items() if key != "since_utc_s"} for alarm in alarms]


def serve(
    client: Client,
    host: str,
    port: int,
    *,
    prefix: str = "tidegate",
    user: str | None = None,
    password: str | None = None,
    tls: bool = False,
    home_assistant: str | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Bridge until `stop`. A broker that is not there, at the start or later, is waited for."""
    describe = client.describe()
    client.timeout_s = ASK_S
    mqtt = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"tidegate-{describe['site']['name']}")
    mqtt.max_queued_messages_set(QUEUED_MAX)
    mqtt.reconnect_delay_set(*RETRY_S)
    if user is not None:
        mqtt.username_pw_set(user, password)
    if tls:
        mqtt.tls_set()
    bridge = Bridge(describe, mqtt, prefix, lambda: client.ask("alarms"), home_assistant, stop)
    mqtt.will_set(f"{bridge.base}/status", OFFLINE, qos=1, retain=True)
    mqtt.on_connect = bridge.connected
    mqtt.connect_async(host, port)
    mqtt.loop_start()
    heard = client.subscribe("snapshot", "meter", "event", "carbon")
    program = str(describe.get("sha256") or "")
    try:
        for message in messages_until(stop, heard):
            if message is not None and message["kind"] == "snapshot" and program and message["program"] != program:
                try:
                    bridge.describe(client.describe())
                    program = str(message["program"])
                except ClientError:
                    continue
            bridge.take(message)
    finally:
        bridge.end()
        if mqtt.is_connected():
            mqtt.publish(f"{bridge.base}/status", OFFLINE, qos=1, retain=True).wait_for_publish(2.0)
        mqtt.disconnect()
        mqtt.loop_stop()
