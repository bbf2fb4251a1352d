"""Home Assistant's own schema over discovery messages; run by the Python of an environment that has `homeassistant`.

Reads [topic, payload] pairs as one JSON list and prints for each what is wrong, as a list of sentences. Only the schema
and the tables of units are asked, so packages that the rest of Home Assistant wants and that are not installed there
are replaced by empty ones; nothing of `homeassistant` itself is.
"""

import importlib.abc
import importlib.machinery
import json
import sys
from unittest.mock import MagicMock


class NotInstalled(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An empty package for whatever else is not there."""

    def find_spec(self, name, path=None, target=None):
        own = name.partition(".")[0] in ("homeassistant", "voluptuous", "jinja2")
        return None if own else importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        made = MagicMock(name=spec.name)
        made.__path__, made.__spec__, made.__name__ = [], spec, spec.name
        return made

    def exec_module(self, module):
        pass


def wrong_with(topic, payload, sensor, const, discovery):
    """What Home Assistant refuses, or leaves out in silence."""
    found = [] if discovery.TOPIC_MATCHER.match(topic.partition("/")[2]) else [f"topic {topic}"]
    try:
        taken = sensor.DISCOVERY_SCHEMA(payload)
    except sensor.vol.Invalid as why:
        return [*found, str(why)]
    found += [f"{key} is no key of a sensor" for key in payload if key not in taken]
    kind, unit, state = taken.get("device_class"), taken.get("unit_of_measurement"), taken.get("state_class")
    if kind is not None:
        units = const.DEVICE_CLASS_UNITS.get(kind, {None})
        states = const.DEVICE_CLASS_STATE_CLASSES.get(kind, set())
        found += [] if unit in units else [f"{kind} in {unit}"]
        found += [] if state is None or state in states else [f"{kind} is no {state}"]
    return found


def main():
    sys.meta_path.append(NotInstalled())
    from homeassistant.components.mqtt import discovery, sensor
    from homeassistant.components.sensor import const

    pairs = json.load(sys.stdin)
    print(json.dumps([wrong_with(topic, payload, sensor, const, discovery) for topic, payload in pairs]))


if __name__ == "__main__":
    main()
