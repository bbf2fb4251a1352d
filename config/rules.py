"""Rules between keys of a site file: what each key alone cannot say.

They work on the raw TOML, so that one wrong value elsewhere does not hide them.
"""

from collections.abc import Callable
from ipaddress import ip_address

import msgspec

from tidegate.config import calendar
from tidegate.config.site_island import check_island
from tidegate.config.telemetry_sources import check_telemetry
from tidegate.config.toml_lines import Table
from tidegate.config.zones import zone_of
from tidegate.ext.safety.cabinet import STEP_W_MIN
from tidegate.hal.description import Slot

Place = Callable[[tuple[int | str, ...]], str]

METERS = ("grid-meter", "it-meter", "cooling-meter", "lighting-meter", "other-meter", "pv-meter", "generator-meter",
          "circuit-meter")  # fmt: skip


def _rows(raw: Table, key: str) -> list[Table]:
    rows = raw.get(key, [])
    if not isinstance(rows, list):
        return []
    # Only plain values: whatever else stands there is refused elsewhere.
    return [
        {k: v for k, v in row.items() if not isinstance(v, (list, dict))} if isinstance(row, dict) else {}
        for row in rows
    ]


def _number(table: object, key: str, default: float | None = None) -> float | None:
    value = table.get(key, default) if isinstance(table, dict) else default
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def cross_check(raw: Table, place: Place) -> list[str]:
    """Everything that contradicts itself in a site, as sentences with place and remedy."""
    return [
        *_check_names(raw, place),
        *_check_buses(raw, place),
        *_check_roles(raw, place),
        *_check_storage(raw, place),
        *_check_measured(raw, place),
        *_check_nameplates(raw, place),
        *_check_limits(raw, place),
        *_check_schedule(raw, place),
        *_check_capacity_tariff(raw, place),
        *_check_blind(raw, place),
        *_check_rest(raw, place),
        *check_island(raw, place),
        *_check_lines(raw, place),
        *check_telemetry(raw, place),
        *_check_simulated_lines(raw, place),
    ]


def _check_lines(raw: Table, place: Place) -> list[str]:
    """GPIO lines: each once, a stop once, a breaker of a unit that there is, and room for their bus."""
    problems = []
    taken: dict[tuple[object, object], object] = {}
    stop = ""
    names = [row.get("name") for row in _rows(raw, "storage")]
    for section, i, row in ((s, i, row) for s in ("input", "output") for i, row in enumerate(_rows(raw, s))):
        line = (row.get("chip", "/dev/gpiochip0"), row.get("line"))
        if line in taken:
            problems.append(f"{place((section, i, 'line'))}: line {line[1]} of {line[0]} is {taken[line]}'s already")
        taken[line] = row.get("name")
        if row.get("what") in ("operator-stop", "demand-pulse"):
            if row["what"] in stop.split():
                problems.append(f"{place((section, i, 'what'))}: a site has one {row['what']}; remove the other")
            stop += f" {row['what']}"
        if row.get("what") == "breaker":
            if "storage" in row and row["storage"] not in names:
                known = ", ".join(str(name) for name in names)
                problems.append(
                    f"{place((section, i, 'storage'))}: no storage is named {row['storage']!r}; known: {known}"
                )
            elif "storage" not in row and len(names) != 1:
                problems.append(f"{place((section, i))}: storage is missing; say whose gate asks for the breaker")
        elif section == "output" and "storage" in row:
            problems.append(
                f"{place((section, i, 'storage'))}: belongs to a breaker; an alarm is for all units; remove it"
            )
    if taken and len(_rows(raw, "can")) > 3:
        problems.append(f"{place(('can',))}: with GPIO lines a site has room for three CAN buses")
    if taken and "gpio" in {row.get("name") for s in ("serial", "tcp", "can") for row in _rows(raw, s)}:
        problems.append(
            f"{place(('input',))}: the bus name gpio is that of the GPIO lines; name the other bus otherwise"
        )
    return problems


