"""What goes wrong in a fleet: each is named where people look, nothing is lost, and the other sites go on."""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from tests.runtime.carbon.ledger.conftest import new_database
from tests.runtime.fleet.conftest import Unit
from tests.runtime.fleet.many_sites import METHOD, Site
from tests.runtime.fleet.test_hub import Hub, same, until_all_is_there
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import sign
from tidegate.runtime.fleet.hub.broker import Broker
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import Invitation
from tidegate.runtime.fleet.ledger_batch import Row
from tidegate.runtime.fleet.unit import site_sender
from tidegate.runtime.fleet.unit.site_sender import Sender

pytest.importorskip("nats")


@pytest.fixture
def hub(broker_folder, port, shared_url):
    made = Hub(broker_folder, port, shared_url)
    made.broker.start()
    yield made
    made.broker.stop()
    made.store.close()


async def all_sent(hub, *units):
    for one in units:
        sender = Sender(one.path, hub.broker.invite(one.site), report=lambda _: None)
        await sender.open()
        await until_all_is_there(sender)
        await sender.close()


def test_a_ledger_from_the_future_is_kept_and_named_until_it_is_none_any_more(shared_url, unit):
    store = HubStore(shared_url)
    one = unit("hall")
    made = Site("hall", 1)
    tomorrow = int(time.time()) // 900 * 900 + 86_400
    one.ledger.append([("method", tomorrow, METHOD), ("period", tomorrow, made.period(tomorrow))])
    sign(one.ledger, one.key, "hall", least=1)
    store.enrol("hall", one.key.public)
    assert store.take("hall", [Row(*row) for row in one.rows()], b"")[1] is None
    assert store.sites()[0].ahead_s > 80_000 and store.mark("hall").seq == one.ledger.head[0]
    at = one.ledger.head[0] + 1
    now = int(time.time()) // 900 * 900 - 1800
    one.ledger.append([("period", now, made.period(now))])
    sign(one.ledger, one.key, "hall", least=1)
    assert store.take("hall", [Row(*row) for row in one.rows(at)], b"")[1] is None
    assert store.sites()[0].ahead_s == 0
    assert list(Ledger(shared_url, "hall", read_only=True).raw_rows(0)) == one.rows()
    store.close()


def test_two_units_with_one_key_are_named_at_the_hub_and_at_the_second(hub, unit, tmp_path):
    """An SD card was copied: two units with one key and one past, and then each its own."""
    one = unit("hall")
    one.write()
    one.ledger.close()
    (tmp_path / "twin").mkdir()
    for name in ("hall.db", "hall.pem"):
        shutil.copy(tmp_path / name, tmp_path / "twin" / name)
    other = Unit(tmp_path / "twin", "hall")
    assert other.key.public == one.key.public
    one.write(3)
    other.write(5)
    hub.invite(one)
    said: list[str] = []

    async def go():
        await hub.start_ingest()
        await all_sent(hub, one)
        sender = Sender(other.path, hub.broker.invite("hall"), report=said.append)
        await sender.open()
        assert not await sender.step()
        await sender.close()
        await hub.kill_ingest()

    asyncio.run(go())
    hub.store.reconnect()
    assert any("another entry" in text for text in said), said
    (letter,) = hub.store.letters()
    assert letter.kind == "forked" and letter.site == "hall" and "another one" in letter.what
    assert "forked" in hub.store.sites()[0].said
    same(one, hub.url)


def test_a_unit_that_went_back_to_a_backup_without_a_word_is_named_at_the_hub(hub, unit, tmp_path):
    one = unit("hall")
    one.write()
    one.ledger.close()
    shutil.copy(tmp_path / "hall.db", tmp_path / "old.db")
    one.write(blocks=2)
    hub.invite(one)

    async def go():
        await hub.start_ingest()
        await all_sent(hub, one)
        sender = Sender(tmp_path / "old.db", hub.broker.invite("hall"), report=lambda _: None)
        await sender.open()
        assert not await sender.step()
        await sender.close()
        await hub.kill_ingest()

    asyncio.run(go())
    hub.store.reconnect()
    (letter,) = hub.store.letters()
    assert letter.kind == "older" and "ends at entry" in letter.what
    same(one, hub.url)


