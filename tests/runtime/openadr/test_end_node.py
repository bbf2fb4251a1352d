"""A utility's events become orders, plans, announcements and prices; what was measured goes back; nothing widens."""

import json
import time
from datetime import UTC, datetime

import pytest

pytest.importorskip("requests")

from tests.runtime.openadr.vtn_stub import VtnStub
from tidegate.runtime.api.connection import ClientError, Point
from tidegate.runtime.openadr.end_node import OUTBOX_FILE, PRICES_FILE, EndNode, Place
from tidegate.runtime.openadr.vtn_client import Vtn, VtnError
from tidegate.runtime.openadr.vtn_events import EventError, duration_s, understood
from tidegate.runtime.planner.grid_events import GridEvent, read_events, write_events
from tidegate.runtime.planner.price_folder import read_price_file

NOON = 1_800_000_000 // 900 * 900


def iso(at_s):
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def event(kind, *values, units="KW", start_s=NOON, duration="PT1H", name="e1", **more):
    return {
        "id": name, "programID": "p", "eventName": name, "objectType": "EVENT",
        "intervalPeriod": {"start": iso(start_s), "duration": duration},
        "payloadDescriptors": [{"objectType": "EVENT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": units}],
        "intervals": [{"id": at, "payloads": [{"type": kind, "values": [one]}]} for at, one in enumerate(values)],
        **more,
    }  # fmt: skip


class Site:
    """A gateway with what was ordered."""

    def __init__(self):
        self.held, self.limits, self.plans, self.in_ws, self.refuse_plan = None, [], [], 0.0, False

    def get(self, *names):
        known = {"site.grid_in_ws": self.in_ws, "site.grid_out_ws": 0.0, "site.soc": 0.5}
        return {name: Point(known[name], 1) for name in names}

    def why(self):
        return {"grid_operator": self.held}

    def grid_operator(self, *, import_w_max=None, export_w_max=None, stop=False, for_s, reference=""):
        assert len(reference) <= 64 and for_s <= 86_400
        self.held = {"import": import_w_max, "export": export_w_max, "for_s": for_s, "reference": reference}

    def release_grid_operator(self):
        self.held = None

    def limit(self, *, import_w_max=None, export_w_max=None, for_s):
        self.limits.append((import_w_max, export_w_max, for_s))

    def schedule(self, steps, end_utc_s, *, rank="order"):
        if self.refuse_plan and rank == "planner":
            raise ClientError("not-allowed", "the plan is hall's order")
        self.plans.append((steps, end_utc_s, rank))


@pytest.fixture
def vtn():
    made = VtnStub()
    yield made
    made.close()


@pytest.fixture
def node(vtn, tmp_path):
    said = []
    (tmp_path / "prices").mkdir()
    place = Place("ven-1", "p", tmp_path, tmp_path / "prices", ("zone-7",))
    made = EndNode(Site(), Vtn(vtn.url, "me", "word"), place, said.append)
    made.said = said
    return made


def test_the_strictest_limit_of_all_events_is_ordered_until_something_changes(vtn, node):
    vtn.events = [
        event("IMPORT_CAPACITY_LIMIT", 60, 30, duration="PT30M", name="dim"),
        event("IMPORT_CAPACITY_LIMIT", 45_000, units="W", duration="PT2H", name="other"),
        event("EXPORT_CAPACITY_LIMIT", 0.005, units="MW", name="sun"),
    ]
    node.step(NOON - 10)
    assert node.client.held is None
    node.step(NOON + 60)
    assert node.client.held == {"import": 45e3, "export": 5e3, "for_s": 1740.0, "reference": "OpenADR dim, other, sun"}
    node.step(NOON + 1800)
    assert node.client.held["import"] == 30e3 and node.client.held["for_s"] == 1800
    vtn.events = []  # called off
    node.step(NOON + 1900)
    assert node.client.held is None and node.told.limits == "none"


def test_a_server_that_is_gone_ends_nothing_before_its_time(vtn, node):
    vtn.events = [event("IMPORT_CAPACITY_LIMIT", 30)]
    node.step(NOON)
    vtn.away = True
    node.step(NOON + 600)
    assert node.client.held["import"] == 30e3 and node.client.held["for_s"] == 3000
    assert "503" in node.told.state
    node.step(NOON + 3600)
    assert node.client.held is None


