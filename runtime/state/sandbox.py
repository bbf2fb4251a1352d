"""What a process gives up for good at its start: Landlock, which the kernel lets anybody ask for.

Core, gateway and the others have a user each where the installed unit starts them (`process_users.py`); on a laptop
they are one user, and file permissions do not part them. A confined process writes only into the folders that it is
given, opens no device (no serial port, no pty), no TCP port that it was not given, sends signals only to its own, and
looks into no process outside: not its memory, not its descriptors. It has to ask before it starts a thread.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
CREATE, ADD, RESTRICT = 444, 445, 446  # the same on every architecture
VERSION_FLAG = 1
PATH_BENEATH, NET_PORT = 1, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
ALL_BY_VERSION = ((1, (1 << 13) - 1), (2, 1 << 13), (3, TRUNCATE), (5, IOCTL_DEV))
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SCOPE_ABSTRACT, SCOPE_SIGNAL = 1 << 0, 1 << 1
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
PRODUCT = str(Path(__file__).resolve().parents[2])  # our own files, where an environment only points to them
READABLE = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/opt", "/run/systemd")

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """What this kernel's Landlock can do, 0 where there is none."""
    found = int(_libc.syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG)))
    return max(0, found)


def _is_refused() -> bool:
    """Whether a filter around this process keeps Landlock from it; a kernel without it has another error."""
    found = int(_libc.syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG)))
    return found < 0 and ctypes.get_errno() == errno.EPERM


def confine(
    writes: Iterable[Path],
    reads: Iterable[Path] = (),
    *,
    binds: Iterable[int] = (),
    reaches: Iterable[int] = (),
    connects: bool = False,
    devices: Iterable[Path] = (),
    signals: bool = False,
) -> str:
    """Give up everything else, for this thread and all that it starts; what the kernel cannot do, "" = nothing.

    writes, reads : folders and files; what is not there is left out. binds : TCP ports to listen at. reaches : TCP
    ports to connect to. connects : TCP to other machines stays allowed. devices : which may be opened all the same.
    signals : to others are left to the filter of calls (`syscalls.py`).
    """
    able = version()
    if not able:
        if _is_refused():
            return "a filter around this process refuses it Landlock: allow landlock_* in SystemCallFilter"
        return "this kernel has no Landlock: only file permissions part the processes"
    files = 0
    for since, rights in ALL_BY_VERSION:
        files |= rights if able >= since else 0
    net = (BIND_TCP | (0 if connects else CONNECT_TCP)) if able >= 4 else 0
    words = struct.pack("QQQ", files, net, SCOPE_ABSTRACT if signals else SCOPE_SIGNAL | SCOPE_ABSTRACT)
    size = 24 if able >= 6 else 16 if able >= 4 else 8
    ruleset = _called(CREATE, words[:size], ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        look = EXECUTE | READ_FILE | READ_DIR
        own = [Path(one) for one in {sys.prefix, sys.base_prefix, *sys.path, PRODUCT} if one]
        for path in [*map(Path, READABLE), *own, *reads]:
            _allow(ruleset, path, look & files)
        for path in map(Path, DEVICES):
            _allow(ruleset, path, (READ_FILE | WRITE_FILE) & files)
        for path in devices:
            _allow(ruleset, path, (READ_FILE | WRITE_FILE | IOCTL_DEV) & files)
        for path in writes:
            _allow(ruleset, path, (files & ~EXECUTE & ~IOCTL_DEV))
        for port in binds if net else ():
            _called(ADD, ctypes.c_int(ruleset), NET_PORT, struct.pack("QQ", BIND_TCP, port), ctypes.c_uint32(0))
        for port in reaches if net else ():
            _called(ADD, ctypes.c_int(ruleset), NET_PORT, struct.pack("QQ", CONNECT_TCP, port), ctypes.c_uint32(0))
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs")
        _called(RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return "" if able >= 6 else f"Landlock {able} of this kernel does not bound {'signals' if able >= 4 else 'TCP'}"


def _called(number: int, *words: object) -> int:
    done = int(_libc.syscall(number, *words))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return done


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not there: then nobody needs it
        return
    try:
        if not path.is_dir():
            rights &= OF_A_FILE
        _called(ADD, ctypes.c_int(ruleset), PATH_BENEATH, struct.pack("=Qi", rights, fd), ctypes.c_uint32(0))
    finally:
        os.close(fd)
