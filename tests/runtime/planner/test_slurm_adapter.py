"""The Slurm adapter: what it may move, that nothing of it stays when it or the plan is gone, and a real Slurm."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.runtime.planner import slurm_node
from tidegate.runtime.planner.adapter_audit import adapter_doubts
from tidegate.runtime.planner.announced_jobs import AnnouncedJob, read_jobs, silent_adapters, write_jobs
from tidegate.runtime.planner.slurm_adapter import Allowed, Ours, SlurmAdapter, announced, decide, planned_begins
from tidegate.runtime.planner.slurm_queue import QueuedJob, SlurmError, read_row

NOW = 1_800_000_000
ALLOWED = Allowed(("flex",), lease_s=300.0, margin_s=60.0)
WAITS = QueuedJob(7, "PENDING", "flex", "ada", False, NOW - 60, 0, NOW + 20_000, 3600, 4, 0, 12.0, False)
RUNS = replace(WAITS, job_id=8, state="RUNNING", start_utc_s=NOW - 600, checkpoints=True)


class Scheduler:
    """A queue that does as it is told, or refuses."""

    def __init__(self, *jobs):
        self.jobs = {job.job_id: job for job in jobs}
        self.requeued, self.refuses = [], False

    def queue(self):
        return list(self.jobs.values())

    def begin(self, job_id, utc_s):
        if self.refuses:
            raise SlurmError("scontrol update: Job/step already completing or completed")
        self.jobs[job_id] = replace(self.jobs[job_id], eligible_utc_s=utc_s)

    def requeue(self, job_id):
        self.requeued.append(job_id)


def planned(folder, now=NOW, **begins):
    jobs = [{"name": f"slurm-{job[1:]}", "runs_utc_s": [[begin, begin + 3600]]} for job, begin in begins.items()]
    (folder / "planner.json").write_text(json.dumps({"planned_utc_s": now, "jobs": jobs}))


def test_a_job_waits_for_its_time_by_leases_that_run_out_and_never_beyond_its_deadline(tmp_path):
    scheduler = Scheduler(WAITS)
    adapter = SlurmAdapter(scheduler, tmp_path, ALLOWED)
    latest = WAITS.deadline_utc_s - WAITS.limit_s - 60
    given, now = [], NOW
    while now < latest + 600:
        planned(tmp_path, now, j7=NOW + 10**6)  # a plan that would have it wait for ever
        for action in adapter.round(now):
            if action.kind == "delay":
                given.append(action.utc_s)
                assert now < action.utc_s <= min(now + ALLOWED.lease_s, latest)
        now += 60
    assert given[-1] == latest and scheduler.jobs[7].eligible_utc_s <= latest
    (announced_one,) = read_jobs(tmp_path) or (None,)
    assert announced_one is None or announced_one.deadline_utc_s <= WAITS.deadline_utc_s


def test_at_its_time_it_is_let_go_and_not_touched_again(tmp_path):
    scheduler = Scheduler(WAITS)
    adapter = SlurmAdapter(scheduler, tmp_path, ALLOWED)
    planned(tmp_path, j7=NOW + 1000)
    assert [one.kind for one in adapter.round(NOW)] == ["delay"]
    assert read_jobs(tmp_path)[0] == AnnouncedJob("slurm-7", 12.0, 1.0, NOW, NOW + 20_000 - 60, False, NOW)
    assert adapter.round(NOW + 10) == [], "a lease that is young is not renewed"
    planned(tmp_path, j7=NOW + 100)
    assert [one.kind for one in adapter.round(NOW + 120)] == ["release"]
    assert scheduler.jobs[7].eligible_utc_s <= NOW + 120 and 7 not in adapter.ours.begin
    lines = [json.loads(line) for line in (tmp_path / "slurm-audit.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["became"]) for line in lines] == [("delay", "asked"), ("release", "asked")]


@pytest.mark.parametrize("gone", ["stale", "missing", "broken", "future", "not in it", "end"])
def test_without_a_plan_all_of_ours_is_let_go(gone, tmp_path):
    scheduler = Scheduler(WAITS)
    planned(tmp_path, j7=NOW + 5000)
    SlurmAdapter(scheduler, tmp_path, ALLOWED).round(NOW)
    adapter = SlurmAdapter(scheduler, tmp_path, ALLOWED)  # one that was killed and started again knows what it gave
    if gone == "stale":
        planned(tmp_path, NOW - 2100, j7=NOW + 5000)
    elif gone == "missing":
        (tmp_path / "planner.json").unlink()
    elif gone == "broken":
        (tmp_path / "planner.json").write_text("[1]")
    elif gone == "future":
        planned(tmp_path, NOW + 3600, j7=NOW + 5000)
    elif gone == "not in it":
        planned(tmp_path)
    (action,) = adapter.round(NOW + 10, let_go=gone == "end")
    assert action.kind == "release" and scheduler.jobs[7].eligible_utc_s <= NOW + 10


@pytest.mark.parametrize(
    "change",
    [{"partition": "main"}, {"held": True}, {"deadline_utc_s": 0}, {"limit_s": 0}, {"kw": None}, {"wrong": "comment"},
     {"user": "eve"}, {"state": "COMPLETED"}],
)  # fmt: skip
def test_what_is_not_allowed_is_neither_moved_nor_announced(change):
    allowed = replace(ALLOWED, users=("ada",))
    job = replace(WAITS, **change)
    assert decide([job], {"slurm-7": NOW + 5000}, allowed, Ours(), NOW) == []
    assert announced([job], allowed, Ours(), NOW) == ()
    assert decide([WAITS], {"slurm-7": NOW + 5000}, allowed, Ours(), NOW) != []


def test_a_users_own_begin_time_is_the_earliest_and_is_not_moved_forward():
    job = replace(WAITS, eligible_utc_s=NOW + 4000)
    (one,) = announced([job], ALLOWED, Ours(), NOW)
    assert one.earliest_utc_s == NOW + 4000
    assert decide([job], None, ALLOWED, Ours(), NOW) == []


def test_caps_hold_for_number_and_time(tmp_path):
    queue = [replace(WAITS, job_id=k, kw=float(k)) for k in range(1, 6)]
    begins = {f"slurm-{k}": NOW + 5000 for k in range(1, 6)}
    delayed = decide(queue, begins, replace(ALLOWED, delayed_max=2), Ours(), NOW)
    assert [one.job_id for one in delayed] == [5, 4], "those with the most energy"
    waiting = replace(WAITS, eligible_utc_s=NOW + 200)
    ours = Ours({7: (NOW + 200, NOW - 7200.0)})
    (action,) = decide([waiting], begins | {"slurm-7": NOW + 5000}, replace(ALLOWED, wait_s_max=3600.0), ours, NOW)
    assert action.kind == "release" and "as long as its owner allows" in action.why


def test_only_what_has_checkpoints_and_is_allowed_is_put_back_and_not_again_and_again(tmp_path):
    begins = {"slurm-8": NOW + 5000}
    allowed = replace(ALLOWED, requeue=True)
    assert [one.kind for one in decide([RUNS], begins, allowed, Ours(), NOW)] == ["requeue"]
    for job, rule in ((replace(RUNS, checkpoints=False), allowed), (RUNS, ALLOWED),
                      (replace(RUNS, deadline_utc_s=NOW + 3000), allowed)):  # fmt: skip
        assert decide([job], begins, rule, Ours(), NOW) == []
    assert decide([RUNS], begins, allowed, Ours(requeued={8: NOW - 100.0}), NOW) == []


def test_a_dry_run_writes_down_and_orders_nothing(tmp_path):
    scheduler = Scheduler(WAITS)
    planned(tmp_path, j7=NOW + 5000)
    said = []
    adapter = SlurmAdapter(scheduler, tmp_path, replace(ALLOWED, dry_run=True), note=lambda *words: said.append(words))
    adapter.round(NOW)
    assert scheduler.jobs[7] == WAITS and "dry run" in (tmp_path / "slurm-audit.jsonl").read_text()
    assert said[0][0] == "slurm" and "dry run" in said[0][1]


def test_what_slurm_refuses_is_told_and_not_taken_for_done(tmp_path):
    scheduler = Scheduler(WAITS)
    scheduler.refuses = True
    planned(tmp_path, j7=NOW + 5000)
    adapter = SlurmAdapter(scheduler, tmp_path, ALLOWED)
    adapter.round(NOW)
    assert "already completing" in adapter.error and not adapter.ours.begin
    assert "refused" in (tmp_path / "slurm-audit.jsonl").read_text()
    scheduler.refuses = False
    assert [one.kind for one in adapter.round(NOW + 60)] == ["delay"] and adapter.error == ""


def test_what_is_wrong_in_a_comment_and_what_slurm_refuses_stands_where_the_planner_repeats_it(tmp_path):
    wrong = replace(WAITS, job_id=9, wrong="comment 'kw=-1': write kw=12", kw=None)
    scheduler = Scheduler(WAITS, wrong, replace(wrong, job_id=10, partition="main"))
    adapter = SlurmAdapter(scheduler, tmp_path, ALLOWED)
    adapter.round(NOW)
    said = "slurm: job 9 of ada is not moved: comment 'kw=-1': write kw=12"
    assert adapter_doubts(tmp_path) == [said], "a partition that is not allowed is nobody's business"
    scheduler.refuses = True
    planned(tmp_path, j7=NOW + 9000)
    adapter.round(NOW)
    assert any("already completing" in text for text in adapter_doubts(tmp_path)) and said in adapter_doubts(tmp_path)


def test_jobs_of_people_and_of_the_adapter_stand_beside_each_other(tmp_path):
    write_jobs(tmp_path, (AnnouncedJob("mine", 1.0, 1.0, NOW, NOW + 9000),))
    SlurmAdapter(Scheduler(WAITS), tmp_path, ALLOWED).round(NOW)
    assert [job.name for job in read_jobs(tmp_path)] == ["mine", "slurm-7"] and silent_adapters(tmp_path) == []
    old = time.time() - 1000
    os.utime(tmp_path / "jobs-slurm.json", (old, old))
    assert [job.name for job in read_jobs(tmp_path)] == ["mine"], "a queue of long ago is not what waits now"
    assert "is its adapter running" in silent_adapters(tmp_path)[0]
    SlurmAdapter(Scheduler(WAITS), tmp_path, ALLOWED).round(NOW, let_go=True)
    assert [job.name for job in read_jobs(tmp_path)] == ["mine"] and silent_adapters(tmp_path) == []
    assert planned_begins({"planned_utc_s": NOW, "jobs": []}, NOW, 2000) == {}


@pytest.mark.parametrize(
    ("comment", "kw", "wrong"),
    [("tidegate:kw=12.5,deadline=2026-11-29T06:00Z,checkpoints", 12.5, ""), ("fine tune", None, ""),
     ("x tidegate:kw=5", 5.0, ""), ("tidegate:kw=-1", None, "comment 'kw=-1'"),
     ("tidegate:deadline=2026-11-29T06:00", None, "comment 'deadline"), ("tidegate:fast", None, "comment 'fast'")],
)  # fmt: skip
def test_a_comment_says_power_and_deadline_in_both_forms_of_slurms_numbers(comment, kw, wrong):
    row = {"job_id": 3, "job_state": "PENDING", "partition": "flex", "user_name": "ada", "comment": comment,
           "priority": 4294901759, "eligible_time": NOW, "start_time": 0, "deadline": 0, "time_limit": 90, "cpus": 4,
           "tres_req_str": "cpu=4,mem=1M,node=1,gres/gpu:h100=2"}  # fmt: skip
    later = {key: {"set": True, "infinite": False, "number": value} if isinstance(value, int) else value
             for key, value in row.items()} | {"job_state": ["PENDING"]}  # fmt: skip
    old, new = read_row(row), read_row(later)
    assert old == new and old.kw == kw and old.wrong.startswith(wrong) and bool(old.wrong) == bool(wrong)
    assert (old.limit_s, old.gpus, old.held) == (5400, 2, False)
    assert read_row(row | {"priority": 0}).held and read_row(row | {"time_limit": 4294967295}).limit_s == 0


ADAPTER = """
import sys, time
from pathlib import Path
from tidegate.runtime.planner.slurm_adapter import Allowed, SlurmAdapter
from tidegate.runtime.planner.slurm_queue import Slurm
adapter = SlurmAdapter(Slurm(), Path(sys.argv[1]), Allowed(("flex",), lease_s=5.0, margin_s=5.0))
while True:
    adapter.round()
    print("round", adapter.error, flush=True)
    time.sleep(0.5)
