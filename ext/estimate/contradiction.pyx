"""A running site's grid meter against what physics allows: what makes a reading suspect.

Nothing here is a verdict. The battery follows the meter, so what the two do together proves nothing of either: a load
that rises faster than the converter looks like a meter that is turned, one that is followed well like a meter that
shows nothing. What is suspect is asked (question.pyx), by steps
that follow no reading. Each cause for that is cheap, and rare before an honest meter:

- a building that gives power, further than it is known to: the sign has turned;
- a value that jumps to its own opposite: the same, where a building gives power;
- a meter that answers the battery with several times what the battery did;
- a jump far beyond what this load was seen to do;
- another share of the power is far more likely than the whole of it (likelihood.pyx);
- values that come again in their order, to the digit, though the battery does something else than it did then.
"""

from libc.math cimport fabs
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t
from tidegate.ext.estimate.interval cimport SAME_INTERVALS, compared_s
from tidegate.ext.estimate.likelihood cimport likelihood_forget, likelihood_reading, likelihood_suspects, likelihood_sure
from tidegate.ext.estimate.pairing cimport history_at, time_before
from tidegate.ext.estimate.shape cimport model_w


cdef extern from *:
    """
    #define KEPT_MASK 63u          /* KEPT - 1 */
    #define SEEN_MASK 255u
    #define SLOT_MASK 511u
    #define SAMPLE_NS 25000000u
    #define WAIT_NS 400000000u     /* a reading waits at most so long for the battery's reading of the same moment */
    #define SPANS_MOST 4.0         /* changes are compared over no more than so many times as long as they need */
    #define VOTES_S 6.0            /* votes fade in so long */
    #define VOTES 0.4              /* so many more for a wrong answer than for the honest one make it suspect */
    #define ROUGH 0.08
    #define NOISE_RATE 0.06
    #define ZERO_NOISE 4.0         /* a load so many of its usual changes below zero is below zero */
    #define MIRROR_NOISE 3.0
    #define MIRROR_FAR 4.0         /* times far_w: a smaller jump is no mirror */
    #define AGAIN 4                /* clear steps that come again make it suspect, ... */
    #define AGAIN_SURE 9           /* ... and so many, steps of the battery among them, are a verdict */
    #define JUMPED 3.0             /* times the largest change of late */
    #define JUMPED_FAR 10.0        /* ... and times a move of the battery that must show */
    #define LARGEST_FIRST 0.3
    #define LARGEST_S 600.0        /* a change is forgotten in so long */
    #define CLEAR_STEP 6.0         /* of the meter's small changes */
    static const double ANSWER_SHARE[2] = {3.0, 10.0}; /* of the battery's move, against it; an honest meter's is 1 */
    """
    const uint32_t KEPT_MASK, SEEN_MASK, SLOT_MASK, AGAIN, AGAIN_SURE
    const uint64_t SAMPLE_NS, WAIT_NS
    const double SPANS_MOST, VOTES_S, VOTES, ROUGH, NOISE_RATE
    const double ZERO_NOISE, MIRROR_NOISE, MIRROR_FAR, CLEAR_STEP, JUMPED, JUMPED_FAR, LARGEST_S, LARGEST_FIRST
    const double[ANSWERS] ANSWER_SHARE


cdef void contradiction_forget(contradiction_t* c) noexcept nogil:
    """Readings across a gap are not compared; what is known of the building stays known."""
    c.count = c.waits = 0
    likelihood_forget(&c.likelihood)
    c.again = 0
    c.seen_count = 0
    memset(c.votes, 0, sizeof(c.votes))
    memset(c.last_at, 0, sizeof(c.last_at))
    c.suspicion = SUSPECT_NONE
    c.mirrored = 0


cdef void contradiction_cleared(contradiction_t* c, const plant_t* plant) noexcept nogil:
    if c.suspicion == SUSPECT_BELOW_ZERO:
        c.lowest_net_w = fmin(c.lowest_net_w, 1.25 * (plant.net_w + plant.pv_w))
    memset(c.votes, 0, sizeof(c.votes))
    likelihood_forget(&c.likelihood)
    c.again = 0
    c.suspicion = SUSPECT_NONE
    c.mirrored = 0


cdef uint32_t contradiction_sure(const contradiction_t* c, bint asked) noexcept nogil:
    return likelihood_sure(&c.likelihood, asked, c.mirrored != 0)


cdef double then_w(const program_t* program, const estimate_state_t* state, uint64_t t_ns) noexcept nogil:
    """What the battery did when a reading was taken."""
    cdef double age_s = state.age_s
    if state.models.averages and state.shapes.count:
        return model_w(&state.shapes, state.models.near[0], t_ns)
    if not (state.age_known or state.lags.used):
        age_s = 0.5 * (program.control.first_age_lo_s + program.control.first_age_hi_s)  # both 0: nothing is known
    return history_at(&state.total, time_before(t_ns, <int64_t>(age_s * 1e9)))


