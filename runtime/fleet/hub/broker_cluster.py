"""A hub whose brokers run on machines of their own, and each such broker.

`tidegate hub cluster` writes a folder for each machine; `tidegate hub broker` runs there. What the brokers keep, they
keep three times. Who may log in, the hub gives them as a message that the cluster keeps too: each broker's process
takes the newest one and answers that it holds. Lines between brokers are open to certificates of the hub's authority
only.
"""

import asyncio
import contextlib
import json
import math
import re
import sys
import threading
import time
import zlib
from collections.abc import Coroutine, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StorageType, StreamConfig

from tidegate.runtime.fleet.hub.broker import PAYLOAD_MAX, Broker, certificate_end
from tidegate.runtime.fleet.hub.hub_authority import AUTHORITY, AUTHORITY_KEY, PAIR, PAIR_DAYS, PAIR_KEY, issue
from tidegate.runtime.fleet.invitation import HubError, servers_in
from tidegate.runtime.state import atomic_file

LOGINS, LOGINS_TAKEN, LOGINS_STREAM = "tidegate.logins", "tidegate.logins-taken", "LOGINS"
FORGET = "tidegate.forget"
SIZES = (3, 5)
REPLICAS = 3
PORT, ROUTE_PORT = 4222, 6222
CONNECT_S, TAKEN_S = 10.0, 15.0
KEEP_S, LOOK_S, STUCK_S = 30.0, 5.0, 45.0
CERTIFICATE_LOOK_S = 3600.0
UNPACKED_MAX = 256 << 20
LEAST_SERVER = (2, 10, 23)  # earlier ones have lost whole streams after a crash: docs/fleet-scale.md
MEMBER_FILE, NUMBER_FILE = "member.json", "logins-number"
MEMBER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
Result = TypeVar("Result")


def members_in(words: tuple[str, ...]) -> dict[str, str]:
    """NAME=HOST of each broker. -> name -> host. Raises HubError."""
    members: dict[str, str] = {}
    for word in words:
        name, _, host = word.partition("=")
        if not MEMBER_NAME.fullmatch(name) or not host or name in members or host in members.values():
            raise HubError(
                f"--broker {word}: expected NAME=HOST, each name and host once; names are of a-z, 0-9 and hyphens"
            )
        members[name] = host
    if len(members) not in SIZES:
        raise HubError(f"{len(members)} brokers: a cluster has 3, or 5; what most of them hold is held")
    return members


def _file_number(folder: Path) -> int:
    """Of the logins in a folder; 0 = none were given yet."""
    try:
        return int((folder / NUMBER_FILE).read_text())
    except FileNotFoundError:
        return 0
    except ValueError:
        raise HubError(f"{folder / NUMBER_FILE}: no number; remove it, and the next logins are taken") from None


def _apart(work: Coroutine[None, None, Result]) -> Result:
    """Run it to its end in a thread of its own: who asks may stand in a running loop. Raises what it raises."""
    found: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as why:
            raised.append(why)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return found[0]


async def _quiet(_: Exception) -> None:
    """What goes wrong is asked again, or stands in the error."""


