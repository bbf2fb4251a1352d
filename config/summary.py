"""`tidegate check SITE`: is this a site that may start? Says everything that is wrong, or what it would do."""

import math
import sys
from collections.abc import Callable

from tidegate.config.compile import compile_site
from tidegate.config.plausible import AT_CONNECTION, is_power
from tidegate.config.site import SiteError, load_site
from tidegate.ext.abi import program
from tidegate.hal.description import Description, described
from tidegate.hal.map_schema import UNCHECKED

THREE_PHASES_W = 15_000  # ext/estimate/phases.pyx: no converter of more power has one phase
FLOATS = {program.FIELD_TYPES[name] for name in ("f32", "f64")}
REGISTER_GAP_NS = 3_000_000_000  # ext/estimate/energy_register.pyx and phases.pyx begin anew after so long


def summary(blob: bytes) -> list[str]:
    """A few lines about a compiled site, for people."""
    site = described(program.describe(blob))
    lines = [
        f"site {site.site.name}: {len(site.devices)} devices, {len(site.units)} storage units, "
        f"{len(site.points)} points, a cycle every {site.period_ns / 1e6:g} ms",
    ]
    for plan in site.plan:
        paced = [block.period_ms for block in plan.blocks if block.poll == "fast" and block.period_ms]
        fast_ms = plan.round_us / 1e3 or min(paced, default=0.0)
        fast = f", fast points every {fast_ms:.3g} ms" if fast_ms else ""
        lines.append(f"port {plan.port}: timed polls take {plan.share:.0%} of the line{fast}")
        if plan.zero_us:
            lines.append(
                f"port {plan.port}: 0 W is on the wire within {plan.zero_us / 1e3:.3g} ms of an alarm, within "
                f"{plan.zero_timeout_us / 1e3:.3g} ms when a reply is missing just then"
            )
        if plan.asked_us:
            asked = ", ".join(f"{name} {us / 1e6:.3g} s" for name, us in plan.asked_us.items())
            lines.append(f"port {plan.port}: asked again, whatever the others do, within: {asked}")
    if site.silence_us:
        silent = ", ".join(f"{name} {us / 1e3:.4g} ms" for name, us in site.silence_us.items())
        lines.append(f"setpoint 0 after silence of: {silent}")
    lines += believed(blob, site)
    lines += contacts(blob)
    lines += unwatched(blob, site)
    lines += unwitnessed(site)
    lines += by_registers(blob)
    lines += by_phases(blob)
    for unit in site.units:
        if unit.soc_min <= 0.0 or unit.soc_max >= 1.0:
            lines.append(
                f"warning: {unit.name} has no margin in its soc window ({unit.soc_min:g} to {unit.soc_max:g}); "
                "nothing but the BMS stands before an empty or an overcharged battery"
            )
        if unit.cell_v_min <= 0.0 or unit.cell_v_max <= 0.0:
            lines.append(f"warning: {unit.name} has no cell voltage limits of its own; the BMS alone watches them")
    lines += [f"warning: {note}" for note in site.notes]
    lines += [f"believed first: {line}" for line in site.first]
    lines += doubts(site)
    lines.append(f"program {site.sha256}")
    return lines


def believed(blob: bytes, site: Description) -> list[str]:
    """Beyond which power a reading is not believed."""
    rows = program.rows(blob)
    most: dict[str, float] = {}
    for field in rows["fields"]:
        row = rows["points"][field["point"]]
        name, _, signal = row["name"].partition(".")
        if is_power(signal, row["unit"]) and signal not in AT_CONNECTION and math.isfinite(field["max"]):
            most[name] = max(most.get(name, 0.0), abs(field["min"]), abs(field["max"]))
    kind = {device.name: device.role for device in site.devices}
    return [
        f"{name}: a power beyond {watt:,.0f} W is not believed"
        + ("; nameplate_w_max of the device sets it" if kind.get(name) == "pcs" else "")
        for name, watt in most.items()
    ]


def contacts(blob: bytes) -> list[str]:
    """What each GPIO line means, and what holds while nobody can read it."""
    rows = program.rows(blob)
    known = {
        1: "the grid operator's stop; counts as closed while it cannot be read",
        2: "the grid operator's limit of {:g} W import; counts as closed while it cannot be read",
        3: "a door; setpoint 0 while it is open or cannot be read",
        4: "smoke; opens and stays so until acknowledged; setpoint 0 while it cannot be read",
        5: "the emergency stop's feedback; opens and stays so until acknowledged; setpoint 0 while it cannot be read",
    }
    return [
        f"contact {rows['points'][row['point']]['name'].partition('.')[0]}: "
        + known[row["what"]].format(row["import_w_max"])
        for row in rows["inputs"]
    ]


def unwatched(blob: bytes, site: Description) -> list[str]:
    """Units that will not arm, since nothing says that their converter stops when its setpoints do."""
    rows = program.rows(blob)["units"]
    return [
        f"warning: {unit.name} does not arm: the watchdog of {unit.pcs} cannot be read by its map and was not measured "
        f"here; `tidegate commission SITE --start` measures it (commissioning.pcs_revert_ms)"
        for unit, row in zip(site.units, rows, strict=True)
        if row["pcs_revert_s"] < 0 and not row["revert_measured_s"] > 0.0
    ]


