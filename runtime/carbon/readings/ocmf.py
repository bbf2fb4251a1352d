"""Signed meter readings in the Open Charge Metering Format, in and out.

`OCMF|{payload}|{signature}`: the signature is over the payload's bytes exactly as they stand between the bars. A number
is kept as it was written beside what it means. Source: OCMF 1.4.1 of the SAFE initiative. What we sign ourselves shows
that nothing was altered since capture; it is not legal metrology.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from tidegate.runtime.carbon.factors.series import FactorError
from tidegate.runtime.carbon.integers import decimal
from tidegate.runtime.carbon.ledger.bodies import PeriodBody, ReadingSource
from tidegate.runtime.carbon.readings.readings import Readings, scaled
from tidegate.runtime.carbon.readings.safe_container import ContainerError, is_container, records
from tidegate.runtime.state.device_key import write_key

FORMAT = "1.4"
DEFAULT_ALGORITHM = "ECDSA-secp256r1-SHA256"
# Signature algorithm -> name of its curve. Those with 192 bits are in the format too and are refused: too short.
CURVES = {
    "ECDSA-secp256k1-SHA256": "secp256k1",
    DEFAULT_ALGORITHM: "secp256r1",
    "ECDSA-brainpool256r1-SHA256": "brainpoolP256r1",
    "ECDSA-secp384r1-SHA256": "secp384r1",
    "ECDSA-brainpool384r1-SHA256": "brainpoolP384r1",
}
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d),(\d{3})([+-]\d{4}) ([UISR])")
PAGE = re.compile(r"([TF])(0|[1-9]\d*)")
OBIS = re.compile(r"(?:[0-9A-Za-z]+-[0-9A-Za-z]+:)?(\d+)\.(\d+)\.(\d+)(?:[.*][0-9A-Fa-f]+)?")
STATES = "NGTDRMXIOSEF"
DAY_S = 86_400


class OcmfError(FactorError):
    """A signed reading that cannot be used; the text names file, document and remedy."""


class Number(str):
    """A number of a payload, as it was written."""


# ---- keys ----


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """A public key from PEM, or from hex or base64 of its DER form. Raises OcmfError."""
    text = text.strip()
    try:
        if text.startswith("-----"):
            found: object = load_pem_public_key(text.encode())
        else:
            packed = "".join(text.split())
            raw = (
                bytes.fromhex(packed) if re.fullmatch("[0-9a-fA-F]+", packed) else base64.b64decode(packed, None, True)
            )
            found = load_der_public_key(raw)
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm) as error:
        raise OcmfError(f"the public key cannot be read ({error}); expected PEM, or DER in hex or base64") from None
    if not isinstance(found, ec.EllipticCurvePublicKey):
        raise OcmfError(f"the public key is a {type(found).__name__}; OCMF needs one of an elliptic curve")
    return found


def hex_of(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


def signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in a PEM file, made there for its owner alone if there is none. Raises OcmfError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        made = ec.generate_private_key(ec.SECP256R1())
        write_key(path, made)
        return made
    except OSError as error:
        raise OcmfError(f"{path}: the key cannot be read: {error.strerror}") from None
    try:
        found = load_pem_private_key(raw, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OcmfError(f"{path}: not a PEM private key ({error}); restore it from its copy") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
        raise OcmfError(f"{path}: a {type(found).__name__}; needs a key on secp256r1")
    return found


# ---- reading ----


@dataclass(frozen=True, slots=True)
class Document:
    """One signed document whose signature fits."""

    where: str
    text: str  # all of it, as it stood in the file
    payload: Mapping[str, object]
    algorithm: str
    key: str


def documents(raw: bytes, name: str, key: ec.EllipticCurvePublicKey) -> list[Document]:
    """Every document of a file, or of a SAFE container, each with its signature checked.

    Raises OcmfError naming the first that is wrong.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OcmfError(f"{name}: byte {error.start} is not UTF-8; OCMF is text") from None
    if is_container(text):
        return _contained(text, name, key)
    starts = [match.start() for match in re.finditer(r"(?m)^OCMF\|", text)]
    if not starts or text[: starts[0]].strip():
        first = text.lstrip()[:20]
        raise OcmfError(f"{name}: begins with {first!r}; expected OCMF|{{payload}}|{{signature}}")
    found = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True), 1):
        found.append(_document(text[start:end].rstrip(), f"{name}, document {number}", key))
    return found


def _contained(text: str, name: str, key: ec.EllipticCurvePublicKey) -> list[Document]:
    """The documents of a SAFE container. The key beside a record has to be the one that was given."""
    found = []
    try:
        rows = records(text, name)
    except ContainerError as error:
        raise OcmfError(str(error)) from None
    for where, document, own in rows:
        if not document.startswith("OCMF|"):
            raise OcmfError(f"{where}: begins with {document[:20]!r}; expected OCMF|{{payload}}|{{signature}}")
        if own and hex_of(public_key(own)) != hex_of(key):
            raise OcmfError(f"{where}: names another key than the one given; is it of this meter?")
        found.append(_document(document, where, key))
    return found


