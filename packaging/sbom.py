"""Bills of materials of a wheel or a Debian package: CycloneDX 1.6 and SPDX 2.3, both JSON. Standard library only.

Usage: sbom.py FOLDER [SITE_PACKAGES] writes FOLDER/tidegate.cdx.json and FOLDER/tidegate.spdx.json.

Without SITE_PACKAGES it lists what the product declares, in the pinned versions: all extras, none of what only builders
need. With it, what really lies there. Hashes are those of constraints-hashes.txt: of every archive of that version that
pip may take. The same input gives the same bytes; the time is SOURCE_DATE_EPOCH's.
"""

import hashlib
import json
import os
import re
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILDING = ("dev", "docs")
NOT_SAID = "NOASSERTION"


class Part(NamedTuple):
    """One distribution; `licence` as its own metadata say it, "" if they do not."""

    name: str
    version: str
    licence: str
    hashes: tuple[str, ...]


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name -> version and SHA-256 of its archives. Raises ValueError for a pin without a hash."""
    found = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "constraints-hashes.txt").read_text()):
        head = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if head is None:
            continue
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
        if not hashes:
            raise ValueError(f"constraints-hashes.txt: {head[0]} has no hash")
        found[plain(head[1])] = (head[2], hashes)
    return found


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def declared() -> list[Part]:
    """What pyproject.toml names for the product, at its pinned version."""
    pins, table = pinned(), project()
    extras = table["optional-dependencies"]
    assert isinstance(extras, dict) and isinstance(table["dependencies"], list)
    wanted = [*table["dependencies"], *(one for extra, ones in extras.items() if extra not in BUILDING for one in ones)]
    names = {plain(re.split(r"[\[<>=~! ;]", text)[0]) for text in wanted} - {"tidegate"}
    missing = sorted(names - set(pins))
    if missing:
        raise ValueError(
            f"constraints-hashes.txt has no {', '.join(missing)}, which pyproject.toml names: make constraints"
        )
    return [Part(name, pins[name][0], "", pins[name][1]) for name in sorted(names)]


def installed(site: Path) -> list[Part]:
    """What lies in a folder of packages. Raises ValueError for a version that is not the pinned one."""
    pins, found = pinned(), []
    for one in distributions(path=[str(site)]):
        name, meta = plain(one.metadata["Name"]), one.metadata
        if name == "tidegate":
            continue
        if name not in pins or pins[name][0] != one.version:
            raise ValueError(
                f"{name} {one.version} is installed; constraints-hashes.txt has {pins.get(name, ('none',))[0]}"
            )
        found.append(Part(name, one.version, meta.get("License-Expression") or "", pins[name][1]))
    return sorted(found)


def moment() -> str:
    return datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def identity(version: str, parts: list[Part]) -> str:
    """A name of this very bill: of its content, so that the same content has the same name."""
    return hashlib.sha256(repr((version, moment(), parts)).encode()).hexdigest()


def cyclonedx(version: str, parts: list[Part]) -> dict[str, object]:
    """CycloneDX 1.6. Hashes stand as properties: a component has several archives, and `hashes` would mean one."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(identity(version, parts)[:32])}",
        "version": 1,
        "metadata": {
            "timestamp": moment(),
            "component": {
                "type": "application",
                "bom-ref": "tidegate",
                "name": "tidegate",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": f"pkg:pypi/tidegate@{version}",
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": part.name,
                "name": part.name,
                "version": part.version,
                "purl": f"pkg:pypi/{part.name}@{part.version}",
                **({"licenses": [{"expression": part.licence}]} if part.licence else {}),
                "properties": [{"name": "tidegate:archive:sha256", "value": value} for value in part.hashes],
            }
            for part in parts
        ],
        "dependencies": [{"ref": "tidegate", "dependsOn": [part.name for part in parts]}],
    }


def spdx(version: str, parts: list[Part]) -> dict[str, object]:
    """SPDX 2.3."""

    def package(name: str, number: str, licence: str, comment: str) -> dict[str, object]:
        return {
            "SPDXID": f"SPDXRef-{name.replace('_', '-')}",
            "name": name,
            "versionInfo": number,
            "downloadLocation": NOT_SAID,
            "filesAnalyzed": False,
            "licenseConcluded": NOT_SAID,
            "licenseDeclared": licence or NOT_SAID,
            "copyrightText": NOT_SAID,
            **({"comment": comment} if comment else {}),
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": f"pkg:pypi/{name}@{number}",
                }
            ],
        }

    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"tidegate-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/tidegate-{version}-{identity(version, parts)[:32]}",
        "creationInfo": {"created": moment(), "creators": ["Tool: tidegate-sbom"]},
        "packages": [
            package("tidegate", version, "Apache-2.0", ""),
            *(package(p.name, p.version, p.licence, "sha256 of its archives: " + " ".join(p.hashes)) for p in parts),
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": "SPDXRef-tidegate",
            },
            *(
                {
                    "spdxElementId": "SPDXRef-tidegate",
                    "relationshipType": "DEPENDS_ON",
                    "relatedSpdxElement": f"SPDXRef-{p.name.replace('_', '-')}",
                }
                for p in parts
            ),
        ],
    }


def write(folder: Path, site: Path | None = None) -> list[Path]:
    """Write both bills; their paths."""
    version = str(project()["version"])
    parts = declared() if site is None else installed(site)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, bill in (("tidegate.cdx.json", cyclonedx(version, parts)), ("tidegate.spdx.json", spdx(version, parts))):
        (folder / name).write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
        paths.append(folder / name)
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None):
        print(path)
