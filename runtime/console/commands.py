"""All that can be typed, in one table."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tidegate.config.quantities import seconds
from tidegate.config.site import SiteError
from tidegate.runtime.console import actions, login, replacements
from tidegate.runtime.console.bus_views import bus_lines, latency_lines
from tidegate.runtime.console.flow import Flow, Live, Refusal, Terminal
from tidegate.runtime.console.grammar import Form, Grammar, GrammarError
from tidegate.runtime.console.login import Named, confirm
from tidegate.runtime.console.siteedit import EditError, Staged, not_idle
from tidegate.runtime.console.status import status_lines
from tidegate.runtime.console.views import (
    FAULT_EVENTS,
    LOG_COUNT,
    alarm_lines,
    log_lines,
    matching,
    point_lines,
    trend_lines,
    watch_lines,
    why_lines,
)

if TYPE_CHECKING:
    from tidegate.runtime.console.session import Session

WATCH_MAX = 20


def fresh(session: "Session") -> None:
    """Look at the site now. Raises Refusal while nothing is known of it."""
    session.plant.poll(force=True)
    if session.plant.silent:
        session.echo(f"! the gateway does not answer; what follows is old: {session.plant.silent}")
    if not session.plant.described:
        raise Refusal("nothing is known of the site yet; is it running? (tidegate run SITE)")


def background_words(session: "Session") -> str:
    """What goes on beside the commands, as a few words."""
    return session.background.words if session.background is not None else ""


def status(session: "Session", named: Named) -> Flow:
    fresh(session)
    yield Live(lambda: status_lines(session.plant, session.who, background_words(session), session.clock()))


def status_once(session: "Session", named: Named) -> Flow:
    fresh(session)
    session.echo(*status_lines(session.plant, session.who, background_words(session), session.clock()))
    yield from ()


def lines_of(view: Callable[["Session", Named], list[str]]) -> Callable[["Session", Named], Flow]:
    """A command that shows what a view of the plant gives."""

    def run(session: "Session", named: Named) -> Flow:
        fresh(session)
        session.echo(*view(session, named))
        yield from ()

    return run


def watch(session: "Session", named: Named) -> Flow:
    fresh(session)
    names = matching(session.plant, named["PATTERN"])
    if not names:
        raise Refusal(f"no point matches {named['PATTERN']!r}")
    if len(names) > WATCH_MAX:
        raise Refusal(f"{len(names)} points match {named['PATTERN']!r}, at most {WATCH_MAX} fit the screen")
    yield Live(lambda: watch_lines(session.plant, names))


def count_of(word: str) -> int:
    if not word.isdigit() or not 1 <= int(word) <= 1000:
        raise GrammarError(f"{word!r}: expected a number from 1 to 1000")
    return int(word)


def term(session: "Session", named: Named) -> list[str]:
    what, more = named["WHAT"], named.get("MORE", "")
    terminal = session.terminal
    if what in ("vt100", "dumb"):
        session.terminal = session.place.terminal = Terminal(
            what == "vt100", terminal.rows, terminal.columns, terminal.pager, chosen=True
        )
    elif what == "size":
        columns, _, rows = more.partition("x")
        if not (columns.isdigit() and rows.isdigit() and 20 <= int(columns) <= 500 and 4 <= int(rows) <= 500):
            raise GrammarError(f"{more!r}: expected a size such as 80x24")
        terminal.columns, terminal.rows, terminal.chosen = int(columns), int(rows), True
    elif what == "pager" and more in ("on", "off"):
        terminal.pager = more == "on"
    else:
        raise GrammarError("expected: term vt100 | term dumb | term size 80x24 | term pager on|off")
    now = session.terminal
    kind = "vt100" if now.vt100 else "dumb"
    return [f"{kind}, {now.columns} x {now.rows}, pager {'on' if now.pager else 'off'}"]


def help_(session: "Session", named: Named) -> list[str]:
    rows = session.grammar.help("", session.may)
    width = min(34, max(len(form) for form, _ in rows))
    return [
        *(f"  {form:<{width}}  {text}" for form, text in rows),
        "",
        "Tab completes, ? behind a word says what can follow, up and down recall, Ctrl-C gives up.",
    ]


# ---- the site file ----


def staged(session: "Session") -> Staged:
    """The site file in the making; begins one. Raises Refusal."""
    if session.place.site is None:
        raise Refusal("this console was started without a site file, so there is none to show")
    if session.staged is None:
        try:
            session.staged = Staged(session.place.site)
        except SiteError as why:
            raise Refusal("; ".join(why.problems)) from None
    made: Staged = session.staged
    return made


def config_show(session: "Session", named: Named) -> list[str]:
    made = Staged(session.place.site) if session.staged is None and session.place.site else staged(session)
    return made.show(named.get("SECTION", ""))


def config_set(session: "Session", named: Named) -> list[str]:
    made = staged(session)
    try:
        made.set(named["KEY"], named["VALUE"])
    except EditError as why:
        raise Refusal(str(why)) from None
    return [*made.diff(), "staged only: config check, then config apply"]


def config_diff(session: "Session", named: Named) -> list[str]:
    return staged(session).diff() or ["nothing is staged"]


def config_check(session: "Session", named: Named) -> list[str]:
    made = staged(session)
    problems = made.problems()
    if problems:
        return [f"{made.path.name}: {problem}" for problem in problems]
    wider = made.wider()
    verdict = f"wider or other than a limit: {', '.join(wider)}; needs the cabinet idle" if wider else "only tighter"
    return ["good", verdict if made.changed else "nothing is staged"]


def config_drop(session: "Session", named: Named) -> list[str]:
    session.staged = None
    return ["dropped; the file is as it was"]


def config_apply(session: "Session", named: Named) -> Flow:
    made = staged(session)
    if not made.changed:
        raise Refusal("nothing is staged")
    problems = made.problems()
    if problems:
        raise Refusal(f"not applied: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    wider = made.wider()
    if wider:
        must_be_idle(session, wider)
    can_restart = session.place.restart is not None
    yield from confirm(
        session,
        *made.diff(),
        f"Written to {made.path}; the old one stays beside it as {made.path.name}.previous.",
        "The site then restarts: the power goes to zero and comes back within seconds."
        if can_restart
        else "In force from the next start of the site (`tidegate restart`).",
    )
    if wider:
        must_be_idle(session, wider)
    keys = made.changed_keys
    try:
        made.apply()
    except SiteError as why:
        raise Refusal(f"not applied: {why.problems[0]}") from None
    except OSError as why:
        raise Refusal(f"not applied, the old file stands: {why.strerror}") from None
    session.note("config", f"{made.path.name} changed {keys}".strip())
    session.staged = None
    session.echo("written")
    if session.place.restart is not None:
        session.echo("the site restarts now" if session.place.restart() else "in force after `tidegate restart`")


def must_be_idle(session: "Session", wider: list[str]) -> None:
    """Raises Refusal unless the battery stands still by order or by trip."""
    session.plant.poll(force=True)
    if session.plant.silent:
        raise Refusal(f"not applied: whether the cabinet is idle is not known ({session.plant.silent})")
    why = session.plant.now.why
    wrong = not_idle(wider, why.mode, why.setpoint_w, why.ess_w)
    if wrong:
        raise Refusal(wrong)


# ---- the table ----


def _limit(side: str) -> Callable[["Session", Named], list[str]]:
    return lambda session, named: actions.limit(session, {**named, "SIDE": side})


FORMS = (
    Form("help", "this list", "", help_),
    Form("login [USER]", "log in; makes the first user where there is none", "", login.login),
    Form("stop", "power to zero, and stay there; needs no login", "", actions.stop),
    Form("status", "the cabinet on one screen, live; any key ends", "read", status),
    Form("status once", "the same as lines", "read", status_once),
    Form("alarms", "what is wrong, what came first, the cause", "read", lines_of(lambda s, n: alarm_lines(s.plant))),
    Form(
        "alarms history [COUNT]",
        "alarms that came and went",
        "read",
        lines_of(lambda s, n: log_lines(s.plant, count_of(n.get("COUNT", str(LOG_COUNT))), FAULT_EVENTS)),
    ),
    Form("why", "why the setpoint is what it is", "read", lines_of(lambda s, n: why_lines(s.plant))),
    Form(
        "points [PATTERN]",
        "values with quality and age",
        "read",
        lines_of(lambda s, n: point_lines(s.plant, n.get("PATTERN", ""))),
    ),
    Form("watch PATTERN", "a few points, live", "read", watch),
    Form(
        "trend POINT [TIME]",
        "the last minutes of a point as a plot",
        "read",
        lines_of(lambda s, n: trend_lines(s.plant, n["POINT"], seconds(n.get("TIME", "5min")))),
    ),
    Form("bus", "lines and slaves, CAN ids: share, times, errors", "read", lines_of(lambda s, n: bus_lines(s.plant))),
    Form("latency", "how late cycles were, and when", "read", lines_of(lambda s, n: latency_lines(s.plant))),
    Form(
        "log [COUNT]",
        "the newest events",
        "read",
        lines_of(lambda s, n: log_lines(s.plant, count_of(n.get("COUNT", str(LOG_COUNT))))),
    ),
    Form("limit import POWER for TIME", "a tighter import limit for a time", "operate", _limit("import")),
    Form("limit export POWER for TIME", "a tighter export limit for a time", "operate", _limit("export")),
    Form("lock REASON", "stop, and lock out under your name, as busbar-work", "operate", actions.lock),
    Form("unlock [USER]", "take a lock off, yours or that of USER", "operate", actions.unlock),
    Form("control PLACE", "take orders at PLACE: local or remote", "maintain", actions.control),
    Form("arm", "lift a stop and leave the tripped state", "operate", actions.arm),
    Form("ack", "acknowledge latched alarms whose cause is gone", "maintain", actions.ack),
    Form("manual off", "end manual power", "maintain", actions.manual_off),
    Form("manual POWER [TIME]", "battery power by hand, + discharges", "maintain", actions.manual),
    Form("test step POWER [TIME]", "a step, and what the plant made of it", "maintain", actions.test_step),
    Form("record", "keep the last minutes as a recording", "operate", actions.record),
    Form("config show [SECTION]", "the site file", "read", config_show),
    Form("config set KEY VALUE", "stage a change, as control.peak_w_max 40000", "maintain", config_set),
    Form("config diff", "what is staged", "read", config_diff),
    Form("config check", "whether it is sound, and tighter", "read", config_check),
    Form("config apply", "write it; when idle, or only tighter", "maintain", config_apply),
    Form("config drop", "forget what is staged", "maintain", config_drop),
    Form("meter exchange METER CLOSING OPENING", "a flow's meter was replaced", "maintain", replacements.exchange),
    Form("meter exchange METER QUANTITY CLOSING OPENING", "one by file", "maintain", replacements.exchange),
    Form("meter range METER QUANTITY END", "where its register begins anew", "maintain", replacements.range_),
    Form("key changed", "the device has another key", "maintain", replacements.key_changed),
    Form("user list", "who may log in", "maintain", login.users),
    Form("user add USER ROLE", "a user, or a new role and password", "maintain", login.user_add),
    Form("user remove USER", "take a user's right", "maintain", login.user_remove),
    Form("passwd", "your own password", "read", login.passwd),
    Form("term WHAT [MORE]", "vt100, dumb, size 80x24, pager off", "", term),
    Form("logout", "end the login", "", login.logout),
    Form("exit", "end the login, and in a terminal the console", "", login.leave),
)


def grammar() -> Grammar:
    return Grammar(FORMS)