def test_an_order_that_somebody_else_gave_for_the_grid_stays_and_is_tightened_beside_it(vtn, node):
    node.client.held = {"reference": "by telephone"}
    vtn.events = [event("IMPORT_CAPACITY_LIMIT", 30)]
    node.step(NOON)
    assert node.client.held == {"reference": "by telephone"} and node.client.limits == [(30e3, None, 3600)]
    vtn.events = []
    node.step(NOON + 1)
    assert node.client.held == {"reference": "by telephone"}


def test_a_dispatch_is_a_plan_of_grid_power_the_stronger_event_first_and_ends_with_it(vtn, node):
    vtn.events = [
        event("DISPATCH_SETPOINT", 20, 40, name="weak", priority=5),
        event("DISPATCH_SETPOINT", 10, start_s=NOON + 1800, duration="PT15M", name="strong", priority=1),
    ]
    node.step(NOON + 5)
    assert [plan[2] for plan in node.client.plans] == ["planner", "order"]
    steps, end_utc_s, _ = node.client.plans[-1]
    assert [(one["start_utc_s"] - NOON, one.get("target_grid_w")) for one in steps] == [
        (0, 20e3), (1800, 10e3), (2700, 20e3), (3600, 40e3)]  # fmt: skip
    assert end_utc_s == NOON + 7200
    node.step(NOON + 35)
    assert len(node.client.plans) == 2  # the same: nothing sent
    vtn.events = []
    node.step(NOON + 65)
    assert node.client.plans[-1] == ([], 0, "order")


def test_a_plan_that_a_person_ordered_is_left_alone_and_that_is_told(vtn, node):
    node.client.refuse_plan = True
    vtn.events = [event("DISPATCH_SETPOINT", 20)]
    node.step(NOON)
    assert node.client.plans == [] and any("hall's order" in text for text in node.told.left_out)


def test_levels_are_announced_to_the_planner_beside_what_people_announced(vtn, node):
    mine = GridEvent("mine", NOON + 86_400, NOON + 90_000, 0.2)
    write_events(node.place.folder, (mine,))
    vtn.events = [event("SIMPLE", 0, 2, 3, units="", name="heat")]
    node.step(NOON)
    found = read_events(node.place.folder)
    assert mine in found and sorted(one.less for one in found if one != mine) == [0.25, 0.5]
    vtn.events = []
    node.step(NOON)
    assert read_events(node.place.folder) == (mine,)


def test_prices_are_a_file_of_the_planners_folder(vtn, node):
    rows = event("PRICE", 300, 100, -20, units="MWH")
    rows["payloadDescriptors"][0]["currency"] = "EUR"
    vtn.events = [rows]
    node.step(NOON)
    found = read_price_file(node.place.prices / PRICES_FILE)
    assert [(begin - NOON, price) for begin, _, price in found] == [(0, 0.3), (3600, 0.1), (7200, -0.02)]


@pytest.mark.parametrize("old", [False, True])
def test_what_was_measured_goes_back_once_an_interval_is_over_and_waits_while_the_server_is_away(tmp_path, old):
    vtn = VtnStub(old)
    try:
        node = EndNode(Site(), Vtn(vtn.url, "me", "word"), Place("v", "p", tmp_path, old_reports=old), lambda _: None)
        asked = [{"payloadType": kind} for kind in ("USAGE", "DEMAND", "STORAGE_CHARGE_LEVEL", "BASELINE")]
        vtn.events = [event("IMPORT_CAPACITY_LIMIT", 30, 20, reportDescriptors=asked)]
        node.step(NOON)
        node.client.in_ws = 3.6e6 * 25
        vtn.away = True
        node.step(NOON + 3600)
        assert node.told.reports_waiting == 1 and json.loads((tmp_path / OUTBOX_FILE).read_text())
        assert "a report of BASELINE was asked for and is not made" in node.told.left_out
        again = EndNode(Site(), node.server, node.place, lambda _: None)  # the process was started again
        vtn.away = False
        again.step(NOON + 3630)
        (row,) = vtn.reports
        values = {one["type"]: one["values"][0] for one in row["resources"][0]["intervals"][0]["payloads"]}
        assert values == {"USAGE": 25.0, "DEMAND": 25.0, "STORAGE_CHARGE_LEVEL": 0.5}
        assert row["resources"][0]["intervalPeriod"] == {"start": iso(NOON), "duration": "PT3600S"}
        assert vtn.refused == [] and json.loads((tmp_path / OUTBOX_FILE).read_text()) == []
    finally:
        vtn.close()


