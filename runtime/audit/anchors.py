"""Others vouch for the chain's end: RFC 3161 time stamps, made and checked by `openssl ts`.

An anchor is two files beside the journal: `anchor-HASH.tsq`, the request, and `anchor-HASH.tsr`, the authority's
answer. HASH is the chain value that was stamped: no record up to it is younger than the stamp. The box itself asks
nobody: the request goes out and the answer comes back by whatever way a site allows.
"""

import re
import shutil
import subprocess
from pathlib import Path

from tidegate.runtime.audit.chain import Chain

NAME = re.compile(r"anchor-([0-9a-f]{64})\.tsr")


def _openssl(*words: object) -> subprocess.CompletedProcess[str]:
    """Raises FileNotFoundError without openssl."""
    program = shutil.which("openssl")
    if program is None:
        raise FileNotFoundError("openssl is not installed (apt-get install openssl)")
    return subprocess.run([program, "ts", *map(str, words)], capture_output=True, text=True, timeout=60)


def request(folder: Path, chain: Chain) -> Path:
    """Write the request for the chain's end; its path. Raises ValueError for a chain that is empty or broken."""
    if not chain.links or chain.findings:
        raise ValueError(chain.findings[0] if chain.findings else "there is no record to be stamped")
    path = folder / f"anchor-{chain.end.hex()}.tsq"
    done = _openssl("-query", "-digest", chain.end.hex(), "-sha256", "-cert", "-out", path)
    if done.returncode:
        raise ValueError(f"openssl ts -query: {done.stderr.strip()}")
    return path


def check(folder: Path, chain: Chain, authority: Path) -> tuple[list[str], list[str]]:
    """(good, findings) of all anchors in a folder.

    authority : certificates of the time-stamping authority's root, PEM.
    An anchor is foreign if no record has its value and none can have had: the chain is kept from its first segment.
    """
    places = {link.chain.hex(): link for link in chain.links}
    good, findings = [], []
    for path in sorted(folder.glob("anchor-*.tsr")):
        match = NAME.fullmatch(path.name)
        if match is None:
            findings.append(f"{path.name}: no name of an anchor")
            continue
        done = _openssl("-verify", "-digest", match[1], "-in", path, "-CAfile", authority)
        if done.returncode:
            why = done.stderr.strip().splitlines()
            findings.append(
                f"{path.name}: not signed by this authority for this value ({why[0] if why else 'no reason'})"
            )
        elif match[1] in places:
            link = places[match[1]]
            good.append(f"{path.name}: stands for all up to segment {link.segment}, event {link.number}")
        elif chain.first_segment:
            findings.append(f"{path.name}: its record is not here; segments before {chain.first_segment} are gone")
        else:
            findings.append(f"{path.name}: stamped a record that this chain does not have (cut, changed or foreign)")
    return good, findings
