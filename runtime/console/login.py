"""Login, logout, users and passwords."""

import time
from typing import TYPE_CHECKING

from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.console.flow import CONFIRM_S, Dialogue, Flow, Refusal, ask
from tidegate.runtime.findings.text import clean, span

if TYPE_CHECKING:
    from tidegate.runtime.console.session import Session
    from tidegate.runtime.console.users import User

Named = dict[str, str]


def confirm(session: "Session", *effect: str) -> Flow:
    """Show what would happen and ask for the cabinet's name: on the wrong cabinet the name is another one.

    Raises Refusal unless the name is typed within 30 s.
    """
    name = session.plant.name
    if not name:
        raise Refusal("the gateway has not told the cabinet's name: nothing was done")
    session.echo(*effect)
    word = yield from ask("Cabinet's name, to do it: ", time_s=CONFIRM_S)
    if word is None:
        raise Refusal("nothing was done")
    if word.strip() != name:
        raise Refusal(f"this cabinet has another name than {clean(word.strip())[:40]!r}: nothing was done")


def login(session: "Session", named: Named) -> Flow:
    """Log somebody in; make the first user where there is none."""
    if session.user is not None:
        raise Refusal(f"{session.user.name} is logged in here; logout first")
    # Before anything that costs: whoever guesses must not keep the disk and the processor busy either.
    left_s = session.lock.left_s(session.clock())
    if left_s > 0:
        raise Refusal(f"locked for {span(left_s)} after {session.lock.failures} wrong passwords; stop works")
    if not session.users.all():
        yield from _first_user(session)
        return
    name = named.get("USER") or (yield from ask("User: ")) or ""
    password = yield from ask("Password: ", secret=True)
    if password is None:
        raise Refusal("not logged in")
    # The lock is asked again: the answer may have been waiting while another login failed.
    if session.lock.left_s(session.clock()) > 0:
        raise Refusal("locked; stop works")
    user = session.users.check(name.strip(), password)
    if user is None:
        session.lock.failed(session.clock())
        left_s = session.lock.left_s(session.clock())
        session.note("login refused", f"{clean(name.strip())[:16]}, {session.lock.failures} in a row")
        raise Refusal("wrong name or password" + (f"; locked for {span(left_s)}" if left_s else ""))
    session.lock.passed()
    _sit(session, user)


def _sit(session: "Session", user: "User") -> None:
    clock = time.strftime("%H:%M UTC", time.gmtime())
    holder = session.seat.take(user.name, session.place.name, clock)
    if holder:
        session.note("login refused", f"{user.name}: {clean(holder)} is logged in")
        raise Refusal(f"{clean(holder)} is logged in; one at a time, and stop works for both")
    session.user = user
    session.note("login", user.role)
    session.echo(f"{user.name}, role {user.role}. status, alarms, and ? for more")


def _first_user(session: "Session") -> Flow:
    session.echo(
        "There is no user yet and no default password.",
        "Whoever stands at the cabinet makes the first user, with the role maintain.",
    )
    yield from confirm(session)
    name = ((yield from ask("New user: ")) or "").strip()
    password = yield from _new_password()
    if session.users.all():
        raise Refusal("somebody else has made the first user meanwhile; login")
    session.users.put(name, "maintain", password)
    session.note("first user", f"{name} was made at the console")
    _sit(session, session.users.all()[name])


def _new_password() -> Dialogue[str]:
    password = yield from ask("New password: ", secret=True)
    again = yield from ask("The same again: ", secret=True)
    if password is None or again is None:
        raise Refusal("nothing was changed")
    if password != again:
        raise Refusal("the two differ: nothing was changed")
    return password


def logout(session: "Session", named: Named) -> list[str]:
    if session.user is None:
        return ["nobody is logged in here"]
    return [f"{session.end_login('logout')} is logged out"]


def leave(session: "Session", named: Named) -> list[str]:
    """End the login, and in a terminal the console."""
    said = logout(session, named) if session.user is not None else []
    session.ended = not session.place.probes
    return said


def passwd(session: "Session", named: Named) -> Flow:
    """A new password for whoever is logged in."""
    user = session.user
    assert user is not None
    old = yield from ask("Present password: ", secret=True)
    if old is None or session.users.check(user.name, old) is None:
        session.lock.failed(session.clock())
        raise Refusal("that is not it: nothing was changed")
    password = yield from _new_password()
    session.users.put(user.name, user.role, password)
    session.note("password", f"{user.name} changed it")
    session.echo("changed")


def users(session: "Session", named: Named) -> list[str]:
    return [f"  {user.name:<16}  {user.role}" for user in session.users.all().values()]


def user_add(session: "Session", named: Named) -> Flow:
    """A user with a role, or a new role and password for one."""
    name, role = named["USER"], named["ROLE"]
    yield from confirm(session, f"{clean(name)} may log in with the role {clean(role)}.")
    password = yield from _new_password()
    session.users.put(name, role, password)
    session.note("user added", f"{name}, role {role}")
    session.echo(f"{name} has the role {role}")


def user_remove(session: "Session", named: Named) -> Flow:
    name = named["USER"]
    yield from confirm(session, f"{clean(name)} may not log in any more.")
    session.users.remove(name)
    session.note("user removed", name)
    session.echo(f"{name} is removed")
    try:
        session.plant.ask("logins", gone=[name])
    except ClientError as why:
        session.echo(f"! what {name} ordered stands until its own end: {why.text}")
