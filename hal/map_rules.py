"""What must hold between the keys of a device map: overlaps, units, places, references."""

from tidegate.ext.abi import program
from tidegate.ext.bus import pylon
from tidegate.hal.map_schema import CanSignal, Command, DeviceMap, Point
from tidegate.hal.vocabulary import required, signals, unit_endings, unit_of


def _bit_positions(signal: CanSignal) -> set[int]:
    """The bits of the frame that a signal takes, as byte * 8 + bit with bit 0 the least significant."""
    assert signal.start is not None and signal.length is not None
    if signal.byte_order != "big":
        return set(range(signal.start, signal.start + signal.length))
    taken, at = set(), signal.start
    for _ in range(signal.length):
        taken.add(at)
        at = at + 15 if at % 8 == 0 else at - 1
    return taken


def _check_common(where: str, label: str, row: Point | CanSignal, kind: str, problems: list[str]) -> None:
    promised = unit_of(row.name)
    if promised is None:
        problems.append(f"map {where}: {label}: the name must end in its unit, one of {' '.join(unit_endings())}")
    elif promised != row.unit:
        problems.append(f"map {where}: {label}: unit {row.unit!r}, but the name promises {promised!r}")
    if row.scale == 0.0:
        problems.append(f"map {where}: {label}: scale 0 would make every reading 0")
    _check_sign(where, label, row, problems)
    if row.range is not None and row.range[0] > row.range[1]:
        problems.append(f"map {where}: {label}: range {list(row.range)} has its ends swapped")
    standard = signals().get(row.name)
    if standard is not None and standard.signed and row.positive is None:
        example = "import or export" if kind == "meter" else "discharge or charge"
        problems.append(
            f"map {where}: {label}: positive is missing: say what a positive reading means, {example}, as the manual"
        )


LIMITS = ("charge_a_max", "discharge_a_max", "charge_w_max", "discharge_w_max")


def _check_sign(where: str, label: str, row: Point | CanSignal, problems: list[str]) -> None:
    """A limit that means something else when its sign is lost: -1 A is no 1 A, and 0xFFFF is no 6553.5 A."""
    standard = signals().get(row.name)
    is_limit = row.name in LIMITS
    if isinstance(row, CanSignal) and row.magnitude and (is_limit or (standard is not None and standard.signed)):
        problems.append(
            f"map {where}: {label}: magnitude drops a sign that means something: remove it; where the device sends "
            f"this as a negative number, say so by positive"
        )
    if not is_limit:
        return
    if isinstance(row, CanSignal):
        bits, signed, free = row.length or 0, row.signed or row.is_float, bool(row.constant)
        scale, offset = row.scale * row.sign, row.offset * row.sign
    else:
        bits, signed, free = 16 * row.words, row.type not in ("u16", "u32", "u64"), False
        scale, offset = row.signed_scale, row.offset
    if signed or free or bits not in (16, 32, 64) or row.sentinel == 2**bits - 1:
        return  # less than zero is no power
    minus_one = (2**bits - 1) * scale + offset
    if row.range is None or row.range[0] <= minus_one <= row.range[1]:
        problems.append(
            f"map {where}: {label}: -1 of a build that counts with a sign would read as {minus_one:g} {row.unit}: give "
            f"it a range that ends below that"
        )


def _check_points(where: str, found: DeviceMap, problems: list[str]) -> None:
    taken: dict[tuple[int, int], str] = {}
    names = {p.name for p in found.point}
    for p in found.point:
        label = f"point[{p.name}]"
        if p.address is None:
            problems.append(f"map {where}: {label}: address is missing")
            continue
        if not p.hidden:
            _check_common(where, label, p, found.map.kind, problems)
        if p.address + p.words > 65536:
            problems.append(f"map {where}: {label}: {p.words} registers from {p.address} pass the end, 65535")
        if p.type == "bits" and not 1 <= p.bits <= 16 - p.bit:
            problems.append(
                f"map {where}: {label}: type bits needs bit and bits inside one register, got {p.bit}+{p.bits}"
            )
        if p.sf and p.sf not in names:
            problems.append(f"map {where}: {label}: sf names {p.sf!r}, which the map does not have")
        for one in p.instead:
            if one.address is None:
                problems.append(f"map {where}: {label}: instead: address is missing")
            elif one.function != p.function:
                problems.append(
                    f"map {where}: {label}: instead: function {one.function}, the point has {p.function}; one request "
                    f"reads both"
                )
            if one.less_next or p.less_next:
                problems.append(f"map {where}: {label}: instead and less_next do not go together")
            if one.sf and one.sf not in names:
                problems.append(f"map {where}: {label}: instead: sf names {one.sf!r}, which the map does not have")
        if p.type == "bits" or p.one_of or found.map.protocol == "sunspec":
            continue  # several points may read one word of states
        for register in range(p.address, p.address + p.words):
            other = taken.setdefault((p.function, register), p.name)
            if other != p.name:
                problems.append(f"map {where}: {label}: register {register} (0x{register:04X}) overlaps with {other}")
                break
    for c in found.command:
        label = f"command[{c.name}]"
        if c.address is None:
            problems.append(f"map {where}: {label}: address is missing")
        if c.scale == 0.0:
            problems.append(f"map {where}: {label}: scale 0 cannot be written")
        _check_parts(where, label, c, problems)
        if c.function == 22 and (c.kind != "const" or c.type != "u32"):
            problems.append(
                f"map {where}: {label}: function 22 takes two masks: a const of type u32, and-mask in the high word"
            )
        if c.function in (5, 6, 15) and c.words != 1:
            problems.append(
                f"map {where}: {label}: function {c.function} writes one register, {c.type} needs {c.words}"
            )
        if c.flash and c.kind in ("setpoint_w", "heartbeat"):
            problems.append(
                f"map {where}: {label}: a {c.kind} changes all the time and would wear the device's flash out; without "
                f"another register the device can only be read"
            )
        if c.flash and c.resend_ms:
            problems.append(f"map {where}: {label}: wears the device's flash and must not be resent; remove resend_ms")
        for key, target in (("sf", c.sf), ("readback", c.readback)):
            if target and target not in names:
                problems.append(f"map {where}: {label}: {key} names {target!r}, which the map does not have")


