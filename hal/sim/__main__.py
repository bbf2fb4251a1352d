"""The simulated plant as a process: `python -m tidegate.hal.sim` behind ptys and CAN descriptors, in wall time.

It says what it does as JSON lines on standard output: {"kind": "ready", ...} once its buses answer, then
{"kind": "true", ...} with the plant's true powers a few times a second and the spans of its grid power
(`Live.take_spans`), {"kind": "result", ...} at its end. It ends on SIGTERM or SIGINT, or when the descriptor given as
--control-fd is closed at the other end.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import select
import signal
import socket
import sys
import threading
import tty
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.ext.cycle import realtime
from tidegate.ext.sim.live import Live, monotonic_ns
from tidegate.hal.description import Description, Simulation, described
from tidegate.hal.sim.build import Built, build, energies, reaction_s
from tidegate.hal.sim.modbus_tcp import Line, TcpSide
from tidegate.hal.sim.pylon_packs import PylonSide
from tidegate.hal.sim.slcan import Adapter
from tidegate.hal.sim.trace import Trace, TraceError, read_trace

PRIORITY = 75  # above the core's port threads: the devices of a real bus do not wait for them either


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Command line of the process."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.hal.sim", description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--program-fd", type=int, help="descriptor of the compiled site")
    source.add_argument("--program", type=Path, help="file of the compiled site")
    parser.add_argument("--site", type=Path, help="site file: only its folder is used, for the traces that it names")
    parser.add_argument(
        "--serial",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help='descriptor of a pty master, "pty" for a new pty (its path is said in the ready line), or a device',
    )
    parser.add_argument(
        "--can",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help='descriptor carrying CAN frames, or "slcan" for an SLCAN adapter on a new pty',
    )
    parser.add_argument(
        "--tcp",
        action="append",
        default=[],
        metavar="BUS=WHERE",
        help='descriptor of a listening socket, or "listen" for a new one on this machine (said in the ready line)',
    )
    parser.add_argument("--links", type=Path, help="folder that gets a link NAME for each new pty")
    parser.add_argument("--load", type=Path, help="CSV with the IT power; else the site's load_trace")
    column = Simulation().load_column
    parser.add_argument("--load-column", help=f"its column of W (the site's load_column, else {column})")
    parser.add_argument("--start-s", type=float, help="begin the trace here")
    parser.add_argument("--seed", type=int, help="instead of the site's")
    parser.add_argument("--meter-wh", type=float, default=0.0, help="what the grid meter has counted before, Wh")
    parser.add_argument("--true-hz", type=float, default=5.0, help="true powers said so often; 0 = never")
    parser.add_argument("--control-fd", type=int, default=-1, help="end when this is closed at the other end")
    parser.add_argument("--results-fd", type=int, default=1, help="descriptor for the JSON lines (standard output)")
    return parser.parse_args(words)


def pairs(words: list[str], what: str) -> dict[str, str]:
    """NAME=WHERE words as a dict. Raises SystemExit naming the word."""
    found = {}
    for word in words:
        name, equals, where = word.partition("=")
        if not equals or not name or not where:
            raise SystemExit(f"sim: --{what} {word!r}: expected NAME=WHERE")
        found[name] = where
    return found


def program_of(options: argparse.Namespace) -> bytes:
    """The compiled site's bytes. Raises SystemExit."""
    try:
        if options.program is not None:
            return bytes(options.program.read_bytes())
        size = os.fstat(options.program_fd).st_size
        return os.pread(options.program_fd, size, 0)
    except OSError as error:
        raise SystemExit(f"sim: the program cannot be read: {error}") from None


def traces(options: argparse.Namespace, site: Description) -> tuple[Trace | None, Trace | None]:
    """(load, pv) traces that the command line or the site names; None where neither does."""
    settings = site.simulation or Simulation()
    folder = options.site.parent if options.site else Path(site.folder or ".")
    start_s = options.start_s if options.start_s is not None else settings.start_s
    load = pv = None
    path = options.load or (folder / settings.load_trace if settings.load_trace else None)
    if path is not None:
        column = options.load_column or settings.load_column
        load = read_trace(path, column, start_s=start_s, length_s=settings.length_s, least_w=0.0)
    if settings.pv_trace:
        t_s, power_w = read_trace(folder / settings.pv_trace, settings.pv_column, start_s=start_s)
        pv = (t_s, power_w * settings.pv_scale)
    return load, pv


