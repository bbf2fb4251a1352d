# ext/estimate/truth.pxd: contents page of truth.pyx.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport UNITS_MAX, point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.coincidence cimport coincidence_t
from tidegate.ext.estimate.contradiction cimport contradiction_t
from tidegate.ext.estimate.energy_register cimport energy_register_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t
from tidegate.ext.estimate.phases cimport phases_t
from tidegate.ext.estimate.pulses cimport pulses_t
from tidegate.ext.estimate.question cimport question_t

cdef extern from *:
    """
    #define STEP_SHARE_MOST 0.2 /* of the nameplates: no question asks with a larger step */
    """
    const double STEP_SHARE_MOST

# What is asked of the meter.
cdef enum:
    ASK_NOTHING = 0
    ASK_STILL     # a value that stands: does it move?
    ASK_ANSWER    # a value that contradicts the battery: how does it answer?
    ASK_PHASE     # a phase that stands at zero: does it show the battery?

# What the battery's moves have shown of the grid meter.
cdef struct truth_t:
    uint32_t verdict          # enum meter_verdict
    int32_t mode              # of the site, in the cycle before
    uint32_t doubted          # turned or of another share once: it has to show itself right before it is armed with again
    uint32_t shown            # 1 = in this cycle it was shown that the meter shows the battery
    uint64_t seen_t_ns        # stamp of the newest reading
    # a value that stands still
    double value_w, least_w   # least: size of the meter's small changes; 0 = none yet
    uint64_t value_t_ns       # its first stamp; 0 = none
    double ess_lo_w, ess_hi_w # what the battery did when the value may have been taken
    uint64_t away_t_ns        # the battery was away from there first; 0 = it has not been
    uint64_t gone_t_ns        # ... and has not come back since; 0 = it is there
    double still_s            # longest that a value stood which then moved: this meter's, and this load's, habit
    double gone_s             # the same while the battery was away: this meter's alone
    double shown_s            # a move of the battery had to show within this, as the meter was known before its value stood
    # what is asked: the units are held, a step is put on top
    uint32_t asking, asked    # asked: of a value that stands, how far the step is
    double step_w             # of all units
    double base_w[UNITS_MAX]  # what each is held at
    double ess_w              # all of that
    uint64_t ask_t_ns, asked_t_ns, again_ns
    uint64_t away_again_ns      # the same where the battery has moved while the value stands
    double answer_s           # a converter has answered its setpoint after so long
    double rest_s             # the next question waits so long; doubled by each that was unfounded
    uint64_t suspect_again_ns   # the same of a value that contradicts
    uint64_t below_again_ns     # ... and of a building that seems to give power
    double suspect_rest_s
    uint64_t unseen_again_ns    # ... and of one that has yet to show that it sees the battery
    double unseen_rest_s
    uint64_t age_again_ns       # ... and of one that has become another
    double age_rest_s
    uint64_t age_suspect_ns       # since when its age is doubted; 0 = it is not
    double age_interval_s         # the meter's interval when what is believed of its age was found
    uint64_t age_asked_ns         # the newest question of that whose steps have begun to tell
    uint32_t age_was_known
    uint32_t age_open         # 1 = a question has ended, and something else still explains more than what is believed of its age
    question_t question
    contradiction_t contradiction
    pulses_t pulses
    double phase_w, phase_rest_s # a move so far shows whether a phase is lost, 0 = none does; the next question waits so long
    double phase_up_w, phase_down_w # what is asked of a phase: beyond these, from what the units are held at, it is told
    coincidence_t coincidence
    uint32_t met              # 1 = by it the meter shows the battery
    uint32_t random           # of the steps that a running site gives for it:
    uint64_t stir_due_ns      # the next edge
    double stir_w             # what the newest is to be; 0 = none
    uint64_t phase_again_ns
    energy_register_t energy
    phases_t phases

# Once a cycle, after the estimate.
cdef void truth_step(const program_t* program, point_t* image, const estimate_state_t* state, const plant_t* plant,
                     truth_t* truth, int32_t mode, uint64_t t_ns) noexcept nogil
# Whether the meter is to be asked: a value has stood for longer than it should, or contradicts the battery.
cdef bint truth_suspects(const truth_t* truth, const estimate_state_t* state, uint64_t t_ns) noexcept nogil
# Begin a question of a meter that is suspect, or end one that runs for too long. asked_w: what each unit was asked for
# last, as the control meant it; lo_w, hi_w: the corridor that the site leaves; limits_hi_w: what its limits
# alone leave upward; free: nothing but the control decides
# what the units do.
cdef void truth_ask(const program_t* program, truth_t* truth, const plant_t* plant, const double* asked_w,
                    double lo_w, double hi_w, double limits_hi_w, bint free, uint64_t t_ns) noexcept nogil
# What a unit is asked for while a question runs, else wanted_w.
cdef inline double truth_order(const truth_t* truth, uint32_t unit, uint32_t n_units, double wanted_w) noexcept nogil:
    cdef double step_w = truth.step_w / n_units
    if truth.asking == ASK_STILL:
        return truth.base_w[unit] + step_w
    if truth.asking == ASK_PHASE:  # a phase shows any move: what the control wants beyond what tells is one
        return truth.base_w[unit] + step_w if (
            truth.phase_down_w < (wanted_w - truth.base_w[unit]) * n_units < truth.phase_up_w) else wanted_w
    if truth.asking == ASK_ANSWER:
        return truth.base_w[unit] + (truth.question.step_w / n_units if truth.question.level else 0.0)
    return wanted_w
