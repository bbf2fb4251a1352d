"""What draws power for no useful work: found by hand, by a plain count, and by the command."""

import json
import random
from collections import Counter

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.live.test_live_account import DESCRIBE, Day, factor_file
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.live.idle_energy import Assumptions, HourlyFactors, api_rows, find_idle
from tidegate.runtime.carbon.live.idle_entries import IdleEntries
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.carbon.sidecar.service import Sidecar
from tidegate.runtime.cli.carbon_commands import carbon, check_report
from tidegate.runtime.gateway.carbon_shown import CarbonRow
from tidegate.runtime.telemetry.energy_store import BUCKET_S, FILE, EnergyStore, Row

DAY = 1_717_200_000 // 86_400 * 86_400


@pytest.fixture
def store(tmp_path):
    one = EnergyStore(tmp_path / FILE)
    yield one
    one.close()


def card(bucket, name, milliwh, *, host="n1", rack="A01", job="", idle=None, unused=0, namespace="ml"):
    idle = (0 if job else milliwh) if idle is None else idle
    owner = namespace if job else ""
    return Row(DAY + bucket * BUCKET_S, "gpus", "room", "card", name, host, rack, owner, job, milliwh, idle, unused,
               BUCKET_S)  # fmt: skip


def drawn(bucket, level, name, milliwh, *, rack="A01"):
    return Row(DAY + bucket * BUCKET_S, "s", "room", level, name, name, rack, "", "", milliwh, 0, 0, BUCKET_S)


def booked(hours, ug_per_milliwh=200, price=None):
    """A period each hour in which the room used 10 kWh."""
    for hour in hours:
        room = {"name": "room", "ug": 10_000_000 * ug_per_milliwh, "energy_milliwh": 10_000_000}
        body = {"start_utc_s": DAY + hour * 3600, "outflows": [room]}
        yield body | ({} if price is None else {"price_u_per_kwh": price})


def found(store, factors=None, buckets=24, **assumed):
    factors = factors or HourlyFactors(booked(range(24), price=250_000), ["room"])
    return find_idle(store, factors, DAY, DAY + buckets * BUCKET_S, Assumptions(**assumed))


def test_a_card_that_nobody_claims_or_that_rests_is_ranked_with_kilograms_and_money(store):
    rows = [card(b, "g0", 5_000_000) for b in range(12)] + [card(b, "g1", 9_000_000, job="a") for b in range(12)]
    rows += [card(12, "g2", 2_000_000, job="b", unused=2_000_000)]
    store.put(rows, [], [])
    first, second = found(store).rows
    assert (first.name, first.milliwh, first.ug, first.cost_u) == ("g0", 60_000_000, 12_000_000_000, 15_000_000)
    assert (second.name, second.milliwh, second.unused_milliwh) == ("g2", 2_000_000, 2_000_000)
    assert first.saving_milliwh == 0, "one card cannot be switched off alone"
    assert dict(first.by_hour) == {DAY: 60_000_000} and dict(second.by_hour) == {DAY + 3600: 2_000_000}


def test_a_server_rests_while_none_of_its_cards_works_and_an_end_has_its_price(store):
    rows = [drawn(b, "server", "n1", 30_000_000) for b in range(12)]
    rows += [card(b, "g0", 5_000_000, job="a" if b < 4 else "") for b in range(12)]
    store.put(rows, [], [])
    server = next(row for row in found(store, standby_w=30.0, boot_s=600).rows if row.level == "server")
    assert server.milliwh == 8 * 30_000_000
    whole, standby, boot = 240_000_000, round(30 * 2400 / 3.6), 60_000_000  # 40 minutes at rest
    assert server.saving_milliwh == whole - standby - boot
    assert server.saving_ug == pytest.approx(server.saving_milliwh * 200, abs=2000)


@pytest.mark.parametrize(("least_s", "saves"), [(1800, True), (2700, False)])
def test_a_short_rest_is_not_worth_an_end(store, least_s, saves):
    rows = [drawn(b, "server", "n1", 30_000_000) for b in range(8)] + [card(b, "g0", 5_000_000) for b in range(8)]
    store.put(rows, [], [])
    server = next(row for row in found(store, least_s=least_s).rows if row.level == "server")
    assert server.milliwh == 240_000_000 and (server.saving_milliwh > 0) is saves


def test_a_rack_rests_only_while_all_its_hosts_do_and_pods_of_the_system_are_no_work(store):
    rows = [drawn(b, "pdu", "p1", 50_000_000) for b in range(6)]
    rows += [card(b, "g0", 5_000_000, host="n1") for b in range(6)]
    rows += [card(b, "g1", 5_000_000, host="n2", job="a" if b == 2 else "") for b in range(6)]
    rows += [card(b, "g2", 5_000_000, host="n1", job="dns", namespace="kube-system") for b in range(6)]
    store.put(rows, [], [])
    rack = next(row for row in found(store, buckets=6).rows if row.level == "rack")
    assert (rack.name, rack.milliwh) == ("A01", 5 * 50_000_000)
    other = next((row for row in found(store, buckets=6, system=()).rows if row.level == "rack"), None)
    assert other is None, "then its pods are work"


