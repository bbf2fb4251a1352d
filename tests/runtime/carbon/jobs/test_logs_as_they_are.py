"""Job logs as Prometheus, DCGM, Kepler, Scaphandre, CodeCarbon and Slurm really write them."""

import json

import pytest

from tests.runtime.carbon.jobs.test_jobs import DAY, kepler, matrix
from tidegate.runtime.carbon.jobs.csv_rows import read_jobs, read_map
from tidegate.runtime.carbon.jobs.prometheus_jobs import read_prometheus
from tidegate.runtime.carbon.jobs.settle import settled
from tidegate.runtime.carbon.jobs.slurm import hosts_of, read_slurm
from tidegate.runtime.carbon.jobs.work import JobError, from_record, sort_out


def bodies(kwh, name="it"):
    return [
        {"start_utc_s": DAY + 900 * i, "length_s": 900,
         "outflows": [{"name": name, "kind": "load", "energy_milliwh": kwh * 10**6 // 96, "ug": 0}]} for i in range(96)
    ]  # fmt: skip


def shares(works, kwh=96):
    """kWh of each job of a day on one load."""
    body = settled(bodies(kwh), sort_out(works)[0], [], ["it"])
    node = body["nodes"]["it"]
    assert sum(row[5] for row in body["jobs"]) + node["idle_milliwh"] == node["metered_milliwh"]
    found = {}
    for row in body["jobs"]:
        if row[5]:
            found[row[0]] = found.get(row[0], 0.0) + row[5] / 1e6  # each run of a requeued job is a row
    return found


def test_an_answer_of_a_scraped_prometheus_is_no_json_lines(tmp_path):
    for name in ("answer.json", "answer", "answer.txt"):
        (tmp_path / name).write_bytes(matrix((kepler("a", job="kepler", instance="gpu01:9102"), [0, 3600])))
        works, aside = read_jobs(tmp_path / name)
        assert [w.id for w in works] == ["team/a"] and not aside
    pushed = json.dumps({"job": "status", "start_utc_s": DAY, "end_utc_s": DAY + 60})
    (tmp_path / "lines").write_text(f"{pushed}\n{pushed.replace('status', 'data')}\n")
    assert [w.id for w in read_jobs(tmp_path / "lines")[0]] == ["data", "status"]


def test_one_bad_record_is_set_aside_and_the_others_count(tmp_path):
    rows = [{"job": "a", "start_utc_s": DAY, "end_utc_s": DAY + 60}, {"job": "b", "start_utc_s": DAY}, [1],
            {"job": "ms", "start_utc_s": DAY * 1000, "end_utc_s": DAY * 1000 + 60_000}]  # fmt: skip
    (tmp_path / "jobs.json").write_text(json.dumps(rows))
    works, aside = read_jobs(tmp_path / "jobs.json")
    assert [w.id for w in works] == ["a"] and len(aside) == 3
    named = "\n".join(aside)
    assert "jobs.json, job 1: end_utc_s is missing" in named and "jobs.json, job 2: '[1]' where an object" in named
    assert "job ms starts at 1.70925e+12 s, after the year 2100; give seconds since 1970, not milliseconds" in named
    with pytest.raises(JobError, match="push, energy_j: 1e999 is too large to be meant"):
        from_record({"job": "a", "start_utc_s": 1, "end_utc_s": 2, "energy_j": "1e999"}, "push")


# ---- DCGM ----


def card(uuid, joules_per_s=400, metric="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", **more):
    labels = {"__name__": metric, "UUID": uuid, "Hostname": "gpu01", "modelName": "NVIDIA A100", **more}
    if metric.endswith("USAGE"):
        return labels, [joules_per_s] * 1441
    return labels, [joules_per_s * 1000 * 60 * i for i in range(1441)]


def test_slices_of_a_card_share_what_the_card_drew_once():
    whole = card("GPU-A", exported_pod="whole", exported_namespace="n")
    slices = [card("GPU-B", exported_pod=f"slice{i}", exported_namespace="n", GPU_I_ID=str(i), GPU_I_PROFILE="1g.5gb")
              for i in range(7)]  # fmt: skip
    works, aside = read_prometheus(matrix(whole, *slices), "d.json")
    found = shares(works)
    assert found["n/whole"] == pytest.approx(48.0, rel=1e-4) and not aside  # 12 kWh if each slice were a card
    assert [found[f"n/slice{i}"] for i in range(7)] == pytest.approx([48 / 7] * 7, rel=1e-3)


def test_a_part_of_a_card_that_nobody_holds_is_idle():
    slices = [card("GPU-B", exported_pod="a", exported_namespace="n", GPU_I_ID="1", GPU_I_PROFILE="3g.20gb"),
              card("GPU-B", GPU_I_ID="2", GPU_I_PROFILE="1g.5gb")]  # fmt: skip
    works, _ = read_prometheus(matrix(*slices), "d.json")
    assert shares(works, 70) == pytest.approx({"n/a": 30.0}, rel=1e-4)
    works, _ = read_prometheus(matrix(card("GPU-C", 100), card("GPU-A", 300, exported_pod="a")), "d.json")
    assert shares(works, 96) == pytest.approx({"/a": 72.0}, rel=1e-4)


@pytest.mark.parametrize("metric", ["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_USAGE"])
def test_the_exporter_is_nobody_s_job(metric):
    own = {"pod": "nvidia-dcgm-exporter-6ldbb", "namespace": "gpu-operator", "container": "nvidia-dcgm-exporter"}
    works, _ = read_prometheus(
        matrix(card("GPU-A", metric=metric, **own, exported_pod="a", exported_namespace="n"),
               card("GPU-B", metric=metric, **own)), "d.json")  # fmt: skip
    assert shares(works) == pytest.approx({"n/a": 48.0})
    works, _ = read_prometheus(matrix(card("GPU-B", metric=metric, **own)), "d.json")
    assert [w.claimed for w in works] == [False] and shares(works) == {}
    works, _ = read_prometheus(matrix(card("GPU-A", metric=metric, pod="a", namespace="n")), "d.json")
    assert shares(works) == {"n/a": 96.0}  # labels that were honoured


def test_pods_that_hold_one_card_in_turn_or_together_share_it():
    together = [card("GPU-A", exported_pod=pod, exported_namespace="n") for pod in "ab"]
    works, _ = read_prometheus(matrix(*together), "d.json")
    assert shares(works) == pytest.approx({"n/a": 48.0, "n/b": 48.0}, rel=1e-4)
    assert sum(w.measured_milliwh for w in works) == pytest.approx(400 * 86_400 / 3.6, rel=1e-4)  # the card's, once


# ---- Kepler, Scaphandre ----


def test_zones_that_are_not_known_are_refused_with_the_remedy():
    with pytest.raises(JobError, match=r"k.json: the zones are core, dram; only package is counted"):
        read_prometheus(matrix((kepler("a", "core"), [0, 9]), (kepler("a", "dram"), [0, 9])), "k.json")
    sockets = matrix((kepler("a", "package-0"), [0, 3600]), (kepler("a", "package-1"), [0, 3600]))
    assert [w.measured_milliwh for w in read_prometheus(sockets, "k.json")[0]] == [2000]


def test_times_in_the_wrong_unit_are_refused_with_the_remedy():
    raw = json.loads(matrix((kepler("a"), [0, 9])))
    raw["data"]["result"][0]["values"][0][0] *= 1000
    with pytest.raises(JobError, match=r"k.json, result 0, value 0: the time 1709251200000 is in milliseconds"):
        read_prometheus(json.dumps(raw).encode(), "k.json")
    line = f'kepler_pod_cpu_joules_total{{pod_name="p",zone="package"}} 5 {DAY}\n'
    with pytest.raises(JobError, match=r"s.prom, line 1: the time 1709251200 is not in milliseconds"):
        read_prometheus(line.encode(), "s.prom")


def test_kepler_before_its_rewrite_counts_each_joule_once():
    labels = {"container_namespace": "n", "pod_name": "p", "container_name": "c"}
    rows = [({"__name__": "kepler_container_joules_total", "mode": mode, **labels}, [0, 3600]) for mode in
            ("dynamic", "idle")]  # fmt: skip
    rows.append(({"__name__": "kepler_container_package_joules_total", "mode": "dynamic", **labels}, [0, 3000]))
    works, _ = read_prometheus(matrix(*rows), "k.json")
    assert [(w.id, w.measured_milliwh) for w in works] == [("n/p", 2000)]


def test_scaphandre_gives_microwatts_of_processes():
    labels = {"__name__": "scaph_process_power_consumption_microwatts", "exe": "python", "instance": "gpu01:8080"}
    pod = {**labels, "kubernetes_pod_name": "p", "kubernetes_pod_namespace": "n"}
    works, _ = read_prometheus(matrix((labels, [60e6, 60e6]), (pod, [120e6, 120e6])), "s.json", {"gpu01": "rack1"})
    assert {w.id: (w.measured_milliwh, w.node) for w in works} == {
        "gpu01/python": (1000, "rack1"),
        "n/p": (2000, "rack1"),
    }


def test_a_tenant_without_an_owner_is_refused_by_line(tmp_path):
    path = tmp_path / "t.csv"
    for text in ("namespace,owner\nteam\n", "namespace,owner\nteam,\n"):
        path.write_text(text)
        with pytest.raises(JobError, match=r"t.csv, line 2: (fewer fields|namespace team has no owner)"):
            read_map(path, "namespace", "owner")
    path.write_text("namespace;owner\nteam;dept 7\n")
    assert read_map(path, "namespace", "owner") == {"team": "dept 7"}
    path.write_text("host,node\ngpu01,rack1\ngpu09,\ngpu01,rack2\n")
    with pytest.raises(JobError, match="line 4: host gpu01 stands before with node rack1"):
        read_map(path, "host", "node")


# ---- CodeCarbon ----

CODECARBON = "timestamp,project_name,run_id,duration,emissions,energy_consumed\n{},nlp,r1,3600,0.1,1.5\n"


def test_a_run_of_codecarbon_needs_an_offset():
    from tidegate.runtime.carbon.jobs.codecarbon import read_codecarbon

    works, _ = read_codecarbon(CODECARBON.format("2024-03-01T02:00:00+01:00").encode(), "emissions.csv")
    assert [(w.id, w.start_utc_s, w.end_utc_s, w.measured_milliwh) for w in works] == [
        ("nlp/r1", DAY, DAY + 3600, 1_500_000)
    ]
    with pytest.raises(JobError, match=r"line 2: .* has no offset; .*CodeCarbon writes local time: append the offset"):
        read_codecarbon(CODECARBON.format("2024-03-01T02:00:00").encode(), "emissions.csv")


# ---- Slurm ----

HEAD = "JobID|JobName|Account|Start|End|AllocTRES|NodeList|ConsumedEnergyRaw|Suspended\n"


def line(job, start="00:00:00", end="23:59:59", gpus=1, nodes="gpu01", joules="", suspended="00:00:00", name="train"):
    ended = end if end == "Unknown" else f"2024-03-01T{end}+0000"
    return f"{job}|{name}|lab|2024-03-01T{start}+0000|{ended}|cpu=8,gres/gpu={gpus}|{nodes}|{joules}|{suspended}\n"


def test_no_value_is_no_energy():
    for written in (str(2**64 - 2), str(2**64 - 1), "99999999999999"):
        works, aside = read_slurm((HEAD + line("1", joules=written) + line("2", nodes="gpu02")).encode(), "s")
        assert all(w.measured_milliwh is None for w in works)
        assert len([text for text in aside if "job 1" in text and "shared by slots and time" in text]) == 1
        assert shares(works) == pytest.approx({"1": 48.0, "2": 48.0}, rel=1e-3)


def test_jobs_on_one_node_share_it_by_what_they_reserved():
    text = HEAD + line("1", gpus=7, joules="3600000") + line("2", gpus=1, joules="3600000")
    works, aside = read_slurm(text.encode(), "s")
    assert shares(works, 80) == pytest.approx({"1": 70.0, "2": 10.0}, rel=1e-3)
    assert "2 job(s), the first" in aside[0] and "shared a node" in aside[0]
    apart = HEAD + line("1", gpus=7, joules="3600000") + line("2", gpus=1, nodes="gpu02", joules="3600000")
    assert shares(read_slurm(apart.encode(), "s")[0], 80) == pytest.approx({"1": 40.0, "2": 40.0}, rel=1e-3)
    works, aside = read_slurm(apart.replace("NodeList", "Nodes").encode(), "s")
    assert all(w.measured_milliwh is None for w in works) and "without NodeList" in aside[0]


def test_time_in_suspension_is_no_reservation():
    text = HEAD + line("1", end="20:00:00", suspended="15:00:00") + line("2", end="20:00:00", nodes="gpu02")
    works, aside = read_slurm(text.encode(), "s")
    assert works[0].units["gpu_hour"] == 5000 and works[1].units["gpu_hour"] == 20_000
    found = shares(works)
    assert found["1"] * 4 == pytest.approx(found["2"], rel=1e-4) and "was suspended for 54000 s" in aside[0]
    with pytest.raises(JobError, match="s, line 2, Suspended: 'often' is not a duration"):
        read_slurm((HEAD + line("1", suspended="often")).encode(), "s")


def test_tasks_of_an_array_parts_of_a_het_job_and_a_requeued_job_are_jobs_of_their_own():
    """As `sacct -D` has them: what waits has not started, and each run of a requeued job has its own time."""
    waiting = line("17_[3-9%2]").replace("2024-03-01T00:00:00+0000|2024-03-01T23:59:59+0000", "Unknown|Unknown")
    text = HEAD + line("17_1", end="12:00:00") + line("17_2", end="12:00:00", nodes="gpu02") + waiting
    text += line("18+0", start="12:00:00", gpus=6, nodes="gpu03") + line(
        "18+1", start="12:00:00", gpus=2, nodes="gpu04"
    )
    text += line("19", end="06:00:00", nodes="gpu05") + line("19", start="08:00:00", end="10:00:00", nodes="gpu06")
    text += line("17_1.batch", end="12:00:00")
    works, aside = read_slurm(text.encode(), "s")
    assert sorted(work.id for work in works) == ["17_1", "17_2", "18+0", "18+1", "19", "19"]
    assert [text for text in aside if "has not started" in text] == aside and "17_[3-9%2]" in aside[0]
    found = shares(works, 96)
    assert found["18+0"] == pytest.approx(3 * found["18+1"]) and found["17_1"] == pytest.approx(found["17_2"])
    assert sum(found.values()) == pytest.approx(96, rel=1e-3)
    again, doubled = read_slurm((text + line("19", start="05:00:00", end="07:00:00", nodes="gpu05")).encode(), "s")
    _, named = sort_out(again)
    assert any("job 19 overlaps with the same job" in text for text in named), doubled


def test_cpus_beside_gpus_on_one_load_are_named():
    cpu = line("2", nodes="cpu01").replace("cpu=8,gres/gpu=1", "cpu=8")
    text = (HEAD + line("1") + cpu).encode()
    for nodes, named in ((None, True), ({"gpu01": "a", "cpu01": "a"}, True), ({"gpu01": "a", "cpu01": "b"}, False)):
        _, aside = read_slurm(text, "s", nodes)
        assert any("one CPU weighs as much as one GPU" in text for text in aside) is named


def test_a_job_that_still_runs_is_not_idle(tmp_path):
    (tmp_path / "sacct.txt").write_text(HEAD + line("1", end="Unknown"))
    works, aside = read_slurm((HEAD + line("1", end="Unknown")).encode(), "s", until_utc_s=DAY + 200_000)
    assert shares(works) == pytest.approx({"1": 96.0}) and "counted as running until" in aside[0]
    works, aside = read_slurm((HEAD + line("1", end="Unknown")).encode(), "s")
    assert works == [] and "the log says nothing later; it is not counted" in aside[0]


def test_quotes_and_bars_in_a_name_take_no_other_job_with_them():
    text = HEAD + line("1", name='say "hi') + line("2", name="a|b") + line("3", name='"') + line("4")
    works, aside = read_slurm(text.encode(), "s")
    assert [w.id for w in works] == ["1", "2", "3", "4"] and not aside
    two = text.replace("JobName", "Other", 1)
    works, aside = read_slurm(two.encode(), "s")
    assert [w.id for w in works] == ["1", "3", "4"] and "s, line 3: 10 fields for 9 columns" in aside[0]


def test_a_job_over_racks_is_parted_by_its_hosts_and_unknown_hosts_are_named():
    nodes = {"gpu01": "rack1", "gpu02": "rack1", "gpu03": "rack2", "far1": ""}
    text = HEAD + line("1", gpus=8, nodes="gpu[01-03],far1", joules="7200000")
    works, aside = read_slurm(text.encode(), "s", nodes)
    assert [(w.node, w.slots, w.measured_milliwh, w.units["job"]) for w in works] == [
        ("rack1", 4, 1_000_000, 500), ("rack2", 2, 500_000, 250)]  # fmt: skip
    assert not aside
    works, aside = read_slurm((HEAD + line("2", nodes="gpu01,new7")).encode(), "s", nodes)
    assert {w.node for w in works} == {"rack1", ""} and "host new7 of 1 job(s) is in no load; add new7,LOAD" in aside[0]


def test_host_lists_of_several_dimensions():
    assert hosts_of("r[1-2]n[01,03-04],login") == ["r1n01", "r1n03", "r1n04", "r2n01", "r2n03", "r2n04", "login"]
    assert hosts_of("None assigned") == hosts_of("") == [] and hosts_of("a,a") == ["a"]


def test_a_push_that_cannot_be_used_is_noted_and_the_sidecar_goes_on(tmp_path):
    from tidegate.runtime.carbon.jobs.pushed import Pushed
    from tidegate.runtime.carbon.ledger.ledger import Ledger

    rows = [{"job": "a", "start_utc_s": DAY, "end_utc_s": DAY + 60}, {"job": "b"}, 7,
            {"job": "old", "start_utc_s": 5, "end_utc_s": 10**12}]  # fmt: skip

    class Client:
        def replay(self, stream, boot, seq, count):
            records = [{"boot": "b", "seq": 0, "peer": "p", "jobs": rows}] if seq < 0 else []
            return records, True

    ledger = Ledger(tmp_path / "l.db")
    assert Pushed(ledger).pull(Client()) == 1
    (note,) = ledger.entries("note")
    assert note.body["set_aside_count"] == 3 and "after the year 2100" in "".join(note.body["set_aside"])
    assert Pushed(ledger).pull(Client()) == 0  # the cursor went on over it


@pytest.mark.parametrize(("times", "words"), [
    ((1_772_323_200, 9e9), "after the year 2100"), ((-1e9, 1_772_323_200), "is no time"),
    ((0, 1_772_323_200), "nothing for 20513 days"),
])  # fmt: skip
def test_a_time_that_cannot_be_fills_no_memory_and_is_named(times, words):
    """A digit too many in one time of a real file took 17 GB and hours: each 5 minutes of the gap was a row."""
    pod = {"__name__": "kepler_pod_cpu_joules_total", "pod_name": "a", "pod_namespace": "n", "zone": "package"}
    card = {"__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "gpu": "0", "Hostname": "h"}
    values = [[times[0], "1"], [times[1], "2"]]
    for labels in (pod, card):
        result = [{"metric": labels, "values": values}]
        raw = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        works, aside = read_prometheus(raw, "p.json")
        assert works == [] and words in aside[0], aside
