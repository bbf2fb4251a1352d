"""Signed blocks and anchors: who wrote the ledger, and a word of it at a second party.

A block entry signs the hash of the entry before it with the device's Ed25519 key. That shows which device wrote; it
does not stop whoever holds the key from writing everything anew. Only an anchor does: the head's hash, kept by
somebody else.
"""

import json
from collections.abc import Iterable, Mapping

from tidegate.runtime.carbon.ledger.bodies import (
    BlockBody,
    KeyBody,
    PeriodBody,
    RenamedBody,
    RestoredBody,
    period_error_ug,
    settlement_error,
)
from tidegate.runtime.carbon.ledger.ledger import Entry, IntegrityProblem, Ledger, LedgerError
from tidegate.runtime.state.device_key import DeviceKey, signed_by

BLOCK_ENTRIES = 96  # a day of quarter hours
UNSIGNED_MAX = 2 * BLOCK_ENTRIES  # what may wait for its block: those of a day, and what one booking brings


def block(key: DeviceKey, site: str, first: int, last: int, root: str) -> BlockBody:
    """The body of a block entry over the entries first..last, whose newest hash is `root`."""
    signature = key.sign(_message(site, first, last, root))
    return {"site": site, "first": first, "last": last, "root": root, "key": key.public, "signature": signature}


def _message(site: str, first: int, last: int, root: str) -> bytes:
    return f"tidegate carbon block\n{site}\n{first}\n{last}\n{root}".encode()


def sign(ledger: Ledger, key: DeviceKey, site: str, *, least: int = BLOCK_ENTRIES) -> bool:
    """Append a block if at least `least` entries are not covered by one yet. -> whether it did."""
    last, root = ledger.head
    covered = ledger.state("signed")
    first = int(covered) + 1 if covered is not None else 0
    if last - first + 1 < max(1, least):
        return False
    ledger.append([("block", 0, block(key, site, first, last, root))], {"signed": str(last)})
    return True


def check_block(body: BlockBody, seq: int, previous_hash: str, expected_first: int, key: str | None) -> str | None:
    """What is wrong with a block entry, or None. previous_hash : hash of the entry before it."""
    if body["last"] != seq - 1 or body["root"] != previous_hash:
        return "block does not sign the entry before it"
    if body["first"] != expected_first:
        return f"block begins at {body['first']}, the one before ended at {expected_first - 1}"
    if key is not None and body["key"] != key:
        return f"block signed by key {body['key'][:16]}..., expected {key[:16]}..."
    message = _message(body["site"], body["first"], body["last"], body["root"])
    if not signed_by(body["key"], body["signature"], message):
        return "signature of the block does not fit"
    return None


# ---- a ledger that was put back from a backup ----


def restored(ledger: Ledger, author: str, reason: str, anchors: Mapping[int, str]) -> RestoredBody:
    """Append that the ledger was restored, and which anchored entries were lost with that. Raises LedgerError."""
    if not author.strip() or not reason.strip():
        raise LedgerError("a restored ledger names who put it back, and why")
    hashes = {entry.seq: entry.hash for entry in ledger.entries(lenient=True) if entry.seq in anchors}
    head = ledger.head[0]
    lost = [(seq, digest) for seq, digest in sorted(anchors.items()) if seq > head and seq not in hashes]
    differ = [seq for seq, digest in anchors.items() if seq in hashes and hashes[seq] != digest]
    if differ:
        raise LedgerError(
            f"{ledger.url}: entry {min(differ)} is not the one that was anchored; say that it was restored before the "
            "sidecar runs on it"
        )
    body: RestoredBody = {"v": 1, "author": author, "reason": reason, "lost": lost}
    ledger.append([("restored", 0, body)])
    return body


def restorations(ledger: Ledger) -> list[str]:
    """Each time that the ledger was put back, for whoever verifies."""
    return [
        f"entry {entry.seq}: restored from a backup by {entry.body.get('author')}: {entry.body.get('reason')}; "
        f"{len(entry.body.get('lost', ()))} anchored entries of before are lost"
        for entry in ledger.entries("restored", lenient=True)
    ]


# ---- a site that was renamed ----


def rename(ledger: Ledger, new: str, author: str, reason: str) -> RenamedBody:
    """Append that the site is called `new` from here on. Raises LedgerError if there is nothing to rename."""
    if not author.strip() or not reason.strip():
        raise LedgerError("a renamed ledger names who renamed it, and why")
    old = ledger.named()
    if old is None:
        raise LedgerError(f"{ledger.url}: it never said of which site it is; nothing to rename")
    if not new.strip() or new == old:
        raise LedgerError(f"{ledger.url}: it is of the site {old!r}; say another name with --to")
    body: RenamedBody = {"v": 1, "old": old, "new": new, "author": author, "reason": reason}
    ledger.rename(new, body)
    return body


# ---- a key that was replaced ----


def _key_message(body: KeyBody) -> bytes:
    words = ("tidegate carbon key", body["site"], body["old"], body["new"], body["author"], body["reason"])
    return "\n".join(words).encode()


