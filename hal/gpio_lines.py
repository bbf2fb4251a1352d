"""The process of the GPIO lines: contacts and pulses to the core as frames, outputs as it asks for them.

    python -m tidegate.hal.gpio_lines --fd 7 --lines "in 0 /dev/gpiochip0 17 pull-up 10 0 active_low; ..."

Edges come from the kernel's GPIO character device with the time stamps of their interrupts, so neither this process nor
the loop has to be in time for a pulse. Says "ready" once every line is its own. Ends when the core's end closes (exit
code 0), or with a line named that is taken, absent or lost (1).
"""

import argparse
import contextlib
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.hal.can_frame import CLASSIC
from tidegate.hal.gpio_frames import (
    AGE_MS,
    INPUT_ID,
    OUTPUT_ID,
    PERIOD_MS,
    POWER_W_MAX,
    SIMULATED,
    UNKNOWN,
    Edge,
    Line,
    lines,
    plays,
)  # fmt: skip
from tidegate.hal.gpio_simulated import SimulatedChip

CHATTER_EDGES = 40  # within a second: no contact is worked so fast, an open wire picks up twice the mains frequency
SECOND_NS = 1_000_000_000
PULSE_GONE_NS = 3600 * SECOND_NS  # without a pulse for so long, the power is zero
NO_POWER = POWER_W_MAX + 1


class Chip(Protocol):
    """The lines of one chip that were requested together."""

    def fileno(self) -> int: ...
    def edges(self) -> list[Edge]: ...
    def is_active(self, offset: int) -> bool: ...
    def drive(self, offset: int, active: bool) -> None: ...
    def close(self) -> None: ...


class LineError(Exception):
    """A line that cannot be used, in one sentence with the remedy."""


# ---------------------------------------------------------------- what a line says


@dataclass
class Contact:
    """A contact: its state once it has been the same for the debounce time; not known while it chatters."""

    debounce_ns: int
    state: bool
    level: bool = False
    since_ns: int = 0
    edges: deque[int] = field(default_factory=lambda: deque(maxlen=CHATTER_EDGES))

    def __post_init__(self) -> None:
        self.level = self.state

    def edge(self, edge: Edge) -> None:
        """Take an edge in."""
        self._settle(edge.t_ns)
        self.level, self.since_ns = edge.active, edge.t_ns
        self.edges.append(edge.t_ns)

    def _settle(self, t_ns: int) -> None:
        if self.level != self.state and t_ns - self.since_ns >= self.debounce_ns:
            self.state = self.level

    def chatters(self, t_ns: int) -> bool:
        """Whether it has had more edges within a second than a contact can have."""
        return len(self.edges) == CHATTER_EDGES and t_ns - self.edges[0] < SECOND_NS

    def due_ns(self) -> int | None:
        """When its state may change without an edge; None = not."""
        return self.since_ns + self.debounce_ns if self.level != self.state else None

    def payload(self, t_ns: int) -> bytes:
        """Its frame's data now."""
        self._settle(t_ns)
        return bytes([UNKNOWN if self.chatters(t_ns) else self.state]) + bytes(7)


@dataclass
class Pulses:
    """A counter of pulses, and the power that their distance stands for."""

    debounce_ns: int
    wh_per_pulse: float
    count: int = 0
    numbers: int = 0
    last_ns: int | None = None
    apart_ns: int | None = None

    def edge(self, edge: Edge) -> None:
        """Take an edge in; what the kernel had to drop is counted by the numbers of the edges."""
        lost, self.numbers = max(edge.number - self.numbers - 1, 0), edge.number
        if not edge.active:
            return
        if self.last_ns is not None and edge.t_ns - self.last_ns < self.debounce_ns:
            return
        self.count += 1 + lost
        if self.last_ns is not None:
            self.apart_ns = (edge.t_ns - self.last_ns) // (1 + lost)
        self.last_ns = edge.t_ns

    def power_w(self, t_ns: int) -> int:
        """By the last distance of two pulses, or by the wait for the next where that is longer."""
        if self.last_ns is None or self.apart_ns is None:
            return NO_POWER
        since = t_ns - self.last_ns
        if since >= PULSE_GONE_NS:
            return 0
        return min(round(self.wh_per_pulse * 3600e9 / max(self.apart_ns, since, 1)), POWER_W_MAX)

    def due_ns(self) -> int | None:
        """Its state changes by edges only."""
        return None

    def payload(self, t_ns: int) -> bytes:
        """Its frame's data now."""
        return b"\0" + (self.count & 0xFFFFFFFF).to_bytes(4, "little") + self.power_w(t_ns).to_bytes(3, "little")