def _check_simulated_lines(raw: Table, place: Place) -> list[str]:
    """Simulated contacts: only where nothing real hangs on them, and only on inputs that are simulated."""
    problems = []
    buses = [
        row.get(key)
        for section, key in (("serial", "device"), ("tcp", "host"), ("can", "interface"))
        for row in _rows(raw, section)
    ]
    for section, i, row in ((s, i, row) for s in ("input", "output") for i, row in enumerate(_rows(raw, s))):
        if row.get("chip") == "sim" and any(one != "sim" for one in buses):
            problems.append(
                f"{place((section, i, 'chip'))}: a simulated line guards nothing on a site with real buses; name the "
                f"chip, such as /dev/gpiochip0"
            )
    simulated = [str(row.get("name")) for row in _rows(raw, "input") if row.get("chip") == "sim"]
    for i, row in enumerate(_rows(_table(raw, "simulation"), "contact")):
        if row.get("input") not in simulated:
            problems.append(
                f"{place(('simulation', 'contact', i, 'input'))}: {row.get('input')!r} is no input on a simulated "
                f'chip; known: {", ".join(simulated) or "none"}. Set chip = "sim" on the [[input]]'
            )
    return problems


def _check_names(raw: Table, place: Place) -> list[str]:
    problems = []
    for kind, scope in (
        ("bus", ("serial", "tcp", "can")),
        ("device", ("device", "input", "output")),
        ("storage", ("storage",)),
    ):
        seen: dict[str, tuple[str, int]] = {}
        for section in scope:
            for i, row in enumerate(_rows(raw, section)):
                name = row.get("name")
                if not isinstance(name, str):
                    continue
                if name in seen:
                    problems.append(f"{place((section, i, 'name'))}: the {kind} name {name!r} is taken; choose another")
                seen.setdefault(name, (section, i))
    for section, i, row in ((s, i, row) for s in ("device", "input") for i, row in enumerate(_rows(raw, s))):
        if row.get("name") == "site" or str(row.get("name", "")).rstrip("0123456789") == "unit":
            problems.append(
                f"{place((section, i, 'name'))}: {row['name']!r} belongs to the image itself; choose another"
            )
    devices: dict[str, int] = {}
    for section, key in (("serial", "device"), ("can", "interface")):
        for i, row in enumerate(_rows(raw, section)):
            path = row.get(key)
            if isinstance(path, str) and path != "sim":
                if path in devices:
                    problems.append(f"{place((section, i, key))}: {path} is used by two buses; each needs its own")
                devices[path] = i
    return problems


def _clash(row: Table, others: list[Table], simulated: bool) -> str:
    """Why this device cannot stand behind the unit id of the others; "" where it can: one device in several roles."""
    for other in others:
        name = other.get("name", "another device")
        if simulated:
            return f"{name}'s; a simulated device has one role, give one of them another id"
        if all(row.get(key) == other.get(key) for key in ("map", "options", "sunspec_base", "sunspec_models")):
            return f"{name}'s with the same map; both would answer at once, give one of them another id"
    return ""


