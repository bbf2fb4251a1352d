"""Each host of each source asked by itself, on time, with back-off when it fails: a dead one costs its own time."""

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.config.telemetry_sources import Telemetry
from tidegate.runtime.telemetry.energy_store import EnergyStore, now_s
from tidegate.runtime.telemetry.energy_sums import EnergySums
from tidegate.runtime.telemetry.http_get import Access
from tidegate.runtime.telemetry.nvml_cards import NvmlCards
from tidegate.runtime.telemetry.pdu_models import MODELS
from tidegate.runtime.telemetry.prometheus_source import PrometheusServer
from tidegate.runtime.telemetry.redfish_source import RedfishHost
from tidegate.runtime.telemetry.sample import Heard, shortened
from tidegate.runtime.telemetry.snmp_codec import SnmpError
from tidegate.runtime.telemetry.snmp_source import Community, SecureUser, SnmpPdu, SnmpSocket, Speaker
from tidegate.runtime.telemetry.snmp_usm import PASSWORD_MIN, UsmUser

WRITE_S = 15.0
BACK_OFF_S_MAX = 300.0
TIMEOUT_S = 5.0
HEAR_S = 60.0  # one host, with everything that it is asked
AT_ONCE = 64  # hosts of one source asked at a time
PROBLEMS_MAX = 8


class SourceError(ValueError):
    """A source that cannot be asked; the text names it, the key and the remedy."""


class Asked(Protocol):
    """One host of a source."""

    host: str

    async def hear(self) -> Heard:
        """Ask once. Raises SnmpError, OSError or TimeoutError."""


@dataclass(slots=True)
class HostState:
    """How a host does. trouble : why it is silent, "" = it answers."""

    host: Asked
    heard_utc_s: float = 0.0
    trouble: str = ""
    problems: tuple[str, ...] = ()
    failures: int = 0

    def back_off_s(self, every_s: float) -> float:
        """Time until it is asked again: twice as long with each failure, up to five minutes."""
        return every_s if not self.failures else min(BACK_OFF_S_MAX, max(every_s, 1.0) * 2.0 ** min(self.failures, 9))


class Source:
    """One [[telemetry]] with its hosts."""

    def __init__(self, wanted: Telemetry, hosts: Sequence[Asked]) -> None:
        self.name, self.node, self.every_s = wanted.name, wanted.node, wanted.every_s
        self.states = [HostState(host, trouble=f"{host.host}: not heard yet") for host in hosts]
        self.sums = EnergySums(self.name, self.node, self.every_s)
        self.readings: dict[tuple[str, str], tuple[float, float]] = {}  # what, name -> value, utc_s
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def run(self, state: HostState) -> None:
        """Ask one host for ever. Hosts begin spread over the interval, so that they do not all answer at once."""
        due = time.monotonic() + random.uniform(0.0, min(self.every_s, 10.0))
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.ask(state)
            due = max(due + state.back_off_s(self.every_s), time.monotonic())

    async def ask(self, state: HostState) -> None:
        """Ask a host once; whatever it answers or does not ends here."""
        try:
            async with self._at_once, asyncio.timeout(HEAR_S):
                heard = await state.host.hear()
        except (OSError, SnmpError) as why:  # TimeoutError is an OSError
            text = str(why) or "no answer"
            state.trouble, state.failures = shortened(f"{state.host.host}: {text}", 200), state.failures + 1
            return
        except Exception as why:  # an answer that we did not think of must not end the others
            state.trouble = shortened(f"{state.host.host}: {type(why).__name__}: {why}", 200)
            state.failures += 1
            return
        utc_s = now_s()
        self.sums.take(heard, time.monotonic(), utc_s)
        for reading in heard.readings:
            self.readings[reading.what, reading.name] = reading.value, utc_s
        state.heard_utc_s, state.trouble, state.failures = utc_s, "", 0
        state.problems = tuple(heard.problems[:PROBLEMS_MAX])

    @property
    def state(self) -> tuple[str, float, int, int, str]:
        """(name, when it was last heard, hosts, of these silent, first troubles)."""
        silent = sorted((one for one in self.states if one.trouble), key=lambda one: -one.failures)
        told = [one.trouble for one in silent] + [text for one in self.states for text in one.problems]
        if self.sums.left_out:
            told.append(f"{self.sums.left_out} readings of more things than are kept")
        more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
        heard = max((one.heard_utc_s for one in self.states), default=0.0)
        return self.name, heard, len(self.states), len(silent), shortened("; ".join(told[:3]) + more, 800)


