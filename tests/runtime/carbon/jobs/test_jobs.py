"""Jobs: metered energy is the whole, software gives the shares, idle is what no job drew."""

import csv
import io
import json
import random

import pytest
from click.testing import CliRunner

from tidegate.runtime.carbon.jobs.csv_rows import read_jobs
from tidegate.runtime.carbon.jobs.prometheus_jobs import read_prometheus
from tidegate.runtime.carbon.jobs.settle import ALL, BY_ENERGY, BY_TIME, settle, settled
from tidegate.runtime.carbon.jobs.slurm import read_slurm
from tidegate.runtime.carbon.jobs.work import JobError, Work, from_record, sort_out
from tidegate.runtime.carbon.ledger.bodies import settlement_error
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.cli.carbon_commands import carbon

DAY = 1_709_251_200  # 2024-03-01
G = 1_000_000


def bodies(milliwh=9_000_000, nodes=("it",), price=200_000, day=DAY):
    return [
        {"start_utc_s": day + 900 * i, "length_s": 900, "price_u_per_kwh": price,
         "outflows": [{"name": n, "kind": "load", "energy_milliwh": milliwh, "ug": milliwh * 250} for n in nodes]}
        for i in range(96)
    ]  # fmt: skip


def work(name, start, end, **more):
    return Work(name, DAY + start, DAY + end, where=f"test, {name}", **more)


def by_job(body):
    return {row[0]: row for row in body["jobs"]}


def test_two_jobs_share_the_metered_energy_by_what_software_counted():
    # Software sees 2 and 6 kWh of the 4 x 9 kWh that the meter counted in that hour.
    works = [work("a", 0, 3600, measured_milliwh=2_000_000), work("b", 0, 3600, measured_milliwh=6_000_000)]
    body = settled(bodies(), works, [], ["it"])
    rows = by_job(body)
    assert (rows["a"][5], rows["b"][5]) == (9_000_000, 27_000_000)
    assert rows["a"][6] == 9_000_000 * 250
    assert body["nodes"]["it"]["basis"] == BY_ENERGY
    assert body["nodes"]["it"]["software_milliwh"] == 8_000_000


def test_one_job_without_an_energy_makes_reserved_slots_and_time_the_basis():
    works = [work("a", 0, 3600, slots=8, measured_milliwh=2_000_000), work("b", 0, 3600, slots=1)]
    body = settled(bodies(), works, [], ["it"])
    assert (by_job(body)["a"][5], by_job(body)["b"][5]) == (32_000_000, 4_000_000)
    assert body["nodes"]["it"]["basis"] == BY_TIME and body["nodes"]["it"]["software_milliwh"] is None


def test_idle_is_what_was_drawn_without_a_job_by_hour_with_its_money_and_carbon():
    body = settled(bodies(), [work("a", 3600, 7200)], [], ["it"])
    hours = {row[0]: row for row in body["idle"]}
    assert DAY + 3600 not in hours and len(hours) == 23
    assert hours[DAY][1:] == ("it", 36_000_000, 36_000_000 * 250, 7_200_000)  # 36 kWh at 0.20
    assert body["nodes"]["it"]["idle_milliwh"] == 23 * 36_000_000


def test_a_period_with_work_for_a_part_counts_idle_at_the_power_of_whole_idle_periods():
    rows = bodies(1_000_000)
    rows[4]["outflows"][0].update(energy_milliwh=9_000_000, ug=9_000_000 * 250)
    body = settled(rows, [work("a", 3600, 3600 + 450)], [], ["it"])
    assert by_job(body)["a"][5] == 9_000_000 - 500_000


