"""Put a backup back: checked whole before anything is written, and never over what is there."""

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from tidegate.runtime.backup.manifest import (
    MANIFEST,
    MANIFEST_BYTES_MAX,
    SIGNATURE,
    BackupError,
    Held,
    Manifest,
    read,
)
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.state.held import ledger_in

CHUNK = 1 << 20


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[tarfile.TarFile, Manifest]]:
    """An open backup, read to behind its manifest. Raises BackupError, OSError."""
    try:
        with tarfile.open(path, "r:gz") as tar:
            data, signature = (_small(tar, name, path) for name in (MANIFEST, SIGNATURE))
            yield tar, read(data, signature, str(path))
    except (tarfile.TarError, EOFError, zlib.error) as why:
        raise BackupError(f"{path}: not a backup, cut off or damaged: {why}") from None


def manifest_of(path: Path) -> Manifest:
    """What a backup says that it holds. Raises BackupError, OSError."""
    with opened(path) as (_, manifest):
        return manifest


def _small(tar: tarfile.TarFile, name: str, path: Path) -> bytes:
    row = tar.next()
    if row is None or row.name != name or not row.isreg() or row.size > MANIFEST_BYTES_MAX:
        raise BackupError(f"{path}: not a backup: {name} is not where it has to be")
    file = tar.extractfile(row)
    assert file is not None
    return file.read()


def check(path: Path, key: str | None = None) -> Manifest:
    """What a backup holds, every byte of it compared with what was signed. key: who must have signed.

    Raises BackupError, OSError.
    """
    return _take(path, None, key)


def _take(path: Path, into: Path | None, key: str | None) -> Manifest:
    with opened(path) as (tar, manifest):
        if key is not None and manifest.key != key.lower():
            raise BackupError(f"{path}: signed by {manifest.key}, not by {key}")
        try:
            for held in manifest.files:
                _one(tar, held, into, path)
            if tar.next() is not None:
                raise BackupError(f"{path}: holds more than its manifest says")
        except gzip.BadGzipFile as why:
            raise BackupError(f"{path}: damaged: {why}") from None
    return manifest


def _one(tar: tarfile.TarFile, held: Held, into: Path | None, path: Path) -> None:
    row = tar.next()
    if row is None or row.name != held.path or not row.isreg() or row.size != held.bytes:
        raise BackupError(f"{path}: {held.path} is missing, or not as it was signed")
    file = tar.extractfile(row)
    assert file is not None
    digest = hashlib.sha256()
    out = None
    if into is not None:
        target = into / held.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        out = target.open("xb")
        os.fchmod(out.fileno(), held.mode & 0o770)
    try:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if out is not None:
                out.write(chunk)
        if out is not None:
            out.flush()
            os.fsync(out.fileno())
    finally:
        if out is not None:
            out.close()
    if digest.hexdigest() != held.sha256:
        raise BackupError(f"{path}: {held.path} is damaged: its bytes are not those that were signed")


def restore(path: Path, state: Path, site_file: Path, *, key: str | None = None, replace: bool = False) -> Manifest:
    """Put a backup's files into a state folder and beside a site file; give what it held.

    What is there is refused, or with `replace` moved aside under a name that tells when. The ledger gets a note that
    says that it was restored, from what, and when. Raises BackupError, OSError; then nothing was changed.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tidegate-restore-", dir=state.parent) as held:
        work = Path(held)
        manifest = _take(path, work, key)
        (work / "state").mkdir(exist_ok=True, mode=0o750)
        beside = [one.path.removeprefix("site/") for one in manifest.files if one.path.startswith("site/")]
        targets = {
            name: site_file if name == manifest.site_file else site_file.parent / name for name in beside
        }  # the site file may get another name; what it names keeps its own
        taken = [str(one) for one in (state, *targets.values()) if _holds(one)]
        if taken and not replace:
            raise BackupError(
                f"{', '.join(taken)}: there already; --replace moves them aside, or give --state-dir and --site-file"
            )
        _note(ledger_in(work / "state"), manifest, path)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for one in (state, *targets.values()):
            if one.exists():
                one.rename(one.with_name(f"{one.name}.before-{stamp}"))
        (work / "state").rename(state)
        _owned(state, state.parent.stat())
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work / "site" / name, target)
            target.chmod(0o640)
            _owned(target, target.parent.stat())
    return manifest


def _owned(path: Path, like: os.stat_result) -> None:
    """Give what root has put back to whom the folder around it belongs: the service's user, mostly."""
    if os.geteuid() != 0:
        return
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        os.chown(one, like.st_uid, like.st_gid)


def _holds(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _note(ledger: Path, manifest: Manifest, path: Path) -> None:
    """Say in the ledger that from here on it is a restored one."""
    if not ledger.exists():
        return
    now_s = int(time.time())
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.made_utc_s))
    about = (
        f"{path.name} of {made}, made by release {manifest.release}, signed by {manifest.key}; "
        f"keys {'restored' if manifest.with_keys else 'not restored, new ones are made'}"
    )
    body = {"v": 1, "what": "restored from a backup", "about": about, "set_aside": [], "set_aside_count": 0}
    try:
        book = Ledger(ledger)
        try:
            book.append([("note", now_s, body)])
        finally:
            book.close()
    except LedgerError as why:
        raise BackupError(f"the ledger of the backup cannot be gone on with: {why}") from None
