"""Poll plans: registers coalesced into blocks, and whether the line can carry them.

Times are for a legal line: request, the device's answer delay, reply, and the silence that ends each frame.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tidegate.config.progress import REQUEST_BYTES, Load, bounds_ns
from tidegate.config.site import Device, Serial
from tidegate.config.tcp_lanes import FAST_MS_MIN, FAST_SHARE, Lane
from tidegate.ext.bus import pylon
from tidegate.ext.bus.rtu_view import LIMITS
from tidegate.hal.map_schema import Command, DeviceMap, Point

SHARE_MAX = 0.8  # of the line for timed polls; the rest belongs to writes, repeats and what polls as often as it can
LONG_READ_NS = 10_000_000  # a read that a setpoint had better not wait for each time
SPACED_MAX_NS = 80_000_000  # three of these are within the floor of the age budget
ROUND_MAX_NS = 1_000_000_000  # a control that sees the grid less than once a second is no control
WRITE_REQUEST_BYTES, WRITE_REPLY_BYTES = 13, 8
SIGNATURE_REACH = {
    "pcs": 16,
    "meter": 8,
}  # words in front of a SunSpec block that are worth reading to recognise the reply


Line: TypeAlias = Serial | Lane
"""What one request at a time goes over."""


@dataclass(frozen=True)
class Block:
    """One read request: `count` registers from `address`."""

    device: str
    function: int
    poll: str
    address: int
    count: int
    points: tuple[Point, ...]
    period_ns: int
    time_ns: int
    signature_word: int | None = None
    # Values whose factors are read in a request of their own, before and after; and the request that has them.
    waits: bool = False
    factors: bool = False


@dataclass
class PortPlan:
    """What one port is asked to do."""

    port: str
    blocks: list[Block] = field(default_factory=list)
    write_ns: int = 0  # one setpoint write to each converter on the port
    # From a cause in the core's inputs to the last byte of setpoint 0: while devices answer, and when the transaction
    # in flight and other converters' writes, which may come first, run into time-outs. 0 = no converter here.
    zero_ns: int = 0
    zero_timeout_ns: int = 0
    # Device -> at most so long from one request to it to the next, whatever the others do (`config.progress`).
    asked_ns: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the line that the timed polls take."""
        early = 1.0 + 1.0 / (LIMITS["drift"] - 1)
        return early * sum(b.time_ns / b.period_ns for b in self.blocks if b.period_ns)

    @property
    def round_ns(self) -> float:
        """Time between two readings of the fast blocks that poll as often as the wire allows."""
        free = sum(b.time_ns for b in self.blocks if not b.period_ns and b.poll == "fast")
        return (free + self.write_ns) / max(1.0 - self.share, 0.01) if free else 0.0


def char_ns(serial: Line) -> float:
    """One character on the line: start, 8 data, parity, stop bits."""
    bits = 1 + 8 + (serial.parity != "N") + serial.stop_bits
    return bits * 1e9 / serial.baud


def gap_ns(serial: Line) -> float:
    """The silence that ends a frame: 3.5 characters, by the standard 1.75 ms above 19200 baud."""
    if isinstance(serial.gap, int):
        return serial.gap * 1e3
    if serial.gap == "spec" and serial.baud > 19200:
        return 1_750_000.0
    return 3.5 * char_ns(serial)


def latency_ns(device: Device, found: DeviceMap) -> float:
    """How long the device thinks before it answers."""
    return (found.modbus.latency_ms if device.latency_ms is None else device.latency_ms) * 1e6


def turnaround_ns(device: Device, found: DeviceMap) -> float:
    """Least time between its reply and the next request to it."""
    return (found.modbus.turnaround_ms if device.turnaround_ms is None else device.turnaround_ms) * 1e6


def transaction_ns(serial: Line, device: Device, found: DeviceMap, request: int, reply: int) -> int:
    """Line time of one request and its reply, the silence after both included."""
    silence = gap_ns(serial)
    answer = max(silence, latency_ns(device, found))
    return round((request + reply) * char_ns(serial) + answer + max(silence, turnaround_ns(device, found)))


