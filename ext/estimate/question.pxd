# ext/estimate/question.pxd: contents page of question.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.contradiction cimport contradiction_t
from tidegate.ext.estimate.estimate cimport estimate_state_t

cdef enum:
    EDGES_MOST = 24

# Whether it has been looked at where the newest edge goes.
cdef enum:
    EDGE_NEW = 0
    EDGE_PLACED
    EDGE_ANYWAY  # there was no room for it, and it goes as it would have gone

# What the edges of a question have shown.
cdef enum:
    FOUND_OPEN
    FOUND_HONEST
    FOUND_TURNED
    FOUND_SHARE
    FOUND_NOTHING  # it will not be told: too long, or the converter does not give the step

cdef struct question_t:
    uint32_t level, edges       # level: 1 = the step is put on top; edges: so many were answered
    uint32_t random, suspicion      # suspicion: what made the meter suspect
    uint32_t patient, placed    # patient: edges stand for long; placed: enum above
    double step_w               # of all units
    double raised_w             # what they are held at has been raised by so much since the newest edge
    double full_w, least_w      # so large is an edge where there is room for it; a smaller one than least tells nothing
    double held_w               # what they are held at without it
    double left                 # of a phase that may be lost: what the total shows without it
    double before_w             # the reading before the newest edge ...
    double before_ess_w         # ... and what the battery did then
    uint64_t begun_ns, edge_ns, before_ns, edge_due_ns
    double answer[EDGES_MOST]   # share of the battery's move that the grid showed, against it: an honest meter's is 1
    double clear[EDGES_MOST]    # the move, of what the load does meanwhile
    double seldom               # so seldom does the load alone make such answers: logarithm of the chance, from zero up

# Begin: the units are held at held_w; step_w: what an edge is to move; least_w: no less tells; suspicion: why.
cdef void question_begin(question_t* q, double step_w, double least_w, double held_w, uint32_t suspicion, uint64_t t_ns) noexcept nogil
# The newest edge goes by step_w from where the units were, upwards if up; what they are held at below it is the new base.
cdef void question_place(question_t* q, double base_w, double step_w, bint up) noexcept nogil
# It waits for room instead.
cdef void question_waits(question_t* q) noexcept nogil
# A new reading. value_ns: stamp from which on it stands. step_most_w: no step is larger; answer_s: a converter has answered
# its setpoint after so long. Returns what was found.
cdef uint32_t question_reading(const program_t* program, const estimate_state_t* state, const contradiction_t* c,
                               question_t* q, double grid_w, uint64_t value_ns, uint64_t t_ns, double small_w,
                               double step_most_w, double answer_s) noexcept nogil
# Whether a proof is looked for before a load that hardly moves beside the step: then it may take its time.
cdef bint proves_quietly(uint32_t suspicion, const contradiction_t* c, double step_w) noexcept nogil
# Whether a question that such a suspicion is worth can be answered in its time.
cdef bint question_fits(uint32_t suspicion, double answer_s) noexcept nogil
# What the units are held at was raised; fresh: by no later reading than the newest edge, so it is a part of that. By more
# than a part of the step the edge of before is not counted, the next one begins once they stand again.
cdef void question_raised(question_t* q, double raised_w, bint fresh) noexcept nogil
# Whether of at least so many edges most were answered more like by this share than like by an honest meter.
cdef bint question_agrees(const question_t* q, double share, uint32_t edges_least) noexcept nogil
