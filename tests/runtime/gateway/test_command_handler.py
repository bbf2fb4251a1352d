"""The rules of leases, limits and plans, with a clock of the test's own."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.ext.abi.shared import ORDER_POLICY_FIRST, POLICY_NAMES_BY_NUMBER
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway import ops
from tidegate.runtime.gateway.command_handler import Desk
from tidegate.runtime.gateway.orders_held import EXPORT, IMPORT, MANUAL, MANUAL_MAX_NS, PLAN, SETPOINT
from tidegate.runtime.gateway.peers import Peer

MS, S = 10**6, 10**9


class Box:
    """A mailbox that a test can look into."""

    def __init__(self):
        self.orders = {}
        self.seq = 0

    def put_order(self, kind, value, expires_t_ns, request):
        self.seq += 2
        self.orders[kind] = (value, expires_t_ns)
        return self.seq

    def applied(self, kind):
        return self.seq

    def in_force(self, kind, now_ns):
        value, expires = self.orders.get(kind, (0.0, 0))
        return value if expires > now_ns else None


def peer(name="a", role="maintain"):
    return Peer(name, role)


def acquire(desk, who, now_ns, period_ms=1000, priority="ems"):
    request = ops.Lease(v=1, id="x", action="acquire", priority=priority, period_ms=period_ms)
    return desk.take_lease(request, who, now_ns)["lease"]


def setpoint(desk, who, lease, seq, now_ns, power_w=100.0, for_ms=60_000):
    request = ops.Setpoint(v=1, id="y", lease=lease, seq=seq, setpoint_w=power_w, for_ms=for_ms)
    return desk.setpoint(request, who, now_ns)


def test_an_order_never_outlives_three_periods_without_a_renewal():
    box = Box()
    desk = Desk(box)
    lease = acquire(desk, peer(), 0, period_ms=100)
    setpoint(desk, peer(), lease, 0, 50 * MS)
    assert box.in_force(SETPOINT, 300 * MS - 1) == 100.0
    assert box.in_force(SETPOINT, 300 * MS) is None


def test_a_renewal_moves_the_end_but_never_behind_for_ms():
    box = Box()
    desk = Desk(box)
    lease = acquire(desk, peer(), 0, period_ms=100)
    setpoint(desk, peer(), lease, 0, 0, for_ms=450)
    for now_ms in (100, 200, 300, 400):
        desk.take_lease(ops.Lease(v=1, id="r", action="renew", lease=lease), peer(), now_ms * MS)
    assert box.in_force(SETPOINT, 449 * MS) == 100.0 and box.in_force(SETPOINT, 450 * MS) is None


def test_minus_zero_becomes_zero():
    box = Box()
    desk = Desk(box)
    setpoint(desk, peer(), acquire(desk, peer(), 0), 0, 0, power_w=-0.0)
    assert math.copysign(1.0, box.orders[SETPOINT][0]) == 1.0


@pytest.mark.parametrize(("first", "second", "taken"), [
    ("optimiser", "optimiser", False), ("optimiser", "ems", True), ("ems", "optimiser", False),
    ("ems", "maintenance", True), ("maintenance", "ems", False),
])  # fmt: skip
def test_only_a_higher_priority_takes_the_lease(first, second, taken):
    box = Box()
    desk = Desk(box)
    lease = acquire(desk, peer("a"), 0, priority=first)
    setpoint(desk, peer("a"), lease, 0, 0)
    if taken:
        acquire(desk, peer("b"), 1, priority=second)
        assert desk.lease.peer == "b" and box.in_force(SETPOINT, 2) is None
    else:
        with pytest.raises(Refused) as refused:
            acquire(desk, peer("b"), 1, priority=second)
        assert refused.value.code == "lease-held" and box.in_force(SETPOINT, 2) == 100.0


def test_a_lease_that_has_ended_can_be_taken_by_anybody():
    desk = Desk(Box())
    acquire(desk, peer("a"), 0, period_ms=100, priority="maintenance")
    acquire(desk, peer("b"), 300 * MS, priority="optimiser")
    assert desk.lease.peer == "b"
    assert ("lease", "expired") in [(event, name) for event, name, _ in desk.audit]


steps = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "renew", "release", "setpoint", "step"]),
        st.sampled_from("abc"),
        st.integers(0, 400),
        st.sampled_from(list(messages.CLASSES)),
        st.floats(-1e6, 1e6),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_whatever_is_asked_only_the_holder_commands_and_silence_ends_it(asked):
    box = Box()
    desk = Desk(box)
    mine = {}
    seqs = dict.fromkeys("abc", 0)
    now_ns = 0
    for what, name, later_ms, priority, power_w in asked:
        now_ns += later_ms * MS
        try:
            if what == "acquire":
                mine[name] = acquire(desk, peer(name), now_ns, 100, priority)
                seqs[name] = 0
            elif what in ("renew", "release"):
                desk.take_lease(ops.Lease(v=1, id="r", action=what, lease=mine.get(name)), peer(name), now_ns)
            elif what == "setpoint":
                setpoint(desk, peer(name), mine.get(name, "0" * 32), seqs[name], now_ns, power_w)
                seqs[name] += 1
                assert desk.lease.peer == name and box.in_force(SETPOINT, now_ns) == power_w
            else:
                desk.step(now_ns, now_ns)
        except Refused as why:
            assert why.code in ("no-lease", "lease-held", "replayed")
        held = desk.lease
        order = box.in_force(SETPOINT, now_ns)
        if held is None or now_ns >= held.expires_ns:
            assert order is None
        elif order is not None:
            assert order == held.setpoint_w
    assert box.in_force(SETPOINT, now_ns + 300 * MS) is None, "silence must end every order"


def test_the_strictest_limit_counts_and_the_next_follows_when_it_ends():
    box = Box()
    desk = Desk(box, site_import_w_max=50_000.0, site_export_w_max=0.0)
    ask = lambda w, ms: ops.Limit(v=1, id="l", import_w_max=w, for_ms=ms)  # noqa: E731
    desk.limit(ask(30_000.0, 1000), peer("a"), 0)
    desk.limit(ask(20_000.0, 500), peer("b"), 0)
    assert box.in_force(IMPORT, 1) == 20_000.0
    desk.expire(500 * MS)
    assert box.in_force(IMPORT, 501 * MS) == 30_000.0
    desk.expire(1000 * MS)
    assert box.in_force(IMPORT, 1001 * MS) is None
    wide = desk.limit(ops.Limit(v=1, id="l", export_w_max=5000.0, for_ms=10), peer("a"), 2 * S)[0]
    assert (wide.clamped_w, wide.by) == (0.0, "site file") and box.in_force(EXPORT, 2 * S) == 5000.0


def step(start, **values):
    return ops.Step(start_utc_s=start, **values)


def test_a_plan_is_kept_step_by_step_until_its_end():
    put = []
    desk = Desk(Box(), put_plan=lambda: put.append(1) or 6)
    plan = ops.Schedule(v=1, id="p", steps=[step(100, setpoint_w=5.0), step(110, peak_w_max=7.0)], end_utc_s=120)
    order = desk.schedule(plan, peer("a"), 0, 90 * S)
    assert (order.kind, order.seq, put) == (PLAN, 6, [1])
    assert [(one.start_utc_s, one.end_utc_s, one.values) for one in desk.plan] == [
        (100, 110, {"setpoint_w": 5.0}), (110, 120, {"peak_w_max": 7.0}),
    ]  # fmt: skip
    desk.step(0, 119 * S)
    assert desk.plan
    desk.step(0, 120 * S)
    assert desk.plan == [] and ("order", "schedule ended", "") in desk.audit


def test_a_forced_step_needs_the_role_maintain_and_a_setpoint():
    forced = ops.Schedule(v=1, id="p", steps=[step(10, setpoint_w=-5e3, forced=True)], end_utc_s=20)
    with pytest.raises(Refused) as refused:
        Desk(Box()).schedule(forced, peer(role="operate"), 0, 0)
    assert refused.value.code == "not-allowed"
    desk = Desk(Box())
    desk.schedule(forced, peer(), 0, 0)
    assert desk.plan[0].forced
    for values in ({"forced": True}, {"until_soc": 0.5}):
        with pytest.raises(Refused, match="without setpoint_w"):
            desk.schedule(ops.Schedule(v=1, id="p", steps=[step(10, **values)], end_utc_s=20), peer(), 0, 0)


def policy(desk, role, name, value=None, now_ns=0, **more):
    return desk.policy(ops.Policy(v=1, id="q", name=name, value=value, **more), peer("x", role), now_ns)


def kind_of(name):
    return ORDER_POLICY_FIRST + POLICY_NAMES_BY_NUMBER.index(name)


def test_a_tighter_policy_holds_at_once_and_a_wider_one_needs_the_role_maintain():
    box = Box()
    desk = Desk(box, site_policies={"peak_w_max": 48e3, "reserve_soc": 0.2})
    policy(desk, "operate", "peak_w_max", 40e3)
    policy(desk, "operate", "reserve_soc", 0.3)
    assert box.in_force(kind_of("peak_w_max"), 1) == 40e3 and box.in_force(kind_of("reserve_soc"), 1) == 0.3
    for name, wider in (("peak_w_max", 45e3), ("reserve_soc", 0.25), ("peak_w_max", None), ("reserve_soc", None)):
        with pytest.raises(Refused) as refused:
            policy(desk, "operate", name, wider)
        assert refused.value.code == "not-allowed"
    with pytest.raises(Refused):
        policy(desk, "operate", "peak_w_max", off=True)
    assert box.in_force(kind_of("peak_w_max"), 1) == 40e3
    policy(desk, "maintain", "peak_w_max", 60e3)
    assert box.in_force(kind_of("peak_w_max"), 1) == 60e3
    policy(desk, "maintain", "peak_w_max", off=True)
    assert box.in_force(kind_of("peak_w_max"), 1) == 1e12
    policy(desk, "operate", "peak_w_max")  # the site file's again: tighter than none
    assert box.in_force(kind_of("peak_w_max"), 1) is None and "peak_w_max" not in desk.policies


def test_a_lease_of_a_shared_limit_stands_below_every_order_and_the_next_takes_its_place():
    box = Box()
    desk = Desk(box, site_policies={"peak_w_max": 20e3})
    kind = kind_of("peak_w_max")
    policy(desk, "maintain", "peak_w_max", 60e3, rank="lease", for_ms=60_000)
    assert box.in_force(kind, 59_999 * MS) == 60e3 and box.in_force(kind, 60_000 * MS) is None
    # A smaller one that ends earlier does not let the bigger one come back.
    policy(desk, "maintain", "peak_w_max", 30e3, rank="lease", for_ms=10_000)
    assert box.in_force(kind, 9_999 * MS) == 30e3 and box.in_force(kind, 10_000 * MS) is None
    assert desk.policies.value("peak_w_max", 20_000 * MS) == 20e3
    # Orders stand above it, whoever came first, and stay when it is renewed or ends.
    policy(desk, "operate", "peak_w_max", 25e3, for_ms=100_000)
    policy(desk, "maintain", "peak_w_max", 50e3, rank="lease", for_ms=60_000)
    assert box.in_force(kind, 1) == 25e3
    policy(desk, "maintain", "peak_w_max", 15e3, for_ms=100_000)
    policy(desk, "maintain", "peak_w_max", 55e3, rank="lease", for_ms=60_000)
    assert box.in_force(kind, 1) == 15e3
    policy(desk, "maintain", "peak_w_max", rank="lease")
    assert box.in_force(kind, 1) == 15e3 and desk.policies.value("peak_w_max", 100_000 * MS) == 20e3


@pytest.mark.parametrize(("role", "name", "more"), [
    ("operate", "peak_w_max", {"value": 10e3, "for_ms": 1000}), ("maintain", "peak_w_max", {"value": 60e3}),
    ("maintain", "target_soc", {"value": 0.5, "for_ms": 1000}),
])  # fmt: skip
def test_a_lease_is_of_a_limit_ends_and_needs_the_role_maintain(role, name, more):
    with pytest.raises(Refused, match="lease"):
        policy(Desk(Box(), site_policies={"peak_w_max": 20e3}), role, name, rank="lease", **more)


def test_a_policy_of_a_time_ends_by_itself_and_a_wish_has_no_tighter_side():
    box = Box()
    desk = Desk(box, site_policies={"peak_w_max": 48e3})
    policy(desk, "operate", "peak_w_max", 30e3, for_ms=1000)
    policy(desk, "operate", "target_soc", 0.5)
    policy(desk, "operate", "follow_grid", 1.0)
    policy(desk, "operate", "target_grid_w", -2e3)
    assert box.in_force(kind_of("peak_w_max"), 999 * MS) == 30e3
    assert box.in_force(kind_of("peak_w_max"), 1000 * MS) is None
    desk.expire(1000 * MS)
    assert "peak_w_max" not in desk.policies
    assert any(name == "policy ended" for _, name, _ in desk.audit)


@pytest.mark.parametrize(("name", "value"), [
    ("reserve_soc", 1.2), ("peak_w_max", -1.0), ("ramp_up_w_per_s", 0.0), ("demand_w_max", 0.0),
    ("recharge_w_max", 50e3), ("damp_share", -0.1),
])  # fmt: skip
def test_a_policy_that_cannot_be_is_refused_with_its_field(name, value):
    with pytest.raises(Refused) as refused:
        policy(Desk(Box(), site_policies={"peak_w_max": 48e3}), "maintain", name, value)
    assert refused.value.code == "invalid-field"


@pytest.mark.parametrize(("starts", "end"), [([10, 10], 20), ([20, 10], 30), ([10], 10), ([10], 5)])
def test_a_plan_that_does_not_rise_is_refused(starts, end):
    rows = [ops.Step(start_utc_s=start, setpoint_w=0.0) for start in starts]
    with pytest.raises(Refused):
        Desk(Box()).schedule(ops.Schedule(v=1, id="p", steps=rows, end_utc_s=end), peer(), 0, 0)


# ---- manual ----


def manual(desk, who, now_ns, power_w=2000.0, for_ms=3000):
    return desk.mode(ops.Mode(v=1, id="m", mode="manual", power_w=power_w, for_ms=for_ms), who, now_ns)


def test_manual_ends_in_the_mailbox_by_itself_unless_it_is_given_again():
    box = Box()
    desk = Desk(box)
    assert manual(desk, peer(), 0).kind == MANUAL
    assert box.in_force(MANUAL, 3 * S - 1) == 2000.0 and box.in_force(MANUAL, 3 * S) is None
    manual(desk, peer(), 2 * S, power_w=-500.0)
    assert box.in_force(MANUAL, 5 * S - 1) == -500.0 and box.in_force(MANUAL, 5 * S) is None
    desk.expire(5 * S)
    assert desk.manual is None and ("order", "manual ended", "a did not give it again") in desk.audit


def test_manual_lasts_thirty_minutes_at_most_and_run_starts_it_anew():
    box = Box()
    desk = Desk(box)
    now_ns = 0
    while now_ns < MANUAL_MAX_NS:
        manual(desk, peer(), now_ns, for_ms=60_000)
        now_ns += 50 * S
    assert box.in_force(MANUAL, MANUAL_MAX_NS - 1) == 2000.0 and box.in_force(MANUAL, MANUAL_MAX_NS) is None
    with pytest.raises(Refused, match="30 min"):
        manual(desk, peer(), now_ns)
    desk.mode(ops.Mode(v=1, id="r", mode="run"), peer(), now_ns)
    manual(desk, peer(), now_ns)


@pytest.mark.parametrize(
    ("who", "request_more", "code"),
    [
        (peer(role="operate"), {"power_w": 1.0}, "not-allowed"),
        (peer(), {}, "invalid-field"),
        (peer("b"), {"power_w": 1.0}, "lease-held"),
    ],
)
def test_manual_is_refused_to_whom_it_is_not_due(who, request_more, code):
    desk = Desk(Box())
    manual(desk, peer(), 0)
    with pytest.raises(Refused) as why:
        desk.mode(ops.Mode(v=1, id="m", mode="manual", **request_more), who, S)
    assert why.value.code == code


@pytest.mark.parametrize("mode", ["stop", "run"])
def test_anybodys_stop_and_run_end_manual_at_once(mode):
    box = Box()
    desk = Desk(box)
    manual(desk, peer(), 0)
    desk.mode(ops.Mode(v=1, id="s", mode=mode), peer("b", "operate"), S)
    assert box.in_force(MANUAL, S) is None and desk.manual is None
    if mode == "stop":
        with pytest.raises(Refused) as why:
            manual(desk, peer(), 2 * S)
        assert why.value.code == "stopped"


def test_a_setting_for_a_moment_leaves_what_was_promised_before_it():
    box = Box()
    desk = Desk(box, site_policies={"peak_w_max": 48e3})
    policy(desk, "maintain", "peak_w_max", 40e3)
    policy(desk, "operate", "peak_w_max", 30e3, for_ms=1)
    assert box.in_force(kind_of("peak_w_max"), 1) == 30e3
    assert box.in_force(kind_of("peak_w_max"), 500 * MS) == 30e3, "until the next is there, nothing wider"
    desk.expire(1 * MS)
    assert box.in_force(kind_of("peak_w_max"), 3600 * S) == 40e3
    policy(desk, "operate", "peak_w_max", 35e3, now_ns=2 * S)
    policy(desk, "operate", "peak_w_max", 20e3, now_ns=2 * S, for_ms=1)
    desk.expire(3 * S)
    assert box.in_force(kind_of("peak_w_max"), 3600 * S) == 35e3


def test_what_was_tighter_than_something_wide_is_not_wide_behind_its_end():
    box = Box()
    desk = Desk(box, site_policies={"peak_w_max": 48e3})
    policy(desk, "maintain", "peak_w_max", 60e3, for_ms=1000)
    policy(desk, "operate", "peak_w_max", 55e3)
    assert box.in_force(kind_of("peak_w_max"), 1) == 55e3
    assert box.in_force(kind_of("peak_w_max"), 1000 * MS) is None, "the site file's, also where no gateway lives"
    desk.expire(1000 * MS)
    assert box.in_force(kind_of("peak_w_max"), 2 * S) in (None, 48e3)


policies_asked = st.lists(
    st.tuples(
        st.sampled_from(["operate", "maintain"]),
        st.sampled_from([None, 20e3, 30e3, 40e3, 50e3, 60e3]),
        st.sampled_from([None, 1, 500, 3000]),
        st.integers(0, 2000),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(policies_asked)
def test_nothing_that_operate_asks_ever_makes_a_limit_wider_than_without_it(asked):
    both, alone = Box(), Box()
    with_it, without = (Desk(box, site_policies={"peak_w_max": 48e3}) for box in (both, alone))
    now_ns, kind = 0, kind_of("peak_w_max")
    for role, value, for_ms, later_ms in asked:
        now_ns += later_ms * MS
        for desk in (with_it, without):
            desk.expire(now_ns)
            if role == "maintain" or desk is with_it:
                try:
                    policy(desk, role, "peak_w_max", value, now_ns=now_ns, for_ms=for_ms)
                except Refused as why:
                    assert why.code == "not-allowed" and role == "operate"
        if role == "maintain" and value is None and for_ms is None:
            assert with_it.policies.held == {}
        for ahead_ms in (0, 2, 600, 4000):
            at_ns = now_ns + ahead_ms * MS
            assert with_it.policies.value("peak_w_max", at_ns) <= without.policies.value("peak_w_max", at_ns)
        found = both.in_force(kind, now_ns)
        assert (48e3 if found is None else found) == with_it.policies.value("peak_w_max", now_ns)


def test_a_wish_of_the_role_maintain_is_not_replaced_from_below_it():
    desk = Desk(Box(), site_policies={})
    policy(desk, "maintain", "target_soc", 0.9)
    for value in (0.2, None):
        with pytest.raises(Refused) as refused:
            policy(desk, "operate", "target_soc", value)
        assert refused.value.code == "not-allowed"
    policy(desk, "maintain", "target_soc")
    policy(desk, "operate", "target_soc", 0.2)


def plan_of(desk, who, watts, now_s=0, rank="order"):
    rows = [step(10, setpoint_w=watts)] if watts is not None else []
    request = ops.Schedule(v=1, id="p", steps=rows, end_utc_s=20 if rows else 0, rank=rank)
    return desk.schedule(request, who, now_s * S, now_s * S)


def test_a_plan_is_replaced_and_ended_only_by_its_rank_or_its_owner():
    desk = Desk(Box())
    plan_of(desk, peer("boss", "maintain"), 5e3)
    for watts in (1e3, None):
        with pytest.raises(Refused) as refused:
            plan_of(desk, peer("ems", "operate"), watts)
        assert refused.value.code == "not-allowed" and refused.value.more["holder"] == "boss"
    plan_of(desk, peer("other", "maintain"), None)
    plan_of(desk, peer("ems", "operate"), 1e3)
    plan_of(desk, peer("ems2", "operate"), 2e3)
    assert desk.plan_owner == "ems2"


def test_a_planner_stands_back_from_every_order_and_gives_way_to_any():
    """Whatever role it has, and also where it and the person are the same user of the machine."""
    desk = Desk(Box())
    plan_of(desk, peer("uid:0", "maintain"), 1e3, rank="planner")
    plan_of(desk, peer("uid:0", "maintain"), 2e3, rank="planner")
    plan_of(desk, peer("ems", "operate"), 5e3)
    for who in (peer("uid:0", "maintain"), peer("ems", "operate")):
        for watts in (1e3, None):
            with pytest.raises(Refused, match="stands back") as refused:
                plan_of(desk, who, watts, rank="planner")
            assert refused.value.more["holder"] == "ems"
    assert desk.plan[0].values["setpoint_w"] == 5e3
    plan_of(desk, peer("ems", "operate"), None)
    order = plan_of(desk, peer("planner", "operate"), 2e3, rank="planner")
    assert desk.plan_rank == "planner"
    order.undo()
    assert desk.plan == [] and desk.plan_rank == "order"
    plan_of(desk, peer("planner", "operate"), 2e3, rank="planner")
    desk.step(20 * S, 20 * S)
    assert desk.plan == [] and desk.plan_rank == "order"


def test_nothing_of_a_peer_that_lost_its_right_stays_but_its_stop():
    box, put = Box(), []
    desk = Desk(box, site_policies={"peak_w_max": 48e3}, put_plan=lambda: put.append(len(desk.plan)) or 2)
    gone, stays = peer("gone"), peer("stays")
    desk.mode(ops.Mode(v=1, id="m", mode="stop"), gone, 0)
    desk.mode(ops.Mode(v=1, id="m", mode="run"), gone, 0)
    setpoint(desk, gone, acquire(desk, gone, 0), 0, 0)
    policy_of = lambda who, w: desk.policy(ops.Policy(v=1, id="q", name="peak_w_max", value=w), who, 0)  # noqa: E731
    policy_of(stays, 60e3)
    policy_of(gone, 70e3)
    for who, watts in ((gone, 10e3), (stays, 30e3)):
        desk.limit(ops.Limit(v=1, id="l", import_w_max=watts, for_ms=60_000), who, 0)
    desk.mode(ops.Mode(v=1, id="m", mode="manual", power_w=100.0), gone, 0)
    plan_of(desk, gone, 5e3)
    desk.forget("gone", 1)
    assert desk.lease is None and desk.manual is None and desk.plan == [] and put[-1] == 0
    assert box.in_force(SETPOINT, 1) is None and box.in_force(MANUAL, 1) is None and box.in_force(IMPORT, 1) == 30e3
    assert "gone" not in str(desk.policies.held)
