"""From a site's describe to ledger bodies: every flow under its name, every number whole, every assumption written."""

import json

import pytest

from tidegate.hal.description import described
from tidegate.runtime.carbon.engine.account import Accountant, break_even_ppm
from tidegate.runtime.carbon.engine.attribution import Method
from tidegate.runtime.carbon.engine.booking import BookedPeriod, FlowPeriod
from tidegate.runtime.carbon.engine.topology import nodes_of
from tidegate.runtime.carbon.factors.series import Factors, Series, Step
from tidegate.runtime.carbon.ledger.ledger import canonical

G = 1_000_000
POINTS = [
    "grid.power_w", "grid.import_wh", "grid.export_wh", "it.import_wh", "cooling.import_wh", "site.grid_in_ws",
    "site.grid_out_ws", "site.grid_covered_s", "site.ess_discharged_ws", "site.ess_charged_ws", "site.ess_covered_s",
    "bms1.soc",
]  # fmt: skip
NODES = [
    {"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
    {"role": "it", "device": "it", "positive_wh": "it.import_wh", "negative_wh": None},
    {"role": "cooling", "device": "cooling", "positive_wh": "cooling.import_wh", "negative_wh": None},
    {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None},
]
DESCRIBE = {
    "points": [{"name": name} for name in POINTS],
    "nodes": NODES,
    "units": [{"name": "cabinet", "pcs": "pcs1", "energy_wh": 60_000.0}],
}


def flow(milliwh, quality="good"):
    return FlowPeriod(milliwh, quality, "register", [], 0, milliwh, milliwh, 900.0)


def booked(start=0, soc=500_000, **milliwh):
    numbers = {"grid.import": 0, "grid.export": 0, "cabinet.discharge": 0, "cabinet.charge": 0, "it.load": 0,
               "cooling.load": 0} | {k.replace("_", "."): v for k, v in milliwh.items()}  # fmt: skip
    return BookedPeriod(start, 900, {k: flow(v) for k, v in numbers.items()}, [], 900, 0, soc, "S")


def factors(*values):
    steps = [Step(900 * i, 900 * i + 900, value * G) for i, value in enumerate(values)]
    return Factors(Series("X", "average", "test", steps=steps).finish(), 500 * G, "fallback")


def test_a_site_with_one_cabinet_has_its_flows_found():
    nodes = nodes_of(described(DESCRIBE))
    assert [(f.name, f.register, f.integral) for f in nodes.flows] == [
        ("grid.import", "grid.import_wh", "site.grid_in_ws"),
        ("grid.export", "grid.export_wh", "site.grid_out_ws"),
        ("cabinet.discharge", None, "site.ess_discharged_ws"),
        ("cabinet.charge", None, "site.ess_charged_ws"),
        ("it.load", "it.import_wh", None),
        ("cooling.load", "cooling.import_wh", None),
    ]
    assert nodes.storages[0].energy_milliwh == 60_000_000
    assert nodes.notes == (
        "storage: no energy registers of the converter; charge and discharge booked from the fast power",
    )


def test_an_it_load_without_a_meter_is_what_the_others_leave():
    nodes = nodes_of(described({**DESCRIBE, "nodes": [row for row in NODES if row["role"] != "it"]}))
    assert nodes.by_difference == "it" and "no meter of the IT load" in nodes.notes[-1]
    body = Accountant("s", nodes, factors(200), Method()).book(
        booked(grid_import=10_000_000, cabinet_discharge=2_000_000, cooling_load=900_000)
    )
    assert {o["name"]: o["energy_milliwh"] for o in body["outflows"]}["it"] == 11_100_000
    assert body["residual_milliwh"] == 0


def test_two_cabinets_with_registers_are_two_stocks():
    points = [*DESCRIBE["points"], *({"name": f"pcs{i}.{k}"} for i in (1, 2) for k in ("charged_wh", "discharged_wh"))]
    rows = [*NODES[:3], *({"role": "ess", "device": f"pcs{i}", "positive_wh": f"pcs{i}.discharged_wh",
                           "negative_wh": f"pcs{i}.charged_wh"} for i in (1, 2))]  # fmt: skip
    units = [{"name": f"cabinet{i}", "pcs": f"pcs{i}", "energy_wh": 1000} for i in (1, 2)]
    nodes = nodes_of(described({"points": points, "nodes": rows, "units": units}))
    assert [s.node for s in nodes.storages] == ["cabinet1", "cabinet2"]
    assert [f.register for f in nodes.flows if f.node == "cabinet2"] == ["pcs2.discharged_wh", "pcs2.charged_wh"]


def test_a_site_without_a_grid_meter_is_refused():
    with pytest.raises(ValueError, match="no device has the role grid-meter"):
        nodes_of(described({"points": [], "nodes": []}))


def test_a_body_is_canonical_and_its_carbon_closes():
    accountant = Accountant("s", nodes_of(described(DESCRIBE)), factors(200, 100), Method())
    first = accountant.book(booked(grid_import=10_000_000, it_load=9_000_000, cooling_load=900_000))
    second = accountant.book(
        booked(900, cabinet_discharge=5_000_000, grid_import=5_000_000, it_load=9_200_000, cooling_load=800_000)
    )
    for body in (first, second):
        assert json.loads(canonical(body)) == body
        stock = body["stock"]["cabinet"]
        came = sum(body["inflow_ug"].values()) + body["created_ug"] + stock["opening_ug"]
        booked_ug = sum(o["ug"] for o in body["outflows"] if o["kind"] != "charge")
        assert came == booked_ug + sum(body["loss_ug"].values()) + stock["ug"]
    assert first["opening"]["cabinet"] == {
        "energy_milliwh": 30_000_000, "ug_per_kwh": 200 * G,
        "why": "state of charge at the start, priced at the grid factor of the first period",
    }  # fmt: skip
    assert {o["name"]: o["energy_milliwh"] for o in first["outflows"]}["residual"] == 100_000
    it = next(o for o in second["outflows"] if o["name"] == "it")
    assert set(it["origins"]) == {"grid", "opening@storage"}


def test_an_accountant_restored_from_its_state_goes_on_the_same():
    nodes = nodes_of(described(DESCRIBE))
    whole, cut = (Accountant("s", nodes, factors(200, 100, 300), Method("fifo")) for _ in range(2))
    for number in range(8):
        period = booked(900 * number, grid_import=10_000_000 + number, it_load=9_000_000, cabinet_charge=900_000,
                        cabinet_discharge=100_000)  # fmt: skip
        a, b = whole.book(period), cut.book(period)
        assert a == b
        state = json.loads(canonical(cut.state()))
        cut = Accountant("s", nodes_of(described(DESCRIBE)), factors(200, 100, 300), Method("fifo"))
        cut.restore(state)


def test_a_reversed_meter_is_named():
    accountant = Accountant("s", nodes_of(described(DESCRIBE)), factors(200), Method())
    # 10 kWh are imported, but the meter counts them as export.
    body = accountant.book(booked(grid_export=10_000_000, it_load=9_000_000, cooling_load=990_000))
    assert "REVERSED_SIGN grid export" in body["flags"]
    assert body["inflow_ug"]["unmetered"] > 0


def test_midnight_sets_the_stock_to_the_state_of_charge():
    accountant = Accountant("s", nodes_of(described(DESCRIBE)), factors(200), Method())
    accountant.book(booked(grid_import=1000))
    body = accountant.book(booked(86_400 - 900, soc=400_000))
    assert body["stock"]["cabinet"]["energy_milliwh"] == 24_000_000
    assert body["stock"]["cabinet"]["ug"] == 30 * 200 * G
    assert any(flag.startswith("TRUE_UP cabinet -6000000") for flag in body["flags"])


def test_moving_energy_pays_only_beyond_the_round_trip():
    assert break_even_ppm(900_000, 900_000) == 1_234_568
    assert break_even_ppm(1_000_000, 1_000_000) == 1_000_000
