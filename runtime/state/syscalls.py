"""Which calls of the kernel a process gives up for good at its start: a seccomp filter of classic BPF, made here.

Landlock (`sandbox.py`) bounds what files, ports and processes are reached; this bounds the doors to the kernel itself.
Nobody behind it starts a program or a process, traces, mounts, loads code into the kernel, becomes another user, sets a
clock, opens a socket of a kind that it does not need, or sends a signal to anybody but itself. It is inherited by all
threads and cannot be taken off. A refused call fails with EPERM, so that the caller says what it could not do.

A list of what is forbidden, not of what is allowed: a new libc that uses a new call must not stop a battery controller.
"""

import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
TO_ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC
KILL, FAIL, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCH_AT = 0, 4  # in the kernel's struct seccomp_data
X32_BIT = 0x40000000  # a second table of calls on x86-64; nobody here uses it
CLONE_THREAD = 0x00010000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # type into somebody's terminal

LOCAL = (socket.AF_UNIX,)
NETWORK = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)  # NETLINK: libc asks for our addresses
BUSES = (*NETWORK, socket.AF_CAN)

TO_START = ("execve", "fork", "vfork")

# Names as in <asm/unistd.h>; numbers of x86-64, of the machines with the kernel's common table (AArch64, RISC-V) and of
# 32-bit ARM. None: that machine has no such call.
_NUMBERS: dict[str, tuple[int | None, int | None, int | None]] = {
    # other programs and processes
    "execve": (59, 221, 11), "execveat": (322, 281, 387), "fork": (57, None, 2), "vfork": (58, None, 190),
    "ptrace": (101, 117, 26), "process_vm_readv": (310, 270, 376), "process_vm_writev": (311, 271, 377),
    "kcmp": (312, 272, 378), "pidfd_getfd": (438, 438, 438), "pidfd_send_signal": (424, 424, 424),
    "process_madvise": (440, 440, 440), "tkill": (200, 130, 238),
    # file systems and namespaces
    "mount": (165, 40, 21), "umount2": (166, 39, 52), "pivot_root": (155, 41, 218), "chroot": (161, 51, 61),
    "unshare": (272, 97, 337), "setns": (308, 268, 375), "open_tree": (428, 428, 428), "move_mount": (429, 429, 429),
    "fsopen": (430, 430, 430), "fsconfig": (431, 431, 431), "fsmount": (432, 432, 432), "fspick": (433, 433, 433),
    "mount_setattr": (442, 442, 442), "swapon": (167, 224, 87), "swapoff": (168, 225, 115), "quotactl": (179, 60, 131),
    "name_to_handle_at": (303, 264, 370), "open_by_handle_at": (304, 265, 371), "mknod": (133, None, 14),
    "mknodat": (259, 33, 324),
    # another user
    "setuid": (105, 146, 23), "setgid": (106, 144, 46), "setreuid": (113, 145, 70), "setregid": (114, 143, 71),
    "setresuid": (117, 147, 164), "setresgid": (119, 149, 170), "setgroups": (116, 159, 81),
    "setfsuid": (122, 151, 138), "setfsgid": (123, 152, 139), "capset": (126, 91, 185),
    "chown": (92, None, 182), "fchown": (93, 55, 95), "lchown": (94, None, 16), "fchownat": (260, 54, 325),
    # ... by ids of 32 bits, where the older calls know 16
    "setuid32": (None, None, 213), "setgid32": (None, None, 214), "setreuid32": (None, None, 203),
    "setregid32": (None, None, 204), "setresuid32": (None, None, 208), "setresgid32": (None, None, 210),
    "setgroups32": (None, None, 206), "setfsuid32": (None, None, 215), "setfsgid32": (None, None, 216),
    "chown32": (None, None, 212), "fchown32": (None, None, 207), "lchown32": (None, None, 198),
    # the kernel and the machine
    "bpf": (321, 280, 386), "perf_event_open": (298, 241, 364), "userfaultfd": (323, 282, 388),
    "io_uring_setup": (425, 425, 425), "io_uring_enter": (426, 426, 426), "io_uring_register": (427, 427, 427),
    "init_module": (175, 105, 128), "finit_module": (313, 273, 379), "delete_module": (176, 106, 129),
    "kexec_load": (246, 104, 347), "kexec_file_load": (320, 294, 401), "reboot": (169, 142, 88),
    "add_key": (248, 217, 309), "request_key": (249, 218, 310), "keyctl": (250, 219, 311),
    "personality": (135, 92, 136), "acct": (163, 89, 51), "syslog": (103, 116, 103),
    "iopl": (172, None, None), "ioperm": (173, None, None),
    "sethostname": (170, 161, 74), "setdomainname": (171, 162, 121), "vhangup": (153, 58, 111),
    "fanotify_init": (300, 262, 367),
    # clocks: read by everybody, set by nobody
    "settimeofday": (164, 170, 79), "clock_settime": (227, 112, 262), "clock_settime64": (None, None, 404),
}  # fmt: skip
_MORE: dict[str, tuple[int, int, int]] = {
    "kill": (62, 129, 37), "tgkill": (234, 131, 268), "rt_sigqueueinfo": (129, 138, 178),
    "rt_tgsigqueueinfo": (297, 240, 363), "socket": (41, 198, 281), "clone": (56, 220, 120), "clone3": (435, 435, 435),
    "ioctl": (16, 29, 54), "seccomp": (317, 277, 383),
}  # fmt: skip
_TABLES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1), "riscv64": (0xC00000F3, 1), "arm": (0x40000028, 2)}


