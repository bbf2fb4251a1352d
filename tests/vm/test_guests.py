"""What the guests' runs conclude from what they saw: each promise is broken once. No guest is started here."""

import copy
import json
import random
import re
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.vm import disk_log, icount_run
from tidegate.runtime.state.held import ledger_in
from tidegate.runtime.state.journal import Journal, Record
from tidegate.runtime.state.latches import Latched, LatchFile
from tidegate.runtime.state.stop_file import Stop, StopFile, Stops

power_cuts = pytest.importorskip("tests.vm.power_cuts", reason="the extra carbon is not installed")
second_boot = pytest.importorskip("tests.vm.second_boot", reason="the extra carbon is not installed")
ROOT = Path(__file__).parents[2]
COMMITTED = {"work_p99_ns": 10_000}
RIGHT: dict[str, Any] = {
    "machine": "x86_64",
    "span_s": 60.0,
    "period_us": 1000,
    "cycles": 60_000,
    "counters": {"missed": 0, "skipped": 0, "overruns": 0},
    "quantiles_ns": {
        "work": {"p50": 9000, "p99": 10_000},
        "lateness": {"p50": 1, "p99": 2, "max": 3},
        **{name: {"mean": 100.0} for name in icount_run.PHASES},
    },
    "interrupts_per_cycle": 4.5,
    "loop_policy": {"before": [1, 80], "after": [1, 80]},
    "fifo_threads": {"before": [[1, 70]], "after": [[1, 70]]},
    "locked_kib": {"before": 30_000, "after": 30_000},
    "mode": "run",
    "page_answers": 60,
    "page_asked": 60,
    "exit_code": 0,
    "kernel": "k",
}


def changed(*place: Any) -> dict[str, Any]:
    *keys, last, value = place
    made = at = copy.deepcopy(RIGHT)
    for key in keys:
        at = at[key]
    at[last] = value
    return made


def test_a_right_run_breaks_nothing() -> None:
    assert icount_run.broken(RIGHT, COMMITTED) == []
    assert icount_run.broken(changed("quantiles_ns", "work", "p99", 10_499), COMMITTED) == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (changed("cycles", 59_000), "59000 cycles"),
        (changed("counters", "missed", 1), "1 missed"),
        (changed("counters", "skipped", 2), "2 skipped"),
        (changed("counters", "overruns", 3), "3 overruns"),
        (changed("loop_policy", "after", [0, 0]), "after: the loop's thread has policy 0"),
        (changed("loop_policy", "before", [1, 79]), "before: the loop's thread has policy 1, priority 79"),
        (changed("fifo_threads", "after", []), "threads with FIFO"),
        (changed("locked_kib", "after", 0), "locked memory"),
        (changed("mode", "tripped"), "tripped at the end"),
        (changed("page_answers", 58), "58 of 60"),
        (changed("exit_code", 1), "ended with 1"),
        (changed("quantiles_ns", "work", "p99", 10_501), "work p99 10501 ns, committed 10000 ns"),
        (changed("quantiles_ns", "work", "p99", 9_499), "work p99 9499 ns"),
    ],
)
def test_what_breaks_a_promise_is_named(figures: dict[str, Any], words: str) -> None:
    (found,) = icount_run.broken(figures, COMMITTED)
    assert words in found


def test_without_a_committed_figure_the_way_to_take_it_is_named() -> None:
    (found,) = icount_run.broken(RIGHT, None)
    assert "--take" in found
    assert icount_run.take(RIGHT, {"arm64": {}})["x86_64"]["work_p99_ns"] == 10_000


def test_a_run_says_beside_the_committed_one_where_its_time_went() -> None:
    row = icount_run.take(RIGHT, {})["x86_64"]
    said = icount_run.where(changed("quantiles_ns", "publish", {"mean": 150.0}), row)
    assert said[0] == "read: 100.0, committed 100.0" and "publish: 150.0, committed 100.0" in said
    assert said[-1] == "interrupts a cycle: 4.5, committed 4.5"
    assert icount_run.where(RIGHT, {})[0] == "read: 100.0, committed nothing"


def test_committed_figures_are_of_whole_runs_on_machines_that_have_a_runner() -> None:
    committed = json.loads(icount_run.COMMITTED.read_text())
    assert set(committed) <= set(icount_run.RUNNERS)
    assert all(row["work_p99_ns"] > 0 and row["span_s"] >= 60.0 for row in committed.values())


