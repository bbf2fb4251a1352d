"""Sentences that ledgers, readers and indicators wrote in English, as a report says them in its own language.

What has numbers or names in it is a template: {name} stands for what was filled in, {list} for known words with commas.
"""

import re
from functools import cache

from tidegate.runtime.carbon.report.language import N_, Language

SENTENCES = (
    N_("no readings"),
    N_("no IT energy"),
    N_("no site energy"),
    N_("no storage unit"),
    N_("no certificates were given"),
    N_("no carbon-free share of the grid (factors of kind cfe)"),
    N_("no renewable generation is metered"),
    N_("no renewable generation is metered and no certificates were given"),
    N_("metered: import and generation less export and change of storage"),
    N_("metered"),
    N_("by difference"),
    N_("metered: generators of the site"),
    N_("cancelled guarantees of origin, as given"),
    N_("cancelled, from power purchase agreements, as given"),
    N_("own renewable generation that loads used, storage included"),
    N_("usable energy of the storage units by the site file"),
    N_("declared by the operator"),
    N_("own generation"),
    N_("guarantees of origin"),
    N_("power purchase agreements"),
    N_("IT by difference, no category"),
    N_("annual"),
    N_("held power"),
    N_("like day"),
    N_("conservative bound, high"),
    N_("conservative bound, low"),
    N_("nameplate of the connection, high"),
    N_("nothing measured before and no nameplate, low"),
    N_("no price is known; money is 0"),
    N_("rests shorter than 30 minutes are not used"),
    N_("one card cannot be switched off alone; its saving is that of its server"),
    N_("energy as PDU, server and card counted it, not scaled to the meter"),
    N_("{time}: no actual yet, forecast used"),
    N_("{n} slot(s) missing from {time}: held"),
    N_("{time}: no value; held"),
    N_("{time}: a source is blank; held"),
    N_("sum of {list}"),
    N_("readings of {meters}"),
    N_("{file}, line {n}"),
    N_("lasts 0 s"),
    N_("lasts {n} days"),
    N_("ends {n} s before it starts"),
    N_("starts at {time}: the clock was not set"),
    N_("a negative amount of work"),
    N_("overlaps with the same job at {file}"),
    N_("{file}: job {job} {why}; it is not counted"),
    N_(
        "{n} job(s), the first {job} at {file}, name no load while others do, and are under unplaced; map "
        "their hosts to loads"
    ),
    N_("node {node}: no such load (known: {loads}); {n} job(s), the first {job} at {file}, are under unplaced"),
    N_("{time}: {new} agrees with {old}"),
    N_("{time}: {node}: idle {kwh} by {new}, {other_kwh} by {old}"),
    N_("{time}: {node}: unplaced {kwh} by {new}, {other_kwh} by {old}"),
    N_("{time}: {n} jobs with {kwh} are in {new} and not in {old}: {jobs}"),
    N_("{time}: job {job}: {kwh} by {new}, {other_kwh} by {old}"),
    N_("{time}: {n} more jobs differ"),
    N_("telemetry: {node}: nothing was seen for {hours} h of the day from {time}; what was drawn then is under idle"),
    N_("telemetry: {n} pods and jobs with {kwh} kWh on {loads}; the jobs that were pushed for it count"),
    N_("{node} {kind}: no register; booked from the fast power"),
    N_("{device}: a second grid meter; the first one counts"),
    N_("{device}: storage lies behind this circuit; it guards and is no load of its own"),
    N_("{count} servers and PDUs are not judged: nobody says what runs there"),
    N_("{kwh} kWh of servers and racks were drawn while nobody said what ran there; they are not judged"),
    N_("a server that is off still draws {w} W; a rack that much for each host known in it"),
    N_("it takes {minutes} minutes to work again, at the power that it rests at"),
    N_("pods of {names} are no work"),
)
_FIELD = re.compile(r"\\\{([a-z_]+)\\\}")


def _pattern(field: re.Match[str]) -> str:
    """What may stand in a field: a count is digits, anything else is text."""
    return rf"(?P<{field[1]}>{'[0-9]+' if field[1] in ('n', 'count') else '.+?'})"


@cache
def _templates() -> tuple[tuple[str, re.Pattern[str]], ...]:
    found = []
    for sentence in SENTENCES:
        if "{" in sentence:
            found.append((sentence, re.compile(_FIELD.sub(_pattern, re.escape(sentence)), re.DOTALL)))
    return tuple(found)


def written(language: Language, text: str) -> str:
    """A sentence in a language; one that nobody translated stays as it was written."""
    said = language.text(text)
    if said != text:
        return said
    for sentence, pattern in _templates():
        match = pattern.fullmatch(text)
        if match is not None:
            fields = match.groupdict()
            if "list" in fields:
                fields["list"] = ", ".join(written(language, part) for part in fields["list"].split(", "))
            fields |= {key: written(language, fields[key]) for key in ("why", "file") if key in fields}
            return language.text(sentence).format(**fields)
    name, colon, rest = text.partition(": ")
    if colon:
        said = written(language, rest)
        return f"{language.text(name)}: {said}" if said != rest else text
    return text