class Machine(NamedTuple):
    """A kind of machine: how the kernel names it to a filter, and its numbers of calls."""

    arch: int
    numbers: dict[str, int]

    @property
    def forbidden(self) -> list[int]:
        return sorted(self.numbers[name] for name in _NUMBERS if name in self.numbers)


def kind() -> str:
    """Kind of machine that this process is compiled for: a 32-bit one has its own calls, whatever kernel runs it."""
    name = platform.machine()
    if sys.maxsize > 1 << 32:
        return name
    return "arm" if name.startswith(("arm", "aarch64")) else f"{name}, 32 bit"


def machine(name: str | None = None) -> Machine | None:
    """What is known of a kind of machine, by default that of this process; None where nothing is."""
    found = _TABLES.get(name or kind())
    if found is None:
        return None
    arch, column = found
    numbers = {call: row[column] for call, row in {**_NUMBERS, **_MORE}.items()}
    return Machine(arch, {call: number for call, number in numbers.items() if number is not None})


def program(
    here: Machine, families: Iterable[int], *, signals: Iterable[int] = (), pid: int | None = None, starts: bool = False
) -> list[tuple[int, int, int, int]]:
    """The filter, as instructions (code, jump if true, jump if not, operand).

    families : kinds of sockets that may be opened. signals : which may be sent to other processes. pid : who we are.
    starts : programs may be started; they are behind the same filter.
    """
    no, own = FAIL | errno.EPERM, os.getpid() if pid is None else pid
    made = [
        (LOAD, 0, 0, ARCH_AT), (EQUAL, 1, 0, here.arch), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, no),
    ]  # fmt: skip

    def when(call: str, *then: tuple[int, int, int, int]) -> None:
        made.extend([(EQUAL, 0, len(then), here.numbers[call]), *then])

    def allowed(argument: int, values: Iterable[int]) -> list[tuple[int, int, int, int]]:
        """Leave with ALLOW if the lower half of an argument, all that these calls take, is one of the values."""
        listed = [(LOAD, 0, 0, 16 + 8 * argument)]
        for value in values:
            listed += [(EQUAL, 0, 1, value & 0xFFFFFFFF), (RETURN, 0, 0, ALLOW)]
        return listed

    for call in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        to_others = allowed(1, signals) if call == "kill" else []
        when(call, *allowed(0, [own]), *to_others, (RETURN, 0, 0, no))
    when("socket", *allowed(0, families), (RETURN, 0, 0, no))
    if not starts:
        when("clone", (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, no))
    # Its words lie in memory, where no filter looks; libc then takes `clone`.
    when("clone3", (RETURN, 0, 0, FAIL | errno.ENOSYS))
    when(
        "ioctl", (LOAD, 0, 0, 24), (EQUAL, 1, 0, TIOCSTI), (EQUAL, 0, 1, TIOCLINUX),
        (RETURN, 0, 0, no), (RETURN, 0, 0, ALLOW),
    )  # fmt: skip
    open_to_it = {here.numbers.get(name) for name in TO_START} if starts else set()
    for number in here.forbidden:
        if number in open_to_it:
            continue
        made += [(EQUAL, 0, 1, number), (RETURN, 0, 0, no)]
    return [*made, (RETURN, 0, 0, ALLOW)]


