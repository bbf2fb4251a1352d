"""Several devices of the site file behind one unit id: a converter that is its own meter, a hybrid."""

from collections.abc import Iterable

from tidegate.config.site import Device
from tidegate.hal.map_schema import DeviceMap, Table

User = tuple[Device, DeviceMap]


def shared(users: Iterable[User]) -> list[User]:
    """The users of a port, those behind one unit id with one patience: the longest time-out and pause of theirs."""
    rows = list(users)
    alike: dict[int | None, list[User]] = {}
    for device, found in rows:
        alike.setdefault(device.unit_id, []).append((device, found))
    made = []
    for device, found in rows:
        group = alike[device.unit_id]
        if len(group) > 1:
            timeout_ms = max(one.timeout_ms or map_.modbus.timeout_ms for one, map_ in group)
            pause_ms = max(
                map_.modbus.turnaround_ms if one.turnaround_ms is None else one.turnaround_ms for one, map_ in group
            )
            device = device.model_copy(update={"timeout_ms": timeout_ms, "turnaround_ms": pause_ms})
        made.append((device, found))
    return made


def by_unit(users: Iterable[User]) -> list[list[User]]:
    """Users grouped by unit id, in the order of the first of each."""
    groups: dict[int | None, list[User]] = {}
    for device, found in users:
        groups.setdefault(device.unit_id, []).append((device, found))
    return list(groups.values())


def one_slave_each(slaves: Iterable[Table]) -> list[Table]:
    """Slave rows of the program, those of one unit id made one: its blocks and commands in the order of the file.

    The engine then has one request in flight to the device, one back-off and one set of counters for it.
    """
    found: dict[int, Table] = {}
    for row in slaves:
        kept = found.get(row["unit_id"])
        if kept is None:
            found[row["unit_id"]] = dict(row)
        else:
            kept["blocks"] = [*kept["blocks"], *row["blocks"]]
            kept["commands"] = [*kept["commands"], *row["commands"]]
    return list(found.values())
