"""A TCP bus as the ports that the core knows: a lane for each request that may be in flight."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from tidegate.config.program_rows import Row
from tidegate.config.site import Device, Tcp
from tidegate.ext.abi import program
from tidegate.hal.map_schema import DeviceMap

LANE_BAUD = 4_000_000  # of a network with room: a reply of 60 registers in a third of a millisecond
LANE_GAP_US = 1
TIMEOUT_MS_MIN = 500.0  # the network sends a lost segment again only after 200 ms, the second time after 600
FAST_MS_MIN = 20.0  # a meter that "as often as the wire allows" would ask without a pause
FAST_SHARE = 0.4  # of a lane, for readings as often as possible
NAME_MAX = 15


@dataclass(frozen=True)
class Lane:
    """One request in flight over TCP. Where a serial port is planned with, it is a line of its own."""

    name: str
    tcp: Tcp
    link: int
    """Number of the connection, of all TCP buses."""
    baud: int
    parity: Literal["N", "E", "O"]
    stop_bits: Literal[1, 2]
    gap: Literal["spec", "chars"] | int

    @property
    def framed(self) -> bool:
        """Whether a transaction id says which request a reply answers."""
        return self.tcp.framing == "tcp"

    @property
    def protocol(self) -> Literal["modbus", "pylontech"]:
        """What its frames are, as a serial line says it."""
        return "pylontech" if self.tcp.framing == "pylontech" else "modbus"

    @property
    def transport(self) -> Literal["tcp", "rtu-tcp", "pylontech-tcp"]:
        """As the program calls it."""
        if self.protocol == "pylontech":
            return "pylontech-tcp"
        return "tcp" if self.framed else "rtu-tcp"

    def row(self) -> Row:
        """Its port row of the program, without the slaves."""
        address = ip_address("127.0.0.1" if self.tcp.host == "sim" else self.tcp.host)
        return {
            "name": self.name,
            "baud": self.baud,
            "parity": self.parity,
            "stop_bits": self.stop_bits,
            "gap_rule": program.GAP_RULES[self.gap if isinstance(self.gap, str) else "fixed"],
            "gap_ns": self.gap * 1000 if isinstance(self.gap, int) else 0,
            "transport": program.TRANSPORTS[self.transport],
            "family": address.version,
            "host": address.packed,
            "tcp_port": self.tcp.port,
            "link": self.link,
        }

    def described(self) -> Row:
        """What the description says of it."""
        host = f"[{self.tcp.host}]" if ":" in self.tcp.host else self.tcp.host
        return {
            "name": self.name,
            "device": "sim" if host == "sim" else f"{host}:{self.tcp.port}",
            "baud": self.baud,
            "parity": self.parity,
            "stop_bits": self.stop_bits,
            "gap": self.gap,
            "transport": self.transport,
            "bus": self.tcp.name,
            "host": self.tcp.host,
            "tcp_port": self.tcp.port,
        }


def lanes(tcp: Tcp, link: int, devices: int, problems: list[str]) -> list[Lane]:
    """The lanes of a bus with so many devices, the first with its name. link: number of its first connection.

    Neighbours in the list of devices go to different connections.
    """
    count = max(1, min(devices, tcp.connections * tcp.pipeline))
    names = [tcp.name, *(f"{tcp.name}/{number + 1}" for number in range(1, count))]
    if len(names[-1]) > NAME_MAX:
        problems.append(
            f"tcp[{tcp.name}].name: has {len(tcp.name)} characters; with {count} requests in flight at most "
            f"{NAME_MAX - len(names[-1]) + len(tcp.name)}, because each is shown as {names[-1]}"
        )
    framed = tcp.framing == "tcp"
    return [
        Lane(
            name,
            tcp,
            link + number % tcp.connections,
            LANE_BAUD if framed else tcp.baud,
            "N" if framed else tcp.parity,
            1 if framed else tcp.stop_bits,
            LANE_GAP_US if framed else "spec",
        )
        for number, name in enumerate(names)
    ]


def on_tcp(device: Device, found: DeviceMap, tcp: Tcp) -> Device:
    """The device with what its map leaves to a line: time-out, latency, the pause after a reply."""
    return device.model_copy(
        update={
            "timeout_ms": device.timeout_ms or max(found.modbus.timeout_ms, TIMEOUT_MS_MIN),
            "latency_ms": (tcp.latency_ms if tcp.framing == "tcp" else found.modbus.latency_ms + tcp.latency_ms)
            if device.latency_ms is None
            else device.latency_ms,
            "turnaround_ms": 0.0 if device.turnaround_ms is None and tcp.framing == "tcp" else device.turnaround_ms,
        }
    )
