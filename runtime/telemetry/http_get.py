"""One GET over HTTP/1.1 with asyncio alone: bounded in time, size and redirects (none), and never a thread.

urllib would hold a thread for each dead host, and httpx with what it brings is larger than the rest of this process.
"""

import asyncio
import ssl
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import urlsplit

BYTES_MAX = 16 << 20
HEAD_BYTES_MAX = 32 << 10


class HttpError(OSError):
    """No usable answer; the text says why, never with what was sent."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a host is asked. context : for https."""

    context: ssl.SSLContext | None = None
    user: str = ""
    password: str = ""


async def get(url: str, access: Access, timeout_s: float, bytes_max: int = BYTES_MAX) -> bytes:
    """The body of a 200 answer. Raises HttpError for anything else, and for what is too slow or too long."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(url, access, bytes_max)
    except TimeoutError:
        raise HttpError(f"no answer within {timeout_s:g} s") from None
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as why:
        raise HttpError(f"not HTTP as we read it: {type(why).__name__}") from None
    except HttpError:
        raise
    except OSError as why:
        raise HttpError(str(why.strerror or why)) from None


async def _get(url: str, access: Access, bytes_max: int) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    context = (access.context or ssl.create_default_context()) if secure else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=HEAD_BYTES_MAX)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Accept: application/json", "Connection: close"]
        if access.user:
            lines.append(f"Authorization: Basic {b64encode(f'{access.user}:{access.password}'.encode()).decode()}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = head[0].split(" ", 2)
        if len(status) < 2 or status[1] != "200":
            raise HttpError(f"HTTP status {status[1] if len(status) > 1 else head[0][:40]!r}")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if fields.get("transfer-encoding", "").lower() == "chunked":
            return await _chunks(reader, bytes_max)
        length = int(fields["content-length"]) if "content-length" in fields else None
        if length is not None and not 0 <= length <= bytes_max:
            raise HttpError(f"{length} bytes, at most {bytes_max}")
        if length is not None:
            return await reader.readexactly(length)
        return await _to_the_end(reader, bytes_max)
    finally:
        writer.transport.abort()  # it answered, or never will; a close in good order could wait for it


async def _chunks(reader: asyncio.StreamReader, bytes_max: int) -> bytes:
    found = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        if size == 0:
            return bytes(found)
        if size < 0 or len(found) + size > bytes_max:
            raise HttpError(f"more than {bytes_max} bytes")
        found += await reader.readexactly(size)
        await reader.readexactly(2)


async def _to_the_end(reader: asyncio.StreamReader, bytes_max: int) -> bytes:
    found = bytearray()
    while part := await reader.read(65_536):
        found += part
        if len(found) > bytes_max:
            raise HttpError(f"more than {bytes_max} bytes")
    return bytes(found)
