"""The Kubernetes adapter: what it may move, what it never fights, and that nothing of it stays; client and kubectl."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("kubernetes", reason="the extra kubernetes is not installed")

from tests.runtime.planner.cluster_stub import ClusterStub
from tidegate.runtime.cli.main import main
from tidegate.runtime.planner.adapter_audit import adapter_doubts
from tidegate.runtime.planner.announced_jobs import read_jobs
from tidegate.runtime.planner.kubernetes_adapter import ClusterAllowed, KubernetesAdapter, put_back
from tidegate.runtime.planner.kubernetes_cluster import FIRST, OURS, ClusterError, Kubernetes

NOW = int(time.time())
LABEL = "tidegate=flexible"
LABELS = {"tidegate": "flexible"}


def stamp(utc_s):
    return datetime.fromtimestamp(utc_s, UTC).isoformat()


def notes(deadline=NOW + 40_000, **more):
    return {"tidegate/kw": "12", "tidegate/hours": "1", "tidegate/deadline": stamp(deadline),
            "tidegate/start": "planned", **more}  # fmt: skip


def planned(folder, now=NOW, **begins):
    jobs = [{"name": f"k8s-{uid}", "runs_utc_s": [[begin, begin + 3600]]} for uid, begin in begins.items()]
    (folder / "planner.json").write_text(json.dumps({"planned_utc_s": int(now), "jobs": jobs}))


@pytest.fixture
def stub():
    with ClusterStub() as found:
        yield found


@pytest.fixture
def adapter(stub, tmp_path):
    cluster = Kubernetes(("train",), LABEL, kubeconfig=str(stub.kubeconfig(tmp_path)))
    return KubernetesAdapter(cluster, tmp_path, ClusterAllowed())


def audit(folder):
    return [json.loads(line) for line in (folder / "kubernetes-audit.jsonl").read_text().splitlines()]


def test_a_job_waits_for_its_time_and_begins_then(stub, adapter, tmp_path):
    uid = stub.add("bert", labels=LABELS, annotations=notes(), spec={"suspend": True})
    planned(tmp_path, **{uid: NOW + 7200})
    assert [one.order for one in adapter.round(NOW)] == ["suspend"]
    found = stub.objects["jobs", "train", "bert"]["metadata"]["annotations"]
    assert found[OURS] == "true" and found[FIRST] == str(NOW)
    (job,) = read_jobs(tmp_path)
    assert (job.name, job.power_kw, job.hours) == (f"k8s-{uid}", 12.0, 1.0)
    assert job.deadline_utc_s == NOW + 40_000 - ClusterAllowed().margin_s

    planned(tmp_path, NOW + 900, **{uid: NOW + 7200})
    assert adapter.round(NOW + 900) == []  # one order is enough
    planned(tmp_path, NOW + 7150, **{uid: NOW + 7200})
    assert [one.order for one in adapter.round(NOW + 7150)] == ["resume"]
    assert not stub.suspended("bert")
    assert OURS not in stub.objects["jobs", "train", "bert"]["metadata"]["annotations"]
    assert [row["became"] for row in audit(tmp_path)] == ["asked", "asked"]
    assert adapter.round(NOW + 7160) == []  # it runs: its pods are nobody's to end


@pytest.mark.parametrize(
    ("more", "status", "why"),
    [({}, None, "no plan"), ({}, {"planned_utc_s": NOW - 4000}, "no plan"),
     ({"tidegate/kw": "much"}, {}, "annotations"), ({"tidegate/hours": "0"}, {}, "tidegate/hours"),
     ({"tidegate/deadline": "2026-11-29T06:00"}, {}, "no offset"),
     ({"tidegate/deadline": stamp(NOW + 3900)}, {}, "time has come"), ({FIRST: str(NOW - 90_000)}, {}, "waited")],
)  # fmt: skip
def test_what_should_not_wait_any_more_is_resumed_with_the_reason(stub, adapter, tmp_path, more, status, why):
    uid = stub.add("bert", labels=LABELS, annotations=notes(**{OURS: "true", **more}), spec={"suspend": True})
    if status is not None:
        planned(tmp_path, **{uid: NOW + 7200})
        path = tmp_path / "planner.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | status))
    (made,) = adapter.round(NOW)
    assert made.order == "resume" and why in made.why and not stub.suspended("bert")


def test_what_is_not_ours_is_left_alone(stub, adapter, tmp_path):
    plain = {key: value for key, value in notes().items() if key != "tidegate/start"}
    uids = [
        stub.add("by-hand", labels=LABELS, annotations=plain, spec={"suspend": True}),  # somebody suspended it
        stub.add("runs", labels=LABELS, annotations=notes(**{"tidegate/checkpoints": "true"})),
        stub.add("over", labels=LABELS, annotations=notes(), spec={"suspend": True},
                 status={"conditions": [{"type": "Complete", "status": "True"}]}),
        stub.add("unlabelled", annotations=notes(), spec={"suspend": True}),
    ]  # fmt: skip
    planned(tmp_path, **dict.fromkeys(uids, NOW + 7200))
    assert adapter.round(NOW) == [] and adapter.round(NOW, let_go=True) == []
    assert adapter.error == "" and stub.orders == [] and read_jobs(tmp_path) == ()


def test_a_running_job_is_put_back_only_with_checkpoints_and_where_the_owner_says(stub, adapter, tmp_path):
    kept = stub.add("kept", labels=LABELS, annotations=notes())
    moved = stub.add("moved", labels=LABELS, annotations=notes(**{"tidegate/checkpoints": "true"}))
    planned(tmp_path, **dict.fromkeys((kept, moved), NOW + 7200))
    adapter.allowed = ClusterAllowed(running=True)
    assert [one.job.name for one in adapter.round(NOW)] == ["moved"]
    assert stub.suspended("moved") and not stub.suspended("kept")


def test_kueues_job_is_moved_by_its_workload_and_never_by_suspend(stub, adapter, tmp_path):
    job = stub.add("queued", labels=LABELS | {"kueue.x-k8s.io/queue-name": "gpus"}, annotations=notes(),
                   spec={"suspend": True})  # fmt: skip
    uid = stub.add("job-queued", plural="workloads", owner=job, spec={"active": True})
    other = stub.add("stranger", plural="workloads", owner="no-job-of-ours", spec={"active": True})
    admitted = {"conditions": [{"type": "Admitted", "status": "True"}]}
    runs = stub.add("job-runs", plural="workloads", owner=job, spec={"active": True}, status=admitted)
    planned(tmp_path, **dict.fromkeys((job, uid, other, runs), NOW + 7200))
    assert [one.job.name for one in adapter.round(NOW)] == ["job-queued"]
    assert stub.objects["workloads", "train", "job-queued"]["spec"]["active"] is False
    assert [one.job.name for one in adapter.round(NOW + 5, let_go=True)] == ["job-queued"]
    assert stub.objects["workloads", "train", "job-queued"]["spec"]["active"] is True
    assert {name for _, name, _ in stub.orders} == {"job-queued"} and adapter.error == ""


def test_no_more_wait_than_the_owner_allows_and_a_dry_run_changes_nothing(stub, adapter, tmp_path):
    uids = [stub.add(f"job{i}", labels=LABELS, annotations=notes(), spec={"suspend": True}) for i in range(5)]
    planned(tmp_path, **dict.fromkeys(uids, NOW + 7200))
    adapter.allowed = ClusterAllowed(suspended_max=2, dry_run=True)
    made = adapter.round(NOW)
    assert sorted(one.order for one in made) == ["resume"] * 3 + ["suspend"] * 2
    assert stub.orders == [] and {row["became"] for row in audit(tmp_path)} == {"dry run"}
    adapter.allowed = ClusterAllowed(suspended_max=2)
    adapter.round(NOW)
    assert sum(stub.suspended(f"job{i}") for i in range(5)) == 2


def test_a_cluster_that_does_not_answer_stands_where_the_planner_repeats_it(tmp_path):
    class Gone:
        def jobs(self):
            raise ClusterError("jobs of train: no answer")

    adapter = KubernetesAdapter(Gone(), tmp_path, ClusterAllowed())
    adapter.round(NOW)
    assert adapter_doubts(tmp_path) == ["kubernetes: jobs of train: no answer"]


def test_a_change_that_somebody_made_meanwhile_is_not_written_over(stub, adapter):
    stub.add("bert", labels=LABELS, annotations=notes(), spec={"suspend": True})
    (job,) = adapter.cluster.jobs()
    stub.add("bert", labels=LABELS, annotations=notes(), spec={"suspend": False})
    with pytest.raises(ClusterError, match=r"Job train/bert: 409: the object has been modified"):
        adapter.cluster.suspend(job, NOW)


def test_a_namespace_that_is_forbidden_and_a_cluster_that_is_gone_are_named(stub, tmp_path):
    path = str(stub.kubeconfig(tmp_path))
    with pytest.raises(ClusterError, match="jobs of namespace prod: 403"):
        Kubernetes(("prod",), LABEL, kubeconfig=path).jobs()
    with pytest.raises(ClusterError, match="nowhere"):
        Kubernetes(("prod",), LABEL, kubeconfig=str(tmp_path / "nowhere"))
    adapter = KubernetesAdapter(Kubernetes(("train",), LABEL, kubeconfig=path), tmp_path, ClusterAllowed())
    stub.down = True
    assert adapter.round(NOW) == [] and "jobs of namespace train" in adapter.error


ADAPTER = """
import functools, sys, time
from pathlib import Path
from tidegate.runtime.planner.adapter_guard import Guard
from tidegate.runtime.planner.kubernetes_adapter import ClusterAllowed, KubernetesAdapter, put_back
from tidegate.runtime.planner.kubernetes_cluster import Kubernetes
if __name__ == "__main__":
    folder, silent_s = Path(sys.argv[1]), float(sys.argv[3])
    where = (("train",), "tidegate=flexible")
    guard = Guard(functools.partial(put_back, folder, *where, sys.argv[2], "", False), silent_s)
    adapter = KubernetesAdapter(Kubernetes(*where, kubeconfig=sys.argv[2]), folder, ClusterAllowed())
    adapter.round()
    print("guard", guard.process.pid, flush=True)
    while True:
        time.sleep(0.2)
        if silent_s > 60:
            guard.beat()
