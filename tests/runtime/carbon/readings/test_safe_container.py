"""Signed readings in the container of the transparency software: read, and refused by record."""

import base64
import random
from xml.sax.saxutils import escape

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.runtime.carbon.readings.test_ocmf import DAY, KEY, PUBLIC, payload
from tidegate.runtime.carbon.readings.ocmf import OcmfError, documents, hex_of, readings, signed

HEX = hex_of(PUBLIC)
OTHER = ec.generate_private_key(ec.SECP256R1())


def record(text, key=HEX, form="OCMF", encoding="plain"):
    own = f'<publicKey encoding="plain">{key}</publicKey>' if key else ""
    return (
        f'<value transactionId="1"><signedData format="{form}" encoding="{encoding}">{text}</signedData>{own}</value>'
    )


def container(*rows, head='<?xml version="1.0" encoding="UTF-8"?>\n<values>'):
    return (head + "\n".join(rows) + "</values>").encode()


def plain(**changes):
    return escape(signed(payload(**changes), KEY))


def test_records_of_a_container_are_read_with_their_signatures_checked():
    packed = base64.b64encode(signed(payload(PG="F8"), KEY).encode()).decode()
    raw = container(record(plain()), record(packed, "", encoding="base64"),
                    record(signed(payload(PG="F9"), KEY).encode().hex(), "", encoding="hex"))  # fmt: skip
    found, odd = readings(documents(raw, "m.xml", PUBLIC), "m.xml")
    assert [one.rows[0][:2] for one in found] == [(DAY, 2935_600_000)] * 3 and odd == []
    spaced = container(record(plain()), head='\ufeff<values xmlns="urn:example">')
    assert len(documents(spaced, "m.xml", PUBLIC)) == 1


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (container(record(plain()), record(plain().replace("2935.60", "2935.61"))), "record 2: the signature does not"),
        (container(record(plain(), hex_of(OTHER.public_key()))), "record 1: names another key"),
        (container(record(plain(), "zz")), "public key cannot be read"),
        (container(record(plain(), form="ALFEN")), "format 'ALFEN'"),
        (container(record(plain(), encoding="rot13")), "encoding 'rot13'"),
        (container(record("%%%", encoding="base64")), "is not base64"),
        (container(record("SML|{}|{}")), "begins with 'SML"),
        (container("<value></value>"), "0 times signedData"),
        (container(), "0 records"),
        (b"<signedMeterValue/>", "its root is <signedMeterValue>"),
        (b"<values><value>", "not XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><values/>', "document type of its own"),
    ],
)
def test_what_is_no_container_of_this_meter_is_refused_by_record(raw, words):
    with pytest.raises(OcmfError, match=words):
        documents(raw, "m.xml", PUBLIC)


def test_any_bytes_are_read_or_refused_and_never_change_a_number():
    raw = container(record(plain()), record(plain(PG="F8")))
    good = [one.rows for one in readings(documents(raw, "m", PUBLIC), "m")[0]]
    rng = random.Random(7)
    for _ in range(400):
        changed = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            found = readings(documents(bytes(changed), "m", PUBLIC), "m")[0]
        except OcmfError:
            continue
        assert [one.rows for one in found] in (good, good[:1], good[1:])