def test_what_nobody_says_anything_about_is_named_and_not_judged(store):
    store.put([drawn(0, "server", "10.0.4.21", 9_000_000), drawn(0, "pdu", "p9", 9_000_000, rack="")], [], [])
    one = found(store)
    assert one.rows == [] and one.not_judged == ["pdu p9", "server 10.0.4.21"]


def test_a_server_whose_cards_were_not_heard_is_not_called_idle(store):
    rows = [drawn(b, "server", "n1", 30_000_000) for b in range(6)]
    rows += [card(b, "g0", 5_000_000) for b in range(4)]  # then the exporter fell silent
    store.put(rows, [], [])
    one = found(store)
    server = next(row for row in one.rows if row.level == "server")
    assert server.milliwh == 4 * 30_000_000
    assert one.problems[0].startswith("60.000 kWh of servers and racks were drawn while nobody said what ran there")


def test_a_rack_with_one_host_unheard_is_not_called_idle(store):
    rows = [drawn(b, "pdu", "p1", 50_000_000) for b in range(4)]
    rows += [card(b, "g0", 5_000_000, host="n1") for b in range(4)]
    rows += [card(b, "g1", 5_000_000, host="n2") for b in range(2)]
    store.put(rows, [], [])
    rack = next(row for row in found(store).rows if row.level == "rack")
    assert rack.milliwh == 2 * 50_000_000


def test_hours_without_a_booked_period_are_without_carbon_and_said(store):
    store.put([card(b, "g0", 5_000_000) for b in range(24)], [], [])
    one = found(store, HourlyFactors(booked([0]), ["room"]))
    (row,) = one.rows
    assert (row.milliwh, row.unknown_milliwh, row.ug) == (120_000_000, 60_000_000, 12_000_000_000)
    assert one.problems == ["no period is booked for some hours: 60.000 kWh of cards are without carbon",
                            "no price is known; money is 0"]  # fmt: skip


def test_the_ranking_is_that_of_a_plain_count_over_random_rooms(store):
    rng = random.Random(5)
    rows, cards, servers, busy = [], Counter(), Counter(), set()
    for bucket in range(20):
        for host in range(6):
            for gpu in range(4):
                job = rng.choice(["", "", "a", "b"])
                milliwh = rng.randint(0, 9_000_000)
                unused = milliwh if job and rng.random() < 0.2 else 0
                rows.append(card(bucket, f"h{host} {gpu}", milliwh, host=f"h{host}", job=job, unused=unused))
                cards[f"h{host} {gpu}"] += unused if job else milliwh
                if job and milliwh > unused:
                    busy.add((bucket, host))
            milliwh = rng.randint(0, 50_000_000)
            rows.append(drawn(bucket, "server", f"h{host}", milliwh))
            servers[f"h{host}"] += 0 if (bucket, host) in busy else milliwh
    store.put(rows, [], [])
    one = found(store)
    for level, plain in (("card", cards), ("server", servers)):
        assert {row.name: row.milliwh for row in one.rows if row.level == level} == {
            n: v for n, v in plain.items() if v
        }
    assert [row.milliwh for row in one.rows] == sorted((row.milliwh for row in one.rows), reverse=True)
    assert all(sum(row.by_hour.values()) == row.milliwh for row in one.rows)
    assert all(row.saving_milliwh <= row.milliwh for row in one.rows)


def test_the_rows_of_the_api_have_their_shape_and_the_first_one_names_the_assumptions(store):
    import msgspec

    store.put([card(b, "g0", 5_000_000) for b in range(3)] + [drawn(0, "server", "x", 5)], [], [])
    rows = api_rows(found(store), DAY, DAY + 86_400, Assumptions())
    (shown,) = msgspec.convert(rows, type=list[CarbonRow])
    assert shown.name == "card g0" and "one card cannot be switched off alone" in str(shown.more)
    assert not shown.today.good and shown.today.doubts == ["not judged, nobody says what runs there: server x"]


@pytest.fixture
def state(tmp_path):
    """A state folder with a ledger of two hours and telemetry beside it."""
    (tmp_path / "f").mkdir()
    factor_file(tmp_path / "f" / "a.csv", 1)
    describe = {**DESCRIBE, "carbon": {"factors": "f", "price_per_kwh": 0.25}}
    one = Sidecar(describe, Ledger(tmp_path / "ledger.db"), folder=tmp_path)
    one.refresh()
    day = Day(1)
    one.take([day.step(utc_s) for utc_s in range(DAY, DAY + 7260, 2)])
    one.commit()
    store = EnergyStore(tmp_path / FILE)
    store.put([card(b, "=g0", 5_000_000) for b in range(20)] + [drawn(0, "pdu", "p9", 5, rack="")], [], [])
    store.close()
    return tmp_path