@dataclass
class Output:
    """A driven line: what the core asks for, and the site's word for when it is silent."""

    silent: bool
    asked: bool = False
    t_ns: int | None = None
    driven: bool | None = None

    def wanted(self, t_ns: int) -> bool:
        """The state that it should have."""
        if self.t_ns is None or t_ns - self.t_ns > AGE_MS * 1_000_000:
            return self.silent
        return self.asked


# ---------------------------------------------------------------- the process


class Server:
    """Copies between lines and the core's end. opener: chip and its lines -> what was requested."""

    def __init__(
        self,
        specs: Sequence[Line],
        end: socket.socket,
        opener: Callable[[str, Sequence[Line]], Chip],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.end, self.clock = end, clock
        self.chips: dict[str, Chip] = {}
        self.inputs: dict[tuple[str, int], Contact | Pulses] = {}
        self.outputs: dict[tuple[str, int], Output] = {}
        self.numbers = {(one.chip, one.offset): one.number for one in specs}
        self.sent: dict[tuple[str, int], bytes] = {}
        self.next_ns = 0
        try:
            for path in dict.fromkeys(one.chip for one in specs):
                self.chips[path] = opener(path, [one for one in specs if one.chip == path])
        except LineError:
            self.close()
            raise
        for one in specs:
            key, debounce_ns = (one.chip, one.offset), round(one.debounce_ms * 1e6)
            if one.way == "out":
                self.outputs[key] = Output(one.silent)
            elif one.pulse:
                self.inputs[key] = Pulses(debounce_ns, one.wh_per_pulse)
            else:
                self.inputs[key] = Contact(debounce_ns, self.chips[one.chip].is_active(one.offset))

    def close(self) -> None:
        """Give the lines back."""
        for chip in self.chips.values():
            chip.close()

    def run(self) -> None:
        """Until the core's end is closed. Raises OSError when a chip is gone."""
        poller = select.poll()
        poller.register(self.end, select.POLLIN)
        for chip in self.chips.values():
            poller.register(chip.fileno(), select.POLLIN)
        while self.turn(poller):
            pass

    def turn(self, poller: select.poll) -> bool:
        """One wake-up; False once the core's end is closed."""
        waits = [self.next_ns, *(due for one in self.inputs.values() if (due := one.due_ns()) is not None)]
        ready = poller.poll(max(0.0, (min(waits) - self.clock()) / 1e6))
        fds = {fd for fd, _ in ready}
        for path, chip in self.chips.items():
            if chip.fileno() in fds:
                for edge in chip.edges():
                    self.inputs[path, edge.offset].edge(edge)
        if self.end.fileno() in fds and not self._heard():
            return False
        return self._send()

    def _heard(self) -> bool:
        while True:
            try:
                frame = self.end.recv(CLASSIC.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not frame:
                return False
            if len(frame) != CLASSIC.size:
                continue
            can_id, length, data = CLASSIC.unpack(frame)
            for key, one in self.outputs.items():
                if can_id == OUTPUT_ID + self.numbers[key] and length == 1:
                    one.asked, one.t_ns = data[0] == 2, self.clock()

    def _send(self) -> bool:
        t_ns = self.clock()
        periodic = t_ns >= self.next_ns
        for key, one in self.outputs.items():
            wanted = one.wanted(t_ns)
            if wanted != one.driven:
                self.chips[key[0]].drive(key[1], wanted)
                one.driven = wanted
        for key, line in self.inputs.items():
            payload = line.payload(t_ns)
            # A power that sinks with each look is no news; a state or a count is.
            if not periodic and payload[:5] == self.sent.get(key, b"")[:5]:
                continue
            self.sent[key] = payload
            try:
                self.end.send(CLASSIC.pack(INPUT_ID + self.numbers[key], 8, payload), socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass  # the core does not come; its points age
            except OSError:
                return False
        if periodic:
            self.next_ns = t_ns + PERIOD_MS * 1_000_000
        return True


# ---------------------------------------------------------------- the kernel's lines


class _Requested:
    """Lines of a chip as libgpiod requests them."""

    def __init__(self, request: "object") -> None:
        self._request = request

    def fileno(self) -> int:
        return self._request.fd  # type: ignore[attr-defined,no-any-return]

    def edges(self) -> list[Edge]:
        return [
            Edge(one.line_offset, one.event_type is one.Type.RISING_EDGE, one.timestamp_ns, one.line_seqno)
            for one in self._request.read_edge_events()  # type: ignore[attr-defined]
        ]

    def is_active(self, offset: int) -> bool:
        return bool(self._request.get_value(offset).value)  # type: ignore[attr-defined]

    def drive(self, offset: int, active: bool) -> None:
        from gpiod.line import Value

        self._request.set_value(offset, Value.ACTIVE if active else Value.INACTIVE)  # type: ignore[attr-defined]

    def close(self) -> None:
        self._request.release()  # type: ignore[attr-defined]


def open_lines(path: str, specs: Sequence[Line]) -> Chip:
    """Request these lines of a chip. Raises LineError naming the one that is absent or taken."""
    import gpiod
    from gpiod.line import Bias, Clock, Direction, Value
    from gpiod.line import Edge as Edges

    problem = look(path, specs)
    if problem:
        raise LineError(problem)
    bias = {"as-is": Bias.AS_IS, "disabled": Bias.DISABLED, "pull-up": Bias.PULL_UP, "pull-down": Bias.PULL_DOWN}
    config: dict[Iterable[int | str] | int | str, gpiod.LineSettings | None] = {}
    for one in specs:
        if one.way == "out":
            config[one.offset] = gpiod.LineSettings(
                direction=Direction.OUTPUT,
                active_low=one.active_low,
                output_value=Value.ACTIVE if one.silent else Value.INACTIVE,
            )
        else:
            config[one.offset] = gpiod.LineSettings(
                direction=Direction.INPUT,
                edge_detection=Edges.RISING if one.pulse else Edges.BOTH,
                bias=bias[one.bias],
                active_low=one.active_low,
                event_clock=Clock.MONOTONIC,
            )
    try:
        return _Requested(gpiod.request_lines(path, config=config, consumer="tidegate"))
    except OSError as error:
        raise LineError(f"{path}: its lines cannot be had: {error.strerror or error}") from None


def look(path: str, specs: Iterable[Line], chip_of: Callable[[str], object] | None = None) -> str:
    """What is wrong with these lines of a chip, before anybody requests them; empty when nothing is."""
    if chip_of is None:
        import gpiod

        chip_of = gpiod.Chip
    try:
        chip = chip_of(path)
    except FileNotFoundError:
        return f"{path}: there is no such GPIO chip; `gpiodetect` shows those that are there"
    except PermissionError:
        return f"{path}: no permission; add the user to the group that owns it (gpio)"
    except OSError as error:
        return f"{path}: is no GPIO chip ({error.strerror or error})"
    with contextlib.closing(chip):  # type: ignore[type-var]
        for one in specs:
            try:
                info = chip.get_line_info(one.offset)  # type: ignore[attr-defined]
            except (OSError, ValueError):
                return f"{path}: it has no line {one.offset}; `gpioinfo -c {path}` shows those it has"
            if info.used:
                who = info.consumer or "the kernel"
                return f"{path}: line {one.offset} ({info.name or 'unnamed'}) is taken by {who}; free it or use another"
    return ""


def main(words: list[str] | None = None) -> int:
    """Request the lines, then serve until the core's end closes."""
    parser = argparse.ArgumentParser(prog="tidegate.hal.gpio_lines")
    parser.add_argument("--fd", type=int, required=True, help="this side's end of the socket pair")
    parser.add_argument("--lines", required=True, help="the lines, separated by semicolons")
    args = parser.parse_args(words)
    try:
        end = socket.socket(fileno=args.fd)
        schedule = plays(args.lines)
        server = Server(
            lines(args.lines),
            end,
            lambda path, specs: SimulatedChip(specs, schedule) if path == SIMULATED else open_lines(path, specs),
        )
    except (LineError, ValueError, OSError, ImportError) as error:
        print(f"gpio: {error}", file=sys.stderr)
        return 1
    print("ready", flush=True)
    try:
        server.run()
    except OSError as error:
        print(f"gpio: a GPIO chip is gone: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
        end.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