cdef void contradiction_step(const program_t* program, const estimate_state_t* state, const plant_t* plant,
                             contradiction_t* c, double small_w, double far_w, double nameplate_w, bint asked,
                             uint64_t value_ns) noexcept nogil:
    cdef uint64_t t_ns = plant.grid_t_ns
    cdef bint again = comes_again(c, plant.grid_w, state.total.w[state.total.head], small_w, far_w)
    if c.suspicion != SUSPECT_BELOW_ZERO and is_below_zero(c, plant, far_w) and (
            not asked or is_mirrored(c, plant, far_w)):
        c.suspicion = SUSPECT_BELOW_ZERO  # whatever weaker one waits for its rest to end, and what it asks ends
        c.mirrored = is_mirrored(c, plant, far_w)
    if not asked and c.suspicion == SUSPECT_NONE:
        if is_mirrored(c, plant, far_w):
            c.suspicion = SUSPECT_MIRRORED
            c.mirrored = 1
        elif again:
            c.suspicion = SUSPECT_AGAIN
    if c.count and t_ns < c.t_ns[c.head] + SAMPLE_NS:
        return
    # A register that is read again before it was measured anew holds what it held, while the battery has answered it since.
    if value_ns < t_ns < value_ns + <uint64_t>(SAME_INTERVALS * state.lags.interval.interval_s * 1e9):
        return
    c.head = (c.head + 1) & KEPT_MASK
    c.t_ns[c.head] = t_ns
    c.w[c.head] = plant.grid_w
    c.count = min(<uint32_t>(c.count + 1), <uint32_t>KEPT)
    c.waits = min(<uint32_t>(c.waits + 1), <uint32_t>KEPT)
    compare_waiting(program, state, c, far_w, nameplate_w, asked, t_ns)


cdef bint contradiction_turns(const contradiction_t* c, const plant_t* plant, double far_w, double off_w) noexcept nogil:
    cdef double margin_w = fmax(far_w, ZERO_NOISE * c.noise_w), shown_w = plant.net_w + plant.pv_w
    return shown_w > c.lowest_net_w - margin_w + off_w and shown_w - 2.0 * plant.grid_w < c.lowest_net_w - margin_w - off_w


cdef inline bint is_below_zero(const contradiction_t* c, const plant_t* plant, double far_w) noexcept nogil:
    return plant.net_w + plant.pv_w < c.lowest_net_w - fmax(far_w, ZERO_NOISE * c.noise_w)


cdef inline bint is_mirrored(const contradiction_t* c, const plant_t* plant, double far_w) noexcept nogil:
    cdef double before_w = c.w[c.head]
    return (
        c.count > 0 and fabs(plant.grid_w - before_w) > MIRROR_FAR * far_w
        and fabs(plant.grid_w + before_w) < fmax(0.3 * far_w, MIRROR_NOISE * c.noise_w)
        and fabs(plant.grid_w + before_w) < 0.1 * fabs(plant.grid_w - before_w)
    )


cdef void compare_waiting(const program_t* program, const estimate_state_t* state, contradiction_t* c, double far_w,
                          double nameplate_w, bint asked, uint64_t now_ns) noexcept nogil:
    """Each reading once the battery's power of its moment is known."""
    cdef uint32_t at, share
    while c.waits:
        at = (c.head + 1 - c.waits) & KEPT_MASK
        if time_before(c.t_ns[at], <int64_t>(state.age_lo_s * 1e9)) > state.total.t_ns[state.total.head] and (
                c.t_ns[at] + WAIT_NS > now_ns):
            return
        c.ess_w[at] = then_w(program, state, c.t_ns[at])
        likelihood_reading(state, &c.likelihood, c.w[at], c.ess_w[at], nameplate_w,
                           not asked and c.suspicion == SUSPECT_NONE, c.t_ns[at])
        share = likelihood_suspects(&c.likelihood)
        if share and c.suspicion == SUSPECT_NONE and not asked:
            c.suspicion = SUSPECT_TURNED if share == 1 else SUSPECT_SHARE
        compare(state, c, at, far_w, asked)
        c.waits -= 1


cdef inline double median_w(double noise_w, double off_w, double share) noexcept nogil:
    if noise_w == 0.0:
        noise_w = fmax(off_w, 1.0)
    return fmax(noise_w * (1.0 + NOISE_RATE * share if off_w > noise_w else 1.0 - NOISE_RATE * share), 1.0)


cdef void contradiction_asks(contradiction_t* c) noexcept nogil:
    if c.noise_w == 0.0:
        c.noise_w = c.proof_noise_w


