"""SNMP v3 with the user-based security model: RFC 3412, 3414, 7860 (HMAC-SHA-2), AES-128 of RFC 3826.

The messages are ours, as those of v2c are; hashes and cipher are those of hashlib and cryptography. MD5 and DES are not
spoken. One object for each agent: it holds the agent's engine, its keys and how its clock stands.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from tidegate.runtime.telemetry.snmp_codec import (
    GET,
    GET_BULK,
    INTEGER,
    OCTETS,
    RESPONSE,
    SEQUENCE,
    VERSION_3,
    Rows,
    SnmpError,
    element,
    expect,
    integer,
    number_at,
    rows_of,
    wrapped,
)

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:  # before it was moved
    from cryptography.hazmat.primitives.ciphers.modes import CFB

REPORT = 0xA8
USM = 3
AUTHENTIC, PRIVATE, REPORTABLE = 1, 2, 4
MESSAGE_BYTES_MAX = 65_507
WINDOW_S = 150  # RFC 3414, 2.2.3
PASSWORD_MIN = 8  # RFC 3414, 11.2
DIGEST_BYTES = {"sha1": 12, "sha224": 16, "sha256": 24, "sha384": 32, "sha512": 48}
STATS = (1, 3, 6, 1, 6, 3, 15, 1, 1)  # usmStats; the next number says what is wrong
OUT_OF_TIME, UNKNOWN_ENGINE = 2, 4
WRONG = {
    1: "it does not know this kind of authentication or privacy",
    OUT_OF_TIME: "its clock and ours stay apart",
    3: "it does not know this user",
    UNKNOWN_ENGINE: "its engine is another one now",
    5: "it finds the password or the hash (auth) wrong",
    6: "it cannot decrypt: password of privacy_file, or AES-128 is not its cipher",
}


class OutOfTime(SnmpError):
    """The agent restarted or its clock moved; what it says now is known, and asking again will do."""


@dataclass(frozen=True, slots=True)
class UsmUser:
    """A user of agents. auth : name of the hash. privacy : its password for AES-128, "" = authenticated plain text."""

    name: str
    auth: str
    password: str
    privacy: str = ""


def password_key(password: bytes, auth: str, engine: bytes) -> bytes:
    """The key of a password for one engine: RFC 3414, A.2."""
    whole = (password * ((1 << 20) // len(password) + 1))[: 1 << 20]
    key = hashlib.new(auth, whole).digest()
    return hashlib.new(auth, key + engine + key).digest()


class UsmAgent:
    """One agent as one user speaks with it."""

    def __init__(self, user: UsmUser, clock: Callable[[], float] = time.monotonic) -> None:
        self._user, self._clock = user, clock
        self._engine = b""
        self._keys = (b"", b"")
        self._boots = self._time = 0
        self._at_s = 0.0
        self._salt = int.from_bytes(os.urandom(8), "big")

    @property
    def known(self) -> bool:
        """Whether the agent's engine is known; `discovery` asks for it."""
        return bool(self._engine)

    def forget(self) -> None:
        """It has another engine, or may have: ask anew."""
        self._engine = b""

    # ---- out ----

    def discovery(self, number: int) -> bytes:
        """A message that asks an agent which engine it is."""
        scoped = wrapped(SEQUENCE, wrapped(OCTETS, b"") * 2 + _pdu(GET, number, wrapped(SEQUENCE, b"")))
        return _message(number, REPORTABLE, _security(b"", 0, 0, b"", b"", b""), scoped)

    def request(self, number: int, bindings: bytes, *, bulk: int = 0) -> bytes:
        """A GET of the objects, or a GETBULK of so many after each."""
        user, digest = self._user.name.encode(), bytes(DIGEST_BYTES[self._user.auth])
        pdu = _pdu(GET_BULK if bulk else GET, number, bindings, bulk)
        data = wrapped(SEQUENCE, wrapped(OCTETS, self._engine) + wrapped(OCTETS, b"") + pdu)
        flags, salt = AUTHENTIC | REPORTABLE, b""
        boots, seconds = self._boots, self._time + int(self._clock() - self._at_s)
        if self._user.privacy:
            flags |= PRIVATE
            self._salt = (self._salt + 1) & 0xFFFFFFFFFFFFFFFF
            salt = self._salt.to_bytes(8, "big")
            encryptor = self._cipher(boots, seconds, salt).encryptor()
            data = wrapped(OCTETS, encryptor.update(data) + encryptor.finalize())
        plain = _message(number, flags, _security(self._engine, boots, seconds, user, digest, salt), data)
        at = _digest_at(plain)
        return plain[:at] + self._digest(plain) + plain[at + len(digest) :]

    def _cipher(self, boots: int, seconds: int, salt: bytes) -> Cipher[CFB]:
        vector = boots.to_bytes(4, "big") + seconds.to_bytes(4, "big") + salt
        return Cipher(algorithms.AES128(self._keys[1]), CFB(vector))

    def _digest(self, message: bytes) -> bytes:
        return hmac.digest(self._keys[0], message, self._user.auth)[: DIGEST_BYTES[self._user.auth]]

    # ---- in ----

    def discovered(self, data: bytes) -> None:
        """Take the answer to `discovery`. Raises SnmpError. Unsigned: a false one only makes the next request fail."""
        security = _parts(data)[1]
        engine, boots, seconds, *_ = security
        if not 5 <= len(engine) <= 32:
            raise SnmpError(f"an engine of {len(engine)} bytes, expected 5 to 32")
        if engine != self._engine:
            key = password_key(self._user.password.encode(), self._user.auth, engine)
            private = self._user.privacy and password_key(self._user.privacy.encode(), self._user.auth, engine)[:16]
            self._keys = key, private or b""
        self._engine, self._boots, self._time, self._at_s = engine, boots, seconds, self._clock()

    def answer(self, data: bytes) -> tuple[int, Rows]:
        """(request number, rows) as of v2c. Raises SnmpError for what is not from this agent, or is a report."""
        flags, (engine, boots, seconds, user, digest, salt), start, end = _parts(data)
        if not flags & AUTHENTIC:
            raise SnmpError(self._reported(data, start, end, flags, trusted=False))
        at = _digest_at(data)
        blank = data[:at] + bytes(len(digest)) + data[at + len(digest) :]
        if engine != self._engine or user != self._user.name.encode():
            raise SnmpError("an answer of another engine or for another user")
        if not hmac.compare_digest(digest, self._digest(blank)):
            raise SnmpError("an answer whose signature is wrong")
        if boots < self._boots or (
            boots == self._boots and seconds < self._time + (self._clock() - self._at_s) - WINDOW_S
        ):
            raise SnmpError("an answer from before: its clock goes backwards")
        self._boots, self._time, self._at_s = boots, seconds, self._clock()
        if flags & PRIVATE:
            if len(salt) != 8 or not self._user.privacy:
                raise SnmpError("an encrypted answer that nobody asked for")
            first, last = expect(data, start, end, OCTETS)
            decryptor = self._cipher(boots, seconds, salt).decryptor()
            data = decryptor.update(data[first:last]) + decryptor.finalize()
            start, end = 0, len(data)
        elif self._user.privacy and _pdu_tag(data, start, end) != REPORT:
            raise SnmpError("an answer in plain text to an encrypted question")
        at, stop = _pdu_place(data, start, end)
        if data[at] == REPORT:
            text = self._reported(data, start, end, flags & ~PRIVATE, trusted=True)
            raise SnmpError(text)
        return rows_of(data, at, stop, RESPONSE)

    def _reported(self, data: bytes, start: int, end: int, flags: int, *, trusted: bool) -> str:
        """What a report means, in words. Raises OutOfTime for the one that only asks to be asked again."""
        if flags & PRIVATE:
            raise SnmpError("an encrypted message without a signature")
        at, stop = _pdu_place(data, start, end)
        _, rows = rows_of(data, at, stop, REPORT)
        kind = next((oid[len(STATS)] for oid, _, _ in rows if oid[: len(STATS)] == STATS and len(oid) > len(STATS)), 0)
        if kind == OUT_OF_TIME and trusted:
            raise OutOfTime(WRONG[kind])
        if kind == UNKNOWN_ENGINE:
            self.forget()
        return f"the agent refuses: {WRONG.get(kind, 'a report of a kind that is not known')}"


