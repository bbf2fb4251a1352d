# ext/safety/cabinet.pxd: the state of one cabinet (a storage unit), and what it may do in it.
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tidegate.ext.safety.safety cimport gate_verdict_t
from tidegate.ext.abi.image cimport point_t

cpdef enum:
    # The step test: a small power, asked of the converter and looked for at its terminals, before it gets more.
    STEP_PERMILLE = 20       # of the nameplate
    STEP_W_MIN = 200         # below that a meter's resolution is all that would be seen
    STEP_READINGS = 2        # so many in a row must agree, or disagree
    # Then pulses of more power, until the meter has shown how old its readings are.
    PROBE_PERMILLE = 100     # of the nameplate, where the corridor leaves it
    RETURN_S = 2             # from manual back to automatic: the nameplate in this many seconds, for this long

cdef double STEP_WAIT_S  # the converter has not followed by then: failed

# What speaks so far for a grid meter that shows the battery, while that is not known.
cdef enum answer_wanted:
    ANSWER_LIKELY = 1
    ANSWER_POSSIBLE
    ANSWER_DOUBTFUL
    ANSWER_UNLIKELY

cdef enum step_result:
    STEP_OPEN = 0
    STEP_PASSED
    STEP_FAILED

# What moves the machine; each 0 or 1 but `step`.
cdef struct cabinet_facts_t:
    uint32_t tripped   # the gate gives nothing until it is armed
    uint32_t stop      # an order to stop, or the end of the run
    uint32_t derated   # a reaction from derate upwards
    uint32_t moving    # the setpoint is not 0
    uint32_t manual    # a manual order is in force
    uint32_t step      # enum step_result
    uint32_t probed    # the pulses are done

cdef struct cabinet_t:
    int32_t mode       # enum mode of image.h
    # step test
    int32_t size_w     # what the step is to be
    int32_t step_w     # setpoint that is looked at; 0 = the converter has yet to rest
    uint32_t step      # enum step_result
    uint32_t agree, differ
    double noise_w     # what its reading moved by while it rested
    double most        # share of the step that was seen at most
    double stands_s    # it has not risen for so long
    uint32_t stands    # readings in that time
    # pulses
    uint32_t probed    # 1 = done
    uint32_t unseen    # 1 = done, and the grid meter showed nothing of them
    uint32_t turns     # edges given so far; odd = on
    uint32_t fresh     # 1 = in this cycle the meter shows something new
    uint32_t random    # behind a slow meter: length and size of the newest
    double probe_s, turn_s # since the first; left until the next
    double turn_from_w     # setpoint before the last
    uint32_t joined        # 1 = pulses as one with those that arm at once: ...
    double kept_from_w     # ... turn_from_w before an edge that others had yet to follow
    double pulse_w         # the one of now, beside what the limits need; 0 = none
    double needed_w        # what the limits need beside them
    uint32_t needed_turn   # since that edge
    uint32_t late              # 1 = the corridor of late is known:
    double late_lo_w[2], late_hi_w[2] # the narrowest of now and of the time before
    double late_s[2]           # that "now" has left, for each
    double base_w, waited_s
    double echo_s      # for so long the converter may still be answering an earlier setpoint; outlives an arming
    uint64_t seen_t_ns
    # the way back from manual
    double return_s

# The machine alone: next state from state and facts. Pure; every pair of them is explored in a test.
cdef int32_t cabinet_next(int32_t mode, const cabinet_facts_t* facts) noexcept nogil
# What of `wanted_w` the unit may ask of the gate in its state. trusted_w: so much discharge that the limits need may be made
# of what the grid meter shows while the unit arms; infinite = it has shown that it goes against the battery, so charge
# as well; arming: so many units do.
cdef double cabinet_request(cabinet_t* cabinet, const gate_verdict_t* last, double wanted_w, double lo_w, double hi_w,
                            double nameplate_w, uint32_t manual, double trusted_w, uint32_t arming, double interval_s,
                            double dt_s) noexcept nogil
# After the gate: look at the step test, then move. pcs_w: the converter's power, NULL = its map has none.
# age_wanted: how old the grid meter's readings are is to be found; answer_wanted: whether it shows the battery
# at all (enum answer_wanted), 0 = it does; interval_s: it shows something new so often; answer_s: the converter has
# answered a setpoint by then.
cdef void cabinet_step(cabinet_t* cabinet, const gate_verdict_t* verdict, uint32_t stop, uint32_t manual,
                       const point_t* pcs_w, uint32_t age_wanted, uint32_t answer_wanted, double interval_s, double answer_s,
                       double dt_s) noexcept nogil
# After all units' cabinet_step: those that pulse do it as one.
cdef void pulse_as_one(cabinet_t* cabinets, uint32_t n_units) noexcept nogil
# What the site as a whole is doing: its most active unit's state, derated while another is tripped.
cdef int32_t site_mode(const cabinet_t* cabinets, uint32_t n_units) noexcept nogil
