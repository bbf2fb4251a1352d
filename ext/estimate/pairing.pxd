# ext/estimate/pairing.pxd: contents page of pairing.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tidegate.ext.estimate.estimate cimport LAGS, estimate_state_t, history_t, unit_memory_t
from tidegate.ext.abi.program cimport program_t


cdef extern from *:
    """
    #define LAG_NS_MAX 4305000000
    #define HISTORY_SPACING_NS (LAG_NS_MAX / (HISTORY_MAX / 2)) /* half of the ring for moves behind the oldest age */
    #define MOTION_W 20.0              /* smallest motion of a battery that counts */
    /* Ages of a grid reading that are tried, against those of the battery's: its readings may be the older ones. */
    static const int64_t LAG_NS[LAGS] __attribute__((unused)) = {
        -250000000, -200000000, -160000000, -130000000, -100000000, -80000000, -60000000, -45000000, -35000000,
        -25000000, -18000000, -12000000, -6000000, 0, 5000000, 10000000, 15000000, 20000000, 25000000, 30000000,
        35000000, 40000000, 42000000, 45000000, 47000000, 50000000, 53000000, 56000000, 60000000, 63000000, 67000000,
        71000000, 75000000, 79000000, 84000000, 89000000, 94000000, 100000000, 106000000, 112000000, 118000000,
        125000000, 133000000, 140000000, 149000000, 157000000, 167000000, 176000000, 187000000, 198000000, 209000000,
        222000000, 235000000, 248000000, 263000000, 278000000, 295000000, 312000000, 330000000, 350000000, 370000000,
        392000000, 415000000, 439000000, 465000000, 492000000, 521000000, 552000000, 584000000, 619000000, 655000000,
        693000000, 734000000, 777000000, 823000000, 871000000, 922000000, 977000000, 1034000000, 1095000000,
        1159000000, 1227000000, 1299000000, 1375000000, 1456000000, 1541000000, 1632000000, 1728000000, 1829000000,
        1937000000, 2050000000, 2171000000, 2298000000, 2433000000, 2576000000, 2727000000, 2887000000, 3057000000,
        3237000000, 3427000000, 3628000000, 3841000000, 4066000000, 4305000000,
    };
    """
    const double MOTION_W
    const int64_t LAG_NS_MAX
    const uint64_t HISTORY_SPACING_NS
    const int64_t LAG_NS[LAGS]


# Of all units, W.
cdef inline double nameplates(const program_t* program) noexcept nogil:
    cdef double w = 0.0
    cdef uint32_t unit
    for unit in range(program.n_units):
        w += <double>max(program.units[unit].gate.charge_w_max, program.units[unit].gate.discharge_w_max)
    return w


cdef inline uint64_t time_before(uint64_t t_ns, int64_t by_ns) noexcept nogil:
    return <uint64_t>(<int64_t>t_ns - by_ns) if <int64_t>t_ns > by_ns else 0


# Appends; readings closer than the spacing replace the newest, so that the ring spans the longest age.
cdef void history_add(history_t* h, uint64_t t_ns, double w, uint64_t spacing_ns) noexcept nogil

# What is known between a unit's newest reading and the next one, of w at taken_ns, goes into its history first.
cdef void history_fill_unit(unit_memory_t* m, uint64_t taken_ns, double w) noexcept nogil
# And into that of all units; before, it notes whether that is known of all.
cdef void history_fill_total(const program_t* program, estimate_state_t* state, uint64_t taken_ns) noexcept nogil

# Power at time t_ns by straight lines between readings; the first and the last reading hold outside.
cdef double history_at(const history_t* history, uint64_t t_ns) noexcept nogil

# Power at the times t_ns - LAG_NS[0..lags-1], into w.
cdef void history_sweep(const history_t* h, uint64_t t_ns, uint32_t lags, double* w) noexcept nogil

# Reading plus battery power of the same age, of the units in the mask `members`: its upper and its lower edge in before.
cdef void pair(const program_t* program, const estimate_state_t* state, uint32_t members, double reading_w,
               double* before, bint known, uint64_t sample_ns, uint64_t t_ns) noexcept nogil
