"""Bearer tokens of programs that use the REST API: a name, a role, and the hash of a secret that is shown once."""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.api import messages
from tidegate.runtime.console.users import NAME
from tidegate.runtime.gateway.peers import Bucket
from tidegate.runtime.state import atomic_file
from tidegate.runtime.state.plain_file import read_plain
from tidegate.runtime.web.web_sessions import digest

LOOK_S = 1.0
TOKENS_MAX = 64
PER_S, BURST = 20.0, 40.0  # below what the gateway lets the whole page ask: one program cannot make it silent


class TokenError(ValueError):
    """Something about tokens that cannot be done, with the reason for people."""


@dataclass(frozen=True)
class Holder:
    """Who asks with a token."""

    name: str
    role: messages.Role

    def may(self, role: messages.Role) -> bool:
        """Whether it may do what this role may."""
        return messages.ROLES.index(self.role) >= messages.ROLES.index(role)


def read(path: Path) -> dict[str, Holder]:
    """Hash -> holder. Raises TokenError for a file that cannot be believed: then no token is good."""
    try:
        rows = json.loads(read_plain(path))["tokens"]
        found = {}
        for name, row in rows.items():
            role = next(one for one in messages.ROLES if one == row["role"])
            if NAME.fullmatch(name) is None:
                raise ValueError(name)
            found[str(row["sha256"])] = Holder(name, role)
        return found
    except FileNotFoundError:
        return {}
    except OSError as why:
        raise TokenError(f"{path}: {why.strerror}; mend its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        raise TokenError(f"{path} is damaged; remove it and grant the tokens anew") from None


def _write(path: Path, holders: dict[str, Holder]) -> None:
    rows = {one.name: {"role": one.role, "sha256": kept} for kept, one in holders.items()}
    atomic_file.replace(path, json.dumps({"tokens": rows}, indent=1).encode())


def grant(path: Path, name: str, role: messages.Role) -> str:
    """A token for a new name. Raises TokenError, OSError."""
    if NAME.fullmatch(name) is None:
        raise TokenError(f"name {name!r}: 1 to 16 of a-z, 0-9, _ and -, beginning with a letter")
    holders = read(path)
    if any(one.name == name for one in holders.values()):
        raise TokenError(f"{name} has a token; revoke it first")
    if len(holders) >= TOKENS_MAX:
        raise TokenError(f"there are {TOKENS_MAX} tokens already")
    token = secrets.token_urlsafe(32)
    _write(path, {**holders, digest(token): Holder(name, role)})
    return token


def revoke(path: Path, name: str) -> None:
    """Take a token. Raises TokenError, OSError."""
    holders = read(path)
    left = {kept: one for kept, one in holders.items() if one.name != name}
    if len(left) == len(holders):
        raise TokenError(f"no token of {name!r}; there are: {', '.join(o.name for o in holders.values()) or 'none'}")
    _write(path, left)


class Tokens:
    """The tokens of a running page, read again each second; and how much each may ask."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.problem = ""
        self._clock = clock
        self._holders: dict[str, Holder] = {}
        self._buckets: dict[str, Bucket] = {}
        self._looked_s = -1e9

    def find(self, token: str) -> Holder | None:
        """Who holds a token; None: nobody."""
        if self._clock() - self._looked_s >= LOOK_S:
            self._looked_s = self._clock()
            try:
                self._holders, self.problem = read(self.path), ""
            except TokenError as why:
                self._holders, self.problem = {}, str(why)
        return self._holders.get(digest(token))

    def has_room(self, name: str) -> bool:
        """Whether this one, a token's or a session's name, may ask once more now."""
        if name not in self._buckets and len(self._buckets) >= 4 * TOKENS_MAX:
            self._buckets.clear()
        return self._buckets.setdefault(name, Bucket(PER_S, BURST)).take(int(self._clock() * 1e9))
