"""The grid meter is asked: when, and what the units are held at meanwhile."""

from libc.math cimport fabs
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.bits cimport random_next
from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport *
from tidegate.ext.control.corridor cimport ORDER_CEASE, ORDER_MANUAL
from tidegate.ext.cycle.core cimport *
from tidegate.ext.estimate.contradiction cimport SUSPECT_AGE, SUSPECT_BELOW_ZERO, SUSPECT_MIRRORED, SUSPECT_NONE, SUSPECT_UNSEEN
from tidegate.ext.estimate.converter cimport converter_answer_s
from tidegate.ext.estimate.estimate cimport ANSWER_UNPROVEN
from tidegate.ext.estimate.interval cimport INTERVAL_SLOW_S
from tidegate.ext.estimate.lag cimport lag_asked, lag_reopen
from tidegate.ext.estimate.model cimport answer_wanted
from tidegate.ext.estimate.pairing cimport nameplates
from tidegate.ext.estimate.pulses cimport pulses_wanted
from tidegate.ext.estimate.question cimport question_place, question_raised, question_t, question_waits, EDGE_ANYWAY
from tidegate.ext.estimate.truth cimport ASK_ANSWER, STEP_SHARE_MOST, truth_ask, truth_suspects
from tidegate.ext.safety.cabinet cimport ANSWER_DOUBTFUL


cdef extern from *:
    """
    #define RAISED 1.02  /* of a step: a wish that is no limit's and less than that waits for the next edge that goes up */
    #define DOUBTED_MOVES 8.0
    #define STIR_LEAST 0.03   /* of the nameplates: a smaller step beside the control's own moves tells nothing */
    #define STIR_BELOW 0.3     /* of what an unproven meter leaves, where there is no room above it */
    #define STIR_UNEVEN 0.025
    """
    const double RAISED, DOUBTED_MOVES, STIR_LEAST, STIR_BELOW, STIR_UNEVEN


cdef inline double held_w(const core_t* core) noexcept nogil:
    """What all units are held at, without the step."""
    cdef uint32_t unit
    cdef double total_w = 0.0
    for unit in range(core.program.n_units):
        total_w += core.truth.base_w[unit]
    return total_w


cdef void hold_at(core_t* core, double more_w) noexcept nogil:
    """More than before goes to the units that have room for it."""
    cdef uint32_t unit
    cdef double room_w = 0.0, own_w
    if core.program.n_units > 1 and more_w > 0.0:
        for unit in range(core.program.n_units):
            room_w += fmax(core.plant.units[unit].envelope_hi_w - core.truth.base_w[unit], 0.0)
    for unit in range(core.program.n_units):
        own_w = more_w / core.program.n_units
        if room_w > 0.0:
            own_w = more_w * fmax(core.plant.units[unit].envelope_hi_w - core.truth.base_w[unit], 0.0) / room_w
        core.truth.base_w[unit] += own_w


cdef inline double need_w(const core_t* core) noexcept nogil:
    """What the limits need by now. Where the units can give no more than that there has to be room for a step all the same."""
    return fmin(core.decision.lo_w, core.decision.envelope_hi_w - core.truth.question.least_w)


cdef void place_edge(core_t* core) noexcept nogil:
    """Where the newest edge goes: up or down by turns, but never down below what the limits need by now.

    Which way it goes tells nothing less of the meter, for an answer is measured by what the battery did.
    """
    cdef question_t* question = &core.truth.question
    cdef double base_w = held_w(core), was_w = base_w + (0.0 if question.level else question.step_w)
    cdef double down_room_w = was_w - fmax(need_w(core), core.decision.envelope_lo_w)
    cdef double up_room_w = fmin(core.decision.envelope_hi_w, fmax(core.decision.hi_w, 0.0)) - was_w
    cdef double up_w = fmax(fmin(question.full_w, up_room_w), need_w(core) - was_w)
    cdef double down_w = fmin(question.full_w, down_room_w)
    cdef bint up = (question.step_w > 0.0) == (question.level != 0)
    if question.placed:
        return
    if fmax(up_w, down_w) < question.least_w:
        # No room either way: what is only to be proven waits; else the edge goes as it did before.
        if question.suspicion != SUSPECT_UNSEEN and question.suspicion != SUSPECT_AGE:
            question.placed = EDGE_ANYWAY
        elif not up:
            question_waits(question)
        return
    if (up_w if up else down_w) < question.least_w:
        up = not up
    if not up:
        hold_at(core, was_w - down_w - base_w)
        question_place(question, was_w - down_w, down_w, False)
    else:
        hold_at(core, was_w - base_w)
        question_place(question, was_w, up_w, True)


cdef void raise_held(core_t* core) noexcept nogil:
    """What the limits need by then is given at once: it is not lost for a doubt, nor for a step.

    With the edge of that reading it makes that larger, or smaller: the answer is measured by what the battery did, so
    it tells as well. By a later reading, and by more than a little, the edge begins anew. What is wanted for another
    reason waits until it is more than a step. Behind a meter that gives power where none is, what is wanted is made of
    the contradiction itself: there nothing is raised but with an edge that goes up.
    """
    cdef uint32_t unit
    cdef question_t* question = &core.truth.question
    cdef double told_w = held_w(core) + (question.step_w if question.level else 0.0)
    cdef double more_w, wanted_w = 0.0
    cdef bint fresh = question.edge_ns == core.truth.seen_t_ns
    cdef bint goes_up = fresh and (question.step_w > 0.0) == (question.level != 0)
    if question.suspicion == SUSPECT_MIRRORED and not goes_up:
        return
    for unit in range(core.program.n_units):
        wanted_w += core.decision.request_w[unit]
    more_w = 0.0 if question.placed == EDGE_ANYWAY and not goes_up else need_w(core) - told_w
    # There has to be room for the step: without it the units stand, and nothing is answered.
    if wanted_w - told_w > (0.0 if goes_up else RAISED * fabs(question.step_w)):
        more_w = fmax(more_w, fmin(
            wanted_w - told_w, core.decision.envelope_hi_w - fmax(question.step_w, 0.0) - held_w(core)))
    if more_w > 0.0:
        hold_at(core, more_w)
        question_raised(question, more_w, fresh)


