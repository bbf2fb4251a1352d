"""Home Assistant's MQTT discovery: each point that people look at as a sensor of one device.

Source of keys, device classes, units and state classes: home-assistant.io/integrations/mqtt (discovery) and
/integrations/sensor.mqtt. A class admits certain units and state classes only; a sensor that breaks that is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from tidegate.hal.description import Description, Point

Sensor = dict[str, object]

# Our unit -> what the sensor says. None as a device class = a plain number.
CLASSES: dict[str, Sensor] = {
    "W": {"device_class": "power", "unit_of_measurement": "W", "state_class": "measurement"},
    "VA": {"device_class": "apparent_power", "unit_of_measurement": "VA", "state_class": "measurement"},
    "var": {"device_class": "reactive_power", "unit_of_measurement": "var", "state_class": "measurement"},
    "Wh": {"device_class": "energy", "unit_of_measurement": "Wh", "state_class": "total_increasing"},
    "V": {"device_class": "voltage", "unit_of_measurement": "V", "state_class": "measurement"},
    "A": {"device_class": "current", "unit_of_measurement": "A", "state_class": "measurement"},
    "Hz": {"device_class": "frequency", "unit_of_measurement": "Hz", "state_class": "measurement"},
    "degC": {"device_class": "temperature", "unit_of_measurement": "°C", "state_class": "measurement"},
    "s": {"device_class": "duration", "unit_of_measurement": "s", "state_class": "measurement"},
}
PERCENT: Sensor = {"unit_of_measurement": "%", "state_class": "measurement", "value_template":
                   "{{ (value | float * 100) | round(2) if value else none }}"}  # fmt: skip
PLAIN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def discovery(
    site: Description, base: str, prefix: str, words: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """(topic, payload) of every sensor. base: of our own topics. prefix: Home Assistant's, mostly `homeassistant`."""
    node = _id(f"tidegate_{site.site.name}")
    release = version("tidegate")
    shared: Sensor = {
        "availability_topic": f"{base}/status",
        "payload_available": "online",
        "payload_not_available": "offline",
        "device": {
            "identifiers": [node],
            "name": f"Tidegate {site.site.name}",
            "manufacturer": "Tidegate",
            "model": "Site controller",
            "sw_version": release,
        },
        "origin": {"name": "tidegate", "sw_version": release},
    }
    for point in site.points:
        said = _sensor(point, base, words)
        if said is None:
            continue
        own = _id(point.name)
        yield (
            f"{prefix}/sensor/{node}/{own}/config",
            json.dumps({"name": point.name, "unique_id": f"{node}_{own}", "object_id": f"{node}_{own}",
                        **said, **shared}, ensure_ascii=False),
        )  # fmt: skip


def _sensor(point: Point, base: str, words: Mapping[str, Mapping[str, str]]) -> Sensor | None:
    """What is particular to a point's sensor, None for what nobody looks at: scale factors, bits, raw words."""
    if point.hidden or point.name.endswith(("_sf", "_raw", "_word")):
        return None
    if point.name in words and point.unit == "enum":
        options = list(dict.fromkeys(words[point.name].values()))
        return {"state_topic": f"{base}/word/{point.name}", "device_class": "enum", "options": options}
    state: Sensor = {"state_topic": f"{base}/point/{point.name}"}
    if point.signal in ("soc", "soh"):
        kind = {"device_class": "battery"} if point.signal == "soc" else {}
        return {**state, **PERCENT, **kind}
    if point.unit in CLASSES:
        return {**state, **CLASSES[point.unit]}
    return None


def _id(text: str) -> str:
    return PLAIN_ID.sub("_", text)