@pytest.mark.parametrize("seed", range(30))
def test_jobs_and_idle_add_up_to_the_meter_to_the_last_unit(seed):
    rng = random.Random(seed)
    rows = bodies(nodes=("rack1", "rack2"))
    for row in rows:
        for out in row["outflows"]:
            out["energy_milliwh"] = rng.choice([0, rng.randrange(10**7)])
            out["ug"] = out["energy_milliwh"] * rng.randrange(500)
    works = []
    for i in range(rng.randrange(40)):
        start = rng.randrange(-4000, 86_000)
        works.append(work(f"j{i}", start, start + rng.randrange(1, 20_000), slots=rng.randrange(1, 9),
                          node=rng.choice(["rack1", "rack2"]) if seed % 2 else "",
                          measured_milliwh=rng.choice([rng.randrange(10**7), 0]) if seed % 3 else None))  # fmt: skip
    body = settled(rows, works, [], ["rack1", "rack2"])
    for at, key in ((5, "energy_milliwh"), (6, "ug")):
        whole = sum(out[key] for row in rows for out in row["outflows"])
        idle = sum(row[2 if key == "energy_milliwh" else 3] for row in body["idle"])
        assert sum(row[at] for row in body["jobs"]) + idle == whole


def test_a_job_over_midnight_is_counted_once(tmp_path):
    one = work("a", 80_000, 90_000, measured_milliwh=10_000_001, units={"token": 7_000_001})
    first = settled(bodies(), [one], [], ["it"])
    second = settled(bodies(day=DAY + 86_400), [one], [], ["it"])
    assert first["jobs"][0][7] + second["jobs"][0][7] == 10_000_001
    assert first["jobs"][0][9]["token"] + second["jobs"][0][9]["token"] == 7_000_001


# ---- job logs ----

SACCT = """JobID|User|Account|Start|End|AllocTRES|NodeList|ConsumedEnergyRaw
17|eve|vision|2024-03-01T01:00:00+0000|2024-03-01T03:00:00+0000|cpu=64,gres/gpu=8|gpu[01-02]|7200000
17.batch|||2024-03-01T01:00:00+0000|2024-03-01T03:00:00+0000|cpu=64|gpu01|1
18|bob|nlp|2024-03-01T01:00:00+0100|Unknown|gres/gpu=1|gpu03|0
"""


def test_slurm_gives_jobs_with_their_gpu_hours():
    works, aside = read_slurm(SACCT.encode(), "sacct.csv", {"gpu01": "rack1", "gpu02": "rack1"})
    one, running = works
    assert (one.id, one.owner, one.node, one.slots) == ("17", "vision", "rack1", 8)
    assert one.units == {"job": 1000, "gpu_hour": 16_000}
    assert one.measured_milliwh == 2_000_000  # 7.2 MJ are 2 kWh
    # Job 18 still runs: until the newest time that the log knows, without a job in its units.
    assert (running.id, running.end_utc_s, running.units) == ("18", DAY + 3 * 3600, {"gpu_hour": 3000})
    assert aside == [
        "sacct.csv, line 4: job 18 has no end yet; counted as running until 2024-03-01T03:00Z",
        "sacct.csv: host gpu03 of 1 job(s) is in no load; add gpu03,LOAD to the map, or gpu03, with nothing behind the "
        "comma if it is of another site",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SACCT.replace("01:00:00+0000", "01:00:00"), "line 2, Start: the time .* has no offset; .*SLURM_TIME_FORMAT"),
        ("JobID|User\n1|a\n", "column Start, End is missing"),
        (SACCT.replace("2024-03-01T03:00:00+0000", "soon"), "is not a time"),
    ],
)
def test_a_slurm_file_that_cannot_be_used_is_refused_by_line(text, words):
    with pytest.raises(JobError, match=words):
        read_slurm(text.encode(), "sacct.csv")


def test_negative_doubled_and_timeless_jobs_are_set_aside_and_named():
    works = [work("late", 100, 50), work("none", 5, 5), work("twice", 0, 100), work("twice", 50, 150),
             work("good", 0, 10), Work("old", 100, 200, where="test, old"),
             work("minus", 0, 10, measured_milliwh=-5)]  # fmt: skip
    good, aside = sort_out(works)
    assert [w.id for w in good] == ["good", "twice"]
    text = "\n".join(aside)
    for words in ("job late ends 50 s before it starts", "none lasts 0 s", "twice overlaps with the same job at test",
                  "old starts at 1970-01-01T00:01Z: the clock was not set", "minus measured energy of -5"):  # fmt: skip
        assert words in text


