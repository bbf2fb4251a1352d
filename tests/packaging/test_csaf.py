"""Advisories: the example becomes a document without a fault, and each fault of one is named."""

import copy
import json
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "packaging" / "csaf.py"
EXAMPLE = ROOT / "packaging" / "csaf-example.toml"
CSAF = runpy.run_path(str(SCRIPT))


@pytest.fixture
def document():
    return CSAF["make"](tomllib.loads(EXAMPLE.read_text()))


def test_the_example_is_written_under_the_name_of_its_id(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "make", EXAMPLE, tmp_path], capture_output=True, text=True)
    path = tmp_path / "example-2026-0001.json"
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    checked = subprocess.run([sys.executable, SCRIPT, "check", path], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    said = json.loads(path.read_text())
    assert said["document"]["tracking"]["current_release_date"] == "2026-03-14T10:15:00Z"
    assert CSAF["file_name"]("ACME/2026:0001 a") == "acme_2026_0001_a.json"


WRONG = {
    "no namespace": (lambda d: d["document"]["publisher"].pop("namespace"), "namespace"),
    "another version": (lambda d: d["document"].update(csaf_version="2.1"), "expected 2.0"),
    "an id with a space": (lambda d: d["document"]["tracking"].update(id="a "), "space"),
    "a version of its own": (lambda d: d["document"]["tracking"].update(version="7"), "last revision"),
    "dates out of order": (
        lambda d: d["document"]["tracking"]["revision_history"].append(
            {"number": "2", "date": "2025-01-01T00:00:00Z", "summary": "x"}
        ),
        "order",
    ),
    "a date without a zone": (
        lambda d: d["document"]["tracking"]["revision_history"][0].update(date="2026-03-14T10:15:00"), "zone",
    ),
    "an unknown status": (lambda d: d["document"]["tracking"].update(status="done"), "status"),
    "a product that there is not": (
        lambda d: d["vulnerabilities"][0]["product_status"]["known_affected"].append("tidegate-9"), "no such product",
    ),
    "affected and fixed": (
        lambda d: d["vulnerabilities"][0]["product_status"].update(fixed=["tidegate-0.1.0"]), "exclude",
    ),
    "no remedy": (lambda d: d["vulnerabilities"][0].pop("remediations"), "nothing said"),
    "an unknown remedy": (lambda d: d["vulnerabilities"][0]["remediations"][0].update(category="hope"), "category"),
    "a CVE of another form": (lambda d: d["vulnerabilities"][0].update(cve="CVE-26-1"), "not of the form"),
    "no note": (lambda d: d["vulnerabilities"][0].update(notes=[]), "notes"),
    "a product twice": (
        lambda d: d["product_tree"]["branches"].append(copy.deepcopy(d["product_tree"]["branches"][0])), "twice",
    ),
    "no tree": (lambda d: d.pop("product_tree"), "structure"),
    "no vulnerability": (lambda d: d.update(vulnerabilities=[]), "none"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_named(document, name):
    assert CSAF["problems"](document) == []
    break_it, word = WRONG[name]
    break_it(document)
    assert any(word in line for line in CSAF["problems"](document)), CSAF["problems"](document)


@pytest.mark.parametrize("odd", [[], "text", None, {"document": 5}])
def test_what_is_no_document_is_no_advisory(odd):
    assert CSAF["problems"](odd) != []


def test_a_file_that_lacks_something_says_what(tmp_path):
    text = EXAMPLE.read_text()
    for gone in ("title =", "namespace =", "affected ="):
        path = tmp_path / "one.toml"
        path.write_text("\n".join(line for line in text.splitlines() if not line.startswith(gone)))
        done = subprocess.run([sys.executable, SCRIPT, "make", path, tmp_path], capture_output=True, text=True)
        assert done.returncode == 1 and gone.split()[0] in done.stderr and not list(tmp_path.glob("*.json"))
