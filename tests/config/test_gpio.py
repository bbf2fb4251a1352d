"""GPIO lines of a site: refusals with their remedy, and what they do in the core."""

import pytest

from tests.config.test_compile import compiled, demo_raw
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.hal.description import described

INPUTS = [
    {"name": "stop", "what": "operator-stop", "line": 17, "active_low": True, "bias": "pull-up"},
    {"name": "dim", "what": "operator-limit", "line": 27, "import_w_max": 4200.0},
    {"name": "door", "what": "door", "line": 22},
    {"name": "panic", "what": "estop", "line": 23, "debounce_ms": 1.0},
    {"name": "s0", "what": "pulse", "line": 24, "wh_per_pulse": 0.5},
    {"name": "kyz", "what": "demand-pulse", "line": 25},
]
OUTPUTS = [{"name": "lamp", "what": "alarm", "line": 5}, {"name": "trip", "what": "breaker", "line": 6}]


def raw_with(*inputs, outputs=()):
    raw = demo_raw()
    raw["input"] = [dict(one) for one in inputs]
    raw["output"] = [dict(one) for one in outputs]
    return raw


def test_lines_become_a_bus_of_their_own_with_points_and_meanings():
    blob = compiled(raw_with(*INPUTS, outputs=OUTPUTS))
    rows = program.rows(blob)
    bus = len(demo_raw()["can"])
    assert rows["n_can_buses"] == bus + 1
    assert [frame["id"] for frame in rows["can_frames"] if frame["bus"] == bus] == [0x100 + i for i in range(6)]
    names = [point["name"] for point in rows["points"]]
    assert {"stop.active", "dim.active", "s0.count", "s0.energy_wh", "s0.power_w", "kyz.count"} <= set(names)
    assert [(names[one["point"]], one["what"], one["import_w_max"]) for one in rows["inputs"]] == [
        ("stop.active", 1, 0.0), ("dim.active", 2, 4200.0), ("door.active", 3, 0.0), ("panic.active", 5, 0.0),
    ]  # fmt: skip
    assert names[rows["site"]["window_pulse"]] == "kyz.count"
    lamp, trip = [tx for tx in rows["can_tx"] if tx["bus"] == bus]
    assert (lamp["kind"], lamp["data"][:1], trip["has_open"], bytes(trip["open_data"])[:1]) == (1, b"\x01", 1, b"\x02")
    assert described(program.describe(blob)).can[-1].interface.startswith("gpio:in 0 /dev/gpiochip0 17 pull-up")


def test_a_site_without_lines_has_no_such_bus():
    rows = program.rows(compiled(demo_raw()))
    assert rows["n_can_buses"] == len(demo_raw()["can"]) and rows["inputs"] == []


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([{"name": "a", "what": "operator-limit", "line": 1}], [], "import_w_max belongs to an operator-limit"),
        (
            [{"name": "a", "what": "door", "line": 1, "import_w_max": 1.0}],
            [],
            "import_w_max belongs to an operator-limit",
        ),
        ([{"name": "a", "what": "pulse", "line": 1}], [], "wh_per_pulse belongs to a pulse"),
        ([{"name": "a", "what": "estop", "line": 1, "debounce_ms": 51.0}], [], "too slow for estop; at most 50"),
        ([{"name": "a", "what": "door", "line": 1}, {"name": "b", "what": "smoke", "line": 1}], [], "is a's already"),
        ([{"name": "a", "what": "door", "line": 1}], [{"name": "b", "what": "alarm", "line": 1}], "is a's already"),
        ([{"name": "a", "what": "operator-stop", "line": i} for i in (1, 2)], [], "one operator-stop"),
        ([{"name": "grid", "what": "door", "line": 1}], [], "the device name 'grid' is taken"),
        ([{"name": "site", "what": "door", "line": 1}], [], "belongs to the image itself"),
        ([], [{"name": "b", "what": "breaker", "line": 1, "storage": "none"}], "no storage is named 'none'"),
        ([], [{"name": "b", "what": "alarm", "line": 1, "storage": "cabinet"}], "belongs to a breaker"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(inputs, outputs, said):
    _, problems = parse_site(raw_with(*inputs, outputs=outputs))
    assert any(said in line for line in problems), problems
