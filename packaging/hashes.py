"""Were the archives that pip installed those that are pinned?

Usage: hashes.py REPORT, the file of `pip install --report`. Exit 1 names each archive that constraints-hashes.txt does
not know. Only `tidegate` itself has no pin: it was built here.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sbom import pinned, plain


def strangers(report: dict[str, list[dict[str, dict[str, object]]]]) -> list[str]:
    """A line for each installed archive whose SHA-256 is not pinned."""
    pins, found = pinned(), []
    for one in report["install"]:
        name, version = plain(str(one["metadata"]["name"])), str(one["metadata"]["version"])
        if name == "tidegate":
            continue
        archive = one["download_info"].get("archive_info")
        hashes = archive.get("hashes") if isinstance(archive, dict) else None
        sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
        if name not in pins or pins[name][0] != version or sha256 not in pins[name][1]:
            found.append(f"{name} {version}: {sha256 or 'no hash'} is not in constraints-hashes.txt")
    return found


if __name__ == "__main__":
    lines = strangers(json.loads(Path(sys.argv[1]).read_text()))
    print("\n".join(lines), file=sys.stderr)
    sys.exit(1 if lines else 0)
