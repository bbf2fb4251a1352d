"""The recorder against the simulated plant: recorded faults again to the byte, and the files that they are kept in."""

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
import recorded

pytest.importorskip("mcap", reason="mcap is not installed (pip install 'tidegate[recorder]')")

from click.testing import CliRunner
from mcap.reader import make_reader
from mcap.writer import Writer

from tidegate.ext.abi import program
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.ext.sim.disturb import clocks
from tidegate.runtime.cli.main import main
from tidegate.runtime.recording import recording_file as files
from tidegate.runtime.recording.integrity import RecordingError, check
from tidegate.runtime.recording.player import Player

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "config" / "demo" / "site.toml"
SEEDS = range(1, 11)  # ten runs with one to four faults each


@pytest.fixture(scope="module")
def run():
    return recorded.run(4)


@pytest.fixture(scope="module")
def kept(run, tmp_path_factory):
    """A recording as the recorder's process writes it."""
    path = tmp_path_factory.mktemp("kept") / "fault.mcap"
    said = files.write(path, run.ring, run.blob, site=DEMO.read_text(), cause="fault bms_silent", utc_offset_ns=10**18)
    assert said["verified"] and said["cycles"] == run.cycles - 1
    return path


def replay(*words):
    found = CliRunner().invoke(main, ["replay", *map(str, words)], catch_exceptions=False)
    return found.exit_code, found.output


# ---------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("seed", SEEDS)
def test_a_recorded_fault_is_decided_alike_to_the_byte(seed):
    run = recorded.run(seed)
    assert any(event["event"] == "fault_on" for event in run.events)
    again = recorded.Again(run.blob)
    cycles, differs = again.whole(run.records)
    assert (differs, again.replay.what) == (None, ())
    assert cycles == run.cycles - 1  # the state that it begins with is the one behind the first cycle
    again.close()


def test_what_the_core_found_out_about_itself_is_decided_alike():
    """The clocks of the machine are not those of the replay: what was found is recorded."""

    def meanwhile(plant, left):
        if left in (7000, 6950):
            t_ns = plant.world.t_ns
            clocks(plant.core, t_ns, t_ns, t_ns + (0 if left == 7000 else 300_000_000))

    run = recorded.run(4, meanwhile=meanwhile)
    row = FAULT_IDS.index("clock_apart")
    assert any(event["event"] == "fault_on" and event["code"] == row for event in run.events)
    again = recorded.Again(run.blob)
    cycles, differs = again.whole(run.records)
    assert (differs, again.replay.what, cycles) == (None, (), run.cycles - 1)
    again.close()


def test_the_image_of_every_single_cycle_is_the_recorded_one():
    run = recorded.run(21, 8.0, each=True)
    again, place, seen = recorded.Again(run.blob), 0, 0
    while place < len(run.records):
        place, cycles, differs, _, _ = again.replay.run(run.records, place, 1)
        assert differs is None
        if cycles:
            seen += 1
            assert recorded.checksum(again.memory) == run.images[again.memory.cycle], again.memory.cycle
    assert seen == run.cycles - 1
    again.close()


def test_orders_of_every_kind_and_every_mode_are_among_what_was_repeated():
    """Else the runs above would say nothing of manual power, plans, leases, a stop."""
    found, modes = set(), set()
    for seed in SEEDS:
        events = recorded.run(seed).events
        found |= {event["event"] for event in events}
        modes |= {event["code"] for event in events if event["event"] == "mode"}
    assert {"plan", "billing", "bus", "latch", "fault_on", "source", "unenforced"} <= found
    assert {0, 3, 4} <= modes  # tripped, run, derated ...


def test_a_replay_begins_inside_a_ring_that_has_gone_round():
    run = recorded.run(5, 60.0, mib=3.0)
    assert run.head > run.ring.bytes_mapped
    again = recorded.Again(run.blob)
    cycles, differs = again.whole(run.records)
    assert differs is None
    assert 5_000 < cycles < run.cycles
    again.close()


def altered(records: bytes, skipped: int) -> bytes:
    """Records in which a bit of every answer of a device is another one, from a certain answer on."""
    found, place = bytearray(records), 0
    while place < len(found):
        size, what = int.from_bytes(found[place : place + 4], "little"), found[place + 4]
        item = place + 48
        while what == 1 and item < place + size:
            item_size = int.from_bytes(found[item + 4 : item + 8], "little")
            if found[item] == 3 and item_size > 32:  # an answer; its registers begin behind two times and four words
                skipped -= 1
                if skipped < 0:
                    found[item + 32] ^= 0x10
            item += item_size
        place += size
    return bytes(found)


