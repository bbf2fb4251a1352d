"""The gateway over a fake core: what it publishes, answers, orders and keeps."""

import time

import pytest

from tidegate.ext.abi.image import REASONS_BY_NUMBER
from tidegate.hal.description import RENAMED_POINTS
from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.api import messages


def test_describe_names_every_point_with_its_unit(core, gateway):
    with gateway.client() as site:
        told = site.describe()
    old = [name for name, new in RENAMED_POINTS.items() if new in core.names]
    assert [row["name"] for row in told["points"]] == [*core.names, "site.soc", *old], (
        "the image's own, what is worked out of them, then the names of before"
    )
    assert {row["name"]: row["unit"] for row in told["points"]}["grid.import_wh"] == "Wh"
    assert told["modes"][0] == "tripped" and "rest" in told["reasons"]


def test_get_shows_a_value_only_while_its_quality_is_good_or_held(core, gateway):
    core.values["grid.power_w"] = (1234.5, 1)
    core.values["bms1.soc"] = (0.5, 3)
    core.values["bms1.temp_c"] = (float("nan"), 0)
    core.step()
    with gateway.client() as site:
        got = site.get("grid.power_w", "bms1.soc", "bms1.temp_c")
    assert got == {"grid.power_w": (1234.5, 1), "bms1.soc": (None, 3), "bms1.temp_c": (None, 0)}


def test_a_limit_of_infinity_is_shown_as_no_value(core, gateway):
    core.values["site.grid_limit_w"] = (float("inf"), 1)
    core.step()
    with gateway.client() as site:
        assert site.get("site.grid_limit_w")["site.grid_limit_w"] == (None, 1)


def test_get_of_an_unknown_point_is_refused_by_name(gateway):
    with gateway.client() as site, pytest.raises(clients.ClientError) as refused:
        site.get("grid.powr_w")
    assert refused.value.code == "unknown-point" and "grid.powr_w" in refused.value.text


def test_meter_records_come_in_order_and_hold_energies_and_no_temperatures(core, gateway):
    with gateway.client() as site:
        heard = site.subscribe("meter", since={"meter": (gateway.gateway.records.boot, -1)})
        for value in range(5):
            core.values["grid.import_wh"] = (float(value), 1)
            core.meter()
        got = [heard.receive(5.0) for _ in range(5)]
    assert [record["seq"] for record in got] == [0, 1, 2, 3, 4]
    assert [record["points"]["grid.import_wh"] for record in got] == [[float(value), 1] for value in range(5)]
    assert "bms1.soc" in got[0]["points"] and "bms1.temp_c" not in got[0]["points"]


def test_what_is_published_is_what_the_schema_says(core, gateway):
    import msgspec

    with gateway.client() as site:
        heard = site.subscribe(
            "meter", "event", "snapshot", "head", since={"event": (gateway.gateway.records.boot, -1)}
        )
        site.get("site.mode")
        until = time.monotonic() + 10
        seen = {}
        while len(seen) < 4 and time.monotonic() < until:
            core.meter()
            core.event(code=1, unit=0)
            core.snapshot()
            time.sleep(0.005)
            message = heard.receive(0.05)
            if message is not None:
                seen[message["kind"]] = message
    assert set(seen) == {"meter", "event", "snapshot", "head"}
    for kind, typed in (
        ("meter", messages.Meter),
        ("event", messages.Event),
        ("snapshot", messages.Snapshot),
        ("head", messages.Head),
    ):
        msgspec.convert(seen[kind], type=typed)


def test_an_event_carries_the_name_of_its_fault(core, gateway):
    core.event(kind=4, code=1, unit=0)
    with gateway.client() as site:
        heard = site.subscribe("event", since={"event": (gateway.gateway.records.boot, -1)})
        while (event := heard.receive(5.0)) and event["event"] != "fault_on":
            pass
    assert event is not None and event["name"] == "bms_alarm" and event["unit"] == 0


