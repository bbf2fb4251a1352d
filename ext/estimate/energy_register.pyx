"""A grid meter's power against its own energy registers: neither battery nor load has to move for that.

What a meter shows of the power is the power of some moment ago, or an average of moments of late. So what it shows, added
up over some seconds, is a mixture of what flowed in windows of the same length that ended up to LATE_S before: no less than
the least of them and no more than the largest. The registers count what flowed in each. A meter looks at a restless
load now and then only, so FACTOR is left to that; to each window two of a register's last digits and one of the power's,
which may be rounded or not worth showing; to its ends what flows between two readings of them and of the power; and to each jump of the power what
flows in the interval of the meter that it falls in, for about zero a factor leaves nothing.

Found: power that is ten times or a tenth of the energy, power of the other sign, power that stands while the registers
move far more or far less. Not found: registers that stand or catch up at once (a meter that reports on change does both), whatever turns both, such as reversed
transformers, a lost phase, a meter that counts and shows absolute values; a share within FACTOR; anything behind a register
whose last digit is not moved in a few seconds, or which is polled too seldom.
"""

from libc.math cimport INFINITY, fabs, isfinite, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tidegate.ext.abi.extremes cimport fmax, fmin
from tidegate.ext.abi.image cimport (
    QUALITY_GOOD, REGISTERS_AGAINST, REGISTERS_AGREE, REGISTERS_HELD, REGISTERS_NONE, REGISTERS_SLOW, REGISTERS_STAND,
    REGISTERS_WAIT, point_t,
)
from tidegate.ext.abi.program cimport program_t


cdef extern from *:
    """
    #define ROWS_MASK 63u
    #define ROW_NS 400000000u       /* readings of the registers are kept no closer than that */
    #define WINDOW_S 4.0            /* least length that is compared, ... */
    #define WINDOW_INTERVALS 6.0    /* ... and so many intervals of the meter */
    #define LATE_S 12.0             /* oldest that a meter shows, its average counted in */
    #define INTERVAL_MOST_S 1.5     /* a meter that looks less often has seen too little of the load */
    #define GAP_S 3.0               /* registers or power missing for so long begin anew */
    #define FACTOR 4.0
    #define DIGITS 2.0              /* of the registers, in a window; twice what may be off */
    #define ENDS 0.25               /* of the time between two readings: so far off is an end on average */
    #define JUMPS 0.9               /* of the interval: so far off is the moment of a jump; three standard deviations of an even one */
    #define AGAINST 2u              /* windows in a row */
    #define STOOD_S 1.5             /* longer than it takes to read them again, ... */
    #define STOOD_INTERVALS 3.0
    #define CAUGHT_UP 0.4           /* ... and then by so much of what was shown, ... */
    #define CAUGHT_UP_DIGITS 3.0    /* ... by more than a digit turning over */
    """
    const uint32_t ROWS_MASK, AGAINST
    const uint64_t ROW_NS
    const double WINDOW_S, WINDOW_INTERVALS, LATE_S, INTERVAL_MOST_S, GAP_S, FACTOR, DIGITS, ENDS, JUMPS
    const double STOOD_S, STOOD_INTERVALS, CAUGHT_UP, CAUGHT_UP_DIGITS


cdef void energy_register_forget(energy_register_t* r) noexcept nogil:
    """The digits of the registers stay known."""
    r.count = 0
    r.power_t_ns = 0
    r.against = 0
    r.state = REGISTERS_WAIT


cdef void energy_register_power(energy_register_t* r, double grid_w, uint64_t t_ns) noexcept nogil:
    if r.power_t_ns and t_ns > r.power_t_ns:
        if t_ns - r.power_t_ns > <uint64_t>(GAP_S * 1e9):
            energy_register_forget(r)
        else:
            r.power_ws += r.power_w * <double>(t_ns - r.power_t_ns) * 1e-9
            r.jumps_w2 += (grid_w - r.power_w) * (grid_w - r.power_w)
    r.power_t_ns = t_ns
    r.power_w = grid_w


cdef inline double back_s(const energy_register_t* r, uint32_t number) noexcept nogil:
    """So much before the newest."""
    return <double>(r.t_ns[r.head] - r.t_ns[(r.head - number) & ROWS_MASK]) * 1e-9