# ---- the message ----


def _pdu(tag: int, number: int, bindings: bytes, bulk: int = 0) -> bytes:
    return wrapped(tag, integer(number) + integer(0) + integer(bulk) + bindings)


def _security(engine: bytes, boots: int, seconds: int, user: bytes, digest: bytes, salt: bytes) -> bytes:
    body = wrapped(OCTETS, engine) + integer(boots) + integer(seconds)
    return wrapped(SEQUENCE, body + wrapped(OCTETS, user) + wrapped(OCTETS, digest) + wrapped(OCTETS, salt))


def _message(number: int, flags: int, security: bytes, data: bytes) -> bytes:
    head = integer(number) + integer(MESSAGE_BYTES_MAX) + wrapped(OCTETS, bytes((flags,))) + integer(USM)
    return wrapped(SEQUENCE, integer(VERSION_3) + wrapped(SEQUENCE, head) + wrapped(OCTETS, security) + data)


Security = tuple[bytes, int, int, bytes, bytes, bytes]


def _parts(data: bytes) -> tuple[int, Security, int, int]:
    """(flags, security parameters, start and end of the scoped data). Raises SnmpError."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    version, at = number_at(data, at, end)
    if version != VERSION_3:
        raise SnmpError(f"version {version}, expected {VERSION_3}")
    head, at = expect(data, at, end, SEQUENCE)
    _, head = number_at(data, head, at)
    _, head = number_at(data, head, at)
    flag, head = expect(data, head, at, OCTETS)
    if head - flag != 1:
        raise SnmpError("flags of a length that cannot be")
    model, _ = number_at(data, head, at)
    if model != USM:
        raise SnmpError(f"security model {model}, expected {USM}")
    inner, after = expect(data, at, end, OCTETS)
    return data[flag], _security_of(data, inner, after)[0], after, end


def _security_of(data: bytes, at: int, end: int) -> tuple[Security, int]:
    """(security parameters, where the digest begins)."""
    at, end = expect(data, at, end, SEQUENCE)
    first, at = expect(data, at, end, OCTETS)
    engine = data[first:at]
    boots, at = number_at(data, at, end)
    seconds, at = number_at(data, at, end)
    if not (0 <= boots < 1 << 31 and 0 <= seconds < 1 << 31):
        raise SnmpError("a clock that cannot be")
    first, at = expect(data, at, end, OCTETS)
    user = data[first:at]
    place, at = expect(data, at, end, OCTETS)
    digest = data[place:at]
    first, at = expect(data, at, end, OCTETS)
    return (engine, boots, seconds, user, digest, data[first:at]), place


def _digest_at(data: bytes) -> int:
    """Where the digest begins in a message that `_parts` has read, or that we made."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    _, at = expect(data, at, end, INTEGER)
    _, at = expect(data, at, end, SEQUENCE)
    inner, after = expect(data, at, end, OCTETS)
    return _security_of(data, inner, after)[1]


def _pdu_place(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Start and end of the PDU in scoped data."""
    at, end = expect(data, start, end, SEQUENCE)
    _, at = expect(data, at, end, OCTETS)
    _, at = expect(data, at, end, OCTETS)
    return at, element(data, at, end)[2]


def _pdu_tag(data: bytes, start: int, end: int) -> int:
    return data[_pdu_place(data, start, end)[0]]
