"""A Prometheus that already scrapes GPUs (DCGM exporter), pods (Kepler) or nodes: instant queries over its HTTP API.

Series are asked for by name and answer with their newest sample; one that is older than its own scrape would allow is
left out by the server's own rule (five minutes), and by ours where it says its time.
"""

import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec

from tidegate.runtime.telemetry.gpu_slices import CutCard
from tidegate.runtime.telemetry.http_get import BYTES_MAX, Access, HttpError, get
from tidegate.runtime.telemetry.sample import (
    Counted,
    Heard,
    Level,
    Reading,
    Sample,
    Thing,
    nothing,
    plausible_w,
    shortened,
)

SERIES_MAX = 50_000
STALE_S = 90.0
KEPLER_ZONE = "package"  # zones overlap: package lies within psys, and a sum of both counts twice

QUERIES: Mapping[str, Sequence[str]] = {
    "dcgm": ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_UTIL"),
    "kepler": (f'kepler_pod_cpu_joules_total{{zone="{KEPLER_ZONE}"}}', "kepler_pod_gpu_joules_total"),
    "node": ("node_hwmon_power_average_watt",),
    "ipmi": ("ipmi_dcmi_power_consumption_watts", "ipmi_power_watts", "ipmi_temperature_celsius"),
    "otel": ("hw_host_power_watts", "hw_power_watts"),
}


class Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class Data(msgspec.Struct):
    resultType: str
    result: list[Series]


class Answer(msgspec.Struct):
    status: str
    data: Data | None = None
    error: str = ""


_decoder = msgspec.json.Decoder(Answer)


def series_of(body: bytes) -> list[Series]:
    """The vector in an answer. Raises HttpError."""
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as why:
        raise HttpError(f"not an answer of Prometheus: {why}"[:200]) from None
    if found.status != "success" or found.data is None:
        raise HttpError(f"Prometheus refuses: {shortened(found.error)}")
    if found.data.resultType != "vector":
        raise HttpError(f"a {shortened(found.data.resultType)} came, expected a vector")
    if len(found.data.result) > SERIES_MAX:
        raise HttpError(f"{len(found.data.result)} series, at most {SERIES_MAX}")
    return found.data.result


