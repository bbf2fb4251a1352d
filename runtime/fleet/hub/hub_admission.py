"""Letting units in at the hub, and giving them another login: what `hub run` answers to tokens and to joined units.

The unit makes its login's secret itself. Its device key signs that secret's digest together with the token: so the hub
knows whose ledger it will get, and that key never answers a question of a broker.
"""

import contextlib
import hashlib
import json
import sys

import nats
import nats.errors
import psycopg
from nats.aio.client import Client
from nats.aio.msg import Msg

from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.hub_life import HubLife
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.hub.join_token import join_message
from tidegate.runtime.fleet.invitation import HubError, servers_in
from tidegate.runtime.fleet.ledger_batch import ENROL, ROTATE, subject_word
from tidegate.runtime.state.device_key import signed_by

WORD_CHARS = 48


def is_word(word: object) -> bool:
    """Whether it is a secret as units make them: hex digits, 192 bits."""
    return isinstance(word, str) and len(word) == WORD_CHARS and not set(word) - set("0123456789abcdef")


class Admission:
    """broker : whose logins change. life, store : the hub's database."""

    def __init__(self, broker: Broker, life: HubLife, store: HubStore) -> None:
        self.broker, self.life, self.store = broker, life, store
        self._client: Client | None = None

    async def open(self) -> None:
        """Answer from here on."""
        user, word = self.broker.own_login()
        self._client = await nats.connect(
            servers_in(self.broker.address), user=user, password=word, tls=self.broker.context(),
            max_reconnect_attempts=-1,
        )  # fmt: skip
        await self._client.subscribe(f"{ENROL}.*", cb=self._joins)
        await self._client.subscribe(f"{ROTATE}.*", cb=self._rotates)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def admit(self, token_id: str, data: bytes) -> str:
        """Let the unit of a request in. -> its site. Raises HubError, psycopg.Error."""
        try:
            row = json.loads(data)
            site, code, key, word, signature = (str(row[name]) for name in ("site", "code", "key", "word", "signature"))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise HubError("no request to join that this hub reads") from None
        digest = hashlib.sha256(word.encode()).hexdigest()
        if not is_word(word) or not signed_by(key, signature, join_message(site, token_id, digest)):
            raise HubError("the device key did not sign this request")
        self.life.use_token(site, token_id, code, key)
        self.store.enrol(site, key)
        self._give(site, word)
        self.broker.end_claim(token_id)  # with the next reload: the answer goes out first
        return site

    def _give(self, site: str, word: str) -> None:
        """A login, unless it was ended meanwhile: a command ends it in the store first, then here."""
        self.broker.put_login(site, word)
        if not self.life.is_open(site):
            self.broker.end_login(site)
            raise HubError(f"{site}: its login was ended just now")

    async def _joins(self, message: Msg) -> None:
        await self._answer(message, lambda token_id: self.admit(token_id, message.data))

    def rotate(self, own: str, data: bytes) -> str:
        """Another login for the site whose own this subject is. -> the site. Raises HubError."""
        try:
            word = json.loads(data)["word"]
        except (ValueError, KeyError, TypeError, RecursionError):
            word = None
        site = next((one for one in self.broker.logins() if subject_word(one) == own), None)
        if site is None or not is_word(word) or not self.life.is_open(site):
            raise HubError("no login is changed by that")
        self._give(site, str(word))
        self.life.rotated(site)
        return site

    async def _rotates(self, message: Msg) -> None:
        await self._answer(message, lambda own: self.rotate(own, message.data))

    async def _answer(self, message: Msg, act) -> None:  # type: ignore[no-untyped-def]
        assert self._client is not None
        try:
            row = {"site": act(message.subject.rsplit(".", 1)[1]), "said": ""}
        except HubError as why:
            row = {"said": str(why)}
        except (psycopg.Error, OSError) as why:
            row = {"said": f"the hub cannot do it now ({type(why).__name__}); try again"}
        with contextlib.suppress(nats.errors.Error):
            if message.reply:
                await message.respond(json.dumps(row).encode())
                await self._client.flush(5)
        if not row["said"]:
            try:
                self.broker.reload()  # cuts the connection of the login that ended
            except (HubError, OSError) as why:
                print(f"hub: {why}", file=sys.stderr, flush=True)
