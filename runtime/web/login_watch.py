"""What people ordered through the page ends with their login or token: the page says who is gone, and who is left.

Ending is not always the safer side (a limit that ends is wider), so a table that cannot be read ends nothing.
"""

import asyncio
import logging

from tidegate.runtime.api import messages
from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.console.users import UserError, Users
from tidegate.runtime.web.access_tokens import TokenError, Tokens, read

LOOK_S = 1.0
AGAIN_S = 10.0  # a gateway that was away, and knows of orders from before, hears it anew

logger = logging.getLogger("tidegate.web")
Roles = dict[tuple[str, str], str]


def roles_of(users: Users, tokens: Tokens) -> Roles:
    """(table, name) -> role of everybody who may come in. Raises UserError, TokenError."""
    found = {("login", one.name): one.role for one in users.all().values()}
    return found | {("token", one.name): one.role for one in read(tokens.path).values()}


def gone(before: Roles, now: Roles) -> list[str]:
    """Names that lost a right between two looks: not there any more, or with a lower role."""
    rank = messages.ROLES.index
    return sorted({who[1] for who, role in before.items() if who not in now or rank(now[who]) < rank(role)})


async def follow_logins(client: AsyncClient, users: Users, tokens: Tokens) -> None:
    """Look each second, and say what the gateway has not heard yet, until cancelled."""
    heard: Roles = {}
    left_s = 0.0
    while True:
        try:
            now = await asyncio.to_thread(roles_of, users, tokens)
            lost = gone(heard, now)
            if lost or left_s <= 0.0:
                await client.ask("logins", gone=lost, stay=sorted({name for _, name in now}))
                left_s = AGAIN_S
            heard = now
        except (UserError, TokenError, ClientError) as why:
            logger.debug("logins not passed on: %s", why)
        left_s -= LOOK_S
        await asyncio.sleep(LOOK_S)
