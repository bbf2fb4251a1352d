# ext/estimate/contradiction.pxd: contents page of contradiction.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t
from tidegate.ext.estimate.likelihood cimport likelihood_t

cdef enum:
    KEPT = 64     # grid readings that are compared; a power of two
    ANSWERS = 2   # wrong ways to answer the battery that are looked for while the site runs
    SEEN = 256    # values of late, to know a sequence that comes again; a power of two
    SEEN_SLOTS = 512

# Why a running site's grid meter is suspect.
cdef enum:
    SUSPECT_NONE = 0
    SUSPECT_BELOW_ZERO  # the building would give power, further than it is known to
    SUSPECT_MIRRORED    # the value jumped to its opposite
    SUSPECT_TOO_FAR     # it moves several times as far as the battery does
    SUSPECT_AGAIN       # values that were shown before come again, in their order, though the battery does something else
    SUSPECT_JUMPED      # it jumped far further than the load does
    SUSPECT_TURNED      # the other sign is far more likely than what the load would have to do
    SUSPECT_SHARE       # another share is
    SUSPECT_UNSEEN      # that it shows the battery at all was not proven by the arming
    SUSPECT_AGE         # what is believed of its age explains clearly less than something else
    SUSPECT_PHASE       # one of its phases stands at zero, and what that phase should show of the battery is not known or too little

cdef struct contradiction_t:
    # readings, each with the battery power that belongs to it
    uint64_t t_ns[KEPT]
    double w[KEPT]
    double ess_w[KEPT]
    uint32_t head, count
    uint32_t waits, suspicion           # waits: so many of the newest have no battery power yet; enum suspect
    uint64_t done_ns                # up to where the readings were compared
    double noise_w                  # the load's own changes over a span: their median; 0 = none yet
    double proof_noise_w            # the same while it was only to be proven: that may be asked from the first cycle on
    double span_s
    double votes[ANSWERS]           # for that answer, against the honest one; old ones fade
    double largest_w                # of the load's changes over a span, of late
    double lowest_net_w             # the building gave as much without a lie
    # values in their order
    double seen_w[SEEN]
    double seen_ess_w[SEEN]
    uint32_t seen_head, seen_count
    uint32_t last_at[SEEN_SLOTS]    # number of the newest pair of values with that hash, + 1
    uint32_t again_at, again        # a sequence comes again: where, and so many clear steps of it so far
    likelihood_t likelihood
    double again_w                  # and the battery was so far from where it was then
    uint32_t mirrored, pad          # what is below zero came by a jump to its own opposite, which nothing but a sign makes

cdef void contradiction_forget(contradiction_t* c) noexcept nogil
# Once for each new grid reading of a running site. small_w: the meter's small changes; far_w: a move of the battery
# that must show; nameplate_w: of all units; asked: a question moves the battery.
cdef void contradiction_step(const program_t* program, const estimate_state_t* state, const plant_t* plant,
                             contradiction_t* c, double small_w, double far_w, double nameplate_w, bint asked, uint64_t value_ns) noexcept nogil
# A question begins that is no proof: without what the load does by itself no answer would be clear.
cdef void contradiction_asks(contradiction_t* c) noexcept nogil
# A question found it honest.
cdef void contradiction_cleared(contradiction_t* c, const plant_t* plant) noexcept nogil
# It was suspected to be turned, and now a turned meter is what the building cannot do: it would give power further than it
# is known to, and as shown it does not. off_w: so far may the battery's power be off while it is asked.
cdef bint contradiction_turns(const contradiction_t* c, const plant_t* plant, double far_w, double off_w) noexcept nogil
# A sequence has come again for so long that no load does it, whatever the battery did meanwhile.
cdef bint contradiction_repeats(const contradiction_t* c) noexcept nogil
# The load would have to do what it never does, unless the meter shows another share: its number + 1; 0 = none.
cdef uint32_t contradiction_sure(const contradiction_t* c, bint asked) noexcept nogil
# What the battery did when a reading of time t_ns was taken, W, as far as the meter's age is known.
cdef double then_w(const program_t* program, const estimate_state_t* state, uint64_t t_ns) noexcept nogil