def open_serial(name: str, where: str, said: dict[str, str]) -> int:
    """Descriptor of a serial line's far end, non-blocking and raw. Raises SystemExit."""
    if where == "pty":
        master, slave = pty.openpty()
        tty.setraw(slave)
        said[name] = os.ttyname(slave)
        os.set_blocking(master, False)
        return master  # the slave's descriptor stays open: masters may come and go
    try:
        if where.isdigit():
            fd = int(where)
        else:
            fd = os.open(where, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(fd)
        os.set_blocking(fd, False)
    except OSError as error:
        raise SystemExit(f"sim: serial line {name} ({where}): {error.strerror}") from None
    return fd


def open_pylon(name: str, where: str, said: dict[str, str]) -> int:
    """The same of a line that speaks Pylontech's protocol: the plant behind it has registers. Raises SystemExit."""
    plant, master = socket.socketpair()
    plant.setblocking(False)
    PylonSide(open_serial(name, where, said), Line(master.detach()))
    return plant.detach()


def open_can(name: str, where: str, said: dict[str, str], adapters: list[Adapter]) -> int:
    """Descriptor that carries a bus's frames, non-blocking. Raises SystemExit."""
    if where == "slcan":
        master = open_serial(name, "pty", said)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        adapters.append(Adapter(master, far))
        adapters[-1].start()
        fd = near.detach()
    elif where.isdigit():
        fd = int(where)
    else:
        raise SystemExit(f'sim: CAN bus {name} ({where}): expected a descriptor or "slcan"')
    os.set_blocking(fd, False)
    return fd


def open_tcp(
    site: Description, rows: Mapping[str, Any], given: dict[str, str], said: dict[str, str], fds: list[int]
) -> list[TcpSide]:
    """The far ends of TCP buses; fds: by port, filled with the plant's end of each lane. Raises SystemExit."""
    sides = []
    for bus, where in given.items():
        lanes = [number for number, port in enumerate(site.ports) if port.bus == bus]
        lines: dict[int, Line] = {}
        for number in lanes:
            plant, master = socket.socketpair()
            plant.setblocking(False)
            fds[number] = plant.detach()
            line = Line(master.detach())
            if site.ports[number].transport == "pylontech-tcp":
                gateway, packs = socket.socketpair()
                PylonSide(packs.detach(), line)
                line = Line(gateway.detach())
            lines |= {slave["unit_id"]: line for slave in rows["slaves"] if slave["port"] == number}
        if where == "listen":
            listener = socket.create_server(("127.0.0.1", 0))
            said[bus] = "{}:{}".format(*listener.getsockname())
        elif where.isdigit():
            listener = socket.socket(fileno=int(where))
        else:
            raise SystemExit(f'sim: TCP bus {bus} ({where}): expected a descriptor or "listen"')
        sides.append(TcpSide(listener, lines, site.ports[lanes[0]].transport == "tcp"))
    return sides


def link(folder: Path, opened: dict[str, str]) -> list[Path]:
    """A link in the folder for each new pty, so that its name is known beforehand. Raises SystemExit."""
    made = []
    for name, where in opened.items():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                path.unlink()  # left by a plant that was killed
            path.symlink_to(where)
        except OSError as error:
            raise SystemExit(f"sim: --links {folder}: {path.name}: {error.strerror}") from None
        made.append(path)
    return made


class End:
    """Set by a signal or a thread. No threading.Event: `set` in a handler that interrupts `wait` never returns."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def set(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_s: float | None) -> bool:
        return bool(select.select([self._fd], [], [], timeout_s)[0])


def result(built: Built, live: Live) -> dict[str, object]:
    """What was measured: answer times, true energies, the last setpoints that reached the converters."""
    world = built.world
    return {
        "kind": "result",
        "t_s": world.t_s,
        "step_to_wire_ms": world.answers_ms,
        "totals": energies(world.totals),
        "reaction_s": reaction_s(built),
        "converters": [
            {
                "name": name,
                "setpoint_w": row["wire_set_w"],
                "setpoint_t_ns": row["wire_set_t_ns"],
                "power_w": row["w"],
                "writes": row["writes"],
                "reverts": row["reverts"],
            }
            for name, row in zip(built.converters, world.converters(), strict=True)
        ],
        "batteries": [
            {"name": name, "soc": row["soc"], "temp_c": row["temp_c"], "contactor": row["contactor"]}
            for name, row in zip(built.batteries, world.batteries(), strict=True)
        ],
        "statistics": live.statistics,
    }


def main(words: list[str] | None = None) -> int:
    """Run until told to end; gives the exit code."""
    options = arguments(words)
    blob = program_of(options)
    from tidegate.ext.abi import program

    try:
        load, pv = traces(options, described(program.describe(blob)))
        built = build(blob, load=load, pv=pv, seed=options.seed, overrides={"meter_import_wh": options.meter_wh})
    except (TraceError, ValueError) as error:
        print(f"sim: {error}", file=sys.stderr)
        return 2
    serial, can, tcp = pairs(options.serial, "serial"), pairs(options.can, "can"), pairs(options.tcp, "tcp")
    ports = [port["name"] for port in built.rows["ports"]]
    lans = sorted({port.bus for port in built.site.ports if port.over_tcp})
    buses = [bus.name for bus in built.site.can]
    for given, known, what in ((serial, ports, "serial port"), (can, buses, "CAN bus"), (tcp, lans, "TCP bus")):
        for name in given:
            if name not in known:
                print(f"sim: {what} {name!r}: the site has {', '.join(known) or 'none'}", file=sys.stderr)
                return 2
    opened: dict[str, str] = {}
    addresses: dict[str, str] = {}
    pylon = {port.name for port in built.site.ports if port.protocol == "pylontech"}
    serial_fds = [
        (open_pylon if name in pylon else open_serial)(name, serial[name], opened) if name in serial else -1
        for name in ports
    ]
    sides = open_tcp(built.site, built.rows, tcp, addresses, serial_fds)
    adapters: list[Adapter] = []
    can_fds = [open_can(name, can[name], opened, adapters) if name in can else -1 for name in buses]
    links = link(options.links, opened) if options.links is not None else []

    ended = End()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    lock = threading.Lock()

    def emit(row: dict[str, object]) -> None:
        with lock:
            try:
                os.write(options.results_fd, json.dumps(row).encode() + b"\n")
            except OSError:
                ended.set()  # nobody reads any more

    built.world.start(monotonic_ns())
    live = Live(built.world, serial_fds, can_fds, options.control_fd)

    def run() -> None:
        realtime.set_fifo(PRIORITY)  # where it is not allowed, the devices answer as late as the machine makes them
        live.run()
        ended.set()

    thread = threading.Thread(target=run, name="plant", daemon=True)
    thread.start()
    emit({"kind": "ready", "sim": os.getpid(), "seed": built.settings.seed, "ptys": opened, "tcp": addresses})
    while not ended.wait(1.0 / options.true_hz if options.true_hz > 0 else None):
        now = built.world.now
        batteries = built.world.batteries()
        emit(
            {
                "kind": "true",
                "t_s": round(built.world.t_s, 4),
                "t_ns": built.world.t_ns,
                **{key: round(value, 1) for key, value in now.items()},
                "soc": round(sum(one["soc"] for one in batteries) / max(1, len(batteries)), 5),
                "grid_spans": live.take_spans(),
            }
        )
    live.stop()
    thread.join(2.0)
    for adapter in adapters:
        adapter.stop()
    for side in sides:
        side.stop()
    for path in links:
        path.unlink(missing_ok=True)
    emit(result(built, live))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