def command(*words):
    return CliRunner().invoke(carbon, ["idle", *map(str, words)])


def test_the_command_ranks_and_says_what_it_rests_on(state):
    text = command(state, "--span", "2024-06-01", "--csv", state / "idle.csv")
    assert text.exit_code == 0, text.output
    assert "=g0" in text.output and "100.000" in text.output and "assumed: one card cannot" in text.output
    assert "not judged, nobody says what runs there: 1 (pdu p9)" in text.output
    assert (state / "idle.csv").read_text().splitlines()[1].startswith("card,'=g0,room,A01,")
    document = json.loads(command(state, "--span", "2024-06-01", "--json").output)
    (row,) = document["rows"]
    assert row["idle_kwh"] == 100.0 and row["cost"] == pytest.approx(25.0) and row["kg"] > 0
    assert row["by_hour_utc_kwh"][:3] == [60.0, 40.0, 0.0] and document["currency"] == "EUR"
    assert json.loads(command(state, "--span", "2024-06-01", "--json", "--level", "rack").output)["rows"] == []


def test_a_day_is_written_into_the_ledger_once_and_stands_in_the_report_in_both_languages(tmp_path):
    (tmp_path / "f").mkdir()
    factor_file(tmp_path / "f" / "a.csv", 1)
    one = Sidecar({**DESCRIBE, "carbon": {"factors": "f"}}, Ledger(tmp_path / "ledger.db"), folder=tmp_path)
    one.refresh()
    day = Day(1)
    one.take([day.step(utc_s) for utc_s in range(DAY, DAY + 4000, 2)])
    one.commit()
    entries = IdleEntries(one.ledger, tmp_path, ["room"])
    assert entries.step(DAY + 86_400 + 3600) == 0, "no telemetry has run"
    store = EnergyStore(tmp_path / FILE)
    store.put([card(b, "g0", 5_000_000) for b in range(12)] + [drawn(0, "pdu", "p9", 5, rack="")], [], [])
    store.close()
    entries = IdleEntries(one.ledger, tmp_path, ["room"])
    assert entries.step(DAY + 86_400 + 3599) == 0
    assert [entries.step(DAY + 86_400 + 3600) for _ in range(2)] == [1, 0]
    assert IdleEntries(one.ledger, tmp_path, ["room"]).step(DAY + 86_400 + 3600) == 0
    (entry,) = one.ledger.entries("idle")
    assert entry.start_utc_s == DAY and entry.body["rows"][0]["energy_milliwh"] == 60_000_000
    assert one.ledger.verify() == []
    found = write(one.ledger, DAY, DAY + 86_400, tmp_path / "r", languages=("en", "zh"), pdf=False)
    document = json.loads(found["json"].read_text())
    (row,) = document["rested"]["rows"]
    assert (row["level"], row["name"], row["idle_kwh"]) == ("card", "g0", "60.000000") and float(row["kg"]) > 0
    assert check_report(one.ledger, found["json"]) == []
    pages = {name: path.read_text() for name, path in found.items() if path.suffix == ".html"}
    assert len(pages) == 2
    told = "one card cannot be switched off alone"
    assert [("g0" in page, told in page) for page in pages.values()] == [(True, True), (True, False)], list(pages)
    assert any("1 servers and PDUs are not judged" in page for page in pages.values())
    assert any("闲置仍耗电的设备" in page for page in pages.values())


def test_a_store_that_cannot_be_read_is_tried_again_and_stops_nothing(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.begin("s")
    (tmp_path / FILE).parent.mkdir(exist_ok=True)
    (tmp_path / FILE).write_bytes(b"no database" * 200)
    entries = IdleEntries(ledger, tmp_path, ["room"])
    assert entries.step(DAY + 86_400 + 3600) == 0 and "cannot be read" in entries.trouble
    (tmp_path / FILE).unlink()
    store = EnergyStore(tmp_path / FILE)
    store.put([card(0, "g0", 5_000_000)], [], [])
    store.close()
    assert entries.step(DAY + 86_400 + 3600) == 1 and not entries.trouble


def test_a_folder_without_telemetry_or_ledger_is_named(tmp_path, state):
    bare = tmp_path / "bare"
    bare.mkdir()
    missing = command(bare)
    assert missing.exit_code == 69 and "does the site file have [[telemetry]]?" in missing.output
    EnergyStore(bare / FILE).close()
    assert command(bare).exit_code == 78
    assert command(state, "--span", "yesterday").exit_code == 65
