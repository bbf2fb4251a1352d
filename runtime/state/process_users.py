"""A user of its own for each process of an installed site: who they are, and which folder belongs to whose group.

The package makes the users (packaging/sysusers/tidegate.conf). The supervisor runs as the service's user, which is in
the group of each of the others, and may become them and nobody else (the unit gives it the capabilities, `syscalls.py`
takes the rest). It owns a site's folders; a process reaches its own by its group. Where users or capabilities are not
there, on a laptop or in a container, every process has our own user, and Landlock and the filter of calls part them.
"""

import contextlib
import ctypes
import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SERVICE = "tidegate"
DEVICE_KEY = "carbon-key.pem"  # in the site's state folder; named so since its first use
CHILDREN = (
    "core",
    "gateway",
    "remote",
    "recorder",
    "carbon",
    "telemetry",
)  # of the supervisor
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN = 5, 6, 7, 12
NEEDED = (CAP_KILL, CAP_SETGID, CAP_SETUID)
PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER = 47, 3
UMASK = 0o002  # of a process with a user of its own: its group writes too, the folder around it says who gets there
ENTERED, HIDDEN, READ_ONLY = 0o2775, 0o2770, 0o2750  # by whoever may enter the site's folder; by the group; read by it

_libc = ctypes.CDLL(None, use_errno=True)


class Identity(NamedTuple):
    """A user as a process has it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class Room(NamedTuple):
    """A folder in the site's state folder, whose group it belongs to, and its mode."""

    folder: str
    process: str
    mode: int


# Users of the console and the page are one table: the page makes logins, so it writes there.
ROOMS = (
    Room("held", "gateway", HIDDEN),
    Room("journal", "gateway", ENTERED),
    Room("keys", "remote", READ_ONLY),
    Room("recordings", "recorder", ENTERED),
    Room("carbon", "carbon", ENTERED),
    Room("telemetry", "telemetry", ENTERED),
    Room("console", "web", HIDDEN),
    Room("web", "web", HIDDEN),
    Room("notify", "notify", HIDDEN),
)
REMOTE_ROOM = "remote"  # in the runtime folder: the sockets between gateway and remote
RUNTIME_MODE = 0o2771


def user_of(process: str) -> str:
    """The name of the user that belongs to a process."""
    return f"{SERVICE}-{process}"


