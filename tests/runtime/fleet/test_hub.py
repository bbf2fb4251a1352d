"""Sites, a real nats-server and a real PostgreSQL: what is sent is there, whatever ends in between."""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from tests.runtime.fleet.conftest import Unit
from tidegate.runtime.carbon.ledger.ledger import Ledger, ledgers_in
from tidegate.runtime.carbon.ledger.signing import restored, verify
from tidegate.runtime.fleet.hub import hub_ingest
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.hub_ingest import Ingest
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import HubError, Invitation
from tidegate.runtime.fleet.unit.site_sender import Sender

pytest.importorskip("nats")
KILLS = int(os.environ.get("FLEET_KILLS", "6"))


class Hub:
    """A hub in this process: its parts can be ended and started one by one."""

    def __init__(self, folder, port, url):
        self.folder, self.port, self.url = folder, port, url
        self.broker = Broker(folder, port=port)
        self.store = HubStore(url)
        self.ingest, self.task, self.stop = None, None, None

    async def start_ingest(self):
        self.store.reconnect()
        self.ingest, self.stop = Ingest(self.store), asyncio.Event()
        await self.ingest.open(self.broker.address, *self.broker.own_login())
        self.task = asyncio.create_task(self.ingest.run(self.stop))

    async def kill_ingest(self):
        """At any point, its connection cut: as kill -9 does."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self.task
            self.store.close()
            with contextlib.suppress(Exception):
                await self.ingest.close()
            self.task = None

    def invite(self, unit):
        self.store.enrol(unit.site, unit.key.public)
        return self.broker.invite(unit.site)


@pytest.fixture
def hub(broker_folder, port, shared_url):
    made = Hub(broker_folder, port, shared_url)
    made.broker.start()
    yield made
    made.broker.stop()
    made.store.close()


async def until_all_is_there(sender, tries=60):
    for _ in range(tries):
        with contextlib.suppress(OSError):
            if await sender.step():
                return
        await asyncio.sleep(0.2)
    raise AssertionError(sender._said)


async def sent(hub, *units):
    """Each site's signed entries, sent until the hub has them."""
    senders = [Sender(unit.path, hub.broker.invite(unit.site)) for unit in units]
    for sender in senders:
        await sender.open()
    await asyncio.gather(*(until_all_is_there(sender) for sender in senders))
    return senders


def same(unit, url):
    there = Ledger(url, unit.site, read_only=True)
    assert list(there.raw_rows(0)) == unit.rows() and verify(there, key=unit.key.public) == []


def test_three_sites_report_and_the_hub_has_the_same_bytes(hub, unit):
    units = [unit(name) for name in ("hall", "yard", "pier")]
    for number, one in enumerate(units):
        one.write(blocks=2 + number)
        hub.invite(one)

    async def go():
        await hub.start_ingest()
        senders = await sent(hub, *units)
        units[0].write()
        units[0].ledger.append([("note", 0, {"unsigned": 1})])  # waits for its block
        await until_all_is_there(senders[0])
        before = senders[0].sent_bytes
        await until_all_is_there(senders[0])
        assert senders[0].sent_bytes == before  # nothing new, nothing sent
        for sender in senders:
            await sender.close()
        await hub.kill_ingest()

    asyncio.run(go())
    hub.store.reconnect()
    assert [row[0] for row in ledgers_in(hub.url)] == ["hall", "pier", "yard"]
    assert list(Ledger(hub.url, "hall", read_only=True).raw_rows(0)) == units[0].rows()[:-1]
    for one in units[1:]:
        same(one, hub.url)
    assert {line.said for line in hub.store.sites()} == {""} and hub.store.letters() == []


def test_kills_of_broker_ingest_and_site_lose_and_double_nothing(hub, unit):
    """Seeded kills; the broker also comes back without its memory. FLEET_KILLS for more."""
    units = [unit(name) for name in ("hall", "yard")]
    for one in units:
        one.write(blocks=6)
        hub.invite(one)
    rng = random.Random(20)

    async def go():
        await hub.start_ingest()
        for number in range(KILLS):
            senders = [Sender(one.path, hub.broker.invite(one.site), report=lambda _: None) for one in units]
            for sender in senders:
                await sender.open()
            steps = [asyncio.create_task(sender.step()) for sender in senders]
            await asyncio.sleep(rng.uniform(0.0, 0.15))
            what = ("broker", "ingest", "site", "broker with its memory")[number % 4]
            if what == "ingest":
                await hub.kill_ingest()
            elif what != "site":
                hub.broker._process.kill()
                hub.broker.stop()
                if what != "broker":
                    shutil.rmtree(hub.folder / "broker")
            for step in steps:
                step.cancel()
            await asyncio.gather(*steps, return_exceptions=True)
            for sender in senders:
                await sender.close()
            if not hub.broker.alive():
                hub.broker.start()
            await hub.kill_ingest()
            await hub.start_ingest()
            for one in units:
                one.write(blocks=2)
        for sender in await sent(hub, *units):
            await sender.close()
        await hub.kill_ingest()

    asyncio.run(go())
    for one in units:
        same(one, hub.url)
    hub.store.reconnect()
    assert hub.store.letters() == []


