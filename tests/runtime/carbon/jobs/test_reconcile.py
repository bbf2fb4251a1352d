"""What telemetry saw is settled; a day settled anew by the scheduler's own log agrees, or says where it does not."""

import sqlite3

import pytest

from tests.runtime.carbon.jobs.test_jobs import DAY, bodies, by_job
from tidegate.runtime.carbon.jobs.pushed import SEEN, Pushed, joined, unseen
from tidegate.runtime.carbon.jobs.reconcile import reconciled
from tidegate.runtime.carbon.jobs.settle import DAY_S, settle, settled
from tidegate.runtime.carbon.jobs.work import Work
from tidegate.runtime.carbon.ledger.bodies import settlement_error
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.live.live_telemetry import UNCLAIMED, LiveTelemetry
from tidegate.runtime.telemetry.energy_store import BUCKET_S, FILE, EnergyStore, Row

SLURM = {"name": "sacct.txt", "sha256": "0" * 64}


def row(bucket, job, milliwh, *, level="card", namespace="ml", node="it"):
    owner = namespace if job else ""
    return Row(DAY + bucket * BUCKET_S, "gpus", node, level, f"card of {job}", "n1", "A01", owner, job, milliwh,
               0 if job else milliwh, 0, BUCKET_S)  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "ledger.db")
    made.begin("s")
    made.append([("method", 0, {"kinds": {"it": "it"}})])
    made.append([("period", body["start_utc_s"], body) for body in bodies()])
    return made


@pytest.fixture
def store(tmp_path):
    one = EnergyStore(tmp_path / FILE)
    yield one
    one.close()


def newest(ledger):
    return [entry.body for entry in ledger.in_force("job", DAY, DAY + DAY_S)][-1]


def test_pods_of_telemetry_are_booked_when_their_day_is_over(ledger, store, tmp_path):
    """All day: a draws 3 of 4, b 1 of 4 while it is there; nobody's card in the last half of the day is idle."""
    rows = [row(b, "a", 300_000) for b in range(144)] + [row(b, "b", 100_000) for b in range(144)]
    store.put([*rows, *(row(b, "", 400_000) for b in range(144, 288))], [], [])
    pushed, seen = Pushed(ledger), LiveTelemetry(tmp_path, ["it"])
    assert pushed.settle(DAY + DAY_S, seen) == 0, "an hour is waited for what comes late"
    assert pushed.settle(DAY + DAY_S + 3600, seen) == 1
    body = newest(ledger)
    assert body["sources"] == [SEEN] and settlement_error(body) is None
    jobs = by_job(body)
    assert set(jobs) == {"a", "b"} and jobs["a"][1] == "ml"
    assert (jobs["a"][5], jobs["b"][5]) == (48 * 6_750_000, 48 * 2_250_000)
    assert body["nodes"]["it"]["idle_milliwh"] == 48 * 9_000_000 and not body["set_aside"]
    assert pushed.settle(DAY + DAY_S + 2 * 3600, seen) == 0, "once"


def test_hours_in_which_telemetry_saw_nothing_are_named(ledger, store, tmp_path):
    store.put([row(b, "a", 300_000) for b in range(144)], [], [])
    assert Pushed(ledger).settle(DAY + DAY_S + 3600, LiveTelemetry(tmp_path, ["it"])) == 1
    (text,) = newest(ledger)["set_aside"]
    assert "it: nothing was seen for 12.00 h" in text and "under idle" in text
    whole = [Work("a", DAY, DAY + DAY_S, node="it", shape=dict.fromkeys(range(DAY, DAY + DAY_S, 300), 1))]
    assert unseen(whole, DAY, {"it"}) == []
    (other,) = unseen(whole, DAY, {"it", "it2"})
    assert other.startswith("telemetry: it2: nothing was seen for 24.00 h"), "a load that it never saw"


def test_a_day_on_which_telemetry_saw_nothing_at_all_is_no_quiet_day(ledger, store, tmp_path):
    store.put([row(b - 288, "a", 300_000) for b in range(288)], [], [])  # the day before
    assert Pushed(ledger).settle(DAY + DAY_S + 3600, LiveTelemetry(tmp_path, ["it"])) == 1
    body = newest(ledger)
    assert body["nodes"]["it"]["idle_milliwh"] == 96 * 9_000_000
    assert "it: nothing was seen for 24.00 h" in body["set_aside"][0]


