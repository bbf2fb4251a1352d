# ext/abi/bits.pxd: sets of units or rows as the bits of a word, walked from the lowest up.
from libc.stdint cimport uint32_t, uint64_t


cdef extern from *:
    """
    static inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); }
    """
    int lowest_bit(uint64_t word) noexcept nogil  # of a word that is not 0


cdef inline uint32_t random_next(uint32_t random) noexcept nogil:
    """A register with feedback, of 16 bits, seven bits further: the lowest seven have none in common with those before."""
    cdef int i
    random = random if random else 0xACE1u
    for i in range(7):
        random = (random >> 1) ^ (0xB400u if random & 1 else 0u)
    return random


cdef inline uint32_t first_bits(uint32_t count) noexcept nogil:
    """The `count` lowest of 32 bits."""
    return ~<uint32_t>0 if count >= 32 else (<uint32_t>1 << count) - 1
