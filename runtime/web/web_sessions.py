"""Who is logged in at the page, for how long, and what wrong passwords cost.

A session is a random token in a cookie; the unit keeps only its hash, and only in memory, so that a restart ends all.
A session reads. It gives orders only while it is armed, which takes the password again and ends by itself.
"""

import collections
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from tidegate.runtime.api import messages
from tidegate.runtime.console.users import User, UserError, Users

IDLE_S = 12 * 3600.0
ARMED_S = 300.0
SESSIONS_MAX, OF_A_USER_MAX = 64, 8
LOOK_S = 1.0  # so long a user that was removed may go on
FREE_FAILURES = 5
FREE_FAILURES_OF_A_NAME = 20  # more: whoever guesses from many addresses locks the person out too
LOCK_S, LOCK_S_MAX = 60.0, 3600.0
COUNTED_MAX = 4096


@dataclass
class Session:
    """One login. `id` is the token's hash."""

    id: str
    user: str
    role: messages.Role
    used_s: float
    armed_until_s: float = 0.0
    streams: int = 0
    passkey: str = ""  # its id, where it was opened with one

    def may(self, role: messages.Role) -> bool:
        """Whether it may do what this role may."""
        return messages.ROLES.index(self.role) >= messages.ROLES.index(role)


def digest(token: str) -> str:
    """What is kept of a secret that is random by itself."""
    return hashlib.sha256(token.encode()).hexdigest()


class Sessions:
    """All logins of the page."""

    def __init__(self, users: Users, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = users
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._known: dict[str, User] = {}
        self._looked_s = -1e9

    def open(self, user: User, passkey: str = "") -> tuple[Session, str]:
        """A new session and its token. The oldest of somebody with too many ends."""
        now_s = self._clock()
        own = sorted((one for one in self._open.values() if one.user == user.name), key=lambda one: one.used_s)
        everybody = sorted(self._open.values(), key=lambda one: one.used_s)
        for old in own[: len(own) - OF_A_USER_MAX + 1] if len(own) >= OF_A_USER_MAX else []:
            self.close(old)
        if len(self._open) >= SESSIONS_MAX and everybody:
            self.close(everybody[0])
        token = secrets.token_urlsafe(32)
        self._looked_s = -1e9
        made = Session(digest(token), user.name, _role(user.role), now_s, passkey=passkey)
        self._open[made.id] = made
        return made, token

    def find(self, token: str) -> Session | None:
        """The session of a token, if it is still good."""
        return self.still(digest(token)) if token else None

    def still(self, ident: str) -> Session | None:
        """The session of this id, if it is still good: not idle for too long, and its user is there with its role."""
        session = self._open.get(ident)
        if session is None:
            return None
        now_s = self._clock()
        if now_s - self._looked_s >= LOOK_S:
            try:
                self._known = self._users.all()
            except UserError:
                self._known = {}  # a file that cannot be believed lets nobody in
            self._looked_s = now_s
        user = self._known.get(session.user)
        if user is None or user.role != session.role or now_s - session.used_s > IDLE_S:
            self.close(session)
            return None
        session.used_s = now_s
        return session

    def close(self, session: Session) -> None:
        """End it."""
        self._open.pop(session.id, None)

    def close_user(self, name: str) -> None:
        """End all that somebody has, as after a new password."""
        for one in [one for one in self._open.values() if one.user == name]:
            self.close(one)

    def close_passkey(self, ident: str) -> None:
        """End all that were opened with a passkey, as after it was taken."""
        for one in [one for one in self._open.values() if one.passkey == ident]:
            self.close(one)

    def arm(self, session: Session) -> float:
        """Let it give orders; for how long, s."""
        session.armed_until_s = self._clock() + ARMED_S
        return ARMED_S

    def disarm(self, session: Session) -> None:
        """From now on it only reads."""
        session.armed_until_s = 0.0

    def armed_s(self, session: Session) -> float:
        """For how long it may still give orders, s; 0 = it may not."""
        return max(0.0, session.armed_until_s - self._clock())

    def __len__(self) -> int:
        return len(self._open)


def _role(text: str) -> messages.Role:
    return next(role for role in messages.ROLES if role == text)


class LoginGuard:
    """Wrong passwords lock an address, and many of them a name; each one longer than the last.

    Only that many are counted: whoever comes from more addresses makes the oldest forgotten, and locks the name.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: collections.OrderedDict[str, tuple[int, float]] = collections.OrderedDict()

    def left_s(self, address: str, name: str) -> float:
        """How long this address, or this name, is still locked; 0 = it may try."""
        now_s = self._clock()
        return max(0.0, *(self._failures.get(key, (0, 0.0))[1] - now_s for key in _keys(address, name)))

    def failed(self, address: str, name: str) -> int:
        """Count a wrong password; how many in a row this address has now."""
        for key in _keys(address, name):
            free = FREE_FAILURES if key.startswith("at:") else FREE_FAILURES_OF_A_NAME
            count = self._failures.get(key, (0, 0.0))[0] + 1
            over = count - free
            lock_s = 0.0 if over < 0 else min(LOCK_S_MAX, LOCK_S * 2.0 ** min(over, 16))
            self._failures[key] = (count, self._clock() + lock_s)
            self._failures.move_to_end(key)
        while len(self._failures) > COUNTED_MAX:
            self._failures.popitem(last=False)
        return self._failures[f"at:{address}"][0]

    def passed(self, address: str, name: str) -> None:
        """The right password: nothing is held against either any more."""
        for key in _keys(address, name):
            self._failures.pop(key, None)


def _keys(address: str, name: str) -> tuple[str, ...]:
    """What a failure is counted for: the address, and the name where one was tried."""
    return (f"at:{address}", f"as:{name[:16]}") if name else (f"at:{address}",)