cdef inline void note_digit(energy_register_t* r, double* step_ws, double moved_ws) noexcept nogil:
    """Moves of a register, and what they differ by, are whole numbers of its last digit."""
    cdef double off_ws = fabs(moved_ws - step_ws[0])
    if moved_ws <= 0.0:
        return
    if off_ws == 0.0 or step_ws[0] == 0.0:
        off_ws = moved_ws
    if r.least_ws == 0.0 or off_ws < r.least_ws:
        r.least_ws = off_ws
    step_ws[0] = moved_ws


cdef inline void note_standing(energy_register_t* r, double interval_s) noexcept nogil:
    """A register that stood for long and then moves by what power was shown meanwhile, in one step, is held by its meter.

    One that reports on change does so. Which of its windows some energy belongs to cannot be told.
    """
    cdef double moved_ws = r.counted_ws[r.head] - r.counted_ws[(r.head - 1) & ROWS_MASK]
    cdef double shown_ws = r.shown_ws[r.head] - r.moved_shown_ws
    if r.count < 2 or moved_ws == 0.0:
        return
    if r.moved_t_ns and <double>(r.t_ns[r.head] - r.moved_t_ns) * 1e-9 > fmax(STOOD_S, STOOD_INTERVALS * interval_s) and (
            fabs(moved_ws) > CAUGHT_UP_DIGITS * r.least_ws and moved_ws * shown_ws > CAUGHT_UP * shown_ws * shown_ws):
        r.holds = 1
    r.moved_t_ns = r.t_ns[r.head]
    r.moved_shown_ws = r.shown_ws[r.head]


cdef bint energy_register_contradicts(const program_t* program, const point_t* image, energy_register_t* r,
                                      double interval_s, double digit_w) noexcept nogil:
    cdef int into = program.site.grid_import_wh, out_of = program.site.grid_export_wh
    cdef double import_ws, export_ws = 0.0
    cdef uint64_t t_ns
    if into < 0 or out_of < 0:  # one register alone may stand for good reasons
        r.state = REGISTERS_NONE
        return False
    if r.state == REGISTERS_NONE:
        r.state = REGISTERS_WAIT
    if r.power_t_ns == 0:
        return False
    if image[into].quality != QUALITY_GOOD or image[out_of].quality != QUALITY_GOOD or not (
            isfinite(image[into].value) and isfinite(image[out_of].value)):
        energy_register_forget(r)
        return False
    t_ns = image[into].t_ns
    if t_ns < r.import_t_ns + ROW_NS or t_ns > r.power_t_ns or image[out_of].t_ns + ROW_NS < t_ns or image[out_of].t_ns > t_ns + ROW_NS:
        return r.against >= AGAINST
    import_ws = 3600.0 * image[into].value
    export_ws = 3600.0 * image[out_of].value
    if r.import_t_ns:
        note_digit(r, &r.import_step_ws, import_ws - r.import_ws)
        note_digit(r, &r.export_step_ws, export_ws - r.export_ws)
        if import_ws < r.import_ws or export_ws < r.export_ws or t_ns > r.import_t_ns + <uint64_t>(GAP_S * 1e9):
            r.count = r.against = 0  # reset, exchanged, or not heard for too long
    r.import_t_ns = t_ns
    r.import_ws = import_ws
    r.export_ws = export_ws
    r.head = (r.head + 1) & ROWS_MASK
    r.t_ns[r.head] = t_ns
    r.counted_ws[r.head] = import_ws - export_ws
    r.shown_ws[r.head] = r.power_ws - r.power_w * <double>(r.power_t_ns - t_ns) * 1e-9
    r.jumped_w2[r.head] = r.jumps_w2
    r.count = min(<uint32_t>(r.count + 1), <uint32_t>REGISTER_ROWS)
    note_standing(r, interval_s)
    r.state = compare(r, interval_s, digit_w)
    r.against = r.against + 1 if r.state == REGISTERS_AGAINST else 0
    return r.against >= AGAINST


