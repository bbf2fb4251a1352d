"""What parts a site's processes from each other on this machine: users, Landlock, the filter of calls."""

import os
from pathlib import Path

from tidegate.runtime.commissioning.machine import COSTS, OK, Finding
from tidegate.runtime.state import sandbox, syscalls

SIGNALS_SINCE, TCP_SINCE = 6, 4  # versions of Landlock
ONE_USER = "all processes of a site run as one user"


def look(*, landlock: int | None = None, filters: bool | None = None, uid: int | None = None) -> Finding:
    """What holds here. The arguments stand in for what this kernel, machine and user are."""
    landlock = sandbox.version() if landlock is None else landlock
    filters = has_filters() if filters is None else filters
    uid = os.geteuid() if uid is None else uid
    lacks, remedies = [], []
    if not landlock:
        lacks.append("no Landlock: one process that was taken over can write the files of all")
        remedies.append("boot with lsm=landlock,... on a kernel from 5.13")
    elif landlock < TCP_SINCE:
        lacks.append(f"Landlock {landlock}, which bounds files only, not TCP")
        remedies.append("a kernel from 6.12")
    elif landlock < SIGNALS_SINCE:
        lacks.append(f"Landlock {landlock}, which does not bound signals (the filter of calls does)")
        remedies.append("a kernel from 6.12")
    if not filters:
        lacks.append("no filter of calls: every call of the kernel stays open to every process")
        remedies.append("a kernel with CONFIG_SECCOMP_FILTER on x86-64, AArch64, 32-bit ARM or RISC-V")
    if not uid:
        lacks.append("it would run as root")
        remedies.append("run the site as the service's user: tidegate@NAME.service")
    values = {"landlock": landlock, "filters": filters, "uid": uid}
    if lacks:
        return Finding("separation", COSTS, f"{ONE_USER}, and {'; '.join(lacks)}", "; ".join(remedies), values)
    said = f"{ONE_USER}, parted by Landlock {landlock} and a filter of calls"
    return Finding("separation", OK, said, values=values)


def has_filters() -> bool:
    """Whether this kernel takes filters, and we know the calls of this machine."""
    return syscalls.machine() is not None and Path("/proc/sys/kernel/seccomp/actions_avail").exists()
