"""Who may set a stopped site going, and what a stop outlives."""

import json
import time
from pathlib import Path

import pytest

from tests.runtime.gateway.test_access import eventually, free_port, key_of
from tidegate.runtime.api import blocking_client as clients
from tidegate.runtime.api import curve_keys
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway import ops
from tidegate.runtime.gateway.command_handler import Desk
from tidegate.runtime.gateway.orders_held import MODE, STOP
from tidegate.runtime.gateway.peers import Peer
from tidegate.runtime.state import stop_file
from tidegate.runtime.state.held import HELD
from tidegate.runtime.state.stop_file import FILE, MARK, Lockout, Stop, StopFile, Stops

from .test_command_handler import Box

STOP_W = 2.0


def here(role="maintain", user=""):
    return Peer("uid:0", role, user=user)


def there(role="maintain"):
    return Peer("key:scada", role, is_local=False)


def mode(desk, who, what):
    return desk.mode(ops.Mode(v=2, id="m", mode=what), who, 0)


def order(core, kind):
    held = core.memory.order(kind)
    return held.value if held.expires_t_ns > time.monotonic_ns() else None


@pytest.mark.parametrize(("stopper", "lifter", "code"), [
    (here(), there("operate"), "local"), (here(), there(), "local"), (here("operate"), there(), "local"),
    (there(), there("operate"), "not-allowed"), (here(), here("operate"), "not-allowed"),
    (there(), here("operate"), "not-allowed"), (there("operate"), there("operate"), None), (there(), there(), None),
    (there(), here(), None), (here("operate"), here("operate"), None), (here("operate"), here(), None),
])  # fmt: skip
def test_a_stop_is_lifted_from_where_it_was_ordered_and_by_no_lesser_role(stopper, lifter, code):
    desk = Desk(Box())
    mode(desk, stopper, "stop")
    if code is None:
        mode(desk, lifter, "run")
        assert not desk.stopped
    else:
        with pytest.raises(Refused) as refused:
            mode(desk, lifter, "run")
        assert refused.value.code == code and desk.stopped and desk.mailbox.in_force(MODE, 1) == STOP_W


def test_a_second_stop_from_further_away_does_not_make_the_first_one_lighter():
    desk = Desk(Box())
    mode(desk, here(), "stop")
    mode(desk, there("operate"), "stop")
    with pytest.raises(Refused):
        mode(desk, there(), "run")
    desk = Desk(Box())
    mode(desk, there("operate"), "stop")
    mode(desk, here(), "stop")
    with pytest.raises(Refused):
        mode(desk, there(), "run")


def test_who_asks_for_somebody_on_another_machine_counts_as_from_there():
    desk = Desk(Box())
    mode(desk, here(), "stop")
    bridge = here()
    bridge.for_remote = True
    with pytest.raises(Refused) as refused:
        mode(desk, bridge, "run")
    assert refused.value.code == "local"


def lock(desk, who, name, action="lock", reason="work on the busbar"):
    return desk.lock(ops.Lock(v=2, id="k", action=action, name=name, reason=reason), who, 0)


def test_a_lock_out_names_who_and_why_and_each_person_takes_off_its_own():
    desk = Desk(Box())
    lock(desk, here(), "anna")
    lock(desk, here(), "ben", reason="fans")
    with pytest.raises(Refused) as refused:
        mode(desk, here(), "run")
    assert refused.value.code == "locked-out" and "anna" in refused.value.text and "busbar" in refused.value.text
    with pytest.raises(Refused):
        lock(desk, there(), "anna", "unlock")
    with pytest.raises(Refused):
        lock(desk, here("operate", "ben"), "anna", "unlock")
    lock(desk, here("operate", "anna"), "anna", "unlock")
    with pytest.raises(Refused, match="ben"):
        mode(desk, here(), "run")
    lock(desk, here(), "ben", "unlock")
    assert desk.stopped, "taking a lock off sets nothing going"
    mode(desk, here(), "run")
    assert not desk.stopped
    for bad in (lambda: lock(desk, there(), "eve"), lambda: lock(desk, here(), "eve", reason="")):
        with pytest.raises(Refused):
            bad()
    assert not desk.stopped


