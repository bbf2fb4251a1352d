"""The hub's own certificate authority: it signs what the brokers of a cluster show to sites and to each other.

Its key lies in the hub's folder and nowhere else; a broker's machine gets the broker's own pair and the authority's
certificate.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.runtime.fleet.invitation import HubError
from tidegate.runtime.state import atomic_file

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca-key.pem"
PAIR, PAIR_KEY = "broker.pem", "broker-key.pem"
AUTHORITY_DAYS, PAIR_DAYS = 3650, 397


def _pem(key: "ec.EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _named(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _authority(folder: Path, now: datetime) -> "tuple[x509.Certificate, ec.EllipticCurvePrivateKey]":
    """That of a folder, made where there is none. Raises HubError for half of one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    held, held_key = folder / AUTHORITY, folder / AUTHORITY_KEY
    if held.exists() and held_key.exists():
        try:
            found = serialization.load_pem_private_key(held_key.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(held.read_bytes())
        except ValueError as why:
            raise HubError(f"{folder}: the authority cannot be read ({why}); restore it from a backup") from None
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.public_key() != certificate.public_key():
            raise HubError(f"{folder}: {AUTHORITY_KEY} is not the key of {AUTHORITY}; restore both from a backup")
        return certificate, found
    if held.exists():
        raise HubError(f"{held_key}: missing; without it nothing can be signed. Restore it, or remove {held} for a new "
                       "authority: then all brokers' folders are carried and all sites invited anew")  # fmt: skip
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Tidegate hub")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    atomic_file.replace(held_key, _pem(key))
    atomic_file.replace(held, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, key


def issue(folder: Path, to: Path, names: Sequence[str], days: int = PAIR_DAYS, now: datetime | None = None) -> None:
    """A new pair for these host names and addresses into the folder `to`, with the authority's certificate.

    folder : of the hub. Good for a server and for a client: brokers connect to each other. Raises HubError, OSError.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = now or datetime.now(UTC)
    authority, signer = _authority(folder, now)
    key = ec.generate_private_key(ec.SECP256R1())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - timedelta(days=1)).not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_named(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    atomic_file.replace(to / PAIR_KEY, _pem(key))
    atomic_file.replace(to / PAIR, made.public_bytes(serialization.Encoding.PEM), 0o644)
    atomic_file.replace(to / AUTHORITY, (folder / AUTHORITY).read_bytes(), 0o644)
