"""TCP buses of a site: refusals with their remedy, and the ports that the core gets of them."""

import ipaddress

import pytest

from tests.config.test_compile import compiled, demo_raw, refused
from tidegate.ext.abi import program

METER = {"map": "eastron-sdm630", "bus": "lan", "role": "it-meter", "poll_slow_ms": 2000.0}


def raw_with(tcp, *devices):
    """The demo's site with a TCP bus and these devices on it."""
    raw = demo_raw()
    raw["tcp"] = [{"name": "lan", "host": "192.0.2.7", **tcp}]
    raw["device"] += [{"name": f"m{i}", **METER, "unit_id": i + 1, **device} for i, device in enumerate(devices)]
    return raw


def tcp_ports(raw):
    rows = program.rows(compiled(raw))
    return [port for port in rows["ports"] if port["transport"] != program.TRANSPORTS["serial"]], rows


def test_a_tcp_bus_becomes_a_port_with_its_address():
    (port,), rows = tcp_ports(raw_with({"port": 1502}, {"unit_id": 255}))
    assert (port["name"], port["family"], port["host"][:4], port["tcp_port"]) == (
        "lan", 4, ipaddress.ip_address("192.0.2.7").packed, 1502,
    )  # fmt: skip
    (slave,) = [one for one in rows["slaves"] if rows["ports"][one["port"]] == port]
    assert slave["unit_id"] == 255
    assert slave["timeout_ns"] >= 500_000_000, "a lost segment is sent again only after 200 ms"


def test_an_ipv6_address_is_one():
    (port,), _ = tcp_ports(raw_with({"host": "fd00::7"}, {}))
    assert (port["family"], port["host"]) == (6, ipaddress.ip_address("fd00::7").packed)


def test_connections_and_pipeline_share_the_devices_out():
    ports, rows = tcp_ports(raw_with({"connections": 2, "pipeline": 2}, {}, {}, {}, {}, {}))
    assert [port["name"] for port in ports] == ["lan", "lan/2", "lan/3", "lan/4"]
    assert [port["link"] for port in ports] == [0, 1, 0, 1]
    units = [
        [slave["unit_id"] for slave in rows["slaves"] if rows["ports"][slave["port"]]["name"] == port["name"]]
        for port in ports
    ]
    assert units == [[1, 5], [2], [3], [4]]
    described = program.describe(compiled(raw_with({"connections": 2}, {}, {})))
    assert [one["bus"] for one in described["devices"] if one["name"] in ("m0", "m1")] == ["lan", "lan/2"]


def test_two_buses_have_connections_of_their_own():
    raw = raw_with({"connections": 2}, {}, {"bus": "other"})
    raw["tcp"].append({"name": "other", "host": "192.0.2.8"})
    ports, _ = tcp_ports(raw)
    assert [port["link"] for port in ports] == [0, 2]


def test_readings_as_often_as_possible_leave_a_network_in_peace():
    fast = {"map": "sunspec-203", "poll_fast_ms": 0.0}
    for others in (0, 3):
        ports, rows = tcp_ports(raw_with({}, *[fast] * (others + 1)))
        slaves = [i for i, slave in enumerate(rows["slaves"]) if rows["ports"][slave["port"]] in ports]
        blocks = [b for b in rows["blocks"] if b["slave"] in slaves and b["poll_class"] == program.POLL_CLASSES["fast"]]
        assert blocks and all(b["period_ns"] >= 20_000_000 for b in blocks)
        assert sum(5_000_000 / b["period_ns"] for b in blocks) <= 0.4


def test_rtu_over_tcp_is_planned_with_the_line_behind_it():
    (port,), _ = tcp_ports(raw_with({"framing": "rtu", "baud": 19200, "parity": "E"}, {}))
    assert (port["transport"], port["baud"], port["parity"]) == (program.TRANSPORTS["rtu-tcp"], 19200, "E")


REFUSED = {
    "a name": ({"host": "meter.lan"}, {}, ("tcp[lan].host", "write the address")),
    "nobody's address": ({"host": "0.0.0.0"}, {}, ("tcp[lan].host", "no device's address")),
    "a group": ({"host": "224.0.0.1"}, {}, ("tcp[lan].host", "no device's address")),
    "a zone": ({"host": "fe80::1%eth0"}, {}, ("tcp[lan].host", "zone")),
    "no port": ({"port": 0}, {}, ("tcp[lan].port", "greater than or equal to 1")),
    "no unit id": ({}, {"unit_id": None}, ("device[m0]", "mostly 1 or 255")),
    "a unit id above all": ({}, {"unit_id": 256}, ("device[m0].unit_id", "255")),
    "unit 255 on a line": ({"framing": "rtu"}, {"unit_id": 255}, ("device[m0].unit_id", "expected 1 to 247")),
    "a line with two requests": ({"framing": "rtu", "pipeline": 2}, {}, ("tcp[lan]", "one line")),
    "packs on two": ({"framing": "pylontech", "connections": 2}, {}, ("tcp[lan]", "framing pylontech is one line")),
    "a map for CAN": ({}, {"map": "bms-35x"}, ("device[m0].bus", "Modbus bus")),
    "more than it can answer": (
        {"latency_ms": 400.0}, {"map": "sunspec-203", "poll_fast_ms": 100.0}, ("tcp[lan]", "connections or pipeline"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_wrong_tcp_bus_is_refused_with_key_and_remedy(kind):
    tcp, device, words = REFUSED[kind]
    raw = raw_with(tcp, device)
    raw["device"] = [{k: v for k, v in row.items() if v is not None} for row in raw["device"]]
    said = refused(raw)
    assert any(all(word in line for word in words) for line in said), said


def test_one_address_is_one_bus():
    raw = raw_with({}, {}, {"bus": "again"})
    raw["tcp"].append({"name": "again", "host": "192.0.2.7"})
    assert any("tcp[again].host" in line and "already bus lan" in line for line in refused(raw))


def test_a_bus_that_nobody_is_on_and_a_name_that_is_taken_are_named():
    raw = raw_with({}, {})
    raw["tcp"] += [{"name": "empty", "host": "192.0.2.9"}, {"name": "lan", "host": "192.0.2.10"}]
    said = refused(raw)
    assert any("tcp[empty]" in line and "no device is on this bus" in line for line in said)
    assert any("'lan' is taken" in line for line in said)
