"""Make a backup of a site, also of one that runs: no file of it is written to."""

import contextlib
import errno
import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO

from tidegate.config.site import Site
from tidegate.runtime.backup.manifest import MANIFEST, SIGNATURE, BackupError, Held, Manifest, encoded
from tidegate.runtime.state.device_key import KEY_FILE, DeviceKey, KeyFileError
from tidegate.runtime.state.held import LEDGER
from tidegate.runtime.state.plain_file import open_plain

SQLITE_BESIDE = ("-wal", "-shm", "-journal")
KEYS = "keys"
RECORDINGS = "recordings"
CHUNK = 1 << 20
HEAD_BYTES = 4096  # of a file, in which a private key would begin


def make(target: Path, site: Site, site_file: Path, state: Path, *, keys: bool, recordings: bool = False) -> Manifest:
    """Write the backup of a site and give what it holds. Raises BackupError, OSError; then no file is left.

    site_file : the file itself. state : the site's state folder. keys : also its secrets, which whoever holds the
    backup then has. recordings : also the recorder's files, which are large.
    """
    if target.exists():
        raise BackupError(f"{target} exists; choose another name or move it away")
    if not state.is_dir():
        raise BackupError(f"{state}: no such folder; has the site run here, as this user?")
    try:
        signer = DeviceKey.at(state / KEY_FILE)
    except KeyFileError as why:
        raise BackupError(str(why)) from None
    with tempfile.TemporaryDirectory(prefix=".tidegate-backup-", dir=target.resolve().parent) as held:
        work = Path(held)
        left_out: list[str] = []
        copies = dict(_state_files(state, work, keys, recordings, left_out))
        copies |= dict(_site_files(site, site_file, left_out))
        # Read once into a file of our own: what is hashed is what is packed, whatever the site writes meanwhile.
        files = [
            _frozen(name, path, work / f"{at:06d}", left_out) for at, (name, path) in enumerate(sorted(copies.items()))
        ]
        present = [one for one in files if one is not None]
        manifest = Manifest(
            site=site.site.name, site_file=site_file.name, made_utc_s=int(time.time()), release=version("tidegate"),
            key=signer.public, with_keys=keys, left_out=left_out, files=[one for one, _ in present],
        )  # fmt: skip
        data = encoded(manifest)
        whole = work / "whole"
        with whole.open("xb") as out:
            os.fchmod(out.fileno(), 0o600)
            with tarfile.open(fileobj=out, mode="w:gz") as tar:
                _add(tar, MANIFEST, io.BytesIO(data), len(data))
                signature = signer.sign(data).encode()
                _add(tar, SIGNATURE, io.BytesIO(signature), len(signature))
                for one, path in present:
                    with path.open("rb") as file:
                        _add(tar, one.path, file, one.bytes, one.mode)
            out.flush()
            os.fsync(out.fileno())
        os.link(whole, target)  # never over a file that came meanwhile
    return manifest


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], size: int, mode: int = 0o640) -> None:
    row = tarfile.TarInfo(name)
    row.size, row.mode = size, mode
    tar.addfile(row, file)


def _frozen(name: str, path: Path, copy: Path, left_out: list[str]) -> tuple[Held, Path] | None:
    """A copy of a file as it is now; None for one that was removed since it was listed, or is a file no more.

    Whoever writes a folder of the site could put a link to what shall not be in a backup in its place, or a pipe.
    """
    digest = hashlib.sha256()
    try:
        with open(open_plain(path, os.O_NOFOLLOW), "rb") as file, copy.open("xb") as out:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                out.write(chunk)
    except FileNotFoundError:
        return None
    except OSError as why:
        if why.errno not in (errno.ELOOP, errno.EINVAL, errno.EISDIR):
            raise
        left_out.append(f"{name}: is no file any more")
        return None
    return Held(name, copy.stat().st_size, digest.hexdigest(), mode), copy


def _state_files(
    state: Path, work: Path, keys: bool, recordings: bool, left_out: list[str]
) -> Iterator[tuple[str, Path]]:
    if not keys:
        left_out.append("keys of the device and of its clients; a restored unit makes new ones (--keys takes them)")
    if not recordings and any((state / RECORDINGS).glob("*")):
        left_out.append("the recorder's files (--recordings takes them along)")
    for path in sorted(state.rglob("*")):
        name = path.relative_to(state)
        if not path.is_file() or path.is_symlink():
            continue
        if name.parts[0] == RECORDINGS and not recordings:
            continue
        if not keys and (name.parts[0] == KEYS or name.name == KEY_FILE or _holds_key(path)):
            continue
        if name.name.startswith(".") or name.name.removeprefix(LEDGER) in SQLITE_BESIDE:
            continue
        yield f"state/{name}", _ledger(path, work) if name.name == LEDGER else path
    if keys and (state / KEYS).is_symlink():
        for path in sorted((state / KEYS).resolve().glob("*")):
            if path.is_file():
                yield f"state/{KEYS}/{path.name}", path.resolve()


def _holds_key(path: Path) -> bool:
    """Whether a file begins with a private key, as those of the page's certificates do, whatever it is called."""
    try:
        with open(open_plain(path, os.O_NOFOLLOW), "rb") as file:
            return b"PRIVATE KEY-----" in file.read(HEAD_BYTES)
    except OSError:
        return False  # what cannot be read is not packed either


def _ledger(path: Path, work: Path) -> Path:
    """The ledger as of one moment, with what its write-ahead log holds. Raises BackupError."""
    copy = work / LEDGER
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as why:
        raise BackupError(f"{path}: {why}") from None
    return copy


def _site_files(site: Site, site_file: Path, left_out: list[str]) -> Iterator[tuple[str, Path]]:
    """The site file and what it names beside itself."""
    folder = site_file.resolve().parent
    yield f"site/{site_file.name}", site_file.resolve()
    named = [device.map for device in site.device if device.map.endswith(".toml")]
    carbon, plant = site.carbon, site.simulation
    named += [one for one in (carbon.factors, carbon.prices, carbon.readings) if one]
    if plant is not None:
        named += [one for one in (plant.load_trace, plant.pv_trace) if one]
    if carbon.ledger and "://" in carbon.ledger:
        left_out.append("the ledger, which is in a database of its own (carbon.ledger): back that up where it is")
    elif carbon.ledger:
        left_out.append(f"the ledger {carbon.ledger}, which the site file puts outside the state folder")
    for name in dict.fromkeys(named):
        path = folder / name
        found = [one for one in sorted(path.rglob("*")) if one.is_file()] if path.is_dir() else [path]
        for one in found:
            inside = one.resolve().is_relative_to(folder)
            if inside and one.is_file():
                yield f"site/{one.resolve().relative_to(folder)}", one.resolve()
            else:
                left_out.append(f"{name}: not in the folder of the site file, or missing")
