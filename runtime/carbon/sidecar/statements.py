"""What people say at the console of meters and of the device's key, entered into the ledger by its one writer.

It comes through the gateway's journal with the name of whoever said it, and waits here, over restarts, until the
register readings that it needs are booked. What cannot be entered is a note of the ledger with the reason.
"""

from tidegate.runtime.carbon.engine.corrections import CorrectionError
from tidegate.runtime.carbon.factors.series import FactorError, iso
from tidegate.runtime.carbon.jobs.pushed import Jobs, Pushed, Statement, statement_of
from tidegate.runtime.carbon.ledger.bodies import MeterBody
from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError
from tidegate.runtime.carbon.ledger.signing import change_key
from tidegate.runtime.carbon.readings.changes import NotYet, exchanged, record_change
from tidegate.runtime.carbon.readings.readings import scaled
from tidegate.runtime.state.device_key import DeviceKey

WAIT_S = 7 * 86_400  # for the readings that a replacement needs; a meter may be out for some days


def enter(pushed: Pushed, key: DeviceKey | None, closed_until_utc_s: int) -> list[str]:
    """Enter what can be entered by now. -> a line for each that is done with. Raises LedgerError for the ledger's own.

    closed_until_utc_s : every period before it is booked.
    """
    told = []
    for said in list(pushed.statements):
        try:
            line = _entered(pushed.ledger, said, key)
        except NotYet as why:
            if closed_until_utc_s < max(said["at_utc_s"], said["said_utc_s"]) + WAIT_S:
                continue
            line = _refused(pushed.ledger, said, why)
        except (CorrectionError, FactorError) as why:
            line = _refused(pushed.ledger, said, why)
        pushed.entered(said)
        told.append(line)
    return told


def take_over(pushed: Pushed, client: Jobs, key: DeviceKey) -> str:
    """Before the ledger is claimed with another key: whether somebody at the site said so. -> a line, "" = nobody did.

    Nothing else is taken in: it may be the ledger of another unit. client : has replay(stream, boot, seq, count).
    Raises LedgerError.
    """
    found = [statement_of(one) for rows in pushed.records(client) for one in rows if "account" in one]
    changes = [one for one in [*pushed.statements, *found] if one["what"] == "key"]
    return _new_key(pushed.ledger, changes[-1], key) if changes else ""


def _entered(ledger: Ledger, said: Statement, key: DeviceKey | None) -> str:
    """Raises NotYet, CorrectionError, FactorError."""
    what, meter, quantity, at = said["what"], said["meter"], said["quantity"], said["at_utc_s"]
    by = (said["author"], said["reason"])
    if what == "key":
        if key is None:
            raise FactorError("this ledger is not signed")
        changes = [entry.body for entry in ledger.entries("key")]
        if changes and (changes[-1]["new"], changes[-1]["author"]) == (key.public, said["author"]):
            return f"key change to {key.public[:16]}... stands in the ledger"  # entered at the start
        try:
            return _new_key(ledger, said, key)
        except LedgerError as why:
            raise FactorError(str(why)) from None
    if quantity:
        closing, opening = (scaled(said[side], quantity, said["unit"], side) for side in ("closing", "opening"))
        if not _stands(ledger, what, meter, quantity, at, closing, opening):
            record_change(ledger, what, meter, quantity, said["unit"], said["closing"], said["opening"], at, *by)
        return f"{meter} {quantity}: {what} entered, said by {by[0]}"
    if what == "range":
        raise FactorError(f"{meter}: a range is said of a meter by file; of a flow it is [carbon] register_range_kwh")
    closing, opening = (scaled(said[side], "energy-import", said["unit"], side) for side in ("closing", "opening"))
    if _stands(ledger, what, meter, "flow", at, closing, opening):
        return f"{meter}: {what} stands in the ledger"
    done = exchanged(ledger, meter, at, closing, opening, *by)
    return f"{meter}: {what} at {iso(at)} entered, {done.periods} periods booked anew, said by {by[0]}"


def _new_key(ledger: Ledger, said: Statement, key: DeviceKey) -> str:
    body = change_key(ledger, ledger.named() or "", key, said["author"], said["reason"])
    return f"key changed to {body['new'][:16]}..., said by {said['author']}"


def _stands(ledger: Ledger, what: str, meter: str, quantity: str, at: int, closing: int, opening: int) -> bool:
    """Whether the very same was entered before: a power cut may have come between the entry and the cursor."""
    wanted = (what, meter, quantity, at, closing, opening)
    for entry in ledger.entries("meter"):
        body: MeterBody = entry.body
        found = (body["what"], body["meter"], body["quantity"], body["at_utc_s"], body["closing"], body["opening"])
        if found == wanted:
            return True
    return False


def _refused(ledger: Ledger, said: Statement, why: Exception) -> str:
    line = f"{said['what']} of {said['meter'] or 'the key'}, said by {said['author']}: not entered: {why}"
    ledger.append([("note", 0, {"v": 1, "what": line})])
    return line
