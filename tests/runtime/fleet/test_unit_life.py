"""Units join by a token, change login and owner, are revoked, lost and re-flashed; each stands in the store."""

import asyncio
import json
import stat
import subprocess
import xml.etree.ElementTree as ET

import pytest

from tests.runtime.cabinet import TIDEGATE
from tests.runtime.fleet.test_hub import same, until_all_is_there
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.hub_admission import Admission
from tidegate.runtime.fleet.hub.hub_ingest import Ingest
from tidegate.runtime.fleet.hub.hub_life import HubLife
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.hub.join_token import JoinToken, join_message
from tidegate.runtime.fleet.invitation import HubError, Invitation
from tidegate.runtime.fleet.unit.site_sender import Sender
from tidegate.runtime.fleet.unit.unit_join import join, rotate
from tidegate.runtime.state.device_key import DeviceKey

pytest.importorskip("nats")


class LiveHub:
    """Broker, ingest and admission in this process; commands by the command line, as a person gives them."""

    def __init__(self, folder, port, url):
        self.folder, self.url = folder, url
        self.broker, self.store, self.life = Broker(folder, port=port), HubStore(url), HubLife.of(url)
        (folder / "hub.json").write_text(json.dumps({"database": url, "host": "127.0.0.1", "port": port, "tls": None}))

    def command(self, *words, wrong=False):
        done = subprocess.run(
            [*TIDEGATE, "hub", *words, "--folder", str(self.folder)], capture_output=True, text=True, timeout=120
        )
        assert bool(done.returncode) == wrong, done.stderr
        return done.stderr if wrong else done.stdout.split("\n")[0]

    def run(self, act):
        async def go():
            ingest, stop = Ingest(self.store), asyncio.Event()
            await ingest.open(self.broker.address, *self.broker.own_login())
            admission = Admission(self.broker, self.life, self.store)
            await admission.open()
            task = asyncio.create_task(ingest.run(stop))
            try:
                await act()
            finally:
                stop.set()
                await task
                await admission.close()
                await ingest.close()

        asyncio.run(go())


WHO = ("--by", "M. Fischer", "--reason", "test")


@pytest.fixture
def hub(broker_folder, port, shared_url):
    made = LiveHub(broker_folder, port, shared_url)
    made.broker.start()
    yield made
    made.broker.stop()
    made.store.close()
    made.life.close()


async def command(hub, *words, **more):
    """A command of the hub, while this process serves."""
    return await asyncio.to_thread(hub.command, *words, **more)


async def refused(path):
    """A login that opens nothing."""
    sender = Sender("none.db", Invitation.read(path), report=lambda _: None)
    opening = asyncio.create_task(sender.open())
    done, _ = await asyncio.wait({opening}, timeout=3)
    opening.cancel()
    return not done


def test_a_unit_joins_by_a_token_sends_rotates_its_login_and_is_revoked(hub, unit, tmp_path):
    hall, out = unit("hall"), tmp_path / "hall.join"
    hall.write()

    async def act():
        svg = tmp_path / "hall.svg"
        text = await command(hub, "enrol", "hall", "--owner", "Hall AG", "--svg", str(svg), *WHO)
        assert ET.parse(svg).getroot().tag.endswith("svg")
        token = JoinToken.read(text)
        await join(token, hall.key, out)
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert hall.key.public not in out.read_text() and Invitation.read(out).word != hall.key.public
        await join(token, hall.key, out)  # the answer was lost: asked again, the same file
        with pytest.raises(HubError, match="login still good"):
            await join(token, DeviceKey.at(tmp_path / "thief.pem"), tmp_path / "thief.join")
        sender = Sender(hall.path, Invitation.read(out))
        await sender.open()
        await until_all_is_there(sender)
        await sender.close()

        before = Invitation.read(out)
        await rotate(out)
        assert Invitation.read(out).word != before.word and not out.with_name("hall.join.next").exists()
        before.write(tmp_path / "old.join")
        assert await refused(tmp_path / "old.join")
        hall.write()
        sender = Sender(hall.path, Invitation.read(out))
        await sender.open()
        await until_all_is_there(sender)
        await command(hub, "revoke", "hall", *WHO)
        await asyncio.sleep(1.0)
        assert not sender._client.is_connected  # cut at once
        await sender.close()
        assert await refused(out)
        with pytest.raises(HubError):
            await rotate(out)

    hub.run(act)
    same(hall, hub.url)  # what it sent stays
    lines = hub.life.lines("hall")
    assert [one.what for one in lines] == ["invited", "joined", "login rotated", "revoked"]
    assert lines[-1].by == "M. Fischer" and lines[-1].reason == "test"
    assert "revoked by M. Fischer: test" in subprocess.run(
        [*TIDEGATE, "hub", "life", "hall", "--folder", str(hub.folder)], capture_output=True, text=True
    ).stdout  # fmt: skip