class Cluster(Broker):
    """The hub's end. members : name -> host of each broker, all at one port. Nothing is started here."""

    def __init__(self, folder: Path, members: Mapping[str, str], port: int = PORT) -> None:
        super().__init__(folder, next(iter(members.values())), port, (folder / AUTHORITY, folder / AUTHORITY_KEY))
        self.members = dict(members)
        self.replicas = REPLICAS

    @property
    def address(self) -> str:
        return ",".join(f"tls://{_in_url(host)}:{self.port}" for host in self.members.values())

    def start(self) -> None:
        """Nothing: `tidegate hub broker` runs on each broker's machine."""

    def stop(self) -> None:
        """Nothing: they go on."""

    def alive(self) -> bool:
        return True

    def certificate_problem(self) -> str:
        """Of the authority's certificate; each broker's own is looked at where it runs."""
        trouble = certificate_end(self.folder / AUTHORITY)
        return trouble and f"{trouble}; remove it and {AUTHORITY_KEY}, give `tidegate hub cluster` again, carry the "\
            "folders, and invite the sites anew"  # fmt: skip

    def reload(self) -> None:
        """Give the logins of now to the brokers. Raises HubError where most of them are away.

        One that is away takes them when it is back, and is named on stderr.
        """
        with self._locked():
            number = _file_number(self.folder) + 1
            atomic_file.replace(self.folder / NUMBER_FILE, str(number).encode())
        away = _apart(self._spread())
        if away:
            print(f"hub: {', '.join(away)}: has not taken the logins within {TAKEN_S:.0f} s; it does when it is back, "
                  "until then an ended login opens there", file=sys.stderr, flush=True)  # fmt: skip

    def packed(self) -> tuple[int, bytes]:
        """The logins of now: their number, and the message that carries them. Raises HubError."""
        with self._locked():
            number = _file_number(self.folder)
            claims = {token_id: list(row) for token_id, row in self.claims().items()}
            row = {"number": number, "logins": self.logins(), "claims": claims}
        data = zlib.compress(json.dumps(row).encode(), 6)
        if len(data) > PAYLOAD_MAX:
            raise HubError(f"the logins are {len(data)} bytes, {PAYLOAD_MAX} at most go in a message: too many sites")
        return number, data

    async def _connected(self) -> Client:
        name, word = self.own_login()
        try:
            return await nats.connect(
                servers_in(self.address), user=name, password=word, tls=self.context(), connect_timeout=5,
                allow_reconnect=False, max_reconnect_attempts=1, error_cb=_quiet,
            )  # fmt: skip
        except (nats.errors.Error, OSError, TimeoutError) as why:
            raise HubError(
                f"{self.address}: {why or type(why).__name__}; does `tidegate hub broker` run on these machines? "
                "What was changed is kept, and `tidegate hub run` gives it to them when they are back"
            ) from None

    async def _spread(self) -> list[str]:
        """-> names of the brokers that have not answered that they hold the newest logins."""
        client = await self._connected()
        holds: set[str] = set()
        all_hold = asyncio.Event()
        number, data = self.packed()

        async def taken(message: Msg) -> None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(message.data)
                if int(row["number"]) >= number:
                    holds.add(str(row["name"]))
            if holds >= set(self.members):
                all_hold.set()

        try:
            await client.subscribe(LOGINS_TAKEN, cb=taken)
            await self._keep_message(client, data)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(all_hold.wait(), TAKEN_S)
        finally:
            await client.close()
        return sorted(set(self.members) - holds)

    async def _keep_message(self, client: Client, data: bytes) -> None:
        """Into the cluster's own memory. Raises HubError."""
        wanted = StreamConfig(
            LOGINS_STREAM, subjects=[LOGINS], storage=StorageType.FILE, num_replicas=REPLICAS, max_msgs_per_subject=1
        )
        until = time.monotonic() + CONNECT_S
        while True:
            try:
                jetstream = client.jetstream(timeout=5)
                await jetstream.add_stream(wanted)
                await jetstream.publish(LOGINS, data)
                return
            except (nats.errors.Error, TimeoutError) as why:
                if time.monotonic() > until:
                    raise HubError(
                        f"{self.address}: the brokers do not keep the logins ({why or type(why).__name__}); most of "
                        "them must be there. `tidegate hub run` gives them when they are"
                    ) from None
                await asyncio.sleep(0.3)

    async def keep(self, stop: asyncio.Event) -> None:
        """Give the logins again whenever the cluster does not hold those of now: at the start, after all was lost.

        Brokers that came back with a part of their memory may be there, all of them, and find no place for anything.
        They are asked to forget then: whatever was in them comes again from the sites.
        """
        said, stuck_s = "", math.inf
        while not stop.is_set():
            trouble = ""
            try:
                client = await self._connected()
                try:
                    if await _kept_number(client) != _file_number(self.folder):
                        await self._keep_message(client, self.packed()[1])
                    stuck_s = math.inf
                except HubError as why:
                    trouble, stuck_s = str(why), min(stuck_s, time.monotonic())
                    if time.monotonic() - stuck_s > STUCK_S and await self._all_heard(client):
                        stuck_s = math.inf
                        trouble = (
                            f"{self.address}: all brokers are there and keep nothing; each sets its store aside, and "
                            "the sites send again from their marks"
                        )
                        await client.publish(FORGET, b"")
                        await client.flush()
                finally:
                    await client.close()
            except (HubError, nats.errors.Error, OSError, TimeoutError) as why:
                trouble = str(why) or type(why).__name__
            if trouble and trouble != said:
                print(f"hub: {trouble}", file=sys.stderr, flush=True)
            said = trouble
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S if trouble else KEEP_S)

    async def _all_heard(self, client: Client) -> bool:
        """Whether every broker's process is connected: each gives its number of logins at every look."""
        heard: set[str] = set()

        async def taken(message: Msg) -> None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                heard.add(str(json.loads(message.data)["name"]))

        subscription = await client.subscribe(LOGINS_TAKEN, cb=taken)
        await asyncio.sleep(3 * LOOK_S)
        await subscription.unsubscribe()
        return heard >= set(self.members)


