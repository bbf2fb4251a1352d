# ext/cycle/episodes.pxd: when a state that changes is worth an event.
from libc.stdint cimport int32_t, uint32_t, uint64_t

# One state with fewer than 64 values, and what was told of it; begins with episodes_begin.
cdef struct episodes_t:
    uint64_t told_mask     # values told since the episode began, the one before it included
    uint64_t opened_t_ns   # first change of the episode; 0 = there is none
    uint64_t changed_t_ns  # newest change
    uint64_t told_t_ns     # newest event
    uint64_t quiet_ns      # an episode ends when nothing has changed for so long
    double credit          # events that may be told promptly
    uint64_t credit_t_ns   # ... at this time
    int32_t told, seen
    int32_t usual          # nothing to post: told when it stands, never at once; -1 = there is none
    uint32_t changes       # that no event has counted yet

# What an event says of the changes since the one before it.
cdef struct episode_word_t:
    int32_t code, previous
    uint32_t changes
    double lasted_s        # since the episode began


# Nothing can be due of a state that is at rest and stays as it is.
cdef inline bint episodes_rest(const episodes_t* episodes, int32_t now) noexcept nogil:
    return now == episodes.seen and episodes.opened_t_ns == 0

cdef void episodes_begin(episodes_t* episodes, int32_t usual) noexcept nogil
cdef bint episodes_step(episodes_t* episodes, int32_t now, bint urgent, uint64_t t_ns, episode_word_t* word) noexcept nogil
cdef bint episodes_end(episodes_t* episodes, uint64_t t_ns, episode_word_t* word) noexcept nogil