def test_other_readings_are_found_in_the_cycle_that_decides_otherwise(run, tmp_path):
    """In a file whose checksums all agree. The replay names the cycle, what of it differs, and the values."""
    path = tmp_path / "other.mcap"
    rewrite(run, path, [altered(run.records, 200)])
    code, said = replay(path)
    assert code == 1
    assert "differs in: points" in said
    assert "recorded" in said and "here" in said and "alike" not in said


# ---------------------------------------------------------------- the file


def rewrite(run, path, chunks, **meta):
    """A recording made by hand, for what the recorder would never write."""
    with path.open("wb") as out:
        writer = Writer(out, enable_data_crcs=True)
        writer.start()
        channel = writer.register_channel(topic=files.CYCLES, message_encoding="tidegate-cycles-1", schema_id=0)
        for number, chunk in enumerate(chunks):
            writer.add_message(channel, number, chunk, number)
        writer.add_attachment(0, 0, "program.bin", "application/octet-stream", run.blob)
        row = {
            "format": files.FORMAT, "product": files.product(), "layouts": json.dumps(files.layouts()),
            "program_sha256": program.sha256(run.blob), "site": "by hand", "cause": "test", "utc_offset_ns": "0",
            **meta,
        }  # fmt: skip
        writer.add_metadata("tidegate", row)
        writer.finish()


def test_replay_says_identical(kept, run):
    code, said = replay(kept)
    assert code == 0, said
    assert f"{run.cycles - 1} cycles, all decided alike to the byte" in said
    assert "fault bms_silent" in said


def test_the_file_opens_in_other_programs_with_topics_schemas_config_and_versions(kept):
    """What Foxglove and PlotJuggler ask of a file: JSON messages whose schema is JSON, in the order of time."""
    with kept.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        plots = {c.topic: summary.schemas[c.schema_id] for c in summary.channels.values() if c.schema_id}
        assert {"/site", "/grid", "/pcs1", "/bms1"} <= set(plots)
        assert all(schema.encoding == "jsonschema" for schema in plots.values())
        fields = json.loads(plots["/site"].data)["properties"]
        rows = [json.loads(m.data) for _, _, m in reader.iter_messages(topics=["/site"])]
        times = [m.log_time for _, _, m in reader.iter_messages(topics=["/site"])]
        assert len(rows) > 100 and times == sorted(times) and times[0] > 10**18
        assert set(rows[0]) == set(fields) and "unit: W" in fields["setpoint_w"]["description"]
        assert len({row["setpoint_w"] for row in rows}) > 10
        meta = next(reader.iter_metadata()).metadata
        assert meta["product"] == files.product() and meta["machine"] and meta["verified"] == "yes"
        attached = {row.name: row.data for row in reader.iter_attachments()}
        assert attached["site.toml"] == DEMO.read_bytes()
        assert program.sha256(attached["program.bin"]) == meta["program_sha256"]


def test_a_table_has_a_column_a_point_and_a_row_every_so_many_cycles(kept, run, tmp_path):
    table = tmp_path / "fault.csv"
    code, said = replay(kept, "--csv", table, "--every", 100)
    assert code == 0, said
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["name"] for row in program.rows(run.blob)["points"]]
    worded = [name.removesuffix(".word") for name in rows[0] if name.endswith(".word")]
    assert list(rows[0]) == ["cycle", "utc_ns", *names, *(f"{name}.word" for name in worded)]
    assert {"site.mode", "site.reason", "unit0.fault_bits_lo"} <= set(worded)
    assert all(row["site.mode.word"] == MODES_BY_NUMBER[int(float(row["site.mode"]))] for row in rows)
    assert len(rows) == (run.cycles - 1) // 100
    assert int(rows[1]["cycle"]) - int(rows[0]["cycle"]) == 100
    assert int(rows[1]["utc_ns"]) - int(rows[0]["utc_ns"]) == 10**8
    assert float(rows[-1]["site.grid_w"]) > 0.0