def test_switched_to_local_the_orders_of_other_machines_end_and_their_stop_still_works(core, start_gateway, tmp_path):
    core.values["site.mode"] = (3.0, 1)
    core.step()
    core.beat()
    folder = curve_keys.folder_of(tmp_path / "state")
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    gateway = start_gateway(endpoint=endpoint)
    scada = key_of(folder, tmp_path, "scada", "operate")
    time.sleep(1.2)
    with gateway.client() as local, Client(endpoint, keys=scada, timeout_s=3) as far:
        eventually(lambda: far.limit(import_w_max=20e3, for_s=600))
        far.schedule([(int(time.time()), 5e3)], int(time.time()) + 3600)
        local.ask("control", place="local")
        assert order(core, 2) is None and not core.memory.plan().rows
        for ask in (
            lambda: far.limit(import_w_max=1e3, for_s=1),
            far.run,
            far.ack,
            lambda: far.ask("control", place="remote"),
        ):
            with pytest.raises(clients.ClientError) as refused:
                ask()
            assert refused.value.code in ("local", "not-allowed")
        assert far.health()["core"]["running"] and far.stop()["status"] == "applied"
        assert local.why()["stops"]["place"] == "local" and local.why()["stops"]["stop"]["by"] == "key:scada"
        local.run()
        local.ask("control", place="remote")
        far.limit(import_w_max=30e3, for_s=1)


def test_a_revoked_key_s_plan_limits_and_policies_end_with_it(core, start_gateway, tmp_path):
    core.values["site.mode"] = (3.0, 1)
    core.step()
    core.beat()
    elsewhere = tmp_path / "elsewhere"
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    gateway = start_gateway(endpoint=endpoint, keys=str(elsewhere))
    store = curve_keys.folder_of(tmp_path / "state")  # what `tidegate keys` means
    ems = key_of(store, tmp_path, "ems", "maintain")
    time.sleep(1.2)
    with Client(endpoint, keys=ems, timeout_s=3) as far, gateway.client() as local:
        eventually(lambda: far.limit(import_w_max=20e3, for_s=86_400))
        far.schedule([(int(time.time()), 5e3)], int(time.time()) + 300 * 86_400)
        far.policy("peak_w_max", 47e3)
        with far.lease() as lease:
            lease.setpoint(1e3, 60)
            curve_keys.revoke(store, "ems")
            until = time.monotonic() + 5
            while (core.memory.plan().rows or order(core, 2) or order(core, 1)) and time.monotonic() < until:
                time.sleep(0.05)
            assert not core.memory.plan().rows and order(core, 2) is None and order(core, 1) is None
        assert local.why()["policies"] == {}
        with pytest.raises(clients.ClientError):
            far.health()


def test_a_table_that_cannot_be_read_for_a_moment_ends_no_plan(core, start_gateway, tmp_path):
    core.step()
    core.beat()
    folder = curve_keys.folder_of(tmp_path / "state")
    ems = key_of(folder, tmp_path, "ems", "operate")
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    start_gateway(endpoint=endpoint)
    with Client(endpoint, keys=ems, timeout_s=3) as far:
        far.schedule([(int(time.time()), 5e3)], int(time.time()) + 3600)
        table = (folder / "roles.toml").read_text()
        (folder / "roles.toml").write_text("nonsense")
        time.sleep(2.2)
        (folder / "roles.toml").write_text(table)
        assert eventually(far.health) and core.memory.plan().rows


def test_keys_granted_in_two_places_keep_the_others_out_and_this_machine_in(core, start_gateway, tmp_path):
    core.step()
    core.beat()
    curve_keys.make(curve_keys.folder_of(tmp_path / "state"), "a", "read", tmp_path / "a.key")
    gateway = start_gateway(endpoint=f"tcp://127.0.0.1:{free_port()}", keys=str(tmp_path / "elsewhere"))
    with gateway.client() as site:
        assert site.health()["core"]["running"]
    assert "both" not in gateway.gateway.transports.problem and "elsewhere" in gateway.gateway.transports.problem
    transports, until = gateway.gateway.transports, time.monotonic() + 20
    while not transports._problem and time.monotonic() < until:
        time.sleep(0.02)
    assert "keys were granted in" in transports._problem, "the process for other machines says it too, at any length"
    assert gateway.thread.is_alive()


def test_a_server_key_that_cannot_be_used_costs_this_machine_nothing(core, start_gateway, tmp_path):
    core.step()
    core.beat()
    folder = curve_keys.folder_of(tmp_path / "state")
    (folder / "server.key").write_text("nonsense")
    gateway = start_gateway(endpoint=f"tcp://127.0.0.1:{free_port()}")
    with gateway.client() as site:
        assert site.stop()["status"] == "applied"


def test_a_stop_by_signal_is_known_kept_and_lifted_on_site_only(core, start_gateway, tmp_path):
    core.values["site.mode"] = (3.0, 1)
    core.step()
    core.beat()
    gateway = start_gateway()
    core.memory.put_order(STOP, 1.0, time.monotonic_ns() + 10**15, 1)
    with gateway.client() as site:
        until = time.monotonic() + 5
        while not site.why()["stopped"] and time.monotonic() < until:
            time.sleep(0.02)
        assert site.why()["stops"]["stop"]["by"] == "a signal"
        gateway.close()
    core.memory.put_order(STOP, 0.0, 0, 1)
    core.memory.put_order(MODE, 0.0, 0, 1)
    with start_gateway().client() as site:
        assert order(core, MODE) == STOP_W
        with pytest.raises(clients.ClientError) as refused:
            site.ask("mode", mode="run", for_remote=True)
        assert refused.value.code == "local"
        core.memory.put_order(STOP, 1.0, time.monotonic_ns() + 10**15, 1)
        site.run()
        assert order(core, STOP) is None and not site.why()["stopped"]


