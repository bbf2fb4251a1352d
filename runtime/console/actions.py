"""What a technician can make the cabinet do. The safety gate stands behind all of it."""

import math
from typing import TYPE_CHECKING

from tidegate.config.quantities import seconds, watts
from tidegate.runtime.api.answers import Outcome
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.console.flow import Flow, Live, Refusal, Wait, gateway_words
from tidegate.runtime.console.grammar import GrammarError
from tidegate.runtime.console.login import Named, confirm
from tidegate.runtime.console.status import status_lines
from tidegate.runtime.findings.evidence import active_faults, latched_faults
from tidegate.runtime.findings.text import clean, plain_power, power, span

if TYPE_CHECKING:
    from tidegate.runtime.console.session import Session

MANUAL_S_MAX = 1800.0
RENEW_S = 1.0
MARKS_S = (300.0, 60.0, 30.0, 10.0)  # left of manual power, when a dumb line is told
TEST_S, TEST_S_MAX = 5.0, 60.0
LOOK_S = 0.1
BEFORE_S = 1.5
# What a step must move to be told from the load's own unrest.
TEST_SHARE_MIN = 0.3


def outcome(answer: Outcome) -> str:
    """What became of a command, as a line."""
    text = answer.status + (f": {power(answer.applied_w)}" if answer.applied_w is not None else "")
    more = answer.text or (f"by {answer.by}" if answer.by else "")
    return f"{text}, {clean(more)}" if more else text


def stop(session: "Session", named: Named) -> list[str]:
    """To zero, and stay there. Needs no login and asks nothing."""
    if session.background is not None:
        session.background.end(session, "stop")
        session.background = None
    try:
        answer = session.command("mode", mode="stop")
    except ClientError as why:
        problem = session.place.halt()
        if not problem:
            return [
                "stop: ordered by a signal to the core's own memory, since the gateway did not take it",
                f"  ({gateway_words(why)})",
                "look at the cabinet: nobody could be asked whether it stands still",
            ]
        return [f"STOP WAS NOT TAKEN: {gateway_words(why)}; {problem}", "use the emergency stop of the cabinet"]
    return [f"stop {outcome(answer)}; the power goes to zero and stays there until arm"]


def arm(session: "Session", named: Named) -> Flow:
    """Lift a stop and leave the tripped state."""
    faults = [fault for _, fault in active_faults(session.plant)]
    effect = "The cabinet may take and give power again, by its own control, at once."
    if faults:
        effect += f" Present faults keep it from doing so: {', '.join(faults)}."
    yield from confirm(session, effect)
    session.echo(f"arm {outcome(session.command('mode', mode='run'))}")


def _own_name(session: "Session") -> str:
    return session.user.name if session.user is not None else ""


def lock(session: "Session", named: Named) -> list[str]:
    """Lock the site out under the technician's own name: until that lock is off, nobody starts it."""
    name = _own_name(session)
    answer = session.command("lock", action="lock", name=name, reason=named["REASON"])
    return [f"lock {outcome(answer)}; the site stays stopped until {name} is unlocked here, and armed after that"]


def unlock(session: "Session", named: Named) -> list[str]:
    """Take a lock off; the stop stays."""
    name = named.get("USER") or _own_name(session)
    answer = session.command("lock", action="unlock", name=name)
    return [f"unlock {name} {outcome(answer)}; the stop stays until arm"]


def control(session: "Session", named: Named) -> list[str]:
    """Where orders are taken from; with local, other machines may watch and stop."""
    if named["PLACE"] not in ("local", "remote"):
        raise GrammarError(f"{named['PLACE']}: local or remote")
    return [f"control {named['PLACE']} {outcome(session.command('control', place=named['PLACE']))}"]


def ack(session: "Session", named: Named) -> Flow:
    """Acknowledge latched faults whose cause is gone."""
    session.plant.poll(force=True)
    latched, active = latched_faults(session.plant), active_faults(session.plant)
    if not latched:
        raise Refusal("nothing is latched")
    gone = [fault for unit, fault in latched if (unit, fault) not in active]
    stays = [fault for unit, fault in latched if (unit, fault) in active]
    effect = [f"Lifts: {', '.join(dict.fromkeys(gone)) or 'nothing'}."]
    if stays:
        effect.append(f"Stays, because its cause is still there: {', '.join(dict.fromkeys(stays))}.")
    yield from confirm(session, *effect)
    session.echo(f"ack {outcome(session.command('ack'))}")


def limit(session: "Session", named: Named) -> list[str]:
    """A tighter limit of grid power for a time."""
    side = "import_w_max" if named["SIDE"] == "import" else "export_w_max"
    value, for_s = watts(named["POWER"], unit_needed=True), seconds(named["TIME"])
    if value < 0:
        raise GrammarError(f"{named['POWER']}: a limit is not negative; import and export are two limits")
    answer = session.command("limit", **{side: value, "for_ms": int(for_s * 1000)})
    return [f"{named['SIDE']} limit {outcome(answer)}, for {span(for_s)}"]


