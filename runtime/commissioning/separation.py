"""What parts a site's processes from each other on this machine: users, Landlock, the filter of calls."""

import os
from pathlib import Path

from tidegate.runtime.commissioning.machine import COSTS, OK, Finding
from tidegate.runtime.state import process_users, sandbox, syscalls

SIGNALS_SINCE, TCP_SINCE = 6, 4  # versions of Landlock
ONE_USER = "all processes of a site run as one user"
OWN_USERS = "each process has a user of its own where the unit starts it"


def look(
    *, landlock: int | None = None, filters: bool | None = None, uid: int | None = None, own_users: bool | None = None
) -> Finding:
    """What holds here. The arguments stand in for what this kernel, machine and user are.

    own_users : the users of the package are there, and we are the service's: its unit then parts the processes.
    """
    landlock = sandbox.version() if landlock is None else landlock
    filters = has_filters() if filters is None else filters
    uid = os.geteuid() if uid is None else uid
    users = OWN_USERS if (has_users() if own_users is None else own_users) else ONE_USER
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
        return Finding("separation", COSTS, f"{users}, and {'; '.join(lacks)}", "; ".join(remedies), values)
    said = f"{users}, parted by Landlock {landlock} and a filter of calls"
    return Finding("separation", OK, said, values=values)


def has_users() -> bool:
    """Whether a site of this user, started by its unit, has a user for each process."""
    own = process_users.identity_of(process_users.SERVICE)
    names = [process_users.user_of(one) for one in process_users.CHILDREN]
    return own is not None and own.uid == os.geteuid() and all(process_users.identity_of(name) for name in names)


def has_filters() -> bool:
    """Whether this kernel takes filters, and we know the calls of this machine."""
    return syscalls.machine() is not None and Path("/proc/sys/kernel/seccomp/actions_avail").exists()