def folders(tmp_path):
    made = (tmp_path / "state", tmp_path / "run")
    for folder in made:
        folder.mkdir(exist_ok=True)
    return made


def test_a_stop_that_the_state_disk_refuses_is_said_and_kept_on_the_other(core, start_gateway, tmp_path, monkeypatch):
    core.step()
    core.beat()
    first = start_gateway()
    real = stop_file.replace

    def refuse(path, data, mode=0o600):
        if path.parent.name == HELD:
            raise OSError(28, "No space left on device")
        real(path, data, mode)

    with first.client() as site, monkeypatch.context() as full:
        full.setattr(stop_file, "replace", refuse)
        answer = site.stop()
        assert answer["status"] == "applied" and "not kept" in answer["text"]
        assert json.loads((tmp_path / "state" / HELD / FILE).read_text())["stop"] is None
        first.close()
        core.memory.put_order(MODE, 0.0, 0, 1)
        second = start_gateway()
        assert order(core, MODE) == STOP_W
    until = time.monotonic() + 10
    while json.loads((tmp_path / "state" / HELD / FILE).read_text())["stop"] is None and time.monotonic() < until:
        time.sleep(0.05)
    assert json.loads((tmp_path / "state" / HELD / FILE).read_text())["stop"]["by"] == "uid:0", (
        "kept once the disk takes it"
    )
    assert second.thread.is_alive()


def test_what_is_written_is_read_and_the_newer_copy_counts(tmp_path):
    state, run = folders(tmp_path)
    file = StopFile(state, run)
    stops = Stops(stop=Stop("uid:0", "maintain", True, 5), lockouts=[Lockout("anna", "why", "uid:0", 6)], is_local=True)
    assert file.write(stops)
    assert StopFile(state, run).read() == (stops, "")
    old = (state / FILE).read_bytes()
    assert file.write(Stops(number=1))
    (state / FILE).write_bytes(old)
    assert not StopFile(state, run).read()[0].stopped
    assert StopFile(state, run).read()[0].number == 2


@pytest.mark.parametrize("raw", [b"", b"\x01", b"{}", b"[]", b"null", b'{"sha256": 1}', b"\xff" * 100, b"[" * 100_000])
def test_a_record_that_cannot_be_read_is_a_stop_that_says_so(tmp_path, raw):
    state, run = folders(tmp_path)
    (state / FILE).write_bytes(raw)
    stops, damage = StopFile(state, run).read()
    assert stops.stopped and stops.stop.is_local and FILE in damage


def test_a_record_cut_or_changed_at_any_byte_never_lifts_the_stop(tmp_path):
    state, run = folders(tmp_path)
    StopFile(state, run).write(Stops(stop=Stop("a", "operate", False, 5)))
    raw = (state / FILE).read_bytes()
    (run / FILE).unlink()
    for at in range(len(raw) - 1):
        for bad in (raw[:at], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]):
            (state / FILE).write_bytes(bad)
            assert StopFile(state, run).read()[0].stopped


def test_the_mark_alone_is_a_stop_and_goes_with_it(tmp_path):
    state, run = folders(tmp_path)
    file = StopFile(state, run)
    assert not file.read()[0].stopped
    assert file.mark() == "" and (state / MARK).exists() and (run / MARK).exists()
    stops, _ = file.read()
    assert stops.stop.is_local
    stops.stop = None
    assert file.write(stops) and not file.read()[0].stopped
    assert StopFile(Path("/nonexistent"), run).mark() != "" and StopFile(state, run).read()[0].stopped


def test_an_exporter_says_that_its_orders_come_from_elsewhere(core, gateway):
    import asyncio

    from tidegate.runtime.api.async_client import AsyncClient

    async def lease_of(far: bool) -> str:
        async with AsyncClient(gateway.endpoint, for_remote=far, timeout_s=5.0) as site:
            assert (await site.ask("health"))["status"] == "ok"
            try:
                return str((await site.ask("lease", action="acquire"))["status"])
            except clients.ClientError as why:
                return why.code

    with gateway.client() as local:
        local.ask("control", place="local")
        assert asyncio.run(lease_of(True)) == "local"
        assert asyncio.run(lease_of(False)) == "applied"
