"""Corrections: nothing is overwritten, what follows is booked anew, and a report of before still verifies."""

import json

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tidegate.runtime.carbon.engine.attribution import Method
from tidegate.runtime.carbon.engine.corrections import CorrectionError, Edit, correct
from tidegate.runtime.carbon.factors.series import Factors, Series, Step
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up
from tidegate.runtime.cli.carbon_commands import carbon

G = 1_000_000
RECORDS = journal(20_000, step_s=5)


def factors(*pairs):
    steps = [Step(HOUR + 3600 * i, HOUR + 3600 * i + 3600, value * G) for i, value in enumerate(pairs)]
    return Factors(Series("GB", "average", "half hours", steps=steps).finish(), 500 * G, "fallback")


FIRST = factors(200, 210, 220, 230, 240, 250)
RESTATED = factors(200, 180, 220, 230, 240, 250)


@pytest.fixture(params=["average", "fifo", "priority", "at_charge"])
def book(request, tmp_path):
    made = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), FIRST, Method(request.param))
    catch_up(made, Journal(RECORDS))
    made.commit()
    return made


def fresh(tmp_path, policy, factors):
    made = Sidecar(DESCRIBE, Ledger(tmp_path / "fresh.db"), factors, Method(policy))
    catch_up(made, Journal(RECORDS))
    made.commit()
    return made


def plain(entry):
    return {key: value for key, value in entry.body.items() if key not in ("replaces", "factors")}


def test_a_restated_factor_gives_what_booking_with_it_would_have_given(book, tmp_path):
    before = [entry.body for entry in book.ledger.in_force("period")]
    done = correct(book.ledger, author="a", reason="the operator restated an hour", factors=RESTATED)
    assert done.first_utc_s == HOUR + 3600
    twin = fresh(tmp_path, book.accountant.method.policy, RESTATED)
    a, b = (list(map(plain, ledger.in_force("period"))) for ledger in (book.ledger, twin.ledger))
    assert a == b and a != [plain(e) for e in book.ledger.entries("period")][: len(a)]
    assert [entry.body for entry in book.ledger.entries("period")][: len(before)] == before
    assert verify(book.ledger) == []


def test_the_booking_goes_on_from_the_corrected_stocks(book, tmp_path):
    correct(book.ledger, author="a", reason="restated", factors=RESTATED)
    more = journal(26_000, step_s=5)
    again = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), RESTATED, book.accountant.method)
    catch_up(again, Journal(more))
    again.commit()
    assert verify(again.ledger) == []
    twin = Sidecar(DESCRIBE, Ledger(tmp_path / "twin.db"), RESTATED, book.accountant.method)
    catch_up(twin, Journal(more))
    twin.commit()
    assert [*map(plain, again.ledger.in_force("period"))] == [*map(plain, twin.ledger.in_force("period"))]


def test_an_edit_keeps_the_reading_and_names_who_and_why(book):
    at = HOUR + 1800
    was = next(book.ledger.in_force("period", at)).body["flows"]["grid.import"]
    correct(book.ledger, author="jo", reason="meter under test", edits=[Edit(at, "grid.import", 7_000_000)])
    now = next(book.ledger.in_force("period", at)).body["flows"]["grid.import"]
    assert (now["energy_milliwh"], now["quality"]) == (7_000_000, "edited")
    assert now["flags"] == [*was["flags"], f"EDITED {was['energy_milliwh']}"]
    document = gather(book.ledger, HOUR, HOUR + 86_400)[0]
    (row,) = document["edits"]
    assert (row["author"], row["reason"], row["edits"]) == ("jo", "meter under test", [[at, "grid.import", 7_000_000]])
    assert document["quality_milliwh"]["edited"] == 7_000_000 and document["carbon_ug"]["balance_error"] == 0


def test_a_report_of_before_still_verifies(book, tmp_path):
    old = write(book.ledger, HOUR, HOUR + 86_400, tmp_path / "old", pdf=False)["json"]
    correct(book.ledger, author="a", reason="restated", factors=RESTATED)
    new = write(book.ledger, HOUR, HOUR + 86_400, tmp_path / "new", pdf=False)["json"]
    assert json.loads(old.read_text())["carbon_ug"] != json.loads(new.read_text())["carbon_ug"]
    for path in (old, new):
        result = CliRunner().invoke(carbon, ["verify", str(tmp_path / "l.db"), "--report", str(path)])
        assert result.exit_code == 0, result.output


def test_a_correction_taken_out_again_is_named(book, tmp_path):
    correct(book.ledger, author="a", reason="restated", edits=[Edit(HOUR + 900, "grid.import", 1)])
    last = book.ledger.head[0]
    with book.ledger._engine.begin() as connection:
        connection.exec_driver_sql(f"delete from entries where seq = {last - 3}")
    assert any(f"entry {last - 3} missing" in str(damage) for damage in verify(book.ledger))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (dict(edits=[Edit(HOUR + 7, "grid.import", 1)]), "no period is booked at"),
        (dict(edits=[Edit(HOUR, "wind.import", 1)]), "no such flow"),
        (dict(edits=[Edit(HOUR, "grid.import", -1)]), "is negative"),
        (dict(factors=FIRST), "nothing would change"),
        (dict(edits=[Edit(HOUR, "grid.import", 1)], reason=" "), "its author and its reason"),
    ],
)
def test_a_correction_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, words, said):
    made = fresh(tmp_path, "average", FIRST)
    head = made.ledger.head
    with pytest.raises(CorrectionError, match=said):
        correct(made.ledger, **{"author": "a", "reason": "b", **words})
    assert made.ledger.head == head


def test_the_command_line_corrects_a_period(book, tmp_path):
    words = ["correct", str(tmp_path / "l.db"), "--author", "jo", "--reason", "test", "--set",
             "2024-06-01T00:15Z grid.import 4.25"]  # fmt: skip
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0 and "periods booked anew" in result.output, result.output
    assert CliRunner().invoke(carbon, [*words[:-1], "tomorrow grid.import 1"]).exit_code == 65


def test_a_site_without_true_up_is_corrected_without_it(tmp_path):
    """Over midnight, where another site would set its stock to the state of charge."""
    early_s = 3 * 3600
    records = [{**record, "utc_ns": record["utc_ns"] - early_s * 10**9} for record in RECORDS]
    describe = {**DESCRIBE, "carbon": {"true_up": "never"}}
    ledgers = []
    for name, second in (("a", 210), ("twin", 180)):
        hours = (200, second, 220, 230, 240, 250)
        steps = [Step(HOUR - early_s + 3600 * i, HOUR - early_s + 3600 * (i + 1), g * G) for i, g in enumerate(hours)]
        known = Factors(Series("GB", "average", "half hours", steps=steps).finish(), 500 * G, "fallback")
        made = Sidecar(describe, Ledger(tmp_path / f"{name}.db"), known, Method("average"))
        catch_up(made, Journal(records))
        made.commit()
        ledgers.append((made.ledger, known))
    correct(ledgers[0][0], author="a", reason="the operator restated an hour", factors=ledgers[1][1])
    a, b = (list(map(plain, ledger.in_force("period"))) for ledger, _ in ledgers)
    assert a == b and any(body["start_utc_s"] < HOUR for body in a) and a[-1]["start_utc_s"] > HOUR
    assert not any("TRUE_UP" in flag for body in a for flag in body["flags"])
