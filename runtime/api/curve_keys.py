"""CURVE keys and who may do what with them.

Folder `keys` of a site's state: `server.key` (made at the first start, unlike on any other device), `roles.toml`
(one [[key]] a client: name, public, role), and the client key files made by `tidegate keys make`, which belong on the
client's machine. All are text, Z85 as ZeroMQ writes keys.
"""

import contextlib
import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

import zmq

from tidegate.runtime.api import messages
from tidegate.runtime.state.key_store import KeyProblem as KeyProblem
from tidegate.runtime.state.key_store import folder_of as folder_of
from tidegate.runtime.state.key_store import one_store as one_store
from tidegate.runtime.state.plain_file import read_plain
from tidegate.runtime.state.process_users import mode_in

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
RELOAD_NS = 1_000_000_000
SERVER_KEY = "server.key"


class Granted(NamedTuple):
    name: str
    role: messages.Role


def _write(path: Path, text: str, mode: int) -> None:
    """Replace a file whole, so that a reader sees the old or the new one and never half of one."""
    mode = mode_in(path.parent, mode)
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _read_private(path: Path) -> dict[str, object]:
    seen = path.stat()
    if seen.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeyProblem(f"{path}: others may read or write it (mode {seen.st_mode & 0o777:o}); run: chmod 600 {path}")
    try:
        return tomllib.loads(read_plain(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as why:
        raise KeyProblem(f"{path}: not a key file: {why}") from None


def _key(path: Path, table: dict[str, object], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not Z85.fullmatch(value):
        raise KeyProblem(f"{path}: {name} must be a key of 40 Z85 characters")
    return value


def server_keys(folder: Path) -> tuple[str, str]:
    """(public, secret) of this device; made at the first call."""
    path = folder / SERVER_KEY
    if not path.exists():
        public, secret = (key.decode() for key in zmq.curve_keypair())
        _write(path, f'# Secret of this device. Never copy it.\npublic = "{public}"\nsecret = "{secret}"\n', 0o600)
    table = _read_private(path)
    return _key(path, table, "public"), _key(path, table, "secret")


def _client_file(path: Path) -> dict[str, object]:
    try:
        return _read_private(path)
    except OSError as why:
        raise KeyProblem(
            f"{path}: {why.strerror}; `tidegate keys grant NAME` on the site's machine makes one"
        ) from None


def client_keys(path: Path) -> tuple[str, str, str]:
    """(public, secret, the server's public) from a client key file."""
    table = _client_file(path)
    return _key(path, table, "public"), _key(path, table, "secret"), _key(path, table, "server")


def client_endpoint(path: Path) -> str | None:
    """Where the site of a client key file is found; None where that was not known when the file was written."""
    found = _client_file(path).get("endpoint")
    if found is not None and not isinstance(found, str):
        raise KeyProblem(f"{path}: endpoint must be a text such as tcp://10.0.0.7:7400")
    return found


class Roles:
    """The table of keys that may connect, read again when the file changes.

    A table that cannot be read refuses everybody: what was granted before is not known to be granted still.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "roles.toml"
        self.problem = ""
        self._granted: dict[str, Granted] = {}
        self._stamp: tuple[int, int, int] | None = (0, 0, 0)
        self._asked_ns = -RELOAD_NS
        self._sound: dict[str, Granted] = {}  # the table as it was last understood
        self._lost: set[str] = set()
        self.reload(0)

    def role(self, public: str) -> Granted | None:
        """Name and role of a key, None if nothing is granted to it."""
        return self._granted.get(public)

    def named(self, name: str) -> Granted | None:
        """What is granted to a name now."""
        return next((granted for granted in self._granted.values() if granted.name == name), None)

    def take_lost(self) -> set[str]:
        """Names that lost a right since this was asked last, by a table that was understood."""
        lost, self._lost = self._lost, set()
        return lost

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._granted.items())

    def reload(self, now_ns: int) -> bool:
        """Read the table if it has changed and a second has passed; true if somebody lost a right."""
        if now_ns - self._asked_ns < RELOAD_NS:
            return False
        self._asked_ns = now_ns
        try:
            seen = self.path.stat()
            stamp: tuple[int, int, int] | None = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before = self._granted
        try:
            self._granted = read_roles(self.path)
            self.problem = ""
            self._lost |= {one.name for key, one in self._sound.items() if _is_less(self._granted.get(key), one)}
            self._sound = self._granted
        except (KeyProblem, OSError) as why:
            self._granted = {}
            self.problem = str(why)
            self._stamp = (-1, -1, -1)  # asked again in a second, also where the file stays as it is
        return any(self._granted.get(key) != granted for key, granted in before.items())


def _is_less(now: Granted | None, before: Granted) -> bool:
    """Whether a key may do less than before, or under another name."""
    if now is None or now.name != before.name:
        return True
    return messages.ROLES.index(now.role) < messages.ROLES.index(before.role)


def read_roles(path: Path) -> dict[str, Granted]:
    """Public key -> name and role. Raises KeyProblem for a table with anything in it that is not understood."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return {}
    if seen.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        raise KeyProblem(f"{path}: others may write it (mode {seen.st_mode & 0o777:o}); run: chmod 640 {path}")
    try:
        table = tomllib.loads(read_plain(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as why:
        raise KeyProblem(f"{path}: not TOML: {why}") from None
    found: dict[str, Granted] = {}
    names: set[str] = set()
    if set(table) - {"key"} or not isinstance(table.get("key", []), list):
        raise KeyProblem(f"{path}: expected only [[key]] rows")
    for number, row in enumerate(table.get("key", [])):
        where = f"{path}: key[{number}]"
        if not isinstance(row, dict) or set(row) != {"name", "public", "role"}:
            raise KeyProblem(f"{where}: expected name, public and role, nothing else")
        if not isinstance(row["name"], str) or not NAME.fullmatch(row["name"]):
            raise KeyProblem(f"{where}: name {row['name']!r} must be 1 to 32 letters, digits, dots, dashes")
        if row["role"] not in messages.ROLES:
            raise KeyProblem(f"{where}: role {row['role']!r}, expected one of {', '.join(messages.ROLES)}")
        public = _key(path, row, "public")
        if public in found or row["name"] in names:
            raise KeyProblem(f"{where}: {row['name']!r} or its key stands there twice")
        found[public] = Granted(row["name"], row["role"])
        names.add(row["name"])
    return found


def write_roles(folder: Path, granted: dict[str, Granted]) -> None:
    rows = "".join(
        f'\n[[key]]\nname = "{g.name}"\npublic = "{public}"\nrole = "{g.role}"\n' for public, g in granted.items()
    )
    roles = ", ".join(messages.ROLES)
    text = f"# Who may connect from outside. Roles: {roles}. Read again within 5 s of a change.\n{rows}"
    _write(folder / "roles.toml", text, 0o640)


def make(folder: Path, name: str, role: str, target: Path, endpoint: str | None = None) -> Path:
    """Make a client key, grant it a role, and write its key file, with the site's endpoint where that is known.

    Raises KeyProblem if the name is taken, OSError if the file cannot be written; then nothing is granted.
    """
    if target.exists():
        raise KeyProblem(f"{target} exists; remove it or choose another file")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    server, _ = server_keys(folder)
    lines = [f"# Key of {name} for one Tidegate device. Keep it secret."]
    lines += [f'endpoint = "{endpoint}"'] if endpoint else []
    lines += [f'public = "{public}"', f'secret = "{secret}"', f'server = "{server}"']
    _write(target, "\n".join(lines) + "\n", 0o600)  # first: a right whose secret nobody has would stay behind
    try:
        grant(folder, name, role, public)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def named(folder: Path) -> set[str]:
    """Names that a key is granted to. Raises KeyProblem."""
    return {one.name for one in read_roles(folder / "roles.toml").values()}


def grant(folder: Path, name: str, role: str, public: str | None = None) -> None:
    """Give a new key a role, or a known name another role. Raises KeyProblem."""
    if not NAME.fullmatch(name):
        raise KeyProblem(f"name {name!r} must be 1 to 32 letters, digits, dots, dashes")
    if role not in messages.ROLES:
        raise KeyProblem(f"role {role!r}, expected one of {', '.join(messages.ROLES)}")
    granted = read_roles(folder / "roles.toml")
    known = next((key for key, one in granted.items() if one.name == name), None)
    if public is None:
        if known is None:
            raise KeyProblem(
                f"no key named {name!r}; give its public key, or make one with `tidegate keys make {name}`"
            )
        public = known
    elif not Z85.fullmatch(public):
        raise KeyProblem(f"public key of {name!r}: expected 40 Z85 characters")
    elif known is not None and known != public:
        raise KeyProblem(f"{name!r} already has a key; revoke it first")
    elif public in granted and granted[public].name != name:
        raise KeyProblem(f"that key is already granted to {granted[public].name!r}")
    granted[public] = Granted(name, role)
    write_roles(folder, granted)


def revoke(folder: Path, name: str) -> None:
    """Take a key's rights; its connections are cut within 5 s. Raises KeyProblem if there is none of that name."""
    granted = read_roles(folder / "roles.toml")
    left = {key: one for key, one in granted.items() if one.name != name}
    if len(left) == len(granted):
        raise KeyProblem(
            f"no key named {name!r}; there are: {', '.join(one.name for one in granted.values()) or 'none'}"
        )
    write_roles(folder, left)
