"""Who may log in: names, roles, scrypt hashes, the lock after wrong passwords, and one login at a time.

There is no default password: while there is no user, whoever stands at the cabinet makes the first one.
"""

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from tidegate.runtime.api import messages
from tidegate.runtime.state import atomic_file
from tidegate.runtime.state.plain_file import read_plain

NAME = re.compile(r"[a-z][a-z0-9_-]{0,15}")
PASSWORD_MIN = 8
DIFFERENT_MIN = 4  # characters
LOOKALIKES = str.maketrans("0134578@$!", "oieastbasi")
EDGES = "oieastb0123456789.,;:_-+*#?!/ "  # what is put before and behind a word; digits stand here as they look
WORDS = """
password passwort passw0rd kennwort geheim secret admin administrator root operator service technician maintain
maintenance battery cabinet energy welcome willkommen letmein login default changeme test tester guest user
master monkey dragon football baseball sunshine princess iloveyou qwerty qwertz azerty asdf abc abcd abcdef hello hallo
computer internet superman batman trustno summer winter autumn spring tidegate
"""
COMMON = frozenset(word.translate(LOOKALIKES).strip(EDGES) for word in WORDS.split())
ROWS_OF_KEYS = tuple(
    row.translate(LOOKALIKES)
    for row in ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm",
                "qwertzuiopasdfghjklyxcvbnm", "1qaz2wsx3edc4rfv5tgb6zhn", "1q2w3e4r5t6z7u8i9o0p")
)  # fmt: skip
USERS_MAX = 32
# 16 MiB and some 50 ms a guess on a small board (RFC 7914 names N = 2^14, r = 8, p = 1 for interactive logins).
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
SCRYPT_N_MAX, SCRYPT_P_MAX = 1 << 15, 4  # of a table of users: no row of it may hold up whoever logs in
SCRYPT_MEMORY = 64 << 20
FREE_FAILURES = 5
LOCK_S, LOCK_S_MAX = 60.0, 3600.0


class UserError(ValueError):
    """Something about users that cannot be done, with the reason for people."""


@dataclass(frozen=True)
class User:
    name: str
    role: str
    salt: str
    hash: str
    n: int = SCRYPT_N
    r: int = SCRYPT_R
    p: int = SCRYPT_P

    @property
    def is_believable(self) -> bool:
        """Whether a password can be looked at with these numbers, and in the time that a login may take."""
        costs = (self.n, self.r, self.p)
        return (
            all(type(one) is int for one in costs)
            and 2 <= self.n <= SCRYPT_N_MAX
            and self.n & (self.n - 1) == 0
            and 1 <= self.r <= SCRYPT_R
            and 1 <= self.p <= SCRYPT_P_MAX
            and all(len(base64.b64decode(text, validate=True)) >= 8 for text in (self.salt, self.hash))
        )

    def fits(self, password: str) -> bool:
        return hmac.compare_digest(_scrypt(password, self.salt, self.n, self.r, self.p), self.hash)


def _scrypt(password: str, salt: str, n: int, r: int, p: int) -> str:
    made = hashlib.scrypt(password.encode(), salt=base64.b64decode(salt), n=n, r=r, p=p, maxmem=SCRYPT_MEMORY, dklen=32)
    return base64.b64encode(made).decode()


