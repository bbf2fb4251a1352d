"""Where backups are kept: a folder (a stick, a share), a server over SFTP, a bucket over S3.

A backup is there whole under its name or not at all, and is read back or summed up by the other side before it counts.
Nothing makes the folder itself: where a stick is not plugged in, nothing is written beside it.
"""

import base64
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from tidegate.runtime.backup.manifest import BackupError

if TYPE_CHECKING:
    import paramiko

PART = ".part"
SECRET_MODES = 0o077  # that a file of secrets must not have
CONNECT_S = 30.0
CHUNK = 1 << 20


class Access(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a server asks, from a file that others cannot read.

    key, host_key : of SFTP: file of our private key; the server's public key, as a line of known_hosts has it.
    key_id, secret, endpoint, region, ca : of S3; endpoint = None is AWS itself, ca a file of certificates.
    """

    key: str | None = None
    host_key: str | None = None
    key_id: str | None = None
    secret: str | None = None
    endpoint: str | None = None
    region: str = "us-east-1"
    ca: str | None = None


class BackupPlace(Protocol):
    """One place. Raises BackupError with what it says."""

    def put(self, name: str, path: Path) -> None:
        """Keep a file under a name that is not taken."""

    def names(self) -> list[str]:
        """All that lies there."""

    def get(self, name: str, path: Path) -> None:
        """Fetch one."""

    def remove(self, name: str) -> None:
        """Take one away."""


def read_access(path: Path | None) -> Access:
    """The file of secrets. Raises BackupError."""
    if path is None:
        return Access()
    try:
        if path.stat().st_mode & SECRET_MODES:
            raise BackupError(f"{path}: others can read it; chmod 600 {path}")
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Access)
    except OSError as why:
        raise BackupError(f"{path}: {why.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as why:
        raise BackupError(f"{path}: {why}") from None


def without_password(target: str) -> str:
    """An address as it may be shown and kept."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1@", target)


def is_place(target: str) -> bool:
    """Whether a target is a place for many backups, not the name of one file."""
    return "://" in target or target.endswith("/") or Path(target).is_dir()


@contextlib.contextmanager
def opened(target: str, access: Access) -> Iterator[BackupPlace]:
    """A place by its address: /folder, sftp://user@host:port/folder, s3://bucket/prefix. Raises BackupError."""
    kind, separator, _ = target.partition("://")
    if not separator:
        yield FolderPlace(Path(target))
    elif kind == "sftp":
        with _sftp(target, access) as place:
            yield place
    elif kind == "s3":
        yield BucketPlace(target, access)
    else:
        raise BackupError(f"{target}: {kind}:// is no place for backups; there are /folder, sftp:// and s3://")


def digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class FolderPlace:
    """A folder that is there: on this disk, a stick, a share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _there(self) -> None:
        if not self.folder.is_dir():
            raise BackupError(f"{self.folder}: no such folder; is the stick plugged in and mounted, the share there?")

    def put(self, name: str, path: Path) -> None:
        self._there()
        whole = self.folder / name
        part = whole.with_name(f".{name}{PART}")
        try:
            with path.open("rb") as file, part.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)
                shutil.copyfileobj(file, out, CHUNK)
                out.flush()
                os.fsync(out.fileno())
            if digest(part) != digest(path):
                raise BackupError(f"{whole}: what is read back is not what was written; is the disk sound?")
            if whole.exists():
                raise BackupError(f"{whole} exists")
            part.rename(whole)
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as why:
            raise BackupError(f"{whole}: {why.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def names(self) -> list[str]:
        self._there()
        return [one.name for one in self.folder.iterdir() if one.is_file()]

    def get(self, name: str, path: Path) -> None:
        try:
            shutil.copyfile(self.folder / name, path)
        except OSError as why:
            raise BackupError(f"{self.folder / name}: {why.strerror}") from None

    def remove(self, name: str) -> None:
        try:
            (self.folder / name).unlink()
        except OSError as why:
            raise BackupError(f"{self.folder / name}: {why.strerror}") from None


class SftpPlace:
    """A folder on a server, over SSH."""

    def __init__(self, client: "paramiko.SFTPClient", folder: str, shown: str) -> None:
        self._client, self._folder, self._shown = client, folder, shown

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the server as ours."""
        import paramiko

        try:
            yield
        except (OSError, EOFError, paramiko.SSHException) as why:
            raise BackupError(f"{self._shown}: {what}: {why or type(why).__name__}") from None

    def put(self, name: str, path: Path) -> None:
        whole, part = f"{self._folder}/{name}", f"{self._folder}/.{name}{PART}"
        with self._told(name):
            if name in self._client.listdir(self._folder):
                raise BackupError(f"{self._shown}/{name} exists")
            self._client.put(str(path), part, confirm=True)
            self._client.chmod(part, 0o600)
            with tempfile.NamedTemporaryFile() as back:
                self._client.get(part, back.name)
                if digest(Path(back.name)) != digest(path):
                    raise BackupError(f"{self._shown}/{name}: what is read back is not what was written")
            self._client.rename(part, whole)

    def names(self) -> list[str]:
        with self._told("list"):
            return list(self._client.listdir(self._folder))

    def get(self, name: str, path: Path) -> None:
        with self._told(name):
            self._client.get(f"{self._folder}/{name}", str(path))

    def remove(self, name: str) -> None:
        with self._told(name):
            self._client.remove(f"{self._folder}/{name}")


