"""CAN interfaces of the kernel: is it there, is it up, set it up, restart it. By netlink, so that no program is forked.

A fork would mark the core's locked memory copy-on-write, and the loop would pay for it in page faults.
Changing an interface needs CAP_NET_ADMIN; looking at one needs nothing.
"""

import errno
import fcntl
import os
import socket
import struct

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLMSG_ERROR = 2
RTM_NEWLINK = 16
IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA = 18, 1, 2
IFLA_CAN_BITTIMING, IFLA_CAN_CTRLMODE, IFLA_CAN_RESTART_MS, IFLA_CAN_RESTART = 1, 5, 6, 7
CAN_CTRLMODE_BERR_REPORTING = 0x10
IFF_UP = 0x1
SIOCGIFFLAGS = 0x8913


def index(interface: str) -> int | None:
    """Kernel's number of the interface, None if there is none. A driver that was unbound and bound gets a new one."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


def is_up(interface: str) -> bool:
    """Whether the interface is there and up."""
    name = interface.encode()
    if len(name) > 15:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            reply = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", name, 0))
        except OSError:
            return False
    return bool(struct.unpack("16sH14x", reply)[1] & IFF_UP)


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def _change(interface: str, flags: int, mask: int, can: bytes = b"") -> None:
    """One RTM_NEWLINK; `can` holds the IFLA_CAN attributes."""
    number = index(interface)
    if number is None:
        raise OSError(errno.ENODEV, f"CAN interface {interface}: there is none")
    body = struct.pack("=BxHiII", 0, 0, number, flags, mask)
    if can:
        info = _attribute(IFLA_INFO_KIND, b"can\0") + _attribute(IFLA_INFO_DATA, can)
        body += _attribute(IFLA_LINKINFO, info)
    request = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.settimeout(1.0)
        route.sendto(request, (0, 0))
        reply = route.recv(4096)
    kind, error = struct.unpack_from("=4xH10xi", reply)
    if kind != NLMSG_ERROR or error:
        raise OSError(-error, f"CAN interface {interface}: {os.strerror(-error)}")


def bring_up(interface: str, bitrate: int | None = None, *, restart_ms: int = 0) -> None:
    """Set the interface up. bitrate : bit/s, None leaves it as it is (virtual interfaces have none).

    Automatic restarts after bus-off are switched off unless `restart_ms` says otherwise: how often is decided by
    the keeper, at most three times a minute. Raises OSError with the interface's name.
    """
    if bitrate is not None:
        if is_up(interface):
            _change(interface, 0, IFF_UP)
        timing = struct.pack("=8I", bitrate, 0, 0, 0, 0, 0, 0, 0)
        can = _attribute(IFLA_CAN_BITTIMING, timing) + _attribute(IFLA_CAN_RESTART_MS, struct.pack("=I", restart_ms))
        _change(interface, 0, 0, can)
    _change(interface, IFF_UP, IFF_UP)


def bring_down(interface: str) -> None:
    """Set the interface down."""
    _change(interface, 0, IFF_UP)


def report_errors(interface: str, on: bool = True) -> None:
    """Ask the controller for an error frame a bus error, not only for changes of state. The interface must be down."""
    mode = struct.pack("=II", CAN_CTRLMODE_BERR_REPORTING, CAN_CTRLMODE_BERR_REPORTING if on else 0)
    _change(interface, 0, 0, _attribute(IFLA_CAN_CTRLMODE, mode))


def restart(interface: str) -> None:
    """Put a controller that is bus-off back on the bus."""
    _change(interface, 0, 0, _attribute(IFLA_CAN_RESTART, struct.pack("=I", 1)))