class Users:
    """The users file of one site. Raises UserError for a file that cannot be believed: then nobody gets in.

    cost : scrypt's N for new passwords.
    """

    def __init__(self, folder: Path, cost: int = SCRYPT_N) -> None:
        self.path = folder / "users.json"
        self.cost = cost
        self._nobody = User("", "read", _salt(), "", cost)
        atomic_file.sweep(folder, self.path.name)

    def all(self) -> dict[str, User]:
        """Users by name; read anew each time, so that a removed one is gone at once."""
        try:
            text = read_plain(self.path)
        except FileNotFoundError:
            return {}
        except OSError as why:
            raise UserError(f"{self.path}: {why.strerror}; mend its permissions") from None
        try:
            raw = json.loads(text)
            found = {}
            for name, row in raw["users"].items():
                user = User(name=name, **row)
                if NAME.fullmatch(name) is None or user.role not in messages.ROLES or not user.is_believable:
                    raise ValueError(name)
                found[name] = user
            return found
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"{self.path} is damaged; restore it, or remove it and make the users anew at the cabinet"
            ) from None

    def _keep(self, users: dict[str, User]) -> None:
        rows: dict[str, dict[str, object]] = {}
        for name, user in sorted(users.items()):
            rows[name] = {key: value for key, value in asdict(user).items() if key != "name"}
        try:
            atomic_file.replace(self.path, json.dumps({"schema": 1, "users": rows}, indent=1).encode())
        except OSError as why:
            raise UserError(f"{self.path}: {why.strerror}; nothing was changed") from None

    def check(self, name: str, password: str) -> User | None:
        """The user whose password this is. Takes as long for a name that does not exist."""
        user = self.all().get(name)
        fits = (user or self._nobody).fits(password)
        return user if user is not None and fits else None

    def put(self, name: str, role: str, password: str) -> None:
        """Add a user, or give one a new role and password."""
        if NAME.fullmatch(name) is None:
            raise UserError("a name has 1 to 16 of a-z, 0-9, _ and -, and begins with a letter")
        if role not in messages.ROLES:
            raise UserError(f"role {role!r}: expected one of {', '.join(messages.ROLES)}")
        if len(password) < PASSWORD_MIN:
            raise UserError(f"a password has at least {PASSWORD_MIN} characters")
        if is_easy(password, name):
            raise UserError("that password is among the first that anybody tries; take three or four words instead")
        users = self.all()
        if name not in users and len(users) >= USERS_MAX:
            raise UserError(f"there are {USERS_MAX} users already")
        salt = _salt()
        users[name] = User(name, role, salt, _scrypt(password, salt, self.cost, SCRYPT_R, SCRYPT_P), self.cost)
        self._must_maintain(users)
        self._keep(users)

    def remove(self, name: str) -> None:
        users = self.all()
        if users.pop(name, None) is None:
            raise UserError(f"no user {name!r}")
        self._must_maintain(users)
        self._keep(users)

    def _must_maintain(self, users: dict[str, User]) -> None:
        """Without anybody who may maintain, nobody could ever add users again."""
        if not any(user.role == "maintain" for user in users.values()):
            raise UserError("at least one user must have the role maintain")


def _salt() -> str:
    return base64.b64encode(secrets.token_bytes(16)).decode()


def is_easy(password: str, name: str) -> bool:
    """Whether a password is one that anybody tries first: a common word with digits, a row of keys, the user's name."""
    plain = password.lower().translate(LOOKALIKES)
    core = plain.strip(EDGES)
    if (
        len(set(plain)) < DIFFERENT_MIN
        or core in COMMON
        or core in ("", name.lower().translate(LOOKALIKES).strip(EDGES))
    ):
        return True
    if core == core[: len(core) // 2] * 2 and core[: len(core) // 2] in COMMON:
        return True
    return any(plain in row or plain in row[::-1] for row in ROWS_OF_KEYS)


class LoginLock:
    """Wrong passwords lock the login, each one longer than the last, also over a restart.

    The count lies in a file; a restart locks for the whole time again, so pulling the plug gains nothing.
    """

    def __init__(self, folder: Path, now_s: float) -> None:
        self.path = folder / "failures"
        try:
            self.failures = int(read_plain(self.path, 64))
            if self.failures < 0:
                raise ValueError(self.failures)  # it would be that many tries more
        except FileNotFoundError:
            self.failures = 0
        except (OSError, ValueError):
            self.failures = FREE_FAILURES  # unreadable: as if it were locked
        self.until_s = now_s + self._length_s()

    def _length_s(self) -> float:
        over = self.failures - FREE_FAILURES
        return 0.0 if over < 0 else min(LOCK_S_MAX, LOCK_S * 2.0 ** min(over, 16))

    def left_s(self, now_s: float) -> float:
        return max(0.0, self.until_s - now_s)

    def failed(self, now_s: float) -> None:
        self.failures += 1
        self.until_s = now_s + self._length_s()
        self._keep()

    def passed(self) -> None:
        if self.failures:
            self.failures = 0
            self._keep()
        self.until_s = 0.0

    def _keep(self) -> None:
        # A disk that is full must not let anybody guess for ever: what is in memory counts all the same.
        with contextlib.suppress(OSError):
            atomic_file.replace(self.path, str(self.failures).encode())


class Seat:
    """One login at a time, over all consoles of a site: a lock that the kernel drops when its process ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "login"
        self._fd = -1

    def take(self, user: str, where: str, clock: str) -> str:
        """Sit down; gives who sits there already, "" when the seat is ours."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 200).decode("ascii", "replace")
            os.close(fd)
            return holder or "somebody"
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{user} at {where} since {clock}".encode("ascii", "replace"), 0)
        self._fd = fd
        return ""

    def leave(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1
