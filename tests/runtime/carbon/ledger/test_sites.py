"""Whose a ledger is: many sites in one database, a site that was renamed, a unit that was replaced or doubled."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError, LedgerTaken, ledgers_in
from tidegate.runtime.carbon.ledger.signing import Anchors, anchor_line, change_key, read_anchors, rename, sign, verify
from tidegate.runtime.carbon.ledger.store import WITHOUT_SITE
from tidegate.runtime.state.device_key import DeviceKey

SITES = int(os.environ.get("LEDGER_SITES", "60"))


def write(ledger, first=0, count=6, of=1):
    for number in range(first, first + count):
        ledger.append([("note", 900 * number, {"energy_milliwh": of * number})], {"cursor": f"{of}/{number}"})


def begun(url, site, key=None, of=1):
    """As the sidecar of a site opens its ledger."""
    ledger = Ledger(url, site)
    ledger.begin(site)
    if key is not None:
        ledger.claim(key.public)
    write(ledger, of=of)
    if key is not None:
        sign(ledger, key, site, least=1)
    return ledger


def notes(ledger):
    return [entry.body["energy_milliwh"] for entry in ledger.entries("note")]


@pytest.fixture
def keys(tmp_path):
    return [DeviceKey.at(tmp_path / f"{name}.pem") for name in "abc"]


def test_two_sites_at_one_address_have_each_their_own_chain(shared_url, keys):
    a, b = begun(shared_url, "a", keys[0], of=1), begun(shared_url, "b", keys[1], of=100)
    write(a, 6, of=1)
    write(b, 6, of=100)
    again = Ledger(shared_url, "b")
    again.begin("b")
    assert notes(again) == [100 * n for n in range(12)] and again.state("cursor") == "100/11"
    assert notes(Ledger(f"{shared_url}#a", read_only=True)) == list(range(12))
    for site in "ab":
        assert verify(Ledger(shared_url, site, read_only=True)) == []
    assert [row[:2] for row in ledgers_in(shared_url)] == [("a", 14), ("b", 14)]
    with pytest.raises(LedgerError, match=r"holds 2 sites \(a, b\).*#a"):
        Ledger(shared_url)
    with pytest.raises(LedgerError, match="no ledger of the site 'c'"):
        Ledger(shared_url, "c", read_only=True)


def test_damage_in_one_site_is_not_the_other_ones(shared_url, keys):
    begun(shared_url, "a", keys[0])
    begun(shared_url, "b", keys[1])
    engine = sa.create_engine(shared_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE entries SET body = replace(body, '3', '4') WHERE site = 'a' AND seq = 4")
        connection.exec_driver_sql("UPDATE state SET body = 'x' WHERE site = 'a' AND name = 'cursor'")
    engine.dispose()
    assert {row.seq for row in Ledger(shared_url, "a").verify()} == {4, None}
    assert Ledger(shared_url, "b").verify() == []


def test_many_sites_begin_at_once_on_an_empty_database(shared_url):
    def one(number):
        ledger = Ledger(shared_url, f"site-{number}")
        ledger.begin(f"site-{number}")
        ledger.claim(f"{number:064x}")
        ledger.append([("note", 900 * i, {"energy_milliwh": number * i}) for i in range(20)], {"cursor": str(number)})
        ledger.append([("note", 900 * 20, {"energy_milliwh": number})])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(SITES)))
    found = dict(row[:2] for row in ledgers_in(shared_url))
    assert found == {f"site-{number}": 22 for number in range(SITES)}
    for number in range(0, SITES, 7):
        ledger = Ledger(shared_url, f"site-{number}", read_only=True)
        assert ledger.verify() == [] and ledger.state("cursor") == str(number)


def test_a_ledger_of_another_site_is_refused_by_name(fresh, keys):
    url = fresh()
    begun(url, "a", keys[0]).close()
    head = Ledger(url).head
    if url.startswith("sqlite"):
        with pytest.raises(LedgerError, match=r"of the site 'a', and this site is 'b'.*carbon rename"):
            begun(url, "b", keys[1])
    else:  # there is room for both: only the device that wrote `a` may not begin `b` in silence
        other = Ledger(url, "b")
        other.begin("b")
        with pytest.raises(LedgerError, match=r"this device wrote the ledger of 'a'.*carbon rename"):
            other.claim(keys[0].public)
    assert Ledger(url, "a").head == head


def test_a_renamed_ledger_goes_on_and_verifies_with_anchors_of_both_names(fresh, keys):
    url = fresh()
    one = begun(url, "a", keys[0])
    lines = [anchor_line(one, "a")]
    with pytest.raises(LedgerError, match="another name"):
        rename(one, "a", "me", "tried")
    rename(one, "b", "me", "the hall got another number")
    with pytest.raises(LedgerError, match=r"of the site 'b', and this site is 'a'"):
        Ledger(url).begin("a")
    two = Ledger(url, "b")
    two.begin("b")
    two.claim(keys[0].public)
    write(two, 6)
    sign(two, keys[0], "b", least=1)
    lines.append(anchor_line(two, "b"))
    assert verify(two, key=keys[0].public, anchors=read_anchors(lines, "anchors")) == []
    foreign = read_anchors([lines[0].replace('"a"', '"elsewhere"')], "anchors")
    assert isinstance(foreign, Anchors)
    assert [str(row) for row in verify(two, anchors=foreign)] == [
        f"entry {two.head[0] - 8}: the anchor is of site 'elsewhere', this ledger of 'b'"
    ]


def test_a_renaming_that_does_not_fit_is_named(fresh, keys):
    url = fresh()
    ledger = begun(url, "a", keys[0])
    ledger.rename("b", {"v": 1, "old": "elsewhere", "new": "b", "author": "me", "reason": "forged"})
    assert "renamed from 'elsewhere', but it was of 'a' until here" in str(verify(ledger)[0])


def test_a_block_of_another_site_is_named_after_a_silent_change_of_names(fresh, keys):
    """What units did before names were compared: the ledger of one went on with the blocks of the other."""
    ledger = begun(fresh(), "a", keys[0])
    write(ledger, 6)
    sign(ledger, keys[0], "b", least=1)
    assert "block of site 'b' in one of 'a'" in str(verify(ledger)[0])


def test_a_second_process_of_one_key_takes_over_and_the_first_is_told(fresh, keys):
    url = fresh()
    one = begun(url, "a", keys[0])
    two = Ledger(url, "a")
    two.begin("a")
    two.claim(keys[0].public)
    head = two.head
    for entries in ([("note", 0, {"v": 1})], []):
        with pytest.raises(LedgerTaken, match="another process with this device's key"):
            one.append(entries, {"cursor": "lost"})
    assert Ledger(url, "a").head == head and two.state("cursor") == "1/5"
    write(two, 6)
    assert two.verify() == []


def test_another_device_is_refused_until_the_key_change_is_said(fresh, keys):
    url = fresh()
    begun(url, "a", keys[0]).close()
    two = Ledger(url, "a")
    with pytest.raises(LedgerError, match=r"written by the device .*Two units of one name"):
        two.claim(keys[1].public)
    change_key(two, "a", keys[1], "me", "the unit was replaced")
    two.claim(keys[1].public)
    write(two, 6)
    sign(two, keys[1], "a", least=1)
    assert verify(two) == []
    with pytest.raises(LedgerError, match="written by the device"):
        Ledger(url, "a").claim(keys[0].public)  # the old unit comes back


def test_a_device_that_never_signed_is_known_by_its_claim(fresh, keys):
    url = fresh()
    one = Ledger(url, "a")
    one.begin("a")
    one.claim(keys[0].public)
    with pytest.raises(LedgerError, match="Two units of one name"):
        Ledger(url, "a").claim(keys[1].public)


def test_a_store_of_before_is_read_as_it_is_and_keeps_its_hashes_when_it_gets_its_site(fresh, keys):
    url, new = fresh(), fresh()
    made = begun(new, "a", keys[0])
    engine, source = sa.create_engine(url), sa.create_engine(new)
    WITHOUT_SITE.meta.create_all(engine)
    with engine.begin() as into, source.connect() as out:
        for table, columns in (("entries", "seq, kind, start_utc_s, body, hash"), ("state", "name, body, hash")):
            names = columns.split(", ")
            rows = [dict(zip(names, row, strict=True)) for row in out.exec_driver_sql(f"SELECT {columns} FROM {table}")]
            rows = [row for row in rows if row.get("name") != "writer"]
            into.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES (:{', :'.join(names)})"), rows)
    engine.dispose()
    source.dispose()
    for _ in range(2):  # a reader changes nothing, twice
        old = Ledger(url, read_only=True)
        assert (old.site, old.head, old.state("cursor")) == ("a", made.head, "1/5") and verify(old) == []
    with pytest.raises(LedgerError, match="Two units of one name"):
        begun(url, "a", keys[1])  # the blocks say who wrote
    again = Ledger(url, "a")
    again.begin("a")
    assert (again.site, again.head, again.state("cursor")) == ("a", made.head, "1/5")
    again.claim(keys[0].public)
    write(again, 6)
    assert verify(again, key=keys[0].public) == [] and again.sites() == ["a"]
    assert Ledger(url, read_only=True).head == again.head


def tidegate(*words):
    return subprocess.run([sys.executable, "-m", "tidegate.runtime.cli", *words], capture_output=True, text=True)


def test_sites_and_rename_by_command(tmp_path, keys):
    path = str(tmp_path / "ledger.db")
    begun(path, "a", keys[0]).close()
    assert tidegate("carbon", "sites", path).stdout == "a: 8 entries, last period from -\n"
    done = tidegate("carbon", "rename", path, "--to", "b", "--author", "me", "--reason", "moved")
    assert done.returncode == 0 and "goes on as that of 'b'" in done.stdout, done.stderr
    refused = tidegate("carbon", "rename", path, "--to", "b", "--author", "me", "--reason", "moved")
    assert refused.returncode != 0 and "say another name" in refused.stderr
    assert tidegate("carbon", "sites", path).stdout.startswith("b: 9 entries")
