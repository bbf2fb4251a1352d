"""Home Assistant's rules for MQTT sensors, kept here as data, and every sensor that a real site announces."""

import json
import re
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi import program
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.hal.description import described
from tidegate.runtime.export.home_assistant import discovery

# home-assistant/core, components/sensor/const.py: DEVICE_CLASS_UNITS and DEVICE_CLASS_STATE_CLASSES of what is used.
UNITS = {
    "power": {"mW", "W", "kW", "MW", "GW", "TW"}, "apparent_power": {"mVA", "VA", "kVA"},
    "reactive_power": {"mvar", "var", "kvar"}, "voltage": {"µV", "mV", "V", "kV", "MV"}, "current": {"mA", "A"},
    "energy": {"J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh", "cal", "kcal", "Mcal", "Gcal"},
    "frequency": {"Hz", "kHz", "MHz", "GHz"}, "temperature": {"°C", "°F", "K"}, "battery": {"%"},
    "duration": {"d", "h", "min", "s", "ms"}, "enum": {None},
}  # fmt: skip
STATES = {kind: {"measurement"} for kind in UNITS} | {
    "energy": {"total", "total_increasing"}, "enum": {None},
    "duration": {"measurement", "total", "total_increasing"},
}  # fmt: skip
# What components/mqtt/sensor.py and its schemas take; an unknown key is refused there.
KEYS = {
    "name", "unique_id", "object_id", "state_topic", "device_class", "unit_of_measurement", "state_class", "options",
    "value_template", "availability_topic", "payload_available", "payload_not_available", "device", "origin",
}  # fmt: skip
DEVICE_KEYS = {"identifiers", "name", "manufacturer", "model", "sw_version"}
ORIGIN_KEYS = {"name", "sw_version", "support_url"}
TOPIC = re.compile(r"homeassistant/sensor/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config")


def wrong_with(topic, said):
    """What Home Assistant would refuse."""
    found = []
    kind, unit, state = (said.get(key) for key in ("device_class", "unit_of_measurement", "state_class"))
    if not TOPIC.fullmatch(topic):
        found.append(f"topic {topic}")
    found += [f"key {key}" for key in set(said) - KEYS]
    found += [f"device {key}" for key in set(said["device"]) - DEVICE_KEYS]
    found += [f"origin {key}" for key in set(said["origin"]) - ORIGIN_KEYS]
    if not said["device"].get("identifiers") or not said["origin"].get("name"):
        found.append("a device without an identifier, or an origin without a name")
    if kind is not None and (kind not in UNITS or unit not in UNITS[kind] or state not in STATES[kind]):
        found.append(f"{kind} in {unit}, {state}")
    if (kind == "enum") != ("options" in said) or (kind == "enum" and not said["options"]):
        found.append("options belong to an enum, and an enum has some")
    if re.search(r"[+#\0]", said["state_topic"] + said["availability_topic"]):
        found.append("a wildcard in a topic")
    return found


SITES = [path.name for path in files("tidegate.config").joinpath("sites").iterdir() if path.name.endswith(".toml")]


def site_named(name):
    path = files("tidegate.config").joinpath("sites", name)
    return described(program.describe(compile_site(load_site(str(path)))))


def announced(name):
    """(topic, payload) of all that a shipped site announces."""
    words = {"site.mode": {str(at): word for at, word in enumerate(MODES_BY_NUMBER)}}
    pairs = discovery(site_named(name), "tidegate/x", "homeassistant", words)
    return [(topic, json.loads(text)) for topic, text in pairs]


@pytest.mark.parametrize("name", sorted(SITES))
def test_every_sensor_of_a_shipped_site_is_one_that_home_assistant_takes(name):
    site, found = site_named(name), announced(name)
    assert not [(topic, wrong) for topic, said in found if (wrong := wrong_with(topic, said))]
    ids = [said["unique_id"] for _, said in found]
    assert len(found) > 30 and len(set(ids)) == len(ids)
    by_name = {said["name"]: said for _, said in found}
    assert by_name["site.mode"]["options"] == list(MODES_BY_NUMBER)
    assert by_name["site.grid_w"]["unit_of_measurement"] == "W"
    for unit in site.units:
        assert by_name[f"{unit.battery}.soc"]["unit_of_measurement"] == "%"
    assert not [said["name"] for _, said in found if "fault_bits" in said["name"] or said["name"].endswith("_sf")]


def test_what_home_assistant_refuses_is_noticed():
    good = {
        "name": "x", "unique_id": "x", "state_topic": "a/b", "availability_topic": "a/c", "device_class": "energy",
        "unit_of_measurement": "Wh", "state_class": "total_increasing", "device": {"identifiers": ["t"]},
        "origin": {"name": "t"},
    }  # fmt: skip
    topic = "homeassistant/sensor/t/x/config"
    assert not wrong_with(topic, good)
    for change in ({"state_class": "measurement"}, {"unit_of_measurement": "W"}, {"device_class": "watts"},
                   {"options": ["a"]}, {"state_topic": "a/#"}, {"colour": 1}, {"origin": {}}):  # fmt: skip
        assert wrong_with(topic, {**good, **change})
    assert wrong_with("homeassistant/sensor/a.b/x/config", good)