def matrix(*series):
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [
        {"metric": labels, "values": [[DAY + 60 * i, str(v)] for i, v in enumerate(values)]}
        for labels, values in series]}}).encode()  # fmt: skip


def kepler(pod, zone="package", **more):
    return {"__name__": "kepler_pod_cpu_joules_total", "pod_namespace": "team", "pod_name": pod, "zone": zone, **more}


def test_kepler_counters_give_a_pod_s_energy_and_one_zone_only():
    raw = matrix((kepler("a"), [100, 460, 820]), (kepler("a", "psys"), [0, 9e6, 9e6]), (kepler("b"), [5, 5, 5]))
    works, aside = read_prometheus(raw, "k.json", tenants={"team": "dept 7"})
    assert {w.id: w.measured_milliwh for w in works} == {"team/a": 200, "team/b": 0} and not aside  # 720 J are 0.2 Wh
    assert works[0].owner == "dept 7" and works[0].end_utc_s - works[0].start_utc_s == 120


def test_a_counter_that_was_reset_goes_on_and_one_of_petajoules_is_set_aside():
    works, aside = read_prometheus(matrix((kepler("a"), [3600, 0, 3600, 4e15, 4e15 + 3600])), "k.json")
    assert works[0].measured_milliwh == 2000
    assert len(aside) == 1 and "cannot be" in aside[0]


def test_dcgm_counts_in_millijoules_and_its_power_fills_in():
    labels = {"__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID": "GPU-1", "Hostname": "gpu01",
              "exported_namespace": "team", "exported_pod": "a"}  # fmt: skip
    power = {**labels, "__name__": "DCGM_FI_DEV_POWER_USAGE"}
    works, _ = read_prometheus(matrix((labels, [0, 36e6]), (power, [600, 600])), "d.json", {"gpu01": "rack1"})
    assert (works[0].id, works[0].measured_milliwh, works[0].node) == ("team/a", 10_000, "rack1")
    works, _ = read_prometheus(matrix((power, [600, 600])), "d.json")
    assert works[0].measured_milliwh == 10_000  # 600 W for a minute


def test_text_exposition_with_times_is_read():
    lines = [f'kepler_pod_cpu_joules_total{{pod_namespace="n",pod_name="p",zone="package"}} {v} {(DAY + 30 * i) * 1000}'
             for i, v in enumerate((0, 36, 72))]  # fmt: skip
    works, _ = read_prometheus("\n".join(["# HELP x", *lines]).encode(), "scrape.prom")
    assert works[0].measured_milliwh == 20
    with pytest.raises(JobError, match="line 1: expected METRIC"):
        read_prometheus(b"kepler_pod_cpu_joules_total 5\n", "scrape.prom")


def test_a_pushed_job_with_an_unknown_field_is_refused():
    row = {"job": "a", "start_utc_s": DAY, "end_utc_s": DAY + 60, "units": {"token": "1500"}, "energy_j": 3600}
    one = from_record(row, "push")
    assert one.units == {"token": 1_500_000} and one.measured_milliwh == 1000
    with pytest.raises(JobError, match="unknown field 'tokens'"):
        from_record({**row, "tokens": 1}, "push")
    with pytest.raises(JobError, match="start_utc_s is missing"):
        from_record({"job": "a", "end_utc_s": 1}, "push")


