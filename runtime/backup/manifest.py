"""What a backup holds, file by file, signed by the device that made it.

A backup is a gzipped tar: `manifest.json` first, `manifest.sig` (Ed25519 over its bytes, hex), then the files that it
lists, in its order and with the SHA-256 that it says.
"""

import msgspec

from tidegate.runtime.state.device_key import signed_by

SCHEMA = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MANIFEST_BYTES_MAX = 64 << 20


class BackupError(ValueError):
    """A backup that cannot be made or used, in one sentence a line."""


class Held(msgspec.Struct, frozen=True):
    """One file. path: below `state/` the state folder, below `site/` the folder of the site file."""

    path: str
    bytes: int
    sha256: str
    mode: int = 0o640


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who made it of what, and what is not in it."""

    schema: int = SCHEMA
    site: str
    site_file: str
    made_utc_s: int
    release: str
    key: str
    """Public key that signed, hex."""
    with_keys: bool
    left_out: list[str]
    """What belongs to the site and is not in here, one sentence each."""
    files: list[Held]


def encoded(manifest: Manifest) -> bytes:
    """The bytes that are signed."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def read(data: bytes, signature: bytes, where: str) -> Manifest:
    """A manifest whose signature is that of the key that it names. Raises BackupError."""
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as why:
        raise BackupError(f"{where}: its manifest cannot be read: {why}") from None
    if found.schema != SCHEMA:
        raise BackupError(f"{where}: a backup of schema {found.schema}; this release reads {SCHEMA}")
    if not signed_by(found.key, signature.decode("ascii", "replace").strip(), data):
        raise BackupError(f"{where}: its manifest was changed after it was signed; use another copy")
    for held in found.files:
        parts = held.path.split("/")
        if parts[0] not in ("state", "site") or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
            raise BackupError(f"{where}: {held.path!r} leads out of the folders of a site; nothing was written")
    return found
