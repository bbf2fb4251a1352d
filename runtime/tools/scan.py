"""Finding what is on a bus: unit ids, SunSpec chains, which map fits, which BMS dialect speaks. Reads only."""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import can

from tidegate.hal import maps, sunspec
from tidegate.hal.decode import decode_frame, decode_registers
from tidegate.hal.map_schema import DeviceMap, Point
from tidegate.runtime.tools.open_bus import RegisterReader

OF_INVERTERS = (111, 112, 113)  # models of what an inverter gives, read as a meter where nothing else is there
STORAGE = 124
CHAIN_MAX = 40  # models in a chain; more means that we read something else
VOLTS = (80.0, 300.0)  # a phase of any grid


@dataclass
class FoundDevice:
    """One unit id that answers. chain: (model, address of its ID word, words with ID and L)."""

    unit_id: int
    base: int | None = None
    chain: list[tuple[int, int, int]] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=dict)
    fits: list[tuple[str, int, int]] = field(default_factory=list)  # map, believable points, points tried
    charge_w_max: float | None = None  # WChaMax of model 124, which its percentages refer to


@dataclass
class FoundBms:
    """A map that fits what was heard on a CAN bus. share: of its frames that were seen."""

    map: str
    share: float
    frames: int
    values: dict[str, float]
    options: dict[str, str] = field(default_factory=dict)


def answers(reader: RegisterReader, unit_id: int) -> bool:
    """Whether a device answers under this id. An exception is an answer as well."""
    for function in (3, 4):
        try:
            reader.read(unit_id, function, 0, 1)
            return True
        except TimeoutError:
            continue
    return False


def sunspec_chain(reader: RegisterReader, unit_id: int) -> tuple[int | None, list[tuple[int, int, int]]]:
    """(base, chain) of a SunSpec device, (None, []) when it is none. Each link: (model, address, words)."""
    for base in sunspec.BASES:
        try:
            words = reader.read(unit_id, 3, base, 2)
        except TimeoutError:
            return None, []
        if words is None or tuple(words) != sunspec.SUNS:
            continue
        chain: list[tuple[int, int, int]] = []
        at = base + 2
        while len(chain) < CHAIN_MAX and at + 1 < 65536:
            head = reader.read(unit_id, 3, at, 2)
            if head is None or head[0] == sunspec.END:
                break
            chain.append((head[0], at, head[1] + 2))
            at += head[1] + 2
        return base, chain
    return None, []


def charge_w_max(reader: RegisterReader, unit_id: int, chain: Iterable[tuple[int, int, int]]) -> float | None:
    """What the percentages of model 124 refer to, as the device says it; None where it has no such model or value."""
    at = next((begin for number, begin, _ in chain if number == STORAGE), None)
    if at is None:
        return None
    rating, points = sunspec.model(STORAGE).points["WChaMax"], sunspec.model(STORAGE).points
    words = reader.read(unit_id, 3, at, points[rating.sf].offset + 1)
    if words is None or len(words) <= points[rating.sf].offset:
        return None
    raw, factor = words[rating.offset], words[points[rating.sf].offset]
    factor -= 65536 if factor > 32767 else 0
    if raw == rating.sentinel or not raw or not -10 <= factor <= 10:
        return None
    return float(raw * 10.0**factor)


def told_options(name: str, models: Iterable[int], charge_w_max: float | None) -> dict[str, str]:
    """Options of a map that its device answers itself: what the percentages of its model 124 refer to."""
    wanted = {key for key, one in maps.shipped(name).number.items() if one.default is None}
    if charge_w_max is None or STORAGE not in models or "rated_w" not in wanted:
        return {}
    return {"rated_w": f"{charge_w_max:g}"}


def identity(reader: RegisterReader, unit_id: int, address: int) -> dict[str, str]:
    """Manufacturer, model, version and serial number from SunSpec model 1 at this address."""
    words = reader.read(unit_id, 3, address, 66) or []
    texts = {}
    for key, offset, size in (("maker", 2, 16), ("model", 18, 16), ("version", 42, 8), ("serial", 50, 16)):
        raw = b"".join(word.to_bytes(2, "big") for word in words[offset : offset + size])
        texts[key] = raw.split(b"\0")[0].decode("ascii", "replace").strip()
    return texts


def _believable(reader: RegisterReader, unit_id: int, point: Point) -> bool:
    if point.address is None:
        return False
    words = reader.read(unit_id, point.function, point.address, point.words)
    if words is None:
        return False
    value = decode_registers(point, words, 0 if point.sf else None)
    if value is None:
        return False
    if point.unit == "V" and point.name.startswith("voltage"):
        return VOLTS[0] <= value <= VOLTS[1]
    if point.unit == "Hz":
        return 45.0 <= value <= 65.0
    return True


def fitting_maps(reader: RegisterReader, unit_id: int) -> list[tuple[str, int, int]]:
    """(map, believable points, points tried) of meter maps that fit, best first: voltages and frequency of a grid."""
    found = []
    for name in maps.map_names():
        candidate = maps.shipped(name)
        if candidate.map.protocol != "modbus" or candidate.map.kind != "meter":
            continue
        probes = [p for p in candidate.point if p.unit in ("V", "Hz") or p.name == "power_w"]
        good = 0
        for point in probes:
            # Some devices stay silent where others answer with an exception.
            with contextlib.suppress(TimeoutError):
                good += _believable(reader, unit_id, point)
        if good == len(probes):
            found.append((name, good, len(probes)))
    # Meters of one maker may share these registers: the map that reads most comes first, then that of fewest doubts.
    return sorted(found, key=_rank)


