"""The hub's own nats-server: its configuration, its process, and the login of each site.

A site may publish into its own subjects and hear its own marks, nothing else. Its login is a random word that the hub
makes; the device's key is for the ledger alone, since a broker chooses what a login signs.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from tidegate.runtime.fleet.invitation import HubError, Invitation
from tidegate.runtime.fleet.ledger_batch import (
    ASK,
    CONDITION,
    ENROL,
    LEDGER,
    LIMIT,
    MARK,
    RELEASE,
    ROTATE,
    subject_word,
)
from tidegate.runtime.state import atomic_file
from tidegate.runtime.supervisor.child import die_with

PAYLOAD_MAX = 8 << 20
FILE_BYTES_MAX = 16 << 30
CERTIFICATE_DAYS = 30
START_S = 20.0
LEFT_OVER_S = 5.0  # a broker whose hub was killed ends by itself, and takes a moment for it
HUB_LOGIN = "hub"
STORE_DAMAGED = b"Can't start JetStream"  # nats-server's own words
STORE_PANIC = (b"panic: ", b".enableJetStream(")  # or it breaks down over what it reads: the words of its last trace
RELOADED = "Reloaded server configuration"  # nats-server's own words


class Broker:
    """nats-server over a folder. host : away from this machine only with certificate and key, in PEM files.

    Raises HubError where it may not or cannot run.
    """

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", port: int = 4222, tls: tuple[Path, Path] | None = None
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if tls is None and not _is_loopback(host):
            raise HubError(
                f"{host}: passwords would cross the network; give --tls-cert and --tls-key, or listen on 127.0.0.1"
            )
        self.folder, self.host, self.port, self.tls = folder, host, port, tls
        self.replicas = 1  # brokers that each keep what is on its way
        self.file_bytes_max = FILE_BYTES_MAX
        self._logins_file, self._claims_file = folder / "logins.json", folder / "claims.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://{self.host}:{self.port}"

    def logins(self) -> dict[str, str]:
        """Site -> its word. Raises HubError for a damaged file."""
        try:
            return {str(name): str(word) for name, word in json.loads(self._logins_file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as why:
            raise HubError(
                f"{self._logins_file}: {why}; without it no site can log in. Restore it, or invite anew"
            ) from None

    def invite(self, site: str) -> Invitation:
        """A login for a site; a new one each time, and the one of before ends."""
        self.put_login(site, secrets.token_hex(24))
        self.reload()
        return Invitation(site, self.address, subject_word(site), self.logins()[site], self.certificate())

    def own_login(self) -> tuple[str, str]:
        """The hub's own name and word."""
        path = self.folder / "hub-word"
        if not path.exists():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_hex(24))
        return HUB_LOGIN, path.read_text()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes who may log in: what a command ends, a running hub does not bring back."""
        fd = os.open(self.folder / "logins.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def certificate(self) -> str:
        """PEM of what sites check the hub by, "" = the line is not encrypted. Raises OSError."""
        return self.tls[0].read_text() if self.tls else ""

    def put_login(self, site: str, word: str) -> None:
        """Another word for a site. It holds once `reload` was called. Raises HubError, OSError."""
        with self._locked():
            atomic_file.replace(self._logins_file, json.dumps({**self.logins(), site: word}).encode())

    def end_login(self, site: str) -> None:
        """A site's login is over, and its connections are cut. Raises HubError, OSError."""
        with self._locked():
            kept = {one: word for one, word in self.logins().items() if one != site}
            atomic_file.replace(self._logins_file, json.dumps(kept).encode())
        self.reload()

    def claims(self) -> dict[str, tuple[str, int]]:
        """Logins that may ask to be let in: id of a token -> (its code, its end in UTC seconds). Raises HubError."""
        try:
            rows = json.loads(self._claims_file.read_text()).items()
            found = {str(token_id): (str(row[0]), int(row[1])) for token_id, row in rows}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError, IndexError) as why:
            raise HubError(f"{self._claims_file}: {why}; remove it and make new tokens (tidegate hub enrol)") from None
        return {token_id: row for token_id, row in found.items() if row[1] > time.time()}

    def put_claim(self, token_id: str, code: str, ends_utc_s: int) -> None:
        """Let a token's login in until then. Raises HubError, OSError."""
        with self._locked():
            atomic_file.replace(self._claims_file, json.dumps({**self.claims(), token_id: (code, ends_utc_s)}).encode())
        self.reload()

    def end_claim(self, *token_ids: str) -> None:
        """Tokens that were used or replaced. It holds once `reload` was called. Raises HubError, OSError."""
        with self._locked():
            kept = {token_id: row for token_id, row in self.claims().items() if token_id not in token_ids}
            atomic_file.replace(self._claims_file, json.dumps(kept).encode())

    def context(self) -> ssl.SSLContext | None:
        """What the hub's own connections check the broker by; None = they are not encrypted. Raises OSError."""
        certificate = self.certificate()
        if not certificate:
            return None
        context = ssl.create_default_context()  # one that a public authority signed will do as well
        context.load_verify_locations(cadata=certificate)
        return context

    def _users(self) -> list[dict[str, object]]:
        """Who may log in, and to what."""
        users: list[dict[str, object]] = []
        name, word = self.own_login()
        users.append({"user": name, "password": word})
        for site, secret in self.logins().items():
            own = subject_word(site)
            users.append({"user": own, "password": secret, "permissions": {
                "publish": [f"{one}.{own}" for one in (LEDGER, ASK, LIMIT, RELEASE, ROTATE, CONDITION)],
                "subscribe": [f"{MARK}.{own}", f"_INBOX_{own}.>"],
            }})  # fmt: skip
        for token_id, (code, _) in self.claims().items():
            users.append({"user": f"enrol-{token_id}", "password": code, "permissions": {
                "publish": [f"{ENROL}.{token_id}"], "subscribe": [f"_INBOX_enrol-{token_id}.>"],
            }})  # fmt: skip
        return users

    def _configuration(self) -> dict[str, object]:
        """What nats-server reads."""
        made: dict[str, object] = {
            "listen": f"{self.host}:{self.port}",
            "max_payload": PAYLOAD_MAX,
            "jetstream": {"store_dir": str(self.folder / "broker"), "max_file_store": self.file_bytes_max},
            "authorization": {"users": self._users()},
            "pid_file": str(self.folder / "broker.pid"),
        }
        if self.tls:
            made["tls"] = {"cert_file": str(self.tls[0]), "key_file": str(self.tls[1])}
        return made

    def _write_configuration(self) -> Path:
        path = self.folder / "broker.conf"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(self._configuration(), file, indent=1)  # JSON is a part of its language
        return path

    def start(self) -> None:
        """Start it and wait until it answers; it ends with the thread that started it. Raises HubError."""
        program = server_program()
        until = time.monotonic() + LEFT_OVER_S
        while self.answers():
            if time.monotonic() > until:
                raise HubError(
                    f"{self.address}: something listens there already; is this hub running, or another program?"
                )
            time.sleep(0.1)
        if not self._came_up(program):
            aside = self.set_aside()
            print(f"hub: {self._last_words()}; its store lies in {aside}, it starts without one: the sites send again "
                  "from their marks", file=sys.stderr, flush=True)  # fmt: skip
            if not self._came_up(program):
                raise HubError(f"nats-server does not come up: {self._last_words()}")

    def set_aside(self) -> Path:
        """The store of one that does not run, under another name. -> that name. Raises OSError."""
        aside = self.folder / f"broker.damaged-{int(time.time())}"
        (self.folder / "broker").rename(aside)
        return aside

    def _last_words(self) -> str:
        return " / ".join((self.folder / "broker.log").read_text(errors="replace").splitlines()[-3:])

    def _came_up(self, program: str) -> bool:
        """Start it; false where its store keeps it from starting. Raises HubError for every other cause."""
        path = self._write_configuration()
        own, before = os.getpid(), self._log_bytes()
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: die_with(own),
            )
        until = time.monotonic() + START_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                ended = self._process.poll() is not None
                self.stop()
                with (self.folder / "broker.log").open("rb") as file:
                    file.seek(before)
                    told = file.read()
                damaged = STORE_DAMAGED in told or all(words in told for words in STORE_PANIC)
                if ended and damaged and (self.folder / "broker").exists():
                    return False
                raise HubError(f"nats-server does not come up: {self._last_words()}")
            time.sleep(0.05)
        return True

    def _log_bytes(self) -> int:
        log = self.folder / "broker.log"
        return log.stat().st_size if log.exists() else 0

    def certificate_problem(self) -> str:
        """What is wrong with the certificate that sites see, "" if nothing is."""
        if self.tls is None:
            return ""
        trouble = certificate_end(self.tls[0])
        return trouble and f"{trouble}; put a new one there, start again, and invite the sites anew"

    def answers(self) -> bool:
        """Whether something listens there."""
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
            return True
        return False

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def reload(self) -> None:
        """Let a running one know the logins of now, whoever started it, and wait until it does.

        Raises HubError where it does not take them: a login that ended would go on.
        """
        self._write_configuration()
        log = self.folder / "broker.log"
        try:
            size, pid = log.stat().st_size, int((self.folder / "broker.pid").read_text())
            os.kill(pid, signal.SIGHUP)
        except (OSError, ValueError):
            return  # none runs; it reads them at its start
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with log.open("rb") as file:
                file.seek(size)
                said = file.read().decode("utf-8", "replace")
            if RELOADED in said:
                return
            failed = [line for line in said.splitlines() if "Failed to reload" in line]
            if failed:
                raise HubError(
                    f"the broker does not take its logins: {failed[-1][-300:]}; start `tidegate hub run` anew"
                )
            if not self.answers():
                return  # it ended meanwhile
            time.sleep(0.02)
        raise HubError(f"the broker has not read its logins for {START_S:.0f} s; start `tidegate hub run` anew")

    def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            self._process.wait(30)
            self._process = None


def server_program() -> str:
    """Where nats-server is. Raises HubError."""
    program = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise HubError("nats-server is not on this machine; Debian: apt-get install nats-server")
    return program


def certificate_end(path: Path) -> str:
    """That a certificate ended or ends soon, or cannot be read; "" = neither. path : of a PEM file."""
    from cryptography import x509

    try:
        until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as why:
        return f"{path}: {why}"
    days = (until - datetime.now(UTC)).days
    if days >= CERTIFICATE_DAYS:
        return ""
    return f"{path}: the certificate {f'ended {-days} days ago' if days < 0 else f'ends in {days} days'}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
