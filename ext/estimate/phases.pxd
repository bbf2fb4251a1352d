# ext/estimate/phases.pxd: contents page of phases.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.abi.settings cimport PHASES_MAX

cdef enum:
    TOTALS = 64  # spans of time of which the range of the total is kept; a power of two
    LOOKS = 2    # looks at the phases before the newest

# What a grid meter's phases show beside their total.
cdef struct phases_t:
    # the total, least and most by spans of time
    uint64_t span[TOTALS]                 # its number; 0 = none
    double least_w[TOTALS], most_w[TOTALS]
    # looks at all three phases; each is a new one
    uint64_t from_ns[LOOKS], to_ns[LOOKS] # oldest and newest stamp of the three
    double w[LOOKS][PHASES_MAX]
    double va[LOOKS]                      # apparent power of all; < 0 = not known
    uint64_t seen_ns                      # stamp of the newest look
    uint32_t count
    # how often they added up to the total, and how often they did not; in a row
    uint32_t agreed, apart, against
    uint32_t covered, uncovered, beyond   # the same of the total within the apparent power
    # how much of the battery each phase shows, beside the mean of all three
    double before_w[PHASES_MAX], before_ess_w
    double moved_w2, both_w2[PHASES_MAX], phase_w2[PHASES_MAX], moves
    # a phase that stands at zero
    double carried_w[PHASES_MAX]          # most of late
    double factor[PHASES_MAX]             # most W per VA of late
    double zero_lo_w[PHASES_MAX], zero_hi_w[PHASES_MAX] # what the battery did while it stood there
    uint32_t zeros[PHASES_MAX]            # looks in a row without power and current
    uint32_t dark[PHASES_MAX]             # looks in a row with current and without power
    uint64_t lit_ns[PHASES_MAX]           # stamp of the last look that was none of these
    uint32_t learnt, pad                  # the battery followed no load at the last look either
    uint32_t state, gives                 # enum meter_phases; gives: a phase of the building has given power

# Readings across a gap are not compared; what is known of the meter stays known.
cdef void phases_forget(phases_t* p) noexcept nogil
# A verdict is over: what is seen from now on counts.
cdef void phases_ask_anew(phases_t* p) noexcept nogil
# A new reading of the total. ess_w: what the battery did when the phases were measured; nameplate_w: of all units; far_w: a
# move of the battery that must show in the total; interval_s: the meter shows something new so often; learn: the
# battery follows no load. Returns enum meter_phases.
cdef uint32_t phases_reading(const program_t* program, const point_t* image, phases_t* p, double grid_w, double ess_w,
                             double nameplate_w, double far_w, double interval_s, bint learn, uint64_t t_ns) noexcept nogil
# The first phase that stands at zero and may be lost, + 1; 0 = none.
cdef int phases_at_zero(const phases_t* p) noexcept nogil
# How far apart the battery has to have been while that phase stands at zero, to show whether it is lost, W; 0 = it would not.
cdef double phases_need_w(const program_t* program, const phases_t* p, double far_w) noexcept nogil
# What the total shows of the battery's moves if that phase is lost; 1 = all: that phase is known to show nothing of it.
cdef double phases_left(const program_t* program, const phases_t* p) noexcept nogil
# All three have shown power since then.
cdef bint phases_lit(const phases_t* p, uint64_t since_ns) noexcept nogil
# The answers of the total have shown that that phase is lost.
cdef void phases_lost(phases_t* p) noexcept nogil
# Whether a look at the phases is due that was not taken yet.
cdef bint phases_due(const program_t* program, const point_t* image, const phases_t* p) noexcept nogil
