"""Is what a site sends the next part of its ledger, whole and signed by its key? Pure: rows in, a finding out.

| finding | when |
|---|---|
| withheld | the first new entry does not follow the last one that is here |
| reordered | the entries of a batch do not follow each other |
| flipped | an entry's hash is not that of what is in it and before it |
| forked | an entry that is here already comes again and is another one |
| foreign | of another site, or signed by another key than the one enrolled |
| unbalanced | a period's carbon or a settlement's energy does not add up |
| unsigned | no block behind the last entries: nobody answers for them |
| restored | the site went on from a backup, and says so: a person decides |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from tidegate.runtime.carbon.ledger.bodies import current, period_error_ug, settlement_error
from tidegate.runtime.carbon.ledger.ledger import GENESIS, chain
from tidegate.runtime.carbon.ledger.signing import check_block, check_key
from tidegate.runtime.fleet.ledger_batch import Row


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a site's ledger is here. seq, hash : of the last entry; block_seq : of the last block, 0 = none.

    key : public key, hex, that signs from here on. named : what the site is called in its blocks from here on.
    """

    key: str
    named: str
    seq: int = -1
    hash: str = GENESIS
    block_seq: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it must be: the kind of the table above, the entry, and a sentence."""

    kind: str
    seq: int
    what: str

    def __str__(self) -> str:
        return f"entry {self.seq}: {self.kind}: {self.what}"


def take(mark: Mark, rows: Sequence[Row], held: Callable[[int], str | None]) -> tuple[list[Row], Mark, Finding | None]:
    """(entries to keep, mark behind them, what is wrong with the next).

    held : hash of an entry that is here already, None if it is not.
    Nothing behind the last good block is kept, so that a finding never costs what was good before it.
    """
    new: list[Row] = []
    for row in rows:
        if row.seq > mark.seq:
            new.append(row)
        elif held(row.seq) != row.hash:
            return [], mark, _fork(row)
    if not new:
        return [], mark, None
    if new[0].seq != mark.seq + 1:
        return [], mark, Finding("withheld", new[0].seq, f"entries {mark.seq + 1} to {new[0].seq - 1} did not come")
    at, good, good_mark = mark, 0, mark
    for index, row in enumerate(new):
        if row.seq != at.seq + 1:
            return new[:good], good_mark, Finding("reordered", row.seq, f"comes behind entry {at.seq}")
        at, finding = _next(at, row)
        if finding is not None:
            return new[:good], good_mark, finding
        if row.kind == "block":
            good, good_mark = index + 1, at
    finding = None if good == len(new) else Finding("unsigned", new[good].seq, "no block behind it in its batch")
    return new[:good], good_mark, finding


def _fork(row: Row) -> Finding:
    if row.kind == "restored":
        body = _body(row)
        said = f"by {body.get('author')}: {body.get('reason')}" if body else "and does not say by whom"
        return Finding("restored", row.seq, f"the site went on from a backup here, {said}")
    return Finding("forked", row.seq, "is here already, and is another one")


def _body(row: Row) -> dict[str, object] | None:
    try:
        body = current(row.kind, msgspec.json.decode(row.body))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return body if isinstance(body, dict) else None


def _next(mark: Mark, row: Row) -> tuple[Mark, Finding | None]:
    """The mark behind an entry, or what is wrong with it."""
    if chain(mark.hash, row.seq, row.kind, row.start_utc_s, row.body) != row.hash:
        return mark, Finding("flipped", row.seq, "its hash is not that of what is in it and before it")
    after = replace(mark, seq=row.seq, hash=row.hash)
    if row.kind not in ("open", "block", "key", "renamed", "period", "job"):
        return after, None
    body = _body(row)
    if body is None:
        return mark, Finding("flipped", row.seq, "its body cannot be read")
    try:
        return _with_body(mark, after, row, body)
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        return mark, Finding("flipped", row.seq, f"its body lacks something ({why!r})")


def _with_body(mark: Mark, after: Mark, row: Row, body: dict[str, object]) -> tuple[Mark, Finding | None]:
    if row.kind == "open":
        if body["site"] != mark.named:
            return mark, Finding("foreign", row.seq, f"the ledger of {body['site']!r}, enrolled is {mark.named!r}")
        return after, None
    if row.kind == "block":
        if body["site"] != mark.named:
            return mark, Finding("foreign", row.seq, f"a block of {body['site']!r}, the site is {mark.named!r}")
        wrong = check_block(body, row.seq, mark.hash, mark.block_seq, mark.key)  # type: ignore[arg-type]
        return (
            (replace(after, block_seq=row.seq), None) if wrong is None else (mark, Finding("foreign", row.seq, wrong))
        )
    if row.kind == "key":
        wrong = check_key(body, mark.key)  # type: ignore[arg-type]
        if wrong is None and not body["by_old"]:
            wrong = f"key changed to {str(body['new'])[:16]}... without a word of the old key; enrol the new one"
        return (
            (replace(after, key=str(body["new"])), None)
            if wrong is None
            else (mark, Finding("foreign", row.seq, wrong))
        )
    if row.kind == "renamed":
        if body["old"] != mark.named:
            return mark, Finding("foreign", row.seq, f"renamed from {body['old']!r}, the site is {mark.named!r}")
        return replace(after, named=str(body["new"])), None
    if row.kind == "period":
        error_ug = period_error_ug(body)  # type: ignore[arg-type]
        return (
            (after, None) if not error_ug else (mark, Finding("unbalanced", row.seq, f"carbon is off by {error_ug} ug"))
        )
    said = settlement_error(body)  # type: ignore[arg-type]
    return (after, None) if said is None else (mark, Finding("unbalanced", row.seq, said))