# ---- in the ledger and in the report ----


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "l.db")
    made.begin("s")
    made.append([("method", 0, {"kinds": {"it": "it", "cool": "cooling", "grid": "grid"}, "currency": "EUR",
                                "embodied": {"ug": 10**15, "life_s": 10**8, "slots": 8}, "storages": {}})])  # fmt: skip
    rows = []
    for i in range(96):
        start = DAY + 900 * i
        body = {
            "v": 1,
            "site": "s",
            "start_utc_s": start,
            "length_s": 900,
            "records": 900,
            "lost": 0,
            "soc_ppm": None,
            "utc_sync": "S",
            "flags": [],
            "by_difference": None,
            "flows": {
                "grid.import": {
                    "energy_milliwh": 10_000_000,
                    "quality": "good",
                    "method": "register",
                    "flags": [],
                    "open_milliwh": 0,
                    "close_milliwh": 0,
                    "integral_milliwh": None,
                    "covered_ms": 900_000,
                }
            },
            "method": {"policy": "average", "losses": "carry"},
            "factors": {
                "grid": {"ug_per_kwh": 250 * G, "status": "actual", "source": "t", "step_utc_s": 0, "version": ""}
            },
            "inflow_ug": {"grid": 2_500_000_000},
            "created_ug": 0,
            "residual_milliwh": 0,
            "loss_milliwh": {},
            "loss_ug": {},
            "outflows": [
                {
                    "name": "it",
                    "kind": "load",
                    "energy_milliwh": 8_000_000,
                    "ug": 2_000_000_000,
                    "origins": {"grid": 8_000_000},
                },
                {
                    "name": "cool",
                    "kind": "load",
                    "energy_milliwh": 2_000_000,
                    "ug": 500_000_000,
                    "origins": {"grid": 2_000_000},
                },
            ],
            "stock": {},
            "price_u_per_kwh": 300_000,
        }
        rows.append(("period", start, body))
    made.append(rows)
    return made


def test_the_report_gives_carbon_per_unit_idle_energy_coverage_and_sci(ledger, tmp_path):
    (tmp_path / "sacct.csv").write_text("".join(SACCT.splitlines(keepends=True)[:-1]))  # 18 still runs
    words = ["settle", str(tmp_path / "l.db"), "--jobs", str(tmp_path / "sacct.csv"), "--span", "2024-03-01"]
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0 and "1 jobs, 0 set aside, 1 days settled" in result.output, result.output
    book = Ledger(tmp_path / "l.db")
    assert verify(book) == []
    found = write(book, DAY, DAY + 86_400, tmp_path / "r", pdf=False)
    compute = json.loads(found["json"].read_text())["compute"]
    assert (compute["jobs_kwh"], compute["idle_kwh"]) == ("64.000000", "704.000000")
    assert compute["idle_cost_u"] == 88 * 2_400_000
    unit = compute["units"]["gpu_hour"]
    assert unit["g_per_unit"] == "1000.000000"  # 16 kg in 16 GPU-hours
    assert unit["g_per_unit_with_room"] == "1250.000000"
    # 1000 kg over 10^8 s and 8 slots; 8 slots for 7200 s
    assert unit["embodied_ug"] == 10**15 * 8 * 7200 // (10**8 * 8)
    assert unit["sci_g_per_unit"] == f"{(20e9 + unit['embodied_ug']) / 1e6 / 16:.6f}"
    assert compute["nodes"]["it"]["coverage"] == f"{2 / 64:.4f}"
    rows = list(csv.DictReader(io.StringIO(found["jobs csv"].read_text())))
    assert rows[0]["job"] == "17" and rows[0]["units_milli"] == "gpu_hour=16000 job=1000"
    assert len(list(csv.DictReader(io.StringIO(found["idle csv"].read_text())))) == 22
    assert CliRunner().invoke(carbon, ["verify", str(tmp_path / "l.db"), "--report", str(found["json"])]).exit_code == 0


def test_a_day_settled_anew_hides_the_settlement_before(ledger):
    settle(ledger, [work("a", 0, 3600)], [], DAY, DAY + 86_400)
    settle(ledger, [work("b", 0, 7200)], [], DAY, DAY + 86_400)
    compute = gather(ledger, DAY, DAY + 86_400)[0]["compute"]
    assert compute["jobs"] == 1 and compute["top"][0][0] == "b"
    assert len(list(ledger.entries("job"))) == 2


