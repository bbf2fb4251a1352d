"""The site on an MQTT broker: `tidegate export mqtt`.

Topics under PREFIX/SITE: `status` (online or offline, retained, the broker's last will), `meter` and `event` (each
record once, QoS 1, JSON as in docs/api.md), `point/NAME` (value as text, retained, at most one a second, empty
while it is not good). Nothing is taken from the broker: MQTT has no lease.
"""

import json
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Message
from tidegate.runtime.export.listening import messages_until

EVERY_S = 1.0


class Bridge:
    """Publishes one site. `client` is a connected paho client, or anything with its publish()."""

    def __init__(self, describe: Message, client: paho.Client, prefix: str = "tidegate") -> None:
        self.base = f"{prefix}/{describe['site']['name']}"
        self._client = client
        self._shown: dict[str, str] = {}
        self._due = 0.0

    def take(self, message: Message) -> None:
        """Publish what a message says."""
        if message["kind"] in ("meter", "event", "gap"):
            self._client.publish(f"{self.base}/{message['kind']}", json.dumps(message), qos=1)
        elif message["kind"] == "snapshot" and time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY_S
            for name, (value, _) in message["points"].items():
                text = "" if value is None else repr(value)
                if self._shown.get(name) != text:
                    self._shown[name] = text
                    self._client.publish(f"{self.base}/point/{name}", text, qos=0, retain=True)


def serve(
    client: Client,
    host: str,
    port: int,
    *,
    prefix: str = "tidegate",
    user: str | None = None,
    password: str | None = None,
    tls: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Bridge until `stop`. Raises OSError if the broker cannot be reached at the start; later it reconnects."""
    describe = client.describe()
    mqtt = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"tidegate-{describe['site']['name']}")
    mqtt.max_queued_messages_set(10_000)
    if user is not None:
        mqtt.username_pw_set(user, password)
    if tls:
        mqtt.tls_set()
    bridge = Bridge(describe, mqtt, prefix)
    mqtt.will_set(f"{bridge.base}/status", "offline", qos=1, retain=True)

    def greet(*_: object) -> None:
        mqtt.publish(f"{bridge.base}/status", "online", qos=1, retain=True)

    mqtt.on_connect = greet
    mqtt.connect(host, port)
    mqtt.loop_start()
    heard = client.subscribe("snapshot", "meter", "event")
    try:
        for message in messages_until(stop, heard):
            bridge.take(message)
    finally:
        mqtt.publish(f"{bridge.base}/status", "offline", qos=1, retain=True).wait_for_publish(2.0)
        mqtt.disconnect()
        mqtt.loop_stop()
