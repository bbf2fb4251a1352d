"""Poll plans: registers coalesced into blocks, and whether the line can carry them.

Times are for a legal line: request, the device's answer delay, reply, and the silence that ends each frame.
"""

import math
from dataclasses import dataclass, field, replace

from tidegate.config.site import Device, Serial
from tidegate.hal.map_schema import Command, DeviceMap, Point

SHARE_MAX = 0.8  # of the line for timed polls; the rest belongs to writes, repeats and what polls as often as it can
ROUND_MAX_NS = 1_000_000_000  # a control that sees the grid less than once a second is no control
REQUEST_BYTES, WRITE_REQUEST_BYTES, WRITE_REPLY_BYTES = 8, 13, 8
SIGNATURE_REACH = {
    "pcs": 16,
    "meter": 8,
}  # words in front of a SunSpec block that are worth reading to recognise the reply


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


@dataclass
class PortPlan:
    """What one serial port is asked to do."""

    port: str
    blocks: list[Block] = field(default_factory=list)
    write_ns: int = 0  # one setpoint write to each converter on the port
    # From a cause in the core's inputs to the last byte of setpoint 0: while devices answer, and when the transaction
    # in flight and other converters' writes, which may come first, run into time-outs. 0 = no converter here.
    zero_ns: int = 0
    zero_timeout_ns: int = 0

    @property
    def share(self) -> float:
        """Share of the line that the timed polls take."""
        return sum(b.time_ns / b.period_ns for b in self.blocks if b.period_ns)

    @property
    def round_ns(self) -> float:
        """Time between two readings of the fast blocks that poll as often as the wire allows."""
        free = sum(b.time_ns for b in self.blocks if not b.period_ns and b.poll == "fast")
        return (free + self.write_ns) / max(1.0 - self.share, 0.01) if free else 0.0


def char_ns(serial: Serial) -> float:
    """One character on the line: start, 8 data, parity, stop bits."""
    bits = 1 + 8 + (serial.parity != "N") + serial.stop_bits
    return bits * 1e9 / serial.baud


def gap_ns(serial: Serial) -> float:
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


def transaction_ns(serial: Serial, device: Device, found: DeviceMap, request: int, reply: int) -> int:
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


def device_blocks(serial: Serial, device: Device, found: DeviceMap, problems: list[str]) -> list[Block]:
    """The blocks that read every point of a device: neighbours of the same class in one request."""
    groups: dict[tuple[int, str], list[Point]] = {}
    for point in found.point:
        groups.setdefault((point.function, point.poll), []).append(point)
    blocks = []
    for (function, poll), points in groups.items():
        limit = found.modbus.regs_max if function in (3, 4) else 2000
        rows = sorted(points, key=lambda p: p.address or 0)
        run: list[Point] = []
        first = last = 0

        def close(run: list[Point], first: int, last: int, function: int, poll: str) -> None:
            count = last - first + 1
            count += count % 2 if found.modbus.regs_even else 0
            # The points that are read once carry their own proof where they need one.
            address, count, word = _signature(found, first, count) if poll != "once" else (first, count, None)
            period_ms = {"fast": device.poll_fast_ms, "slow": device.poll_slow_ms, "once": 0.0}[poll]
            blocks.append(
                Block(device.name, function, poll, address, count, tuple(run), round(period_ms * 1e6), 0, word)
            )

        for point in rows:
            assert point.address is not None
            end = point.address + point.words - 1
            joins = run and point.address - last - 1 <= found.modbus.gap_regs_max and end - first + 1 <= limit
            if run and not joins:
                close(run, first, last, function, poll)
                run = []
            if not run:
                first, last = point.address, end
            run.append(point)
            last = max(last, end)
        if run:
            close(run, first, last, function, poll)
    timed = []
    for block in _differ(found, blocks, problems):
        reply = _reply_bytes(block.function, block.count)
        timed.append(replace(block, time_ns=transaction_ns(serial, device, found, REQUEST_BYTES, reply)))
    return timed


def port_plan(
    serial: Serial, devices: list[tuple[Device, DeviceMap]], problems: list[str], period_ns: int = 1_000_000
) -> PortPlan:
    """The plan of one port. A plan that the line cannot carry adds a line to `problems` that says what to change."""
    plan = PortPlan(serial.name)
    for device, found in devices:
        plan.blocks += device_blocks(serial, device, found, problems)
        if any(command.kind == "setpoint_w" for command in found.command):
            plan.write_ns += transaction_ns(serial, device, found, WRITE_REQUEST_BYTES, WRITE_REPLY_BYTES)
    plan.zero_ns, plan.zero_timeout_ns = _zero_ns(serial, devices, plan, period_ns)
    problems += _overload(serial, plan)
    return plan


def _zero_ns(
    serial: Serial, devices: list[tuple[Device, DeviceMap]], plan: PortPlan, period_ns: int
) -> tuple[int, int]:
    """(while devices answer, with a time-out): two cycles, the longest transaction in flight, the setpoint's frame.

    A reply's time-out runs to its first byte; its length follows. Converters that share the port are told one by one,
    so the last of them waits for the writes of all others.
    """
    byte_ns = char_ns(serial)
    longest, others, frame = [0.0, 0.0], [0.0, 0.0], 0.0
    setpoints = []
    for device, found in devices:
        timeout = 1e6 * (device.timeout_ms or found.modbus.timeout_ms)
        sizes = [(REQUEST_BYTES, _reply_bytes(b.function, b.count)) for b in plan.blocks if b.device == device.name]
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


def _overload(serial: Serial, plan: PortPlan) -> list[str]:
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
            f"serial[{serial.name}]: the poll plan needs {share:.0%} of the line at {serial.baud} baud, at most "
            f"{SHARE_MAX:.0%} can be planned; slow down {', and '.join(cures)}; or raise baud"
        ]
    if plan.round_ns > ROUND_MAX_NS:
        free = [b for b in plan.blocks if b.poll == "fast" and not b.period_ns]
        return [
            f"serial[{serial.name}]: at {serial.baud} baud the fast points come round only every "
            f"{_ms(plan.round_ns)}, at most {_ms(ROUND_MAX_NS)} is of use; raise baud, move a device to another port, "
            f"or slow the timed polls down ({'; '.join(f'{b.device}: {_names(b)}: {_ms(b.time_ns)}' for b in free)})"
        ]
    return []
