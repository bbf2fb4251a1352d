"""Job records over the ZeroMQ API: through the real gateway on ipc into the sidecar's ledger and the report."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.carbon.factors.series import Factors
from tidegate.runtime.carbon.jobs import pushed as pushing
from tidegate.runtime.carbon.jobs.pushed import Pushed, works_of
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.sidecar.service import Sidecar
from tidegate.runtime.gateway import api_pages

DAY = 1_709_251_200  # 2024-03-01
PAGE = Path("docs/api.md").read_text(encoding="utf-8")


def job(name, start, end, **more):
    return {"job": name, "start_utc_s": DAY + start, "end_utc_s": DAY + end, **more}


def records(seconds, start=0, step=2):
    """Meter records of a site that draws 36 kW, all of it IT by difference."""
    for seq in range(start // step, seconds // step + 1):
        t_ns = seq * step * 10**9
        points = {"grid.import_wh": [seq * step * 10.0, 1], "soc": [None, 0]}
        yield {"v": 1, "kind": "meter", "site": "s", "boot": "a" * 32, "seq": seq, "cycle": seq, "t_ns": t_ns,
               "utc_ns": DAY * 10**9 + t_ns, "utc_sync": "S", "program": "0" * 64, "points": points}  # fmt: skip


DESCRIBE = {"site": {"name": "s"}, "points": [{"name": "grid.import_wh"}],
            "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh"}]}  # fmt: skip


@pytest.fixture
def sidecar(tmp_path):
    return Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), Factors(None, 200_000_000, "test"))


def test_a_pushed_job_reaches_the_ledger_and_the_report(gateway, sidecar):
    ledger = sidecar.ledger
    with gateway.client(timeout_s=20) as site:
        answer = site.jobs(
            job("train-7", 3600, 7200, owner="physics", slots=8, units={"gpu_hour": 8, "token": 1.25e6}),
            job("serve", 7200, 10_800, energy_j=36e6, units={"request": 300}),
        )
        msgspec.convert(answer, type=api_pages.Reply)
        assert (answer["status"], answer["accepted"]) == ("applied", 2) and "refused" not in answer
        mine = Pushed(ledger)
        assert mine.pull(site) == 2 and mine.pull(site) == 0
        sidecar.take(records(86_400 + 3600))
        sidecar.commit()
        assert mine.settle(sidecar.closed_until_utc_s) == 1
        assert mine.settle(sidecar.closed_until_utc_s) == 0
    compute = gather(ledger, DAY, DAY + 86_400)[0]["compute"]
    assert (compute["jobs"], compute["jobs_milliwh"]) == (2, 72_000_000) and compute["idle_milliwh"] == 22 * 36_000_000
    assert {name: unit["amount_milli"] for name, unit in compute["units"].items()} == {
        "gpu_hour": 8000, "request": 300_000, "token": 1_250_000_000}  # fmt: skip
    assert compute["owners"]["physics"]["energy_milliwh"] == 36_000_000
    assert verify(ledger) == []


def test_the_sidecar_s_own_process_takes_pushed_jobs_in(core, start_gateway, tmp_path):
    core.describe["nodes"] = [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": None}]
    core.step()
    core.beat()
    gateway = start_gateway()
    state = tmp_path / "carbon"
    words = [sys.executable, "-m", "tidegate.runtime.carbon", "--endpoint", gateway.endpoint, "--state-dir", str(state),
             "--pause-s", "0.1"]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert '"ready"' in process.stdout.readline()
        with gateway.client(timeout_s=20) as site:
            site.jobs(job("a", 0, 60))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if list(Ledger(state / "carbon" / "ledger.db", read_only=True).entries("work")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        ended = json.loads(process.stdout.readline())
        assert (ended["carbon"], ended["jobs"]) == ("ended", 1) and process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_records_that_cannot_be_are_refused_by_name_and_the_others_kept(gateway, sidecar):
    now = int(time.time())
    with gateway.client(timeout_s=20) as site:
        answer = site.jobs(
            job("good", 0, 60), job("backwards", 60, 0), job("empty", 60, 60),
            {"job": "unset clock", "start_utc_s": 60, "end_utc_s": 120},
            {"job": "next year", "start_utc_s": now, "end_utc_s": now + 90 * 86_400},
            job("elsewhere", 0, 60, node="mars"),
        )  # fmt: skip
        assert answer["accepted"] == 1
        assert [text.split(":")[0] for text in answer["refused"]] == [
            "jobs[1], backwards", "jobs[2], empty", "jobs[3], unset clock", "jobs[4], next year",
            "jobs[5], elsewhere"]  # fmt: skip
        for text, words in zip(answer["refused"], ("ends 60 s before it starts", "lasts 0 s", "clock was not set",
                                                   "push a job after its end", "known: it"), strict=True):  # fmt: skip
            assert words in text
        with pytest.raises(clients.ClientError, match=r"jobs\[0\], lost: ends 5 s before") as refused:
            site.jobs(job("lost", 5, 0))
        assert refused.value.code == "invalid-field"
        for fields, words in (({"slots": 0}, r"\$.jobs\[0\].slots"), ({"units": {"token": -1}}, r"\$.jobs\[0\].units"),
                              ({"tokens": 5}, "tokens"), ({"energy_j": -1.0}, "energy_j")):  # fmt: skip
            with pytest.raises(clients.ClientError, match=words):
                site.jobs(job("x", 0, 60, **fields))
        mine = Pushed(sidecar.ledger)
        assert mine.pull(site) == 1
    (work,), aside = works_of(sidecar.ledger, DAY, DAY + 86_400)
    assert work.id == "good" and not aside


def test_a_reader_may_not_push(core, start_gateway):
    core.step()
    core.beat()
    gateway = start_gateway()
    gateway.gateway.peers.local = lambda address: gateway.gateway.peers.keyed("reader", "read")
    with gateway.client(timeout_s=20) as site, pytest.raises(clients.ClientError) as refused:
        site.jobs(job("a", 0, 60))
    assert refused.value.code == "not-allowed"


def test_the_same_push_asked_twice_is_journaled_once_also_without_a_core(core, start_gateway, sidecar):
    core.step()  # and no more: the core stands still
    gateway = start_gateway()
    with gateway.client(timeout_s=20) as site:
        first = site.ask("jobs", id="push-1", jobs=[job("a", 0, 60)])
        again = site.ask("jobs", id="push-1", jobs=[job("a", 0, 60)])
        assert first["accepted"] == again["accepted"] == 1
        assert Pushed(sidecar.ledger).pull(site) == 1


def test_pushed_jobs_outlive_a_restart_of_the_gateway_and_of_the_sidecar(core, start_gateway, sidecar):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client(timeout_s=20) as site:
        site.jobs(job("a", 0, 60))
        assert Pushed(sidecar.ledger).pull(site) == 1
        site.jobs(job("b", 0, 60))
    first.close()
    second = start_gateway()
    with second.client(timeout_s=20) as site:
        site.jobs(job("c", 0, 60))
        assert Pushed(sidecar.ledger).pull(site) == 2  # one that knows only what the ledger says
    works, _ = works_of(sidecar.ledger, DAY, DAY + 86_400)
    assert [work.id for work in works] == ["a", "b", "c"]


def test_a_disk_that_fails_is_said_at_once(core, gateway, monkeypatch):
    recorder = gateway.gateway.journal

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder.journals["meter"], "sync", full)
    until = time.monotonic() + 30
    while not recorder.error and time.monotonic() < until:
        core.meter()
        time.sleep(0.01)
    with gateway.client(timeout_s=20) as site, pytest.raises(clients.ClientError) as refused:
        site.jobs(job("a", 0, 60))
    assert refused.value.code == "unavailable" and "No space left" in refused.value.text
    monkeypatch.undo()


def test_a_newer_record_of_a_job_replaces_and_a_late_one_settles_its_day_again(gateway, sidecar):
    ledger = sidecar.ledger
    with gateway.client(timeout_s=20) as site:
        mine = Pushed(ledger)
        site.jobs(job("a", 0, 3600, owner="x"), job("b", 1800, 3600))
        site.jobs(job("a", 0, 7200, owner="y"), job("b", 1900, 5000))
        mine.pull(site)
        sidecar.take(records(86_400 + 3600))
        sidecar.commit()
        assert mine.settle(sidecar.closed_until_utc_s) == 1
        compute = gather(ledger, DAY, DAY + 86_400)[0]["compute"]
        assert list(compute["owners"]) == ["", "y"] and compute["set_aside_count"] == 1
        assert "overlaps with the same job" in compute["set_aside"][0] and "pushed by" in compute["set_aside"][0]
        site.jobs(job("late", 80_000, 86_000))
        mine.pull(site)
        assert mine.settle(sidecar.closed_until_utc_s) == 0  # at most once an hour
        sidecar.take(records(86_400 + 7200, start=86_400 + 3602))
        sidecar.commit()
        assert mine.settle(sidecar.closed_until_utc_s) == 1
    assert gather(ledger, DAY, DAY + 86_400)[0]["compute"]["jobs"] == 3
    assert len(list(ledger.entries("job"))) == 2


def test_days_without_a_job_are_settled_too_once_there_was_a_first(sidecar, monkeypatch):
    class One:
        def replay(self, stream, boot, seq, count):
            assert stream == "job"
            if seq >= 0:
                return [], True
            return [{"boot": "b" * 32, "seq": 0, "peer": "p", "jobs": [job("a", 0, 60)]}], True

    mine = Pushed(sidecar.ledger)
    assert mine.pull(One()) == 1
    calls = []
    monkeypatch.setattr(pushing, "settle", lambda *a: calls.append(a[3]) or 1)
    assert mine.settle(DAY + 86_400 + pushing.LATE_S - 1) == 0
    assert mine.settle(DAY + 3 * 86_400 + pushing.LATE_S) == 3
    assert calls == [DAY, DAY + 86_400, DAY + 2 * 86_400]


def test_the_example_of_the_page_pushes_its_job(gateway, monkeypatch, sidecar):
    example = re.search(r"```python\n([^`]*site\.jobs\([^`]*)```", PAGE)
    assert example is not None
    monkeypatch.setenv("TIDEGATE_ENDPOINT", gateway.endpoint)
    exec(compile(example.group(1), "docs/api.md", "exec"), {})
    with gateway.client(timeout_s=20) as site:
        assert Pushed(sidecar.ledger).pull(site) == 1