def _document(text: str, where: str, key: ec.EllipticCurvePublicKey) -> Document:
    sections = text.split("|")
    if len(sections) != 3:
        raise OcmfError(f"{where}: {len(sections)} sections; expected OCMF|{{payload}}|{{signature}}")
    signature = _object(sections[2], f"{where}, signature")
    algorithm = str(signature.get("SA", DEFAULT_ALGORITHM))
    curve = CURVES.get(algorithm)
    if curve is None:
        raise OcmfError(f"{where}: signature algorithm {algorithm!r}; known: {', '.join(CURVES)}")
    if key.curve.name != curve:
        raise OcmfError(f"{where}: signed on curve {curve}, the key given is on {key.curve.name}; is it of this meter?")
    if signature.get("SM", "application/x-der") != "application/x-der":
        raise OcmfError(f"{where}: signature form {signature['SM']!r}; expected application/x-der")
    encoding, data = str(signature.get("SE", "hex")), signature.get("SD")
    if not isinstance(data, str) or encoding not in ("hex", "base64"):
        raise OcmfError(f"{where}: no signature (SD) in hex or base64")
    try:
        packed = bytes.fromhex(data) if encoding == "hex" else base64.b64decode(data, None, True)
    except (ValueError, binascii.Error):
        raise OcmfError(f"{where}: the signature is not {encoding}") from None
    try:
        key.verify(packed, sections[1].encode(), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        raise OcmfError(
            f"{where}: the signature does not fit; the payload was changed, or the key is not of this meter"
        ) from None
    return Document(where, text, _object(sections[1], f"{where}, payload"), algorithm, hex_of(key))


def _object(text: str, where: str) -> dict[str, Any]:
    def pairs(rows: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in rows}) != len(rows):
            raise ValueError("a key stands twice")
        return dict(rows)

    try:
        found = json.loads(text, parse_float=Number, parse_int=Number, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise OcmfError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise OcmfError(f"{where}: expected an object")
    return found


def readings(found: Iterable[Document], name: str, flow: str = "") -> tuple[list[Readings], list[str]]:
    """The register readings of documents, and what is odd about them (pages that are missing).

    flow : the flow of the site that this meter measures too, for comparison. Raises OcmfError by document.
    """
    kept: list[Readings] = []
    odd: list[str] = []
    pages: dict[tuple[str, str], int] = {}
    for document in found:
        payload, where = document.payload, document.where
        version = str(payload.get("FV", FORMAT))
        if not re.fullmatch(r"[01]\.\d+", version):
            raise OcmfError(f"{where}: format version {version}; this version knows 0 and 1, update tidegate")
        page = PAGE.fullmatch(str(payload.get("PG", "")))
        if page is None:
            raise OcmfError(f"{where}: pagination (PG) {payload.get('PG')!r}; expected T or F and a number")
        meter = str(payload.get("MS") or payload.get("GS") or "")
        if not meter:
            raise OcmfError(f"{where}: no serial number, neither of the meter (MS) nor of the gateway (GS)")
        context, number = (meter, page[1]), int(page[2])
        if context in pages and number != pages[context] + 1:
            odd.append(f"{where}: page {page[1]}{number} follows {page[1]}{pages[context]}; documents are missing")
        pages[context] = number
        source: ReadingSource = {
            "kind": "ocmf", "name": name, "sha256": hashlib.sha256(document.text.encode()).hexdigest(),
            "document": document.text, "algorithm": document.algorithm, "key": document.key, "page": page[0],
            "flow": flow,
        }  # fmt: skip
        by_quantity: dict[str, Readings] = {}
        for quantity, row in _rows(payload.get("RD"), where):
            by_quantity.setdefault(quantity, Readings(meter, quantity, [], source)).rows.append(row)
        kept += by_quantity.values()
    return kept, odd


def _rows(rows: Any, where: str) -> Iterator[tuple[str, tuple[int, int, str, str, str]]]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise OcmfError(f"{where}: no readings (RD)")
    full: dict[str, object] = {}
    for number, row in enumerate(rows, 1):
        at = f"{where}, reading {number}"
        # A field that equals the one of the reading before is left out, but a reading has a value or it is an event.
        full = {**{key: value for key, value in full.items() if key != "RV"}, **row}
        state = str(full.get("ST", ""))
        if len(state) != 1 or state not in STATES:
            raise OcmfError(f"{at}: meter state (ST) {full.get('ST')!r}; expected one of {', '.join(STATES)}")
        time = TIME.fullmatch(str(full.get("TM", "")))
        try:
            moment = datetime.strptime(f"{time[1]}{time[3]}", "%Y-%m-%dT%H:%M:%S%z") if time else None
        except ValueError:
            moment = None
        if time is None or moment is None:
            raise OcmfError(f"{at}: time (TM) {full.get('TM')!r}; expected like 2018-07-24T13:22:04,000+0200 S")
        if "RV" not in row:
            continue
        if not isinstance(full["RV"], Number):
            raise OcmfError(f"{at}: value (RV) {full['RV']!r} is not a number")
        code = OBIS.fullmatch(str(full.get("RI", "")))
        total = None if code is None else {(1, 8, 0): "energy-import", (2, 8, 0): "energy-export"}.get(
            (int(code[1]), int(code[2]), int(code[3])))  # fmt: skip
        if total is None:
            raise OcmfError(f"{at}: OBIS code (RI) {full.get('RI')!r}; expected the total of active energy, "
                            "1-0:1.8.0 or 1-0:2.8.0")  # fmt: skip
        try:
            value = scaled(str(full["RV"]), total, str(full.get("RU", "")), at)
        except FactorError as error:
            raise OcmfError(str(error)) from None
        errors = str(full.get("EF", ""))
        sync = "U" if "t" in errors else time[4]
        yield total, (int(moment.timestamp()), value, sync, "E" if "E" in errors else state, str(full["RV"]))


# ---- writing ----


def signed(payload: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """A document over a payload. A Number stands in it as it is written."""
    text = _text(payload)
    if "|" in text:
        raise OcmfError("a payload may not hold the sign |; it stands in a name of the site or of the meter")
    data = key.sign(text.encode(), ec.ECDSA(SHA256()))
    return f"OCMF|{text}|" + json.dumps({"SA": DEFAULT_ALGORITHM, "SD": data.hex()}, separators=(",", ":"))


def _text(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(key)}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


CODES = {"import": "1-0:1.8.0", "load": "1-0:1.8.0", "charge": "1-0:1.8.0", "export": "1-0:2.8.0",
         "generation": "1-0:2.8.0", "discharge": "1-0:2.8.0"}  # fmt: skip
STATE_OF = {"good": "G", "estimated": "S", "substituted": "S", "edited": "S", "bad": "E", "missing": "E"}


def exported(
    bodies: Iterable[PeriodBody], flow: str, serial: str, start_utc_s: int, end_utc_s: int,
    key: ec.EllipticCurvePrivateKey,
) -> Iterator[str]:  # fmt: skip
    """One signed document a UTC day of [start, end): the running total of a flow at each end of a period.

    bodies : all periods of the ledger in force, from the first on. The total opens with the register's reading when the
    account began and goes on by what was booked, so that its differences are the ledger's. The page is the number of
    the day since 1970. Raises OcmfError for a flow that is not booked or that no register measures.
    """
    total: int | None = None
    day, rows = -1, list[dict[str, object]]()
    head: dict[str, object] = {}
    known: set[str] = set()
    kind = flow.rpartition(".")[2]
    for body in bodies:
        own = body["flows"].get(flow)
        known.update(body["flows"])
        if own is None:
            continue
        if total is None:
            if own["open_milliwh"] is None:
                continue
            total = own["open_milliwh"]
        begun, ended = body["start_utc_s"], body["start_utc_s"] + body["length_s"]
        if begun >= end_utc_s:
            break
        before, state = total, STATE_OF.get(own["quality"], "E")
        total += own["energy_milliwh"]
        if begun < start_utc_s:
            continue
        if begun // DAY_S != day:
            if rows:
                yield signed({**head, "RD": rows}, key)
            day = begun // DAY_S
            head = {"FV": FORMAT, "GI": "tidegate", "GS": body["site"], "PG": f"F{day}", "MS": serial}
            rows = [_row(begun, before, kind, body["utc_sync"], state)]
        rows.append(_row(ended, total, kind, body["utc_sync"], state))
    if rows:
        yield signed({**head, "RD": rows}, key)
    elif total is None and flow in known:
        raise OcmfError(f"{flow}: no register measures it; an integral of power is no meter reading")
    elif flow not in known:
        raise OcmfError(f"{flow}: no such flow; known: {', '.join(sorted(known)) or 'none, nothing is booked'}")


def _row(utc_s: int, milliwh: int, kind: str, sync: str, state: str) -> dict[str, Any]:
    time = datetime.fromtimestamp(utc_s, UTC)
    return {
        "TM": f"{time:%Y-%m-%dT%H:%M:%S},000+0000 {sync}", "RV": Number(decimal(milliwh, 6)),
        "RI": CODES.get(kind, CODES["load"]), "RU": "kWh", "RT": "AC", "EF": "E" if state == "E" else "", "ST": state,
    }  # fmt: skip
