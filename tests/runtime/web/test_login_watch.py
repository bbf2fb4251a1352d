"""What people ordered through the page ends with their login or token, as a revoked key's orders do."""

import time

import pytest

from tests.runtime.gateway.test_command_handler import Box
from tests.runtime.web.conftest import PASSWORD, eventually
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway import ops
from tidegate.runtime.gateway.command_handler import Desk
from tidegate.runtime.gateway.peers import Peer
from tidegate.runtime.web.access_tokens import grant
from tidegate.runtime.web.login_watch import LOOK_S, gone

IMPORT = 2
WITHIN_S = 5.0


def test_lost_is_whoever_is_not_there_or_may_less():
    before = {("login", "anna"): "maintain", ("login", "ben"): "operate", ("token", "ems"): "operate"}
    now = {("login", "anna"): "operate", ("token", "ben"): "read", ("token", "ems"): "maintain"}
    assert gone(before, now) == ["anna", "ben"] and gone(before, before) == []


def page_of(user, name="tidegate-web"):
    return Peer(name, "maintain", user=user, always_remote=True)


def limited(desk, who, import_w_max):
    desk.limit(ops.Limit(v=2, id="a", import_w_max=import_w_max, for_ms=600_000), who, 0)


def test_each_kind_of_order_of_a_person_who_is_gone_ends_and_nobody_elses():
    desk = Desk(Box(), site_policies={"peak_w_max": 60e3})
    anna, ben, console = page_of("anna"), page_of("ben"), Peer("tidegate", "maintain", user="anna")
    script, key = Peer("uid:1001", "operate", user="anna"), Peer("key:anna", "operate", is_local=False)
    for who, watts in ((anna, 10e3), (ben, 20e3), (console, 15e3), (script, 30e3), (key, 40e3)):
        limited(desk, who, watts)
    desk.policy(ops.Policy(v=2, id="p", name="peak_w_max", value=47e3), anna, 0)
    lease = desk.take_lease(ops.Lease(v=2, id="l", action="acquire"), anna, 0)["lease"]
    desk.setpoint(ops.Setpoint(v=2, id="s", lease=lease, seq=0, setpoint_w=1e3, for_ms=1000), anna, 0)
    steps = [ops.Step(start_utc_s=1, setpoint_w=5e3)]
    desk.schedule(ops.Schedule(v=2, id="q", steps=steps, end_utc_s=3600), anna, 0, 0)
    assert desk.mailbox.orders[IMPORT][0] == 10e3

    desk.keep_people(ben, [], ["anna", "ben"], 0)
    assert desk.mailbox.orders[IMPORT][0] == 10e3 and desk.plan and desk.lease, "nobody is gone"
    desk.keep_people(ben, [], ["ben"], 0)
    assert desk.mailbox.orders[IMPORT][0] == 20e3, (
        "at page and console; a script and a key may call theirs as they like"
    )
    assert not desk.plan and desk.lease is None and not desk.policies.held
    assert {one.partition(" for ")[0] for one in desk.limits} == {"remote:tidegate-web", "uid:1001", "key:anna"}
    desk.keep_people(ben, ["ben"], None, 0)
    assert desk.mailbox.orders[IMPORT][0] == 30e3
    with pytest.raises(Refused, match="of this machine"):
        desk.keep_people(key, ["anna"], None, 0)


def test_one_persons_limit_is_not_widened_by_another_at_the_same_page():
    desk = Desk(Box())
    limited(desk, page_of("anna"), 10e3)
    limited(desk, page_of("ben"), 50e3)
    assert desk.mailbox.orders[IMPORT][0] == 10e3


def test_switched_to_local_what_the_page_ordered_ends_as_a_keys_does():
    desk = Desk(Box())
    for who, watts in (
        (page_of("anna"), 10e3),
        (page_of("anna", "uid:1000"), 11e3),
        (Peer("tidegate", "maintain"), 20e3),
    ):
        limited(desk, who, watts)
    assert desk.mailbox.orders[IMPORT][0] == 10e3
    desk.control(ops.Switch(v=2, id="c", place="local"), Peer("uid:0", "maintain"), 0)
    assert desk.mailbox.orders[IMPORT][0] == 20e3


def test_orders_of_a_token_and_of_a_login_end_within_five_seconds_of_its_removal(page):
    held = page.core.memory.order
    token = grant(page.state / "web" / "tokens.json", "ems", "maintain")
    program, anna, _ = page.visitor(), page.visitor("anna"), page.visitor("boss")

    def asked(op, **fields):
        return eventually(lambda: program.ask(f"/api/v1/{op}", fields, authorization=f"Bearer {token}")[0] == 200)

    now_s = int(time.time())
    asked("limit", import_w_max=20e3, for_ms=600_000)
    asked("schedule", steps=[{"start_utc_s": now_s, "setpoint_w": 5e3}], end_utc_s=now_s + 300 * 86_400)
    asked("policy", name="peak_w_max", value=30e3)
    assert anna.ask("/session/arm", {"password": PASSWORD})[2]["armed_s"] > 0
    prepared = anna.ask("/orders/prepare", {"action": "limit", "import_w_max": 25e3, "for_ms": 600_000})[2]
    assert anna.ask("/orders/confirm", {"token": prepared["token"]})[2]["status"] in ("applied", "clamped")
    eventually(lambda: held(IMPORT).value == 20e3 and page.core.memory.plan().rows)

    assert page.command("revoke", "ems").returncode == 0
    eventually(lambda: not page.core.memory.plan().rows and held(IMPORT).value == 25e3, "the token's orders stand")
    assert anna.ask("/api/v1/why")[2]["why"]["policies"] == {}

    assert page.command("revoke", "--login", "anna").returncode == 0
    eventually(lambda: held(IMPORT).expires_t_ns <= time.monotonic_ns(), "the login's limit stands")
    assert 2 * LOOK_S < WITHIN_S, "one look and the asking of it; the clock of a starved machine judges nothing"
