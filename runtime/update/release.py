"""A signed release in a folder: is it what was signed, and which package of it is this machine's?"""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.runtime.update import signed_sums
from tidegate.runtime.update.signed_sums import SIGNATURE, SUMS, KeyFormatError, NotSignedError, digest

PACKAGE = "tidegate"


class UpdateError(RuntimeError):
    """Why an update is not made, in a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package in a file. version, architecture : as its control file says. sha256 : "" = nobody signed it."""

    path: Path
    version: str
    architecture: str
    sha256: str = ""


def sums_of(folder: Path, public_key: Path) -> dict[str, str]:
    """Name -> SHA-256 of what a release holds, once its signature holds. Raises UpdateError."""
    try:
        public = signed_sums.public_key(public_key)
    except OSError as why:
        raise UpdateError(
            f"{public_key}: {why.strerror}; put the key of whoever makes your releases there, or name it with --public"
        ) from None
    except KeyFormatError as why:
        raise UpdateError(str(why)) from None
    try:
        return signed_sums.read_signed(folder, public)
    except OSError as why:
        raise UpdateError(f"{why.filename}: {why.strerror}; a release has {SUMS} and {SIGNATURE}") from None
    except NotSignedError:
        raise UpdateError(f"{folder / SUMS}: not signed by the key in {public_key}; do not install it") from None


def described(path: Path) -> Package:
    """What a package file says of itself. Raises UpdateError for a file that is no package of Tidegate."""
    words = ["dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n${Architecture}\n", str(path)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        raise UpdateError("dpkg-deb is not on this machine; an update needs a Debian package's machine") from None
    fields = done.stdout.split("\n")
    if done.returncode or len(fields) < 3:
        raise UpdateError(f"{path}: no Debian package ({done.stderr.strip()})")
    if fields[0] != PACKAGE:
        raise UpdateError(f"{path}: the package {fields[0]!r}, not {PACKAGE!r}")
    if not re.fullmatch(r"[0-9A-Za-z.+~:-]+", fields[1]):
        raise UpdateError(f"{path}: {fields[1]!r} is no version")
    return Package(path, fields[1], fields[2])


def newer(version: str, than: str) -> bool:
    """Whether a Debian version is newer than another."""
    return subprocess.run(["dpkg", "--compare-versions", version, "gt", than]).returncode == 0


def package_for(folder: Path, public_key: Path, architecture: str) -> Package:
    """The newest package of a signed release for a machine's architecture, checked to the byte. Raises UpdateError."""
    sums = sums_of(folder, public_key)
    there = [folder / name for name in sorted(sums) if name.endswith(".deb") and "/" not in name]
    wrong = [path.name for path in there if not path.is_file() or digest(path) != sums[path.name]]
    if wrong:
        raise UpdateError(f"{folder}: {', '.join(wrong)}: missing, or not what was signed; fetch the release again")
    packages = [replace(described(path), sha256=sums[path.name]) for path in there]
    fitting = [one for one in packages if one.architecture in (architecture, "all")]
    if not fitting:
        others = ", ".join(sorted({one.architecture for one in packages})) or "none"
        raise UpdateError(f"{folder}: no package for {architecture} in it (for: {others})")
    best = fitting[0]
    for one in fitting[1:]:
        best = one if newer(one.version, best.version) else best
    return best