def test_a_broker_that_lost_the_end_of_its_stream_and_not_its_place_in_it_is_given_a_new_one(hub, unit, capfd):
    """After a power cut the consumer may stand behind the stream's end: it would take what comes as given already."""
    hall = unit()
    hall.write(4, blocks=4)
    hub.invite(hall)

    async def go():
        await hub.start_ingest()
        (sender,) = await sent(hub, hall)
        sender._stuck_s = 2.0
        for _ in range(6):
            hall.write(4)
            await until_all_is_there(sender)
        hub.broker.stop()
        for path in (hub.folder / "broker").rglob("*"):
            if path.suffix in (".blk", ".idx", ".db") and "obs" not in path.parts:
                path.unlink()
        hub.broker.start()
        hall.write(4)
        await until_all_is_there(sender)
        await sender.close()
        await hub.kill_ingest()

    asyncio.run(go())
    same(hall, hub.url)
    assert "its stream is made anew" in capfd.readouterr().err


def test_what_is_false_is_named_where_people_look_and_the_site_goes_on(hub, unit, tmp_path):
    one, other = unit("hall"), unit("yard")
    one.write(blocks=2)
    other.write()
    hub.invite(one)
    hub.store.enrol("yard", one.key.public)  # the wrong key was typed

    async def go():
        await hub.start_ingest()
        said = []
        for site in (one, other):
            sender = Sender(site.path, hub.broker.invite(site.site), report=said.append)
            await sender.open()
            assert await sender.step() is (site is one)
            await sender.close()
        (tmp_path / "foreign").mkdir()
        stranger = Unit(tmp_path / "foreign", "hall")  # another unit of the same name
        stranger.write(blocks=3)
        sender = Sender(stranger.path, hub.broker.invite("hall"), report=said.append)
        await sender.open()
        assert not await sender.step()
        await sender.close()
        await hub.kill_ingest()
        return said

    said = asyncio.run(go())
    assert any("foreign: block signed by key" in text for text in said), said
    assert any("the hub has another entry" in text and "carbon restored" in text for text in said), said
    hub.store.reconnect()
    assert sorted((row.site, row.kind) for row in hub.store.letters()) == [("hall", "forked"), ("yard", "foreign")]
    assert {line.site: line.said.split(": ")[1] for line in hub.store.sites()} == {"hall": "forked", "yard": "foreign"}
    same(one, hub.url)


def test_a_site_that_was_put_back_goes_on_once_a_person_accepts_it(hub, unit, tmp_path):
    one = unit("hall")
    one.write()
    one.ledger.close()
    copy = tmp_path / "backup.db"
    shutil.copy(one.path, copy)
    one.write(blocks=2)
    hub.invite(one)

    async def go():
        await hub.start_ingest()
        (sender,) = await sent(hub, one)
        one.ledger.close()
        for path in tmp_path.glob("hall.db*"):
            path.unlink()
        shutil.copy(copy, one.path)
        one.ledger = Ledger(one.path, "hall")
        one.ledger.begin("hall")
        lost = 26
        restored(one.ledger, "mara", "the disk broke", {})
        one.ledger.claim(one.key.public)
        one.write(blocks=2)
        assert not await sender.step()
        letter = hub.store.letters()[0]
        assert (letter.kind, letter.site) == ("restored", "hall") and "by mara: the disk broke" in letter.what
        with pytest.raises(HubError, match="say who"):
            hub.store.accept_restored("hall", "", "")
        assert hub.store.accept_restored("hall", "me", "called mara") == lost
        await until_all_is_there(sender)
        await sender.close()
        await hub.kill_ingest()

    asyncio.run(go())
    same(one, hub.url)
    with psycopg.connect(hub.url.replace("+psycopg", "")) as connection:
        aside = connection.execute("SELECT count(*), min(accepted_by) FROM fleet_set_aside").fetchone()
    assert aside == (26, "me")


