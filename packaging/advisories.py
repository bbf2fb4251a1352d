"""Is something known against what is pinned? Offline, against a snapshot of advisories in OSV's format.

Usage: advisories.py check [SNAPSHOT] [--at DAY]   what constraints-hashes.txt pins, against packaging/advisories.json
       advisories.py take EXPORT [SNAPSHOT]        make a snapshot of an OSV export: a folder of JSON files, or a zip

Exit 1: a pinned version is affected. Exit 3: nothing is known against any, but not enough is known: the snapshot is
older than a month on that day (DAY, else today), or does not say that it looked a pinned package up. Exit 0: neither.
Standard library only.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sbom import pinned, plain

SNAPSHOT = Path(__file__).with_name("advisories.json")
OLD_DAYS = 31
EXIT_AFFECTED, EXIT_UNKNOWN, EXIT_USAGE = 1, 3, 64
RECORD_BYTES_MAX = 4 << 20
STAGES = {"dev": 0, "a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "": 4, "post": 5}


VERSION = re.compile(r"v?(\d+(?:\.\d+)*)[._-]?(?:(dev|alpha|beta|a|b|c|rc|post)[._-]?(\d*))?(?:[._-]?dev\d*)?(?:\+.*)?")


class SnapshotError(ValueError):
    """A snapshot or an export that cannot be used, in one sentence."""


def order(version: str) -> tuple[tuple[int, ...], int, int]:
    """A version as something to compare. Raises SnapshotError for one of another form."""
    found = VERSION.fullmatch(version)
    if found is None:
        raise SnapshotError(f"{version!r} is no version that can be compared")
    numbers = tuple(int(one) for one in found[1].split("."))
    while len(numbers) > 1 and not numbers[-1]:
        numbers = numbers[:-1]
    return numbers, STAGES[found[2] or ""], int(found[3] or 0)


def is_hit(version: str, affected: dict[str, object]) -> bool:
    """Whether a version lies in one of the ranges of a record's `affected`, or in its list. Raises SnapshotError."""
    versions, ranges = affected.get("versions", []), affected.get("ranges", [])
    assert isinstance(versions, list) and isinstance(ranges, list)
    if version in versions:
        return True
    for one in ranges:
        if one.get("type") != "ECOSYSTEM":
            continue
        inside = False
        events = [(order(value), kind) for event in one["events"] for kind, value in event.items() if kind != "limit"]
        for at, kind in sorted(events, key=lambda event: event[0]):
            if kind == "introduced" and order(version) >= at:
                inside = True
            if (kind == "fixed" and order(version) >= at) or (kind == "last_affected" and order(version) > at):
                inside = False
        if inside:
            return True
    return False


def hits(snapshot: dict[str, object], pins: dict[str, str]) -> list[str]:
    """A line for each pinned version that a record names. Raises SnapshotError."""
    found, records = [], snapshot["records"]
    assert isinstance(records, list)
    for record in records:
        if record.get("withdrawn"):
            continue
        for affected in record["affected"]:
            name = plain(affected["package"]["name"])
            if name in pins and is_hit(pins[name], affected):
                also = ", ".join(record.get("aliases", []))
                found.append(f"{name} {pins[name]}: {record['id']}{f' ({also})' if also else ''}")
    return sorted(set(found))


def gaps(snapshot: dict[str, object], pins: dict[str, str], at: date) -> list[str]:
    """What keeps the answer "nothing" from being one."""
    said, packages = [], snapshot["packages"]
    assert isinstance(packages, list)
    taken = date.fromisoformat(str(snapshot["taken"]))
    age_days = (at - taken).days
    if age_days > OLD_DAYS:
        said.append(f"the snapshot is of {taken}, {age_days} days old: what was found since is not in it")
    missing = sorted(set(pins) - {plain(one) for one in packages})
    if missing:
        said.append(f"{len(missing)} of {len(pins)} packages were not looked up: {', '.join(missing)}")
    return said


