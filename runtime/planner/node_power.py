"""The power of a machine by one of three ways: Slurm's own power saving, Redfish, IPMI. Ends are always graceful.

A machine in a scheduler is put to sleep by that scheduler only: it knows what runs there, and wakes it for work.
"""

import base64
import ipaddress
import json
import os
import re
import ssl
import subprocess
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

ASK_S = 20.0
BODY_BYTES_MAX = 1 << 20
ON, OFF, BETWEEN = "on", "off", "between"
WAYS = ("slurm", "redfish", "ipmi")


class NodeError(Exception):
    """A machine did not do what it was asked, or the file of machines is wrong: which, what was asked, what it said."""


class NodePower(Protocol):
    """What is asked of a machine's power."""

    def state(self) -> str: ...
    def busy(self) -> str: ...
    def sleep(self) -> None: ...
    def wake(self) -> None: ...


@dataclass(frozen=True)
class Node:
    """One machine that may sleep. address: of its way: Slurm's name, the URL of its Redfish system, a BMC's host."""

    name: str
    way: str
    address: str
    port: int = 623
    user: str = ""
    password_file: str = ""
    ca_file: str = ""


def read_nodes(path: Path) -> tuple[Node, ...]:
    """The machines that their owner lets sleep. Raises NodeError with the file, the machine and the remedy."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("node", [])
    except (OSError, ValueError) as why:
        raise NodeError(f"{path}: {why}") from None
    found: list[Node] = []
    for place, row in enumerate(rows, 1):
        where = f"{path}: [[node]] {place}"
        ways = [way for way in WAYS if way in row]
        foreign = sorted(set(row) - {"name", "port", "user", "password_file", "ca_file", *WAYS})
        if foreign:
            raise NodeError(f"{where}: {foreign[0]} is no key of a node")
        if len(ways) != 1 or not isinstance(row.get("name"), str) or not isinstance(row[ways[0]], str):
            raise NodeError(f"{where}: give a name, and one of {', '.join(WAYS)} as text")
        if any(one.name == row["name"] for one in found):
            raise NodeError(f"{where}: {row['name']} is there already")
        try:
            made = Node(row["name"], ways[0], row[ways[0]],
                        **{key: value for key, value in row.items() if key not in ("name", *WAYS)})  # fmt: skip
            power_of(made)
        except (TypeError, ValueError) as why:
            raise NodeError(f"{where}: {why}") from None
        found.append(made)
    if not found:
        raise NodeError(f"{path}: no [[node]]: nothing may sleep")
    return tuple(found)


def power_of(node: Node) -> NodePower:
    """The way to its power. Raises NodeError for what cannot be safe or right."""
    if node.way == "slurm":
        return SlurmPower(node.address)
    if node.way == "redfish":
        return RedfishPower(node)
    return IpmiPower(node)


def _password(node: Node) -> str:
    try:
        return Path(node.password_file).read_text(encoding="utf-8").strip()
    except OSError as why:
        raise NodeError(f"node {node.name}: password_file {node.password_file}: {why.strerror}") from None


class SlurmPower:
    """A node of Slurm with its own SuspendProgram and ResumeProgram. words: more environment, such as SLURM_CONF."""

    def __init__(self, name: str, words: dict[str, str] | None = None) -> None:
        if not re.fullmatch(r"[\w.-]{1,64}", name):
            raise NodeError(f"slurm = {name!r}: write one node's name")
        self._name, self._environment = name, {**os.environ, **(words or {}), "LC_ALL": "C"}

    def _ask(self, *words: str) -> str:
        return _command(f"node {self._name}", ["scontrol", *words], self._environment)

    def _fields(self) -> dict[str, str]:
        text = self._ask("-o", "show", "node", self._name)
        return dict(part.split("=", 1) for part in text.split() if "=" in part)

    def state(self) -> str:
        """Raises NodeError."""
        flags = set(self._fields().get("State", "").rstrip("*").split("+"))
        if flags & {"POWERED_DOWN", "POWERING_DOWN", "POWER_DOWN"}:
            return OFF
        return BETWEEN if flags & {"POWERING_UP", "POWER_UP"} or not flags & {"IDLE", "MIXED", "ALLOCATED"} else ON

    def busy(self) -> str:
        """What it does as Slurm knows; "" where it is idle. Raises NodeError."""
        found = self._fields()
        state = found.get("State", "?").rstrip("*")
        return "" if state == "IDLE" and found.get("CPUAlloc") == "0" else f"Slurm has it as {state}"

    def sleep(self) -> None:
        """When the last job has ended; none begins. Raises NodeError."""
        self._ask("update", f"NodeName={self._name}", "State=POWER_DOWN_ASAP", "Reason=tidegate")

    def wake(self) -> None:
        """Raises NodeError."""
        self._ask("update", f"NodeName={self._name}", "State=POWER_UP", "Reason=tidegate")


class RedfishPower:
    """A ComputerSystem of Redfish (DSP0266, DSP0268): its PowerState, and the action ComputerSystem.Reset."""

    def __init__(self, node: Node) -> None:
        self._node, parts = node, urlsplit(node.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "/Systems/" not in parts.path:
            raise NodeError(f"node {node.name}: redfish = {node.address!r}: write https://HOST/redfish/v1/Systems/ID")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise NodeError(f"node {node.name}: redfish over http would send its password in the clear; write https")
        self._context = ssl.create_default_context(cafile=node.ca_file or None) if parts.scheme == "https" else None

    def _ask(self, path: str, body: object = None) -> dict[str, object]:
        request = urllib.request.Request(self._node.address.rstrip("/") + path, headers={"accept": "application/json"})
        if self._node.user:
            word = f"{self._node.user}:{_password(self._node)}".encode()
            request.add_header("authorization", "Basic " + base64.b64encode(word).decode())
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=ASK_S, context=self._context) as answer:
                raw = answer.read(BODY_BYTES_MAX)
            found = json.loads(raw) if raw.strip() else {}
        except (OSError, ValueError, urllib.error.URLError) as why:
            raise NodeError(f"node {self._node.name}: {self._node.address}{path}: {why}") from None
        return found if isinstance(found, dict) else {}

    def state(self) -> str:
        """Raises NodeError."""
        word = str(self._ask("").get("PowerState"))
        return {"On": ON, "Off": OFF}.get(word, BETWEEN)

    def busy(self) -> str:
        """Its controller does not know."""
        return ""

    def sleep(self) -> None:
        """Asks its operating system to end. Raises NodeError."""
        self._ask("/Actions/ComputerSystem.Reset", {"ResetType": "GracefulShutdown"})

    def wake(self) -> None:
        """Raises NodeError."""
        self._ask("/Actions/ComputerSystem.Reset", {"ResetType": "On"})


class IpmiPower:
    """A BMC over IPMI 2.0's RMCP+, by ipmitool."""

    def __init__(self, node: Node) -> None:
        if not node.address or node.address.startswith("-") or not node.user or not node.password_file:
            raise NodeError(f"node {node.name}: ipmi wants a host, and user and password_file beside it")
        self._node = node

    def _ask(self, word: str) -> str:
        node = self._node
        command = ["ipmitool", "-I", "lanplus", "-H", node.address, "-p", str(node.port), "-U", node.user, "-f",
                   node.password_file, "chassis", "power", word]  # fmt: skip
        return _command(f"node {node.name}", command, {**os.environ, "LC_ALL": "C"})

    def state(self) -> str:
        """Raises NodeError."""
        said = self._ask("status").strip().rpartition(" ")[2]
        return said if said in (ON, OFF) else BETWEEN

    def busy(self) -> str:
        """Its controller does not know."""
        return ""

    def sleep(self) -> None:
        """Asks its operating system to end. Raises NodeError."""
        self._ask("soft")

    def wake(self) -> None:
        """Raises NodeError."""
        self._ask("on")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _command(who: str, command: list[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ASK_S)
    except FileNotFoundError:
        raise NodeError(f"{who}: {command[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise NodeError(f"{who}: {command[0]} did not answer within {ASK_S:g} s") from None
    if done.returncode:
        raise NodeError(f"{who}: {command[0]} {command[-1]}: {done.stderr.strip()[-200:] or done.returncode}")
    return done.stdout
