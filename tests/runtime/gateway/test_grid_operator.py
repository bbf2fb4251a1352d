"""Orders of the grid's operator: who may, how they end, what they leave as proof, and over a restart."""

import json
import math

import pytest

from tidegate.ext.abi.shared import OrderKind
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway.grid_operator import GridOperator

S = 10**9
UTC = 1_800_000_000 * S


class Box:
    """A mailbox that shows what is in force."""

    def __init__(self):
        self.slots = {}

    def put_order(self, kind, value, expires_t_ns, request):
        self.slots[int(kind)] = (value, expires_t_ns)
        return 2 * len(self.slots)

    def in_force(self, now_ns):
        return {OrderKind(kind).name: value for kind, (value, ends) in self.slots.items() if ends > now_ns}


class Desk:
    def __init__(self, path):
        self.box, self.told = Box(), []
        self.made = GridOperator(self.box, path, lambda name, detail, proof: self.told.append((name, detail, proof)))
        self.now_ns = 0

    def utc(self):
        return UTC + self.now_ns

    def order(self, peer="dso", role="operate", *, for_s=900.0, reference="", **what):
        given = {"import_w_max": None, "export_w_max": None, "stop": False, **what}
        return self.made.order(peer, peer, role, reference=reference, for_ns=round(for_s * S), now_ns=self.now_ns,
                               utc_ns=self.utc(), **given)  # fmt: skip

    def second(self, grid_w, least_w=None, most_w=None, readable=True):
        """A second of the grid's power, as a meter record tells it."""
        self.now_ns += S
        if not hasattr(self, "sums"):
            self.sums = [0.0, 0.0, 0.0]
        if readable:
            self.sums[0] += max(grid_w, 0.0)
            self.sums[1] += max(-grid_w, 0.0)
            self.sums[2] += 1.0
        points = dict(zip(("site.grid_in_ws", "site.grid_out_ws", "site.grid_covered_s"), self.sums, strict=True))
        points |= {"site.grid_min_w": grid_w if least_w is None else least_w,
                   "site.grid_max_w": grid_w if most_w is None else most_w}  # fmt: skip
        self.made.measure(points if readable else dict.fromkeys(points), self.utc())
        self.made.step(self.now_ns, self.utc())


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "grid-operator.json")


def test_a_dimming_ends_by_itself_and_its_end_has_the_proof(desk):
    desk.order(import_w_max=4200.0, for_s=60.0, reference="Az. 17")
    assert desk.box.in_force(0) == {"OPERATOR_IMPORT_W_MAX": 4200.0}
    assert desk.box.in_force(60 * S) == {}, "in the core it ends whatever becomes of the gateway"
    for second in range(61):
        desk.second(9000.0 if second < 4 else 5200.0 if second == 30 else 4000.0)
    assert [name for name, _, _ in desk.told] == ["began", "ended"]
    _, detail, proof = desk.told[1]
    assert "Az. 17" in detail and "its time is over" in detail
    measured = proof["measured"]
    assert proof["end_utc_ns"] - proof["begin_utc_ns"] == 60 * S
    assert measured["covered_s"] == pytest.approx(59.0, abs=1.1)
    assert measured["import_w_max"] == 9000.0
    assert measured["above_s"] == 1.0 and measured["above_wh"] == pytest.approx(1000.0 / 3600.0)
    assert measured["mean_w"] == pytest.approx((3 * 9000 + 5200 + 55 * 4000) / 59, rel=0.02)


def test_what_was_not_readable_is_not_measured_and_no_energy_is_made_up(desk):
    desk.order(export_w_max=0.0, for_s=100.0)
    for second in range(20):
        desk.second(-500.0, readable=not 5 <= second < 15)
    measured = desk.made.held.measured
    assert measured.covered_s == pytest.approx(8.0) and measured.seconds == pytest.approx(18.0, abs=1.0)
    assert measured.export_wh == pytest.approx(8 * 500.0 / 3600.0) and measured.above_s > 0