cdef void compare(const estimate_state_t* state, contradiction_t* c, uint32_t at, double far_w,
                  bint asked) noexcept nogil:
    cdef double span_s = compared_s(state)
    cdef double grid_w, ess_w, share, noise_w2, rough_w, honest, off_w, apart_s
    cdef uint32_t i, number, before = at
    for number in range(1, <uint32_t>(c.count - c.waits + 1)):
        before = (at - number) & KEPT_MASK
        if c.t_ns[at] >= c.t_ns[before] + <uint64_t>(span_s * 1e9):
            break
    apart_s = <double>(c.t_ns[at] - c.t_ns[before]) * 1e-9
    if before == at or apart_s < 0.9 * span_s or apart_s > SPANS_MOST * span_s:
        c.done_ns = c.t_ns[at]
        return
    share = fmin(<double>(c.t_ns[at] - c.done_ns) * 1e-9 / span_s, 1.0)  # spans overlap: so much of this one is new
    c.done_ns = c.t_ns[at]
    c.span_s = span_s
    grid_w = c.w[at] - c.w[before]
    ess_w = c.ess_w[at] - c.ess_w[before]
    off_w = fabs(grid_w + ess_w)
    if not asked:
        c.noise_w = median_w(c.noise_w, off_w, share)
    elif c.suspicion == SUSPECT_UNSEEN:
        c.proof_noise_w = median_w(c.proof_noise_w, off_w, share)
    if c.largest_w == 0.0:  # until more is known a load may change by what it is
        c.largest_w = LARGEST_FIRST * fabs(c.w[at])
    if off_w > fmax(JUMPED * c.largest_w, JUMPED_FAR * far_w) and c.suspicion == SUSPECT_NONE and not asked:
        c.suspicion = SUSPECT_JUMPED
    c.largest_w = fmax(off_w, c.largest_w * fmax(1.0 - share * span_s / LARGEST_S, 0.0))
    for i in range(<uint32_t>ANSWERS):
        c.votes[i] *= fmax(1.0 - share * span_s / VOTES_S, 0.0)
    if asked or fabs(ess_w) < far_w or not (state.age_known or state.lags.used or state.models.averages):
        return
    noise_w2 = 4.0 * c.noise_w * c.noise_w
    honest = off_w * off_w / (off_w * off_w + noise_w2 + ess_w * ess_w)
    for i in range(<uint32_t>ANSWERS):
        off_w = grid_w + ANSWER_SHARE[i] * ess_w
        rough_w = ROUGH * ANSWER_SHARE[i] * ess_w
        c.votes[i] += share * (honest - off_w * off_w / (off_w * off_w + noise_w2 + rough_w * rough_w))
        c.votes[i] = fmax(c.votes[i], 0.0)
        if c.votes[i] > VOTES and c.suspicion == SUSPECT_NONE:
            c.suspicion = SUSPECT_TOO_FAR


# ---------------------------------------------------------------- values that come again


cdef inline uint32_t pair_slot(double a, double b) noexcept nogil:
    cdef uint64_t bits_a, bits_b
    memcpy(&bits_a, &a, sizeof(bits_a))
    memcpy(&bits_b, &b, sizeof(bits_b))
    return <uint32_t>((bits_a * <uint64_t>0x9E3779B97F4A7C15 + bits_b * <uint64_t>0xC2B2AE3D27D4EB4F) >> 40) & SLOT_MASK


cdef bint contradiction_repeats(const contradiction_t* c) noexcept nogil:
    return c.again >= AGAIN_SURE


cdef bint comes_again(contradiction_t* c, double value_w, double ess_w, double small_w, double far_w) noexcept nogil:
    """Takes a value over. A repeated sequence is followed from where it was seen first, value by value."""
    cdef uint32_t slot, at, number
    cdef double before_w = c.seen_w[c.seen_head & SEEN_MASK]
    cdef bint clear
    if c.seen_count and value_w == before_w:
        return False
    clear = c.seen_count > 0 and fabs(value_w - before_w) > CLEAR_STEP * fmax(small_w, 1.0)
    slot = pair_slot(before_w, value_w)
    if c.again and c.again_at < c.seen_head and c.seen_w[(c.again_at + 1) & SEEN_MASK] == value_w:
        c.again_at += 1
        c.again += clear
        c.again_w = fmax(c.again_w, fabs(ess_w - c.seen_ess_w[c.again_at & SEEN_MASK]))
    else:
        c.again = 0
        number = c.last_at[slot]
        if number and clear and c.seen_head + 1 - number < SEEN - 1:
            at = number - 1
            if c.seen_w[at & SEEN_MASK] == value_w and c.seen_w[(at - 1) & SEEN_MASK] == before_w:
                c.again = 1
                c.again_at = at
                c.again_w = fabs(ess_w - c.seen_ess_w[at & SEEN_MASK])
    c.seen_head += 1
    c.seen_w[c.seen_head & SEEN_MASK] = value_w
    c.seen_ess_w[c.seen_head & SEEN_MASK] = ess_w
    c.seen_count = min(<uint32_t>(c.seen_count + 1), <uint32_t>SEEN)
    c.last_at[slot] = c.seen_head + 1
    return c.again >= AGAIN and c.again_w > far_w