def read(path: Path) -> dict[str, object]:
    """A snapshot. Raises SnapshotError, OSError."""
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != 1 or not isinstance(found["records"], list) or not isinstance(found["packages"], list):
            raise SnapshotError(f"{path}: not a snapshot of format 1")
        date.fromisoformat(found["taken"])
    except (KeyError, TypeError, ValueError) as why:
        raise SnapshotError(f"{path}: {why}") from None
    whole: dict[str, object] = found
    return whole


def records_of(export: Path) -> Iterator[dict[str, object]]:
    """Records of an OSV export. Raises SnapshotError for a file in it that is none, OSError."""
    if export.is_dir():
        texts = ((str(path), path.read_bytes()) for path in sorted(export.rglob("*.json")))
    else:
        packed = zipfile.ZipFile(export)
        rows = sorted(
            (row for row in packed.infolist() if row.filename.endswith(".json")), key=lambda row: row.filename
        )
        for row in rows:
            if row.file_size > RECORD_BYTES_MAX:
                raise SnapshotError(f"{export}: {row.filename} is larger than any record")
        texts = ((row.filename, packed.read(row)) for row in rows)
    for name, text in texts:
        try:
            record = json.loads(text)
            record["id"], [one["package"]["name"] for one in record["affected"]]
        except (ValueError, KeyError, TypeError) as why:
            raise SnapshotError(f"{export}: {name}: no OSV record ({why})") from None
        yield record


def take(export: Path, pins: dict[str, str]) -> dict[str, object]:
    """A snapshot of what an export has of the pinned packages, all of them looked up. Raises SnapshotError, OSError."""
    kept, newest = [], ""
    for record in records_of(export):
        newest = max(newest, str(record.get("modified", ""))[:10])
        affected = record["affected"]
        assert isinstance(affected, list)
        named = [one for one in affected if one["package"].get("ecosystem") == "PyPI"]
        ours = [one for one in named if plain(one["package"]["name"]) in pins]
        if ours:
            words = ("id", "modified", "published", "aliases", "withdrawn", "summary")
            kept.append({**{word: record[word] for word in words if word in record}, "affected": ours})
    if not newest:
        raise SnapshotError(f"{export}: not one record in it")
    # As old as the newest record in it, whenever it was fetched: that it is whole until then is all that it shows.
    return {
        "format": 1, "source": "OSV records", "taken": newest, "packages": sorted(pins),
        "records": sorted(kept, key=lambda one: str(one["id"])),
    }  # fmt: skip


def main(words: list[str]) -> int:
    pins = {name: version for name, (version, _) in pinned().items()}
    at = datetime.now(UTC).date()
    if "--at" in words:
        place = words.index("--at")
        at = date.fromisoformat(words[place + 1])
        words = words[:place] + words[place + 2 :]
    try:
        if words[:1] == ["take"] and len(words) in (2, 3):
            snapshot = take(Path(words[1]), pins)
            path = Path(words[2]) if len(words) == 3 else SNAPSHOT
            path.write_text(json.dumps(snapshot, indent=1, sort_keys=True) + "\n")
            records = snapshot["records"]
            assert isinstance(records, list)
            print(f"{path}: {len(records)} records for {len(pins)} packages, newest of {snapshot['taken']}")
            return 0
        if words[:1] != ["check"] or len(words) > 2:
            print(__doc__, file=sys.stderr)
            return EXIT_USAGE
        snapshot = read(Path(words[1]) if len(words) == 2 else SNAPSHOT)
        found, lacks = hits(snapshot, pins), gaps(snapshot, pins, at)
    except (SnapshotError, OSError, zipfile.BadZipFile) as why:
        print(f"advisories: {why}", file=sys.stderr)
        return EXIT_UNKNOWN
    for line in found:
        print(f"affected: {line}")
    for line in lacks:
        print(f"not known: {line}")
    print(f"{len(pins)} pinned, {len(found)} affected{', not all is known' if lacks else ''}")
    return EXIT_AFFECTED if found else EXIT_UNKNOWN if lacks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
