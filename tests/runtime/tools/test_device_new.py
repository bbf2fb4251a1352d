"""`tidegate devices new` as a newcomer types it."""

import os
import threading

import pytest
from click.testing import CliRunner

from tidegate.hal import maps
from tidegate.runtime.cli.main import main

TABLE = "Address;Description;Type;Unit\n0;Total active power;FLOAT;kW\n2;Import energy;FLOAT;kWh\n"


def test_a_table_becomes_a_map_that_loads(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes((TABLE + "4;Temperatur Gehäuse;INT16;°C\n").encode("cp1252"))
    out = tmp_path / "my-meter.toml"
    said = CliRunner().invoke(main, ["devices", "new", "my-meter", "--csv", str(table), "--out", str(out)])
    assert said.exit_code == 0 and "it loads" in said.output, said.output
    assert [p.name for p in maps.load_map(str(out)).point] == ["power_w", "import_wh", "temperatur_gehaeuse_c"]
    again = CliRunner().invoke(main, ["devices", "new", "my-meter", "--csv", str(table), "--out", str(out)])
    assert again.exit_code != 0 and "there already" in again.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["My_Meter", "--csv", "t.csv"], "small letters"),
        (["my-meter"], "one of --csv and --serial"),
        (["my-meter", "--csv", "empty.csv"], "empty"),
        (["my-meter", "--serial", "/dev/null", "--registers", "9-1"], "FIRST-LAST"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, words, says):
    (tmp_path / "t.csv").write_text(TABLE)
    (tmp_path / "empty.csv").write_text("")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        said = CliRunner().invoke(main, ["devices", "new", *words])
    finally:
        os.chdir(here)
    assert said.exit_code != 0 and says in said.output
    assert not list(tmp_path.glob("*.toml"))


def test_a_live_device_is_only_read_and_its_gaps_are_left_out(tmp_path, monkeypatch):
    from tidegate.runtime.tools import open_bus

    asked = []

    class Reader:
        def __init__(self, device, baud, parity):
            self.device = device

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, unit_id, function, address, count):
            asked.append((unit_id, function, address, count))
            return None if address <= 5 < address + count else [100 + address + i for i in range(count)]

    monkeypatch.setattr(open_bus, "RegisterReader", Reader)
    out = tmp_path / "found.toml"
    words = [
        "devices",
        "new",
        "found",
        "--serial",
        "/dev/ttyX",
        "--unit",
        "7",
        "--function",
        "4",
        "--registers",
        "0-20",
    ]
    before = threading.active_count()
    said = CliRunner().invoke(main, [*words, "--out", str(out)])
    assert said.exit_code == 0 and "to be mended" in said.output and "power_w" in said.output
    text = out.read_text(encoding="utf-8")
    assert text.count("[[point]]") == 20 and "address = 5\n" not in text and "function = 4" in text
    assert {row[:2] for row in asked} == {(7, 4)} and threading.active_count() == before
