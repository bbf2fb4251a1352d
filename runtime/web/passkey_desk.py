"""Passkeys at the page: what a browser is asked to sign, and what its answer lets somebody do.

A passkey is made by whoever gives the password again, logs in without one, and arms for orders in its place. What it is
worth is decided by `passkey_check.py`, one answer at a time, and only where a question of this page waits for it.
"""

import asyncio
import base64
import json
import time

import msgspec

from tidegate.runtime.api.messages import Refused
from tidegate.runtime.console.users import User, UserError, Users
from tidegate.runtime.web.checked_apart import checked_apart
from tidegate.runtime.web.passkeys import (
    ALGORITHMS,
    GOOD_S,
    NAME_MAX,
    Challenge,
    Challenges,
    Passkey,
    PasskeyError,
    Passkeys,
    bound_to,
    handle_of,
    rp_id_of,
)
from tidegate.runtime.web.web_sessions import Session

CHECK_LIMIT_S = 60.0
ADDRESS_HAS_NONE = "a passkey needs a name, and this page was called by an address"


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody wants to sign for: login, arm, or register, which takes the password again."""

    kind: str
    password: str = ""


class Signed(msgspec.Struct, forbid_unknown_fields=True):
    """What the browser's authenticator answered, base64url inside. name: of a passkey that is made."""

    credential: dict[str, object]
    name: str = ""


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """A passkey by its id."""

    id: str


