"""What is on the buses, as rows of a site file to be: the scan of the tools, one map chosen a device, reasons kept."""

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate.config.quantities import QuantityError, unit_ids
from tidegate.hal import maps
from tidegate.runtime.commissioning.prompts import EXIT_USAGE, Answers, SetupError
from tidegate.runtime.tools.open_bus import GARBLE, SILENCE, RegisterReader, TcpReader, open_can, tcp_place
from tidegate.runtime.tools.scan import (
    FoundBms,
    FoundDevice,
    fitting_bms,
    listen,
    scan_serial,
    sunspec_roles,
    told_options,
)

EXIT_NOTHING = 69  # EX_UNAVAILABLE: nobody answers
BAUDS = (115200, 38400, 19200, 9600)
SKIP = "skip"
ANY_UNIT = (1, 255, 0, 2, 3)  # unit ids of devices that are no gateway
Echo = Callable[[str], None]


@dataclass
class Bus:
    """A bus that is to be in the site file."""

    name: str
    where: str
    baud: int = 0
    parity: str = "N"
    lead_in_bytes: int = 0
    bitrate: int = 0
    port: int = 0
    """Over TCP; `where` is the address."""


@dataclass
class Part:
    """A device that answered. where: PORT:UNIT as the installer named the port, the key of roles and maps."""

    bus: Bus
    where: str
    unit_id: int | None
    map: str
    kind: str
    why: str
    others: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    sunspec_base: int | None = None
    sunspec_models: dict[int, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    role: str = ""
    name: str = ""


def bus_name(where: str, taken: set[str], kind: str) -> str:
    """A name for a bus out of its path: short, unique, as the site file wants names."""
    stem = re.sub(r"[^a-z0-9_-]", "", os.path.basename((where.partition(":")[2] or where).partition("?")[0]).lower())
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,14}", stem):
        stem = kind
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem[:13]}{number}"
    taken.add(name)
    return name


def absolute(where: str) -> str:
    """The path from the root, links kept as they are: /dev/serial/by-id names outlive a change of socket."""
    return os.path.abspath(where)


def survey(answers: Answers, echo: Echo) -> list[Part]:
    """Every device that answers on the buses. Raises ToolError for a bus that cannot be used, SetupError for none."""
    buses = [*answers.serial, *answers.tcp, *answers.can]
    if not buses:
        said = "no bus to look at; give --serial /dev/..., --tcp ADDRESS and --can can0 (or INTERFACE:CHANNEL)"
        raise SetupError(said, EXIT_USAGE)
    for port in buses:
        if buses.count(port) > 1:
            raise SetupError(f"{port}: named twice; each bus once", EXIT_USAGE)
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # a silent id is what a scan expects
    taken: set[str] = set()
    parts: list[Part] = []
    for port in answers.serial:
        parts += survey_serial(port, answers, taken, echo)
    for place in answers.tcp:
        parts += survey_tcp(place, answers, taken, echo)
    for channel in answers.can:
        parts += survey_can(channel, answers, taken, echo)
    return parts


def survey_serial(port: str, answers: Answers, taken: set[str], echo: Echo) -> list[Part]:
    """Devices of one serial port, at the first rate and parity at which anybody answers."""
    try:
        ids = unit_ids(answers.ids)
    except QuantityError as error:
        raise SetupError(f"ids {error}", EXIT_USAGE) from None
    tried, heard = [], False
    for baud in answers.baud or BAUDS:
        for parity in answers.parity.upper():
            if parity not in "NEO":
                raise SetupError(f"parity {parity!r}: expected letters out of N, E and O", EXIT_USAGE)
            with RegisterReader(port, baud, parity, timeout_s=0.1) as reader:
                found = scan_serial(reader, ids)
            heard = heard or reader.heard
            tried.append(f"{baud} 8{parity}1")
            if found:
                bus = Bus(bus_name(port, taken, "serial"), absolute(port), baud, parity, reader.lead_in)
                echo(f"{port}: {len(found)} device{'s' if len(found) > 1 else ''} at {tried[-1]}")
                return [part for one in found for part in _registers_parts(port, bus, one, answers.maps)]
    raise SetupError(
        f"{port}: nobody answered ids {answers.ids} at {', '.join(tried)}; check {GARBLE if heard else SILENCE}, "
        "power and termination, or give --baud, --parity, --ids",
        EXIT_NOTHING,
    )


def survey_tcp(place: str, answers: Answers, taken: set[str], echo: Echo) -> list[Part]:
    """Devices behind one TCP address. Most answer under any unit id, so without ids of one's own the first counts."""
    asked = "ids" in answers.model_fields_set
    try:
        ids = unit_ids(answers.ids, 0, 255) if asked else list(ANY_UNIT)
    except QuantityError as error:
        raise SetupError(f"ids {error}", EXIT_USAGE) from None
    host, number = tcp_place(place)
    with TcpReader(place) as reader:
        found: list[FoundDevice] = []
        for one in ids:
            found += scan_serial(reader, [one])
            if found and not asked:
                break
    if not found:
        said = f"{place}: takes the connection, and no unit id of {', '.join(map(str, ids))} answers; give --ids"
        raise SetupError(said, EXIT_NOTHING)
    echo(f"{place}: {len(found)} device{'s' if len(found) > 1 else ''}")
    bus = Bus(bus_name("lan", taken, "lan"), host, port=number)
    return [part for one in found for part in _registers_parts(place, bus, one, answers.maps)]