def _write_bytes(command: Command) -> tuple[int, int]:
    """(request, reply) bytes of a write."""
    data = 2 * command.words
    return {16: (9 + data, 8), 15: (10, 8), 22: (10, 10), 23: (13 + data, 5 + data)}.get(command.function, (8, 8))


def _reply_bytes(function: int, count: int) -> int:
    return 5 + ((count + 7) // 8 if function in (1, 2) else 2 * count)


def _read_bytes(serial: Line, function: int, address: int, count: int) -> tuple[int, int]:
    """(request, reply) bytes of a read."""
    if serial.protocol == "pylontech":
        return pylon.QUESTION_CHARS, pylon.ANSWER_CHARS.get(address >> 8, 0)
    return REQUEST_BYTES, _reply_bytes(function, count)


def _signature(found: DeviceMap, address: int, count: int) -> tuple[int, int, int | None]:
    """(address, count, word) with the SunSpec model's ID word in front where it is near: the reply proves itself."""
    for number, start in found.model_starts().items():
        if (
            0 <= address - start <= SIGNATURE_REACH.get(found.map.kind, 0)
            and count + address - start <= found.modbus.regs_max
        ):
            return start, count + address - start, number
    return address, count, None


def _readable(found: DeviceMap, first: int, last: int) -> bool:
    return any(low <= first and last <= high for low, high in found.readable_ranges())


def _room(found: DeviceMap, block: Block) -> int:
    """By how many registers a block can be made longer."""
    spans = [high - low + 1 for low, high in found.readable_ranges()
             if low <= block.address and block.address + block.count - 1 <= high]  # fmt: skip
    return max(spans, default=block.count) - block.count


def _differ(found: DeviceMap, blocks: list[Block], problems: list[str]) -> list[Block]:
    """Blocks of one device with reply lengths that all differ, so that a late reply never passes for the next one."""
    taken: set[tuple[int, int]] = set()
    result = []
    step = 2 if found.modbus.regs_even else 1
    # Those that can grow least choose first; among equals the fast ones, which should stay short.
    for block in sorted(blocks, key=lambda b: (_room(found, b), b.poll != "fast", b.count)):
        count, address = block.count, block.address
        while (block.function, count) in taken and block.signature_word is None:
            longer = count + step
            if longer > found.modbus.regs_max:
                break
            if _readable(found, address, address + longer - 1):
                count = longer
            elif address >= step and _readable(found, address - step, address + count - 1):
                address, count = address - step, longer
            else:
                break
        if (block.function, count) in taken and block.signature_word is None:
            problems.append(
                f"device[{block.device}]: two polled blocks have {count} registers (one at {block.address}); a late "
                f"reply to one would pass for the other. Give the map a `readable` range so that one can be made longer"
            )
        taken.add((block.function, count))
        result.append(replace(block, address=address, count=count))
    return sorted(result, key=lambda b: (("fast", "slow", "once").index(b.poll), b.address))


def _runs(points: list[Point], factors: dict[str, Point], gap: int, limit: int) -> "list[Run]":
    """(points, first register, last register) of each read: neighbours together, and each value with its factor.

    What stands in the place of a point that the device may lack is read with it.
    """
    spans = []
    for point in points:
        needed = (factors[one.sf] for one in (point, *point.instead) if one.sf in factors)
        members = list({one.name: one for one in (point, *needed)}.values())
        both = [*members, *point.instead]
        starts = [one.address or 0 for one in both]
        spans.append((min(starts), max(at + one.words - 1 for at, one in zip(starts, both, strict=True)), members))
    runs: list[tuple[list[Point], int, int]] = []
    for first, last, members in sorted(spans, key=lambda span: span[:2]):
        if runs:
            run, begin, end = runs[-1]
            if first - end - 1 <= gap and max(end, last) - begin + 1 <= limit:
                run += [one for one in members if one not in run]
                runs[-1] = (run, begin, max(end, last))
                continue
        runs.append((list(members), first, last))
    return runs


Run: TypeAlias = tuple[list[Point], int, int]
"""Points of one read, its first and its last register."""


def _apart(run: Run, found: DeviceMap, read_ns: Callable[[int], int]) -> tuple[list[Run], list[Point]] | None:
    """The values of a read without their factors, and those, where one long read would keep the line from setpoints.

    A value then counts if its factor is the same before and after it. What is worked out of two numbers stays in one.
    """
    points, first, last = run
    values = [one for one in points if one.type != "sunssf"]
    factors = [one for one in points if one.type == "sunssf"]
    if not factors or any(one.sf and (one.less_next or one.instead) for one in values):
        return None
    count = last - first + 1
    parts = [_runs(some, {}, found.modbus.gap_regs_max, found.modbus.regs_max) for some in (values, factors)]
    if count <= found.modbus.regs_max:
        parts_ns = sum(read_ns(end - begin + 1) for part in parts for _, begin, end in part)
        if read_ns(count) <= LONG_READ_NS or parts_ns > 0.9 * read_ns(count):
            return None
    return parts[0], factors


@dataclass(frozen=True)
class _Read:
    function: int
    poll: str
    run: Run
    waits: bool = False
    factors: bool = False


def _reads(found: DeviceMap, read_ns: Callable[[int], int], apart: bool) -> list[_Read]:
    """What is read of a device: neighbours of one class together, values with their factors or, if allowed, apart."""
    factors = {point.name: point for point in found.point if point.type == "sunssf"}
    carried = {one.sf for point in found.point for one in (point, *point.instead) if one.sf}
    groups: dict[tuple[int, str], list[Point]] = {}
    for point in found.point:
        if point.name not in carried:
            groups.setdefault((point.function, point.poll), []).append(point)
    reads, far = [], dict[int, list[Point]]()
    # The fast values first: factors that are far from them are read as often, and serve the slow values too.
    for (function, poll), points in sorted(groups.items(), key=lambda group: group[0][1] != "fast"):
        limit = found.modbus.regs_max if function in (3, 4) else 2000
        for run in _runs(points, factors, found.modbus.gap_regs_max, limit):
            may = apart and (poll == "fast" or (poll == "slow" and function in far))
            parts = _apart(run, found, read_ns) if may else None
            if parts is None:
                reads.append(_Read(function, poll, run))
                continue
            reads += [_Read(function, poll, part, waits=True) for part in parts[0]]
            far[function] = far.get(function, []) + [one for one in parts[1] if one not in far.get(function, [])]
    for function, some in far.items():
        runs = _runs(some, {}, found.modbus.gap_regs_max, found.modbus.regs_max)
        reads += [_Read(function, "fast", run, factors=True) for run in runs]
    return reads


def device_blocks(
    serial: Line, device: Device, found: DeviceMap, problems: list[str], apart: bool = False
) -> list[Block]:
    """The blocks that read every point of a device: neighbours of the same class in one request.

    apart : a value may stand in another block than its scale factor, where both in one read would take long.
    """

    def read_ns(count: int) -> int:
        return transaction_ns(serial, device, found, REQUEST_BYTES, _reply_bytes(3, count))

    blocks = []
    for read in _reads(found, read_ns, apart):
        run, first, last = read.run
        count = last - first + 1
        limit = found.modbus.regs_max if read.function in (3, 4) else 2000
        if count > limit:
            name, beside = next(
                ((point.name, f"its scale factor {run[-1].register_name}") for point in run if point.sf),
                (run[0].name, "what stands in its place (`instead`)"),
            )
            problems.append(
                f"device[{device.name}]: {name} and {beside} are {count} registers apart, one read of {found.name} "
                f"gives {limit} (modbus.regs_max): a value without the factor of the same reading is no value"
            )
            continue
        count += count % 2 if found.modbus.regs_even else 0
        # The points that are read once carry their own proof where they need one.
        address, count, word = _signature(found, first, count) if read.poll != "once" else (first, count, None)
        period_ms = {"fast": device.poll_fast_ms, "slow": device.poll_slow_ms, "once": 0.0}[read.poll]
        blocks.append(
            Block(device.name, read.function, read.poll, address, count, tuple(run), round(period_ms * 1e6), 0, word,
                  read.waits, read.factors)
        )  # fmt: skip
    timed = []
    framed = isinstance(serial, Lane) and serial.framed  # a transaction id tells replies apart
    for block in blocks if framed else _differ(found, blocks, problems):
        sizes = _read_bytes(serial, block.function, block.address, block.count)
        timed.append(replace(block, time_ns=transaction_ns(serial, device, found, *sizes)))
    return timed


def port_plan(
    serial: Line, devices: list[tuple[Device, DeviceMap]], problems: list[str], period_ns: int = 1_000_000
) -> PortPlan:
    """The plan of one port. A plan that the line cannot carry adds a line to `problems` that says what to change."""
    plan = PortPlan(serial.name)
    for device, found in devices:
        plan.blocks += device_blocks(serial, device, found, problems, apart=True)
        if any(command.kind == "setpoint_w" for command in found.command):
            plan.write_ns += transaction_ns(serial, device, found, WRITE_REQUEST_BYTES, WRITE_REPLY_BYTES)
    if isinstance(serial, Lane) and serial.framed:
        plan.blocks = _paced(plan.blocks)
    elif plan.write_ns:
        converters = {device.name for device, found in devices if any(c.kind == "setpoint_w" for c in found.command)}
        plan.blocks = _spaced(plan.blocks, converters)
    plan.zero_ns, plan.zero_timeout_ns = _zero_ns(serial, devices, plan, period_ns)
    plan.asked_ns = _asked_ns(serial, devices, plan)
    problems += _overload(serial, plan)
    return plan


def _spaced(blocks: list[Block], converters: set[str]) -> list[Block]:
    """Fast reads of a port with setpoints, at half the pace of the wire: a setpoint waits for the one in flight.

    Where a meter shares the port, long ones only: short ones go on as often as the wire allows, in between. Only where
    the readings are as fresh as before, by the least age at which a value counts as too old.
    """
    free = [block for block in blocks if block.poll == "fast" and not block.period_ns]
    pause = 2 * sum(block.time_ns for block in free)
    if pause > SPACED_MAX_NS:
        return blocks
    alone = all(block.device in converters for block in free)
    return [
        replace(block, period_ns=pause) if block in free and (alone or block.time_ns > LONG_READ_NS) else block
        for block in blocks
    ]


def _asked_ns(serial: Line, devices: list[tuple[Device, DeviceMap]], plan: PortPlan) -> dict[str, int]:
    loads = [
        Load(
            timeout_ns=1e6 * (device.timeout_ms or found.modbus.timeout_ms),
            turnaround_ns=turnaround_ns(device, found),
            blocks=tuple(
                (sum(_read_bytes(serial, b.function, b.address, b.count)) - REQUEST_BYTES,
                 float(b.period_ns or (1e9 if b.poll == "slow" else 0)), b.poll == "once")
                for b in plan.blocks if b.device == device.name
            ),
            writes=tuple((*_write_bytes(command), command.kind != "const") for command in found.command),
        )
        for device, found in devices
    ]  # fmt: skip
    bounds = bounds_ns(char_ns(serial), gap_ns(serial), loads)
    return {device.name: ns for (device, _), ns in zip(devices, bounds, strict=True) if ns}


def _paced(blocks: list[Block]) -> list[Block]:
    """The blocks with a period for those that are read as often as possible: a network has no end to that."""
    free = [b for b in blocks if b.poll == "fast" and not b.period_ns]
    period_ns = max(round(FAST_MS_MIN * 1e6), math.ceil(sum(b.time_ns for b in free) / FAST_SHARE))
    return [replace(b, period_ns=period_ns) if b in free else b for b in blocks]


def _zero_ns(serial: Line, devices: list[tuple[Device, DeviceMap]], plan: PortPlan, period_ns: int) -> tuple[int, int]:
    """(while devices answer, with a time-out): two cycles, the longest transaction in flight, the setpoint's frame.

    A reply's time-out runs to its first byte; its length follows. Converters that share the port are told one by one,
    so the last of them waits for the writes of all others.
    """
    byte_ns = char_ns(serial)
    longest, others, frame = [0.0, 0.0], [0.0, 0.0], 0.0
    setpoints = []
    for device, found in devices:
        timeout = 1e6 * (device.timeout_ms or found.modbus.timeout_ms)
        sizes = [_read_bytes(serial, b.function, b.address, b.count) for b in plan.blocks if b.device == device.name]
        for request, reply in sizes + [_write_bytes(command) for command in found.command]:
            answered = float(transaction_ns(serial, device, found, request, reply))
            silence = max(gap_ns(serial), turnaround_ns(device, found))
            timed_out = (request + reply) * byte_ns + timeout + silence
            longest = [max(longest[0], answered), max(longest[1], timed_out, answered)]
        for command in found.command:
            if command.kind == "setpoint_w":
                request, reply = _write_bytes(command)
                frame = max(frame, request * byte_ns)
                setpoints.append((transaction_ns(serial, device, found, request, reply), timeout))
    if not setpoints:
        return 0, 0
    setpoints.remove(min(setpoints))
    for answered, timeout in setpoints:
        others = [others[0] + answered, others[1] + answered + timeout]
    bounds = [math.ceil(2 * period_ns + busy + wait + frame) for busy, wait in zip(longest, others, strict=True)]
    return bounds[0], bounds[1]


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.3g} ms" if ns < 1e9 else f"{ns / 1e9:.3g} s"


