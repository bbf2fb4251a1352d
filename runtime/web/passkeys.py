"""Passkeys of the page's logins: what is kept of them, and the challenges that wait for an answer.

A passkey stands in for the password of one login, under the one name that the page was called by when it was made. It
is bound to the password that its login had then: a new password, or a login that was taken and made anew, ends it. What
a browser sends is checked by a process of its own (`passkey_check.py`), since it is parsed before anybody is trusted.
"""

import base64
import collections
import hashlib
import ipaddress
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tidegate.runtime.console.users import User
from tidegate.runtime.state import atomic_file

GOOD_S = 120.0
OPEN_MAX, OF_AN_ADDRESS_MAX = 256, 8
OF_A_USER_MAX = 8
NAME_MAX = 40
ALGORITHMS = (-8, -7, -257)  # Ed25519, ECDSA P-256, RSA: what authenticators have (COSE, RFC 9053)


class PasskeyError(ValueError):
    """A passkey that lets nobody in, or cannot be kept, with the reason for people."""


@dataclass(frozen=True)
class Passkey:
    """One passkey. id, public_key: base64url. rp_id: the name that the page was called by.

    count: of its signatures, 0 for those that do not count. copied: the count went back once, so it was used somewhere
    else too and is good no more.
    """

    id: str
    user: str
    name: str
    rp_id: str
    public_key: str
    count: int
    bound: str
    made_utc_s: float
    used_utc_s: float | None = None
    copied: bool = False


def bound_to(user: User) -> str:
    """What changes with a login's password."""
    return hashlib.sha256(f"{user.salt}{user.hash}".encode()).hexdigest()


def handle_of(user: str) -> str:
    """What an authenticator keeps as the user: the same for all passkeys of a login, so that one replaces the other."""
    return encoded(hashlib.sha256(f"tidegate {user}".encode()).digest())


def encoded(data: bytes) -> str:
    """base64url without padding, as WebAuthn has it in JSON."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def rp_id_of(host: str) -> str:
    """The name of a Host header that a passkey can be made for; "" for an address, for which no browser makes any."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower()
    return ""


class Passkeys:
    """Those of one page, in a file of its folder; read anew each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> dict[str, Passkey]:
        """By id. Raises PasskeyError for a file that cannot be believed: then no passkey is good."""
        try:
            rows = json.loads(self.path.read_text())["passkeys"]
            return {str(row["id"]): Passkey(**row) for row in rows}
        except FileNotFoundError:
            return {}
        except OSError as why:
            raise PasskeyError(f"{self.path}: {why.strerror}; mend its permissions") from None
        except (ValueError, KeyError, TypeError):
            raise PasskeyError(f"{self.path} is damaged; remove it and make the passkeys anew at the page") from None

    def of(self, user: User, rp_id: str = "") -> list[Passkey]:
        """Those that a login has and that its password has not ended; with a name, only those for it."""
        mine = (one for one in self.all().values() if one.user == user.name and one.bound == bound_to(user))
        return [one for one in mine if not rp_id or one.rp_id == rp_id]

    def add(self, made: Passkey) -> None:
        """Keep a new one. Raises PasskeyError, and then nothing was kept."""
        held = self.all()
        if made.id in held:
            raise PasskeyError("that passkey is there already")
        if sum(one.user == made.user and one.bound == made.bound for one in held.values()) >= OF_A_USER_MAX:
            raise PasskeyError(f"{made.user} has {OF_A_USER_MAX} passkeys already; remove one first")
        # What a new password has ended goes with the next one that is made.
        gone = [key for key, one in held.items() if one.user == made.user and one.bound != made.bound]
        self._keep({key: one for key, one in held.items() if key not in gone} | {made.id: made})

    def used(self, passkey: Passkey, count: int) -> None:
        """It has signed. Raises PasskeyError where it is gone, or its count went back: somebody has a copy of it."""
        held = self.all()
        kept = held.get(passkey.id)
        if kept is None or kept.copied:
            raise PasskeyError(f"the passkey {passkey.name} was taken meanwhile")
        if (count or kept.count) and count <= kept.count:
            self._keep(held | {kept.id: replace(kept, copied=True)})
            raise PasskeyError(f"the passkey {kept.name} counts {count} after {kept.count}: it was copied, and is good "
                               "no more; remove it")  # fmt: skip
        self._keep(held | {kept.id: replace(kept, count=count, used_utc_s=time.time())})

    def remove(self, ident: str, user: str) -> Passkey:
        """Take one of this login's. Raises PasskeyError."""
        held = self.all()
        found = held.get(ident)
        if found is None or found.user != user:
            raise PasskeyError("that is no passkey of yours")
        del held[ident]
        self._keep(held)
        return found

    def _keep(self, held: dict[str, Passkey]) -> None:
        try:
            atomic_file.replace(self.path, json.dumps({"passkeys": [asdict(one) for one in held.values()]}).encode())
        except OSError as why:
            raise PasskeyError(f"{self.path}: {why.strerror}; nothing was changed") from None


@dataclass(frozen=True)
class Challenge:
    """What a browser was asked to sign. session: of whom; "" for a login. rp_id, origin: as the page was called."""

    kind: str
    session: str
    address: str
    rp_id: str
    origin: str
    until_s: float


class Challenges:
    """Those that are open; each is good once. A crowd of askers makes only its own oldest forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: collections.OrderedDict[str, Challenge] = collections.OrderedDict()

    def make(self, kind: str, session: str, address: str, rp_id: str, origin: str) -> str:
        """A new one, base64url."""
        now_s = self._clock()
        for key in [key for key, one in self._open.items() if one.until_s <= now_s]:
            del self._open[key]
        same = [key for key, one in self._open.items() if one.address == address]
        for key in same[: max(0, len(same) - OF_AN_ADDRESS_MAX + 1)]:
            del self._open[key]
        while len(self._open) >= OPEN_MAX:
            self._open.popitem(last=False)
        text = encoded(secrets.token_bytes(32))
        self._open[text] = Challenge(kind, session, address, rp_id, origin, now_s + GOOD_S)
        return text

    def take(self, text: str, kind: str, session: str) -> Challenge:
        """The one that was answered, which is then good no more. Raises PasskeyError."""
        found = self._open.pop(text, None)
        if found is None or found.until_s <= self._clock():
            raise PasskeyError("nothing waits for that answer, or it came too late; ask again")
        if (found.kind, found.session) != (kind, session):
            raise PasskeyError("that answer is for something else")
        return found