def change_key(
    ledger: Ledger, site: str, new: DeviceKey, author: str, reason: str, old: DeviceKey | None = None
) -> KeyBody:
    """Append that the device signs with another key from here on. Raises LedgerError if there is nothing to change.

    old : the key of before, where it is still there; without it the entry says that nobody of before agreed.
    """
    if not author.strip() or not reason.strip():
        raise LedgerError("a change of the key names its author and its reason")
    last = ledger.signer()
    if last is None:
        raise LedgerError(f"{ledger.url}: no block is signed yet, so any key may sign the first")
    if last == new.public:
        raise LedgerError(f"{ledger.url}: the last block is signed with this very key")
    if old is not None and old.public != last:
        raise LedgerError(f"the old key is {old.public[:16]}..., the last block is signed with {last[:16]}...")
    body: KeyBody = {"v": 1, "site": site, "old": last, "new": new.public, "signature": "", "by_old": "",
                     "author": author, "reason": reason}  # fmt: skip
    message = _key_message(body)
    body["signature"] = new.sign(message)
    body["by_old"] = "" if old is None else old.sign(message)
    ledger.append([("key", 0, body)])
    return body


def check_key(body: KeyBody, key: str | None) -> str | None:
    """What is wrong with a change of the key, or None. key : that signed until here."""
    if key is not None and body["old"] != key:
        return f"key change from {body['old'][:16]}..., but {key[:16]}... signed until here"
    message = _key_message(body)
    if not signed_by(body["new"], body["signature"], message):
        return "the new key did not sign its change"
    if body["by_old"] and not signed_by(body["old"], body["by_old"], message):
        return "the signature of the old key under the change does not fit"
    return None


def key_changes(ledger: Ledger) -> list[str]:
    """Each change of the key, for whoever verifies: who made it, and whether the old key agreed."""
    found = []
    for entry in ledger.entries("key", lenient=True):
        body = entry.body
        agreed = "signed by the old key" if body.get("by_old") else "NOT signed by the old key: ask the author"
        found.append(f"entry {entry.seq}: key changed to {body.get('new', '')[:16]}... by {body.get('author')}: "
                     f"{body.get('reason')}; {agreed}")  # fmt: skip
    return found


# ---- anchors ----


def anchor_line(ledger: Ledger, site: str) -> str:
    """One line for a second party: the head as it is now."""
    seq, digest = ledger.head
    return json.dumps({"site": site, "seq": seq, "hash": digest}, sort_keys=True)