"""


def until(holds, what):
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def is_there(pid):
    """Whether a process still runs; one that ended and was not fetched by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("hangs", [False, True])
def test_an_adapter_that_is_killed_or_hangs_leaves_no_job_suspended(stub, tmp_path, hangs):
    uids = [stub.add(f"job{i}", labels=LABELS, annotations=notes(), spec={"suspend": True}) for i in range(3)]
    planned(tmp_path, time.time(), **dict.fromkeys(uids, NOW + 7200))
    script = tmp_path / "run_adapter.py"
    script.write_text(ADAPTER)
    words = [sys.executable, str(script), str(tmp_path), str(stub.kubeconfig(tmp_path)), "3" if hangs else "1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        guard = int(process.stdout.readline().split()[1])
        assert sum(len(body["spec"]) and body["spec"]["suspend"] for _, _, body in stub.orders) == 3
        if not hangs:
            os.kill(guard, signal.SIGTERM)  # meant for the adapter's whole group
            process.kill()
        until(lambda: not any(stub.suspended(f"job{i}") for i in range(3)), "the guard resumes what was left")
        process.kill()
    until(lambda: not is_there(guard), "the guard ends when nothing is left to do")


def test_the_guard_says_what_it_could_not_put_back(stub, tmp_path):
    path = str(stub.kubeconfig(tmp_path))
    stub.add("bert", labels=LABELS, annotations=notes(**{OURS: "true"}), spec={"suspend": True})
    undo = functools.partial(put_back, tmp_path, ("train",), LABEL, path, "", False)
    stub.down = True
    assert "jobs of namespace train" in undo()
    stub.down = False
    assert undo() == "1 jobs were resumed" and undo() == "" and not stub.suspended("bert")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_makes_a_job_sees_it_wait_and_takes_it_back_by_hand(stub, adapter, tmp_path):
    def kubectl(*words):
        words = ["kubectl", "--kubeconfig", str(tmp_path / "kubeconfig"), "--cache-dir", str(tmp_path), *words]
        home = {**os.environ, "HOME": str(tmp_path)}
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    manifest = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": True, "template": {}},
                "metadata": {"name": "bert", "labels": LABELS, "annotations": notes()}}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(manifest))
    kubectl("create", "--validate=false", "-f", str(tmp_path / "job.json"))
    planned(tmp_path, **{stub.objects["jobs", "train", "bert"]["metadata"]["uid"]: NOW + 7200})
    adapter.round(NOW)
    seen = json.loads(kubectl("get", "job", "bert", "-o", "json"))
    assert seen["spec"]["suspend"] is True and seen["metadata"]["annotations"][OURS] == "true"
    kubectl("patch", "job", "bert", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    assert [one.why for one in adapter.round(NOW + 30)] == ["somebody started it: the annotation is taken off"]
    assert adapter.round(NOW + 60) == []
    assert OURS not in json.loads(kubectl("get", "job", "bert", "-o", "json"))["metadata"]["annotations"]


def test_the_command_resumes_what_an_adapter_left_and_names_a_cluster_that_is_not_there(stub, tmp_path):
    stub.add("bert", labels=LABELS, annotations=notes(**{OURS: "true"}), spec={"suspend": True})
    words = ["planner", "kubernetes", "--endpoint", f"ipc://{tmp_path}/none", "--folder", str(tmp_path),
             "--namespace", "train", "--let-go", "--kubeconfig"]  # fmt: skip
    done = CliRunner().invoke(main, [*words, str(stub.kubeconfig(tmp_path))])
    assert done.exit_code == 0 and "resumed Job train/bert" in done.output and not stub.suspended("bert")
    stub.down = True
    done = CliRunner().invoke(main, [*words, str(tmp_path / "kubeconfig")])
    assert done.exit_code != 0 and "jobs of namespace train" in done.output
