"""The device maps of a site: which each device speaks by, with the options that the site file gives it."""

from tidegate.config.doubts import check_answers
from tidegate.config.site import Device, Site
from tidegate.hal.map_schema import DeviceMap
from tidegate.hal.maps import MapError, load_map

PHASES = ("power_l1_w", "power_l2_w", "power_l3_w")


def load_maps(site: Site, problems: list[str]) -> dict[str, DeviceMap]:
    """Device name -> its map with the site's options; every problem of every map is added to `problems`."""
    found: dict[str, DeviceMap] = {}
    for device in site.device:
        source = str(site.folder / device.map) if device.map.endswith(".toml") else device.map
        options = {key: option_text(value) for key, value in device.options.items()}
        models = {}
        for number, address in device.sunspec_models.items():
            if number.isdigit():
                models[int(number)] = address
            else:
                problems.append(f"device[{device.name}].sunspec_models: {number!r} is not a model number")
        try:
            found[device.name] = load_map(source, options, device.sunspec_base, models)
        except MapError as error:
            problems += [f"device[{device.name}]: {line}" for line in error.problems]
            continue
        check_answers(device, found[device.name], problems)
        if found[device.name].map.kind != _kind(device):
            problems.append(
                f"device[{device.name}].map: {device.map} is a map for a {found[device.name].map.kind}, "
                f"but the role is {device.role}"
            )
        if device.role == "grid-meter" and site.limits.phase_import_w_max is not None:
            found[device.name] = _fast(found[device.name], PHASES)
        serial = device.bus not in {one.name for one in site.can}
        if serial != (found[device.name].bus == "serial"):
            problems.append(
                f"device[{device.name}].bus: {device.bus} is a {'Modbus bus' if serial else 'CAN bus'}, "
                f"but {device.map} speaks {found[device.name].map.protocol}"
            )
            continue
        speaking = [one.name for one in site.serial if one.protocol == "pylontech"]
        speaking += [one.name for one in site.tcp if one.framing == "pylontech"]
        packs = found[device.name].map.protocol == "pylontech"
        if packs != (device.bus in speaking):
            spoken = "pylontech" if device.bus in speaking else "modbus"
            remedy = "put it on another bus"
            if packs:
                remedy = (
                    'put it on a [[serial]] bus with protocol = "pylontech" or a [[tcp]] bus with framing = "pylontech"'
                )
            problems.append(
                f"device[{device.name}].bus: {device.map} speaks {found[device.name].map.protocol}, "
                f"but {device.bus} carries {spoken}; {remedy}"
            )
    return found


def _fast(found: DeviceMap, names: tuple[str, ...]) -> DeviceMap:
    """The map with these points polled as often as the wire allows: a limit rests on them."""
    points = (point.model_copy(update={"poll": "fast"}) if point.name in names else point for point in found.point)
    return found.model_copy(update={"point": tuple(points)})


def option_text(value: str | int | float | bool) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _kind(device: Device) -> str:
    return device.role if device.role in ("pcs", "bms") else "meter"
