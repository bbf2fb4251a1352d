"""`[[telemetry]]` of a site file: who else counts energy within the IT load, and where it is asked."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidegate.config.site_buses import Name, Strict
from tidegate.config.toml_lines import Table

SOURCES_MAX = 64
HOSTS_MAX = 512

Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:\[\]-]+$")]
Rack = Annotated[str, Field(min_length=1, max_length=64)]


class Telemetry(Strict):
    """One source. Its numbers say how the metered energy of `node` is shared, never how much it is."""

    name: Name
    kind: Literal["snmp", "redfish", "prometheus", "nvml"]
    node: Annotated[str, Field(max_length=64, description="the it-meter that it lies under; empty = all IT")] = ""
    every_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    hosts: Annotated[tuple[Host, ...], Field(max_length=HOSTS_MAX, description="PDUs or BMCs, HOST or HOST:PORT")] = ()
    model: Annotated[
        Literal["apc-rpdu2", "raritan-pdu2", "vertiv-geist"] | None, Field(description="of snmp: the family of MIB")
    ] = None
    community_file: Annotated[str, Field(description="of snmp: file beside the site file with the community")] = ""
    url: Annotated[
        str | None,
        Field(pattern=r"^https?://[A-Za-z0-9._:\[\]-]+(/[^\s?#]*)?$", description="of prometheus: root of its API"),
    ] = None
    exporter: Annotated[
        Literal["dcgm", "kepler", "node", "ipmi", "otel"] | None,
        Field(description="of prometheus: whose metrics are asked for"),
    ] = None
    auth: Annotated[
        Literal["sha1", "sha224", "sha256", "sha384", "sha512"], Field(description="of snmp v3: the user's hash")
    ] = "sha256"
    privacy_file: Annotated[str, Field(description="of snmp v3: file with the password of AES-128; chmod 600")] = ""
    scheme: Annotated[Literal["https", "http"], Field(description="of redfish")] = "https"
    user: Annotated[str, Field(max_length=64, description="of snmp: makes it v3; of redfish and prometheus")] = ""
    password_file: Annotated[str, Field(description="file beside the site file; chmod 600")] = ""
    ca_file: Annotated[str, Field(description="certificates that https is checked against; else the system's")] = ""
    racks: Annotated[
        dict[str, Rack],
        Field(max_length=10_000, default_factory=dict, description="host, as in hosts or in a label, to its rack"),
    ]

    @model_validator(mode="after")
    def _whole(self) -> "Telemetry":
        needed = {"snmp": ("hosts", "model"), "redfish": ("hosts",), "prometheus": ("url", "exporter"), "nvml": ()}[
            self.kind
        ]
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"{self.kind} needs {key}")
        foreign = {
            "snmp": ("url", "exporter", "ca_file", *(("community_file",) if self.user else ("privacy_file",))),
            "redfish": ("url", "exporter", "model", "community_file", "privacy_file"),
            "prometheus": ("hosts", "model", "community_file", "privacy_file"),
            "nvml": (
                "hosts",
                "model",
                "community_file",
                "privacy_file",
                "url",
                "exporter",
                "user",
                "password_file",
                "ca_file",
            ),
        }[self.kind]
        for key in foreign:
            if getattr(self, key):
                version = " v3" if self.kind == "snmp" and self.user else ""
                raise ValueError(f"{key} is not for {self.kind}{version}; take it out")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file belong together")
        if "auth" in self.model_fields_set and not (self.kind == "snmp" and self.user):
            raise ValueError("auth is for snmp with a user; take it out")
        plain = (self.url or "").startswith("http://") or (self.kind == "redfish" and self.scheme == "http")
        if self.user and plain and not all(_is_loopback(host) for host in (*self.hosts, *_host_of(self.url))):
            raise ValueError("a password needs https; http is for this machine only")
        return self


def _host_of(url: str | None) -> tuple[str, ...]:
    return () if url is None else (url.partition("://")[2].partition("/")[0],)


def _is_loopback(host: str) -> bool:
    return host.rpartition(":")[0] in ("127.0.0.1", "localhost") or host in ("127.0.0.1", "localhost")


def check_telemetry(raw: Table, place: Callable[[tuple[int | str, ...]], str]) -> list[str]:
    """Names, hosts and loads of the sources against each other and against the devices."""
    rows = raw.get("telemetry", [])
    if not isinstance(rows, list):
        return []
    problems = []
    devices = raw.get("device", [])
    its = {
        device.get("name")
        for device in (devices if isinstance(devices, list) else [])
        if isinstance(device, dict) and device.get("role") == "it-meter"
    }
    names: set[object] = set()
    asked: dict[tuple[object, object], object] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            continue
        name, kind, node = row.get("name"), row.get("kind"), row.get("node", "")
        if name in names:
            problems.append(
                f"{place(('telemetry', number, 'name'))}: {name!r} stands twice; give each source a name of its own"
            )
        names.add(name)
        if node and node not in its and not (node == "it" and not its):
            known = ", ".join(sorted(map(str, its))) or "it"
            problems.append(f"{place(('telemetry', number, 'node'))}: {node!r} is no it-meter; known: {known}")
        hosts = row.get("hosts", [])
        for host in hosts if isinstance(hosts, list) else []:
            other = asked.setdefault((kind, str(host)), name)
            if other != name:
                problems.append(
                    f"{place(('telemetry', number, 'hosts'))}: {host} is asked by {other!r} too and would count twice"
                )
        if isinstance(hosts, list) and len(set(map(str, hosts))) != len(hosts):
            problems.append(f"{place(('telemetry', number, 'hosts'))}: a host stands twice; name each once")
        racks = row.get("racks", {})
        if kind in ("snmp", "redfish") and isinstance(racks, dict) and isinstance(hosts, list):
            strange = sorted(set(racks) - {str(host) for host in hosts} - {str(h).rpartition(":")[0] for h in hosts})
            if strange:
                problems.append(f"{place(('telemetry', number, 'racks'))}: {strange[0]!r} is not among hosts")
    return problems
