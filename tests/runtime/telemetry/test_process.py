"""The telemetry process and what the sidecar makes of it: energy by 5 minutes, dead hosts, restarts, wrong settings."""

import asyncio
import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.config.test_site import DEMO, write
from tests.runtime.telemetry.agents import Web, apc, eventually, free_port, redfish, snmpd
from tidegate.config.site import SiteError, load_site
from tidegate.config.telemetry_sources import Telemetry
from tidegate.runtime.carbon.live.live_figures import Figures
from tidegate.runtime.carbon.live.live_telemetry import NO_RACK, UNCLAIMED, LiveTelemetry
from tidegate.runtime.telemetry.energy_store import BUCKET_S, FILE, EnergyStore, Row, opened
from tidegate.runtime.telemetry.energy_sums import EnergySums
from tidegate.runtime.telemetry.poller import HostState, Source, SourceError, source_of
from tidegate.runtime.telemetry.sample import Counted, Heard, Sample, Thing
from tidegate.runtime.telemetry.snmp_source import SnmpSocket

DAY = 1_717_200_000
CARD = Thing("card", "n1 GPU 0", "n1", "A01", "ml", "train-0")
REST = Thing("card", "n1 GPU 1", "n1", "A01")


def heard(*samples, counted=()):
    return Heard(list(samples), list(counted), [], [])


# ---- sums ----


def test_power_is_held_between_polls_and_split_at_the_edge_of_a_bucket():
    sums = EnergySums("gpus", "", 10.0)
    for number in range(4):
        utc_s = DAY + BUCKET_S - 15 + 10 * number  # the edge lies in the middle of the second stretch
        sums.take(heard(Sample(CARD, 360.0, 0.9), Sample(REST, 36.0, 0.0)), 100.0 + 10 * number, utc_s)
    rows = {(row.bucket_s - DAY, row.name): row for row in sums.rows(DAY + BUCKET_S + 20)}
    assert rows[0, CARD.name].milliwh == 1500 and rows[BUCKET_S, CARD.name].milliwh == 1500
    assert rows[0, CARD.name].idle_milliwh == rows[0, CARD.name].unused_milliwh == 0
    assert rows[0, REST.name].milliwh == rows[0, REST.name].idle_milliwh == 150
    assert rows[0, REST.name].covered_s == 15


def test_a_gap_is_not_filled_and_a_clock_that_steps_makes_no_energy():
    sums = EnergySums("gpus", "", 10.0)
    for t_s, utc_s in ((0, DAY), (10, DAY + 10), (100, DAY + 100), (110, DAY + 7310)):
        sums.take(heard(Sample(CARD, 3600.0)), float(t_s), float(utc_s))
    assert sum(row.milliwh for row in sums.rows(DAY + 7310)) == 20_000


def test_a_counter_that_begins_anew_counts_what_it_shows():
    sums = EnergySums("pods", "", 10.0)
    pod = Thing("pod", "a", "n1", "", "ml", "a")
    for number, joules in enumerate((1000.0, 4600.0, 360.0)):
        sums.take(heard(counted=[Counted(pod, joules)]), 10.0 * number, DAY + 10.0 * number)
    assert sum(row.milliwh for row in sums.rows(DAY + 20)) == 1000 + 100


def test_a_card_that_is_claimed_and_rests_is_unused_and_not_idle():
    sums = EnergySums("gpus", "", 10.0)
    for number in range(2):
        sums.take(heard(Sample(CARD, 360.0, 0.0)), 10.0 * number, DAY + 10.0 * number)
    (row,) = sums.rows(DAY + 10)
    assert (row.milliwh, row.idle_milliwh, row.unused_milliwh) == (1000, 0, 1000)


def test_sums_over_random_polls_are_those_of_a_plain_addition():
    rng = random.Random(3)
    sums, t_s, plain, last = EnergySums("x", "", 10.0), 0.0, 0.0, None
    kept = {}
    for _ in range(500):
        t_s += rng.uniform(0.5, 40.0)
        watts = rng.uniform(0.0, 1000.0)
        if last is not None and t_s - last[0] <= 30.0:
            plain += last[1] * (t_s - last[0]) / 3.6
        last = t_s, watts
        sums.take(heard(Sample(CARD, watts)), t_s, DAY + t_s)
        kept.update({(row.bucket_s, row.name): row.milliwh for row in sums.rows(DAY + t_s)})
    assert sum(kept.values()) == pytest.approx(plain, abs=len(kept))


