"""Software energy from Prometheus: Kepler's counters, DCGM's counters and powers, Scaphandre's powers, by pod or card.

Two forms: the answer of `query_range` (JSON) and text exposition with a time on each line. Counters that fall have been
reset. Kepler's zones overlap; one of them counts, `package`, and nothing is added to `psys`. DCGM says the energy of a
whole card on the line of each of its slices and pods, so a card is counted once and split; `gpu_cards` says how.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tidegate.runtime.carbon.jobs.gpu_cards import Cards, is_card
from tidegate.runtime.carbon.jobs.work import BUCKET_S, LATEST_UTC_S, LONGEST_S, JobError, Work
from tidegate.runtime.carbon.tables import fields_of, json_of, list_of, refusing, text_of

ZONE = "package"
W_MAX = 100_000.0  # of one series; counters of petajoules have been seen
GAP_S = 900.0  # a power is held no longer
MS_LEAST = 100_000_000_000  # a time in ms is above, one in s below

# metric -> joules of one unit, whether it is a counter
METRICS: Mapping[str, tuple[float, bool]] = {
    "kepler_pod_cpu_joules_total": (1.0, True),
    "kepler_container_cpu_joules_total": (1.0, True),
    "kepler_container_gpu_joules_total": (1.0, True),
    # Kepler up to 0.7
    "kepler_container_joules_total": (1.0, True),
    "kepler_container_package_joules_total": (1.0, True),
    "kepler_container_dram_joules_total": (1.0, True),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (1e-3, True),
    "DCGM_FI_DEV_POWER_USAGE": (1.0, False),
    "scaph_process_power_consumption_microwatts": (1e-6, False),
}
# Where the first of a pair is there, the second says the same again.
INSTEAD = (
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_USAGE"),
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "kepler_container_gpu_joules_total"),
    ("DCGM_FI_DEV_POWER_USAGE", "kepler_container_gpu_joules_total"),
    ("kepler_pod_cpu_joules_total", "kepler_container_cpu_joules_total"),
    ("kepler_container_joules_total", "kepler_container_package_joules_total"),
    ("kepler_container_joules_total", "kepler_container_dram_joules_total"),
    ("kepler_container_joules_total", "kepler_container_gpu_joules_total"),
)
_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)\s+(\d{1,18})$")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_EXPORTER = re.compile(r"dcgm-?exporter|(?:^|-)kepler(?:-|$)|scaphandre")

Key = tuple[str, str, str]  # job, owner, load
Series = tuple[dict[str, str], list[tuple[float, float]]]


@refusing(JobError)
def read_prometheus(raw: bytes, name: str, nodes: Mapping[str, str] | None = None,
                    tenants: Mapping[str, str] | None = None) -> tuple[list[Work], list[str]]:  # fmt: skip
    """(work of each pod, and of what no pod held of each GPU; readings set aside).

    nodes : host -> load of the account; tenants : namespace -> owner. Raises JobError for what is neither form.
    """
    series = _from_json(raw, name) if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else _from_text(raw, name)
    kinds = {labels["__name__"] for labels, _ in series if labels.get("__name__") in METRICS}
    if not kinds:
        raise JobError(f"{name}: none of the metrics {', '.join(METRICS)}")
    aside: list[str] = []
    dropped = {second for first, second in INSTEAD if first in kinds and second in kinds}
    counted = [one for one in series if one[0].get("__name__") in kinds - dropped]
    counted = _one_zone(counted, name)
    foreign = any(labels.get("exported_pod") for labels, _ in counted)  # then `pod` is the exporter's own
    energy: dict[Key, dict[int, float]] = {}
    spans: dict[Key, tuple[float, float]] = {}
    cards = Cards()
    for labels, values in counted:
        metric = labels["__name__"]
        key, pod = _who(labels, nodes or {}, tenants or {}, foreign)
        scale, counts = METRICS[metric]
        steps = list(_steps(values, scale, counts, f"{name}: {metric} of {key[0]}", aside))
        if is_card(labels):
            cards.add(labels, key, bool(pod), steps)
            continue
        _take(energy, spans, key, steps)
    unclaimed: set[Key] = set()
    for key, claimed, steps in cards.split():
        if not claimed:
            unclaimed.add(key)
        _take(energy, spans, key, steps)
    works = []
    for key, (first, last) in sorted(spans.items()):
        shape = {start: round(milliwh) for start, milliwh in sorted(energy[key].items())}
        job, owner, node = key
        claimed = key not in unclaimed
        works.append(
            Work(
                job, int(first), -int(-last), owner if claimed else "", node, 1, sum(shape.values()), shape,
                {"job": 1000} if claimed else {}, name, 0, claimed,
            )
        )  # fmt: skip
    if not works and not aside:
        aside.append(f"{name}: no series has two values, so no energy can be told; ask for a longer range")
    return works, aside


def _steps(
    values: Sequence[tuple[float, float]], scale: float, counts: bool, where: str, aside: list[str]
) -> Iterable[tuple[float, float, float]]:
    """(start, end, mWh) of each pair of neighbouring values; what cannot be is set aside."""
    for (t0, v0), (t1, v1) in pairwise(values):
        if not (t0 >= 0.0 and t1 <= LATEST_UTC_S):
            aside.append(f"{where}: {t0:.10g} s or {t1:.10g} s since 1970 is no time, or after the year 2100")
            continue
        if t1 <= t0:
            aside.append(f"{where}: time does not rise at {t1:g}")
            continue
        if t1 - t0 > LONGEST_S:
            aside.append(f"{where}: nothing for {(t1 - t0) / 86_400:.0f} days before {t1:.10g}; that is not spread")
            continue
        joules = (v1 - v0 if v1 >= v0 else v1) * scale if counts else (v0 + v1) / 2.0 * min(t1 - t0, GAP_S) * scale
        if not 0.0 <= joules <= W_MAX * (t1 - t0):
            aside.append(f"{where}: {joules:.3g} J in {t1 - t0:g} s at {t1:g} cannot be")
            continue
        yield t0, t1, joules / 3.6


def _take(
    energy: dict[Key, dict[int, float]], spans: dict[Key, tuple[float, float]], key: Key,
    steps: Iterable[tuple[float, float, float]],
) -> None:  # fmt: skip
    for t0, t1, milliwh in steps:
        _spread(energy.setdefault(key, {}), t0, t1, milliwh)
        first, last = spans.get(key, (t0, t1))
        spans[key] = (min(first, t0), max(last, t1))


def _spread(buckets: dict[int, float], t0: float, t1: float, milliwh: float) -> None:
    at = t0
    while at < t1:
        start = int(at // BUCKET_S) * BUCKET_S
        until = min(t1, start + BUCKET_S)
        buckets[start] = buckets.get(start, 0.0) + milliwh * (until - at) / (t1 - t0)
        at = until


def _one_zone(series: Sequence[Series], name: str) -> list[Series]:
    """Without the series of Kepler's other zones. Sockets may be zones of their own: package-0, package-1."""
    zones = {labels["zone"] for labels, _ in series if "zone" in labels}
    wanted = {ZONE} & zones or {zone for zone in zones if re.fullmatch(rf"{ZONE}[-_]?\d+", zone)}
    if zones and not wanted:
        raise JobError(
            f"{name}: the zones are {', '.join(sorted(zones))[:200]}; only {ZONE} is counted, because zones overlap: "
            f"enable it in Kepler, or relabel the zone that holds the whole processor to {ZONE}"
        )
    return [one for one in series if one[0].get("zone", "") in ("", *wanted)]