def _check_buses(raw: Table, place: Place) -> list[str]:
    problems = []
    serials = {row.get("name") for row in _rows(raw, "serial")}
    tcps = {row.get("name"): row for row in _rows(raw, "tcp")}
    cans = {row.get("name") for row in _rows(raw, "can")}
    simulated = {row.get("name") for row in _rows(raw, "serial") if row.get("device") == "sim"}
    simulated |= {row.get("name") for row in _rows(raw, "tcp") if row.get("host") == "sim"}
    taken: dict[tuple[object, object], list[Table]] = {}
    used = set()
    for i, row in enumerate(_rows(raw, "device")):
        bus, unit_id = row.get("bus"), row.get("unit_id")
        used.add(bus)
        if bus is not None and bus not in serials and bus not in tcps and bus not in cans:
            known = ", ".join(sorted(str(name) for name in serials | set(tcps) | cans)) or "none"
            problems.append(f"{place(('device', i, 'bus'))}: no bus is named {bus!r}; the file has: {known}")
        if bus in serials or bus in tcps:
            framed = bus in tcps and tcps[bus].get("framing", "tcp") == "tcp"
            if unit_id is None:
                problems.append(
                    f"{place(('device', i))}: unit_id is missing; a device on a "
                    f"{'serial' if bus in serials else 'TCP'} bus has one (1 to 247"
                    f"{', mostly 1 or 255 for a device that is no gateway' if framed else ''})"
                )
            elif not framed and isinstance(unit_id, int) and not 1 <= unit_id <= 247:
                problems.append(
                    f"{place(('device', i, 'unit_id'))}: {unit_id} is no address on a serial line; expected 1 to 247"
                )
            else:
                others, whole = taken.setdefault((bus, unit_id), []), raw["device"][i]
                said = _clash(whole, others, bus in simulated)
                if said:
                    where = place(("device", i, "unit_id"))
                    problems.append(f"{where}: unit id {unit_id} on bus {bus} is already {said}")
                others.append(whole)
        elif bus in cans and unit_id is not None:
            problems.append(f"{place(('device', i, 'unit_id'))}: a CAN device has no unit id; remove it")
    for section in ("serial", "tcp", "can"):
        for i, row in enumerate(_rows(raw, section)):
            if row.get("name") is not None and row.get("name") not in used:
                problems.append(f"{place((section, i))}: no device is on this bus; remove it or name it in a device")
    problems += _check_hosts(raw, place)
    wanted = raw.get("console")
    port = wanted.get("port") if isinstance(wanted, dict) else None
    for row in _rows(raw, "serial"):
        if port is not None and row.get("device") == port:
            problems.append(
                f"{place(('console', 'port'))}: {port} is bus {row.get('name')}'s; the console needs a port of its own"
            )
    return problems


def _check_hosts(raw: Table, place: Place) -> list[str]:
    """The core asks no name server: a name may change its meaning, or have none when the site starts."""
    problems = []
    taken: dict[tuple[object, object], object] = {}
    for i, row in enumerate(_rows(raw, "tcp")):
        host, port = row.get("host"), row.get("port", 502)
        if not isinstance(host, str) or host == "sim":
            continue
        where = place(("tcp", i, "host"))
        try:
            address = ip_address(host)
        except ValueError:
            problems.append(f"{where}: {host!r} is a name; write the address (`getent hosts {host}` shows it)")
            continue
        if getattr(address, "scope_id", None):
            problems.append(f"{where}: {host} has a zone; give the device a global or unique local address")
        if address.is_multicast or address.is_unspecified or address == ip_address("255.255.255.255"):
            problems.append(f"{where}: {host} is no device's address; expected the address of one")
        if (address, port) in taken:
            problems.append(
                f"{where}: {host} port {port} is already bus {taken[address, port]}; put its devices on that one "
                f"(connections and pipeline say how many requests it bears at once)"
            )
        taken.setdefault((address, port), row.get("name"))
    return problems


def _check_roles(raw: Table, place: Place) -> list[str]:
    problems = []
    devices = _rows(raw, "device")
    grid = [i for i, row in enumerate(devices) if row.get("role") == "grid-meter"]
    if not grid:
        problems.append("device: no device has the role grid-meter; without it the controller is blind")
    for role in ("grid-meter", "pv-meter"):
        found = [i for i, row in enumerate(devices) if row.get("role") == role]
        problems += [f"{place(('device', i, 'role'))}: a second {role}; only one can stand there" for i in found[1:]]
    circuits = [i for i, row in enumerate(devices) if row.get("role") == "circuit-meter"]
    problems += [f"{place(('device', i, 'role'))}: a ninth circuit-meter; at most 8" for i in circuits[8:]]
    for i, row in enumerate(devices):
        if row.get("invert") and row.get("role") not in METERS:
            problems.append(
                f"{place(('device', i, 'invert'))}: only meters are inverted; a converter's sign is in its map"
            )
        if "circuit_w_max" in row and row.get("role") != "circuit-meter":
            problems.append(f"{place(('device', i, 'circuit_w_max'))}: only a circuit-meter has a limit of its own")
    return problems


