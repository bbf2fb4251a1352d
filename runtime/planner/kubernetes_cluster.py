"""Kubernetes as the adapter needs it: Jobs and Kueue's Workloads read as JSON by the official client, and the orders.

What was changed stands in an annotation of the object itself, so whoever comes next can put it back.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import kubernetes.client
import kubernetes.config
from kubernetes.client import rest

OURS = "tidegate/suspended"  # "true" while it is suspended by us
FIRST = "tidegate/first-suspended"  # UTC seconds at which we first did so; stays, for the cap on waiting
START = "tidegate/start"  # "planned": its owner made it suspended and leaves its start to the plan
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"  # a Job with this label is Kueue's: its Workload is what may be moved
KUEUE = ("kueue.x-k8s.io", "v1beta1", "workloads")
MERGE = "application/merge-patch+json"
ANSWER_S = 20.0
NoAnswer = rest.urllib3.exceptions.HTTPError  # of the client's own transport

Json = dict[str, object]


class ClusterError(Exception):
    """The cluster did not do what it was asked: which call, and what it answered."""


@dataclass(frozen=True)
class ClusterJob:
    """A Job or Workload. Times are UTC seconds, 0 = none. kw and limit_s 0: nobody gives them."""

    kind: str  # Job or Workload
    namespace: str
    name: str
    uid: str
    version: str  # the change that was read last: an order for an older one is refused by the cluster
    suspended: bool
    started: bool  # pods run, or it was admitted
    done: bool
    ours: bool
    first_utc_s: int
    planned: bool
    kw: float
    limit_s: int
    deadline_utc_s: int
    checkpoints: bool
    wrong: str = ""  # what of its annotations is not understood


class Cluster(Protocol):
    """What the adapter asks of a cluster."""

    def jobs(self) -> list[ClusterJob]: ...
    def suspend(self, job: ClusterJob, first_utc_s: int, *, dry_run: bool = False) -> None: ...
    def resume(self, job: ClusterJob, *, dry_run: bool = False) -> None: ...


def _part(row: Json, *path: str) -> Json:
    """A nested object, {} where there is none."""
    for name in path:
        found = row.get(name)
        row = found if isinstance(found, dict) else {}
    return row


def _said(notes: Json) -> tuple[float, int, int, bool, str]:
    """(kW, seconds, deadline, checkpoints, what is wrong) of tidegate/kw, hours, deadline and checkpoints."""
    try:
        kw = float(str(notes.get("tidegate/kw", 0)))
        hours = float(str(notes.get("tidegate/hours", 0)))
        if not (0 <= kw < 1e5 and 0 <= hours < 1e5):
            raise ValueError("a number is out of range")
        deadline = 0
        if text := notes.get("tidegate/deadline"):
            when = datetime.fromisoformat(str(text))
            if when.tzinfo is None:
                raise ValueError(f"{text} has no offset")
            deadline = int(when.astimezone(UTC).timestamp())
        return kw, round(hours * 3600), deadline, notes.get("tidegate/checkpoints") == "true", ""
    except ValueError as why:
        text = f'annotations: {why}; write tidegate/kw: "12", tidegate/hours: "2", tidegate/deadline: 2026-11-29T06:00Z'
        return 0.0, 0, 0, False, text


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def read_object(row: Json, kind: str, owners: dict[str, Json]) -> ClusterJob:
    """One item of a list. owners: uid -> annotations of the Jobs that Workloads may belong to."""
    meta, spec, status = _part(row, "metadata"), _part(row, "spec"), _part(row, "status")
    notes = dict(_part(meta, "annotations"))
    first = str(notes.get(FIRST))
    found = status.get("conditions")
    rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    true = {str(one.get("type")) for one in rows if one.get("status") == "True"}
    if kind == "Job":
        suspended, done = spec.get("suspend") is True, bool(true & {"Complete", "Failed"})
        # startTime is emptied when a Job is suspended; pods that are still ending count as running.
        started = bool(_number(status.get("active")) or (status.get("startTime") and not suspended))
        limit_s = _number(spec.get("activeDeadlineSeconds"))
    else:
        references = meta.get("ownerReferences")
        for one in references if isinstance(references, list) else ():
            notes = {**owners.get(str(one.get("uid")), {}), **notes}
        suspended, done, started = spec.get("active") is False, "Finished" in true, "Admitted" in true
        limit_s = _number(spec.get("maximumExecutionTimeSeconds"))
    kw, said_s, deadline, checkpoints, wrong = _said(notes)
    return ClusterJob(
        kind=kind, namespace=str(meta.get("namespace")), name=str(meta.get("name")), uid=str(meta.get("uid")),
        version=str(meta.get("resourceVersion")), suspended=suspended, started=started, done=done,
        ours=notes.get(OURS) == "true",
        first_utc_s=int(first) if first.isdigit() else 0, planned=notes.get(START) == "planned", kw=kw,
        limit_s=said_s or limit_s, deadline_utc_s=deadline, checkpoints=checkpoints, wrong=wrong,
    )  # fmt: skip


class Kubernetes:
    """A cluster by a kubeconfig, or by the pod's own account where none is given. Only the namespaces are looked at."""

    def __init__(self, namespaces: tuple[str, ...], label: str, *, kubeconfig: str = "", context: str = "") -> None:
        self._namespaces, self._label = namespaces, label
        try:
            if kubeconfig:
                api = kubernetes.config.new_client_from_config(kubeconfig, context=context or None)
            else:
                kubernetes.config.load_incluster_config()
                api = kubernetes.client.ApiClient()
        except (kubernetes.config.ConfigException, OSError) as why:
            raise ClusterError(f"{kubeconfig or 'no --kubeconfig, and this is no pod'}: {why}") from None
        self._batch, self._custom = kubernetes.client.BatchV1Api(api), kubernetes.client.CustomObjectsApi(api)

    def _items(self, text: str, answer: object) -> list[Json]:
        try:
            items = json.loads(answer.data)["items"]  # type: ignore[attr-defined]
            return [one for one in items if isinstance(one, dict)]
        except (ValueError, KeyError, TypeError) as why:
            raise ClusterError(f"{text}: {why!r}") from None

    def jobs(self) -> list[ClusterJob]:
        """Jobs with the label in the allowed namespaces, and Kueue's Workloads where it is installed.

        A Job that Kueue queues is left out: Kueue would set it back at once; its Workload is there instead.
        """
        found = []
        more = {"label_selector": self._label, "_preload_content": False, "_request_timeout": ANSWER_S}
        for place in self._namespaces:
            text = f"jobs of namespace {place}"
            try:
                rows = self._items(text, self._batch.list_namespaced_job(place, **more))
            except (kubernetes.client.ApiException, NoAnswer) as why:
                raise ClusterError(f"{text}: {_short(why)}") from None
            owners = {str(_part(row, "metadata").get("uid")): _part(row, "metadata", "annotations") for row in rows}
            plain = [row for row in rows if KUEUE_QUEUE not in _part(row, "metadata", "labels")]
            found += [read_object(row, "Job", {}) for row in plain]
            if len(plain) < len(rows):
                text = f"workloads of namespace {place}"
                try:
                    group, version, plural = KUEUE
                    answer = self._custom.list_namespaced_custom_object(
                        group, version, place, plural, _preload_content=False, _request_timeout=ANSWER_S
                    )
                except (kubernetes.client.ApiException, NoAnswer) as why:
                    raise ClusterError(f"{text}: {_short(why)}") from None
                for row in self._items(text, answer):
                    references = _part(row, "metadata").get("ownerReferences")
                    if any(one.get("uid") in owners for one in (references if isinstance(references, list) else ())):
                        found.append(read_object(row, "Workload", owners))
        return found

    def suspend(self, job: ClusterJob, first_utc_s: int, *, dry_run: bool = False) -> None:
        """Not to start, or to end its pods. dry_run: the cluster judges it and changes nothing. Raises ClusterError."""
        self._patch(job, {OURS: "true", FIRST: str(first_utc_s)}, True, dry_run)

    def resume(self, job: ClusterJob, *, dry_run: bool = False) -> None:
        """As if we had never been there. Raises ClusterError."""
        self._patch(job, {OURS: None}, False, dry_run)

    def _patch(self, job: ClusterJob, notes: dict[str, str | None], rests: bool, dry_run: bool) -> None:
        spec = {"suspend": rests} if job.kind == "Job" else {"active": not rests}
        # With the version that was read: a change that somebody made meanwhile is not written over (409).
        body = {"metadata": {"resourceVersion": job.version, "annotations": notes}, "spec": spec}
        more = {"_content_type": MERGE, "_preload_content": False, "_request_timeout": ANSWER_S}
        if dry_run:
            more["dry_run"] = "All"
        try:
            if job.kind == "Job":
                self._batch.patch_namespaced_job(job.name, job.namespace, body, **more)
            else:
                group, version, plural = KUEUE
                self._custom.patch_namespaced_custom_object(
                    group, version, job.namespace, plural, job.name, body, **more
                )
        except (kubernetes.client.ApiException, NoAnswer) as why:
            raise ClusterError(f"{job.kind} {job.namespace}/{job.name}: {_short(why)}") from None


def _short(why: Exception) -> str:
    """An answer of the API in a line."""
    if isinstance(why, kubernetes.client.ApiException):
        try:
            return f"{why.status}: {json.loads(why.body)['message']}"[:200]
        except (ValueError, KeyError, TypeError):
            return f"{why.status}: {why.reason}"
    return str(why)[:200]
