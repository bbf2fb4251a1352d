"""What simulated GPIO lines say in virtual time: each change of their frames, by the classes that read real lines."""

import heapq
from collections.abc import Iterator, Sequence

from tidegate.hal.gpio_frames import Edge, Line, Play
from tidegate.hal.gpio_lines import SECOND_NS, Contact, Pulses
from tidegate.hal.gpio_simulated import levels

LOOK_NS = SECOND_NS  # a power that sinks while no pulse comes is looked at so often

Change = tuple[int, int, bytes]  # (ns since the start, number of the input, its frame's data)


def changes(lines: Sequence[Line], plays: Sequence[Play]) -> Iterator[Change]:
    """Each change of the frames of all inputs, in the order of their times; the first of each at the start."""
    inputs = [line for line in lines if line.way == "in"]
    return heapq.merge(*(_of(line, [one for one in plays if one.number == line.number]) for line in inputs))


def _of(line: Line, plays: Sequence[Play]) -> Iterator[Change]:
    debounce_ns = round(line.debounce_ms * 1e6)
    state = Pulses(debounce_ns, line.wh_per_pulse) if line.pulse else Contact(debounce_ns, False)
    said, t_ns, number = state.payload(0), 0, 0
    yield 0, line.number, said
    for t_s, level in levels(plays):
        at_ns = round(t_s * SECOND_NS)
        for now_ns in (*_looks(state, t_ns, at_ns), at_ns):
            if now_ns == at_ns and (level or not line.pulse):  # as they are asked of the kernel
                number += 1
                state.edge(Edge(line.offset, level, at_ns, number))
            payload = state.payload(now_ns)
            if payload != said:
                said = payload
                yield now_ns, line.number, said
        t_ns = at_ns
    for now_ns in _looks(state, t_ns, None):
        payload = state.payload(now_ns)
        if payload != said:
            said = payload
            yield now_ns, line.number, said


def _looks(state: Contact | Pulses, from_ns: int, until_ns: int | None) -> Iterator[int]:
    """When a line may say something else without an edge, between two of them or after the last."""
    if isinstance(state, Pulses):
        if state.apart_ns is None:
            return
        t_ns = from_ns + LOOK_NS
        while (until_ns is None or t_ns < until_ns) and state.power_w(t_ns - LOOK_NS) > 0:
            yield t_ns
            t_ns += LOOK_NS
        return
    times = [state.due_ns(), state.edges[0] + SECOND_NS if state.chatters(from_ns) else None]
    for t_ns in sorted(one for one in times if one is not None):
        if from_ns < t_ns and (until_ns is None or t_ns < until_ns):
            yield t_ns
