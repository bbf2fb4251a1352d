"""The TCP ports of a core, with the addresses that stand in the site or that the supervisor gave for simulated ones."""

import socket
from typing import TYPE_CHECKING

from tidegate.ext.bus.tcp import TcpPorts
from tidegate.ext.cycle.loop import Core
from tidegate.hal.description import Description

if TYPE_CHECKING:
    from tidegate.ext.bus.tcp import Address


def address(text: str) -> "Address":
    """ADDRESS:PORT as a port takes it. Raises ValueError; names are none, nobody here asks a name server."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host)
    except OSError:
        raise ValueError(f"{text!r}: expected ADDRESS:PORT") from None
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: expected a port from 1 to 65535 behind the address")
    return (6 if family == socket.AF_INET6 else 4), packed, int(port)


def tcp_ports(core: Core, site: Description, given: dict[str, str]) -> TcpPorts | None:
    """The TCP ports of a site, None where it has none. given: bus -> ADDRESS:PORT. Raises SystemExit for a bad word."""
    numbers = [number for number, row in enumerate(site.ports) if row.over_tcp]
    buses = {site.ports[number].bus for number in numbers}
    to: dict[int, Address] = {}
    for name, text in given.items():
        if name not in buses:
            raise SystemExit(f"core: --tcp {name}: the site has {', '.join(sorted(buses)) or 'no TCP bus'}")
        try:
            where = address(text)
        except ValueError as error:
            raise SystemExit(f"core: --tcp {name}: {error}") from None
        to |= {number: where for number in numbers if site.ports[number].bus == name}
    without = sorted(buses - set(given) - {row.bus for row in site.ports if row.host != "sim"})
    if without:
        raise SystemExit(f"core: bus {without[0]} is simulated; --tcp says where")
    if not numbers:
        return None
    return TcpPorts([(core.port_handle(number), number) for number in numbers], to)