def record(session: "Session", named: Named) -> list[str]:
    """Let the recorder write what it holds to a file."""
    answer = session.command("record")
    more = [f"  {clean(key)} {clean(value)}" for key, value in answer.record.items()]
    return [f"record {outcome(answer)}", *more]


# ---- manual power ----


class Manual:
    """Battery power by hand: an order that ends by itself in three periods, renewed while the technician is there.

    So a pulled cable, a console that is killed and a technician who walks away all end it, and nothing has to notice
    them but the missing renewal.
    """

    def __init__(self, session: "Session", power_w: float, for_s: float, quiet: bool = False) -> None:
        self.power_w = power_w
        self.quiet = quiet
        self.until_s = session.clock() + for_s
        self.told = ""
        self._next_s = session.clock() + RENEW_S
        self._clock = session.clock
        self._said_s = math.inf
        answer = session.command("lease", action="acquire", priority="maintenance", period_ms=int(RENEW_S * 1000))
        self._lease, self._seq = answer.lease, answer.next_seq or 0
        self.answer = self._order(session)

    def _order(self, session: "Session") -> Outcome:
        left_s = max(0.001, self.until_s - session.clock())
        answer = session.command(
            "setpoint",
            lease=self._lease,
            seq=self._seq,
            setpoint_w=self.power_w,
            for_ms=int(min(left_s, 3 * RENEW_S) * 1000) or 1,
        )
        self._seq = answer.next_seq or self._seq + 1
        self.told = outcome(answer)
        return answer

    @property
    def left_s(self) -> float:
        return max(0.0, self.until_s - self._clock())

    @property
    def words(self) -> str:
        return f"manual {power(self.power_w)} {span(self.left_s)}"

    def tick(self, session: "Session") -> None:
        now_s = session.clock()
        if now_s >= self.until_s:
            self._over(session, "its time is over")
            return
        if not session.probe.present():
            self._over(session, "nobody is at the console any more")
            return
        if now_s < self._next_s:
            return
        self._next_s = now_s + RENEW_S
        try:
            session.command("lease", action="renew", lease=self._lease)
            self._order(session)
        except ClientError as why:
            if why.code in ("no-answer", "busy", "not-applied"):
                return  # the next second may do; if none does, the order ends by itself
            self._over(session, gateway_words(why))
            return
        self._countdown(session)

    def _countdown(self, session: "Session") -> None:
        """On a dumb line the countdown is a line now and then."""
        passed = [mark_s for mark_s in MARKS_S if self.left_s <= mark_s]
        if not self.quiet and passed and min(passed) < self._said_s:
            self._said_s = min(passed)
            session.remark(f"{self.words} left; {self.told}")

    def _over(self, session: "Session", why: str) -> None:
        self.end(session, why)
        session.background = None
        session.remark(f"manual power has ended: {why}; automatic again")

    def end(self, session: "Session", why: str) -> None:
        """Give the lease back; if the gateway does not hear it, it ends by itself."""
        try:
            session.command("lease", action="release", lease=self._lease)
        except ClientError:
            return
        finally:
            session.note("manual ended", why)


def manual(session: "Session", named: Named) -> Flow:
    """Battery power by hand for a time."""
    power_w, for_s = watts(named["POWER"], unit_needed=True), seconds(named.get("TIME", "60s"))
    if for_s > MANUAL_S_MAX:
        raise GrammarError(f"manual power lasts at most {MANUAL_S_MAX / 60:.0f}min")
    does = "discharges" if power_w > 0 else "charges" if power_w < 0 else "rests"
    yield from confirm(
        session,
        f"The battery {does} with {plain_power(abs(power_w))} for {span(for_s)}, within all limits.",
        "It ends by itself then, at manual off, at stop, at logout, and when the cable is pulled:",
        f"the last order is void {3 * RENEW_S:.0f} s after the line is seen to be dead. {_presence_words(session)}",
    )
    if session.background is not None:
        session.background.end(session, "replaced")
        session.background = None
    made = Manual(session, power_w, for_s)
    session.background = made
    session.note("manual", f"{power_w:.0f} W for {for_s:.0f} s")
    session.echo(f"{made.words}: {made.told}")
    if session.terminal.vt100:
        yield Live(lambda: status_lines(session.plant, session.who, made.words, session.clock()))


def _presence_words(session: "Session") -> str:
    if session.place.carrier() is not None:
        return "The line has a carrier signal: 1 s."
    if session.probe.answers:
        return "The terminal is asked every 2 s whether it is there: at most 8 s."
    return "This terminal does not answer: press a key at least every 30 s."