def _check_storage(raw: Table, place: Place) -> list[str]:
    problems = []
    roles = {row.get("name"): row.get("role") for row in _rows(raw, "device")}
    used: dict[str, str] = {}
    rows = _rows(raw, "storage")
    if not rows:
        problems.append("storage: no storage unit; a site has at least one [[storage]]")
    for i, row in enumerate(rows):
        beside = _table({"row": raw["storage"][i]}, "row").get("parallel", ())
        more = [("parallel", "bms", name) for name in beside] if isinstance(beside, list) else []
        if more and row.get("name") in roles:
            problems.append(
                f"{place(('storage', i, 'name'))}: {row.get('name')!r} is a device as well, and a unit with several "
                f"batteries has points of its own name; choose another"
            )
        for key, role, name in (("bms", "bms", row.get("bms")), ("pcs", "pcs", row.get("pcs")), *more):
            if not isinstance(name, str):
                continue
            if roles.get(name) != role:
                has = f"has the role {roles[name]}" if name in roles else "is not in the file"
                problems.append(f"{place(('storage', i, key))}: {name!r} {has}; expected a device with role = {role!r}")
            if name in used:
                problems.append(f"{place(('storage', i, key))}: {name!r} already belongs to storage {used[name]}")
            used[name] = str(row.get("name", i))
        for low, high, defaults in (
            ("soc_min", "soc_max", (0.1, 0.95)),
            ("temp_min_c", "temp_max_c", (0.0, 50.0)),
        ):
            a, b = _number(row, low, defaults[0]), _number(row, high, defaults[1])
            if a is not None and b is not None and a >= b:
                problems.append(
                    f"{place(('storage', i, low))}: {low} = {a:g} is not below {high} = {b:g}; swap or widen them"
                )
        a, b = _number(row, "cell_v_min", 0.0), _number(row, "cell_v_max", 0.0)
        if a and b and a >= b:
            problems.append(
                f"{place(('storage', i, 'cell_v_min'))}: cell_v_min = {a:g} is not below cell_v_max = {b:g}"
            )
        taper = _number(row, "soc_taper", 0.03)
        a, b = _number(row, "soc_min", 0.1), _number(row, "soc_max", 0.95)
        if None not in (a, b, taper) and a < b and 2 * taper > b - a:  # type: ignore[operator]
            problems.append(f"{place(('storage', i, 'soc_taper'))}: the two tapers meet; at most {(b - a) / 2:g}")  # type: ignore[operator]
        go, stop = _number(row, "ramp_go_w_per_s"), _number(row, "ramp_stop_w_per_s")
        if go is not None and stop is not None and stop < 5 * go:
            problems.append(
                f"{place(('storage', i, 'ramp_stop_w_per_s'))}: {stop:g} W/s is less than "
                f"5 x ramp_go_w_per_s = {5 * go:g}: stopping must be much faster than starting"
            )
    for i, row in enumerate(_rows(raw, "device")):
        if row.get("role") in ("bms", "pcs") and row.get("name") not in used:
            problems.append(
                f"{place(('device', i, 'role'))}: no [[storage]] names this {row['role']}; add one or remove it"
            )
    return problems


def _check_measured(raw: Table, place: Place) -> list[str]:
    """Times of several converters are given by the name of each."""
    measured = _table(raw, "commissioning").get("pcs_revert_ms")
    converters = [str(row.get("name")) for row in _rows(raw, "device") if row.get("role") == "pcs"]
    return [
        f"{place(('commissioning', 'pcs_revert_ms'))}: no converter is named {name!r}; the file has: "
        f"{', '.join(converters) or 'none'}"
        for name in (measured if isinstance(measured, dict) else {})
        if name not in converters
    ]