def test_promises_are_kept_as_guests_make_and_take_them_back() -> None:
    promised = power_cuts.Promised()
    assert promised.expected() == {}
    for line in ("+ job job-000000", "? stop 1", "+ stop 1", "+ latched 1", "+ booked 0 17", "+ booked 0 23"):
        promised.take(line)
    found, before = promised.expected(), power_cuts.Promised.of(promised)
    assert (found["jobs"], found["stopped"], found["latched"]) == (["job-000000"], True, True)
    assert (found["booked"], found["books"], found["next_job"]) == ({0: 23}, 0, 2)
    for line in ("? stop 0", "? latched 0", "+ complete 0", "  meter: 5 records", "- whole 3.1"):
        promised.take(line)
    found = promised.expected()
    assert (found["stopped"], found["latched"], found["books"]) == (None, None, 1)
    assert before.expected()["stopped"] is True  # goes on by itself


def test_the_options_that_runs_give_the_machine_are_those_of_its_script() -> None:
    options = re.search(r"getopts (\S+)", (ROOT / "tests" / "vm" / "run-vm.sh").read_text())
    assert options is not None and set("tidwpv") <= set(options[1])


# ---- what a guest finds on its disk ----


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk as a site leaves it, and what was promised to be on it."""
    pytest.importorskip("sqlalchemy", reason="the extra carbon is not installed")
    from tests.vm import power_site

    state = tmp_path / "state" / "simulated"
    for folder in (state / "held", state / "journal", tmp_path / "booked"):
        folder.mkdir(parents=True)
    LatchFile(state / "held", [power_site.UNIT]).write([Latched(1, 0)])
    StopFile(state / "held", tmp_path / "gone").write(Stops(stop=Stop("anna", "operate", True)))
    for stream in second_boot.STREAMS:
        journal = Journal(state / "journal", stream)
        for seq in range(3):
            journal.append(Record(bytes(16), seq, seq, -1, b"job-%06d" % seq))
        assert len(journal.sync()) == 3
        journal.close()
    one = power_site.sidecar(str(tmp_path / "booked" / "0.db"))
    power_site.service.catch_up(one, power_site.Records(power_site.journal(2000)))
    one.commit()
    assert one.ledger.head[0] > 1
    one.ledger.close()
    return tmp_path


PROMISED = {"jobs": ["job-000002"], "stopped": True, "latched": True, "booked": {"0": 2}}


def found_on(disk: Path, expected: dict[str, Any]) -> list[str]:
    from tests.vm import power_site

    return power_site.look(disk, expected)


def test_a_whole_disk_with_all_that_was_promised_has_nothing_wrong(disk: Path) -> None:
    assert found_on(disk, PROMISED) == []
    assert found_on(disk, {**PROMISED, "stopped": None, "latched": None}) == []


@pytest.mark.parametrize(
    ("promised", "words"),
    [
        ({"jobs": ["job-000003"]}, "job-000003 accepted and not there"),
        ({"stopped": False}, "the last order that was answered was run"),
        ({"booked": {"0": 999}}, "999 were booked"),
    ],
)
def test_what_was_promised_and_is_not_there_is_found(disk: Path, promised: dict[str, Any], words: str) -> None:
    (found,) = found_on(disk, {**PROMISED, **promised})
    assert words in found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("state/simulated/held/latches.json", "latches: "),
        ("state/simulated/held/stops.json", "stop: "),
        ("state/simulated/journal/event-0000000000.seg", "journal event: "),
        ("state/simulated/journal/job-0000000000.seg", "journal job: "),
    ],
)
def test_a_byte_in_the_middle_that_is_another_is_found(disk: Path, name: str, words: str) -> None:
    raw = bytearray((disk / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (disk / name).write_bytes(raw)
    assert any(line.startswith(words) for line in found_on(disk, PROMISED))


def test_a_latch_that_is_gone_is_found(disk: Path) -> None:
    (disk / "state/simulated/held/latches.json").unlink()
    assert any("one was told of, and the file has none" in line for line in found_on(disk, PROMISED))


def test_a_ledger_that_is_gone_is_found_and_one_that_was_cut_off_is_finished(disk: Path, tmp_path: Path) -> None:
    from tests.vm import power_site

    uncut = power_site.uncut_book(tmp_path)
    assert len(uncut) > 5
    assert power_site.finish_book(disk / "booked" / "0.db", uncut) == []
    assert power_site.finish_book(disk / "booked" / "1.db", uncut[:-1]) != []
    (disk / "booked" / "0.db").unlink()
    assert found_on(disk, PROMISED) == ["ledger 0 is gone"]


# ---- the disk after a loss of power, out of its log ----


def logged(folder: Path, *rows: tuple[int, bytes, int]) -> disk_log.Disk:
    """A disk of 16 sectors of which each holds 0xff, and a log of (sector, data, flags)."""
    image, log = folder / "image", folder / "log"
    image.write_bytes(b"\xff" * 16 * 512)
    raw = struct.pack("<QQQI", disk_log.MAGIC, 1, len(rows), 512).ljust(512, b"\0")
    for sector, data, flags in rows:
        raw += struct.pack("<QQQQ", sector, len(data) // 512, flags, 0).ljust(512, b"\0") + data
    log.write_bytes(raw)
    return disk_log.Disk(image, log)


WRITES = (
    (0, b"a" * 512, 0),
    (1, b"b" * 1024, 0),
    (0, b"", disk_log.FLUSH),
    (0, b"c" * 2048, 0),
    (5, b"d" * 512, disk_log.FUA),
    (6, b"e" * 512, 0),
)


def left(folder: Path, cut: int, loss: str) -> tuple[str, int]:
    """(a letter a sector, sectors lost) of the disk that a cut leaves."""
    disk = logged(folder, *WRITES)
    waiting = disk.bring_to(cut)
    copy = folder / "copy"
    copy.write_bytes((folder / "image").read_bytes())
    lost = disk.leave(copy, waiting, loss, random.Random(3))
    disk.close()
    raw = copy.read_bytes()
    return "".join(chr(raw[at]) if raw[at] < 128 else "." for at in range(0, 8 * 512, 512)), lost


@pytest.mark.parametrize(
    ("cut", "loss", "sectors", "lost"),
    [
        (1, "kept", "a.......", 0),
        (2, "lost", "........", 3),
        (3, "lost", "abb.....", 0),
        (6, "kept", "cccc.de.", 0),
        (6, "lost", "abb..d..", 5),
    ],
)
def test_what_was_flushed_is_kept_and_the_rest_is_lost_where_it_is_to_be(
    tmp_path: Path, cut: int, loss: str, sectors: str, lost: int
) -> None:
    assert left(tmp_path, cut, loss) == (sectors, lost)


def test_a_write_is_lost_as_a_whole_and_a_torn_one_by_sectors(tmp_path: Path) -> None:
    whole, _ = left(tmp_path, 6, "some")
    torn, lost = left(tmp_path, 6, "torn")
    assert whole[:4] in ("cccc", "abb.") and whole[5] == "d"
    assert torn[:4] not in ("cccc", "abb.") and torn[5] == "d" and 0 < lost < 5


def test_a_log_that_breaks_off_ends_at_its_last_whole_write(tmp_path: Path) -> None:
    logged(tmp_path, *WRITES).close()
    log = tmp_path / "log"
    log.write_bytes(log.read_bytes()[:-100])
    with log.open("rb") as file:
        assert len(disk_log.entries(file)) == len(WRITES) - 1
    log.write_bytes(bytes(4096))
    with log.open("rb") as file, pytest.raises(disk_log.LogError):
        disk_log.entries(file)


# ---- what a second boot must not change ----


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with 2,500 meter records, all booked; between 2,000 of them and the rest the power was gone."""
    from tests.vm import power_site

    folder = tmp_path / "state" / "simulated"
    (folder / "journal").mkdir(parents=True)
    ledger_in(folder).parent.mkdir(parents=True)
    records = power_site.journal(2500)
    for row in records[2000:]:  # another boot of the core, a minute later, whose meter has counted on
        row |= {"boot": f"{7:032x}", "seq": row["seq"] - 2000, "utc_ns": row["utc_ns"] + 60 * 10**9}
        row["points"]["grid.import_wh"][0] += 100.0
    meter_records(folder, records)
    one = power_site.sidecar(str(ledger_in(folder)))
    power_site.service.catch_up(one, power_site.Records(records))
    one.commit()
    one.ledger.close()
    return folder