def manual_off(session: "Session", named: Named) -> list[str]:
    if not isinstance(session.background, Manual):
        return ["no manual power is on"]
    session.background.end(session, "manual off")
    session.background = None
    return ["manual power has ended; automatic again"]


# ---- a step, to see what the plant makes of it ----


def test_step(session: "Session", named: Named) -> Flow:
    """A step of battery power, and what converter and grid meter made of it."""
    power_w, for_s = watts(named["POWER"], unit_needed=True), seconds(named.get("TIME", f"{TEST_S:.0f}s"))
    if not abs(power_w) > 0:
        raise GrammarError("a step of 0 W shows nothing")
    if for_s > TEST_S_MAX:
        raise GrammarError(f"a step lasts at most {TEST_S_MAX:.0f}s")
    if session.background is not None:
        raise Refusal("manual power is on; manual off first")
    does = "discharges" if power_w > 0 else "charges"
    yield from confirm(
        session,
        f"The battery rests, then {does} {plain_power(abs(power_w))} for {span(for_s)}, then goes back to automatic.",
    )
    session.note("test step", f"{power_w:.0f} W for {for_s:.0f} s")
    rows: list[tuple[float, float, float]] = []
    session.background = Manual(session, 0.0, for_s + 2 * BEFORE_S + 2.0, quiet=True)
    try:
        start_s = session.clock()
        rested: list[tuple[float, float, float]] = []
        while session.clock() - start_s < BEFORE_S:
            if (yield Wait(LOOK_S)):
                raise Refusal("cut short; automatic again")
            rested.append(_look(session, start_s))
        made = session.background
        if not isinstance(made, Manual):
            raise Refusal("the step was cut short")
        made.power_w = power_w
        made._order(session)
        start_s = session.clock()
        while session.clock() - start_s < for_s:
            if (yield Wait(LOOK_S)):
                raise Refusal("cut short; automatic again")
            if session.background is not made:
                raise Refusal("the step was cut short")
            rows.append(_look(session, start_s))
        session.echo(*judge(power_w, rested, rows, made.told))
    finally:
        if session.background is not None:
            session.background.end(session, "test step over")
            session.background = None


def _look(session: "Session", start_s: float) -> tuple[float, float, float]:
    got = session.plant.ask("get", points=["site.ess_w", "site.grid_w"])["points"]
    values = [got[name][0] for name in ("site.ess_w", "site.grid_w")]
    ess, grid = (math.nan if value is None else float(value) for value in values)
    return session.clock() - start_s, ess, grid


def judge(
    power_w: float, rested: list[tuple[float, float, float]], rows: list[tuple[float, float, float]], told: str
) -> list[str]:
    """What a step shows. rows : (s since the step, battery W, grid W), looked at ten times a second."""
    before_ess, before_grid = _mean(rested, 1), _mean(rested[len(rested) // 2 :], 2)
    settled = rows[len(rows) // 2 :]
    after_ess, after_grid = _mean(settled, 1), _mean(settled, 2)
    lines = [f"order     {told}"]
    if not all(math.isfinite(value) for value in (before_ess, after_ess)):
        return [*lines, "battery   its power was not known: see alarms and bus"]
    moved = after_ess - before_ess
    reached = next((t for t, ess, _ in rows if abs(ess - before_ess) >= 0.9 * abs(moved)), math.nan)
    lines.append(f"battery   {power(before_ess)} to {power(after_ess)}, 90 % of it within {reached + LOOK_S:.1f} s")
    if moved * power_w < 0 and abs(moved) > TEST_SHARE_MIN * abs(power_w):
        lines.append("> the converter went the OTHER way: sign of its map or its wiring")
    elif abs(moved) < TEST_SHARE_MIN * abs(power_w):
        lines.append("> the converter did not follow: its mode, a limit (why), or a fault (alarms)")
    if not (math.isfinite(before_grid) and math.isfinite(after_grid)):
        return [*lines, "grid      its power was not known: see alarms and bus"]
    change = after_grid - before_grid
    lines.append(f"grid      {power(before_grid)} to {power(after_grid)}: {power(change)}, expected {power(-moved)}")
    if abs(moved) < TEST_SHARE_MIN * abs(power_w):
        return lines
    ratio = -change / moved
    if ratio < -TEST_SHARE_MIN:
        lines.append("> the grid meter went the WRONG way: its current transformers face the wrong way")
    elif ratio < TEST_SHARE_MIN:
        lines.append("> the grid meter did not see the step: it sits elsewhere, or the load moved at the same time")
    elif abs(ratio - 1.0) > TEST_SHARE_MIN:
        lines.append(f"> the grid meter saw {ratio:.0%} of it: ratio of its transformers, or the load moved; try again")
    else:
        lines.append("  converter and grid meter agree")
    return lines


def _mean(rows: list[tuple[float, float, float]], column: int) -> float:
    known = [row[column] for row in rows if math.isfinite(row[column])]
    return sum(known) / len(known) if known else math.nan