# What the device says of itself. In a register that the map writes it would say what it was told.
SAID_BY_THE_DEVICE = ("power_w", "state", "ready", "fault", "heartbeat")
MAY_ECHO = ("state", "ready")  # nothing rests on these alone


def _check_echo(where: str, found: DeviceMap, problems: list[str]) -> None:
    """A point in a register that a command writes reads what was written, whatever the device does."""
    written: dict[int, str] = {}
    for c in found.command:
        if c.address is not None and c.function not in (5, 15):
            written.update(dict.fromkeys(range(c.address, c.address + c.words), c.name))
    for p in found.point:
        if p.hidden or p.address is None:
            continue
        by = next(
            (written[at] for at in range(p.address, p.address + p.words) if p.function == 3 and at in written), ""
        )
        label = f"point[{p.name}]"
        if p.echo and not by:
            problems.append(f"map {where}: {label}: echo, but no command writes its register; remove echo")
        elif p.echo and p.name not in MAY_ECHO:
            problems.append(f"map {where}: {label}: only {' and '.join(MAY_ECHO)} may be an echo; remove echo")
        elif by and not p.echo and p.name in MAY_ECHO:
            problems.append(
                f"map {where}: {label}: reads a register that command {by} writes, and so what was written, not what "
                f"the device does; read another register, or say echo = true"
            )
        elif by and not p.echo and p.name in SAID_BY_THE_DEVICE:
            problems.append(
                f"map {where}: {label}: reads a register that command {by} writes, and so what was written; read "
                f"another"
            )


def _check_parts(where: str, label: str, command: Command, problems: list[str]) -> None:
    """What a command says of its value: a sign where it has one, words for each direction, registers that fit."""
    rows = command.parts() or (command,)
    if command.kind != "setpoint_w" and any(row.of not in ("const", "setpoint") for row in rows):
        problems.append(
            f"map {where}: {label}: only a setpoint_w has a magnitude or a direction; kind is {command.kind}"
        )
    if command.part and command.function not in (16, 23):
        problems.append(f"map {where}: {label}: several parts are written by function 16 or 23, not {command.function}")
    if command.words > program.LIMITS["command_regs"]:
        problems.append(
            f"map {where}: {label}: {command.words} registers, one write has room for {program.LIMITS['command_regs']}"
        )
    for row in rows if command.kind == "setpoint_w" else ():
        if row.of == "setpoint" and row.positive is None:
            problems.append(f"map {where}: {label}: positive is missing: discharge or charge, as the manual does")
        if row.of == "direction" and (row.charge is None or row.discharge is None):
            problems.append(
                f"map {where}: {label}: a direction needs its words: charge and discharge, and zero if it has one"
            )
        if row.scale == 0.0:
            problems.append(f"map {where}: {label}: scale 0 cannot be written")
    if command.part and command.kind == "setpoint_w" and all(part.of == "const" for part in command.part):
        problems.append(f"map {where}: {label}: no part holds the setpoint")


def _check_encode(where: str, found: DeviceMap, problems: list[str]) -> None:
    commands = {c.name for c in found.command}
    for row in found.encode:
        if row.command not in commands:
            problems.append(f"map {where}: encode: the map has no command {row.command!r}")
    for c in found.command:
        if c.turns and not any(o.kind == "setpoint_w" and o.of != "direction" for o in found.command):
            problems.append(f"map {where}: command[{c.name}]: a direction without a command that writes how much")


