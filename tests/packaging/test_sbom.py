"""Bills of materials: valid, whole, the same bytes each time; and an archive that is not the pinned one is named."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

ROOT = Path(__file__).resolve().parents[2]
SBOM = runpy.run_path(str(ROOT / "packaging" / "sbom.py"))


@pytest.fixture
def bills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    paths: list[Path] = SBOM["write"](tmp_path / "sboms")
    return paths


def test_the_cyclonedx_bill_is_valid(bills: list[Path]) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(bills[0].read_text()) is None
    broken = json.loads(bills[0].read_text())
    broken["components"][0]["type"] = "thing"
    assert validator.validate_str(json.dumps(broken)) is not None


def test_the_spdx_bill_is_valid(bills: list[Path]) -> None:
    document = parse_file(str(bills[1]))
    assert validate_full_spdx_document(document) == []
    assert len(document.packages) == len(SBOM["declared"]()) + 1


def test_the_same_content_gives_the_same_bytes(bills: list[Path], tmp_path: Path) -> None:
    again = SBOM["write"](tmp_path / "other")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in bills]


def test_every_package_of_the_product_is_on_the_bill_and_no_builders_tool() -> None:
    names = {part.name for part in SBOM["declared"]()}
    assert {"numpy", "pyzmq", "cryptography", "pymodbus", "psycopg"} <= names
    assert not names & {"pytest", "mkdocs-material", "ruff"}


def test_every_pinned_version_has_its_hashes() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = {SBOM["plain"](line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    assert versions == {name: version for name, (version, _) in SBOM["pinned"]().items()}


def report(sha256: str) -> dict[str, Any]:
    archive = {"archive_info": {"hashes": {"sha256": sha256}}}
    own = {"metadata": {"name": "tidegate", "version": "0.1.0"}, "download_info": {"dir_info": {}}}
    version = SBOM["pinned"]()["click"][0]
    return {"install": [own, {"metadata": {"name": "click", "version": version}, "download_info": archive}]}


def test_an_archive_with_other_bytes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "packaging"), *sys.path])
    strangers = runpy.run_path(str(ROOT / "packaging" / "hashes.py"))["strangers"]
    assert strangers(report(SBOM["pinned"]()["click"][1][0])) == []
    (said,) = strangers(report("0" * 64))
    assert said.startswith("click ") and said.endswith("is not in constraints-hashes.txt")
