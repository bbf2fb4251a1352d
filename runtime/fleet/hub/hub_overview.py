"""All sites of a hub as a person needs them: what is worst first, each with its reasons. Pure but for two queries."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import psycopg

Connection = psycopg.Connection[tuple[object, ...]]
SILENT_S, CLOCK_OFF_S, CERTIFICATE_S = 15 * 60, 60, 30 * 86_400
HIGH, MEDIUM, LOW, FINE = "high", "medium", "low", "fine"
ORDER = (HIGH, MEDIUM, LOW, FINE)
ALARMS_MAX, EVENTS_MAX, MINUTES_MAX = 500, 100, 1440


class Reason(NamedTuple):
    """Why a site stands where it stands. key : one of those below; text : the site's or the hub's own words."""

    priority: str
    key: str
    text: str = ""
    value: int = 0


class SiteState(NamedTuple):
    """A site, as the page lists it."""

    site: str
    owner: str
    region: str
    latitude_udeg: int | None
    longitude_udeg: int | None
    entries: int
    seen_utc_s: int
    now: Mapping[str, object]
    clock_off_s: int | None
    reasons: Sequence[Reason]
    has_condition: bool

    @property
    def priority(self) -> str:
        return min((one.priority for one in self.reasons), key=ORDER.index, default=FINE)


QUERY = """
SELECT s.site, coalesce(p.owner, ''), coalesce(p.region, ''), p.latitude_udeg, p.longitude_udeg, s.seq, s.heard_utc_s,
    s.said, s.ahead_s, c.now, c.heard_utc_s, c.clock_off_s,
    (SELECT count(*) FROM fleet_letters l WHERE l.site = s.site)
FROM fleet_sites s LEFT JOIN fleet_places p ON p.site = s.site LEFT JOIN fleet_conditions c ON c.site = s.site
"""


def overview(connection: Connection, now_s: int, priority_of: Callable[[str], str]) -> list[SiteState]:
    """Every site, the worst first, then by name. priority_of : of an alarm's reaction."""
    found = [_state(row, now_s, priority_of) for row in connection.execute(QUERY)]
    return sorted(found, key=lambda one: (ORDER.index(one.priority), -len(one.reasons), one.site))


def _state(row: Sequence[object], now_s: int, priority_of: Callable[[str], str]) -> SiteState:
    site, owner, region, latitude, longitude, seq, heard, said, ahead, now_text, now_heard, off, letters = row
    now = _object(now_text)
    seen = max(_int(heard), _int(now_heard))
    reasons: list[Reason] = []
    if said:
        reasons.append(Reason(HIGH, "finding", str(said)))
    elif _int(letters):
        reasons.append(Reason(LOW, "letters", value=_int(letters)))
    for alarm in alarms_of(now):
        text = str(alarm.get("text") or alarm.get("id") or "?")
        reasons.append(Reason(_known(priority_of(str(alarm.get("reaction", "")))), "alarm", text))
    if not seen:
        reasons.append(Reason(MEDIUM, "never"))
    elif now_s - seen > SILENT_S:
        reasons.append(Reason(HIGH, "silent", value=now_s - seen))
    elif now_heard is not None and now_s - _int(now_heard) > SILENT_S:
        reasons.append(Reason(MEDIUM, "condition", value=now_s - _int(now_heard)))
    if off is not None and now and abs(_int(off)) > CLOCK_OFF_S:
        reasons.append(Reason(MEDIUM, "clock", value=_int(off)))
    elif now.get("utc_sync") == "U":
        reasons.append(Reason(LOW, "unset"))
    if _int(ahead):
        reasons.append(Reason(MEDIUM, "ahead", value=_int(ahead)))
    until = now.get("certificate_until_utc_s")
    if isinstance(until, int) and until - now_s < CERTIFICATE_S:
        reasons.append(Reason(MEDIUM if until < now_s else LOW, "certificate", value=until - now_s))
    return SiteState(
        str(site), str(owner), str(region), None if latitude is None else _int(latitude),
        None if longitude is None else _int(longitude), _int(seq) + 1, seen, now,
        None if off is None else _int(off), sorted(reasons, key=lambda one: ORDER.index(one.priority)),
        now_heard is not None,
    )  # fmt: skip


def alarms_of(now: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The alarms of a condition; whatever else a site sent there is none."""
    held = now.get("alarms")
    return [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []


def _known(priority: str) -> str:
    return priority if priority in ORDER else LOW


def _object(text: object) -> Mapping[str, object]:
    try:
        found = json.loads(str(text)) if text is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def one_site(connection: Connection, site: str) -> dict[str, object] | None:
    """What lies at the hub of one site: its key and head, newest events, minutes of a day, letters. None : unknown."""
    row = connection.execute(
        "SELECT key, named, seq, hash, block_seq, enrolled_utc_s FROM fleet_sites WHERE site = %s", (site,)
    ).fetchone()
    if row is None:
        return None
    events = connection.execute(
        "SELECT start_utc_s, kind, body FROM fleet_events WHERE site = %s ORDER BY start_utc_s DESC, seq DESC LIMIT %s",
        (site, EVENTS_MAX),
    ).fetchall()
    minutes = connection.execute(
        "SELECT start_utc_s, body FROM fleet_minutes WHERE site = %s ORDER BY start_utc_s DESC LIMIT %s",
        (site, MINUTES_MAX),
    ).fetchall()
    letters = connection.execute(
        "SELECT id, seq, kind, what, last_utc_s, times FROM fleet_letters WHERE site = %s ORDER BY last_utc_s DESC",
        (site,),
    ).fetchall()
    names = ("key", "named", "last_seq", "root", "block_seq", "enrolled_utc_s")
    return {
        "ledger": dict(zip(names, row, strict=True)),
        "events": [[at, kind, _object(body)] for at, kind, body in events],
        "minutes": [[at, _object(body)] for at, body in reversed(minutes)],
        "letters": [list(one) for one in letters],
    }
