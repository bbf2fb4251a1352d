"""An API server of Kubernetes of our own: Jobs and Kueue's Workloads over HTTP, as client and kubectl expect it.

Written after the API's documentation: lists by label, merge and strategic patches, resourceVersion conflicts, dry run,
403 outside the namespaces that the token may see. Beside it a little of the Job controller: a Job that is not
suspended gets a start time and an active pod; one that is suspended loses both.
"""

import itertools
import json
import threading
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PATCHES = ("application/merge-patch+json", "application/strategic-merge-patch+json")
KINDS = {("batch", "v1", "jobs"): "Job", ("kueue.x-k8s.io", "v1beta1", "workloads"): "Workload"}


def merged(kept, patch):
    """RFC 7386: null removes, objects are merged, all else replaces."""
    if not isinstance(patch, dict) or not isinstance(kept, dict):
        return patch
    found = {**kept}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key, {} if isinstance(value, dict) else None), value)
    return found


class ClusterStub:
    """Use as a context manager. objects: (plural, namespace, name) -> object; orders: what was patched, by whom."""

    def __init__(self, *, namespaces=("train",), kueue=True):
        self.namespaces, self.kueue = namespaces, kueue
        self.objects, self.orders, self.down = {}, [], False
        self._versions, self._lock = itertools.count(100), threading.RLock()

    def __enter__(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                stub.answer(self, "GET", None)

            def do_POST(self):
                stub.answer(self, "POST", self.body())

            def do_PATCH(self):
                stub.answer(self, "PATCH", self.body())

            def body(self):
                return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, folder):
        path = folder / "kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": "no-secret"}}],
            "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "tester", "namespace": "train"}}],
        }))  # fmt: skip
        return path

    def add(self, name, *, namespace="train", plural="jobs", labels=None, annotations=None, spec=None, status=None,
            owner=None):  # fmt: skip
        """A new object; gives its uid."""
        group, version, _ = next(one for one in KINDS if one[2] == plural)
        body = {"apiVersion": f"{group}/{version}", "kind": KINDS[group, version, plural],
                "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}},
                "spec": spec or {}, "status": status or {}}  # fmt: skip
        if owner:
            body["metadata"]["ownerReferences"] = [{"kind": "Job", "name": name, "uid": owner}]
        return self.create(plural, namespace, body)["metadata"]["uid"]

    def create(self, plural, namespace, body):
        body["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "generation": 1,
                             "creationTimestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}  # fmt: skip
        body.setdefault("status", {})
        with self._lock:
            self.objects[plural, namespace, body["metadata"]["name"]] = body
            self._controlled(plural, body)
        return body

    def _controlled(self, plural, body):
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        if plural != "jobs" or body["status"].get("conditions"):
            return
        if body["spec"].get("suspend"):
            body["status"] = {}
        elif not body["status"].get("startTime"):
            body["status"] = {"startTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "active": 1}

    def suspended(self, name, namespace="train"):
        return bool(self.objects["jobs", namespace, name]["spec"].get("suspend"))

    def answer(self, request, verb, body):
        if self.down:
            request.close_connection = True
            request.connection.close()
            return
        with self._lock:
            code, answer = self._answer(request, verb, body)
        text = json.dumps(answer).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def _answer(self, request, verb, body):
        parts = urlsplit(request.path)
        asked, path = parse_qs(parts.query), parts.path.strip("/").split("/")
        if found := self._discovery(path):
            return 200, found
        # /apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL[/NAME]
        if len(path) not in (6, 7) or path[0] != "apis" or path[3] != "namespaces":
            return self._status(404, "NotFound", f"the server could not find {request.path}")
        group, version, namespace, plural = path[1], path[2], path[4], path[5]
        kind = KINDS.get((group, version, plural))
        if kind is None or (kind == "Workload" and not self.kueue):
            return self._status(404, "NotFound", "the server could not find the requested resource")
        if namespace not in self.namespaces:
            return self._status(403, "Forbidden", f'{plural}.{group} is forbidden in the namespace "{namespace}"')
        if len(path) == 6 and verb == "POST":
            return 201, self.create(plural, namespace, body)
        if len(path) == 6:
            items = [one for (what, place, _), one in self.objects.items() if (what, place) == (plural, namespace)
                     and self._chosen(one, asked.get("labelSelector", [""])[0])]  # fmt: skip
            return 200, {"kind": f"{kind}List", "apiVersion": f"{group}/{version}", "items": items,
                         "metadata": {"resourceVersion": "1"}}  # fmt: skip
        kept = self.objects.get((plural, namespace, path[6]))
        if kept is None:
            return self._status(404, "NotFound", f'{plural}.{group} "{path[6]}" not found')
        if verb == "GET":
            return 200, kept
        return self._patched(request, asked, plural, kept, body)

    def _patched(self, request, asked, plural, kept, body):
        kind = request.headers["Content-Type"]
        # Custom objects know no strategic merge.
        if kind not in (PATCHES if plural == "jobs" else PATCHES[:1]):
            return self._status(415, "UnsupportedMediaType", f"the body of the request was in {kind}")
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != kept["metadata"]["resourceVersion"]:
            return self._status(409, "Conflict", "the object has been modified; apply your changes to the latest")
        fresh = merged(kept, body)
        if any(not isinstance(value, str) for value in fresh["metadata"].get("annotations", {}).values()):
            return self._status(400, "BadRequest", "an annotation is no string")
        if asked.get("dryRun") != ["All"]:
            place = fresh["metadata"]
            self.objects[plural, place["namespace"], place["name"]] = fresh
            self.orders.append((request.headers.get("User-Agent", "").split("/")[0], place["name"], body))
            self._controlled(plural, fresh)
        return 200, fresh

    @staticmethod
    def _chosen(one, selector):
        labels = one["metadata"].get("labels", {})
        return all(labels.get(part.partition("=")[0]) == part.partition("=")[2] for part in selector.split(",") if part)

    @staticmethod
    def _status(code, reason, message):
        return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
                      "code": code}  # fmt: skip

    @staticmethod
    def _discovery(path):
        batch = {"name": "jobs", "singularName": "job", "namespaced": True, "kind": "Job",
                 "verbs": ["get", "list", "patch", "create"]}  # fmt: skip
        group = {"groupVersion": "batch/v1", "version": "v1"}
        return {
            ("api",): {"kind": "APIVersions", "versions": ["v1"]},
            ("version",): {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
            ("apis",): {"kind": "APIGroupList", "apiVersion": "v1",
                        "groups": [{"name": "batch", "versions": [group], "preferredVersion": group}]},
            ("api", "v1"): {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
            ("apis", "batch", "v1"): {"kind": "APIResourceList", "groupVersion": "batch/v1", "resources": [batch]},
        }.get(tuple(path))  # fmt: skip