def test_a_folder_of_logs_is_read_and_a_stranger_refused(tmp_path):
    (tmp_path / "a.csv").write_text(SACCT)
    (tmp_path / "b.json").write_bytes(matrix((kepler("a"), [0, 3600])))
    (tmp_path / "c.jsonl").write_text(json.dumps({"job": "x", "start_utc_s": DAY, "end_utc_s": DAY + 5}) + "\n")
    works, aside = read_jobs(tmp_path)
    assert {w.id for w in works} == {"17", "18", "team/a", "x"} and len(aside) == 1
    (tmp_path / "d.txt").write_text("hello\n")
    with pytest.raises(JobError, match="neither sacct output, nor Prometheus"):
        read_jobs(tmp_path)


def test_jobs_that_name_no_node_share_all_of_the_it_load():
    body = settled(bodies(nodes=("rack1", "rack2")), [work("a", 0, 900, node="rack1"), work("b", 0, 900)], [],
                   ["rack1", "rack2"])  # fmt: skip
    # b ran somewhere: a half of it is taken to be on each rack, and nothing of it is anybody else's.
    assert set(body["nodes"]) == {"rack1", "rack2"}
    assert by_job(body)["a"][5] == 6_000_000
    ((job, _, node, _, _, milliwh, *_),) = body["unplaced"]
    assert (job, node, milliwh) == ("b", "", 12_000_000)
    assert "the first b at test, b, name no load while others do" in body["set_aside"][0]
    body = settled(bodies(nodes=("rack1", "rack2")), [work("b", 0, 900)], [], ["rack1", "rack2"])
    assert set(body["nodes"]) == {ALL} and by_job(body)["b"][5] == 18_000_000 and body["unplaced"] == []
    body = settled(bodies(), [work("a", 0, 900, node="mars")], [], ["it"])
    assert body["set_aside"][0].startswith("node mars: no such load (known: it); 1 job(s)") and body["jobs"] == []
    assert body["unplaced"][0][5] == 9_000_000 and settlement_error(body) is None


def test_a_day_that_is_not_over_is_not_settled(tmp_path):
    ledger = Ledger(tmp_path / "open.db")
    rows = [("period", body["start_utc_s"], body) for body in bodies()]
    ledger.append([("method", 0, {"kinds": {"it": "it"}}), *rows[:-1]])
    assert settle(ledger, [work("a", 0, 3600)], [], DAY, DAY + 86_400) == 0
    ledger.append(rows[-1:])
    assert settle(ledger, [work("a", 0, 3600)], [], DAY, DAY + 86_400) == 1


def test_what_was_set_aside_stands_in_the_ledger_once_and_in_the_report_whole(ledger):
    aside = [f"log, line {number}: job x lasts 0 s; it is not counted" for number in range(60)]
    before = len(list(ledger.entries("note")))
    assert settle(ledger, [work("a", 0, 3600)], aside, DAY, DAY + 86_400) == 1
    (entry,) = list(ledger.entries("job"))
    assert entry.body["set_aside"] == [] and len(list(ledger.entries("note"))) == before + 1
    compute = gather(ledger, DAY, DAY + 86_400)[0]["compute"]
    assert compute["set_aside_count"] == 60 and compute["set_aside"][:2] == aside[:2]
    assert settle(ledger, [work("a", 0, 3600)], aside[:1], DAY, DAY + 86_400) == 1  # settled anew, the log was mended
    assert gather(ledger, DAY, DAY + 86_400)[0]["compute"]["set_aside"] == aside[:1]


def test_many_days_are_settled_in_several_transactions_and_none_is_lost(tmp_path):
    ledger = Ledger(tmp_path / "many.db")
    ledger.append([("method", 0, {"kinds": {"it": "it"}})])
    for day in range(40):
        moved = {**bodies()[0], "start_utc_s": DAY + 86_400 * day, "length_s": 86_400}
        ledger.append([("period", moved["start_utc_s"], moved)])
    assert settle(ledger, [work("a", 0, 3600)], [], DAY, DAY + 40 * 86_400, state={"jobs": "x"}) == 40
    assert [e.start_utc_s for e in ledger.entries("job")] == [DAY + 86_400 * day for day in range(40)]
    assert ledger.state("jobs") == "x" and ledger.verify() == []
