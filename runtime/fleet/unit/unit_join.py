"""The unit's end of joining a hub, and of changing its login."""

import asyncio
import hashlib
import json
import os
import secrets
import ssl
import time
from pathlib import Path

import nats
import nats.errors

from tidegate.runtime.fleet.hub.join_token import JoinToken, join_message
from tidegate.runtime.fleet.invitation import HubError, Invitation, servers_in
from tidegate.runtime.fleet.ledger_batch import ENROL, ROTATE, subject_word
from tidegate.runtime.state.device_key import DeviceKey

ANSWER_S, TRIES = 8.0, 3  # a broker that reads its logins anew may cut a connection


async def _asked(address: str, user: str, word: str, certificate: str, subject: str, row: dict[str, str]) -> str:
    """One question under a login. -> what the hub says, "" = done. Raises HubError without an answer."""
    context = ssl.create_default_context(cadata=certificate) if certificate else None
    try:
        client = await nats.connect(
            servers_in(address), user=user, password=word, tls=context, inbox_prefix=f"_INBOX_{user}",
            allow_reconnect=False, max_reconnect_attempts=0, connect_timeout=10, error_cb=_quiet,
        )  # fmt: skip
    except (nats.errors.Error, OSError, TimeoutError) as why:
        raise HubError(
            f"{address}: {why or type(why).__name__}; is the hub there, and this login still good?"
        ) from None
    try:
        answer = await client.request(subject, json.dumps(row).encode(), timeout=ANSWER_S)
        return str(json.loads(answer.data)["said"])
    except (nats.errors.Error, TimeoutError, ValueError, KeyError, TypeError) as why:
        raise HubError(f"{address}: no answer ({why or type(why).__name__}); is `tidegate hub run` there?") from None
    finally:
        await client.close()


async def _is_in(invited: Invitation) -> bool:
    """Whether this login opens already: the hub let it in, and its answer was lost."""
    context = ssl.create_default_context(cadata=invited.certificate) if invited.certificate else None
    try:
        client = await nats.connect(
            servers_in(invited.address), user=invited.user, password=invited.word, tls=context, allow_reconnect=False,
            max_reconnect_attempts=0, connect_timeout=10, error_cb=_quiet,
        )  # fmt: skip
    except (nats.errors.Error, OSError, TimeoutError):
        return False
    await client.close()
    return True


async def _until_in(invited: Invitation) -> None:
    """Wait until a new login opens: the broker reads it a moment after the hub has answered. Raises HubError."""
    until = time.monotonic() + ANSWER_S
    while not await _is_in(invited):
        if time.monotonic() > until:
            raise HubError(f"{invited.address}: the hub has taken the new login, and it does not open; try again")
        await asyncio.sleep(0.2)


async def _quiet(why: Exception) -> None:
    """What goes wrong is in the answer."""


async def join(token: JoinToken, key: DeviceKey, out: Path) -> Invitation:
    """Let this unit in, and leave its login in a new file. Raises HubError, OSError.

    The file is there before the hub is asked: an answer that is lost costs a second try and nothing else.
    """
    user = subject_word(token.site)
    again = out.exists()
    if again:
        invited = Invitation.read(out)
        if (invited.site, invited.address) != (token.site, token.address):
            raise HubError(f"{out}: is of {invited.site} at {invited.address}; name another file")
    else:
        invited = Invitation(token.site, token.address, user, secrets.token_hex(24), token.certificate)
        invited.write(out)
    digest = hashlib.sha256(invited.word.encode()).hexdigest()
    row = {"site": token.site, "code": token.code, "key": key.public, "word": invited.word,
           "signature": key.sign(join_message(token.site, token.id, digest))}  # fmt: skip
    said = ""
    for left in reversed(range(TRIES)):
        if again and await _is_in(invited):
            return invited
        again = True
        try:
            user = f"enrol-{token.id}"
            said = await _asked(token.address, user, token.code, token.certificate, f"{ENROL}.{token.id}", row)
            break
        except HubError:
            if not left:
                raise
    if said:
        out.unlink()
        raise HubError(f"the hub says: {said}")
    await _until_in(invited)
    return invited


async def rotate(path: Path) -> None:
    """Another login for this unit; the one before ends. Raises HubError, OSError.

    The new one is on the disk before the hub is asked; which of the two holds is tried where the answer was lost.
    """
    now, fresh = Invitation.read(path), path.with_name(f"{path.name}.next")
    if not fresh.exists():
        Invitation(now.site, now.address, now.user, secrets.token_hex(24), now.certificate).write(fresh)
    wanted = Invitation.read(fresh)
    subject, row = f"{ROTATE}.{now.user}", {"word": wanted.word}
    said = ""
    for left in reversed(range(TRIES)):
        try:
            said = await _asked(now.address, now.user, now.word, now.certificate, subject, row)
            break
        except HubError:
            if await _is_in(wanted):  # it was changed, and the answer did not come
                break
            if not left:
                raise
    if said:
        fresh.unlink()
        raise HubError(f"the hub says: {said}")
    await _until_in(wanted)
    os.replace(fresh, path)