class Anchors(dict[int, str]):
    """seq -> hash, as a second party kept them. sites : seq -> the site that the line names, where it names one."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[int, str] = {}
        self.problems: list[IntegrityProblem] = []


def read_anchors(lines: Iterable[str], where: str) -> Anchors:
    """Anchor lines; two that contradict each other are a problem. Raises LedgerError naming a line that is none."""
    found = Anchors()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            seq, digest, site = int(row["seq"]), str(row["hash"]), row.get("site")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise LedgerError(f"{where}, line {number}: not an anchor; expected {{'seq': ..., 'hash': ...}}") from None
        if found.setdefault(seq, digest) != digest:
            found.problems.append(IntegrityProblem(seq, f"is anchored twice and differently ({where}, line {number})"))
        if isinstance(site, str) and found.sites.setdefault(seq, site) != site:
            found.problems.append(IntegrityProblem(seq, f"is anchored for two sites ({where}, line {number})"))
    return found


# ---- the whole check ----


def verify(
    ledger: Ledger, *, key: str | None = None, anchors: Mapping[int, str] | None = None
) -> list[IntegrityProblem]:
    """Everything that is not as it was written: chain, blocks, anchors, the periods' order and their carbon.

    key : public key in hex that must have signed; None takes that of the first block. It is the newest one where keys
    were changed by an entry, or the first one where each change is signed by the key before.
    What is missing counts as well: blocks where a key is expected or was used, a tail longer than the device leaves
    unsigned, entries that the ledger's own state knows of, and anchors of another ledger.
    """
    problems = ledger.verify()
    bad = {row.seq for row in problems}
    lost = {
        (seq, digest)
        for entry in ledger.entries("restored", lenient=True)
        for seq, digest in entry.body.get("lost", ())
    }
    wanted = {seq: digest for seq, digest in (anchors or {}).items() if (seq, digest) not in lost}
    site = ""
    sites: set[str] = set()  # all that it was called
    must_sign = key is not None
    trusted_first = False
    changed: dict[str, str] = {}  # new key -> the one before, as far as it may be followed
    if key is not None:
        for change in ledger.entries("key", lenient=True):
            if change.body.get("new") and change.body.get("old"):
                changed[change.body["new"]] = change.body["old"]
        if key in changed and key not in changed.values():  # the newest: its chain begins with the first one
            seen = set()
            while key in changed and key not in seen:
                seen.add(key)
                key = changed[key]
        else:
            trusted_first = True
    expected_first = 0
    previous_hash = ""
    line = _Line()
    for entry in ledger.entries(lenient=True):
        if entry.seq in wanted and wanted.pop(entry.seq) != entry.hash:
            problems.append(
                IntegrityProblem(entry.seq, "is not the one that was anchored; the ledger was written anew")
            )
        if entry.seq == 0 and entry.kind == "open":
            site = str(entry.body.get("site", ""))
            sites.add(site)
        if entry.seq not in bad and entry.kind == "renamed":
            if entry.body.get("old") != site:
                said = f"renamed from {entry.body.get('old')!r}, but it was of {site!r} until here"
                problems.append(IntegrityProblem(entry.seq, said))
            site = str(entry.body.get("new", ""))
            sites.add(site)
        if entry.seq not in bad and entry.kind == "block":
            must_sign = True
            if site and entry.body.get("site") != site:
                problems.append(
                    IntegrityProblem(entry.seq, f"block of site {entry.body.get('site')!r} in one of {site!r}")
                )
            problem = check_block(entry.body, entry.seq, previous_hash, expected_first, key)
            if problem is not None:
                problems.append(IntegrityProblem(entry.seq, problem))
            key = key or entry.body["key"]
            expected_first = entry.seq
        if entry.seq not in bad and entry.kind == "key":
            problem = check_key(entry.body, key)
            if problem is None and trusted_first and not entry.body["by_old"]:
                problem = (
                    f"key changed without the signature of {entry.body['old'][:16]}...; give the new key to accept it"
                )
            if problem is not None:
                problems.append(IntegrityProblem(entry.seq, problem))
            else:
                key = entry.body["new"]
        if entry.seq not in bad and entry.kind == "period":
            problem = line.add(entry)
            if problem is not None:
                problems.append(IntegrityProblem(entry.seq, problem))
        if entry.seq not in bad and entry.kind == "job":
            problem = settlement_error(entry.body)
            if problem is not None:
                problems.append(IntegrityProblem(entry.seq, problem))
        previous_hash = entry.hash
    problems += line.breaks()
    head = ledger.head[0]
    problems += _tail(ledger, head, expected_first, must_sign)
    if isinstance(anchors, Anchors):
        problems += anchors.problems
        for seq, named in anchors.sites.items():
            if named and sites and named not in sites:
                problems.append(IntegrityProblem(seq, f"the anchor is of site {named!r}, this ledger of {site!r}"))
    for seq in sorted(wanted):
        problems.append(IntegrityProblem(seq, f"was anchored and is missing; the ledger ends at {head}"))
    return sorted(problems, key=lambda row: (row.seq is None, row.seq or 0))


def _tail(ledger: Ledger, head: int, block_seq: int, must_sign: bool) -> list[IntegrityProblem]:
    """What is missing at the end. block_seq : of the last block, 0 = there is none."""
    problems = []
    try:
        known = int(ledger.state("signed") or -1)
    except (LedgerError, ValueError):
        known = -1  # the check of the chain has named it
    if known > head:
        problems.append(IntegrityProblem(head, f"is the last; up to entry {known} was signed, so the tail was cut off"))
    elif known >= 0 and known + 1 > block_seq:
        problems.append(IntegrityProblem(known + 1, f"the block that signed up to entry {known} is missing"))
    unsigned = head - block_seq + (block_seq == 0)
    if (must_sign or known >= 0) and block_seq == 0:
        problems.append(IntegrityProblem(head, f"nothing is signed: none of {unsigned} entries lies before a block"))
    elif must_sign and unsigned > UNSIGNED_MAX:
        said = f"{unsigned} entries behind the last block are not signed; a device leaves at most {UNSIGNED_MAX}"
        problems.append(IntegrityProblem(head, said))
    return problems


class _Line:
    """The periods that are in force, in the order of time: their stocks must join, their carbon must balance."""

    def __init__(self) -> None:
        self._last = -1
        self._known: dict[int, tuple[int, dict[str, tuple[int, int, int, int]]]] = {}  # start -> seq, stocks

    def add(self, entry: Entry[PeriodBody]) -> str | None:
        """Take a period in; say what is wrong with it by itself."""
        body, start = entry.body, entry.start_utc_s
        before = self._known.get(start)
        self._known[start] = (
            entry.seq,
            {
                name: (s["opening_milliwh"], s["opening_ug"], s["energy_milliwh"], s["ug"])
                for name, s in body["stock"].items()
            },
        )
        if body["start_utc_s"] != start:
            return "its row and its body name different periods"
        replaces = body.get("replaces")
        if replaces is None:
            if start <= self._last:
                return f"period {start} does not follow period {self._last}"
            self._last = start
        elif before is None or before[0] != replaces:
            return f"it replaces entry {replaces}, which is not the one in force for period {start}"
        error = period_error_ug(body)
        return f"carbon does not balance: {error} ug" if error else None

    def breaks(self) -> list[IntegrityProblem]:
        """Where a stock does not open as the period before closed."""
        found = []
        closing: dict[str, tuple[int, int, int, int]] = {}
        for _, (seq, stocks) in sorted(self._known.items()):
            for name, stock in stocks.items():
                if name in closing and closing[name][2:] != stock[:2]:
                    found.append(IntegrityProblem(seq, f"stock {name} does not open where the period before closed"))
            closing = stocks
        return found
