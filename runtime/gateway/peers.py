"""Who is asking: identity, role, and how much of it."""

import collections
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate.runtime.api import messages
from tidegate.runtime.state import process_users

# libzmq gives the address of a peer on a UNIX socket as host:uid:gid:pid, from the kernel's own SO_PEERCRED.
CREDENTIALS = re.compile(r":(\d+):(\d+):(\d+)$")
IDEMPOTENT_NS = 600 * 10**9
ANSWERS_MAX = 4096
PEERS_MAX = 256
LOCK_AFTER = 10
ELSEWHERE = "remote:"  # before the owner of an order that came to a process of this machine from another one
LOCK_NS = 60 * 10**9


def credentials(address: str) -> tuple[int, int, int] | None:
    """User, group and process behind a UNIX socket, None where libzmq does not know them."""
    found = CREDENTIALS.search(address)
    if found is None:
        return None
    uid, gid, pid = (int(text) for text in found.groups())
    return uid, gid, pid


class Bucket:
    """So many in a second on average, so many at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self._tokens = burst
        self._t_ns = 0

    def take(self, t_ns: int, cost: float = 1.0) -> bool:
        """Take from the bucket; false when it does not hold enough."""
        if self._t_ns:
            self._tokens = min(self.burst, self._tokens + (t_ns - self._t_ns) * 1e-9 * self.per_s)
        self._t_ns = t_ns
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def spend(self, cost: float) -> None:
        """Take what was already used up; the bucket may go below empty and then has to recover first."""
        self._tokens -= cost


@dataclass
class Peer:
    """One client: a key, or a user's process on this machine."""

    name: str  # for the audit trail: key name, or uid:0
    role: messages.Role
    requests: Bucket = field(default_factory=lambda: Bucket(400.0, 800.0))
    reads: Bucket = field(default_factory=lambda: Bucket(200.0, 400.0))
    commands: Bucket = field(default_factory=lambda: Bucket(50.0, 100.0))
    replays: Bucket = field(default_factory=lambda: Bucket(20.0, 60.0))
    complaints: Bucket = field(default_factory=lambda: Bucket(20.0, 40.0))
    stops: Bucket = field(default_factory=lambda: Bucket(20.0, 40.0))  # again, while the site is stopped already
    forbidden: int = 0
    locked_until_ns: int = 0
    user: str = ""  # on whose behalf it asks just now
    key: str = ""  # which client it is; many processes of one user share a name and no key
    is_local: bool = True  # it asks over a socket of this machine's file system

    for_remote: bool = False  # it says that what it asks now came to it from another machine
    always_remote: bool = False  # it speaks for people elsewhere, whether it says so or not
    commands_only: frozenset[str] | None = None  # what it may order, None = all that its role may

    @property
    def at_site(self) -> bool:
        """It speaks for somebody on site, as far as the machine can tell."""
        return self.is_local and not self.for_remote and not self.always_remote

    @property
    def who(self) -> str:
        """For the audit trail: the peer, and the person if it named one."""
        return f"{self.name} for {self.user}" if self.user else self.name

    @property
    def owner(self) -> str:
        """Whose its orders are: of the person, where it names one, and marked where that person is elsewhere."""
        if not self.is_local:
            return self.name
        return self.who if self.at_site else f"{ELSEWHERE}{self.who}"

    def lacks(self, op: str, *, is_command: bool) -> bool:
        """Whether a process of ours asks for what is none of its work."""
        return is_command and self.commands_only is not None and op not in self.commands_only

    def may(self, role: messages.Role) -> bool:
        """Whether it may do what this role may."""
        return messages.ROLES.index(self.role) >= messages.ROLES.index(role)


class Service(NamedTuple):
    """A process of ours with a user of its own, and what of our orders is its work."""

    name: str
    role: messages.Role
    always_remote: bool = False
    commands_only: frozenset[str] | None = None


