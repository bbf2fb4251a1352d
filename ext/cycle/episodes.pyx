"""When a state that changes is worth an event: what a person would call a change, with how often it did in between.

A first change is told at once, and so is each value that was not told yet since then: an episode. While it lasts, a
value that comes again is counted, and told when it stands; so is the usual one, which tells that a trouble is over. The episode ends when nothing has changed for a time: the
last event has the state that was left, the number of changes that no event told and the time since the episode began.
That time is a second. A state has credit for some events and earns more with time; one that has used it up waits four
times as long with every further episode, so that a plant that never rests is told in fewer words. No change is lost:
the sum of the counts is their number.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset


cdef extern from *:
    """
    #define QUIET_FIRST_NS 1000000000ull
    #define QUIET_MAX_NS 4096000000000ull
    #define QUIET_GROWTH 4u
    #define STAND_SHARE 4u              /* of the quiet time: a value that stands so long is told */
    #define STAND_LEAST_NS 1000000000ull
    #define CREDIT_MAX 8.0              /* events told promptly ... */
    #define CREDIT_BACK 4.0             /* ... and from here on again */
    #define CREDIT_PER_NS (4.0 / 3600e9)
    #define STILL_NS 3600000000000ull   /* an episode that goes on says so */
    """
    const uint64_t QUIET_FIRST_NS, QUIET_MAX_NS, QUIET_GROWTH, STAND_SHARE, STAND_LEAST_NS, STILL_NS
    const double CREDIT_MAX, CREDIT_BACK, CREDIT_PER_NS


cdef void episodes_begin(episodes_t* episodes, int32_t usual) noexcept nogil:
    """Nothing to post while the state is `usual`; -1: the first state is told, and none is usual."""
    memset(episodes, 0, sizeof(episodes_t))
    episodes.told = usual
    episodes.seen = usual
    episodes.usual = usual
    episodes.credit = CREDIT_MAX
    episodes.quiet_ns = QUIET_FIRST_NS


cdef inline uint64_t bit_of(int32_t value) noexcept nogil:
    return <uint64_t>1 << (<uint32_t>value & 63)


cdef inline uint64_t stand_ns(const episodes_t* episodes) noexcept nogil:
    return max(episodes.quiet_ns // STAND_SHARE, STAND_LEAST_NS)


cdef void repeat(episodes_t* episodes, uint64_t t_ns) noexcept nogil:
    """Another episode begins: promptly while there is credit, else it lasts longer than the one before."""
    episodes.credit = min(episodes.credit + CREDIT_PER_NS * <double>(t_ns - episodes.credit_t_ns), CREDIT_MAX)
    episodes.credit_t_ns = t_ns
    if episodes.credit >= CREDIT_BACK:
        episodes.quiet_ns = QUIET_FIRST_NS
    elif episodes.credit < 1.0:
        episodes.quiet_ns = min(episodes.quiet_ns * QUIET_GROWTH, QUIET_MAX_NS)


cdef bint post(episodes_t* episodes, uint64_t t_ns, episode_word_t* word) noexcept nogil:
    word.code = episodes.seen
    word.previous = episodes.told
    word.changes = episodes.changes
    word.lasted_s = <double>(t_ns - episodes.opened_t_ns) * 1e-9
    episodes.told = episodes.seen
    episodes.told_mask |= bit_of(episodes.seen)
    episodes.told_t_ns = t_ns
    episodes.changes = 0
    episodes.credit = max(episodes.credit - 1.0, 0.0)
    return 1


cdef bint episodes_step(episodes_t* episodes, int32_t now, bint urgent, uint64_t t_ns, episode_word_t* word) noexcept nogil:
    """1 if there is something to post: `word`. urgent: this change is told whatever came before it."""
    cdef uint64_t stood_ns
    if now == episodes.seen and episodes.opened_t_ns == 0:  # the usual case
        return 0
    if now != episodes.seen:
        if episodes.opened_t_ns == 0:
            repeat(episodes, t_ns)
            episodes.opened_t_ns = t_ns
            episodes.told_mask = bit_of(episodes.told) | bit_of(episodes.usual)
        elif t_ns - episodes.changed_t_ns >= stand_ns(episodes):  # it was told, and did not stand: as good as another episode
            repeat(episodes, t_ns)
        episodes.seen = now
        episodes.changed_t_ns = t_ns
        episodes.changes += 1
        if urgent or not episodes.told_mask & bit_of(now) or t_ns - episodes.told_t_ns >= STILL_NS:
            return post(episodes, t_ns, word)
        return 0
    stood_ns = t_ns - episodes.changed_t_ns
    if stood_ns >= episodes.quiet_ns:
        return episodes_end(episodes, t_ns, word)
    if (episodes.seen != episodes.told and stood_ns >= stand_ns(episodes)) or (episodes.changes and t_ns - episodes.told_t_ns >= STILL_NS):
        return post(episodes, t_ns, word)
    return 0


cdef bint episodes_end(episodes_t* episodes, uint64_t t_ns, episode_word_t* word) noexcept nogil:
    """End the episode; 1 if changes are left to post."""
    cdef bint told = 0
    if episodes.opened_t_ns and episodes.changes:
        told = post(episodes, episodes.changed_t_ns, word)
    episodes.opened_t_ns = 0
    return told


# ---------------------------------------------------------------- Python view


cdef class Episodes:
    """One state over time. For tests."""

    cdef episodes_t episodes

    def __init__(self, int usual=-1):
        episodes_begin(&self.episodes, usual)

    def step(self, int now, double t_s, bint urgent=False):
        """(code, previous, changes, lasted s) of the event that is due, or None. t_s : rising, > 0."""
        cdef episode_word_t word
        if episodes_step(&self.episodes, now, urgent, <uint64_t>(t_s * 1e9), &word):
            return word.code, word.previous, word.changes, word.lasted_s
        return None

    def end(self, double t_s):
        """The same when nothing follows any more."""
        cdef episode_word_t word
        if episodes_end(&self.episodes, <uint64_t>(t_s * 1e9), &word):
            return word.code, word.previous, word.changes, word.lasted_s
        return None
