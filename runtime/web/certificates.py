"""The unit's own certificate authority, and the certificate that its page is served with.

The authority's key never leaves the unit, and what it may sign is bounded in itself (name constraints): names ending in
`.local`, the names that were given, and addresses that no public network has. So a phone that trusts it can be
deceived about no other place. `python -m tidegate.runtime.web.certificates FOLDER NAME...` makes what is missing: in a
process of its own, since what makes certificates is larger than all that serves the page.
"""

import ipaddress
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tidegate.runtime.state import atomic_file

LEAF_DAYS, CA_DAYS, RENEW_DAYS = 397, 3650, 30
# A clock that stands before this release was not set: certificates of 1970 would be of no use to anybody.
RELEASED = datetime(2026, 1, 1, tzinfo=UTC)
PRIVATE = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "::1/128", "fc00::/7",
           "fe80::/10")  # fmt: skip
CA, CA_KEY, LEAF, LEAF_KEY, ISSUED = "ca.pem", "ca-key.pem", "leaf.pem", "leaf-key.pem", "issued.json"
DAY_S = 86_400


class CertificateError(RuntimeError):
    """Certificates that could not be made or read, in one sentence."""


@dataclass(frozen=True)
class Certificates:
    """What a folder holds. sha256: of the authority's certificate, as people compare it."""

    folder: Path
    names: tuple[str, ...]
    until_utc_s: float
    sha256: str

    @property
    def ca(self) -> bytes:
        """The authority's certificate, PEM."""
        return (self.folder / CA).read_bytes()

    def context(self) -> ssl.SSLContext:
        """What a server speaks TLS with."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(self.folder / LEAF, self.folder / LEAF_KEY)
        made.set_alpn_protocols(["http/1.1"])
        return made

    def renew_into(self, context: ssl.SSLContext) -> None:
        """Let new connections of a running server see the certificate that lies there now."""
        context.load_cert_chain(self.folder / LEAF, self.folder / LEAF_KEY)


def held(folder: Path) -> Certificates | None:
    """What lies in a folder; None where it is not whole."""
    try:
        issued = json.loads((folder / ISSUED).read_text())
        found = Certificates(folder, tuple(issued["names"]), float(issued["until_utc_s"]), str(issued["sha256"]))
        return found if all((folder / name).exists() for name in (CA, LEAF, LEAF_KEY)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def ensure(folder: Path, names: Sequence[str], now_utc_s: float | None = None) -> Certificates:
    """The certificates for these names, made or renewed where that is due. Raises CertificateError."""
    wanted, now_utc_s = tuple(sorted(set(names))), time.time() if now_utc_s is None else now_utc_s
    found = held(folder)
    if found is not None and found.names == wanted and found.until_utc_s - now_utc_s > RENEW_DAYS * DAY_S:
        return found
    words = [sys.executable, "-m", "tidegate.runtime.web.certificates", str(folder), *wanted]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = held(folder)
    if done.returncode or found is None:
        lines = done.stderr.strip().splitlines()
        raise CertificateError(f"{folder}: no certificate could be made: {lines[-1] if lines else 'nothing was said'}")
    return found


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def make(folder: Path, names: Sequence[str], now: datetime | None = None) -> None:
    """Write a certificate for these names, and the authority where there is none that may sign them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = max(now or datetime.now(UTC), RELEASED)

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        plain = serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)

    def general(name: str) -> x509.GeneralName:
        return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)

    def allowed() -> list[x509.GeneralName]:
        nets = [ipaddress.ip_network(text) for text in PRIVATE]
        foreign = [ipaddress.ip_address(name) for name in names if _is_address(name)]
        foreign = [one for one in foreign if not any(one in net for net in nets if net.version == one.version)]
        nets += [ipaddress.ip_network(one) for one in foreign]
        domains = ["local", *(name for name in names if not _is_address(name) and not name.endswith(".local"))]
        return [*(x509.DNSName(one) for one in domains), *(x509.IPAddress(net) for net in nets)]

    def may_sign(ca: x509.Certificate) -> bool:
        bounds = ca.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
        return {str(one) for one in allowed()} <= {str(one) for one in bounds}

    kept_ca, kept_key = folder / CA, folder / CA_KEY
    ca = x509.load_pem_x509_certificate(kept_ca.read_bytes()) if kept_ca.exists() and kept_key.exists() else None
    if ca is None or not may_sign(ca) or ca.not_valid_after_utc - now < timedelta(days=LEAF_DAYS):
        ca_key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Tidegate unit {next(iter(names), '')}")])
        ca = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(ca_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.NameConstraints(allowed(), None), critical=True)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )  # fmt: skip
        atomic_file.replace(kept_key, pem(ca_key))
        atomic_file.replace(kept_ca, ca.public_bytes(serialization.Encoding.PEM), 0o644)
    signer = serialization.load_pem_private_key(kept_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    until = now + timedelta(days=LEAF_DAYS)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, next(iter(names), "tidegate"))]))
        .issuer_name(ca.subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([general(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )  # fmt: skip
    chain = leaf.public_bytes(serialization.Encoding.PEM) + ca.public_bytes(serialization.Encoding.PEM)
    atomic_file.replace(folder / LEAF_KEY, pem(key))
    atomic_file.replace(folder / LEAF, chain, 0o644)
    sha256 = ca.fingerprint(hashes.SHA256()).hex(":").upper()
    issued = {"names": sorted(names), "until_utc_s": until.timestamp(), "sha256": sha256}
    atomic_file.replace(folder / ISSUED, json.dumps(issued).encode(), 0o644)


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
