"""The token that lets one unit join a hub once: a line of text, or the same as a QR code.

It holds a login that may ask for one thing, to be let in, until its time is over or it was used.
"""

import base64
import binascii
import json
import secrets
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from tidegate.runtime.fleet.invitation import HubError

PREFIX = "tidegate-join:"
TOKEN_CHARS_MAX = 8192
UNPACKED_MAX = 64 << 10
CONTEXT = b"tidegate enrolment 1"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What stands in a token. id, code : its login. certificate : PEM of the hub's authority, "" = no encryption."""

    site: str
    address: str
    id: str
    code: str
    certificate: str = ""

    @classmethod
    def new(cls, site: str, address: str, certificate: str) -> "JoinToken":
        return cls(site, address, secrets.token_hex(8), secrets.token_hex(16), certificate)

    def text(self) -> str:
        packed = zlib.compress(json.dumps(asdict(self)).encode(), 9)
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> "JoinToken":
        """Raises HubError for a text that is none, or not whole."""
        plain = "".join(text.split())
        if not plain.startswith(PREFIX) or len(plain) > TOKEN_CHARS_MAX:
            raise HubError(f"no token: it begins with {PREFIX}, as `tidegate hub enrol` prints it")
        coded = plain.removeprefix(PREFIX)
        try:
            inflate = zlib.decompressobj()
            raw = inflate.decompress(
                base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True), UNPACKED_MAX
            )
            if not inflate.eof:
                raise ValueError("it was cut")
            row = json.loads(raw)
            return cls(**{name: str(row[name]) for name in ("site", "address", "id", "code", "certificate")})
        except (binascii.Error, zlib.error, ValueError, KeyError, TypeError) as why:
            raise HubError(f"the token is not whole ({why}); copy it again, all of its characters") from None

    def write_svg(self, path: Path) -> None:
        """Its QR code. Raises HubError where it is too long for one."""
        import segno

        try:
            segno.make(self.text(), error="l").save(str(path), kind="svg", scale=4)
        except segno.DataOverflowError:
            raise HubError("the hub's certificate is too long for a QR code; use the text") from None


def join_message(site: str, token_id: str, word_sha256: str) -> bytes:
    """What the device key signs to be let in: made by the unit, and nothing that a ledger's block may be."""
    return b"\0".join([CONTEXT, site.encode(), token_id.encode(), word_sha256.encode()])