def _check_nameplates(raw: Table, place: Place) -> list[str]:
    problems = []
    plates: dict[tuple[str, object], float] = {}
    for i, row in enumerate(_rows(raw, "device")):
        for key, role in (("nameplate_w_max", "pcs"), ("nameplate_a_max", "bms")):
            plate = _number(row, key)
            if plate is not None:
                plates[(key, row.get("name"))] = plate
                if row.get("role") != role:
                    problems.append(f"{place(('device', i, key))}: only a {role} has one; remove the key")
    for i, row in enumerate(_rows(raw, "storage")):
        for key, plate_key, name in (
            ("charge_w_max", "nameplate_w_max", row.get("pcs")),
            ("discharge_w_max", "nameplate_w_max", row.get("pcs")),
            ("charge_a_max", "nameplate_a_max", row.get("bms")),
            ("discharge_a_max", "nameplate_a_max", row.get("bms")),
        ):
            limit, plate = _number(row, key), plates.get((plate_key, name))
            if limit is not None and plate is not None and limit > plate:
                problems.append(
                    f"{place(('storage', i, key))}: {limit:g} is above {plate_key} = {plate:g} of {name}; lower it"
                )
        powers = [_number(row, key) for key in ("charge_w_max", "discharge_w_max")]
        if all(power is not None and 0 < power < STEP_W_MIN for power in powers):
            problems.append(
                f"{place(('storage', i, 'discharge_w_max'))}: arming tests the converter with {STEP_W_MIN} W, so that "
                f"the states ready and run could never be reached; raise charge_w_max or discharge_w_max to that"
            )
    return problems


def _check_limits(raw: Table, place: Place) -> list[str]:
    problems = []
    for key in ("reconnect_hz", "reconnect_v"):
        band = raw.get("limits", {}).get(key) if isinstance(raw.get("limits"), dict) else None
        numbers = [one for one in band if isinstance(one, int | float)] if isinstance(band, list) else []
        if len(numbers) == 2 and not 0 < numbers[0] < numbers[1]:
            problems.append(f"{place(('limits', key))}: {band} is no band; give the lowest value and then the highest")
    limits, control = raw.get("limits", {}), raw.get("control", {})
    fuse, peak = _number(limits, "connection_import_w_max"), _number(control, "peak_w_max")
    if fuse is not None and peak is not None and peak > fuse:
        problems.append(
            f"{place(('control', 'peak_w_max'))}: {peak:g} W is above limits.connection_import_w_max = {fuse:g} W; "
            f"the fuse would go first"
        )
    recharge = _number(control, "recharge_w_max")
    if recharge is not None and peak is not None and recharge > peak:
        problems.append(
            f"{place(('control', 'recharge_w_max'))}: {recharge:g} W is above peak_w_max = {peak:g} W: "
            f"recharging would make the peak that the battery is to shave"
        )
    low_hz, high_hz = _number(control, "damp_lo_hz"), _number(control, "damp_hi_hz")
    if low_hz is not None and high_hz is not None and low_hz >= high_hz:
        problems.append(f"{place(('control', 'damp_lo_hz'))}: {low_hz:g} Hz is not below damp_hi_hz = {high_hz:g} Hz")
    window, step = _number(control, "demand_window_s", 900.0), _number(control, "demand_step_s", 0.0)
    if window and step and (window % step or window / step > 64):
        problems.append(
            f"{place(('control', 'demand_step_s'))}: {step:g} s does not divide the window of {window:g} s into "
            f"at most 64 parts"
        )
    if peak is None and _number(control, "demand_ratchet") is not None and _number(control, "demand_w_max") is None:
        problems.append(f"{place(('control', 'demand_ratchet'))}: there is no demand_w_max for it to work on")
    shares = control.get("phase_share") if isinstance(control, dict) else None
    if isinstance(shares, list) and all(isinstance(s, (int, float)) for s in shares) and abs(sum(shares) - 1) > 1e-6:
        problems.append(f"{place(('control', 'phase_share'))}: the shares add up to {sum(shares):g}, expected 1")
    band, floor = _number(control, "follow_soc_min"), _number(control, "reserve_soc", 0.0)
    if band is not None and floor is not None and band < floor:
        problems.append(
            f"{place(('control', 'follow_soc_min'))}: {band:g} is below reserve_soc = {floor:g}; the band between "
            f"them, which is kept for the limits, would be empty"
        )
    target = _number(control, "target_soc", 0.8)
    reserve = _number(control, "reserve_soc", 0.0)
    for i, row in enumerate(_rows(raw, "storage")):
        low, high = _number(row, "soc_min", 0.1), _number(row, "soc_max", 0.95)
        if None in (low, high, target, reserve):
            continue
        if not low <= target <= high:  # type: ignore[operator]
            problems.append(
                f"{place(('control', 'target_soc'))}: {target:g} is outside {low:g} to {high:g} of storage "
                f"{row.get('name', i)}: never reached"
            )
        if reserve > high:  # type: ignore[operator]
            problems.append(
                f"{place(('control', 'reserve_soc'))}: {reserve:g} is above soc_max = {high:g} of storage "
                f"{row.get('name', i)}: it would never discharge"
            )
    return problems


