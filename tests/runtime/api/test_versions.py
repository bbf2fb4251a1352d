"""An old client and a new gateway, a new client and an old gateway, journals of before: read, or refused by name."""

import asyncio
import threading
import time

import msgpack
import pytest
import zmq

from tidegate.hal.description import RENAMED_NODE_FIELDS, RENAMED_POINTS, described
from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.api import messages
from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.state.journal import Record

OLD, NEW = "site.ess_in_ws", "site.ess_discharged_ws"


@pytest.fixture
def site(core, start_gateway):
    core.describe["nodes"] = [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": None}]
    core.values[NEW] = (42.0, 1)
    core.step()
    core.beat()
    return start_gateway()


class OldClient:
    """A client of version 1: its bytes, its names, and nothing that this release has learned."""

    def __init__(self, folder):
        self.context = zmq.Context()
        self.api, self.stream = self.context.socket(zmq.DEALER), self.context.socket(zmq.SUB)
        self.stream.setsockopt(zmq.SUBSCRIBE, b"meter")
        self.api.connect(f"ipc://{folder}/api")
        self.stream.connect(f"ipc://{folder}/stream")

    def ask(self, op, **fields):
        self.api.send(msgpack.packb({"v": 1, "id": op, "op": op, **fields}))
        assert self.api.poll(10_000)
        return msgpack.unpackb(self.api.recv())

    def close(self):
        self.context.destroy(0)


def test_an_old_client_is_answered_in_its_version_and_its_names(core, site):
    old = OldClient(site.runtime)
    try:
        got = old.ask("get", points=[OLD, "site.ess_out_ws"])
        assert (got["v"], got["status"]) == (1, "ok") and got["points"][OLD] == [42.0, 1]
        said = old.ask("describe")["site"]
        names = [row["name"] for row in said["points"]]
        assert names[: len(core.names)] == core.names and set(RENAMED_POINTS) <= set(names)
        assert said["nodes"][0]["in_wh"] == "grid.import_wh" and "out_wh" in said["nodes"][0]
        assert set(RENAMED_POINTS) <= set(old.ask("get", points=[])["points"])
        until = time.monotonic() + 20
        while not old.stream.poll(200) and time.monotonic() < until:
            core.meter()
        points = msgpack.unpackb(old.stream.recv_multipart()[1])["points"]
        assert points[OLD] == points[NEW] == [42.0, 1]
        refused = old.ask("get", points=["site.ess_inn_ws"])
        assert (refused["v"], refused["code"]) == (1, "unknown-point")
    finally:
        old.close()


def test_what_the_gateway_says_of_a_site_is_the_same_site_again(site):
    with site.client() as client:
        said = client.describe()
    found = described(said)
    assert [point.name for point in found.points] == said_names(site) and found.nodes[0].positive_wh == "grid.import_wh"


def said_names(site):
    return [*site.gateway.server.site.described.point_names, "site.soc"]


class OldGateway(threading.Thread):
    """A gateway that speaks one other version only, with the names of version 1."""

    def __init__(self, folder, version=1):
        super().__init__(daemon=True)
        self.version = version
        self.asked = []
        self.ending = False
        self.context = zmq.Context()
        self.api = self.context.socket(zmq.ROUTER)
        self.api.bind(f"ipc://{folder}/api")
        self.start()

    def run(self):
        while not self.ending:
            if not self.api.poll(50):
                continue
            peer, data = self.api.recv_multipart()
            request = msgpack.unpackb(data)
            self.asked.append(request)
            answer = {"v": self.version, "id": request["id"], "op": request["op"]}
            if request["v"] != self.version:
                more = {"status": "refused", "code": "version", "text": f"this gateway speaks {self.version}"}
            elif request["op"] == "get":
                more = {"status": "ok", "points": {name: [7.0, 1] for name in request["points"] or [OLD]}}
            elif request["op"] == "describe":
                points = [{"name": name, "unit": "Ws"} for name in (*RENAMED_POINTS, "site.ess_covered_s")]
                nodes = [{"role": "grid", "device": "grid", "in_wh": "grid.import_wh", "out_wh": None}]
                points.append({"name": "grid.import_wh"})
                more = {"status": "ok", "site": {"schema": 1, "points": points, "nodes": nodes}}
            else:
                more = {"status": "refused", "code": "unknown-op", "text": "op is not known"}
            self.api.send_multipart([peer, msgpack.packb({**answer, **more})])

    def close(self):
        self.ending = True
        self.join()  # a socket belongs to one thread
        self.context.destroy(0)


@pytest.fixture
def old_gateway(tmp_path):
    made = OldGateway(tmp_path)
    yield made
    made.close()


def test_a_new_client_speaks_its_version_and_names_to_an_old_gateway(old_gateway, tmp_path):
    with clients.Client(f"ipc://{tmp_path}", timeout_s=20) as site:
        assert site.get(NEW, "site.grid_w") == {NEW: (7.0, 1), "site.grid_w": (7.0, 1)}
        assert old_gateway.asked[-1]["points"] == [OLD, "site.grid_w"]
        assert site.get()[NEW] == (7.0, 1)
        assert [request["v"] for request in old_gateway.asked] == [2, 1, 1]  # the version is asked for once
        found = described(site.describe())
    assert set(RENAMED_POINTS.values()) <= set(found.point_names) and not set(RENAMED_POINTS) & set(found.point_names)
    assert {flow.name: flow.register for flow in nodes_of(found).flows} == {"grid.import": "grid.import_wh"}


def test_the_asyncio_client_does_the_same(old_gateway, tmp_path):
    async def talk():
        async with AsyncClient(f"ipc://{tmp_path}", timeout_s=20) as site:
            return await site.get(NEW)

    assert asyncio.run(talk()) == {NEW: (7.0, 1)}


def test_an_operation_that_an_old_gateway_does_not_know_is_refused_by_name(old_gateway, tmp_path):
    with (
        clients.Client(f"ipc://{tmp_path}", timeout_s=20) as site,
        pytest.raises(clients.ClientError, match="alarms") as no,
    ):
        site.ask("alarms")
    assert no.value.code == "unknown-op"


@pytest.mark.parametrize("version, which", [(0, "gateway"), (3, "client")])
def test_a_version_that_nobody_shares_is_refused_with_it_and_the_remedy(tmp_path, version, which):
    other = OldGateway(tmp_path, version)
    try:
        with clients.Client(f"ipc://{tmp_path}", timeout_s=20) as site, pytest.raises(clients.ClientError) as refused:
            site.get()
    finally:
        other.close()
    assert refused.value.code == "version"
    assert f"speaks version {version}, this client 1 and 2; bring the {which} up to date" in refused.value.text


def test_the_gateway_refuses_a_version_with_those_that_it_speaks(site):
    old = OldClient(site.runtime)
    try:
        old.api.send(msgpack.packb({"v": 3, "id": "x", "op": "get"}))
        answer = msgpack.unpackb(old.api.recv())
    finally:
        old.close()
    assert (answer["v"], answer["code"]) == (messages.WIRE_VERSION, "version") and "speaks 1, 2" in answer["text"]


def test_meter_records_of_an_old_journal_are_replayed_under_both_names(site):
    boot = bytes.fromhex(site.gateway.records.boot)
    for seq in range(3):
        body = {"v": 1, "kind": "meter", "boot": boot.hex(), "seq": seq, "points": {OLD: [10.0 * seq, 1]}}
        site.gateway.journal.put("meter", Record(boot, seq, seq, seq, msgpack.packb(body)))
    until = time.monotonic() + 20
    with site.client() as client:
        records = []
        while len(records) < 3 and time.monotonic() < until:
            records, _ = client.replay("meter")
    assert [record["points"][NEW] for record in records] == [[0.0, 1], [10.0, 1], [20.0, 1]]
    assert records[1]["points"][OLD] == records[1]["points"][NEW]


def test_no_name_stands_on_both_sides_of_the_table():
    for table in (RENAMED_POINTS, RENAMED_NODE_FIELDS):
        assert not set(table) & set(table.values()) and len(set(table.values())) == len(table)
