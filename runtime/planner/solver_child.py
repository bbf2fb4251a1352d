"""The solve in a process of its own, which can be ended: a solver does not always keep its limit of time."""

import multiprocessing
from multiprocessing.connection import Connection as Pipe
from typing import NamedTuple

from tidegate.runtime.planner.plan_inputs import Connection, Floats, Horizon, PlanError, Storage
from tidegate.runtime.planner.plan_solver import Plan, solve

TIMEOUT_S = 20.0


class Question(NamedTuple):
    """What `solve` is asked."""

    storage: Storage
    connection: Connection
    horizon: Horizon
    stored_kwh: float
    in_force_kw: Floats | None


def _answer(pipe: Pipe, question: Question) -> None:
    try:
        pipe.send(solve(question.storage, question.connection, question.horizon, question.stored_kwh,
                        in_force_kw=question.in_force_kw))  # fmt: skip
    except PlanError as why:
        pipe.send(str(why))


def solve_apart(question: Question, *, timeout_s: float = TIMEOUT_S) -> Plan:
    """The plan. Raises PlanError where there is none, or none in time: what was planned before then stays in force."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(theirs, question), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(timeout_s):
            raise PlanError(f"no plan within {timeout_s:g} s: the one before stays in force until its own end")
        answer = ours.recv()
    except EOFError:
        raise PlanError("the solver's process ended without a plan: the one before stays in force") from None
    finally:
        child.kill()
        child.join()
        ours.close()
    if isinstance(answer, str):
        raise PlanError(answer)
    assert isinstance(answer, Plan)
    return answer
