"""Codes that let somebody make a login of its own at the page: made on the unit, good once and for ten minutes.

Whoever may write the site's state folder may make one; so the page itself never has to hand out a right.
"""

import hmac
import json
import secrets
import time
from pathlib import Path

from tidegate.runtime.api import messages
from tidegate.runtime.state import atomic_file
from tidegate.runtime.state.plain_file import read_plain
from tidegate.runtime.web.web_sessions import digest

GOOD_S = 600
# No 0, O, 1, I: the code is also read off a terminal and typed on a phone. 10 of 32 signs are 50 bits.
SIGNS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LENGTH = 10
TRIES_MAX = 20


class PairingError(ValueError):
    """A code that lets nobody in, with the reason for people."""


class Pairing:
    """The one code that is open, in a file of the site's state folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pairing.json"

    def make(self, role: messages.Role, user: str = "", now_utc_s: float | None = None) -> str:
        """A new code for this role, in the place of one that was open. user: whose password it replaces. OSError."""
        code = "".join(secrets.choice(SIGNS) for _ in range(LENGTH))
        until = (time.time() if now_utc_s is None else now_utc_s) + GOOD_S
        self._keep({"code": digest(code), "role": role, "user": user, "until_utc_s": until, "tries": 0})
        return code

    def look(self, code: str, now_utc_s: float | None = None) -> tuple[messages.Role, str]:
        """The role of a code that is good, and the user if it is for one. A wrong one counts. Raises PairingError."""
        now_utc_s = time.time() if now_utc_s is None else now_utc_s
        try:
            found = json.loads(read_plain(self.path))
            kept, until_utc_s, tries = str(found["code"]), float(found["until_utc_s"]), int(found["tries"])
            role: messages.Role = next(one for one in messages.ROLES if one == found["role"])
            user = str(found["user"])
        except (OSError, ValueError, KeyError, TypeError, StopIteration, RecursionError):
            raise PairingError("no code is open; make one on the unit: tidegate web pair") from None
        if not until_utc_s - GOOD_S <= now_utc_s < until_utc_s or tries >= TRIES_MAX:
            self.use_up()
            raise PairingError("that code is over; make another on the unit: tidegate web pair")
        if not hmac.compare_digest(kept, digest(plain(code))):
            self._keep({**found, "tries": tries + 1})
            raise PairingError("that is not the code")
        return role, user

    def use_up(self) -> None:
        """The code that is open is good no more."""
        self.path.unlink(missing_ok=True)

    def _keep(self, found: dict[str, object]) -> None:
        atomic_file.replace(self.path, json.dumps(found).encode())


def plain(code: str) -> str:
    """A code as it was made, whatever a person put between its signs."""
    return "".join(sign for sign in code.upper() if sign in SIGNS)


def shown(code: str) -> str:
    """A code as people read it."""
    return f"{code[:5]}-{code[5:]}"
