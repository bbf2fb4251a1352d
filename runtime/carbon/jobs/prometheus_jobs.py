"""Software energy from Prometheus: Kepler's counters, DCGM's counters and powers, with the labels of Kubernetes.

Two forms: the answer of `query_range` (JSON) and text exposition with a time on each line. Counters that fall have been
reset. Kepler's zones overlap; one of them counts, `package`, and nothing is added to `psys`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from tidegate.runtime.carbon.jobs.work import BUCKET_S, JobError, Work

ZONE = "package"
W_MAX = 100_000.0  # of one series; counters of petajoules have been seen
GAP_S = 900.0  # a power is held no longer

# metric -> joules of one unit, whether it is a counter
METRICS: Mapping[str, tuple[float, bool]] = {
    "kepler_pod_cpu_joules_total": (1.0, True),
    "kepler_container_cpu_joules_total": (1.0, True),
    "kepler_container_gpu_joules_total": (1.0, True),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (1e-3, True),
    "DCGM_FI_DEV_POWER_USAGE": (1.0, False),
}
_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)\s+(\d+)$")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')

Series = tuple[dict[str, str], list[tuple[float, float]]]


def read_prometheus(raw: bytes, name: str, nodes: Mapping[str, str] | None = None,
                    tenants: Mapping[str, str] | None = None) -> tuple[list[Work], list[str]]:  # fmt: skip
    """(work of each pod or GPU, readings set aside).

    nodes : host -> load of the account; tenants : namespace -> owner. Raises JobError for what is neither form.
    """
    series = _from_json(raw, name) if raw.lstrip()[:1] == b"{" else _from_text(raw, name)
    energy: dict[tuple[str, str, str], dict[int, float]] = {}
    spans: dict[tuple[str, str, str], tuple[float, float]] = {}
    aside: list[str] = []
    kinds = {labels["__name__"] for labels, _ in series if labels.get("__name__") in METRICS}
    if not kinds:
        raise JobError(f"{name}: none of the metrics {', '.join(METRICS)}")
    for labels, values in series:
        metric = labels.get("__name__", "")
        if metric not in METRICS or labels.get("zone", ZONE) != ZONE:
            continue
        if metric == "DCGM_FI_DEV_POWER_USAGE" and "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" in kinds:
            continue  # the counter says the same, and better
        if metric == "kepler_container_cpu_joules_total" and "kepler_pod_cpu_joules_total" in kinds:
            continue
        key = _who(labels, nodes or {}, tenants or {})
        buckets = energy.setdefault(key, {})
        scale, counts = METRICS[metric]
        for (t0, v0), (t1, v1) in pairwise(values):
            if t1 <= t0:
                aside.append(f"{name}: {metric} of {key[0]}: time does not rise at {t1:g}")
                continue
            joules = (v1 - v0 if v1 >= v0 else v1) * scale if counts else (v0 + v1) / 2.0 * min(t1 - t0, GAP_S)
            if not 0.0 <= joules <= W_MAX * (t1 - t0):
                aside.append(f"{name}: {metric} of {key[0]}: {joules:.3g} J in {t1 - t0:g} s at {t1:g} cannot be")
                continue
            _spread(buckets, t0, t1, joules / 3.6)
            first, last = spans.get(key, (t0, t1))
            spans[key] = (min(first, t0), max(last, t1))
    works = []
    for key, (first, last) in sorted(spans.items()):
        shape = {start: round(milliwh) for start, milliwh in sorted(energy[key].items())}
        job, owner, node = key
        works.append(
            Work(job, int(first), -int(-last), owner, node, 1, sum(shape.values()), shape, {"job": 1000}, name)
        )
    return works, aside


def _spread(buckets: dict[int, float], t0: float, t1: float, milliwh: float) -> None:
    at = t0
    while at < t1:
        start = int(at // BUCKET_S) * BUCKET_S
        until = min(t1, start + BUCKET_S)
        buckets[start] = buckets.get(start, 0.0) + milliwh * (until - at) / (t1 - t0)
        at = until


def _who(labels: Mapping[str, str], nodes: Mapping[str, str], tenants: Mapping[str, str]) -> tuple[str, str, str]:
    """(job, owner, load) of a series. A GPU without a pod is work of its own, so that idle cards are seen."""
    space = _first(labels, "pod_namespace", "exported_namespace", "container_namespace", "namespace")
    pod = _first(labels, "pod_name", "exported_pod", "pod")
    host = _first(labels, "node_name", "Hostname", "node", "instance").partition(":")[0]
    card = labels.get("UUID") or labels.get("gpu", "")
    job = f"{space}/{pod}" if pod else f"{host}/gpu {card}" if card else host
    return job, tenants.get(space, space), nodes.get(host, "")


def _first(labels: Mapping[str, str], *names: str) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _number(text: Any, where: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise JobError(f"{where}: {text!r} is not a number") from None


def _from_json(raw: bytes, name: str) -> list[Series]:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise JobError(f"{name}: not JSON ({error}); fetch it again") from None
    data = document.get("data") or {}
    if document.get("status") != "success" or data.get("resultType") != "matrix":
        reason = document.get("error") or f"resultType {data.get('resultType')!r}"
        raise JobError(f"{name}: not the answer of query_range ({reason})")
    return [
        (dict(row["metric"]), [(float(t), _number(v, name)) for t, v in row.get("values", [])])
        for row in data["result"]
    ]


def _from_text(raw: bytes, name: str) -> list[Series]:
    found: dict[tuple[str, str], Series] = {}
    for number, line in enumerate(_lines(raw, name), 1):
        if not line or line.startswith("#"):
            continue
        got = _LINE.match(line)
        if got is None:
            raise JobError(f"{name}, line {number}: expected METRIC{{LABELS}} VALUE TIME, time in ms")
        metric, labels, value, time_ms = got.groups()
        if metric not in METRICS:
            continue
        known = found.setdefault(
            (metric, labels or ""), ({**dict(_LABEL.findall(labels or "")), "__name__": metric}, [])
        )
        known[1].append((int(time_ms) / 1000.0, _number(value, f"{name}, line {number}")))
    for _, values in found.values():
        values.sort()
    return list(found.values())


def _lines(raw: bytes, name: str) -> Iterable[str]:
    try:
        return raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise JobError(f"{name}: byte {error.start} is not UTF-8") from None