# ---- store and sidecar ----


def row(bucket, level, name, milliwh, *, rack="", namespace="", job="", node=""):
    return Row(DAY + bucket * BUCKET_S, "s", node, level, name, name, rack, namespace, job, milliwh, 0, 0, BUCKET_S)


@pytest.fixture
def store(tmp_path):
    one = EnergyStore(tmp_path / FILE)
    yield one
    one.close()


def seen(tmp_path, until=4, loads=("it",)):
    live = LiveTelemetry(tmp_path, loads, lambda: DAY + 10.0)
    live.read(DAY, DAY + until * BUCKET_S)
    return live


def test_the_meter_gives_the_total_and_the_difference_has_a_name(tmp_path, store):
    store.put([row(0, "pdu", "p1", 600_000, rack="A01"), row(1, "pdu", "p2", 300_000, rack="A02"),
               row(1, "pdu", "p3", 100_000), row(1, "server", "n1", 999_999, rack="A01")], [], [])  # fmt: skip
    live = seen(tmp_path)
    assert live.counted() == {"it": ("pdu", 1_000_000)}, "servers lie within what the PDUs count"
    today = {"it": Figures(1_200_001, 333, None, 0.5, 0.1, 900)}
    rows = live.racks(today, DAY, DAY + 900, ["why"])
    assert [(r["name"], r["today"]["energy_kwh"], r["counted_kwh"]) for r in rows] == [
        ("A01", 0.720001, 0.6), ("A02", 0.36, 0.3), (NO_RACK, 0.12, 0.1)]  # fmt: skip
    assert sum(round(r["today"]["kg"] * 1e9) for r in rows) == 333 and not rows[0]["today"]["good"]


def test_claims_are_cards_and_pods_once_and_what_nobody_claims(tmp_path, store):
    store.put([row(0, "card", "g0", 500, namespace="ml", job="a"), row(1, "card", "g0", 700, namespace="ml", job="a"),
               row(0, "card", "g1", 50), row(0, "pod", "a", 900, namespace="ml", job="a"),
               row(0, "pod", "web", 90, namespace="front", job="web")], [], [])  # fmt: skip
    works = {work.id: work for work in seen(tmp_path).claims()}
    assert {name: work.measured_milliwh for name, work in works.items()} == {"a": 1200, UNCLAIMED: 50, "web": 90}
    assert works["a"].shape == {DAY: 500, DAY + BUCKET_S: 700} and works["a"].owner == "ml"
    assert (works["a"].start_utc_s, works["a"].end_utc_s) == (DAY, DAY + 2 * BUCKET_S)


def test_what_was_added_up_before_stays_right_as_buckets_grow(tmp_path, store):
    live = LiveTelemetry(tmp_path, ["it"], lambda: DAY + 10.0)
    for bucket in range(12):
        for milliwh in (30, 70):
            store.put([row(bucket, "card", "g0", milliwh, job="a")], [], [])
            live.read(DAY, DAY + bucket * BUCKET_S + 250)
            assert live.counted()["it"][1] == 70 * bucket + milliwh
    live.read(DAY + 6 * BUCKET_S, DAY + 12 * BUCKET_S)
    assert live.counted()["it"][1] == 6 * 70, "a new day begins at its midnight"


def test_a_source_that_is_silent_or_old_is_among_the_doubts(tmp_path, store):
    store.put([], [("a", DAY + 5.0, 3, 1, "10.0.0.9: no answer"), ("b", DAY - 300.0, 1, 1, "b: gone"),
                   ("c", DAY + 9.0, 1, 0, ""), ("d", 0.0, 1, 1, "x")], [])  # fmt: skip
    assert seen(tmp_path).doubts() == [
        "telemetry a: 1 of 3 hosts are silent: 10.0.0.9: no answer", "telemetry b: not heard for 310 s: b: gone",
        "telemetry d: not heard yet: x"]  # fmt: skip


