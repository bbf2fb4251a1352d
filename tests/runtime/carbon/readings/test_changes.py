"""Meters that are replaced, registers that begin again, and what runs faster than it can."""

import pytest
from click.testing import CliRunner

from tests.runtime.carbon.sidecar.test_service import DESCRIBE, HOUR, Journal, journal
from tidegate.runtime.carbon.factors.series import Factors, iso
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import verify
from tidegate.runtime.carbon.readings.file_registers import Registers, readings_record, registers_of
from tidegate.runtime.carbon.readings.readings import read_readings, take_in
from tidegate.runtime.carbon.report.document import gather
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up
from tidegate.runtime.cli.carbon_commands import carbon

MARCH, APRIL = 1_772_323_200, 1_775_001_600
HEAD = "time_utc,meter,quantity,reading,unit\n"


def ledger_with(tmp_path, *rows, method=None):
    (tmp_path / "r.csv").write_text(HEAD + "".join(f"{iso(at)},{rest}\n" for at, rest in rows))
    ledger = Ledger(tmp_path / "l.db")
    ledger.begin("s")
    if method is not None:
        ledger.append([("method", 0, method)])
    take_in(ledger, read_readings(tmp_path / "r.csv"))
    return ledger


def test_a_register_above_a_megawatt_is_counted_and_one_above_the_bound_is_a_named_gap(tmp_path):
    rows = [(MARCH, "h,heat-reused,0,kWh"), (MARCH + 360_000, "h,heat-reused,120000,kWh")]  # 1.2 MW for 100 h
    ledger = ledger_with(tmp_path, *rows)
    assert registers_of(ledger).amount("heat-reused", MARCH, MARCH + 360_000).total == 120_000 * 10**6
    ledger.append([("method", 0, {"meter_milliw_max": 10**9})])  # 1 MW, from the site file or the connection
    found = registers_of(ledger).amount("heat-reused", MARCH, MARCH + 360_000)
    assert found.total is None and "a mean of 1200000 W, above the 1000000 that are believed" in found.why
    (row,) = readings_record(registers_of(ledger), ledger, MARCH, MARCH + 360_000)
    assert row["total"] is None and row["difference_milliwh"] is None and "raise [carbon] meter_w_max" in row["why"]


def test_a_water_meter_that_was_replaced(tmp_path):
    rows = [(MARCH, "w,water,900,m3"), (MARCH + 1_000_000, "w,water,30,m3"), (APRIL, "w,water,90,m3")]
    ledger = ledger_with(tmp_path, *rows)
    found = registers_of(ledger).amount("water", MARCH, APRIL)
    assert found.total is None and "the register fell from 900000000 to 30000000 mL; say what happened" in found.why
    words = ["meter", "exchange", str(tmp_path / "l.db"), "w", "--quantity", "water", "--unit", "m3", "--at",
             iso(MARCH + 500_000), "--closing", "1000", "--opening", "0", "--author", "A", "--reason", "r"]  # fmt: skip
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0, result.output
    ledger = Ledger(tmp_path / "l.db")
    assert registers_of(ledger).amount("water", MARCH, APRIL).total == 190 * 10**6  # 100 by the old one, 90 by the new
    assert ledger.verify() == [] and [e.body["author"] for e in ledger.entries("meter")] == ["A"]
    assert registers_of(ledger, until_seq=ledger.head[0] - 1).amount("water", MARCH, APRIL).total is None


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--quantity", "gas"], "quantity 'gas'"), (["--quantity", "heat-reused"], "w: no readings of heat-reused"),
     (["--quantity", "water", "--unit", "kWh"], "unit 'kWh' of water"), (["--at", "noon"], "'noon' is not a time"),
     (["--quantity", "water", "--author", " "], "say who")],
)  # fmt: skip
def test_a_replacement_that_cannot_be_is_refused(tmp_path, more, words):
    ledger_with(tmp_path, (MARCH, "w,water,900,m3"))
    base = ["meter", "exchange", str(tmp_path / "l.db"), "w", "--unit", "m3", "--at", iso(MARCH), "--closing", "1",
            "--opening", "0", "--quantity", "water", "--author", "A", "--reason", "r"]  # fmt: skip
    result = CliRunner().invoke(carbon, [*base, *more])
    assert result.exit_code != 0 and words in result.output
    assert not list(Ledger(tmp_path / "l.db").entries("meter"))


def test_a_register_of_five_digits_begins_again(tmp_path):
    rows = [(MARCH, "b,energy-backup,99950,kWh"), (MARCH + 1_000_000, "b,energy-backup,20,kWh"),
            (APRIL, "b,energy-backup,60,kWh")]  # fmt: skip
    ledger_with(tmp_path, *rows)
    words = ["meter", "range", str(tmp_path / "l.db"), "b", "--quantity", "energy-backup", "--end", "100000",
             "--author", "A", "--reason", "five digits"]  # fmt: skip
    assert CliRunner().invoke(carbon, words).exit_code == 0
    found = registers_of(Ledger(tmp_path / "l.db"))
    assert found.amount("energy-backup", MARCH, APRIL).total == 110 * 10**6
    fell = Registers()
    fell.rows = {("b", "energy-backup"): {MARCH: (60 * 10**6, "I", "G"), APRIL: (50 * 10**6, "I", "G")}}
    fell.changes = found.changes
    assert fell.amount("energy-backup", MARCH, APRIL).total is None  # a small fall is no end of the range


def test_a_meter_on_the_bus_that_was_replaced_is_booked_from_both_registers(tmp_path):
    records = journal(5400)
    watts = 36_000
    for record in records:
        at = record["t_ns"] // 10**9
        # The old meter closes at 1060 kWh a half hour in; the new one is mute for ten minutes and opens at 5 kWh.
        wh = 1_000_000 + watts * at / 3600 if at < 1800 else 5_000 + watts * (at - 1800) / 3600
        mute = 1800 <= at < 2400
        record["points"]["grid.import_wh"] = [None if mute else wh, 1]
        for name in ("site.grid_in_ws", "site.grid_out_ws", "site.grid_covered_s"):
            del record["points"][name]
    one = Sidecar(DESCRIBE, Ledger(tmp_path / "l.db"), Factors(None, 200_000_000, "test"))
    catch_up(one, Journal(records))
    one.commit()
    one.ledger.close()

    def booked():
        return [e.body["flows"]["grid.import"]["energy_milliwh"] for e in Ledger(tmp_path / "l.db").in_force("period")]

    truth = watts * 5400 // 3600 * 1000
    assert abs(sum(booked()) - truth) > 1_000_000  # what the registers alone cannot say
    words = ["meter", "exchange", str(tmp_path / "l.db"), "grid.import", "--at", iso(HOUR + 1800), "--closing", "1018",
             "--opening", "5", "--author", "A", "--reason", "calibration"]  # fmt: skip
    result = CliRunner().invoke(carbon, words)
    assert result.exit_code == 0, result.output
    assert sum(booked()) == pytest.approx(truth, abs=30_000)
    ledger = Ledger(tmp_path / "l.db")
    assert verify(ledger) == []
    assert [e["reason"] for e in gather(ledger, HOUR, HOUR + 5400)[0]["edits"]] == ["meter replaced: calibration"]
    refused = CliRunner().invoke(carbon, [*words[:3], "sun.import", *words[4:]])
    assert refused.exit_code != 0 and "sun.import: no such flow; known: " in refused.output
