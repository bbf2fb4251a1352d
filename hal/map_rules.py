"""What must hold between the keys of a device map: overlaps, units, places, references."""

from tidegate.hal.map_schema import CanSignal, DeviceMap, Point
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
    if row.range is not None and row.range[0] > row.range[1]:
        problems.append(f"map {where}: {label}: range {list(row.range)} has its ends swapped")
    standard = signals().get(row.name)
    if standard is not None and standard.signed and row.positive is None:
        example = "import or export" if kind == "meter" else "discharge or charge"
        problems.append(
            f"map {where}: {label}: positive is missing: say what a positive reading means, {example}, as the manual"
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
        if c.kind == "setpoint_w" and c.positive is None:
            problems.append(f"map {where}: {label}: positive is missing: discharge or charge, as the manual does")
        if c.function == 22 and (c.kind != "const" or c.type != "u32"):
            problems.append(
                f"map {where}: {label}: function 22 takes two masks: a const of type u32, and-mask in the high word"
            )
        if c.function in (5, 6, 15) and c.words != 1:
            problems.append(
                f"map {where}: {label}: function {c.function} writes one register, {c.type} needs {c.words}"
            )
        if c.flash and c.resend_ms:
            problems.append(f"map {where}: {label}: wears the device's flash and must not be resent; remove resend_ms")
        for key, target in (("sf", c.sf), ("readback", c.readback)):
            if target and target not in names:
                problems.append(f"map {where}: {label}: {key} names {target!r}, which the map does not have")


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
        taken: dict[tuple[int | None, int], str] = {}
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
                other = taken.setdefault((s.mux, position), s.name)
                if other != s.name:
                    problems.append(f"map {where}: {label}: bit {position} overlaps with {other}")
                    break
            if s.mux is not None and frame.mux_start is None:
                problems.append(f"map {where}: {label}: mux {s.mux}, but the frame has no mux_start")


def check_map(where: str, found: DeviceMap, problems: list[str]) -> None:
    """Add everything that contradicts itself in a map to `problems`."""
    names = found.signal_names()
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"map {where}: two signals are named {name!r}")
    for name in required(found.map.kind):
        if name not in names:
            problems.append(f"map {where}: a {found.map.kind} must give {name!r}, which no row has")
    if found.map.protocol == "can" and (found.point or found.command):
        problems.append(f"map {where}: a CAN map has frames, not points")
    if found.map.protocol != "can" and (found.frame or found.transmit):
        problems.append(f"map {where}: a {found.map.protocol} map has points, not frames")
    _check_points(where, found, problems)
    _check_frames(where, found, problems)