def _check_schedule(raw: Table, place: Place) -> list[str]:
    problems = []
    rows = raw.get("schedule", [])
    limits = {**_table(raw, "limits"), **_table(raw, "control")}
    whole: list[Slot] = []
    for i, row in enumerate(rows if isinstance(rows, list) else []):
        if not isinstance(row, dict):
            return []
        at = place(("schedule", i))
        if not any(key in row for key in calendar.FIELDS):
            problems.append(f"{at}: the slot says nothing; give it one of {', '.join(calendar.FIELDS)}")
        problems += [
            f"{place(('schedule', i, key))}: there is no setpoint_w in this slot for it to work on; add one"
            for key in ("until_soc", "forced")
            if row.get(key) not in (None, False) and "setpoint_w" not in row
        ]
        for key, fixed in (
            ("import_w_max", "connection_import_w_max"),
            ("export_w_max", "connection_export_w_max"),
            ("peak_w_max", "peak_w_max"),
            ("demand_w_max", "demand_w_max"),
        ):
            slot, site = _number(row, key), _number(limits, fixed)
            if slot is not None and site is not None and slot > site:
                problems.append(
                    f"{place(('schedule', i, key))}: {slot:g} W is above {fixed} = {site:g} W of the site; a slot can "
                    f"only be tighter: lower it, or raise the site's limit and put the tighter one into slots"
                )
        days = row.get("days", list(calendar.DAYS))
        if not isinstance(days, list) or any(day not in calendar.DAYS for day in days):
            return problems  # said elsewhere, key by key
        try:
            begin, end = calendar.minutes(str(row.get("begin"))), calendar.minutes(str(row.get("end")))
        except ValueError:
            return problems
        if begin == calendar.DAY_MIN:
            problems.append(f"{place(('schedule', i, 'begin'))}: a day begins at 00:00; 24:00 is only an end")
        if begin == end:
            problems.append(
                f"{place(('schedule', i, 'end'))}: {row['end']} is begin as well; a whole day ends at 24:00"
            )
        try:
            whole.append(msgspec.convert({"name": f"slot {i}", **row}, Slot))
        except msgspec.ValidationError:
            return problems  # said elsewhere, key by key
    problems += _check_holidays(raw, place)
    names = [slot.name for slot in whole]
    problems += [f"{place(('schedule', i, 'name'))}: the name {name!r} is taken; choose another"
                 for i, name in enumerate(names) if name in names[:i]]  # fmt: skip
    problems += [
        f"{place(('schedule', b))}: overlaps slot {names[a]!r} from {when} on; let one end where the other begins"
        for a, b, when in calendar.overlaps(whole)
    ]
    if whole and _table(raw, "control").get("schedule_gaps") == "refuse":
        problems += [
            f"schedule: no slot from {begin} to {end}; add one, or let the next "
            f'source take over with control.schedule_gaps = "next"'
            for begin, end in calendar.gaps(whole)
        ]
    return problems


def _check_holidays(raw: Table, place: Place) -> list[str]:
    """A slot that knows public holidays needs to know whose."""
    site = _table(raw, "site")
    country, subdivision = site.get("country"), site.get("subdivision")
    asks = [i for i, row in enumerate(_rows(raw, "schedule")) if row.get("holidays", "as-weekday") != "as-weekday"]
    if not asks:
        if subdivision is not None and country is None:
            return [f"{place(('site', 'subdivision'))}: a subdivision of no country; add site.country"]
        return []
    if country is None:
        return [
            f"{place(('schedule', asks[0], 'holidays'))}: public holidays of which country? Add site.country, such as "
            f'"DE", and site.subdivision where regions differ'
        ]
    try:
        calendar.public_holidays(str(country), None if subdivision is None else str(subdivision))
    except ImportError:
        return [
            f"{place(('schedule', asks[0], 'holidays'))}: public holidays need the package holidays; install "
            f"tidegate[tariff]"
        ]
    except ValueError as why:
        return [f"{place(('site', 'country'))}: no public holidays are known there ({why})"]
    return []