def _rank(row: tuple[str, int, int]) -> tuple[int, int, int, str]:
    name, good, _ = row
    shipped = maps.shipped(name)
    return -good, -len(shipped.point), len(shipped.map.doubts), name


def scan_serial(
    reader: RegisterReader,
    unit_ids: Iterable[int],
    identify: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[FoundDevice]:
    """Every device that answers on the port. progress is called with each unit id that was tried."""
    found = []
    for unit_id in unit_ids:
        if answers(reader, unit_id):
            device = FoundDevice(unit_id)
            device.base, device.chain = sunspec_chain(reader, unit_id)
            device.charge_w_max = charge_w_max(reader, unit_id, device.chain)
            if device.chain and device.chain[0][0] == 1:
                device.identity = identity(reader, unit_id, device.chain[0][1])
            elif identify:
                device.fits = fitting_maps(reader, unit_id)
            found.append(device)
        if progress:
            progress(unit_id)
    return found


def listen(bus: can.BusABC, seconds: float, progress: Callable[[float], None] | None = None) -> list[can.Message]:
    """Everything heard on a bus for a while."""
    heard = []
    begin = time.monotonic()
    while (gone := time.monotonic() - begin) < seconds:
        message = bus.recv(min(0.1, seconds - gone))
        if message is not None:
            heard.append(message)
        if progress:
            progress(gone)
    return heard


def voltage_dialect(candidate: DeviceMap, values: dict[str, float]) -> dict[str, str]:
    """The voltage scale under which the pack voltage lies between the limits that the BMS sends itself.

    The 0x351 family counts the pack voltage in 0.01 V or in 0.1 V; only its own limits tell which.
    """
    if "voltage_v" not in candidate.option:
        return {}
    high, low, raw = values.get("charge_v_max"), values.get("discharge_v_min"), values.get("pack_counts")
    if not high or raw is None:
        return {}
    for choice in candidate.option["voltage_v"].choice:
        volts = raw * float(choice.value)
        if (low or 0.3 * high) * 0.7 <= volts <= high * 1.1:
            return {"voltage_v": choice.value}
    return {}


def fitting_bms(messages: list[can.Message]) -> list[FoundBms]:
    """BMS maps that fit the frames heard, best first: most of their own ids seen, lengths right, values believable."""
    newest = {(m.arbitration_id, m.is_extended_id): bytes(m.data) for m in messages if not m.is_error_frame}
    counts: dict[tuple[int, bool], int] = {}
    for m in messages:
        counts[(m.arbitration_id, m.is_extended_id)] = counts.get((m.arbitration_id, m.is_extended_id), 0) + 1
    found = []
    for name in maps.map_names():
        candidate = maps.shipped(name)
        if candidate.map.protocol != "can":
            continue
        seen, frames, values, doubtful = 0, 0, {}, 0
        for frame in candidate.frame:
            data = newest.get((frame.id, frame.extended))
            if data is None or not frame.len[0] <= len(data) <= frame.len[1]:
                continue
            seen += 1
            frames += counts[(frame.id, frame.extended)]
            for signal, value in decode_frame(frame, data).items():
                if value is None:
                    doubtful += 1
                else:
                    values[signal] = value
            if frame.id == 0x356 and not frame.extended:
                values["pack_counts"] = float(int.from_bytes(data[:2], "little", signed=True))
        if seen < 2:
            continue
        options = voltage_dialect(candidate, values)
        if options:
            candidate = maps.load_map(name, options)
            pack = next((f for f in candidate.frame if f.id == 0x356), None)
            if pack is not None:
                values.update({k: v for k, v in decode_frame(pack, newest[(0x356, False)]).items() if v is not None})
        values.pop("pack_counts", None)
        share = (seen - 0.2 * doubtful) / max(len(candidate.frame), 1)
        found.append(FoundBms(name, round(share, 3), frames, values, options))
    return sorted(found, key=lambda one: (-one.share, -one.frames, one.map))


def sunspec_roles(chain: Iterable[tuple[int, int, int]]) -> list[tuple[str, str, dict[int, int]]]:
    """(map, kind, model -> address of its ID word) of each role that a chain gives a device: converter, then meters.

    A model that comes twice is a second meter behind the same unit id, so each has an address of its own.
    """
    links = [(number, at) for number, at, _ in chain]
    first = {number: at for number, at in reversed(links)}
    found: list[tuple[str, str, dict[int, int]]] = []
    names = maps.map_names()
    for number, at in links:
        name = f"sunspec-{number}"
        if name not in names:
            continue
        candidate = maps.shipped(name)
        used = candidate.model_starts()
        if not set(used) <= set(first):
            continue
        if candidate.map.kind == "pcs":
            if all(kind != "pcs" for _, kind, _ in found):
                found.insert(0, (name, "pcs", {n: first[n] for n in used}))
        elif number not in OF_INVERTERS:
            found.append((name, "meter", {number: at}))
    if not found:  # an inverter that only tells what it gives
        found = [(f"sunspec-{n}", "meter", {n: at}) for n, at in links if n in OF_INVERTERS and f"sunspec-{n}" in names]
    return found
