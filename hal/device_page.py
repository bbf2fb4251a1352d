"""docs/supported-devices.md out of the maps: `python -m tidegate.hal.device_page > docs/supported-devices.md`."""

from tidegate.hal import maps
from tidegate.hal.map_schema import DeviceMap

KINDS = {"bms": "Batteries (BMS)", "pcs": "Power converters", "meter": "Meters"}
HEAD = """# Which devices are supported?

Made from the device maps by `python -m tidegate.hal.device_page > docs/supported-devices.md`; a test compares the two.
`tidegate devices show NAME` shows a map with every register. How to add one: [device-maps.md](device-maps.md).

None of these was tried on the real device by this project: a map is as good as its source, and what its source leaves
open stands beside it as a doubt. Read the doubts before the first start, and compare readings with the device's own
display (`tidegate read`).
"""


def _speed(found: DeviceMap) -> str:
    if found.bus == "can":
        periods = sorted({frame.period_ms for frame in found.frame if frame.period_ms})
        return f"{found.can.bitrate // 1000} kbit/s, frames every {periods[0]:g} to {periods[-1]:g} ms"
    return f"{found.modbus.baud} 8{found.modbus.parity}1 from factory"


def _entry(found: DeviceMap) -> list[str]:
    names = [name for name in found.signal_names() if not any(p.hidden and p.name == name for p in found.point)]
    lines = [f"### `{found.name}`: {found.map.title}", ""]
    lines.append(f"{found.map.protocol}; {_speed(found)}. Source: {found.map.source}.")
    lines += ["", f"Signals: {', '.join(names)}."]
    for key, option in found.option.items():
        lines += [
            "",
            f"Option `{key}` ({', '.join(c.value for c in option.choice)}; default {option.default}): "
            f"{option.meaning}.",
        ]
    for key, number in found.number.items():
        default = "must be given" if number.default is None else f"default {number.default:g}"
        lines += ["", f"Option `{key}` ({number.unit}; {default}): {number.meaning}."]
    if found.map.doubts:
        lines += ["", *[f"- Doubt: {text}" for text in found.map.doubts]]
    return [*lines, ""]


def page() -> str:
    """The text of docs/supported-devices.md."""
    found = [maps.shipped(name) for name in maps.map_names()]
    lines = [HEAD]
    for kind, title in KINDS.items():
        rows = [one for one in found if one.map.kind == kind]
        lines += [f"## {title}", ""]
        for one in rows:
            lines += _entry(one)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
