"""What a release is, who built it of what, and a signature over both; and the check of all of it.

Usage: release.py sign FOLDER --key KEY.pem
       release.py verify FOLDER --public KEY.pub.pem

FOLDER holds what is released: wheel, sdist, Debian package, bills of materials. `sign` writes SHA256SUMS, its signature
and the provenance into it: an in-toto statement with a SLSA v1 predicate, in a DSSE envelope. Keys are Ed25519 in PEM.
`openssl` checks the sums without us:

    openssl pkeyutl -verify -pubin -inkey KEY.pub.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig

Exit 1: not what was signed; each file is named. Runs in the environment of `make setup`: sums and their signature are
written and checked where `tidegate update` checks them (runtime/update/signed_sums.py).
"""

import base64
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tidegate.runtime.update.signed_sums import (
    SIGNATURE,
    SUMS,
    KeyFormatError,
    NotSignedError,
    digest,
    private_key,
    public_key,
    read_signed,
    write_signed,
)

ROOT = Path(__file__).resolve().parent.parent
PROVENANCE = "provenance.intoto.json"
OURS = (SUMS, SIGNATURE, PROVENANCE)
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
# Names, not addresses: nothing is fetched from them.
BUILD_TYPE, BUILDER = "urn:tidegate:build:make-wheel-deb:v1", "urn:tidegate:builder:by-hand"
EXIT_BAD, EXIT_USAGE = 1, 64


class ReleaseError(ValueError):
    """Why something is no release, in one sentence."""


def files_of(folder: Path) -> list[Path]:
    """What is released, by name. Raises ReleaseError for a folder with nothing in it, or with more than files."""
    found = [path for path in sorted(folder.iterdir()) if path.name not in OURS]
    odd = [one.name for one in found if not one.is_file() or one.is_symlink() or set(one.name) & set("\n\\ ")]
    if odd:
        raise ReleaseError(f"{folder}: {', '.join(odd)}: a release holds plain files with plain names")
    if not found:
        raise ReleaseError(f"{folder}: nothing to release in it")
    return found


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()


def commit_of_tree() -> str:
    """The commit that is checked out. Raises ReleaseError where the tree is not that commit's."""
    changed = git("status", "--porcelain")
    if changed:
        raise ReleaseError(f"the tree is not what is committed ({changed.splitlines()[0].strip()}); commit it first")
    return git("rev-parse", "HEAD")


def statement(files: list[Path], commit: str) -> dict[str, object]:
    """The in-toto statement: these files were built of that commit and those archives."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return {
        "_type": STATEMENT,
        "subject": [{"name": path.name, "digest": {"sha256": digest(path)}} for path in files],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"targets": ["wheel", "deb"], **({"SOURCE_DATE_EPOCH": epoch} if epoch else {})},
                "internalParameters": {"python": platform.python_version(), "machine": platform.machine()},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": commit}},
                    {"name": "constraints-hashes.txt", "digest": {"sha256": digest(ROOT / "constraints-hashes.txt")}},
                ],
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }


def to_sign(payload: bytes) -> bytes:
    """What of an envelope is signed: DSSE's encoding of type and payload, with their lengths."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(public: Ed25519PublicKey) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def sign(folder: Path, key: Path, commit: Callable[[], str] = commit_of_tree) -> list[Path]:
    """Sign a release; the files written. Raises ReleaseError, KeyFormatError, OSError."""
    private = private_key(key)
    files = files_of(folder)
    payload = json.dumps(statement(files, commit()), sort_keys=True).encode()
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(private.public_key()), "sig": base64.b64encode(private.sign(to_sign(payload))).decode()}
        ],
    }
    (folder / PROVENANCE).write_text(json.dumps(envelope, indent=1) + "\n")
    write_signed(folder, [*files, folder / PROVENANCE], private)
    return [folder / name for name in OURS]


def verify(folder: Path, key: Path) -> list[str]:
    """What is not as it was signed, a line each; none: all is. Raises KeyFormatError, OSError."""
    public = public_key(key)
    missing = [name for name in OURS if not (folder / name).is_file()]
    if missing:
        return [f"{name} is not there" for name in missing]
    try:
        listed = read_signed(folder, public)
    except NotSignedError:
        return [f"{SUMS} is not signed by {key}"]
    present = {path.name for path in folder.iterdir()} - {SUMS, SIGNATURE}
    said = [f"{name} is not there" for name in sorted(set(listed) - present)]
    said += [f"{name} is not in {SUMS}" for name in sorted(present - set(listed))]
    both = sorted(set(listed) & present)
    said += [f"{name} is not what was signed" for name in both if digest(folder / name) != listed[name]]
    listed.pop(PROVENANCE, None)
    return said or _provenance(folder, public, listed)


def _provenance(folder: Path, public: Ed25519PublicKey, files: dict[str, str]) -> list[str]:
    """What is wrong with the statement about these files."""
    try:
        envelope = json.loads((folder / PROVENANCE).read_bytes())
        payload = base64.b64decode(envelope["payload"], validate=True)
        public.verify(base64.b64decode(envelope["signatures"][0]["sig"], validate=True), to_sign(payload))
        if envelope["payloadType"] != PAYLOAD_TYPE:
            return [f"{PROVENANCE} holds {envelope['payloadType']}"]
        said = json.loads(payload)
        if (said["_type"], said["predicateType"]) != (STATEMENT, PREDICATE):
            return [f"{PROVENANCE} is no statement of provenance"]
        subjects = {one["name"]: one["digest"]["sha256"] for one in said["subject"]}
    except InvalidSignature:
        return [f"{PROVENANCE} is not signed by the key of {SUMS}"]
    except (ValueError, KeyError, TypeError, IndexError) as why:
        return [f"{PROVENANCE} cannot be read: {why}"]
    return [] if subjects == files else [f"{PROVENANCE} speaks of other files than {SUMS}"]


def main(words: list[str]) -> int:
    if len(words) != 4 or (words[0], words[2]) not in (("sign", "--key"), ("verify", "--public")):
        print(__doc__, file=sys.stderr)
        return EXIT_USAGE
    try:
        if words[0] == "sign":
            for path in sign(Path(words[1]), Path(words[3])):
                print(path)
            return 0
        said = verify(Path(words[1]), Path(words[3]))
    except (ReleaseError, KeyFormatError, OSError, subprocess.CalledProcessError) as why:
        print(f"release: {why}", file=sys.stderr)
        return EXIT_BAD
    for line in said:
        print(f"release: {line}", file=sys.stderr)
    if not said:
        print(f"{words[1]}: as it was signed")
    return EXIT_BAD if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