def meter_records(folder: Path, records: list[dict[str, Any]]) -> None:
    """The journal of these meter records, made anew."""
    for path in (folder / "journal").glob("meter-*"):
        path.unlink()
    journal = Journal(folder / "journal", "meter")
    for row in records:
        payload = msgspec.msgpack.encode(row)
        journal.append(Record(bytes.fromhex(row["boot"]), row["seq"], row["utc_ns"], row["seq"], payload))
    journal.sync()
    journal.close()


def its_records(folder: Path) -> list[dict[str, Any]]:
    return [msgspec.msgpack.decode(payload) for _, _, payload in second_boot.history(folder).rows["meter"]]


def energy_wrong(folder: Path) -> list[str]:
    return second_boot.energy(folder, second_boot.history(folder))


def test_an_outage_is_in_the_account_once(state: Path) -> None:
    assert energy_wrong(state) == []
    readings = [value for _, value in second_boot.history(state).readings() if value is not None]
    assert readings[2000] - readings[1999] > 100_000


def test_a_ledger_ahead_of_its_journal_is_found(state: Path) -> None:
    meter_records(state, its_records(state)[:-3])
    (found,) = energy_wrong(state)
    assert "record 499 of 00000000, which the journal has not" in found


def test_energy_that_the_register_counted_otherwise_is_found(state: Path) -> None:
    rows = its_records(state)
    for row in rows[2000:]:
        row["points"]["grid.import_wh"][0] -= 50.0  # the outage took half of what was booked
    meter_records(state, rows)
    assert any("the register has counted" in line for line in energy_wrong(state))