def identity_of(name: str) -> Identity | None:
    """A user with the groups that it has on this machine, None where there is none of that name."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(os.getgrouplist(name, found.pw_gid))
    return Identity(name, found.pw_uid, found.pw_gid, groups)


def has_capabilities(wanted: Iterable[int] = NEEDED) -> bool:
    """Tell whether this process has them in effect."""
    text = Path("/proc/self/status").read_text()
    held = int(text.partition("CapEff:")[2].split()[0], 16)
    return all(held >> one & 1 for one in wanted)


def why_shared() -> str:
    """Why the processes that we start have our own user, "" where each gets its own."""
    own = identity_of(SERVICE)
    if own is None or own.uid != os.geteuid():
        return f"the user is not {SERVICE}, that of the installed service"
    lacks = [user_of(one) for one in CHILDREN if identity_of(user_of(one)) is None]
    if lacks:
        return f"there is no user {', '.join(lacks)}; the package makes them"
    if not has_capabilities():
        return "only the unit tidegate@NAME.service may start processes as other users"
    return ""


def identities() -> dict[str, Identity]:
    """Process -> its user, for those that the supervisor starts; empty where they share ours."""
    if why_shared():
        return {}
    found = {one: identity_of(user_of(one)) for one in CHILDREN}
    return {one: who for one, who in found.items() if who is not None}


def become(who: Identity, keeps: Iterable[int] = ()) -> None:
    """Between fork and exec: become this user, with no capability that is not named. Raises OSError."""
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
    for one in {*NEEDED, CAP_NET_ADMIN} - set(keeps):
        # What is not ambient is gone with the next exec, since we are not root.
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, one, 0, 0)
    os.umask(UMASK)


def is_room(folder: Path) -> bool:
    """Tell whether a folder belongs to the group of one of our processes: what lies in it is for that group."""
    try:
        seen = folder.stat()
        return bool(seen.st_mode & stat.S_ISGID) and grp.getgrgid(seen.st_gid).gr_name.startswith(f"{SERVICE}-")
    except (OSError, KeyError):
        return False


def mode_in(folder: Path, mode: int) -> int:
    """The mode of a file in a folder: in a room its group reads what its owner reads."""
    return mode | (mode & 0o400) >> 3 if is_room(folder) else mode


def shared_mode(folder: Path) -> int:
    """The mode of a file that is written for long: in a room its group writes it too, whoever began it."""
    return 0o664 if is_room(folder) else 0o640


def is_ours(seen: os.stat_result) -> bool:
    """Tell whether a folder that another user owns is a room of ours: of our service, and of a group that we are in."""
    try:
        owner, group = pwd.getpwuid(seen.st_uid).pw_name, grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        return False
    of_service = owner == SERVICE or owner.startswith(f"{SERVICE}-")
    return of_service and group.startswith(SERVICE) and seen.st_gid in {os.getegid(), *os.getgroups()}


def share(state: Path, runtime: Path, lent: Iterable[tuple[Path, str]] = ()) -> list[str]:
    """Give each process its folder, with all of ours that lies in it; what could not be, in words.

    By the service's user at the start of a site, before any process: so a site that ran under one user before keeps
    what it has. lent : files beside that and the process that reads them.
    """
    problems = []
    for room in ROOMS:
        problems += _give(state / room.folder, room.process, room.mode)
    problems += _give(runtime, "gateway", RUNTIME_MODE)
    problems += _give(runtime / REMOTE_ROOM, "remote", HIDDEN)
    for path, process in lent:
        with contextlib.suppress(FileNotFoundError):
            problems += _lend(path, process)
    return problems


def _give(folder: Path, process: str, mode: int) -> list[str]:
    """A folder, and what is ours in it, to the group of a process."""
    who = identity_of(user_of(process))
    if who is None:
        return [f"{folder}: there is no user {user_of(process)}"]
    problems = []
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder = folder.resolve()  # of keys: where the site file puts them
        for path in sorted(folder.rglob("*")):
            seen = path.lstat()
            if seen.st_uid == os.geteuid() and (seen.st_gid != who.gid or mode != READ_ONLY):
                problems += _file(path, seen, who.gid, mode)
        seen = folder.stat()
        if seen.st_uid == os.geteuid():
            if seen.st_gid != who.gid:
                os.chown(folder, -1, who.gid)
            os.chmod(folder, mode)  # after: a change of the group may take the bit away
        elif not is_ours(seen):
            problems.append(f"{folder} belongs to {pwd.getpwuid(seen.st_uid).pw_name}; chown {SERVICE} {folder}")
    except (OSError, KeyError) as why:
        problems.append(f"{folder}: {why}")
    return problems


def _file(path: Path, seen: os.stat_result, gid: int, mode: int) -> list[str]:
    """What lies in a room: its group gets what its owner has, or reads it only."""
    if stat.S_ISLNK(seen.st_mode):
        return []
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as why:
        return [f"{path}: {why.strerror}"]
    try:
        here = f"/proc/self/fd/{fd}"
        now = os.fstat(fd)
        # Whoever writes this folder may have put a link to another file of ours, or another folder, in its place.
        if os.readlink(here) != str(path) or not os.path.samestat(now, seen):
            return [f"{path}: was replaced while it was handed out; it is left as it is"]
        if now.st_gid != gid:
            os.chown(here, -1, gid)
        held = stat.S_IMODE(now.st_mode)
        if stat.S_ISDIR(now.st_mode):
            os.chmod(here, mode)
        else:
            os.chmod(here, held | (held & (0o400 if mode == READ_ONLY else 0o600)) >> 3)
    except OSError as why:
        return [f"{path}: {why.strerror}"]
    finally:
        os.close(fd)
    return []


def _lend(path: Path, process: str) -> list[str]:
    """A file with a secret to the one process that reads it; nothing where it is not ours to give."""
    who, seen = identity_of(user_of(process)), path.stat()
    if who is None:
        return []
    if seen.st_uid != os.geteuid():
        remedy = f"chown {SERVICE}:{who.name} {path}; chmod 640 {path}"
        return (
            [] if seen.st_gid == who.gid else [f"{path}: {who.name} reads it and {SERVICE} does not own it; {remedy}"]
        )
    os.chown(path, -1, who.gid)
    os.chmod(path, 0o640)
    return []


def may_read_secret(seen: os.stat_result) -> bool:
    """Tell whether a file with a secret is kept from others: its owner reads it, and at most one process's group."""
    if seen.st_mode & 0o077 == 0:
        return True
    try:
        group = grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        return False
    return seen.st_mode & 0o037 == 0 and group.startswith(f"{SERVICE}-")