cdef void ask_meter(core_t* core, uint64_t t_ns) noexcept nogil:
    """A doubtful grid meter is asked only while the control alone moves the units."""
    cdef double[UNITS_MAX] asked_w
    cdef uint32_t unit
    cdef bint free = (core.mode == MODE_RUN or core.mode == MODE_DERATED) and not core.inbox.orders.flags & (
        ORDER_MANUAL | ORDER_CEASE) and not core.plant.island
    if not (core.truth.asking == ASK_ANSWER and core.truth.question.suspicion == SUSPECT_AGE):
        core.estimate.models.asked = 0
    if core.truth.age_open:
        core.truth.age_open = 0
        lag_reopen(&core.estimate)
    if free and not core.truth.asking and not truth_suspects(&core.truth, &core.estimate, t_ns):
        return
    # While the battery is held to try whether it chases, it moves by no reading either: weaker doubts wait for its end.
    if core.control.hunting.trial and not core.truth.asking and (
            core.truth.contradiction.suspicion == SUSPECT_NONE or core.truth.contradiction.suspicion == SUSPECT_UNSEEN
            or core.truth.contradiction.suspicion == SUSPECT_AGE):
        return
    core.truth.answer_s = 0.0
    for unit in range(core.program.n_units):
        core.truth.answer_s = fmax(core.truth.answer_s, converter_answer_s(&core.converters[unit]))
        asked_w[unit] = core.converters[unit].asked_w
        free = free and (core.cabinets[unit].mode == MODE_RUN or core.cabinets[unit].mode == MODE_DERATED)
    truth_ask(
        core.program, &core.truth, &core.plant, asked_w, core.decision.lo_w, core.decision.hi_w,
        core.decision.limits_hi_w, free, t_ns
    )
    if core.truth.asking == ASK_ANSWER and core.truth.question.suspicion == SUSPECT_AGE and (
            core.truth.question.edges > 0 and core.truth.age_asked_ns != core.truth.question.begun_ns):
        core.truth.age_asked_ns = core.truth.question.begun_ns
        lag_asked(&core.estimate)
    if core.truth.asking == ASK_ANSWER and core.truth.question.suspicion != SUSPECT_BELOW_ZERO:
        if core.truth.question.edge_ns:
            place_edge(core)
        raise_held(core)


cdef double stir(core_t* core, uint64_t t_ns) noexcept nogil:
    """Behind a slow meter that has yet to show the battery: a step beside what the control wants, of a time and a size that nothing foretells.

    A question would hold the units for several of its values, and the limits with them. So the control goes on, and
    what the meter shows of these steps alone is the answer (coincidence.pyx).
    """
    cdef truth_t* truth = &core.truth
    cdef double wanted_w = 0.0, interval_s = core.estimate.lags.interval.interval_s, up_w, size_w
    cdef uint32_t unit
    cdef double[4] longer
    longer[0], longer[1], longer[2], longer[3] = 1.0, 1.6, 1.25, 2.1
    if (core.mode != MODE_RUN and core.mode != MODE_DERATED) or core.estimate.models.answer != ANSWER_UNPROVEN or (
            interval_s <= INTERVAL_SLOW_S or truth.asking or truth.verdict != VERDICT_BELIEVED or not core.plant.grid_ok
            or core.plant.island or core.inbox.orders.flags & (ORDER_MANUAL | ORDER_CEASE)):
        truth.stir_w = 0.0
        return 0.0
    for unit in range(core.program.n_units):
        wanted_w += core.decision.request_w[unit]
    up_w = fmax(fmin(core.decision.hi_w, core.decision.envelope_hi_w) - wanted_w, 0.0)
    if t_ns >= truth.stir_due_ns:
        truth.random = random_next(truth.random)
        truth.stir_due_ns = t_ns + <uint64_t>(longer[truth.random & 3] * 1e9 * interval_s)
        size_w = STEP_SHARE_MOST * nameplates(core.program) * (1.0 - STIR_UNEVEN * (truth.random >> 3 & 15))
        if truth.stir_w != 0.0:
            truth.stir_w = 0.0
        elif up_w >= STIR_LEAST * nameplates(core.program):  # discharge: a charge would be above the limit when the load rises
            truth.stir_w = fmin(size_w, up_w)
        elif core.decision.reason == REASON_UNPROVEN and wanted_w > 0.0:
            # No room but below the bound: a part of what it leaves, until that has shown and the bound ends.
            truth.stir_w = -STIR_BELOW * wanted_w * (1.0 - STIR_UNEVEN * (truth.random >> 3 & 15))
    return fmin(truth.stir_w, up_w) if truth.stir_w > 0.0 else fmax(truth.stir_w, fmin(-STIR_BELOW * wanted_w, 0.0))


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