@pytest.mark.parametrize(("key", "words"), [("booked", "are booked"), ("energy_milliwh", "and the open one")])
def test_energy_that_was_booked_twice_or_not_is_found(state: Path, key: str, words: str) -> None:
    from tidegate.runtime.carbon.ledger.ledger import Ledger

    ledger = Ledger(str(ledger_in(state)))
    text = ledger.state("booking")
    assert text is not None
    stored = json.loads(text)
    stored["booker"]["counters"]["grid.import"][key] += 1
    ledger.append([], {"booking": json.dumps(stored)})
    ledger.close()
    assert any(words in line for line in energy_wrong(state))


def test_a_past_that_is_another_is_found(state: Path) -> None:
    now = second_boot.history(state)
    before = now._replace(rows={**now.rows, "meter": now.rows["meter"][:2000]}, entries=now.entries[:2])
    assert second_boot.continued(before, now) == []
    assert second_boot.continued(now, before) != []
    boot, seq, _ = now.rows["meter"][7]
    other = now._replace(rows={**now.rows, "meter": [*now.rows["meter"][:7], (boot, seq, b""), *now.rows["meter"][8:]]})
    assert second_boot.continued(before, other) == ["journal meter: the 2000 records of before do not begin the 2500"]
    other = now._replace(entries=[now.entries[0], (1, "another"), *now.entries[2:]])
    assert second_boot.continued(before, other) == [
        f"ledger: the 2 entries of before do not begin the {len(now.entries)}"
    ]


def test_a_period_closes_soon_after_a_start_and_no_clock_goes_back() -> None:
    for now_s, least_s in ((1000.0, 0.0), (1000.0, 1195.0), (1191.0, 0.0)):
        found = second_boot.near_boundary(now_s, least_s)
        assert found >= max(now_s, least_s)
        assert (found + second_boot.UNTIL_BOUNDARY_S) % second_boot.INTERVAL_S == 0


@pytest.mark.timeout(2.5 * second_boot.WAIT_S)  # two starts, of which each may miss its boundary and wait for the next
def test_a_site_that_starts_again_goes_on_with_all_its_energy(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    library = second_boot.clock_library(tmp_path)
    assert second_boot.SecondBoot(files, library).run({}) == []
    again = second_boot.SecondBoot(files, library)
    assert again.before.register_wh() > 0.0 and again.before.entries
    assert again.run({}) == []
    now = second_boot.history(again.state)
    first = len(again.before.rows["meter"])
    shown = [value for _, value in now.readings() if value is not None]
    assert shown[-1] - shown[0] >= 1000 * second_boot.OUTAGE_WH
    assert len({boot for boot, _, _ in now.rows["meter"]}) == 2 and len(now.rows["meter"]) > first
