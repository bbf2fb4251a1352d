"""The XML container of the SAFE transparency software: signed records of several meters in one file.

`<values>` holds a `<value>` for each record, with `<signedData format="OCMF" encoding="plain">` and `<publicKey>`. The
key that lies beside a record proves nothing, since whoever changes the one can change the other: what counts is the
key that the reader was given, and a container that names another one is refused.
"""

import base64
import binascii
from xml.etree import ElementTree

RECORDS_MAX = 10_000


class ContainerError(ValueError):
    """A container that cannot be used; the text names file and record."""


def is_container(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def records(text: str, name: str) -> list[tuple[str, str, str]]:
    """(where, OCMF document, public key as it is written or "") of each record. Raises ContainerError."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ContainerError(f"{name}: XML with a document type of its own; a container has none")
    try:
        root = ElementTree.fromstring(text.lstrip("\ufeff \t\r\n").encode())
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ContainerError(f"{name}: not XML ({error})") from None
    if _tag(root) != "values":
        raise ContainerError(f"{name}: its root is <{_tag(root)[:40]}>; expected <values> of the transparency software")
    values = [node for node in root if _tag(node) == "value"]
    if not values or len(values) > RECORDS_MAX:
        raise ContainerError(f"{name}: {len(values)} records; expected 1 to {RECORDS_MAX}")
    return [_record(node, f"{name}, record {number}") for number, node in enumerate(values, 1)]


def _record(node: ElementTree.Element, where: str) -> tuple[str, str, str]:
    signed = [one for one in node if _tag(one) == "signedData"]
    if len(signed) != 1 or not (signed[0].text or "").strip():
        raise ContainerError(f"{where}: {len(signed)} times signedData; expected one with text")
    form = signed[0].get("format", "OCMF")
    if form.upper() != "OCMF":
        raise ContainerError(f"{where}: format {form[:40]!r}; only OCMF is read here")
    keys = [(one.text or "").strip() for one in node if _tag(one) == "publicKey"]
    return where, _decoded(str(signed[0].text), signed[0].get("encoding", "plain").lower(), where), "".join(keys[:1])


def _decoded(text: str, encoding: str, where: str) -> str:
    try:
        if encoding == "plain":
            return text.strip()
        packed = "".join(text.split())
        if encoding == "base64":
            return base64.b64decode(packed, None, True).decode()
        if encoding == "hex":
            return bytes.fromhex(packed).decode()
    except (ValueError, binascii.Error):
        raise ContainerError(f"{where}: its signedData is not {encoding}") from None
    raise ContainerError(f"{where}: encoding {encoding[:40]!r}; expected plain, base64 or hex")


def _tag(node: ElementTree.Element) -> str:
    return str(node.tag).rpartition("}")[2]