def test_a_broker_that_does_not_take_its_logins_is_told_of(hub, monkeypatch):
    hub.broker.put_login("hall", "ab" * 24)
    hub.broker.reload()
    monkeypatch.setattr(hub.broker, "_configuration", lambda: "authorization { users = 5 ")
    with pytest.raises(HubError, match="does not take its logins"):
        hub.broker.end_login("hall")


def test_a_rotation_whose_answer_was_lost_is_found_again(hub, unit, tmp_path):
    hall, out = unit("hall"), tmp_path / "hall.join"

    async def act():
        await join(JoinToken.read(await command(hub, "enrol", "hall", *WHO)), hall.key, out)
        now = Invitation.read(out)
        Invitation(now.site, now.address, now.user, "ab" * 24).write(tmp_path / "hall.join.next")
        hub.broker.put_login("hall", "ab" * 24)
        hub.broker.reload()
        await rotate(out)
        assert Invitation.read(out).word == "ab" * 24 and not await refused(out)

    hub.run(act)


def owner_in_reports(hub, site):
    with hub.store.another() as connection:
        return connection.execute("SELECT owner FROM fleet_places WHERE site = %s", (site,)).fetchone()[0]


def test_two_owners_of_a_release_of_before_become_one_and_where_they_differed_is_noted(shared_url):
    HubLife.of(shared_url).close()
    store = HubStore(shared_url)
    for site in ("a", "b", "c"):
        store.enrol(site, "0" * 64)
    with store.another() as connection:
        connection.execute("ALTER TABLE fleet_units ADD COLUMN owner text NOT NULL DEFAULT ''")
        connection.execute("INSERT INTO fleet_units (site, state, owner) VALUES ('a', 'joined', 'Unit AG'), "
                           "('b', 'joined', 'Unit AG'), ('c', 'joined', '')")  # fmt: skip
    for site in ("a", "c"):
        with store.another() as connection:
            connection.execute(
                "INSERT INTO fleet_places (site, owner, region) VALUES (%s, 'Report Ltd', 'SE3')", (site,)
            )
    for _ in range(2):
        life = HubLife.of(shared_url)
        assert [life.owner(site) for site in ("a", "b", "c")] == ["Unit AG", "Unit AG", "Report Ltd"]
        (note,) = life.lines(None)
        assert (note.site, note.detail) == ("a", "reports: Report Ltd, unit: Unit AG")
        life.close()
    store.close()


