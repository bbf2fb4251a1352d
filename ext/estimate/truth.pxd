# ext/estimate/truth.pxd: contents page of truth.pyx.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport UNITS_MAX, point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport LAGS, estimate_state_t, plant_t

cdef enum:
    TRUTH_SAMPLES = 256  # grid readings kept to compare them with; a power of two

# What the pulses of arming say of the meter's sign so far.
cdef enum:
    SIGN_OPEN = 0
    SIGN_AGAINST  # against the battery's moves, as it must
    SIGN_WITH     # with them: more likely than not it is turned

# What the battery's moves have shown of the grid meter.
cdef struct truth_t:
    uint32_t verdict          # enum meter_verdict
    int32_t mode              # of the site, in the cycle before
    uint64_t seen_t_ns        # stamp of the newest reading
    # a value that stands still
    double value_w, least_w   # least: size of the meter's small changes; 0 = none yet
    uint64_t value_t_ns       # its first stamp; 0 = none
    double ess_lo_w, ess_hi_w # what the battery did when the value may have been taken
    uint64_t away_t_ns        # the battery has been away from there since; 0 = it is not
    double still_s            # longest that a value stood which then moved: this meter's, and this load's, habit
    # a question: the units are held, a step is put on top
    uint32_t asking, asked    # asked: the step was seen at the converters
    double step_w             # of all units
    double base_w[UNITS_MAX]  # what each is held at
    double ess_w              # all of that
    uint64_t ask_t_ns, asked_t_ns, again_ns
    double rest_s             # the next question waits so long; doubled by each that was unfounded
    # pulses of arming: the grid's changes over a span of time, beside the battery's at each age
    uint64_t t_ns[TRUTH_SAMPLES]
    double w[TRUTH_SAMPLES]
    uint32_t head, count
    uint64_t pulses_t_ns      # the pulses began
    uint64_t done_ns          # up to where the readings were compared
    uint32_t sign             # so far
    uint32_t edges, rising    # of the pulses: so many; 1 = the newest went up
    double grid_w2            # squared changes of the grid, summed
    double moved_w2[LAGS]     # of the battery, at that age ...
    double moved_w4[LAGS]     # ... and the squares of these, to count the moves
    double both_w2[LAGS]      # and their product

# Once a cycle, after the estimate.
cdef void truth_step(const program_t* program, point_t* image, const estimate_state_t* state, const plant_t* plant,
                     truth_t* truth, int32_t mode, uint64_t t_ns) noexcept nogil
# Of a site that arms: what is wanted of the meter's sign, by the same steps as answer_wanted.
cdef uint32_t truth_wanted(const truth_t* truth, double interval_s) noexcept nogil
# Whether a value has stood for longer than it should.
cdef bint truth_suspects(const truth_t* truth, const estimate_state_t* state, uint64_t t_ns) noexcept nogil
# Begin a question of a meter that is suspect, or end one that runs for too long. asked_w: what each unit was asked for
# last, as the control meant it; lo_w, hi_w: the corridor that the site leaves; free: nothing but the control decides
# what the units do.
cdef void truth_ask(const program_t* program, truth_t* truth, const plant_t* plant, const double* asked_w,
                    double lo_w, double hi_w, bint free, uint64_t t_ns) noexcept nogil
# What a unit is asked for while a question runs, else wanted_w.
cdef inline double truth_order(const truth_t* truth, uint32_t unit, uint32_t n_units, double wanted_w) noexcept nogil:
    return truth.base_w[unit] + truth.step_w / n_units if truth.asking else wanted_w