@contextlib.contextmanager
def _sftp(target: str, access: Access) -> Iterator[SftpPlace]:
    """A place behind SSH. The server must be the one whose key was given: there is no first time that is believed."""
    import paramiko

    parts = urlsplit(target)
    if not parts.hostname or not parts.username or parts.password:
        raise BackupError(f"{parts.scheme}://...: expected sftp://USER@HOST:PORT/FOLDER, with no password in it")
    if access.key is None or access.host_key is None:
        raise BackupError("SFTP needs --access FILE with key (file of our private key) and host_key (the server's)")
    shown = f"sftp://{parts.username}@{parts.hostname}:{parts.port or 22}{parts.path}"
    kind, _, rest = access.host_key.strip().partition(" ")
    client = paramiko.SSHClient()
    try:
        expected = paramiko.PKey.from_type_string(kind, _decoded(rest.partition(" ")[0]))
        name = parts.hostname if parts.port in (None, 22) else f"[{parts.hostname}]:{parts.port}"
        client.get_host_keys().add(name, kind, expected)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            parts.hostname, parts.port or 22, parts.username, key_filename=access.key, allow_agent=False,
            look_for_keys=False, timeout=CONNECT_S, banner_timeout=CONNECT_S, auth_timeout=CONNECT_S,
        )  # fmt: skip
        opened_client = client.open_sftp()
        channel = opened_client.get_channel()
        if channel is not None:
            channel.settimeout(CONNECT_S)
        yield SftpPlace(opened_client, unquote(parts.path).rstrip("/") or "/", shown)
    except BackupError:
        raise
    except paramiko.BadHostKeyException:
        raise BackupError(f"{shown}: the server has another key than host_key says; nothing was sent") from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as why:
        raise BackupError(f"{shown}: {why or type(why).__name__}") from None
    finally:
        client.close()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class BucketPlace:
    """A bucket of S3; the server compares the SHA-256 of what came with ours."""

    def __init__(self, target: str, access: Access) -> None:
        import boto3
        import botocore.config

        if not access.key_id or not access.secret:
            raise BackupError("S3 needs --access FILE with key_id and secret, and endpoint where it is not AWS")
        if access.endpoint is not None and not re.match(r"https://|http://(127\.|localhost)", access.endpoint):
            raise BackupError(f"endpoint {access.endpoint}: expected https://; backups go over no open line")
        bucket, _, prefix = target.removeprefix("s3://").partition("/")
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        settings = botocore.config.Config(
            connect_timeout=CONNECT_S, read_timeout=CONNECT_S, retries={"max_attempts": 3}
        )
        self._client = boto3.client(
            "s3", aws_access_key_id=access.key_id, aws_secret_access_key=access.secret, endpoint_url=access.endpoint,
            region_name=access.region, verify=access.ca, config=settings,
        )  # fmt: skip

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        import botocore.exceptions

        try:
            yield
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError) as why:
            raise BackupError(f"s3://{self._bucket}/{self._prefix}{name}: {why}") from None

    def put(self, name: str, path: Path) -> None:
        with self._told(name), path.open("rb") as file:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=file, IfNoneMatch="*",
                                    ChecksumSHA256=base64.b64encode(digest(path)).decode())  # fmt: skip

    def names(self) -> list[str]:
        with self._told(""):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            return [str(row["Key"]).removeprefix(self._prefix) for page in pages for row in page.get("Contents", [])]

    def get(self, name: str, path: Path) -> None:
        with self._told(name):
            self._client.download_file(self._bucket, self._prefix + name, str(path))

    def remove(self, name: str) -> None:
        with self._told(name):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
