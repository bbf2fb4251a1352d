"""What `tidegate scan` prints of the devices it found: rows for a site file, everything else as comments."""

import json
from collections.abc import Iterable, Sequence

from tidegate.hal import maps
from tidegate.runtime.api.messages import Message
from tidegate.runtime.commissioning.survey import absolute, bus_name
from tidegate.runtime.tools.open_bus import tcp_place
from tidegate.runtime.tools.pylon_bus import MAP, FoundPack
from tidegate.runtime.tools.scan import sunspec_roles, told_options


def scan_text(report: Sequence[Message], where: str) -> list[str]:
    """TOML lines for a site file: the bus at the first rate that somebody answered at, and its devices."""
    if not report:
        return []
    head = report[0]
    over_tcp = "baud" not in head
    bus = bus_name("lan" if over_tcp else where, set(), "lan" if over_tcp else "serial")
    if over_tcp:
        host, port = tcp_place(where)
        lines = ["[[tcp]]", f'name = "{bus}"', f"host = {json.dumps(host)}", f"port = {port}"]
    else:
        lines = ["[[serial]]", f'name = "{bus}"', f"device = {json.dumps(absolute(where))}"]
        lines += [f"baud = {head['baud']}", f'parity = "{head["parity"]}"']
        lead_in = max(entry["lead_in_bytes"] for entry in report)
        if lead_in:
            lines.append(f"lead_in_bytes = {lead_in}  # stray bytes were seen before replies")
    number = 0
    for entry in report:
        who = " ".join(filter(None, entry["identity"].values()))
        who = "".join(c for c in who if c.isprintable())  # a device's own words may not end the comment
        at = "" if over_tcp else f" at {entry['baud']} 8{entry['parity']}1"
        lines += ["", f"# unit {entry['unit_id']}{at} {who}".rstrip()]
        lines += [
            f"#   looks like {name} ({good} of {tried} readings believable)" for name, good, tried in entry["fits"]
        ]
        if entry["chain"]:
            lines.append("#   SunSpec models " + ", ".join(f"{model} at {begin}" for model, begin, _ in entry["chain"]))
        if any(entry.get(key) != head.get(key) for key in ("baud", "parity")):
            lines.append("#   on a bus of its own, for its rate")
            continue
        rows = sunspec_roles(entry["chain"])
        rows += [(name, maps.shipped(name).map.kind, {}) for name, _, _ in entry["fits"][:1]]
        for name, kind, models in rows:
            number += 1
            lines += ["[[device]]", f'name = "{kind}{number}"', f'map = "{name}"', f'bus = "{bus}"']
            lines.append(f"unit_id = {entry['unit_id']}")
            lines.append(
                'role = "pcs"' if kind == "pcs" else 'role = "other-meter"  # or grid-meter, pv-meter, it-meter ...'
            )
            lines += _needed(name, models, entry.get("charge_w_max"))
            if models:
                lines.append(f"sunspec_base = {entry['base']}")
                lines.append("sunspec_models = { " + ", ".join(f"{n} = {begin}" for n, begin in models.items()) + " }")
    return lines


def _needed(name: str, models: Iterable[int], charge_w_max: float | None) -> list[str]:
    """The numbers that a map wants of the site file: as the device says them, else as a line to fill in."""
    told = told_options(name, models, charge_w_max)
    lines = [f"options = {{ {key} = {json.dumps(value)} }}  # as its model 124 says" for key, value in told.items()]
    wanted = {key: one for key, one in maps.shipped(name).number.items() if one.default is None and key not in told}
    keys = ", ".join(f'{key} = "?"' for key in wanted)
    why = "; ".join(f"{key}: {one.meaning}, {one.unit}" for key, one in wanted.items())
    return lines + ([f"# options = {{ {keys} }}  # needed. {why}"] if wanted else [])


def pack_text(report: Iterable[tuple[int, str, FoundPack]], where: str, over_tcp: bool) -> list[str]:
    """TOML lines for a site file: the line at the first rate that a pack answered at, and its packs."""
    rows = list(report)
    if not rows:
        return []
    baud, parity, _ = rows[0]
    if over_tcp:
        host, port = tcp_place(where)
        lines = ["[[tcp]]", 'name = "packs"', f"host = {json.dumps(host)}", f"port = {port}", 'framing = "pylontech"']
    else:
        lines = [
            "[[serial]]",
            'name = "packs"',
            f"device = {json.dumps(absolute(where))}",
            f"baud = {baud}",
            f'parity = "{parity}"',
        ]
        lines.append('protocol = "pylontech"')
    for rate, one, pack in rows:
        at = "" if over_tcp else f" at {rate} 8{one}1"
        lines += ["", f"# pack {pack.unit_id}{at}"]
        if not pack.fits:
            lines.append(f"#   answers in this protocol, and its measurements are not laid out as {MAP} reads them")
            continue
        shown = ", ".join(f"{key} {value:g}" for key, value in pack.values.items() if value is not None)
        lines.append(f"#   {pack.cells} cells, {pack.sensors} sensors, {shown}")
        if (rate, one) != (baud, parity):
            lines.append("#   on a bus of its own, for its rate")
            continue
        lines += ["[[device]]", f'name = "pack{pack.unit_id}"', f'map = "{MAP}"', 'bus = "packs"']
        lines += [f"unit_id = {pack.unit_id}", 'role = "bms"']
    return lines