def test_an_owner_changes_a_unit_is_lost_and_another_goes_on_for_it(hub, unit, tmp_path):
    hall, yard = unit("hall"), unit("yard")
    outs = [tmp_path / f"{n}.join" for n in range(4)]

    async def act():
        await join(JoinToken.read(await command(hub, "enrol", "hall", "--owner", "Hall AG", *WHO)), hall.key, outs[0])
        text = await command(hub, "owner", "hall", "--to", "Yard GmbH", *WHO)
        assert await refused(outs[0])  # the owner of before has no login any more
        await join(JoinToken.read(text), hall.key, outs[1])
        assert "name its new owner" in await command(hub, "owner", "hall", "--to", "Yard GmbH", *WHO, wrong=True)

        # Units, reports and page have one owner, which changes with the login alone.
        assert owner_in_reports(hub, "hall") == hub.life.owner("hall") == "Yard GmbH"
        for words in (("place", "hall", "--owner", "Pier Ltd"), ("enrol", "hall", "--owner", "Pier Ltd", *WHO)):
            assert "tidegate hub owner hall --to 'Pier Ltd'" in await command(hub, *words, wrong=True)
        await command(hub, "place", "hall", "--owner", "Yard GmbH", "--region", "SE3")

        # Re-flashed: another key. It does not become hall by itself.
        text = await command(hub, "enrol", "hall", *WHO)
        with pytest.raises(HubError, match="re-flashed"):
            await join(JoinToken.read(text), yard.key, outs[2])
        assert not outs[2].exists()
        assert "no unit of this hub had" in await command(hub, "reflash", "hall", "--as", "hall", *WHO, wrong=True)
        text = await command(hub, "reflash", "hall", "--as", "hall-2", *WHO)
        await join(JoinToken.read(text), yard.key, outs[2])
        assert await refused(outs[1]) and not await refused(outs[2])
        assert hub.life.owner("hall-2") == owner_in_reports(hub, "hall-2") == "Yard GmbH"
        assert "is replaced" in await command(hub, "enrol", "hall", *WHO, wrong=True)

        # Lost: its key is let in no more, under any name.
        await command(hub, "lost", "hall-2", *WHO)
        assert await refused(outs[2])
        text = await command(hub, "enrol", "pier", *WHO)
        with pytest.raises(HubError, match="reported lost"):
            await join(JoinToken.read(text), yard.key, outs[3])
        with pytest.raises(HubError, match="already; no two units"):
            await join(JoinToken.read(text), hall.key, outs[3])

    hub.run(act)
    assert [one.what for one in hub.life.lines("hall")] == ["invited", "joined", "owner changed", "invited", "joined",
                                                            "invited", "replaced"]  # fmt: skip


def test_what_does_not_let_in_a_unit(hub, unit, tmp_path):
    hall = unit("hall")
    admission = Admission(hub.broker, hub.life, hub.store)
    token = JoinToken.read(hub.command("enrol", "hall", *WHO))
    word = "ab" * 24
    import hashlib

    digest = hashlib.sha256(word.encode()).hexdigest()
    good = {"site": "hall", "code": token.code, "key": hall.key.public, "word": word,
            "signature": hall.key.sign(join_message("hall", token.id, digest))}  # fmt: skip
    for wrong, text in (({"code": "x"}, "no such token"), ({"word": "cd" * 24}, "did not sign"),
                        ({"word": "short"}, "did not sign"), ({"site": "yard"}, "did not sign"),
                        ({"key": "zz"}, "did not sign")):  # fmt: skip
        with pytest.raises(HubError, match=text):
            admission.admit(token.id, json.dumps({**good, **wrong}).encode())
    for raw in (b"", b"[]", b"{}", b"\xff"):
        with pytest.raises(HubError, match="no request"):
            admission.admit(token.id, raw)
    with pytest.raises(HubError, match="no such token"):
        admission.admit("other", json.dumps({**good, "signature": hall.key.sign(
            join_message("hall", "other", digest))}).encode())  # fmt: skip
    newer = JoinToken.read(hub.command("enrol", "hall", *WHO))
    with pytest.raises(HubError, match="used, replaced"):
        admission.admit(token.id, json.dumps(good).encode())
    assert list(hub.broker.claims()) == [newer.id] and hub.broker.logins() == {}
    hub.life._connection.execute("UPDATE fleet_tokens SET ends_utc_s = 1 WHERE id = %s", (newer.id,))
    late = {**good, "code": newer.code, "signature": hall.key.sign(join_message("hall", newer.id, digest))}
    with pytest.raises(HubError, match="time is over"):
        admission.admit(newer.id, json.dumps(late).encode())


def test_a_token_that_was_cut_or_is_none_is_refused():
    text = JoinToken.new("hall", "nats://127.0.0.1:4222", "").text()
    assert JoinToken.read(f" {text[:20]}\n{text[20:]} ").site == "hall"  # as a mail breaks it
    for wrong in (text[:-8], text.replace("tidegate", "x"), "", text + "A" * 9000, text[:-3] + "!!!"):
        with pytest.raises(HubError):
            JoinToken.read(wrong)
