"""The grid meter is asked: when, and what the units are held at meanwhile."""

from libc.math cimport fabs
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport *
from tidegate.ext.control.corridor cimport ORDER_CEASE, ORDER_MANUAL
from tidegate.ext.cycle.core cimport *
from tidegate.ext.estimate.contradiction cimport SUSPECT_BELOW_ZERO, SUSPECT_MIRRORED
from tidegate.ext.estimate.converter cimport converter_answer_s
from tidegate.ext.estimate.model cimport answer_wanted
from tidegate.ext.estimate.pulses cimport pulses_wanted
from tidegate.ext.estimate.question cimport question_raised, question_t
from tidegate.ext.estimate.truth cimport ASK_ANSWER, truth_ask, truth_order, truth_suspects
from tidegate.ext.safety.cabinet cimport ANSWER_DOUBTFUL


cdef extern from *:
    """
    #define RAISED 1.02  /* of a step: less than that waits for the next edge that goes up */
    #define DOUBTED_MOVES 8.0
    """
    const double RAISED, DOUBTED_MOVES


cdef inline void raise_held(core_t* core) noexcept nogil:
    """What the limits ask for by then is taken along: it is not lost for a doubt.

    With an edge that goes up it makes that larger: the answer is measured by what the battery did, so it tells as well.
    At any other time the edge begins anew. Behind a meter that gives power where none is, what is wanted is made of the
    contradiction itself: there nothing is raised.
    """
    cdef uint32_t unit
    cdef double held_w, more_w, room_w, raised_w = 0.0
    cdef question_t* question = &core.truth.question
    cdef bint goes_up = question.edge_ns == core.truth.seen_t_ns and (question.step_w > 0.0) == (question.level != 0)
    for unit in range(core.program.n_units):
        raised_w += fmax(
            core.decision.request_w[unit] - truth_order(&core.truth, unit, core.program.n_units, 0.0), 0.0)
    if raised_w <= (0.0 if goes_up else RAISED * fabs(question.step_w)) or not (
            goes_up or question.suspicion != SUSPECT_MIRRORED):
        return
    raised_w = 0.0
    for unit in range(core.program.n_units):
        held_w = core.truth.base_w[unit]
        more_w = fmax(core.decision.request_w[unit] - truth_order(&core.truth, unit, core.program.n_units, 0.0), 0.0)
        # There has to be room for the step: without it the unit stands, and nothing is answered.
        room_w = core.plant.units[unit].envelope_hi_w - fmax(question.step_w, 0.0) / core.program.n_units - held_w
        core.truth.base_w[unit] = held_w + fmax(fmin(more_w, room_w), 0.0)
        raised_w += core.truth.base_w[unit] - held_w
    question_raised(question, raised_w, not goes_up)


cdef void ask_meter(core_t* core, uint64_t t_ns) noexcept nogil:
    """A doubtful grid meter is asked only while the control alone moves the units."""
    cdef double[UNITS_MAX] asked_w
    cdef uint32_t unit
    cdef bint free = (core.mode == MODE_RUN or core.mode == MODE_DERATED) and not core.inbox.orders.flags & (
        ORDER_MANUAL | ORDER_CEASE) and not core.plant.island
    if free and not core.truth.asking and not truth_suspects(&core.truth, &core.estimate, t_ns):
        return
    core.truth.answer_s = 0.0
    for unit in range(core.program.n_units):
        core.truth.answer_s = fmax(core.truth.answer_s, converter_answer_s(&core.converters[unit]))
        asked_w[unit] = core.converters[unit].asked_w
        free = free and (core.cabinets[unit].mode == MODE_RUN or core.cabinets[unit].mode == MODE_DERATED)
    truth_ask(
        core.program, &core.truth, &core.plant, asked_w, core.decision.lo_w, core.decision.hi_w, free, t_ns
    )
    if core.truth.asking == ASK_ANSWER and core.truth.question.suspicion != SUSPECT_BELOW_ZERO:
        raise_held(core)


cdef uint32_t answer_of_meter(const core_t* core) noexcept nogil:
    """A meter that looks turned is not believed yet, whatever else speaks for it; one that is lost has shown nothing."""
    cdef uint32_t wanted = answer_wanted(&core.estimate)
    if not core.plant.grid_ok:
        return ANSWER_DOUBTFUL if core.mode == MODE_ARMING else min(wanted, <uint32_t>ANSWER_DOUBTFUL)
    # One that was found to be turned before may look right by the chance of a few moves.
    if core.truth.doubted and core.estimate.models.signs.moves < DOUBTED_MOVES:
        wanted = max(wanted, <uint32_t>ANSWER_DOUBTFUL)
    if core.mode != MODE_ARMING:  # the pulses of a unit beside one that runs are not compared
        return wanted
    return max(wanted, pulses_wanted(&core.truth.pulses, core.estimate.lags.interval.interval_s, core.truth.doubted != 0))