def test_the_same_order_again_lasts_longer_and_another_replaces_it_with_its_own_proof(desk):
    desk.order(import_w_max=4200.0, for_s=10.0)
    for _ in range(5):
        desk.second(3000.0)
    desk.order(import_w_max=4200.0, for_s=10.0)
    assert [name for name, _, _ in desk.told] == ["began"] and desk.made.held.measured.covered_s > 3
    desk.order(import_w_max=8000.0, for_s=10.0)
    assert [name for name, _, _ in desk.told] == ["began", "ended", "began"]
    assert desk.made.held.measured.covered_s == 0.0
    assert desk.box.in_force(desk.now_ns) == {"OPERATOR_IMPORT_W_MAX": 8000.0}
    desk.order(stop=True, for_s=10.0)
    assert desk.box.in_force(desk.now_ns) == {"OPERATOR_STOP": 1.0}


def test_another_peer_neither_replaces_nor_releases_it_but_the_role_maintain_does(desk):
    desk.order(import_w_max=4200.0)
    with pytest.raises(Refused, match="needs the role maintain"):
        desk.order("ems", import_w_max=9e9)
    with pytest.raises(Refused, match="needs the role maintain"):
        desk.made.release("ems", "ems", "operate", 0, UTC)
    assert desk.box.in_force(0) == {"OPERATOR_IMPORT_W_MAX": 4200.0}
    desk.made.release("technician", "technician", "maintain", 0, UTC)
    assert desk.box.in_force(0) == {} and desk.told[-1][0] == "ended" and "released by technician" in desk.told[-1][1]
    with pytest.raises(Refused, match="no order"):
        desk.made.release("dso", "dso", "operate", 0, UTC)


def test_an_order_that_says_nothing_is_refused_and_what_is_in_force_stays(desk):
    desk.order(import_w_max=4200.0)
    with pytest.raises(Refused, match="give import_w_max"):
        desk.order()
    assert desk.box.in_force(0) == {"OPERATOR_IMPORT_W_MAX": 4200.0}


def test_a_restart_of_everything_goes_on_with_it_and_its_proof(desk, tmp_path):
    desk.order(import_w_max=4200.0, for_s=100.0)
    for _ in range(30):
        desk.second(4000.0)
    again = Desk(tmp_path / "grid-operator.json")
    again.now_ns = 40 * S
    again.made.resume(again.now_ns, again.utc())
    assert again.box.in_force(again.now_ns) == {"OPERATOR_IMPORT_W_MAX": 4200.0}
    assert again.box.in_force(101 * S) == {}
    assert again.made.held.measured.covered_s >= 19.0 and again.told[0][0] == "resumed"
    late = Desk(tmp_path / "grid-operator.json")
    late.now_ns = 200 * S
    late.made.resume(late.now_ns, late.utc())
    assert late.box.in_force(late.now_ns) == {} and late.told[0][0] == "ended"
    assert not (tmp_path / "grid-operator.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"peer": 1}', json.dumps({"measured": 3})])
def test_a_file_that_cannot_be_read_is_told_and_no_order(tmp_path, text):
    (tmp_path / "grid-operator.json").write_text(text)
    desk = Desk(tmp_path / "grid-operator.json")
    desk.made.resume(0, UTC)
    assert desk.made.held is None and desk.made.problem


def test_another_start_of_the_core_costs_a_second_and_no_false_energy(desk):
    desk.order(import_w_max=4200.0)
    for _ in range(10):
        desk.second(4000.0)
    before = desk.made.held.measured.import_wh
    desk.sums = [0.0, 0.0, 0.0]
    for _ in range(3):
        desk.second(4000.0)
    assert desk.made.held.measured.import_wh == pytest.approx(before + 2 * 4000.0 / 3600.0)
    assert math.isfinite(desk.made.held.measured.mean_w)