def _names(block: Block) -> str:
    names = [p.name for p in block.points if not p.hidden] or [p.name for p in block.points]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _place(serial: Line) -> str:
    return f"tcp[{serial.tcp.name}]" if isinstance(serial, Lane) else f"serial[{serial.name}]"


def _what(serial: Line) -> str:
    if isinstance(serial, Lane) and serial.framed:
        return f"answers that take {serial.tcp.latency_ms:g} ms"
    return f"the line at {serial.baud} baud"


def _more(serial: Line) -> str:
    if isinstance(serial, Lane) and serial.framed:
        return "raise connections or pipeline, if the device bears it"
    return "raise baud"


def _overload(serial: Line, plan: PortPlan) -> list[str]:
    share = plan.share
    if share > SHARE_MAX:
        timed = sorted((b for b in plan.blocks if b.period_ns), key=lambda b: -b.time_ns / b.period_ns)
        factor = share / SHARE_MAX
        by_class: dict[tuple[str, str], list[Block]] = {}
        for block in timed:
            by_class.setdefault((block.device, block.poll), []).append(block)
        cures = []
        for (device, poll), blocks in by_class.items():
            own = sum(b.time_ns / b.period_ns for b in blocks)
            if own < 0.05 * share and len(by_class) > 1:
                continue
            cures.append(
                f"{device}.poll_{poll}_ms from {blocks[0].period_ns / 1e6:g} to "
                f"{math.ceil(blocks[0].period_ns * factor / 1e6)} "
                f"({'; '.join(f'{_names(b)}: {_ms(b.time_ns)} each' for b in blocks)})"
            )
        return [
            f"{_place(serial)}: the poll plan needs {share:.0%} of {_what(serial)}, at most "
            f"{SHARE_MAX:.0%} can be planned; slow down {', and '.join(cures)}; or {_more(serial)}"
        ]
    if plan.round_ns > ROUND_MAX_NS:
        free = [b for b in plan.blocks if b.poll == "fast" and not b.period_ns]
        return [
            f"{_place(serial)}: with {_what(serial)} the fast points come round only every "
            f"{_ms(plan.round_ns)}, at most {_ms(ROUND_MAX_NS)} is of use; {_more(serial)}, move a device to another "
            f"port, or slow the timed polls down "
            f"({'; '.join(f'{b.device}: {_names(b)}: {_ms(b.time_ns)}' for b in free)})"
        ]
    return []