NOTHING: frozenset[str] = frozenset()
# The planner is in none of these: it has the role of anybody in our group, and its plans stand below every order.
SERVICES = (
    Service(process_users.SERVICE, "maintain"),  # the supervisor's, and the console's, where a person stands
    Service(process_users.user_of("web"), "maintain", always_remote=True),
    Service(process_users.user_of("carbon"), "maintain", commands_only=frozenset({"note", "show_carbon"})),
    Service(process_users.user_of("recorder"), "operate", commands_only=frozenset({"note"})),
    *(
        Service(process_users.user_of(one), "read", commands_only=NOTHING)
        for one in ("core", "remote", "telemetry", "notify", "fleet")
    ),
)


def services_here(own_uid: int) -> dict[int, Service]:
    """Our processes by the number of their user; empty where this site is none of the installed service."""
    found = {}
    for service in SERVICES:
        who = process_users.identity_of(service.name)
        if who is not None:
            found[who.uid] = service
    gateway = process_users.identity_of(process_users.user_of("gateway"))
    return found if gateway is not None and own_uid == gateway.uid else {}


class Peers:
    """All that were seen lately; the ones not heard of for longest are forgotten first."""

    def __init__(
        self, own_uid: int, local_role: messages.Role = "operate", services: Mapping[int, Service] | None = None
    ) -> None:
        self.own_uid = own_uid
        self.local_role = local_role
        self.services = services or {}
        self._peers: collections.OrderedDict[str, Peer] = collections.OrderedDict()

    def local(self, address: str) -> Peer:
        """The peer behind a UNIX socket: root and the user that runs the site maintain, others in our group operate."""
        found = credentials(address)
        if found is None:
            return self._peer("local:unknown", "unknown", "read")
        uid, _, pid = found
        service = self.services.get(uid)
        if service is not None:
            peer = self._peer(f"uid:{uid}:{pid}", service.name, service.role)
            peer.always_remote, peer.commands_only = service.always_remote, service.commands_only
            return peer
        role: messages.Role = "maintain" if uid in (0, self.own_uid) else self.local_role
        return self._peer(f"uid:{uid}:{pid}", f"uid:{uid}", role)

    def keyed(self, name: str, role: messages.Role) -> Peer:
        """The peer that proved to hold a key."""
        return self._peer(f"key:{name}", f"key:{name}", role, is_local=False)

    def plain(self, address: str, role: messages.Role) -> Peer:
        """A peer on loopback TCP without encryption, which the site file allows explicitly."""
        return self._peer(f"tcp:{address}", f"tcp:{address}", role, is_local=False)

    def _peer(self, key: str, name: str, role: messages.Role, *, is_local: bool = True) -> Peer:
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = Peer(name, role, key=key, is_local=is_local)
            if len(self._peers) > PEERS_MAX:
                self._peers.popitem(last=False)
        else:
            peer.role = role
            self._peers.move_to_end(key)
        return peer


class Asked(NamedTuple):
    """What makes two requests one: the same client, the same id, the same bytes.

    An id alone does not: forked processes and scripts that count 1, 2, 3 use the same ones for different orders.
    """

    peer: str
    id: str
    digest: bytes

    @classmethod
    def of(cls, peer: Peer, ident: str, data: bytes | memoryview) -> "Asked":
        return cls(peer.key or peer.name, ident, hashlib.sha256(data).digest())


class Kept(NamedTuple):
    """What became of a command. t_ns : when it was first asked; answer : None while it is being worked on."""

    t_ns: int
    answer: bytes | None


class Answers:
    """Answers to commands, kept so that a request asked twice is done once."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[Asked, Kept] = collections.OrderedDict()

    def find(self, asked: Asked, t_ns: int) -> Kept | None:
        """What became of it; None: it was not asked within the last 10 minutes."""
        kept = self._kept.get(asked)
        return None if kept is None or t_ns - kept.t_ns > IDEMPOTENT_NS else kept

    def keep(self, asked: Asked, t_ns: int, answer: bytes | None) -> None:
        before = self.find(asked, t_ns)
        self._kept[asked] = Kept(before.t_ns if before is not None else t_ns, answer)
        self._kept.move_to_end(asked)
        while len(self._kept) > ANSWERS_MAX:
            self._kept.popitem(last=False)

    def forget(self, asked: Asked) -> None:
        self._kept.pop(asked, None)

    def __len__(self) -> int:
        return len(self._kept)
