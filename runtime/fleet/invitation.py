"""What a site needs to reach its hub, as a file; and the error of everything between the two."""

import json
import os
from dataclasses import dataclass
from pathlib import Path


class HubError(RuntimeError):
    """Why a hub, or a unit at its hub, cannot do it, with what to do."""


def servers_in(address: str) -> list[str]:
    """The brokers of an address: one, or those of a cluster with commas between them."""
    return address.split(",")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a site needs to reach its hub. certificate : PEM of the hub's authority, "" = the line is not encrypted.

    address : of one broker, or of several with commas between them.
    """

    site: str
    address: str
    user: str
    word: str
    certificate: str = ""

    @classmethod
    def read(cls, path: Path) -> "Invitation":
        """Raises HubError for a file that is none."""
        try:
            row = json.loads(path.read_text("utf-8"))
            return cls(**{name: str(row[name]) for name in ("site", "address", "user", "word", "certificate")})
        except (OSError, ValueError, KeyError, TypeError) as why:
            raise HubError(f"{path}: not an invitation of `tidegate hub invite` ({why})") from None

    def write(self, path: Path) -> None:
        """A new file that only its owner may read. Raises OSError."""
        fields = ("site", "address", "user", "word", "certificate")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({name: getattr(self, name) for name in fields}, file, indent=1)
