"""Letters: bounded for a site, read, put through the checks again, closed with a name."""

import json

import pytest
from click.testing import CliRunner

from tidegate.runtime.cli.fleet_commands import hub
from tidegate.runtime.fleet.chain_check import Finding
from tidegate.runtime.fleet.hub import hub_letters
from tidegate.runtime.fleet.hub.hub_store import HubStore
from tidegate.runtime.fleet.invitation import HubError
from tidegate.runtime.fleet.ledger_batch import Batch, Row, pack


@pytest.fixture
def store(shared_url):
    made = HubStore(shared_url)
    yield made
    made.close()


def test_a_site_fills_its_own_bound_and_nobody_elses(store, monkeypatch):
    monkeypatch.setattr(hub_letters, "OF_A_SITE_MAX", 5)
    monkeypatch.setattr(hub_letters, "BYTES_OF_A_SITE_MAX", 2500)
    for number in range(40):
        store.put_letter("loud", Finding("forked", number, "is another one"), b"x" * 1000)
    store.put_letter("quiet", Finding("withheld", 3, "did not come"), b"y" * 1000)
    store.put_letter("loud", Finding("forked", 2, "is another one"), b"x" * 1000)
    mine = {letter.seq: letter for letter in store.letters() if letter.site == "loud"}
    assert sorted(mine) == [-1, 0, 1, 2, 3, 4]
    assert (mine[-1].kind, mine[-1].times) == ("overflow", 35) and "--close" in mine[-1].what
    assert mine[2].times == 2
    assert [mine[seq].size for seq in range(5)] == [1000, 1000, 500, 0, 0]
    assert [mine[seq].whole for seq in range(5)] == [True, True, False, False, False]
    (quiet,) = [letter for letter in store.letters() if letter.site == "quiet"]
    assert (quiet.size, quiet.whole) == (1000, True)
    with pytest.raises(HubError, match="not kept whole"):
        store.replay(mine[2].id, "me")


def test_a_letter_is_read_replayed_once_its_cause_is_gone_and_closed_by_name(store, unit, tmp_path):
    one = unit("hall")
    one.write(blocks=2)
    rows = [Row(*row) for row in one.rows()]
    store.enrol("hall", one.key.public)
    half = next(row.seq for row in rows if row.kind == "block") + 1
    late = pack(Batch("hall", rows[half:]))
    assert store.take("hall", rows[half:], late)[1].kind == "withheld"
    store.put_letter("hall", Finding("flipped", 0, "noise"), b"noise")
    (tmp_path / "hub.json").write_text(
        json.dumps({"database": store._address.replace("postgresql://", "postgresql+psycopg://")})
    )

    def ask(*words):
        found = CliRunner().invoke(hub, ["letters", "--folder", str(tmp_path), *words])
        return found.exit_code, found.output

    numbers = {letter.kind: str(letter.id) for letter in store.letters()}
    listed = ask()[1]
    assert f"hall entry {half}: withheld" in listed and listed.startswith(numbers["flipped"])
    shown = ask("--show", numbers["withheld"])[1]
    assert f"-> {half} {rows[half].kind}" in shown and shown.count("\n") == len(rows) - half + 1
    assert "cannot be read" in ask("--show", numbers["flipped"])[1]
    code, said = ask("--replay", numbers["withheld"])
    assert code and "still entry" in said and "withheld" in said
    assert store.take("hall", rows[:half], b"")[1] is None
    assert ask("--replay", numbers["withheld"], "--by", "mara") == (0, f"letter {numbers['withheld']}: taken; closed\n")
    assert store.mark("hall").seq == rows[-1].seq
    assert ask("--close", numbers["flipped"])[0] and "say who closes it" in ask("--close", numbers["flipped"])[1]
    assert ask("--close", numbers["flipped"], "--by", "mara", "--reason", "a test of the line")[0] == 0
    assert store.letters() == [] and ask("--show", "99")[0]
    with store.another() as connection:
        closed = connection.execute("SELECT kind, closed_by FROM fleet_letters_closed ORDER BY id").fetchall()
    assert closed == [("withheld", "mara"), ("flipped", "mara")]
