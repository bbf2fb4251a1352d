"""The device's Ed25519 key: it signs the carbon ledger's blocks and commissioning protocols."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tidegate.runtime.state.plain_file import read_plain
from tidegate.runtime.state.process_users import DEVICE_KEY

KEY_FILE = DEVICE_KEY


class KeyFileError(ValueError):
    """A key file that cannot be used, in one sentence."""


def write_key(path: Path, key: PrivateKeyTypes) -> None:
    """Put a new private key into a file that only its owner may read, durable when this returns. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())


class DeviceKey:
    """The device's signing key, in a PEM file that only its owner may read."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def at(cls, path: Path) -> "DeviceKey":
        """The key in a file; made there if there is none. Raises KeyFileError for a file that is no such key."""
        try:
            raw = read_plain(path)
        except FileNotFoundError:
            made = Ed25519PrivateKey.generate()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_key(path, made)
            return cls(made)
        except OSError as error:
            raise KeyFileError(f"{path}: the signing key cannot be read: {error.strerror}") from None
        try:
            key = load_pem_private_key(raw, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path}: not a PEM private key ({error}); restore it from its copy") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path}: a {type(key).__name__}, needs an Ed25519 key")
        return cls(key)

    def sign(self, message: bytes) -> str:
        """Signature of a message, in hex."""
        return self._private.sign(message).hex()


def signed_by(public: str, signature: str, message: bytes) -> bool:
    """Whether a signature in hex is that of this public key in hex over this message."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True
