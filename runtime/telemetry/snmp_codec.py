"""SNMP v2c (RFC 3416) as bytes: requests out, answers in. Nothing that a network sends raises anything but SnmpError.

Only what a reader of gauges needs: GET and GETBULK with OIDs, numbers and short texts back. A general library spends
some hundred times the time on an answer of forty numbers, which is what decides how many PDUs one core can ask.
"""

from collections.abc import Sequence

Oid = tuple[int, ...]
Value = int | str | None  # None: the agent has no such object
Rows = list[tuple[Oid, Value, bool]]  # object, value, whether the agent's view ends there

INTEGER, OCTETS, NULL, OID, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
GET, RESPONSE, GET_BULK = 0xA0, 0xA2, 0xA5
UNSIGNED = (0x41, 0x42, 0x43, 0x46)  # Counter32, Gauge32, TimeTicks, Counter64
ABSENT = (0x80, 0x81, 0x82)  # noSuchObject, noSuchInstance, endOfMibView
END_OF_VIEW = 0x82
VERSION_2C, VERSION_3 = 1, 3
ANSWER_OBJECTS_MAX = 256
SUBIDS_MAX = 128


class SnmpError(ValueError):
    """An answer that is none, or an error status of the agent; the text says which."""


# ---- out ----


def _length(count: int) -> bytes:
    if count < 0x80:
        return bytes((count,))
    size = (count.bit_length() + 7) // 8
    return bytes((0x80 | size,)) + count.to_bytes(size, "big")


def wrapped(tag: int, body: bytes) -> bytes:
    """An element: tag, length and body."""
    return bytes((tag,)) + _length(len(body)) + body


def integer(value: int) -> bytes:
    """A number as an element."""
    return wrapped(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _oid(oid: Oid) -> bytes:
    out = bytearray((oid[0] * 40 + oid[1],))
    for number in oid[2:]:
        parts = [number & 0x7F]
        while number := number >> 7:
            parts.append(0x80 | number & 0x7F)
        out += bytes(reversed(parts))
    return wrapped(OID, bytes(out))


def bindings_of(oids: Sequence[Oid]) -> bytes:
    """The list of objects of a request; the same for each poll, so that it is made once."""
    return wrapped(SEQUENCE, b"".join(wrapped(SEQUENCE, _oid(oid) + bytes((NULL, 0))) for oid in oids))


def request(community: bytes, number: int, bindings: bytes, *, bulk: int = 0) -> bytes:
    """A GET of the objects, or a GETBULK of so many behind each."""
    head = integer(number) + integer(0) + integer(bulk)  # error status and index; of bulk: repeaters
    pdu = wrapped(GET_BULK if bulk else GET, head + bindings)
    return wrapped(SEQUENCE, integer(VERSION_2C) + wrapped(OCTETS, community) + pdu)


# ---- in ----


def element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """(tag, start, end) of the element at a place."""
    if at + 2 > end:
        raise SnmpError("cut short")
    tag, length = data[at], data[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or at + size > end:
            raise SnmpError("a length that cannot be")
        length = int.from_bytes(data[at : at + size], "big")
        at += size
    if at + length > end:
        raise SnmpError("cut short")
    return tag, at, at + length


def expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """(start, end) of the element at a place, which has to have this tag. Raises SnmpError."""
    found, start, stop = element(data, at, end)
    if found != tag:
        raise SnmpError(f"element {found:#04x}, expected {tag:#04x}")
    return start, stop


def number_at(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(the number at a place, where it ends). Raises SnmpError."""
    start, stop = expect(data, at, end, INTEGER)
    if not 1 <= stop - start <= 8:
        raise SnmpError("an integer of a length that cannot be")
    return int.from_bytes(data[start:stop], "big", signed=True), stop


def _oid_of(data: bytes, start: int, stop: int) -> Oid:
    if start == stop or stop - start > 4 * SUBIDS_MAX:
        raise SnmpError("an object identifier of a length that cannot be")
    numbers: list[int] = []
    number = 0
    for byte in data[start:stop]:
        number = number << 7 | byte & 0x7F
        if number > 0xFFFFFFFF:
            raise SnmpError("an object identifier above 32 bits")
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if data[stop - 1] & 0x80 or len(numbers) > SUBIDS_MAX:
        raise SnmpError("an object identifier that does not end")
    first = min(numbers[0] // 40, 2)
    return (first, numbers[0] - 40 * first, *numbers[1:])


def _value(tag: int, raw: bytes) -> Value:
    if tag == INTEGER or tag in UNSIGNED:
        if not 1 <= len(raw) <= 9:
            raise SnmpError("a number of a length that cannot be")
        return int.from_bytes(raw, "big", signed=tag == INTEGER)
    if tag == OCTETS:
        return raw[:255].decode("utf-8", "replace")
    if tag in ABSENT or tag == NULL:
        return None
    raise SnmpError(f"a value of type {tag:#04x}")


def answer(data: bytes) -> tuple[int, Rows]:
    """(request number, rows). Raises SnmpError."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    version, at = number_at(data, at, end)
    if version != VERSION_2C:
        raise SnmpError(f"version {version}, expected {VERSION_2C}")
    _, at = expect(data, at, end, OCTETS)
    return rows_of(data, at, end, RESPONSE)


def rows_of(data: bytes, at: int, end: int, tag: int) -> tuple[int, Rows]:
    """(request number, rows) of the PDU at a place. Raises SnmpError."""
    at, end = expect(data, at, end, tag)
    number, at = number_at(data, at, end)
    status, at = number_at(data, at, end)
    index, at = number_at(data, at, end)
    if status:
        raise SnmpError(f"the agent refuses: error status {status} at object {index}")
    at, end = expect(data, at, end, SEQUENCE)
    found: Rows = []
    while at < end:
        inner, stop = expect(data, at, end, SEQUENCE)
        start, after = expect(data, inner, stop, OID)
        tag, first, last = element(data, after, stop)
        found.append((_oid_of(data, start, after), _value(tag, data[first:last]), tag == END_OF_VIEW))
        if len(found) > ANSWER_OBJECTS_MAX:
            raise SnmpError(f"more than {ANSWER_OBJECTS_MAX} objects in one answer")
        at = stop
    return number, found


def number_of(data: bytes) -> int:
    """The number by which an answer finds who waits for it: the request's of v2c, the message's of v3."""
    at, end = expect(data, 0, len(data), SEQUENCE)
    version, at = number_at(data, at, end)
    tag, at, after = element(data, at, end)
    if version == VERSION_2C and tag == OCTETS:
        _, at, end = element(data, after, end)
        return number_at(data, at, end)[0]
    if version == VERSION_3 and tag == SEQUENCE:
        return number_at(data, at, after)[0]
    raise SnmpError(f"version {version}, or no answer of it")