cdef double flows_at_ends_ws(const energy_register_t* r, uint32_t rows, double window_s, double interval_s) noexcept nogil:
    """What may flow between two readings of registers and power at the ends of a window, Ws: as far as the power swings.

    How far that is, is seen from one move of the registers to another half a window later.
    """
    cdef double moved_ws, span_s = 0.0, slowest_s = 0.0, least_w = INFINITY, most_w = -INFINITY
    cdef uint32_t number, since = 0, before = 0, moves = 0
    for number in range(rows):
        if r.counted_ws[(r.head - number) & ROWS_MASK] == r.counted_ws[(r.head - number - 1) & ROWS_MASK]:
            continue
        if moves:
            slowest_s = fmax(slowest_s, back_s(r, number) - back_s(r, before))
            span_s = back_s(r, number) - back_s(r, since)
        before = number
        moves += 1
        if moves == 1:
            since = number
        elif span_s >= 0.5 * window_s:
            moved_ws = r.counted_ws[(r.head - since) & ROWS_MASK] - r.counted_ws[(r.head - number) & ROWS_MASK]
            least_w = fmin(least_w, (moved_ws + r.least_ws) / span_s)
            most_w = fmax(most_w, (moved_ws - r.least_ws) / span_s)
            since = number
    return ENDS * (slowest_s + interval_s) * fmax(most_w - least_w, 0.0)


cdef uint32_t compare(const energy_register_t* r, double interval_s, double digit_w) noexcept nogil:
    """The newest window of the power against all windows of the registers that it may be made of. Enum meter_registers."""
    cdef double window_s = fmax(WINDOW_S, WINDOW_INTERVALS * interval_s)
    cdef double shown_ws, moved_ws, rate_w, least_w = INFINITY, most_w = -INFINITY, off_w
    cdef uint32_t length = 1, number
    if r.holds:
        return REGISTERS_HELD
    if interval_s > INTERVAL_MOST_S:
        return REGISTERS_SLOW
    if interval_s <= 0.0 or r.least_ws == 0.0:
        return REGISTERS_WAIT
    while length + 1 < r.count and back_s(r, length) < window_s:
        length += 1
    if back_s(r, length) < window_s:
        return REGISTERS_WAIT
    shown_ws = r.shown_ws[r.head] - r.shown_ws[(r.head - length) & ROWS_MASK]
    rate_w = shown_ws / back_s(r, length)
    if r.counted_ws[r.head] == r.counted_ws[(r.head - length) & ROWS_MASK]:  # a meter that reports on change holds them too
        return REGISTERS_STAND
    number = 0
    while number + length < r.count:
        moved_ws = r.counted_ws[(r.head - number) & ROWS_MASK] - r.counted_ws[(r.head - number - length) & ROWS_MASK]
        moved_ws /= back_s(r, number + length) - back_s(r, number)
        least_w = fmin(least_w, moved_ws)
        most_w = fmax(most_w, moved_ws)
        if back_s(r, number) >= LATE_S:
            break
        number += 1
    if back_s(r, number) < LATE_S:  # not all of them are known yet
        return REGISTERS_WAIT
    off_w = digit_w + (DIGITS * r.least_ws + flows_at_ends_ws(r, number + length, window_s, interval_s)
                       + JUMPS * interval_s * sqrt(fmax(r.jumped_w2[r.head] - r.jumped_w2[(r.head - length) & ROWS_MASK], 0.0))) / window_s
    if rate_w > fmax(FACTOR * most_w, most_w / FACTOR) + off_w or (
            rate_w < fmin(FACTOR * least_w, least_w / FACTOR) - off_w):
        return REGISTERS_AGAINST
    return REGISTERS_AGREE


# ---------------------------------------------------------------- what Python sees


def contradictions(readings, double interval_s, double digit_w=0.0):
    """Times at which the registers contradict the power, s.

    readings: rows (t_s, power_w, import_wh, export_wh) as a meter shows them, rising in time; interval_s: it shows
    something new so often; digit_w: its power's least change. Raises MemoryError.
    """
    cdef program_t* program = <program_t*>calloc(1, sizeof(program_t))
    cdef energy_register_t r
    cdef point_t[2] image
    found = []
    if program == NULL:
        raise MemoryError("no memory for the program")
    memset(&r, 0, sizeof(r))
    memset(image, 0, sizeof(image))
    try:
        program.site.grid_import_wh = 0
        program.site.grid_export_wh = 1
        for t_s, power_w, import_wh, export_wh in readings:
            image[0].value, image[1].value = import_wh, export_wh
            for i in range(2):
                image[i].t_ns = <uint64_t>(t_s * 1e9)
                image[i].quality = QUALITY_GOOD
            energy_register_power(&r, power_w, image[0].t_ns)
            if energy_register_contradicts(program, image, &r, interval_s, digit_w):
                found.append(t_s)
    finally:
        free(program)
    return found
