"""Events as syslog: RFC 5424 lines, to a file or over TLS with the framing of RFC 5425."""

import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tidegate.runtime.audit.chain import Link

FACILITY = 13  # log audit
SEVERITY_NOTICE, SEVERITY_WARNING = 5, 4
WORSE = {"fault_on", "latch", "access", "journal", "shortfall"}
TIMEOUT_S = 10.0


def _printable(text: object, most: int) -> str:
    """A header field: printable ASCII without spaces, "-" if nothing is left."""
    kept = "".join(c for c in str(text) if "!" <= c <= "~")[:most]
    return kept or "-"


def line(link: Link, host: str, site: str) -> bytes:
    """One event as an RFC 5424 message; the text is its record as JSON, control characters escaped."""
    record = msgspec.msgpack.decode(link.payload)
    event = str(record.get("event", "event")) if isinstance(record, dict) else "event"
    pri = FACILITY * 8 + (SEVERITY_WARNING if event in WORSE else SEVERITY_NOTICE)
    when = datetime.fromtimestamp(link.utc_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    data = f'[tidegate@32473 segment="{link.segment}" event="{link.number}" chain="{link.chain.hex()}"]'
    head = f"<{pri}>1 {when} {_printable(host, 255)} tidegate {_printable(site, 128)} {_printable(event, 32)} {data} "
    return (head + json.dumps(record, default=_text, sort_keys=True)).encode()


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def lines(links: list[Link], site: str) -> Iterator[bytes]:
    host = socket.gethostname()
    for link in links:
        yield line(link, host, site)


def send(messages: Iterator[bytes], address: tuple[str, int], authority: Path, client: Path | None = None) -> int:
    """Send messages over TLS, each as "LENGTH MESSAGE"; how many.

    authority : PEM of who signed the receiver's certificate, whose name must be the address's.
    client : PEM of an own certificate and its key, if the receiver wants one.
    Raises OSError (ssl.SSLError is one). Syslog has no answer: what the network loses after the last byte is not known.
    """
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client is not None:
        context.load_cert_chain(str(client))
    count = 0
    with (
        socket.create_connection(address, TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as line_out,
    ):
        for message in messages:
            line_out.sendall(b"%d %s" % (len(message), message))
            count += 1
        line_out.unwrap()  # the receiver's own end: it has read all
    return count