def forbid(families: Iterable[int] = LOCAL, *, signals: Iterable[int] = (), starts: bool = False) -> str:
    """Give up what no part of us needs, for every thread of this process; what could not be, "" = nothing.

    families, signals, starts : as for `program`. Raises OSError where the kernel refuses a filter that it should take.
    """
    here = machine()
    if here is None or sys.byteorder != "little":
        return f"no list of calls for a machine of kind {kind()}: every call of the kernel stays open"
    return _filtered(here, program(here, families, signals=signals, starts=starts))


ANY_ID = 0xFFFFFFFF  # -1: that id stays as it is


def program_of_users(here: Machine, uids: Iterable[int], gids: Iterable[int]) -> list[tuple[int, int, int, int]]:
    """The filter of a process that may become a few users and nobody else, root least of all."""
    no = FAIL | errno.EPERM
    made = [
        (LOAD, 0, 0, ARCH_AT), (EQUAL, 1, 0, here.arch), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, no),
    ]  # fmt: skip
    for call, ids in (("setresuid", uids), ("setresgid", gids), ("setresuid32", uids), ("setresgid32", gids)):
        if call not in here.numbers:
            continue
        listed = sorted({*ids, ANY_ID})
        then: list[tuple[int, int, int, int]] = []
        for argument in range(3):
            then.append((LOAD, 0, 0, 16 + 8 * argument))
            for left, value in zip(range(len(listed), 0, -1), listed, strict=True):
                then.append((EQUAL, left, 0, value & 0xFFFFFFFF))  # past the others and the refusal
            then.append((RETURN, 0, 0, no))
        then.append((RETURN, 0, 0, ALLOW))
        made += [(EQUAL, 0, len(then), here.numbers[call]), *then]
    for name in OTHER_WAYS_TO_BE_SOMEBODY:
        if name in here.numbers:
            made += [(EQUAL, 0, 1, here.numbers[name]), (RETURN, 0, 0, no)]
    return [*made, (RETURN, 0, 0, ALLOW)]


# `setgroups` has its words in memory, where no filter looks: it stays open.
OTHER_WAYS_TO_BE_SOMEBODY = (
    "setuid", "setgid", "setreuid", "setregid", "setfsuid", "setfsgid", "setuid32", "setgid32", "setreuid32",
    "setregid32", "setfsuid32", "setfsgid32",
)  # fmt: skip


def forbid_users(uids: Iterable[int], gids: Iterable[int]) -> str:
    """Give up becoming anybody but these, for this process and all that it starts; what could not be, "" = nothing."""
    here = machine()
    if here is None or sys.byteorder != "little":
        return f"no list of calls for a machine of kind {kind()}: the supervisor may become any user"
    return _filtered(here, program_of_users(here, list(uids), list(gids)))


def _filtered(here: Machine, made: list[tuple[int, int, int, int]]) -> str:
    """Put a filter over every thread of this process; why that could not be, "" = it is there."""
    code = b"".join(struct.pack("HBBI", *one) for one in made)
    kept = ctypes.create_string_buffer(code, len(code))
    words = struct.pack("@HP", len(made), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    done = libc.syscall(here.numbers["seccomp"], SECCOMP_SET_MODE_FILTER, ctypes.c_ulong(TO_ALL_THREADS), words)
    if not done:
        return ""
    code_of_it = ctypes.get_errno()
    if done < 0 and code_of_it == errno.EPERM:
        return "a filter around this process does not let it have one of its own: allow `seccomp` in SystemCallFilter"
    if done < 0 and code_of_it in (errno.ENOSYS, errno.EINVAL):
        return "this kernel has no seccomp filters: every call of the kernel stays open"
    raise OSError(code_of_it or errno.EAGAIN, "seccomp: the filter was not taken by every thread")


STOP_SIGNALS = (0, signal.SIGUSR1)  # is there somebody, and the stop that needs no gateway