class PrometheusServer:
    """One server and the metrics of one exporter. racks : host of a label -> rack."""

    def __init__(self, url: str, exporter: str, access: Access, racks: Mapping[str, str], timeout_s: float) -> None:
        self.host = url.partition("://")[2].partition("/")[0]
        self._urls = [f"{url.rstrip('/')}/api/v1/query?query={quote(query, safe='')}" for query in QUERIES[exporter]]
        self._exporter, self._access, self._timeout_s = exporter, access, timeout_s
        self._racks = racks
        readers = {"dcgm": self._dcgm, "kepler": self._kepler, "node": self._node, "ipmi": self._ipmi}
        self._reader = {**readers, "otel": self._otel}[exporter]
        self._things: dict[tuple[str, ...], Thing] = {}

    async def hear(self) -> Heard:
        """Ask once. Raises HttpError."""
        answers = [series_of(await get(url, self._access, self._timeout_s, BYTES_MAX)) for url in self._urls]
        heard = self._reader(answers)
        if not heard.samples and not heard.counted:
            asked = ", ".join(QUERIES[self._exporter])
            raise HttpError(f"no series of {asked}; does it scrape the {self._exporter} exporter?")
        return heard

    def _thing(self, level: str, name: str, host: str, namespace: str = "", job: str = "") -> Thing:
        """The same object for the same names: thousands of them come each second."""
        key = level, name, host, namespace, job
        thing = self._things.get(key)
        if thing is None:
            if len(self._things) > SERIES_MAX:
                self._things.clear()  # pods come and go
            bare = host.partition(":")[0]
            rack = self._racks.get(host) or self._racks.get(bare, "")
            level_: Level = "card" if level == "card" else "pod" if level == "pod" else "server"
            thing = Thing(level_, shortened(name), shortened(bare), rack, shortened(namespace), shortened(job))
            self._things[key] = thing
        return thing

    def _dcgm(self, answers: Sequence[Sequence[Series]]) -> Heard:
        heard = nothing()
        busy: dict[tuple[str, str], float] = {}
        for one in answers[1]:
            labels = one.metric
            if "GPU_I_ID" not in labels:
                value = _number(one)
                if 0.0 <= value <= 100.0:
                    busy[labels.get("UUID", ""), labels.get("Hostname", "")] = value / 100.0
        newest = max((one.value[0] for one in answers[0]), default=0.0)
        old = wrong = 0
        cards: dict[tuple[str, str], tuple[Mapping[str, str], CutCard]] = {}
        for one in answers[0]:
            labels, watts = one.metric, _number(one)
            if newest - one.value[0] > STALE_S:
                old += 1
                continue
            if not plausible_w(watts):
                wrong += 1
                continue
            host = labels.get("Hostname", "")
            # The exporter's own pod stands in `pod` where the scrape does not honour labels; whose work it is then
            # stands in `exported_pod`.
            exported = "exported_pod" in labels or "exported_namespace" in labels
            pod = labels.get("exported_pod", "") if exported else labels.get("pod", "")
            namespace = labels.get("exported_namespace", "") if exported else labels.get("namespace", "")
            if "dcgm-exporter" in pod:
                pod = namespace = ""
            job = labels.get("hpc_job") or pod
            card = cards.setdefault((host, labels.get("UUID") or labels.get("gpu", "?")), (labels, CutCard()))
            card[1].add(labels, watts, (namespace, job) if job else ("", ""))
        for (host, _), (first, cut) in cards.items():
            name = f"{host} GPU {first.get('gpu', '?')}"
            load = busy.get((first.get("UUID", ""), host)) if "GPU_I_ID" not in first else None
            for (namespace, job), watts in cut.parts():
                heard.samples.append(Sample(self._thing("card", name, host, namespace, job), watts, load))
        if old:
            heard.problems.append(f"{self.host}: {old} series are older than {STALE_S:.0f} s; they are not counted")
        if wrong:
            heard.problems.append(f"{self.host}: {wrong} cards say no power that can be; they are not counted")
        return heard

    def _kepler(self, answers: Sequence[Sequence[Series]]) -> Heard:
        heard = nothing()
        joules: dict[Thing, float] = {}
        unnamed = 0
        for one in [*answers[0], *answers[1]]:
            labels, value = one.metric, _number(one)
            pod = labels.get("pod_name", "")
            if not pod or not math.isfinite(value) or value < 0.0:
                unnamed += 1
                continue
            thing = self._thing("pod", pod, labels.get("node_name", ""), labels.get("pod_namespace", ""), pod)
            joules[thing] = joules.get(thing, 0.0) + value
        heard.counted += [Counted(thing, value) for thing, value in joules.items()]
        if unnamed:
            heard.problems.append(f"{self.host}: {unnamed} series of Kepler without a pod's name; they are not counted")
        return heard

    def _node(self, answers: Sequence[Sequence[Series]]) -> Heard:
        heard = nothing()
        watts: dict[str, float] = {}
        for one in answers[0]:
            value = _number(one)
            if plausible_w(value):
                host = one.metric.get("instance", "")
                watts[host] = max(
                    watts.get(host, 0.0), value
                )  # sensors of one machine overlap; the largest is its inlet
        heard.samples += [Sample(self._thing("server", host, host), value) for host, value in watts.items()]
        return heard

    def _ipmi(self, answers: Sequence[Sequence[Series]]) -> Heard:
        """The exporter of ipmi_exporter's project: DCMI says a server's power, sensors only where there is one."""
        heard = nothing()
        watts = {one.metric.get("instance", ""): _number(one) for one in answers[0]}
        sensors: dict[str, list[Series]] = {}
        for one in answers[1]:
            sensors.setdefault(one.metric.get("instance", ""), []).append(one)
        for host, rows in sensors.items():
            if plausible_w(watts.get(host, math.nan)):
                continue
            if len(rows) == 1:
                watts[host] = _number(rows[0])
                continue
            names = shortened(", ".join(row.metric.get("name", "?") for row in rows))
            heard.problems.append(f"{self.host}: {shortened(host)} has no DCMI power, and {len(rows)} sensors in watts "
                                  f"that may overlap ({names}); it is not counted")  # fmt: skip
        self._servers(watts, heard)
        for one in answers[2]:
            name, value = one.metric.get("name", ""), _number(one)
            if -60.0 <= value <= 200.0:
                what = "inlet_c" if "inlet" in name.lower() or "ambient" in name.lower() else "temp_c"
                host = one.metric.get("instance", "").partition(":")[0]
                heard.readings.append(Reading(what, shortened(f"{host} {name}"), value))
        return heard

    def _otel(self, answers: Sequence[Sequence[Series]]) -> Heard:
        """OpenTelemetry's conventions for hardware as a collector writes them: hw.host.power, hw.power of hosts."""
        heard = nothing()
        watts: dict[str, float] = {}
        whole, parts = answers
        for one in (*(row for row in parts if row.metric.get("hw_type") == "host"), *whole):
            labels = one.metric
            watts[labels.get("host_name") or labels.get("hw_id") or labels.get("instance", "")] = _number(one)
        if not watts and parts:
            raise HttpError(f"{len(parts)} series of hw_power_watts and none of a host; parts are never added up")
        self._servers(watts, heard)
        return heard

    def _servers(self, watts: Mapping[str, float], heard: Heard) -> None:
        for host, value in watts.items():
            if plausible_w(value):
                heard.samples.append(Sample(self._thing("server", host, host), value))
            else:
                heard.problems.append(f"{self.host}: {shortened(host)} says {value:g} W; it is not counted")


def _number(one: Series) -> float:
    """The value of a series, NaN where it is none."""
    try:
        return float(one.value[1])
    except ValueError:
        return math.nan