def secret(folder: Path, name: str, key: str, file: str) -> str:
    """The first line of a key file beside the site file. Raises SourceError."""
    try:
        return (folder / file).read_text("utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as why:
        reason = why.strerror if isinstance(why, OSError) else "no line of text in it"
        raise SourceError(f"telemetry {name}: {key} {file}: {reason}; write it there, chmod 600") from None


def access_of(wanted: Telemetry, folder: Path) -> Access:
    """How a source over HTTP is asked. Raises SourceError."""
    context = None
    if wanted.scheme == "https" or (wanted.url or "").startswith("https"):
        try:
            context = ssl.create_default_context(cafile=str(folder / wanted.ca_file) if wanted.ca_file else None)
        except OSError as why:
            raise SourceError(f"telemetry {wanted.name}: ca_file {wanted.ca_file}: {why.strerror or why}") from None
    password = secret(folder, wanted.name, "password_file", wanted.password_file) if wanted.password_file else ""
    return Access(context, wanted.user, password)


def source_of(wanted: Telemetry, folder: Path, wire: SnmpSocket) -> Source:
    """A source with its hosts. Raises SourceError."""
    hosts: list[Asked] = []
    timeout_s = max(TIMEOUT_S, min(wanted.every_s, 15.0))
    if wanted.kind == "snmp":
        assert wanted.model is not None
        speaker_of = _speaker(wanted, folder)
        for host in wanted.hosts:
            hosts.append(SnmpPdu(wire, host, MODELS[wanted.model], speaker_of(), _rack(wanted, host)))
    elif wanted.kind == "redfish":
        access = access_of(wanted, folder)
        hosts += [RedfishHost(h, wanted.scheme, access, _rack(wanted, h), timeout_s) for h in wanted.hosts]
    elif wanted.kind == "nvml":
        hosts.append(NvmlCards(wanted.racks.get(socket.gethostname(), "")))
    else:
        assert wanted.url is not None and wanted.exporter is not None
        hosts.append(PrometheusServer(wanted.url, wanted.exporter, access_of(wanted, folder), wanted.racks, timeout_s))
    return Source(wanted, hosts)


def _speaker(wanted: Telemetry, folder: Path) -> Callable[[], Speaker]:
    """How the agents of a source are spoken with; v3 has an object for each. Raises SourceError."""
    if not wanted.user:
        file = wanted.community_file
        community = secret(folder, wanted.name, "community_file", file) if file else "public"
        return lambda: Community(community.encode())
    found = {}
    for key, file in (("password_file", wanted.password_file), ("privacy_file", wanted.privacy_file)):
        found[key] = secret(folder, wanted.name, key, file) if file else ""
        if file and len(found[key]) < PASSWORD_MIN:
            raise SourceError(f"telemetry {wanted.name}: {key} {file}: shorter than {PASSWORD_MIN} characters")
    user = UsmUser(wanted.user, wanted.auth, found["password_file"], found["privacy_file"])
    return lambda: SecureUser(user)


def _rack(wanted: Telemetry, host: str) -> str:
    return wanted.racks.get(host) or wanted.racks.get(host.rpartition(":")[0]) or ""


def write(store: EnergyStore, sources: Sequence[Source]) -> None:
    """Put what all sources have into the store. Raises sqlite3.Error."""
    utc_s = now_s()
    rows = [row for source in sources for row in source.sums.rows(utc_s)]
    readings = [
        (source.name, what, name, value, heard)
        for source in sources
        for (what, name), (value, heard) in source.readings.items()
    ]
    store.put(rows, [source.state for source in sources], readings)
    store.forget(utc_s)