def unwitnessed(site: Description) -> list[str]:
    """What is believed without a witness: converters that cannot be held against their battery, frames of a BMS."""
    about = {device.name: device for device in site.devices}
    lines = [
        f"warning: {unit.name}: the power of {unit.pcs} is not held against the battery's (pcs_power_apart, "
        f"pcs_opposed, bms_stuck are off), and what it gives beyond its setpoint is taken for its modules' "
        f"(pcs_not_following, pcs_runaway, pcs_outside judge the other side alone): "
        f"{about[unit.pcs].battery_power.removeprefix('none: ')}"
        for unit in site.units
        if unit.pcs in about and about[unit.pcs].battery_power.startswith("none")
    ]
    return lines + [
        f"{device.name}: not checked on the wire: "
        + ("; ".join(UNCHECKED[word] for word in device.unchecked) or f"the map {device.map} does not say what")
        for device in site.devices
        if device.role == "bms"
    ]


def by_registers(blob: bytes) -> list[str]:
    """What of the grid meter's power is held against its own energy registers: a lie that only these would show."""
    rows = program.rows(blob)
    if rows["site"]["grid_w"] < 0:
        return []
    name = rows["points"][rows["site"]["grid_w"]]["name"].partition(".")[0]
    fields = {row["point"]: number for number, row in enumerate(rows["fields"])}
    steps_wh: list[float] = []
    at = rows["site"]
    for what, point in (("import", at["grid_import_wh"]), ("export", at["grid_export_wh"])):
        number = fields.get(point)
        if number is None:
            return [f"{name}: not held against its energy: its map has no {what} register that is read"]
        (block,) = [b for b in rows["blocks"] if b["field_first"] <= number < b["field_first"] + b["field_count"]]
        if block["period_ns"] > REGISTER_GAP_NS:
            every_s = block["period_ns"] / 1e9
            return [
                f"{name}: not held against its energy: the {what} register is read every {every_s:g} s, 3 s at most"
            ]
        field = rows["fields"][number]
        if field["type"] not in FLOATS and field["sf_point"] < 0:
            steps_wh.append(field["scale"])
    step = ""
    if steps_wh:
        step = f"; in steps of {max(steps_wh):g} Wh, so a power of ten times shows from {300 * max(steps_wh):,.0f} W on"
    return [f"{name}: its power is held against its import and export registers{step}"]


def by_phases(blob: bytes) -> list[str]:
    """Whether the grid meter's power is held against its own phases, and how soon one that is lost shows."""
    rows = program.rows(blob)
    site = rows["site"]
    if site["grid_w"] < 0:
        return []
    name = rows["points"][site["grid_w"]]["name"].partition(".")[0]
    if min(site["grid_w_l"]) < 0:
        missing = ", ".join(f"L{at}" for at, point in enumerate(site["grid_w_l"], 1) if point < 0)
        return [
            f"{name}: not held against its phases: its map has no power of {missing}; a lost one shows late or never"
        ]
    every_s = 0.0
    for point in site["grid_w_l"]:
        (number,) = [at for at, row in enumerate(rows["fields"]) if row["point"] == point]
        (block,) = [b for b in rows["blocks"] if b["field_first"] <= number < b["field_first"] + b["field_count"]]
        every_s = max(every_s, block["period_ns"] / 1e9)
    if every_s * 1e9 >= REGISTER_GAP_NS:
        return [f"{name}: not held against its phases: they are read every {every_s:g} s, less than 3 s are needed"]
    gates = [unit["gate"] for unit in rows["units"]]
    least_w = min((max(gate["charge_w_max"], gate["discharge_w_max"]) for gate in gates), default=0)
    told = (
        "a third, as of all converters above 15 kW"
        if least_w > THREE_PHASES_W
        else "learnt at arming, if at all (control.phase_share)"
    )
    share: object = rows["control"]["phase_share"]
    told = "told by the site file" if isinstance(share, list) and any(share) else told
    also = " and volts times amperes" if min(*site["grid_a"], *site["grid_v"]) >= 0 else ""
    lost = f"a lost one shows within three looks, {every_s:g} s apart; how much of the battery is on each is {told}"
    return [f"{name}: its power is held against its phases{also}: {lost}"]


def doubts(site: Description) -> list[str]:
    """What the device maps of a site leave open: each once, with its devices; how many were answered."""
    about: dict[tuple[str, str], list[str]] = {}
    for device in site.devices:
        for text in device.doubts:
            about.setdefault((device.map, text), []).append(device.name)
    lines = [f"doubt about {', '.join(names)} ({found}): {text}" for (found, text), names in about.items()]
    settled = len({(device.map, text) for device in site.devices for text in device.doubts_answered})
    if settled:
        lines.append(f"{settled} doubts are answered in the site file (doubts_answered)")
    return lines


def check(path: str, out: Callable[[str], object] = print, err: Callable[[str], object] | None = None) -> int:
    """Check a site file; returns the exit code: 0, or the class of what is wrong (see config.site)."""
    err = err or (lambda line: print(line, file=sys.stderr))
    try:
        blob = compile_site(load_site(path))
    except SiteError as error:
        for problem in error.problems:
            err(f"{path}: {problem}")
        count = len(error.problems)
        err(f"{path}: {count} problem{'s' if count > 1 else ''}; nothing was started")
        return error.exit_code
    for line in summary(blob):
        out(line)
    out(f"{path}: good")
    return 0