def test_a_login_opens_its_own_subjects_only(hub, unit):
    import nats

    one, other = unit("hall"), unit("yard")
    mine, theirs = hub.invite(one), hub.invite(other)

    async def go():
        await hub.start_ingest()
        refused = []

        async def on_error(why):
            refused.append(str(why))

        client = await nats.connect(mine.address, user=mine.user, password=mine.word, error_cb=on_error)
        for subject in (
            f"tidegate.ledger.{theirs.user}",
            "$JS.API.STREAM.DELETE.LEDGERS",
            f"tidegate.ask.{theirs.user}",
        ):
            await client.publish(subject, b"x")
        await client.subscribe("tidegate.>")
        await client.flush()
        await asyncio.sleep(0.3)
        await client.close()
        hub.broker.invite("hall")  # a new invitation ends the one before
        for _ in range(200):  # the broker reads its logins again a moment later
            try:
                again = await nats.connect(mine.address, user=mine.user, password=mine.word, allow_reconnect=False)
            except (nats.errors.Error, OSError):
                break
            await again.close()
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the login of before still opens")
        await hub.kill_ingest()
        return refused

    assert len(asyncio.run(go())) == 4


def test_a_hub_that_others_reach_needs_a_certificate(broker_folder):
    with pytest.raises(HubError, match="passwords would cross the network"):
        Broker(broker_folder, host="0.0.0.0")


def test_an_invitation_is_a_secret_file_and_another_file_is_none(tmp_path):
    made = Invitation("hall", "nats://127.0.0.1:4222", "u", "w")
    made.write(tmp_path / "a.join")
    assert (tmp_path / "a.join").stat().st_mode & 0o077 == 0 and Invitation.read(tmp_path / "a.join") == made
    (tmp_path / "b.join").write_text("[1]")
    with pytest.raises(HubError, match="not an invitation"):
        Invitation.read(tmp_path / "b.join")


def test_a_broker_ends_with_the_hub_that_was_killed(broker_folder, port):
    """kill -9 of the hub leaves nothing behind, and the next hub starts at once."""
    code = (
        "import sys, time; from pathlib import Path; from tidegate.runtime.fleet.hub.broker import Broker\n"
        "Broker(Path(sys.argv[1]), port=int(sys.argv[2])).start(); print('up', flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", code, str(broker_folder), str(port)]
    hub = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert hub.stdout.readline() == b"up\n"
    other = Broker(broker_folder, port=port)
    number = int((broker_folder / "broker.pid").read_text())
    assert other.answers()
    hub.kill()
    hub.wait()
    until = time.monotonic() + 60
    while other.answers() or Path(f"/proc/{number}").exists():
        assert time.monotonic() < until, "the broker goes on without its hub"
        time.sleep(0.1)
    other.start()
    assert other.alive()
    other.stop()


def test_a_broker_whose_store_cannot_be_read_starts_without_it(broker_folder, port, capfd):
    """It is never believed to remember: what it held comes again from the sites."""
    broker = Broker(broker_folder, port=port)
    (broker_folder / "broker").mkdir()
    (broker_folder / "broker" / "jetstream").write_text("no folder")
    broker.start()
    assert broker.alive()
    broker.stop()
    said = capfd.readouterr().err
    (aside,) = broker_folder.glob("broker.damaged-*")
    assert (aside / "jetstream").read_text() == "no folder" and str(aside) in said and "from their marks" in said


def test_another_cause_that_keeps_the_broker_down_is_named_and_its_store_stays(broker_folder, port):
    broker = Broker(broker_folder, port=port, tls=(broker_folder / "none.pem", broker_folder / "none.key"))
    (broker_folder / "broker").mkdir()
    with pytest.raises(HubError, match=r"does not come up: .*none\.pem"):
        broker.start()
    assert (broker_folder / "broker").exists() and not list(broker_folder.glob("broker.damaged-*"))


@pytest.mark.parametrize(
    ("given", "last", "held", "later_s", "later_given", "word"),
    [
        (54, 4, 0, 0, 54, "gave message 54 and knows of 4"),
        (54, 54, 0, 1e6, 54, ""),  # all was taken: quiet is no damage
        (54, 60, 6, hub_ingest.STUCK_S - 1, 54, ""),
        (54, 60, 6, hub_ingest.STUCK_S + 1, 54, "has held 6 messages for"),
        (54, 60, 6, hub_ingest.STUCK_S + 1, 55, ""),  # somebody takes them
    ],
)
def test_a_broker_that_holds_and_gives_nothing_is_found(given, last, held, later_s, later_given, word, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(hub_ingest.time, "monotonic", lambda: now[0])
    ingest = Ingest(None)

    def look(seq):
        consumer = SimpleNamespace(delivered=SimpleNamespace(stream_seq=seq, consumer_seq=seq))
        return ingest._damage(consumer, SimpleNamespace(state=SimpleNamespace(last_seq=last, messages=held)))

    first = look(given)
    now[0] += later_s
    found = first or look(later_given)
    assert word in found if word else found == ""