def _registers_parts(port: str, bus: Bus, found: FoundDevice, chosen: dict[str, str]) -> list[Part]:
    """A part for each role of a device: a converter and the meters behind the same unit id have maps of their own."""
    first = _registers_part(port, bus, found, chosen)
    parts = [first]
    for number, (name, kind, models) in enumerate(sunspec_roles(found.chain)[1:], 2):
        where = f"{first.where}.{number}"
        part = Part(
            bus, where, found.unit_id, name, kind, f"a further role of the device of {first.name or first.where}"
        )
        part.sunspec_base, part.sunspec_models = found.base, models
        if where in chosen:
            part.map, part.why = chosen[where], "map as given"
            if part.map != SKIP:
                _settle(part)
        parts.append(part)
    return parts


def _registers_part(port: str, bus: Bus, found: FoundDevice, chosen: dict[str, str]) -> Part:
    where = f"{port}:{found.unit_id}"
    # A device's own words go into a comment: nothing of them may end the line.
    who = "".join(c for c in " ".join(filter(None, found.identity.values())) if c.isprintable())
    part = Part(bus, where, found.unit_id, "", "", "")
    if found.chain:
        part.sunspec_base = found.base
        numbers = [number for number, _, _ in found.chain]
        roles = sunspec_roles(found.chain)
        part.map = roles[0][0] if roles else ""
        part.why = f"SunSpec models {', '.join(str(n) for n in numbers)}{': ' + who if who else ''}"
        part.sunspec_models = {number: at for number, at, _ in reversed(found.chain)}
        part.sunspec_models |= roles[0][2] if roles else {}
    elif found.fits:
        part.map, good, tried = found.fits[0]
        part.others = [name for name, _, _ in found.fits[1:]]
        part.why = f"{good} of {tried} readings believable"
    else:
        part.why = "it answers, no shipped map fits by its readings"
    if where in chosen:
        part.map, part.why = chosen[where], "map as given"
    if part.map and part.map != SKIP:
        _settle(part)
        if part.map in maps.map_names():
            part.options = told_options(part.map, part.sunspec_models, found.charge_w_max)
    return part


def _settle(part: Part) -> None:
    """Kind of the chosen map; of a SunSpec chain only the models that this map uses."""
    try:
        shipped = maps.load_map(part.map)
    except maps.MapError as error:
        raise SetupError(f"{part.where}: map {part.map!r}: {error.problems[0]}", 65) from None
    part.kind = shipped.map.kind
    used = shipped.model_starts()
    part.sunspec_models = {n: at for n, at in part.sunspec_models.items() if n in used}
    if shipped.map.protocol != "sunspec":
        part.sunspec_base, part.sunspec_models = None, {}


def survey_can(channel: str, answers: Answers, taken: set[str], echo: Echo) -> list[Part]:
    """The BMS heard on one CAN bus, by the map that fits best."""
    with open_can(channel, answers.bitrate) as bus:
        heard = listen(bus, answers.seconds)
    found = fitting_bms(heard)
    if not found and channel not in answers.maps:
        raise SetupError(
            f"{channel}: {len(heard)} frames in {answers.seconds:g} s, no known BMS among them; check bit rate "
            f"({answers.bitrate}) and termination, wake the BMS, or give --map {channel}=MAP",
            EXIT_NOTHING,
        )
    interface, colon, rest = channel.partition(":")
    path, question, options = rest.partition("?")
    where = f"{interface}:{absolute(path)}{question}{options}" if colon and os.path.exists(path) else channel
    made = Part(Bus(bus_name(channel, taken, "can"), where, bitrate=answers.bitrate), channel, None, "", "bms", "")
    if channel in answers.maps:
        made.map, made.why = answers.maps[channel], "map as given"
        if made.map != SKIP:
            _settle(made)
        return [made]
    best = nearest_pace(found, answers.seconds)
    echo(f"{channel}: {len(heard)} frames of {len({m.arbitration_id for m in heard})} ids, {best.map} fits")
    made.map, made.options, made.values = best.map, best.options, best.values
    made.others = [one.map for one in found if one is not best and one.share >= best.share - 0.25]
    made.why = f"{best.share:.0%} of its frames heard"
    return [made]


def nearest_pace(found: list[FoundBms], seconds: float) -> FoundBms:
    """Of the maps that fit equally well, the one whose frames are due as often as they came."""

    def off(one: FoundBms) -> float:
        frames = maps.shipped(one.map).frame
        due = sum(1000.0 / frame.period_ms for frame in frames if frame.period_ms) * seconds
        return max(due / one.frames, one.frames / due) if due and one.frames else 1e9

    return min((one for one in found if one.share >= found[0].share - 1e-9), key=off)
