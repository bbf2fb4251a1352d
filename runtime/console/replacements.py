"""`meter exchange`, `meter range` and `key changed`: what was replaced at the cabinet, said there and signed later."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tidegate.config.quantities import split_unit
from tidegate.runtime.console.flow import Dialogue, Flow, Refusal, ask
from tidegate.runtime.console.grammar import GrammarError
from tidegate.runtime.console.login import Named, confirm
from tidegate.runtime.findings.text import clean

if TYPE_CHECKING:
    from tidegate.runtime.console.session import Session

UNITS = {"kwh": "kWh", "mwh": "MWh", "wh": "Wh", "m3": "m3", "l": "L"}
REASON_MAX = 120


def reading(word: str) -> tuple[str, str]:
    """("413.5", "kWh") out of 413.5kWh. Raises GrammarError."""
    digits, unit = ("", "m3") if word.lower().endswith("m3") else split_unit(word)
    digits = word[:-2] if unit == "m3" else digits
    whole, _, part = digits.partition(".")
    if unit not in UNITS or not whole.isdecimal() or (part and not part.isdecimal()) or digits.endswith("."):
        raise GrammarError(f"{word!r}: expected a reading with its unit, such as 413.5kWh or 900m3")
    return digits, UNITS[unit]


def moment(text: str, now_s: float) -> int:
    """UTC seconds of 2026-03-14T10:20Z, or now for nothing. Raises Refusal."""
    if not text.strip():
        return int(now_s)
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise Refusal(f"{clean(text)[:40]!r}: expected a time such as 2026-03-14T10:20Z; nothing was done")
    if found.timestamp() > now_s:
        raise Refusal(f"{clean(text)[:40]} lies before us; nothing was done")
    return int(found.astimezone(UTC).timestamp())


def _reason() -> Dialogue[str]:
    text = ((yield from ask("Why (stands in the ledger): ")) or "").strip()
    if not text:
        raise Refusal("without a reason nothing is entered")
    return clean(text)[:REASON_MAX]


def exchange(session: "Session", named: Named) -> Flow:
    """A meter was replaced: the closing reading of the old one, the opening reading of the new one."""
    closing, unit = reading(named["CLOSING"])
    opening, other = reading(named["OPENING"])
    if unit != other:
        raise GrammarError(f"{named['CLOSING']} and {named['OPENING']}: both in one unit")
    meter, quantity = named["METER"], named.get("QUANTITY", "")
    at_utc_s = moment((yield from ask("When, as 2026-03-14T10:20Z (Enter: now): ")) or "", time.time())
    reason = yield from _reason()
    when = datetime.fromtimestamp(at_utc_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield from confirm(
        session,
        f"{clean(meter)} {clean(quantity)} was replaced at {when}: the old meter closed at {closing} {unit}, the new "
        f"one opened at {opening} {unit}.",
        "It is entered into the signed ledger under your name; the periods between are booked anew.",
    )
    _put(session, what="exchange", meter=meter, quantity=quantity, unit=unit, closing=closing, opening=opening,
         at_utc_s=at_utc_s, reason=reason)  # fmt: skip


def range_(session: "Session", named: Named) -> Flow:
    """Where the register of a meter that comes by file begins at 0 again."""
    end, unit = reading(named["END"])
    reason = yield from _reason()
    yield from confirm(session, f"The register of {clean(named['METER'])} begins at 0 again at {end} {unit}.")
    _put(session, what="range", meter=named["METER"], quantity=named["QUANTITY"], unit=unit, closing=end,
         reason=reason)  # fmt: skip


def key_changed(session: "Session", named: Named) -> Flow:
    """The device signs with another key from here on."""
    reason = yield from _reason()
    yield from confirm(
        session,
        "The ledger goes on under the key that this device has now; each verification names the change and you.",
        "Nobody of before signs it: where the old key is left, `tidegate carbon key change` is better.",
    )
    _put(session, what="key", reason=reason)
    session.echo("the carbon sidecar takes it in at its start: `tidegate restart`")


def _put(session: "Session", **said: object) -> None:
    answer = session.command("account", **said)
    session.echo(f"{answer.status}: in the journal; the sidecar enters it once the readings it needs are booked.")
    session.echo("`log` shows what became of it, `tidegate carbon verify` that it stands.")
