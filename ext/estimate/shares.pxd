# ext/estimate/shares.pxd: contents page of shares.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport METER_MODELS, estimate_state_t

cdef enum:
    SHARES = 5  # shares of the battery's move that a meter may show: wrong ones, and all of it as ever

# What a question has shown so far.
cdef enum:
    SHARES_OPEN = 0
    SHARES_HONEST
    SHARES_TURNED
    SHARES_WRONG

cdef struct shares_t:
    # the newest reading that was compared, and the changes before it
    uint64_t t_ns               # 0 = none
    double w, ess_w
    double grid_change_w, ess_change_w
    # how the load goes on: the share of one change that the next one repeats, and what is left
    double before2, both        # sums of squares and products, old ones forgotten, of what is left
    double noise_w              # 0 = nothing known
    double sums[SHARES]         # for each wrong share against the right one, natural moves; never below 0
    # while a question moves the battery: what each explains badly, summed
    uint32_t asked, compared
    uint64_t asked_t_ns
    double wrong[SHARES]
    double right[METER_MODELS]  # a meter that shows all of it, of any age and average
    double then_w[METER_MODELS] # what each would have shown at the newest reading

# Readings across a gap are not compared.
cdef void shares_forget(shares_t* shares) noexcept nogil
# A reading and what the battery did when it was taken. known: that is known. small_w: the meter's small changes; far_w:
# a move of the battery that must show.
cdef void shares_reading(const estimate_state_t* state, shares_t* shares, double grid_w, double ess_w, uint64_t t_ns,
                         bint known, double small_w, double far_w, bint asked) noexcept nogil
# Natural moves speak against the meter.
cdef bint shares_suspect(const shares_t* shares) noexcept nogil
# A question begins, or ends.
cdef void shares_ask(shares_t* shares, bint asked) noexcept nogil
# What it has shown.
cdef uint32_t shares_found(const shares_t* shares) noexcept nogil
# It speaks against the meter so far.
cdef bint shares_against(const shares_t* shares) noexcept nogil