def test_a_store_that_cannot_be_read_is_named_and_heals(tmp_path):
    assert opened(tmp_path) is None and seen(tmp_path).doubts() == []
    (tmp_path / FILE).parent.mkdir(exist_ok=True)
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    live = seen(tmp_path)
    assert live.doubts()[0].startswith("telemetry cannot be read") and live.claims() == []
    (tmp_path / FILE).unlink()
    store = EnergyStore(tmp_path / FILE)
    store.put([row(0, "card", "g0", 70, job="a")], [], [])
    live.read(DAY, DAY + 900)
    assert live.counted()["it"][1] == 70 and not live.trouble
    store.close()


def test_another_layout_is_refused(tmp_path, store):
    store._base.execute("PRAGMA user_version=9")
    with pytest.raises(sqlite3.DatabaseError, match="layout 9"):
        EnergyStore(tmp_path / FILE, read_only=True)


def test_what_is_older_than_is_kept_goes(store):
    store.put([row(0, "pdu", "p", 1), row(400, "pdu", "p", 2)], [], [])
    store.forget(DAY + 400 * BUCKET_S, days=1)
    assert [one.milliwh for one in store.rows(0, 2**40)] == [2]


# ---- hosts that fail ----


class Host:
    def __init__(self, name, hear):
        self.host, self._hear, self.asked = name, hear, 0

    async def hear(self):
        self.asked += 1
        return await self._hear()


def test_a_dead_host_stalls_nobody_and_is_asked_less_and_less():
    async def silent():
        await asyncio.sleep(3600)

    async def broken():
        raise RuntimeError("never thought of")

    async def well():
        return heard(Sample(CARD, 100.0))

    async def run():
        wanted = Telemetry(name="x", kind="snmp", model="apc-rpdu2", hosts=("h",), every_s=1)
        good = Host("good", well)
        source = Source(wanted, [Host(f"dead{n}", silent) for n in range(30)] + [Host("b", broken), good])
        tasks = [asyncio.create_task(source.run(state)) for state in source.states]
        until = time.monotonic() + 60
        while good.asked < 3 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        return source, good

    source, good = asyncio.run(run())
    assert good.asked >= 3
    name, at, hosts, silent_count, trouble = source.state
    assert (name, hosts, silent_count) == ("x", 32, 31) and at > 0 and "never thought of" in trouble
    states = [HostState(good, failures=number) for number in (0, 1, 3, 60)]
    assert [one.back_off_s(10.0) for one in states] == [10.0, 20.0, 80.0, 300.0]


# ---- settings ----


def site_text(rows):
    return DEMO + "\n" + rows


GOOD = """
[[telemetry]]
name = "pdus"
kind = "snmp"
model = "apc-rpdu2"
hosts = ["10.0.0.9", "10.0.0.10:1161"]
racks = { "10.0.0.9" = "A01", "10.0.0.10" = "A02" }
"""


def test_a_site_with_telemetry_is_read(tmp_path):
    (wanted,) = load_site(write(tmp_path, site_text(GOOD))).telemetry
    assert wanted.hosts == ("10.0.0.9", "10.0.0.10:1161") and wanted.every_s == 10.0


