"""`SHA256SUMS` and its Ed25519 signature: the one place that signs and checks what a release holds.

`packaging/release.py` writes both, `tidegate update` believes nothing without them.
"""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
BLOCK = 1 << 20


class KeyFormatError(ValueError):
    """A key file that holds no key of the kind, in one sentence."""


class NotSignedError(ValueError):
    """The signature over the sums is not that of this key."""


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(BLOCK):
            whole.update(part)
    return whole.hexdigest()


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file. Raises KeyFormatError, OSError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as why:
        raise KeyFormatError(f"{path}: no private key in PEM ({why})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFormatError(f"{path}: not an Ed25519 key; make one: openssl genpkey -algorithm ed25519 -out {path}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The key in a PEM file. Raises KeyFormatError, OSError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as why:
        raise KeyFormatError(f"{path}: no public key in PEM ({why})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFormatError(f"{path}: not an Ed25519 key")
    return key


def write_signed(folder: Path, files: list[Path], key: Ed25519PrivateKey) -> None:
    """Write the sums of files in a folder, and their signature. Raises OSError."""
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in files).encode()
    (folder / SUMS).write_bytes(sums)
    (folder / SIGNATURE).write_bytes(key.sign(sums))


def read_signed(folder: Path, key: Ed25519PublicKey) -> dict[str, str]:
    """Name -> SHA-256 in hex of what a release holds, once its signature holds. Raises NotSignedError, OSError."""
    sums, signature = (folder / SUMS).read_bytes(), (folder / SIGNATURE).read_bytes()
    try:
        key.verify(signature, sums)
    except InvalidSignature:
        raise NotSignedError(f"{folder / SUMS}: another key signed it, or it was changed") from None
    rows = [line.partition("  ") for line in sums.decode("utf-8", "replace").splitlines() if line.strip()]
    return {name.strip(): value for value, _, name in rows if name.strip()}