def test_pages_tokens_and_answers_that_are_none(vtn):
    server = Vtn(vtn.url, "me", "word")
    vtn.events = [event("SIMPLE", 1, name=f"e{n}") for n in range(120)]
    assert len(server.events("p")) == 120 and server.events("q") == [] and vtn.token_requests == 1
    vtn.tokens.clear()  # the server has forgotten it
    assert len(server.events("p")) == 120 and vtn.token_requests == 2
    for answer, word in ((b"<html>", "no JSON"), ({"a": 1}, "no list"), (b"x" * (5 << 20), "more than 4 MiB")):
        vtn.answer = answer
        with pytest.raises(VtnError, match=word):
            server.events("p")
    with pytest.raises(VtnError, match="403"):
        Vtn(vtn.url, "me", "wrong").events("p")
    for url in ("http://vtn.example.org/x", "ftp://127.0.0.1/x", "vtn"):
        with pytest.raises(VtnError, match="https"):
            Vtn(url, "me", "word")


@pytest.mark.parametrize(("change", "word"), [
    ({"intervals": []}, "0 intervals"), ({"intervalPeriod": None}, "no start"),
    ({"intervalPeriod": {"start": "2027-01-01T00:00:00"}}, "no time zone"),
    ({"intervalPeriod": {"start": "soon"}}, "no date"), ({"intervals": 5}, "list of objects"),
    ({"intervalPeriod": {"start": iso(NOON), "duration": "1h"}}, "no duration"),
    ({"payloadDescriptors": [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KVA"}]}, "KVA"),
    *(({"intervals": [{"id": 0, "payloads": [{"type": "IMPORT_CAPACITY_LIMIT", "values": values}]}]}, word)
      for values, word in (([-1], "below 0"), ([True], "one number"), (["a"], "one number"), ([1, 2], "one number"),
                           ([float("nan")], "one number"))),
])  # fmt: skip
def test_an_event_that_is_none_is_named_and_costs_no_other(change, word):
    found = understood([{**event("IMPORT_CAPACITY_LIMIT", 5), **change}, event("SIMPLE", 1), 7], ())
    assert len(found.pieces) == 1 and len(found.left_out) == 2
    assert word in found.left_out[0] and "nothing of it is acted on" in found.left_out[0]


def test_events_for_others_are_not_ours_in_either_way_of_writing_targets():
    for targets, ours in ((["zone-7"], 1), (["zone-8"], 0), ([{"type": "VEN_NAME", "values": ["zone-7"]}], 1),
                          ([{"type": "VEN_NAME", "values": ["x"]}], 0), ([], 1), (None, 1)):  # fmt: skip
        found = understood([event("SIMPLE", 1, targets=targets)], ("zone-7",))
        assert len(found.pieces) == ours


def test_times_durations_and_kinds_that_are_not_acted_on():
    assert [duration_s(one) for one in ("PT15M", "P1DT1H", "PT0.5S", "P2W")] == [900, 90_000, 0.5, 1_209_600]
    assert duration_s("P9999Y") == duration_s("PT0S") == 366 * 86_400
    for wrong in ("P", "", "PT", None, 5):
        with pytest.raises(EventError):
            duration_s(wrong)
    at_once = event("SIMPLE", 1, createdDateTime=iso(NOON + 7))
    at_once["intervalPeriod"]["start"] = "0000-00-00"
    assert understood([at_once], ()).pieces[0].begin_s == NOON + 7
    assert understood([event("CURVE", 1)], ()).left_out == ["event e1: CURVE is not acted on"]


def test_a_real_gateway_takes_the_limit_and_the_dispatch_and_lets_them_go(gateway, vtn, tmp_path):
    now_s = time.time()
    vtn.events = [
        event("IMPORT_CAPACITY_LIMIT", 30, start_s=now_s - 60, name="dim"),
        event("DISPATCH_SETPOINT", 20, start_s=now_s - 60, name="draw"),
    ]
    with gateway.client() as site:
        node = EndNode(site, Vtn(vtn.url, "me", "word"), Place("v", "p", tmp_path), lambda _: None)
        node.step(now_s)
        why = site.why()
        assert node.told.left_out == [] and why["grid_operator"]["import_w_max"] == 30e3
        assert why["grid_operator"]["reference"] == "OpenADR dim"
        assert [one.get("target_grid_w") for one in why["plan"]["steps"]][:1] == [20e3]
        vtn.events = []
        node.step(now_s + 1)
        why = site.why()
        assert not why.get("grid_operator") and not why.get("plan")