def _check_capacity_tariff(raw: Table, place: Place) -> list[str]:
    """A tariff that bills the mean of several peaks names a period that is longer than what each peak is of."""
    control = _table(raw, "control")
    count, of, billing = control.get("demand_peaks"), control.get("demand_peaks_of"), control.get("demand_billing")
    if count is None and of is None:
        return []
    if count is None or of is None:
        key = "demand_peaks_of" if count is None else "demand_peaks"
        return [
            f"{place(('control', key))}: demand_peaks (how many) and demand_peaks_of (day or month) go together; add "
            f"the other"
        ]
    if (of, billing) not in (("day", "month"), ("day", "year"), ("month", "year")):
        return [
            f"{place(('control', 'demand_peaks_of'))}: the highest {of}s of which period? Set demand_billing to "
            f"{'month or year' if of == 'day' else 'year'}"
        ]
    return []


def _table(raw: Table, key: str) -> Table:
    found = raw.get(key, {})
    return found if isinstance(found, dict) else {}


def _check_blind(raw: Table, place: Place) -> list[str]:
    control, limits = raw.get("control"), raw.get("limits")
    blind_w, base_w = _number(control, "blind_discharge_w_max", 0.0), _number(limits, "base_load_w", 0.0)
    if blind_w is None or base_w is None or blind_w <= base_w:
        return []
    return [
        f"{place(('control', 'blind_discharge_w_max'))}: {blind_w:g} W without a meter could export, for only "
        f"{base_w:g} W are always drawn; lower it, or raise limits.base_load_w to what the site never falls below"
    ]


def _check_rest(raw: Table, place: Place) -> list[str]:
    problems = []
    site = raw.get("site", {})
    zone = site.get("timezone", "UTC") if isinstance(site, dict) else "UTC"
    try:
        zone_of(zone)
    except Exception:  # or it is no text at all
        problems.append(
            f"{place(('site', 'timezone'))}: {zone!r} is not an IANA time zone that is known here; "
            "expected UTC, or one like Europe/London (Debian: apt install tzdata)"
        )
    period, rate = _number(site, "period_us", 1000.0), _number(site, "snapshot_hz", 10.0)
    if period and rate and rate * period > 1e6 * 1.0001:
        problems.append(
            f"{place(('site', 'snapshot_hz'))}: {rate:g} a second is more than one a cycle ({1e6 / period:g})"
        )
    simulated = any(
        row.get(key) == "sim"
        for section, key in (("serial", "device"), ("tcp", "host"), ("can", "interface"))
        for row in _rows(raw, section)
    )
    if simulated and "simulation" not in raw:
        problems.append("simulation: a bus is simulated, but the file has no [simulation]; add one (it may be empty)")
    if "simulation" in raw and not simulated:
        problems.append(f'{place(("simulation",))}: no bus is simulated; remove it, or set device = "sim" on the buses')
    simulation = raw.get("simulation", {})
    shares = simulation.get("phase_share") if isinstance(simulation, dict) else None
    if isinstance(shares, list) and all(isinstance(s, (int, float)) for s in shares) and abs(sum(shares) - 1) > 1e-6:
        problems.append(f"{place(('simulation', 'phase_share'))}: the shares add up to {sum(shares):g}, expected 1")
    gateway = raw.get("gateway", {})
    if isinstance(gateway, dict):
        if gateway.get("publish") and not gateway.get("endpoint"):
            problems.append(f"{place(('gateway', 'publish'))}: streams go nowhere without requests; add endpoint")
        elif gateway.get("publish") and gateway["publish"] == gateway["endpoint"]:
            problems.append(f"{place(('gateway', 'publish'))}: endpoint has that port; give another one")
    return problems