"""


def until(holds, what):
    end = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)


@pytest.mark.skipif(bool(slurm_node.missing()), reason=slurm_node.missing() or "there")
def test_a_real_slurm_delays_what_the_plan_delays_and_keeps_nothing_when_all_is_killed(tmp_path):
    """Ten jobs that the plan would have wait for hours. While the adapter lives none begins; killed, all do."""
    folder = tmp_path / "planner"
    folder.mkdir()
    with slurm_node.SlurmNode(tmp_path / "slurm") as node:
        deadline = datetime.fromtimestamp(int(time.time()) + 7200, UTC).isoformat()
        comment = f"tidegate:kw=10,deadline={deadline}"
        # With a begin time of their own, so that none starts before the adapter looks.
        moved = [node.submit(1, "-t", "1", "--begin=now+20", comment=comment) for _ in range(10)]
        mine = [node.submit(1, "-t", "1", comment=comment, partition="main"), node.submit(1, "-t", "1")]
        begins = {f"j{job}": int(time.time()) + 7000 for job in [*moved, *mine]}
        planned(folder, int(time.time()), **begins)
        with (tmp_path / "adapter.out").open("wb") as out:
            adapter = subprocess.Popen([sys.executable, "-c", ADAPTER, str(folder)], stdout=out, stderr=out,
                                       env={**os.environ, **node.words})  # fmt: skip
            try:
                until(lambda: set(mine) <= set(node.completed()), "jobs that nobody may move run at once")
                audit = folder / "slurm-audit.jsonl"
                until(lambda: audit.exists() and len({json.loads(line)["job_id"] for line in
                      audit.read_text().splitlines()}) == 10, "all ten are delayed")  # fmt: skip
                assert not set(moved) & set(node.completed())
            finally:
                adapter.send_signal(signal.SIGKILL)
                adapter.wait()
        until(lambda: set(moved) <= set(node.completed()), "what a killed adapter delayed begins by itself")
        assert {node.completed()[job]["JobState"] for job in moved} == {"COMPLETED"}
