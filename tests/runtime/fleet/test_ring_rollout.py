"""Rings open one after the other, one failure halts all; over a real broker the units take, fail and go back."""

import asyncio
import json

import pytest

from tests.runtime.fleet.test_gated_apply import NEW, TEXT, Running
from tidegate.runtime.console.users import Seat
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.ring_rollout import ReleaseDesk, Rollout
from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite
from tidegate.runtime.fleet.unit.gated_apply import GatedApply, Times
from tidegate.runtime.fleet.unit.release_taker import ReleaseTaker
from tidegate.runtime.state.device_key import DeviceKey

pytest.importorskip("nats")
NUMBERS = {"canary": 3, "hall": 3, "yard": 3}


def may(rollout, now_s):
    return [site for site in NUMBERS if rollout.may_take(site, now_s)]


def test_a_ring_opens_once_the_one_before_it_has_been_well_for_a_while():
    rollout = Rollout([["canary"], ["hall", "yard"]], NUMBERS, 100)
    assert may(rollout, 0) == ["canary"]
    for site in NUMBERS:
        rollout.heard(site, 2, 0, "", 0)
    assert may(rollout, 1) == ["canary"]
    rollout.heard("canary", 3, 0, "", 10)
    assert may(rollout, 109) == [] and may(rollout, 110) == ["hall", "yard"]
    rollout.heard("canary", 3, 0, "", 105)  # says it again: since 10
    assert may(rollout, 110) == ["hall", "yard"]
    rollout.heard("hall", 3, 0, "", 120)
    assert may(rollout, 120) == ["yard"]
    rollout.heard("canary", 2, 0, "", 121)  # somebody put the old one back there
    assert may(rollout, 300) == ["canary"]
    rollout.heard("canary", 3, 0, "", 301)
    rollout.heard("yard", 3, 0, "", 301)
    assert may(rollout, 500) == [] and "all rings are through" in rollout.line(500)


def test_one_failure_halts_every_ring_and_an_old_failure_does_not():
    rollout = Rollout([["canary"], ["hall", "yard"]], NUMBERS, 0)
    rollout.heard("canary", 3, 2, "of last month", 0)
    assert may(rollout, 1) == ["hall", "yard"] and rollout.halted() == ""
    rollout.heard("hall", 2, 3, "mode tripped", 2)
    assert may(rollout, 3) == [] and "hall: mode tripped" in rollout.line(3)


@pytest.mark.parametrize("rings", [[], [["canary"], ["canary"]], [["pier"]]])
def test_rings_that_cannot_be_are_refused(rings):
    with pytest.raises(ReleaseError, match="each site once"):
        Rollout(rings, NUMBERS, 0)


def test_what_is_no_question_of_a_unit_gets_nothing():
    desk = ReleaseDesk(None, Rollout([["hall"]], {"hall": 3}, 0), {"hall": b"x"})
    word = next(iter(desk._site_of))
    good = {"number": 0, "failed": 0, "why": ""}
    assert desk.answer(word, json.dumps(good).encode(), 0)["file"]
    assert desk.answer("other", json.dumps(good).encode(), 0) == {"file": ""}
    for raw in (b"", b"[]", b"{}", b"\xff", b"5" * 9000, json.dumps({**good, "number": "0"}).encode()):
        assert desk.answer(word, raw, 0) == {"file": ""}


def test_units_take_their_release_ring_by_ring_over_a_broker_and_one_that_is_not_well_halts(
    broker_folder, port, tmp_path
):
    owner, broker = DeviceKey.at(tmp_path / "owner.pem"), Broker(broker_folder, port=port)
    broker.start()
    units, files = {}, {}
    for site in NUMBERS:
        path = tmp_path / site / "site.toml"
        path.parent.mkdir()
        path.write_text(TEXT.replace('"simulated"', f'"{site}"'))
        files[site] = SignedSite(site, 3, NEW.replace('"simulated"', f'"{site}"')).signed(owner)
        unit = Running(path, after={"mode": "tripped"} if site == "hall" else None)
        gate = GatedApply(path, unit, Seat(path.parent), lambda _: None, Times(5, 5, 1),
                          lambda unit=unit: unit.now_s, unit.sleep)  # fmt: skip
        units[site] = (unit, ReleaseTaker(gate, broker.invite(site), owner.public, lambda _: None))

    async def go():
        desk = ReleaseDesk(broker, Rollout([["canary"], ["hall"], ["yard"]], NUMBERS, 0), files)
        await desk.open()
        for _, taker in units.values():
            await taker.open()
        for site in ("yard", "hall"):
            assert not await units[site][1].step()  # not their turn
        assert await units["canary"][1].step()
        await units["canary"][1].step()  # says that it has it
        assert not await units["yard"][1].step() and not await units["hall"][1].step()  # hall tries, and goes back
        assert units["hall"][0].starts == [files_text("hall"), TEXT.replace('"simulated"', '"hall"')]
        await units["hall"][1].step()  # says so
        assert "HALTED: hall: release 3: mode tripped" in desk.rollout.line(0)
        assert not await units["yard"][1].step() and units["yard"][0].starts == []
        thief = DeviceKey.at(tmp_path / "thief.pem")
        desk.files["yard"], desk.rollout.standings = SignedSite("yard", 9, NEW).signed(thief), {}
        for site in ("canary", "hall", "yard"):
            desk.rollout.heard(site, 3 if site != "yard" else 0, 0, "", 0)
        assert not await units["yard"][1].step() and units["yard"][0].starts == []  # a hub that lies is not believed
        for _, taker in units.values():
            await taker.close()
        await desk.close()

    def files_text(site):
        return NEW.replace('"simulated"', f'"{site}"')

    try:
        asyncio.run(go())
    finally:
        broker.stop()
    assert units["canary"][0].path.read_text() == files_text("canary")
    assert json.loads((tmp_path / "hall/site.toml.failed").read_text())["number"] == 3