def test_what_another_site_file_would_have_done(kept, tmp_path):
    tighter = shutil.copytree(DEMO.parent, tmp_path / "demo") / "site.toml"  # it names files beside it
    text = (
        DEMO.read_text()
        .replace("peak_w_max = 48000", "peak_w_max = 40000")
        .replace("recharge_w_max = 46000", "recharge_w_max = 38000")
    )
    assert text != DEMO.read_text()
    tighter.write_text(text)
    same = replay(kept, "--with", DEMO)
    assert same[0] == 0 and "with the other site: no difference" in same[1], same[1]
    code, said = replay(kept, "--with", tighter)
    assert code == 0, said
    assert "site.grid_limit_w" in said and "48000 W" in said and "40000 W" in said
    assert "ordered energy" in said


# ---------------------------------------------------------------- bad input


def test_any_flipped_bit_is_told_with_its_place(kept, tmp_path):
    whole = kept.read_bytes()
    chance = random.Random(8)
    damaged = tmp_path / "damaged.mcap"
    places = [chance.randrange(len(whole)) for _ in range(150)]
    places += [*range(0, 60, 3), *range(len(whole) - 40, len(whole), 3)]
    for place in places:
        bad = bytearray(whole)
        bad[place] ^= 1 << chance.randrange(8)
        damaged.write_bytes(bad)
        with pytest.raises(RecordingError) as why:
            check(damaged)
        said = str(why.value)
        assert said.startswith(f"{damaged}: ")
        if "damaged in bytes " in said:
            first, _, last = said.partition("damaged in bytes ")[2].partition(":")[0].partition(" to ")
            assert int(first) - 9 <= place <= int(last), (place, said)
    damaged.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    code, said = replay(damaged)
    assert code == 65 and "damaged in bytes" in said and "chunk, written from" in said
    assert "Traceback" not in said and "alike" not in said


def test_a_file_that_is_cut_off_empty_or_something_else(kept, tmp_path):
    whole, path = kept.read_bytes(), tmp_path / "cut.mcap"
    chance = random.Random(9)
    for size in [*range(1, 40), *(chance.randrange(40, len(whole)) for _ in range(60))]:
        path.write_bytes(whole[:size])
        with pytest.raises(RecordingError, match=r"cut off|no MCAP file"):
            check(path)
    path.write_bytes(b"")
    assert replay(path) == (65, f"tidegate: {path}: empty\n")
    path.write_text("cycle,utc_ns\n")
    code, said = replay(path)
    assert code == 65 and "no MCAP file" in said
    code, said = replay(tmp_path / "none.mcap")
    assert code == 65 and "No such file" in said


@pytest.mark.parametrize("chunks", [[], ["state"]], ids=["nothing", "only a state"])
def test_a_recording_without_a_cycle_is_not_a_good_replay(run, tmp_path, chunks):
    path = tmp_path / "none.mcap"
    size = int.from_bytes(run.records[:4], "little")
    rewrite(run, path, [run.records[:size] for _ in chunks])
    code, said = replay(path)
    assert code == 65
    assert "holds no cycle, so nothing was repeated" in said


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"product": "0.0.1"}, "recorded by tidegate 0.0.1, format 1, this is tidegate"),
        ({"format": "9"}, "format 9, this is"),
        ({"layouts": json.dumps({**files.layouts(), "core_t": 1})}, "another build of"),
        ({"program_sha256": "00"}, "its program is not the one that was recorded"),
    ],
)
def test_a_recording_of_another_version_is_one_clear_line(run, tmp_path, meta, words):
    path = tmp_path / "old.mcap"
    rewrite(run, path, [run.records], **meta)
    code, said = replay(path)
    assert code == 65
    assert words in said and said.count("\n") == 1


def test_records_that_are_none_are_told_by_their_place(run, tmp_path):
    path = tmp_path / "odd.mcap"
    first = int.from_bytes(run.records[:4], "little")
    rewrite(run, path, [run.records[:first] + b"\x07" * 64])
    code, said = replay(path)
    assert code == 65
    assert f"byte {first} of its cycles is not the record that is expected there" in said


def test_a_ring_with_nothing_in_it_gives_no_file(run, tmp_path):
    import os

    from tidegate.ext.cycle.recorder import Ring

    fd = Ring.memfd(2)
    ring = Ring(fd, writable=True)
    os.close(fd)
    with pytest.raises(RecordingError, match="nothing to write yet"):
        files.write(tmp_path / "none.mcap", ring, run.blob)
    assert list(tmp_path.iterdir()) == []


def test_a_player_of_a_foreign_processor_compares_points_not_memory(run):
    player = Player(run.blob, exact=False)
    for _ in player.run([run.records], 1000):
        pass
    assert player.outcome.differs_cycle is None and player.outcome.cycles == run.cycles - 1
    player.close()