async def _kept(client: Client) -> bytes | None:
    """The newest message of logins; None where the cluster has none, or no leader that could answer."""
    try:
        return (await client.jetstream(timeout=5).get_last_msg(LOGINS_STREAM, LOGINS)).data
    except (nats.errors.Error, TimeoutError):
        return None


def _unpacked(data: bytes) -> dict[str, object]:
    """What stands in it. Raises HubError."""
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(data, UNPACKED_MAX)
        row = json.loads(raw)
        made = {"number": int(row["number"]), "logins": dict(row["logins"]), "claims": dict(row["claims"])}
    except (zlib.error, ValueError, KeyError, TypeError) as why:
        raise HubError(f"the logins that the cluster keeps cannot be read ({why})") from None
    return made


async def _kept_number(client: Client) -> int:
    data = await _kept(client)
    return -1 if data is None else int(str(_unpacked(data)["number"]))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def write_cluster(folder: Path, members: Mapping[str, str], out: Path, port: int = PORT, route_port: int = ROUTE_PORT,
                  days: int = PAIR_DAYS) -> list[str]:  # fmt: skip
    """A folder for each broker's machine in `out`, with a new certificate. -> names whose folder was there already.

    folder : of the hub, which keeps the authority. Raises HubError, OSError.
    """
    hub = Broker(folder)
    with hub._locked():  # the hub gives its logins of now under a new number
        atomic_file.replace(folder / NUMBER_FILE, str(_file_number(folder) + 1).encode())
    again = []
    for name, host in members.items():
        to = out / name
        if to.exists():
            again.append(name)
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        row = {"name": name, "port": port, "route_port": route_port, "members": dict(members)}
        issue(folder, to, [host], days)
        atomic_file.replace(to / MEMBER_FILE, json.dumps(row, indent=1).encode())
        atomic_file.replace(to / "hub-word", hub.own_login()[1].encode())
    return again


