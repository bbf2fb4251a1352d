"""Advisories against what is pinned: hits by range, list and alias; an old or partial snapshot is no clean answer."""

import json
import runpy
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "packaging" / "advisories.py"


@pytest.fixture(scope="module")
def tool():
    before = list(sys.path)
    try:
        return runpy.run_path(str(SCRIPT))
    finally:
        sys.path[:] = before


def record(name="click", *events, **more):
    affected = {
        "package": {"ecosystem": "PyPI", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    return {"id": "PYSEC-1", "modified": "2026-11-20T01:02:03Z", "affected": [affected], **more}


def snapshot(*records, packages=("click",), taken="2026-11-20"):
    return {"format": 1, "taken": taken, "packages": list(packages), "records": list(records)}


CASES = [
    ("8.5.1", [{"introduced": "0"}, {"fixed": "8.5.2"}], True),
    ("8.5.1", [{"introduced": "0"}, {"fixed": "8.5.1"}], False),
    ("8.5.1", [{"introduced": "8.6"}], False),
    ("8.5.1", [{"introduced": "8.5.1"}], True),
    ("8.5.1", [{"introduced": "0"}, {"last_affected": "8.5.1"}], True),
    ("8.5.1", [{"introduced": "0"}, {"last_affected": "8.5.0"}], False),
    ("8.5.1", [{"introduced": "0"}, {"fixed": "7.0"}, {"introduced": "8.0"}, {"fixed": "9.0"}], True),
    ("7.5", [{"introduced": "0"}, {"fixed": "7.0"}, {"introduced": "8.0"}, {"fixed": "9.0"}], False),
    ("10.0", [{"introduced": "9"}], True),  # by number, not by letter
    ("2026.10.19.post1", [{"introduced": "0"}, {"fixed": "2026.10.19"}], False),
    ("2.0rc1", [{"introduced": "0"}, {"fixed": "2.0"}], True),
    ("1.0", [{"introduced": "1.0.0"}], True),
]


@pytest.mark.parametrize(("version", "events", "hit"), CASES)
def test_a_version_lies_in_a_range_or_not(tool, version, events, hit):
    assert tool["is_hit"](version, record("x", *events)["affected"][0]) == hit


def test_a_hit_is_named_with_its_other_names_and_a_withdrawn_record_is_none(tool):
    found = record("Click", {"introduced": "0"}, aliases=["CVE-2026-1"])
    assert tool["hits"](snapshot(found), {"click": "8.5.1"}) == ["click 8.5.1: PYSEC-1 (CVE-2026-1)"]
    assert tool["hits"](snapshot({**found, "withdrawn": "2026-11-21T00:00:00Z"}), {"click": "8.5.1"}) == []
    assert tool["hits"](snapshot(found), {"flask": "8.5.1"}) == []


def test_a_snapshot_that_is_old_or_looked_half_is_said_to_be(tool):
    pins, day = {"click": "8.5.1", "rich": "1.0"}, date(2026, 12, 1)
    assert tool["gaps"](snapshot(packages=["click", "Rich"]), pins, day) == []
    (old,) = tool["gaps"](snapshot(packages=["click", "rich"], taken="2026-10-01"), pins, day)
    assert "2026-10-01" in old and "61 days" in old
    (half,) = tool["gaps"](snapshot(), pins, day)
    assert "1 of 2" in half and "rich" in half


def test_every_pin_has_a_version_that_can_be_compared(tool):
    for version, _ in tool["pinned"]().values():
        tool["order"](version)
    with pytest.raises(tool["SnapshotError"]):
        tool["order"]("of today")


def run(*words):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_becomes_a_snapshot_and_the_check_believes_it(tool, tmp_path, packed):
    version = tool["pinned"]()["click"][0]
    export = tmp_path / "export"
    export.mkdir()
    (export / "a.json").write_text(json.dumps(record("click", {"introduced": version})))
    (export / "b.json").write_text(json.dumps({**record("django", {"introduced": "0"}), "id": "PYSEC-2"}))
    if packed:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as out:
            for path in export.iterdir():
                out.write(path, path.name)
        export = tmp_path / "all.zip"
    taken = tmp_path / "snapshot.json"
    assert run("take", export, taken)[0] == 0
    held = json.loads(taken.read_text())
    assert [one["id"] for one in held["records"]] == ["PYSEC-1"] and held["taken"] == "2026-11-20"
    code, said = run("check", taken, "--at", "2026-11-30")
    assert code == 1 and f"click {version}: PYSEC-1" in said and "not known" not in said
    held["records"] = []
    taken.write_text(json.dumps(held))
    assert run("check", taken, "--at", "2026-11-30")[0] == 0
    assert run("check", taken, "--at", "2027-11-30")[0] == 3


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2, "taken": "2026-01-01", "packages": [], "records": []}']
)
def test_what_is_no_snapshot_is_no_clean_answer(tmp_path, text):
    path = tmp_path / "snapshot.json"
    path.write_text(text)
    assert run("check", path)[0] == 3
    assert run("check", tmp_path / "nothing")[0] == 3


def test_an_export_with_a_file_that_is_no_record_is_not_taken(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    code, said = run("take", tmp_path, tmp_path / "out")
    assert code == 3 and "a.json" in said and not (tmp_path / "out").exists()


def test_the_snapshot_that_is_shipped_knows_a_little_and_says_so(tool):
    """It has parts of an old export. Once it is whole and new, this is a sentence less on docs/cra.md."""
    held = tool["read"](tool["SNAPSHOT"])
    old = {"cryptography": "41.0.0", "babel": "2.9.0", "pydantic": "1.7.3", "numpy": "1.18.5"}
    assert {line.split()[0] for line in tool["hits"](held, old)} == set(old)
    pins = {name: version for name, (version, _) in tool["pinned"]().items()}
    assert tool["hits"](held, pins) == []
    said = (ROOT / "docs" / "cra.md").read_text()
    assert f"of {held['taken']}" in said and f"{len(held['records'])} records" in said
