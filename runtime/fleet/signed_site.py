"""A site file with its device maps, signed by the owner: what a unit takes, and in which order only.

The number rises with each release of a site: an older one that is good by its signature is not taken again. A device
map never changes under its name, so that maps can be put down before and stay after, whatever becomes of the file.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.runtime.state.device_key import DeviceKey, signed_by

CONTEXT = b"tidegate site file 1\0"
BYTES_MAX = 8 << 20
MAP_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\.toml")


class ReleaseError(RuntimeError):
    """Why a signed site file is not taken, in a sentence that says what to do."""


@dataclass(frozen=True)
class SignedSite:
    """text : the site file. maps : name of a file beside it -> its text."""

    site: str
    number: int
    text: str
    maps: Mapping[str, str] = field(default_factory=dict)

    def _message(self) -> bytes:
        row = {"site": self.site, "number": self.number, "text": self.text, "maps": dict(self.maps)}
        return CONTEXT + json.dumps(row, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()

    def signed(self, key: DeviceKey) -> bytes:
        """The file that goes to the unit."""
        row = {"v": 1, "site": self.site, "number": self.number, "text": self.text, "maps": dict(self.maps),
               "key": key.public, "signature": key.sign(self._message())}  # fmt: skip
        return json.dumps(row, indent=1).encode()

    @classmethod
    def read(cls, data: bytes, owner: str) -> "SignedSite":
        """What this owner signed (public key, hex). Raises ReleaseError for anything else, whatever its bytes."""
        try:
            row = json.loads(data) if len(data) <= BYTES_MAX else None
            made = cls(row["site"], row["number"], row["text"], row["maps"])  # type: ignore[index]
            signature = row["signature"]  # type: ignore[index]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ReleaseError("no signed site file; `tidegate fleet sign-site` makes one") from None
        texts = isinstance(made.maps, dict) and all(isinstance(one, str) for one in (*made.maps, *made.maps.values()))
        if (
            not texts
            or type(made.number) is not int
            or not isinstance(made.text, str)
            or not isinstance(signature, str)
        ):
            raise ReleaseError("no signed site file; `tidegate fleet sign-site` makes one")
        if not signed_by(owner, signature, made._message()):
            raise ReleaseError(f"not signed by the owner's key {owner[:16]}...; ask who sent it")
        wrong = [name for name in made.maps if not MAP_NAME.fullmatch(name)]
        if wrong:
            raise ReleaseError(f"{wrong[0]!r} is no name of a device map beside the site file")
        if site_name(made.text) != made.site:
            raise ReleaseError(f"is for {made.site}, and the site file in it is of {site_name(made.text) or 'no site'}")
        return made


def site_name(text: str) -> str:
    """What a site file calls its site, "" = nothing that can be read."""
    try:
        return str(tomllib.loads(text)["site"]["name"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return ""