def _check_frames(where: str, found: DeviceMap, problems: list[str]) -> None:
    ids: set[tuple[int, bool]] = set()
    for frame in found.frame:
        place = f"frame[0x{frame.id:X}]"
        if (frame.id, frame.extended) in ids:
            problems.append(f"map {where}: {place}: the id appears twice")
        ids.add((frame.id, frame.extended))
        if frame.id > 0x7FF and not frame.extended:
            problems.append(f"map {where}: {place}: an id above 0x7FF needs extended = true")
        longest = 64 if frame.fd else 8
        if not 0 <= frame.len[0] <= frame.len[1] <= longest:
            problems.append(
                f"map {where}: {place}: len {list(frame.len)}: expected [least, most] of 0 to {longest} bytes"
            )
            continue
        taken: dict[tuple[int | None, tuple[int, ...], int], str] = {}
        for s in frame.signal:
            label = f"{place}.signal[{s.name}]"
            _check_common(where, label, s, found.map.kind, problems)
            if s.start is None or s.length is None:
                problems.append(
                    f"map {where}: {label}: place is missing: byte and size, byte and bit, start and length, or dbc"
                )
                continue
            positions = _bit_positions(s)
            if max(positions) >= frame.len[1] * 8 or min(positions) < 0:
                problems.append(
                    f"map {where}: {label}: bits {s.start}+{s.length} ({s.byte_order} endian) do not fit into "
                    f"{frame.len[1]} bytes"
                )
            if s.mask or s.one_of or s.constant:
                continue
            for position in sorted(positions):
                other = taken.setdefault((s.mux, s.mux2, position), s.name)
                if other != s.name:
                    problems.append(f"map {where}: {label}: bit {position} overlaps with {other}")
                    break
            if s.mux is not None and frame.mux_start is None:
                problems.append(f"map {where}: {label}: mux {s.mux}, but the frame has no mux_start")


def _check_battery_power(where: str, found: DeviceMap, problems: list[str]) -> None:
    """What is said to be the battery's power is there; only a converter says it."""
    told = found.map.battery_power
    if told != "power_w" and found.map.kind != "pcs":
        problems.append(f"map {where}: battery_power: a {found.map.kind} has none; remove the key")
    elif told == "dc" and not {"dc_v", "dc_a"} <= set(found.signal_names()):
        problems.append(f"map {where}: battery_power: dc needs the points dc_v and dc_a; add them, or say 'none: why'")
    elif told == "battery_w" and told not in found.signal_names():
        problems.append(f"map {where}: battery_power: no point is named battery_w; add it, or say 'none: why'")
    if found.map.unchecked and found.map.kind != "bms":
        problems.append(f"map {where}: unchecked: a {found.map.kind} has no such key, a BMS has; remove it")
    if "nothing" in found.map.unchecked and (len(found.map.unchecked) > 1 or not found.map.unchecked_source.strip()):
        problems.append(
            f"map {where}: unchecked: 'nothing' stands alone and needs unchecked_source, who says so; name the page, "
            f"or what cannot be checked"
        )


def _check_pylontech(where: str, found: DeviceMap, problems: list[str]) -> None:
    """Places that no answer of that protocol has, and what cannot be said in it."""
    for point in found.point:
        command, place = divmod(point.address or 0, 256)
        words = pylon.WORDS.get(command, 0)
        if point.function != 3 or place + point.words > words:
            known = ", ".join(
                f"0x{number:02X}00 to 0x{number:02X}{most - 1:02X}" for number, most in pylon.WORDS.items()
            )
            problems.append(
                f"map {where}: point[{point.name}].address: 0x{command:02X}{place:02X} is no place of an answer; "
                f"the places are {known}, function 3"
            )
    if found.command or found.signature:
        problems.append(f"map {where}: a pylontech map has points alone: nothing can be written; remove the others")


def check_map(where: str, found: DeviceMap, problems: list[str]) -> None:
    """Add everything that contradicts itself in a map to `problems`."""
    names = found.signal_names()
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"map {where}: two signals are named {name!r}")
    for name in required(found.map.kind):
        if name not in names:
            problems.append(
                f"map {where}: a {found.map.kind} must give {name!r}, which no row has; name the row so that is it"
            )
    if found.map.protocol == "can" and (found.point or found.command):
        problems.append(f"map {where}: a CAN map has frames, not points")
    if found.map.protocol == "pylontech":
        _check_pylontech(where, found, problems)
    if found.map.protocol != "can" and (found.frame or found.transmit):
        problems.append(f"map {where}: a {found.map.protocol} map has points, not frames")
    _check_battery_power(where, found, problems)
    _check_points(where, found, problems)
    _check_echo(where, found, problems)
    _check_encode(where, found, problems)
    _check_frames(where, found, problems)