class PasskeyDesk:
    """The passkeys of one page. Everything raises Refused with the reason for people."""

    def __init__(self, passkeys: Passkeys, users: Users) -> None:
        self._passkeys, self._users = passkeys, users
        self._challenges = Challenges()
        self._one = asyncio.Semaphore(1)  # a check is a process of some 0.3 s

    def options(self, kind: str, user: str, session: str, address: str, host: str) -> dict[str, object]:
        """What `navigator.credentials` gets, base64url inside. host: as the browser called the page."""
        rp_id = rp_id_of(host)
        if not rp_id:
            raise Refused("unavailable", ADDRESS_HAS_NONE)
        challenge = self._challenges.make(kind, session, address, rp_id, f"https://{host.lower()}")
        common: dict[str, object] = {"challenge": challenge, "timeout": round(GOOD_S * 1000)}
        if kind == "login":
            return {**common, "rpId": rp_id, "userVerification": "required", "allowCredentials": []}
        known = [{"type": "public-key", "id": one.id} for one in self._of(user, rp_id)]
        if kind == "arm":
            if not known:
                raise Refused("invalid-field", f"{user} has no passkey for {rp_id}")
            return {**common, "rpId": rp_id, "userVerification": "required", "allowCredentials": known}
        chosen = {"residentKey": "required", "requireResidentKey": True, "userVerification": "required"}
        return {
            **common, "rp": {"id": rp_id, "name": f"Tidegate {rp_id}"}, "attestation": "none",
            "user": {"id": handle_of(user), "name": user, "displayName": user}, "authenticatorSelection": chosen,
            "pubKeyCredParams": [{"type": "public-key", "alg": one} for one in ALGORITHMS], "excludeCredentials": known,
        }  # fmt: skip

    async def register(self, session: Session, signed: Signed) -> Passkey:
        """Keep what was made."""
        name = "".join(sign for sign in signed.name if sign.isprintable()).strip()[:NAME_MAX] or "passkey"
        waiting = self._taken(signed, "register", session.id)
        found = await self._checked(signed, waiting, "")
        user = self._user(session.user)
        made = Passkey(str(found["id"]), user.name, name, waiting.rp_id, str(found["public_key"]),
                       int(str(found["count"])), bound_to(user), time.time())  # fmt: skip
        try:
            self._passkeys.add(made)
        except PasskeyError as why:
            raise Refused("invalid-field", str(why)) from None
        return made

    async def enter(self, signed: Signed, kind: str, session: Session | None) -> tuple[User, Passkey]:
        """Whose passkey this is: for a login, or for arming, where it must be the session's own."""
        waiting = self._taken(signed, kind, session.id if session is not None else "")
        try:
            passkey = self._passkeys.all().get(str(signed.credential.get("id")))
        except PasskeyError as why:
            raise Refused("internal", str(why)) from None
        if passkey is None:
            raise Refused("not-allowed", "that passkey is not known here")
        user = self._user(passkey.user)
        if passkey.bound != bound_to(user):
            raise Refused("not-allowed", f"{passkey.user} has a new password since that passkey was made; make another")
        if session is not None and session.user != user.name:
            raise Refused("not-allowed", f"that is a passkey of {user.name}")
        if passkey.copied:
            raise Refused("not-allowed", f"the passkey {passkey.name} was copied, and is good no more; remove it")
        if passkey.rp_id != waiting.rp_id:
            raise Refused("not-allowed", f"that passkey is for {passkey.rp_id}")
        found = await self._checked(signed, waiting, passkey.public_key)
        try:
            self._passkeys.used(passkey, int(str(found["count"])))
        except PasskeyError as why:
            raise Refused("not-allowed", str(why), user=user.name) from None
        return user, passkey

    def listed(self, session: Session, host: str) -> dict[str, object]:
        """The passkeys of somebody who is logged in, and how many of them are good here."""
        mine = self._of(session.user)
        rows = [{"id": one.id, "name": one.name, "rp_id": one.rp_id, "made_utc_s": one.made_utc_s,
                 "used_utc_s": one.used_utc_s, "copied": one.copied} for one in mine]  # fmt: skip
        return {"passkeys": rows, "here": sum(one.rp_id == rp_id_of(host) and not one.copied for one in mine)}

    def remove(self, session: Session, ident: str) -> Passkey:
        """Take one of one's own."""
        try:
            return self._passkeys.remove(ident, session.user)
        except PasskeyError as why:
            raise Refused("invalid-field", str(why)) from None

    def _of(self, user: str, rp_id: str = "") -> list[Passkey]:
        try:
            return self._passkeys.of(self._user(user), rp_id)
        except PasskeyError as why:
            raise Refused("internal", str(why)) from None

    def _user(self, name: str) -> User:
        try:
            found = self._users.all().get(name)
        except UserError as why:
            raise Refused("internal", str(why)) from None
        if found is None:
            raise Refused("not-allowed", f"there is no login {name} any more")
        return found

    def _taken(self, signed: Signed, kind: str, session: str) -> Challenge:
        """The challenge that an answer names, used up whatever else is wrong with the answer."""
        try:
            return self._challenges.take(_challenge_in(signed.credential), kind, session)
        except PasskeyError as why:
            raise Refused("late", str(why)) from None

    async def _checked(self, signed: Signed, waiting: Challenge, public_key: str) -> dict[str, object]:
        """What the check found."""
        asked = {"credential": signed.credential, "challenge": _challenge_in(signed.credential), "rp_id": waiting.rp_id,
                 "origin": waiting.origin, "public_key": public_key}  # fmt: skip
        async with self._one:
            found = await checked_apart(
                "the check of the passkey",
                "tidegate.runtime.web.passkey_check",
                given=msgspec.json.encode(asked),
                limit_s=CHECK_LIMIT_S,
            )
        if "refused" in found:
            raise Refused("not-allowed", f"that passkey was not believed: {found['refused']}")
        return found


def _challenge_in(credential: dict[str, object]) -> str:
    """The challenge that an answer names. Raises Refused."""
    try:
        response = credential["response"]
        assert isinstance(response, dict)
        packed = str(response["clientDataJSON"])
        told = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        return str(told["challenge"])
    except (KeyError, ValueError, TypeError, AssertionError):
        raise Refused("invalid-field", "that is no answer of an authenticator") from None
