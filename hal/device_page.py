"""docs/supported-devices.md out of the maps: `python -m tidegate.hal.device_page > docs/supported-devices.md`."""

from tidegate.hal import maps
from tidegate.hal.map_schema import UNCHECKED, DeviceMap, Point

KINDS = {"bms": "Batteries (BMS)", "pcs": "Power converters", "meter": "Meters"}
HEAD = """# Which devices are supported?

Made from the device maps by `python -m tidegate.hal.device_page > docs/supported-devices.md`; a test compares the two.
`tidegate devices show NAME` shows a map with every register. How to add one: [device-maps.md](device-maps.md).

A map is as good as its source, and what its source leaves open stands beside it as a doubt. Read the doubts before the
first start, compare readings with the device's own display (`tidegate read`), and say in the site file how each was
answered (`doubts_answered`, [device-maps.md](device-maps.md)): `tidegate check` then says it no more.
"""
VERIFIED = """## What was verified how

Decode: vectors of registers or frames and their values; in brackets how many are from a document, a capture or
another project and not computed. Encode: vectors of setpoints and their registers. Cabinet: a simulated cabinet with
this map arms, and with a converter goes from tripped to run, charges, discharges, and back; the simulated device is
made of the same map, so this shows that the map works and not that it is true. Foreign simulator: a device that
somebody else's program makes, from values to registers and back (of SunSpec models pysunspec2: enabled, both
directions, watchdog; what it does about a setpoint is the test's). Real device: tried on one by this project, or by a
user who told how. An empty cell is a no.

| map | control | decode | encode | cabinet | capture | foreign simulator | real device | doubts |
|---|---|---|---|---|---|---|---|---|
"""


def _verified(found: DeviceMap) -> str:
    given = sum(not vector.source.startswith("computed") for vector in found.vector)
    control = any(command.kind == "setpoint_w" for command in found.command)
    cabinet = "arms" if found.map.kind != "pcs" and found.map.cabinet else "both ways" if control else ""
    ways = ["yes" if way in found.map.verified else "" for way in ("capture", "foreign-simulator", "device")]
    cells = [
        f"`{found.name}`",
        ("yes" if control else "read only") if found.map.kind == "pcs" else "",
        f"{len(found.vector)} ({given})",
        str(len(found.encode)) if control else "",
        cabinet,
        *ways,
        str(len(found.map.doubts)),
    ]
    return f"| {' | '.join(cells)} |"


def _control(found: list[DeviceMap]) -> str:
    """How far the maps with control were held against anything that is not ours, one by one."""
    maps_with = [one for one in found if any(command.kind == "setpoint_w" for command in one.command)]

    def named(way: str) -> str:
        return ", ".join(f"`{one.name}`" for one in maps_with if way in one.map.verified) or "none"

    rest = ", ".join(f"`{one.name}`" for one in maps_with if not one.map.verified)
    return (
        f"Of the {len(maps_with)} maps with control: tried on a real device: {named('device')}; control exercised by a "
        f"foreign simulator: {named('foreign-simulator')}; readings held against a capture, which says nothing of what "
        f"is written: {named('capture')}. Vectors and our own simulator alone: {rest}.\n"
    )


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
    signs: dict[str, list[str]] = {}
    for row in found.power_words():
        if not row.signed_source.startswith("doubt:"):
            kind = row.type if isinstance(row, Point) else "signed" if row.signed else "unsigned"
            signs.setdefault(f"{kind} by {row.signed_source}", []).append(row.name)
    if signs:
        told = "; ".join(f"{', '.join(names)}: {text}" for text, names in signs.items())
        lines += ["", f"Powers in 16 bits: {told}."]
    if found.map.kind == "pcs":
        lines += ["", f"{battery_power(found)}."]
    if found.map.kind == "bms":
        lines += ["", f"Not checked on the wire: {unchecked(found)}."]
    if found.map.doubts:
        lines += ["", *[f"- Doubt: {text}" for text in found.map.doubts]]
    return [*lines, ""]


def battery_power(found: DeviceMap) -> str:
    """Which reading of a converter is held against what the BMS says of its power."""
    told, _, why = found.map.battery_power.partition(": ")
    if told == "none":
        return (
            f"The battery's power cannot be compared (`pcs_power_apart`, `pcs_opposed`, `bms_stuck` are off, and power "
            f"beyond the setpoint is taken for that of modules): {why}"
        )
    reading = "`dc_v` times `dc_a`" if told == "dc" else f"`{told}`"
    return f"Held against the BMS as the battery's power: {reading}"


def unchecked(found: DeviceMap) -> str:
    """What a BMS map says that nobody can check of its frames."""
    said = "; ".join(UNCHECKED[word] for word in found.map.unchecked) or "not said by the map"
    return f"{said} ({found.map.unchecked_source})" if found.map.unchecked_source else said


def page() -> str:
    """The text of docs/supported-devices.md."""
    found = [maps.shipped(name) for name in maps.map_names()]
    table = [_verified(one) for one in found]
    control = [one for one in found if any(command.kind == "setpoint_w" for command in one.command)]
    ways = {way: sum(way in one.map.verified for one in control) for way in ("foreign-simulator", "device", "capture")}
    lines = [
        HEAD,
        f"{len(found)} maps, {len(control)} of them with control. Control was exercised by a foreign simulator in "
        f"{ways['foreign-simulator']}, on a real device in {ways['device']}; readings alone were held against a "
        f"capture in {ways['capture']}. Every one with control goes from tripped to run, both ways and back in a "
        "simulated cabinet: `tests/hal/test_maps_run.py`, which takes them from the folder of maps.",
        "",
        VERIFIED + "\n".join(table),
        "",
        _control(found),
    ]
    for kind, title in KINDS.items():
        rows = [one for one in found if one.map.kind == kind]
        lines += [f"## {title}", ""]
        for one in rows:
            lines += _entry(one)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
