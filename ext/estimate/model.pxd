# ext/estimate/model.pxd: contents page of model.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport ANSWER_OPEN, ANSWER_SEEN, estimate_state_t

cdef extern from *:
    """
    #define REFRESHED_NS 30000000000u  /* a value that still stands after that is no register that waits for its turn */
    #define LIKELY_BY 1.5    /* standard deviations: what most meters that show the battery reach in seconds, ... */
    #define POSSIBLE_BY 0.8  /* ... nearly all in a minute or two, ... */
    #define DOUBTFUL_BY 0.4  /* ... and in five */
    #define ANSWER_SLOW_S 5.0 /* of a meter that shows something new less often nobody can say that it does not */
    """
    const double LIKELY_BY, POSSIBLE_BY, DOUBTFUL_BY, ANSWER_SLOW_S
    const uint64_t REFRESHED_NS

# How much a move of span_w tells beside those so far, 0..1: their squares summed, and their number.
cdef inline double move_weight(double span_w, double motion_w2, double moves) noexcept nogil:
    return span_w * span_w / (span_w * span_w + 0.25 * motion_w2 / moves) if moves > 0.0 else 1.0


# Moves so small that they would only push aside what larger ones have told.
cdef inline bint is_small_move(double span_w, double motion_w2, double moves) noexcept nogil:
    return 100.0 * span_w * span_w * moves < motion_w2


# Compares the models by a grid reading that is a new sample, once the battery readings around it have come.
cdef void models_try(estimate_state_t* state, double grid_w, uint64_t t_ns) noexcept nogil

# All models are open again.
cdef void models_forget(estimate_state_t* state) noexcept nogil
# What the load does by itself is found anew: beside what was believed of another meter it looked less restless, or more.
cdef void models_noise_forget(estimate_state_t* state) noexcept nogil

# Whether the grid meter shows the battery is to be found anew.
cdef void answer_forget(estimate_state_t* state) noexcept nogil
# The site is ready: what was not shown by then, in sign as well (against: against the battery), is unproven.
cdef void answer_armed(estimate_state_t* state, bint against) noexcept nogil
# Steps that follow no reading have shown it, in sign and share (question.pyx).
cdef void answer_shown(estimate_state_t* state) noexcept nogil
# The control moves the battery against what the meter has shown: what both do together says nothing, so only an arming's
# pulses count. A register that stands still until it refreshes tells nothing of whether it ever moves.
cdef inline bint counts_for_answer(const estimate_state_t* state, double change_w, uint64_t t_ns) noexcept nogil:
    return state.models.answer == ANSWER_OPEN and (change_w != 0.0 or t_ns > state.grid_changed_t_ns + REFRESHED_NS)
# 0: it is known that it does; else so far 1 likely, 2 possible, 3 doubtful, 4 unlikely.
cdef inline uint32_t answer_wanted(const estimate_state_t* state) noexcept nogil:
    if state.models.answer == ANSWER_SEEN:
        return 0
    if state.models.answer_by > LIKELY_BY:
        return 1
    # A meter so slow that its readings may be older than any age that is tried: nothing speaks against it.
    if state.models.answer_by > POSSIBLE_BY or state.lags.interval.interval_s > ANSWER_SLOW_S:
        return 2
    return 3 if state.models.answer_by > DOUBTFUL_BY else 4
# Once a grid reading: what is known of that by now.
cdef void answer_judge(estimate_state_t* state, uint64_t t_ns) noexcept nogil

# Forgets the readings, not what was learned of them.
cdef void models_gap(estimate_state_t* state) noexcept nogil

# Whether something else explains clearly more than what is believed of the meter.
cdef bint model_doubted(const estimate_state_t* state) noexcept nogil
# Whether something else has explained clearly more since some moves, whatever was told before: it has become another.
cdef bint model_another(const estimate_state_t* state) noexcept nogil