def test_a_hub_that_was_put_back_gets_again_what_it_lost(server, broker_folder, port, unit):
    url = new_database(server)
    hub = Hub(broker_folder, port, url)
    hub.broker.start()
    units = [unit("hall"), unit("yard")]
    for one in units:
        one.write()
        hub.invite(one)
    name = sa.make_url(url).database
    backup = f"{name}_backup"

    def copy(source, target):
        hub.store.close()
        with psycopg.connect(server.format("postgres").replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {target} TEMPLATE {source}")

    async def go():
        await hub.start_ingest()
        await all_sent(hub, *units)
        await hub.kill_ingest()
        copy(name, backup)
        for one in units:
            one.write(blocks=3)
        await hub.start_ingest()
        await all_sent(hub, *units)
        await hub.kill_ingest()
        copy(backup, name)  # the disk broke; the newest backup is older than what the sites were told
        await hub.start_ingest()
        assert hub.store.mark("hall").seq < units[0].ledger.head[0]
        await all_sent(hub, *units)
        await hub.kill_ingest()

    try:
        asyncio.run(go())
        for one in units:
            same(one, url)
        hub.store.reconnect()
        assert hub.store.letters() == []
    finally:
        hub.broker.stop()
        hub.store.close()


def test_a_broker_whose_disk_is_full_is_named_and_the_sites_wait(
    broker_folder, port, shared_url, unit, capsys, monkeypatch
):
    """PostgreSQL is away, so that all stays in the broker, and the broker has little room."""
    monkeypatch.setattr(site_sender, "BATCH_ROWS", 100)
    hub = Hub(broker_folder, port, shared_url)
    hub.broker.file_bytes_max = 12_000
    one, other = unit("hall"), unit("yard")
    one.write(120, blocks=7)
    other.write(2)
    for site in (one, other):
        hub.invite(site)
    hub.broker.start()
    said: list[str] = []

    async def go():
        await hub.start_ingest()

        async def away(message):
            raise psycopg.OperationalError("the server is away")

        hub.ingest.take = away
        sender = Sender(one.path, hub.broker.invite("hall"), report=said.append, stuck_s=2.0)
        await sender.open()
        assert not await sender.step()
        assert any("the hub's broker did not take it" in text for text in said), said
        await sender.step()  # the hub hears of it with the next question
        assert "hall: the broker's store did not take its entries" in capsys.readouterr().err
        await hub.kill_ingest()
        hub.broker.stop()
        hub.broker.file_bytes_max = 1 << 30
        hub.broker.start()
        await hub.start_ingest()
        await until_all_is_there(sender)
        await sender.close()
        await all_sent(hub, other)
        await hub.kill_ingest()

    try:
        asyncio.run(go())
    finally:
        hub.broker.stop()
    for site in (one, other):
        same(site, hub.url)


@pytest.mark.skipif(os.getuid() != 0, reason="a small disk is mounted, which root may")
def test_a_postgresql_whose_disk_is_full_loses_nothing_and_goes_on(server, broker_folder, port, unit, tmp_path, capsys):
    url = new_database(server)
    small = broker_folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs", str(small)]).returncode:
        pytest.skip("no small disk may be mounted here")
    hub = Hub(broker_folder, port, url)
    one = unit("hall")
    one.write(500, blocks=12)
    try:
        shutil.chown(small, "postgres", "postgres")
        os.chmod(broker_folder, 0o755)
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{small}'")
            connection.execute("ALTER TABLE entries SET TABLESPACE small")
        hub.invite(one)
        hub.broker.start()

        async def go():
            await hub.start_ingest()
            sender = Sender(one.path, hub.broker.invite("hall"), report=lambda _: None, stuck_s=6.0)
            await sender.open()
            assert not await sender.step()
            said = capsys.readouterr().err
            assert "PostgreSQL" in said and "No space left" in said, said
            assert hub.store.mark("hall").seq < one.ledger.head[0]
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            await until_all_is_there(sender)
            await sender.close()
            await hub.kill_ingest()

        asyncio.run(go())
        same(one, url)
    finally:
        hub.broker.stop()
        hub.store.close()
        at = url.replace("+psycopg", "")
        with contextlib.suppress(psycopg.Error), psycopg.connect(at, autocommit=True) as connection:
            connection.execute("ALTER TABLE entries SET TABLESPACE pg_default")
            connection.execute("DROP TABLESPACE small")
        subprocess.run(["umount", "-l", str(small)])


def test_a_site_whose_disk_is_full_sends_what_it_has(hub, unit, tmp_path):
    """Its ledger cannot grow, which its sidecar names; the sender only reads, and goes on."""
    one = unit("hall")
    one.write(blocks=2)
    hub.invite(one)
    before = sorted(path.name for path in tmp_path.iterdir())

    async def go():
        await hub.start_ingest()
        os.chmod(one.path, 0o444)
        await all_sent(hub, one)
        await hub.kill_ingest()

    asyncio.run(go())
    same(one, hub.url)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def certificate(folder, days):
    """(certificate, key) of 127.0.0.1 that ends in so many days."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - timedelta(days=30)).not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    pair = folder / "cert.pem", folder / "key.pem"
    pair[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pair[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()))  # fmt: skip
    return pair


def test_a_hub_whose_certificate_expired_is_named_at_the_site_and_at_the_hub(broker_folder, port, shared_url, unit):
    one = unit("hall")
    one.write()
    said: list[str] = []
    pair = certificate(broker_folder, days=-1)
    broker = Broker(broker_folder, port=port, tls=pair)
    assert "ended" in broker.certificate_problem() and "tidegate hub init" not in broker.certificate_problem()
    broker.start()
    invitation = broker.invite("hall")

    async def go():
        sender = Sender(one.path, invitation, report=said.append)
        opening = asyncio.create_task(sender.open())
        for _ in range(300):
            if any("expired" in text for text in said) or opening.done():
                break
            await asyncio.sleep(0.1)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    try:
        asyncio.run(go())
    finally:
        broker.stop()
    assert any("expired" in text for text in said), said
    certificate(broker_folder, days=200)
    assert Broker(broker_folder, port=port, tls=pair).certificate_problem() == ""
    assert ssl.create_default_context(cadata=Invitation("a", "b", "c", "d", pair[0].read_text()).certificate)