def _who(
    labels: Mapping[str, str], nodes: Mapping[str, str], tenants: Mapping[str, str], foreign: bool
) -> tuple[Key, str]:
    """((job, owner, load), pod) of a series. foreign : the labels pod and namespace are those of the exporter."""
    space = _first(labels, "pod_namespace", "kubernetes_pod_namespace", "exported_namespace", "container_namespace")
    pod = _first(labels, "pod_name", "kubernetes_pod_name", "exported_pod")
    own = labels.get("pod", "")
    if not pod and not foreign and not _EXPORTER.search(own) and not _EXPORTER.search(labels.get("container", "")):
        pod, space = own, space or labels.get("namespace", "")
    host = _first(labels, "node_name", "kubernetes_node_name", "node", "Hostname", "exported_instance", "instance")
    if labels.get("Hostname") and not _EXPORTER.search(labels["Hostname"]):
        host = labels["Hostname"]
    host = host.partition(":")[0]
    rest = f"{host}/{labels['exe']}" if labels.get("exe") else host
    job = f"{space}/{pod}" if pod else rest
    return (job, tenants.get(space, space) if pod else "", nodes.get(host, "")), pod


def _first(labels: Mapping[str, str], *names: str) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _number(text: object, where: str) -> float:
    try:
        return float(str(text))
    except (TypeError, ValueError):
        raise JobError(f"{where}: {str(text)[:60]!r} is not a number") from None


def _from_json(raw: bytes, name: str) -> list[Series]:
    document = fields_of(json_of(raw, name, JobError), name, JobError)
    data = fields_of(document.get("data") or {}, f"{name}, data", JobError)
    if document.get("status") != "success" or data.get("resultType") != "matrix":
        reason = document.get("error") or f"resultType {data.get('resultType')!r}"
        raise JobError(f"{name}: not the answer of query_range ({reason!s:.200})")
    found = []
    for number, row in enumerate(list_of(data.get("result"), f"{name}, result", JobError)):
        where = f"{name}, result {number}"
        own = fields_of(row, where, JobError)
        labels = {str(k): str(v) for k, v in fields_of(own.get("metric"), f"{where}, metric", JobError).items()}
        pairs = list_of(own.get("values") or [], f"{where}, values", JobError)
        found.append((labels, [_pair(pair, f"{where}, value {at}") for at, pair in enumerate(pairs)]))
    return found


def _pair(pair: object, where: str) -> tuple[float, float]:
    both = list_of(pair, where, JobError)
    if len(both) != 2:
        raise JobError(f"{where}: {str(both)[:60]!r}; expected a time and a value")
    at = _number(both[0], where)
    if at > MS_LEAST:
        raise JobError(f"{where}: the time {at:.0f} is in milliseconds; query_range gives seconds")
    return at, _number(both[1], where)


def _from_text(raw: bytes, name: str) -> list[Series]:
    found: dict[tuple[str, str], Series] = {}
    for number, line in enumerate(text_of(raw, name, JobError).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        got = _LINE.match(line)
        if got is None:
            raise JobError(f"{name}, line {number}: expected METRIC{{LABELS}} VALUE TIME, time in ms")
        metric, labels, value, time_ms = got.groups()
        if metric not in METRICS:
            continue
        if int(time_ms) < MS_LEAST:
            raise JobError(f"{name}, line {number}: the time {time_ms} is not in milliseconds; expositions have ms")
        pairs = {key: _ESCAPE.sub(_unescaped, text) for key, text in _LABEL.findall(labels or "")}
        known = found.setdefault((metric, labels or ""), ({**pairs, "__name__": metric}, []))
        known[1].append((int(time_ms) / 1000.0, _number(value, f"{name}, line {number}")))
    for _, values in found.values():
        values.sort()
    return list(found.values())


def _unescaped(match: "re.Match[str]") -> str:
    return {"n": "\n"}.get(match[1], match[1])
