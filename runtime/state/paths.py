"""Where a running site keeps its sockets, its lock, its journal and its keys."""

import contextlib
import errno
import fcntl
import os
import pwd
import re
import stat
from pathlib import Path

from tidegate.runtime.state.process_users import is_ours

# A UNIX socket's path ends at 107 bytes, the longest name that we put behind the folder is "/stream".
SOCKET_PATH_MAX = 107
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
# Of the installed service: its package makes them, and they belong to its user.
SERVICE_RUNTIME = Path("/run/tidegate")
SERVICE_STATE = Path("/var/lib/tidegate")


class SiteBusy(RuntimeError):
    """Another `tidegate run` of the same site is alive; `pid` is its process."""

    def __init__(self, site: str, pid: int, lock: Path) -> None:
        self.pid = pid
        super().__init__(f"site {site!r} is already run by process {pid} (lock {lock}); stop that one first")


def folder_name(site: str) -> str:
    """Give the name of the folder of a site: its own where that is a plain word, else with the odd letters replaced."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", site).lstrip("._-")[:48]
    if not NAME.fullmatch(plain):
        raise ValueError(f"site name {site!r} has no letter or digit in it; give [site] name one")
    return plain


def _ours(path: Path) -> bool:
    """Whether a folder of the installed service belongs to us: then we are the service's user, or one for it."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def runtime_root() -> Path:
    """Give the folder for sockets and locks: it is gone after a reboot."""
    given = os.environ.get("TIDEGATE_RUNTIME_DIR")
    if given:
        return Path(given)
    if _ours(SERVICE_RUNTIME):
        return SERVICE_RUNTIME
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.access(session, os.W_OK):
        return Path(session) / "tidegate"
    if os.geteuid() == 0:
        return SERVICE_RUNTIME
    return Path(f"/tmp/tidegate-{os.getuid()}")


def state_root() -> Path:
    """Give the folder for what must outlive a reboot: journal, ledger, keys."""
    given = os.environ.get("TIDEGATE_STATE_DIR")
    if given:
        return Path(given)
    if os.geteuid() == 0 or _ours(SERVICE_STATE):
        return SERVICE_STATE
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "tidegate"


def user_name(uid: int) -> str:
    """The name of a user for people, or the number where nobody has that."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def private_folder(path: Path, mode: int = 0o750) -> Path:
    """Make a folder that nobody but us (and our group) can enter, or refuse one that belongs to somebody else.

    Raises PermissionError: in /tmp another user could have made it first, and then would own our sockets.
    """
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    seen = path.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        raise PermissionError(f"{path} is not a folder; remove it")
    if seen.st_uid != os.geteuid() and not is_ours(seen):
        owner = user_name(seen.st_uid)
        become = f"runuser -u {owner} --" if os.geteuid() == 0 else f"sudo -u {owner}"
        raise PermissionError(
            f"{path} belongs to user {owner}, not to {user_name(os.geteuid())}; do this as that user "
            f"({become} tidegate ...), or remove it"
        )
    if seen.st_mode & 0o002:
        raise PermissionError(f"{path} can be written by anybody (mode {seen.st_mode & 0o777:o}); chmod o-w {path}")
    return path


def runtime_dir(site: str, root: Path | None = None) -> Path:
    """Make and give the folder of the site's sockets and lock.

    Raises ValueError if a socket in it would have too long a path for the kernel.
    """
    path = private_folder(root or runtime_root()) / folder_name(site)
    if len(os.fsencode(path)) + len("/stream") > SOCKET_PATH_MAX:
        raise ValueError(f"{path}: too long for a socket ({SOCKET_PATH_MAX} bytes); set TIDEGATE_RUNTIME_DIR shorter")
    return private_folder(path)


def state_dir(site: str, root: Path | None = None) -> Path:
    """Make and give the folder of the site's journal, ledger and keys."""
    return private_folder((root or state_root()) / folder_name(site))


class SiteLock:
    """The right to run a site: held by a lock that the kernel drops when the process ends, however it ends.

    state : its state folder, where a second one with another runtime folder finds it too. A disk that refuses that
    keeps no site from running; `problem` says so.
    """

    def __init__(self, site: str, folder: Path, state: Path | None = None, *, name: str = "lock") -> None:
        self.site = site
        self.path = folder / name
        self.problem = ""
        self._fd = -1
        self._second = SiteLock(site, state, name=".lock") if state is not None else None

    def acquire(self) -> None:
        """Take the lock and write our pid into it. Raises SiteBusy with the pid of the holder."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as why:
            holder = os.read(fd, 32).split(b"\n")[0]
            os.close(fd)
            if why.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise SiteBusy(self.site, int(holder) if holder.isdigit() else 0, self.path) from None
        with contextlib.suppress(OSError):  # of an earlier release: the folder around it says who may look
            os.fchmod(fd, 0o644)
        self._fd = fd
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        if self._second is not None:
            try:
                self._second.acquire()
            except SiteBusy:
                self.release()
                raise
            except OSError as why:
                self.problem = f"{self._second.path}: {why.strerror}; a second site in that folder would not be noticed"

    def release(self) -> None:
        """Give the lock back; the file stays, so that two starters can never hold two different files."""
        if self._second is not None:
            self._second.release()
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def running_sites(root: Path | None = None) -> dict[str, int]:
    """Give folder name -> pid of each site that runs under this user's runtime folder."""
    found: dict[str, int] = {}
    base = root or runtime_root()
    if not base.is_dir():
        return found
    for lock in sorted(base.glob("*/lock")):
        try:
            fd = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 32).split(b"\n")[0]
            found[lock.parent.name] = int(holder) if holder.isdigit() else 0
        finally:
            os.close(fd)
    return found