class Member(Broker):
    """One broker of a cluster, on its machine. folder : as `tidegate hub cluster` made it. Raises HubError."""

    def __init__(self, folder: Path) -> None:
        try:
            row = json.loads((folder / MEMBER_FILE).read_text())
            self.name, self._members = str(row["name"]), {str(one): str(host) for one, host in row["members"].items()}
            port, self._route_port = int(row["port"]), int(row["route_port"])
            host = self._members[self.name]
        except FileNotFoundError:
            raise HubError(f"{folder}: no broker's folder; `tidegate hub cluster` on the hub makes it") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as why:
            raise HubError(f"{folder / MEMBER_FILE}: {why}; carry the folder from the hub again") from None
        super().__init__(folder, host, port, (folder / PAIR, folder / PAIR_KEY))
        self._forget = False
        lacking = [one for one in (AUTHORITY, PAIR, PAIR_KEY, "hub-word") if not (folder / one).exists()]
        if lacking:
            raise HubError(f"{folder}: {', '.join(lacking)} missing; carry the whole folder from the hub")

    def certificate(self) -> str:
        return (self.folder / AUTHORITY).read_text()

    def _configuration(self) -> dict[str, object]:
        made = super()._configuration()
        others = {name: host for name, host in self._members.items() if name != self.name}
        place = _in_url(self.host) if _is_address(self.host) else "0.0.0.0"
        between = {"cert_file": str(self.folder / PAIR), "key_file": str(self.folder / PAIR_KEY),
                   "ca_file": str(self.folder / AUTHORITY), "verify": True, "timeout": 10}  # fmt: skip
        made |= {
            "server_name": self.name, "listen": f"{place}:{self.port}", "write_deadline": "10s",
            "cluster": {
                "name": "tidegate", "listen": f"{place}:{self._route_port}", "no_advertise": True, "tls": between,
                "routes": [f"nats-route://{_in_url(host)}:{self._route_port}" for host in others.values()],
            },
        }  # fmt: skip
        return made

    def certificate_problem(self) -> str:
        """Of its own certificate and of the authority's, "" if nothing is wrong."""
        trouble = certificate_end(self.folder / PAIR) or certificate_end(self.folder / AUTHORITY)
        return trouble and f"{trouble}; on the hub: tidegate hub cluster, and carry the folder {self.name} here again"

    def take(self, data: bytes) -> bool:
        """Hold these logins, if they are newer. -> whether they are. Raises HubError, OSError."""
        row = _unpacked(data)
        if int(str(row["number"])) <= _file_number(self.folder):
            return False
        with self._locked():
            atomic_file.replace(self._logins_file, json.dumps(row["logins"]).encode())
            atomic_file.replace(self._claims_file, json.dumps(row["claims"]).encode())
        self.reload()
        atomic_file.replace(self.folder / NUMBER_FILE, str(row["number"]).encode())
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Run the broker and keep its logins those of the hub. Raises HubError where it does not start."""
        look, certificate_of, looked_s, said = asyncio.Event(), self._pair_time(), -math.inf, ""
        self.start()
        opening = asyncio.create_task(self._opened(look))
        try:
            while not stop.is_set():
                if self._forget:
                    self._forget = False
                    self.stop()
                    self.set_aside()
                    print(f"broker {self.name}: the hub had it set its store aside", file=sys.stderr, flush=True)
                    self.start()
                if not self.alive():
                    print(f"broker {self.name}: nats-server ended; starting it again", file=sys.stderr, flush=True)
                    self.start()
                if self._pair_time() != certificate_of:
                    certificate_of, looked_s = self._pair_time(), -math.inf
                    await asyncio.to_thread(self.reload)
                if time.monotonic() - looked_s >= CERTIFICATE_LOOK_S:
                    looked_s, trouble = time.monotonic(), self.certificate_problem()
                    if trouble and trouble != said:
                        print(f"broker {self.name}: {trouble}", file=sys.stderr, flush=True)
                    said = trouble
                if opening.done():
                    await self._follow(opening.result())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(look.wait(), LOOK_S)
                look.clear()
        finally:
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
            opening.cancel()
            self.stop()

    async def _opened(self, look: asyncio.Event) -> Client:
        """The connection to its own broker; it comes back by itself. look : set whenever new logins are given."""

        async def given(_: Msg) -> None:
            look.set()

        name, word = self.own_login()
        while True:
            try:
                client = await asyncio.wait_for(nats.connect(
                    f"tls://{_in_url(self.host)}:{self.port}", user=name, password=word, tls=self.context(),
                    max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=_quiet,
                ), CONNECT_S)  # fmt: skip
                break
            except (nats.errors.Error, OSError, TimeoutError):  # its certificate ended: after a new one it goes
                await asyncio.sleep(1.0)

        async def forget(_: Msg) -> None:
            self._forget = True
            look.set()

        await client.subscribe(LOGINS, cb=given)
        await client.subscribe(FORGET, cb=forget)
        look.set()
        return client

    def _pair_time(self) -> int:
        return (self.folder / PAIR).stat().st_mtime_ns

    async def _follow(self, client: Client) -> None:
        """Take the logins that the cluster keeps, and answer which are held."""
        data = await _kept(client)
        try:
            if data is not None:
                await asyncio.to_thread(self.take, data)
            row = {"name": self.name, "number": _file_number(self.folder)}
            await client.publish(LOGINS_TAKEN, json.dumps(row).encode())
        except (HubError, OSError, nats.errors.Error) as why:
            print(f"broker {self.name}: {why}", file=sys.stderr, flush=True)


def server_warning(version: str) -> str:
    """What is to be known of a nats-server in a cluster, "" = nothing. version : what its `--version` prints."""
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return f"nats-server says of its version {version.strip()!r}; a cluster wants 2.10.23 or newer"
    if tuple(int(part) for part in found.groups()) >= LEAST_SERVER:
        return ""
    return (
        f"nats-server {found[0]}: releases before v2.10.23 have lost whole streams after a crash. Nothing is lost by "
        "that, since sites send again from their marks, but it costs their time; take a newer one for a cluster"
    )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def broker_from(folder: Path, row: Mapping[str, object]) -> Broker:
    """The broker or brokers of a hub. row : its hub.json. Raises HubError, KeyError, TypeError, ValueError."""
    members = row.get("cluster")
    if isinstance(members, dict):
        return Cluster(folder, members, int(str(row["cluster_port"])))
    tls = row["tls"]
    pair = (Path(tls[0]), Path(tls[1])) if isinstance(tls, list) else None
    return Broker(folder, str(row["host"]), int(str(row["port"])), pair)