def test_a_restarted_gateway_loses_and_doubles_no_record(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    boot = first.gateway.records.boot
    with first.client(timeout_s=10) as site:
        heard = site.subscribe("meter", "event", since={"meter": (boot, -1), "event": (boot, -1)})
        got = []

        def count(kind: str) -> int:
            return sum(kind in (m["kind"], m.get("event")) for m in got)

        def take(meters: int, faults: int) -> None:
            until = time.monotonic() + 20
            while (count("meter") < meters or count("fault_on") < faults) and time.monotonic() < until:
                message = heard.receive(0.2)
                if message is not None:
                    got.append(message)

        for _ in range(10):
            core.meter()
            core.event(code=0)
        take(10, 10)
        first.close()
        for _ in range(10):
            core.meter()
            core.event(code=1)
        second = start_gateway()
        for _ in range(10):
            core.meter()
        take(30, 20)
        second.close()
    meters = [message["seq"] for message in got if message["kind"] == "meter"]
    events = [message["seq"] for message in got if message["kind"] == "event"]
    assert meters == list(range(30))
    assert events == list(range(len(events)))
    assert count("fault_on") == 20


def test_a_setpoint_needs_a_lease(gateway):
    with gateway.client() as site, pytest.raises(clients.ClientError) as refused:
        site.ask("setpoint", lease="0" * 32, seq=0, setpoint_w=1000.0, for_ms=1000)
    assert refused.value.code == "no-lease"


def test_a_setpoint_under_a_lease_reaches_the_core_and_ends_with_it(core, gateway):
    with gateway.client() as site:
        with site.lease(period_s=0.2) as lease:
            answer = lease.setpoint(5000.0, for_s=5)
            assert answer["status"] == "applied" and answer["applied_w"] == 5000.0
            order = core.memory.order(1)
            assert order.value == 5000.0
            # It runs out with the lease, three periods from the last renewal, whatever becomes of the gateway.
            assert order.expires_t_ns - time.monotonic_ns() <= 0.6e9
        assert core.memory.order(1).expires_t_ns == 0


def test_a_setpoint_outside_the_corridor_is_clamped_and_says_so(core, gateway):
    core.values["site.reason"] = (float(REASONS_BY_NUMBER.index("connection limit")), 1)
    core.step()
    with gateway.client() as site, site.lease() as lease:
        answer = lease.setpoint(90_000.0, for_s=1)
    assert answer["status"] == "clamped" and answer["applied_w"] == 20_000.0 and answer["by"] == "connection limit"


def test_a_setpoint_while_tripped_is_clamped_to_zero(core, gateway):
    core.values["site.mode"] = (0.0, 1)
    core.step()
    with gateway.client() as site, site.lease() as lease:
        answer = lease.setpoint(1000.0, for_s=1)
    assert (answer["status"], answer["applied_w"], answer["by"]) == ("clamped", 0.0, "tripped")


def test_a_lease_that_is_not_renewed_ends_within_three_periods(core, gateway):
    with gateway.client() as site:
        lease = site.ask("lease", action="acquire", period_ms=100)
        site.ask("setpoint", lease=lease["lease"], seq=0, setpoint_w=700.0, for_ms=60_000)
        assert core.memory.order(1).expires_t_ns - time.monotonic_ns() <= 0.3e9
        until = time.monotonic() + 5
        while core.memory.order(1).expires_t_ns and time.monotonic() < until:
            time.sleep(0.01)
        assert core.memory.order(1).expires_t_ns == 0
        with pytest.raises(clients.ClientError) as refused:
            site.ask("lease", action="renew", lease=lease["lease"])
        assert refused.value.code == "no-lease"


def test_the_same_request_asked_twice_is_done_once(core, gateway):
    with gateway.client() as site:
        lease = site.ask("lease", action="acquire", period_ms=3000)["lease"]
        first = site.ask("setpoint", id="one", lease=lease, seq=0, setpoint_w=700.0, for_ms=60_000)
        seq = core.memory.order(1).seq
        again = site.ask("setpoint", id="one", lease=lease, seq=0, setpoint_w=700.0, for_ms=60_000)
        assert again == first and core.memory.order(1).seq == seq
        with pytest.raises(clients.ClientError) as refused:
            site.ask("setpoint", id="two", lease=lease, seq=0, setpoint_w=900.0, for_ms=60_000)
        assert refused.value.code == "replayed" and core.memory.order(1).value == 700.0


def test_a_late_command_is_refused(core, gateway):
    with gateway.client() as site:
        now = site.ask("health")["t_ns"]
        with pytest.raises(clients.ClientError) as refused:
            site.ask("mode", mode="stop", not_after_t_ns=now - 1)
        assert refused.value.code == "late"
        with pytest.raises(clients.ClientError) as refused:
            site.ask("mode", mode="stop", not_after_t_ns=now + 60_000_000_000)
        assert refused.value.code == "late"
        assert core.memory.order(0).value == 0.0


def test_a_tighter_limit_reaches_the_core_and_a_wider_one_is_clamped_to_the_site(core, gateway):
    with gateway.client() as site:
        assert site.limit(import_w_max=30_000.0, for_s=60)["status"] == "applied"
        assert core.memory.order(2).value == 30_000.0
        answer = site.limit(import_w_max=90_000.0, for_s=60)
    assert (answer["status"], answer["applied_w"], answer["by"]) == ("clamped", 48_000.0, "site file")


def test_stop_is_ordered_without_an_end_and_run_lifts_it_and_arms(core, gateway):
    with gateway.client() as site:
        site.stop()
        assert core.memory.order(0).value == 2.0
        armed = core.memory.order(5).seq
        site.run()
        assert core.memory.order(0).value == 1.0 and core.memory.order(5).seq > armed


def test_a_tripped_site_is_armed_by_itself_but_not_over_a_latch(core, gateway):
    core.values["site.mode"] = (0.0, 1)
    core.values["unit0.latch_bits_lo"] = (2.0, 1)
    core.step()
    time.sleep(0.05)
    before = core.memory.order(5).seq
    time.sleep(1.3)
    assert core.memory.order(5).seq == before
    core.values["unit0.latch_bits_lo"] = (0.0, 1)
    until = time.monotonic() + 10
    while core.memory.order(5).seq == before and time.monotonic() < until:
        time.sleep(0.02)
    assert core.memory.order(5).seq > before


def test_a_core_that_stands_still_is_told_to_the_one_who_commands(core, start_gateway):
    core.step()
    running = start_gateway()
    with running.client() as site, pytest.raises(clients.ClientError) as refused:
        site.ack()
    assert refused.value.code == "not-applied"


def test_commands_to_a_core_that_has_ended_are_refused(core, gateway):
    core.memory.advance(running=False)
    with gateway.client() as site, pytest.raises(clients.ClientError) as refused:
        site.stop()
    assert refused.value.code == "core-down"


def test_the_sockets_are_closed_to_other_users(gateway):
    for name in ("api", "stream"):
        assert (gateway.runtime / name).stat().st_mode & 0o007 == 0


def test_why_tells_mode_reason_corridor_and_faults(core, gateway):
    core.values["site.reason"] = (float(REASONS_BY_NUMBER.index("peak limit")), 1)
    core.values["unit0.fault_bits_lo"] = (1.0, 1)
    core.step()
    with gateway.client() as site:
        told = site.why()
    assert told["mode"] == "run" and told["reason"] == "peak limit" and told["faults"] == ["unit0 bms_silent"]
    assert told["corridor_hi_w"] == 20_000.0 and told["lease"] is None


def test_health_tells_of_core_journal_and_gateway(gateway):
    with gateway.client() as site:
        told = site.health()
    assert told["core"]["running"] and not told["core"]["stalled"]
    assert told["journal"]["error"] == "" and told["gateway"]["snapshots_dropped"] == 0


def test_a_stop_outlives_a_restart_of_everything_until_it_is_lifted(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client() as site:
        site.stop()
    first.close()
    core.memory.put_order(0, 0.0, 0, 1)  # a new core starts with an empty mailbox
    second = start_gateway()
    assert core.memory.order(0).value == 2.0
    with second.client() as site:
        assert site.why()["stopped"]
        site.run()
    second.close()
    core.memory.put_order(0, 0.0, 0, 1)
    start_gateway()
    assert core.memory.order(0).value == 0.0


def test_a_limit_that_a_gateway_before_left_is_not_widened(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client() as site:
        site.limit(import_w_max=20_000.0, for_s=60)
    first.close()
    second = start_gateway()
    with second.client() as site:
        answer = site.limit(import_w_max=30_000.0, for_s=60)
    assert (answer["status"], answer["applied_w"]) == ("clamped", 20_000.0)
    assert core.memory.order(2).value == 20_000.0


def test_ages_and_histograms_come_where_they_are_asked_for(core, gateway):
    core.values["bms1.temp_c"] = (float("nan"), 0)
    core.step()
    with gateway.client() as client:
        got = client.ask("get", points=["grid.power_w", "bms1.temp_c"], ages=True)
        assert 0.0 <= got["ages_ms"]["grid.power_w"] < 60_000
        assert "ages_ms" not in client.ask("get", points=["grid.power_w"])
        told = client.ask("health", histograms=True)["health"]["histograms"]
    assert {"lateness", "work", "read", "publish"} <= set(told)


def test_a_command_on_behalf_of_somebody_names_both_in_the_journal(gateway):
    with gateway.client() as client:
        events = client.subscribe("event")
        client.ask("mode", mode="stop", user="anna")
        client.ask("note", name="login", detail="at ttyS0", user="anna")
        client.ask("mode", mode="run")
        found = {}
        while len(found) < 3:
            event = events.receive(10)
            assert event is not None
            if event["event"] in ("order", "note"):
                found[event["name"]] = event["detail"]
    assert found["stop"].endswith(" for anna") and found["login"].endswith(" for anna: at ttyS0")
    assert " for " not in found["run"]


def test_a_lease_outlives_a_restart_of_the_gateway_and_nobody_else_gets_it(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client(timeout_s=5) as site:
        lease = site.ask("lease", action="acquire", period_ms=3000)
        site.ask("setpoint", lease=lease["lease"], seq=4, setpoint_w=700.0, for_ms=60_000)
        order = core.memory.order(1)
        first.close()
        second = start_gateway()
        told = site.why()["lease"]
        assert told["setpoint_w"] == 700.0 and 0 < told["expires_ms"] <= lease["expires_ms"]
        assert core.memory.order(1) == order, "the restart itself touches nothing"
        with pytest.raises(clients.ClientError) as refused:
            site.ask("setpoint", lease=lease["lease"], seq=4, setpoint_w=900.0, for_ms=60_000)
        assert refused.value.code == "replayed"
        renewed = site.ask("lease", action="renew", lease=lease["lease"])
        assert renewed["next_seq"] == 5 and core.memory.order(1).expires_t_ns > order.expires_t_ns
        site.ask("lease", action="release", lease=lease["lease"])
        assert core.memory.order(1).expires_t_ns == 0
        second.close()
        start_gateway()
        assert site.why()["lease"] is None


def test_a_lease_that_ran_out_while_the_gateway_was_away_is_not_resumed(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client() as site:
        site.ask("lease", action="acquire", period_ms=50)
    first.gateway.desk.expire = lambda now_ns: None  # away: nobody ends it
    first.close()
    time.sleep(0.2)
    with start_gateway().client() as site:
        assert site.why()["lease"] is None


def test_a_lease_of_another_start_of_the_core_is_not_resumed(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client() as site:
        site.ask("lease", action="acquire", period_ms=3000)
    first.close()
    core.boot(b"another boot id.")
    with start_gateway().client() as site:
        assert site.why()["lease"] is None


def test_a_client_keeps_its_lease_while_the_gateway_restarts(core, start_gateway):
    core.step()
    core.beat()
    first = start_gateway()
    with first.client(timeout_s=10) as site, site.lease(period_s=0.5) as lease:
        lease.setpoint(300.0, 60)
        first.close()
        start_gateway()
        time.sleep(1.2)
        assert not lease.lost
        assert lease.setpoint(400.0, 60)["status"] in ("applied", "clamped")
        assert core.memory.order(1).value == 400.0
