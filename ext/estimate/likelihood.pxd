# ext/estimate/likelihood.pxd: contents page of likelihood.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport estimate_state_t

cdef enum:
    SHARES = 4       # of the true power that a meter may show: as in SHARE
    HABITS = 14      # what else an honest meter may have become
    CHANGE_BINS = 97

cdef struct likelihood_t:
    double seen[CHANGE_BINS], total    # how often the load changed by so much of late
    double least_w                     # upper edge of the first bin
    uint64_t t_ns                      # of the reading before; 0 = none
    double grid_w, ess_w[HABITS]       # it, and what the battery did then, by habit
    double unsure_w[2]                 # what it may have done as well, if the reading is a little older or newer
    double change_w[HABITS], change_s  # of the load before that, by habit; 0 s = none
    double sums[HABITS][SHARES]        # logarithm of the chance of that share against that habit

cdef void likelihood_forget(likelihood_t* l) noexcept nogil
# What was added up so far counts for nothing: a question asks on its own.
cdef void likelihood_restart(likelihood_t* l) noexcept nogil
# One reading of a running site. ess_w: what the battery did then; nameplate_w: of all units; learn: nothing is suspect.
cdef void likelihood_reading(const estimate_state_t* state, likelihood_t* l, double grid_w, double ess_w,
                             double nameplate_w, bint learn, uint64_t t_ns) noexcept nogil
# Whether a share is so much more likely that the meter is to be asked: its number + 1; 0 = none.
cdef uint32_t likelihood_suspects(const likelihood_t* l) noexcept nogil
# Whether a share is more likely than the truth and whatever habit, beyond doubt: its number + 1; 0 = none. mirrored: the
# value had jumped to its own opposite, so no habit is weighed against the sign; asked: a
# question moves the battery.
cdef uint32_t likelihood_sure(const likelihood_t* l, bint asked, bint mirrored) noexcept nogil
# The share of that number.
cdef double likelihood_share(uint32_t number) noexcept nogil
# How often the load changes by w or more from one reading to the next: 0..1; a half while nothing is known.
cdef double likelihood_change(const likelihood_t* l, double w) noexcept nogil
# Nothing speaks for any share any more.
cdef bint likelihood_honest(const likelihood_t* l) noexcept nogil