@pytest.mark.parametrize(("old", "new", "words"), [
    ('model = "apc-rpdu2"\n', "", "snmp needs model"),
    ('model = "apc-rpdu2"', 'model = "eaton"', "apc-rpdu2"),
    ('kind = "snmp"', 'kind = "snmp"\nurl = "http://a"', "url is not for snmp"),
    ('kind = "snmp"', 'kind = "snmp"\nnode = "mars"', "'mars' is no it-meter"),
    ('"10.0.0.10:1161"', '"10.0.0.9"', "a host stands twice"),
    ('"10.0.0.10" = "A02"', '"10.0.0.77" = "A02"', "'10.0.0.77' is not among hosts"),
    ('name = "pdus"', 'name = "pdus"\nevery_s = 0.1', "every_s"),
    ('hosts = ["10.0.0.9", "10.0.0.10:1161"]', "hosts = []", "snmp needs hosts"),
    ('"10.0.0.10:1161"', '"10.0.0.1/x?y"', "hosts"),
])  # fmt: skip
def test_what_is_wrong_with_a_source_is_named(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(SiteError, match=words):
        load_site(write(tmp_path, site_text(GOOD.replace(old, new))))


def test_two_sources_may_not_ask_one_host_and_a_password_needs_https(tmp_path):
    with pytest.raises(SiteError, match="is asked by 'pdus' too and would count twice"):
        load_site(write(tmp_path, site_text(GOOD + GOOD.replace('"pdus"', '"more"'))))
    bmc = '[[telemetry]]\nname = "b"\nkind = "redfish"\nhosts = ["10.0.0.5"]\nscheme = "http"\nuser = "a"\n'
    with pytest.raises(SiteError, match="a password needs https"):
        load_site(write(tmp_path, site_text(bmc + 'password_file = "p"\n')))
    with pytest.raises(SiteError, match="belong together"):
        load_site(write(tmp_path, site_text(bmc)))


def test_a_key_file_that_is_missing_is_named_with_the_remedy(tmp_path):
    wanted = Telemetry(name="b", kind="snmp", model="apc-rpdu2", hosts=("h",), community_file="c.key")
    with pytest.raises(SourceError, match=r"telemetry b: community_file c.key: No such file.*chmod 600"):
        source_of(wanted, tmp_path, SnmpSocket())
    (tmp_path / "c.key").write_text("rack\n")
    assert source_of(wanted, tmp_path, SnmpSocket()).states[0].host.host == "h"


# ---- the whole process ----


@pytest.fixture
def web():
    one = Web()
    yield one
    one.close()


def test_the_process_counts_live_hosts_beside_dead_ones_and_ends_cleanly(tmp_path, web):
    redfish(web)
    (tmp_path / "c.key").write_text("rack\n")
    with snmpd(tmp_path / "agent", apc()) as pdu:
        dead = f"127.0.0.1:{free_port()}"
        rows = (
            f'[[telemetry]]\nname = "pdus"\nkind = "snmp"\nmodel = "apc-rpdu2"\ncommunity_file = "c.key"\nevery_s = 1\n'
            f'hosts = ["{pdu}", "{dead}"]\nracks = {{ "{pdu}" = "A01" }}\n'
            f'[[telemetry]]\nname = "bmcs"\nkind = "redfish"\nscheme = "http"\nevery_s = 1\nhosts = ["{web.host}"]\n'
        )
        site = write(tmp_path, site_text(rows))
        words = [sys.executable, "-m", "tidegate.runtime.telemetry", "--site", str(site), "--state-dir", str(tmp_path),
                 "--write-s", "0.5"]  # fmt: skip
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert json.loads(process.stdout.readline())["sources"] == 2

                def levels():
                    store = opened(tmp_path)
                    try:
                        return {one.level: one for one in store.rows(0, 2**40) if one.milliwh > 0} if store else {}
                    finally:
                        if store is not None:
                            store.close()

                found = eventually(levels, lambda rows: {"pdu", "server"} <= rows.keys())
                store = opened(tmp_path)
                states = eventually(lambda: {state[0]: state for state in store.states()},
                                    lambda found: "no answer" in found["pdus"][4])  # fmt: skip
                readings = {one[1] for one in store.readings()}
                store.close()
                process.send_signal(signal.SIGTERM)
                out, _ = process.communicate(timeout=60)
            finally:
                process.kill()
    assert found["pdu"].rack == "A01" and states["pdus"][2:4] == (2, 1) and dead in states["pdus"][4]
    assert {"outlet_w", "temp_c", "humidity", "inlet_c"} <= readings
    assert process.returncode == 0 and json.loads(out.splitlines()[-1]) == {"telemetry": "ended"}


def test_a_process_that_lacks_a_key_file_ends_with_the_reason(tmp_path):
    site = write(tmp_path, site_text(GOOD + 'community_file = "none.key"\n'))
    words = [sys.executable, "-m", "tidegate.runtime.telemetry", "--site", str(site), "--state-dir", str(tmp_path)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert found.returncode == 78 and "telemetry pdus: community_file none.key" in found.stderr


def test_the_example_of_the_page_is_a_site(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    block, secure = re.findall(r"```toml\n(.*?)```", page, flags=re.S)
    found = load_site(write(tmp_path, site_text(block))).telemetry
    assert [(one.kind, one.every_s) for one in found] == [
        ("snmp", 10.0), ("redfish", 10.0), ("prometheus", 1.0), ("nvml", 10.0)]  # fmt: skip
    plain = next(line for line in block.splitlines() if line.startswith("community_file"))
    (one, *_) = load_site(write(tmp_path, site_text(block.replace(plain, secure)))).telemetry
    assert (one.user, one.auth, one.privacy_file) == ("monitor", "sha256", "snmp.privacy")