def test_a_store_that_cannot_be_read_books_nothing_as_idle_and_is_tried_again(ledger, store, tmp_path, monkeypatch):
    store.put([row(b, "a", 300_000) for b in range(288)], [], [])
    pushed, seen = Pushed(ledger), LiveTelemetry(tmp_path, ["it"])
    assert seen.first_day() == DAY

    def broken(*_):
        raise sqlite3.DatabaseError("disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(EnergyStore, "sums", broken)
        assert pushed.settle(DAY + DAY_S + 3600, seen) == 0 and "malformed" in seen.trouble
    assert not list(ledger.in_force("job", DAY, DAY + DAY_S))
    assert pushed.settle(DAY + DAY_S + 3 * 3600, seen) == 1


def test_pushed_jobs_count_on_their_loads_and_what_telemetry_has_there_is_named():
    claims = [Work("p", DAY, DAY + 300, node="it1", measured_milliwh=5_000_000),
              Work("q", DAY, DAY + 300, node="it2", measured_milliwh=1_000_000)]  # fmt: skip
    jobs = [Work("j", DAY, DAY + 300, node="it1")]
    works, aside = joined(jobs, claims)
    assert [work.id for work in works] == ["j", "q"] and "1 pods and jobs with 5.000 kWh on it1" in aside[0]
    assert joined([], claims) == (claims, [])
    works, aside = joined([Work("j", DAY, DAY + 300)], claims)
    assert [work.id for work in works] == ["j"] and "6.000 kWh" in aside[0], "a job of no load may run on any"


def test_the_name_for_nobody_is_never_a_job(store, tmp_path):
    store.put([row(0, "", 7), row(0, "a", 7)], [], [])
    claims = LiveTelemetry(tmp_path, ["it"]).claims_between(DAY, DAY + DAY_S)
    assert {work.id: work.claimed for work in claims} == {UNCLAIMED: False, "a": True}


def test_a_log_that_agrees_says_so_and_one_that_does_not_names_the_difference(ledger):
    seen = [Work("a", DAY, DAY + DAY_S, node="it", measured_milliwh=960_000), Work("b", DAY, DAY + DAY_S, node="it",
            measured_milliwh=480_000)]  # fmt: skip
    settle(ledger, seen, [], DAY, DAY + DAY_S, [SEEN])
    assert "reconciled" not in newest(ledger)
    settle(ledger, [*seen], [], DAY, DAY + DAY_S, [SLURM])
    assert newest(ledger)["reconciled"] == ["sacct.txt agrees with telemetry"]
    log = [Work("a", DAY, DAY + DAY_S // 2, node="it"), Work("c", DAY, DAY + DAY_S // 2, node="it")]
    settle(ledger, log, [], DAY, DAY + DAY_S, [{**SLURM, "name": "later.txt"}])
    said = newest(ledger)["reconciled"]
    assert said[0] == "it: idle 432.000 kWh by later.txt, 0.000 kWh by sacct.txt"
    assert "1 jobs with 288.000 kWh are in sacct.txt and not in later.txt: b" in said
    assert "1 jobs with 216.000 kWh are in later.txt and not in sacct.txt: c" in said
    assert "job a: 216.000 kWh by later.txt, 576.000 kWh by sacct.txt" in said
    settle(ledger, log, [], DAY, DAY + DAY_S, [{**SLURM, "name": "later.txt"}])
    assert "reconciled" not in newest(ledger), "the same log once more is no other account"


def test_a_correction_of_the_meter_and_a_load_that_came_are_named():
    before = settled(bodies(), [], [], ["it"], [SEEN])
    now = settled(bodies(8_000_000, ("it", "it2")), [], [], ["it", "it2"], [SLURM])
    said = reconciled(before, settled(bodies(8_000_000), [], [], ["it"], [SLURM]))
    assert any("metered 768.000 kWh, before 864.000 kWh: it was corrected" in text for text in said)
    assert any(text.endswith("settled in sacct.txt only") for text in reconciled(before, now))
