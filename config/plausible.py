"""Powers that cannot be: readings so far beyond a type plate or a connection that a word was read wrong.

A device that changed from unsigned to signed words reads -2 kW as 63,536 W; a wrong factor reads ten times too much.
"""

from tidegate.config.banks import batteries_of
from tidegate.config.program_rows import Row
from tidegate.config.site import Device, Site

CONNECTION = ""  # in the bounds: no device has this name
AT_CONNECTION = ("pcc_w", "export_w", "feed_in_w", "grid_side_w")  # what hybrids call the power at their grid meter
BEYOND = 2.0  # times what the device or the connection is made for: overload, inrush and a shorted phase stay below


def power_bounds(site: Site) -> dict[str, float]:
    """Device -> most power either way that is believed of it, W. None for a device of which nothing is known.

    A converter: its nameplate, else the widest limit of its storage unit. A battery: as its converter. The grid meter:
    the connection's limits and all converters, which add up there; under CONNECTION the same for what a converter tells
    of the connection.
    """
    plates: dict[str, float] = {}
    devices = {device.name: device for device in site.device}
    for unit in site.storage:
        widest = max(unit.charge_w_max, unit.discharge_w_max)
        pcs = devices.get(unit.pcs)
        plate = (pcs.nameplate_w_max if pcs is not None else None) or widest
        plates[unit.pcs] = max(plates.get(unit.pcs, 0.0), plate)
        for name in batteries_of(unit):
            plates[name] = plate
    bounds = {name: BEYOND * plate for name, plate in plates.items()}
    ends = [site.limits.connection_import_w_max, site.limits.connection_export_w_max]
    if site.limits.connection_import_w_max:
        through = max(end or 0.0 for end in ends) + sum(plates[unit.pcs] for unit in site.storage)
        bounds |= {device.name: BEYOND * through for device in site.device if device.role == "grid-meter"}
        bounds[CONNECTION] = BEYOND * through
    return bounds


def is_power(signal: str, unit: str) -> bool:
    """Whether a point is a measured power, and no limit or setpoint."""
    return unit == "W" and not signal.startswith("setpoint") and not signal.endswith(("_max", "_min"))


def bounded(row: Row, device: Device, signal: str, unit: str, bounds: dict[str, float]) -> Row:
    """The decode row of a point, its range no wider than what can be."""
    bound = bounds.get(CONNECTION if signal in AT_CONNECTION else device.name)
    if bound is None or not is_power(signal, unit):
        return row
    low, high = row["min"], row["max"]
    assert isinstance(low, float | int) and isinstance(high, float | int)
    return {**row, "min": max(float(low), -bound), "max": min(float(high), bound)}
