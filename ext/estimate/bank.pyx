"""Several batteries behind one converter, as one: the points that diagnosis, estimate and control take for the battery's.

The gate does not read them: it works the limits out of the batteries' own points (safety/gate.pyx, gate_bank.h).
"""

from libc.math cimport isfinite
from libc.stddef cimport size_t
from libc.stdint cimport int16_t, uint32_t, uint64_t

from tidegate.ext.abi.image cimport (
    QUALITY_GOOD, QUALITY_HELD, QUALITY_INVALID, QUALITY_NEVER, QUALITY_STALE, point_t,
)
from tidegate.ext.abi.program cimport bank_row_t, program_t, unit_row_t
from tidegate.ext.safety.safety cimport GATE_BATTERIES_MAX

cdef enum:  # rule
    MEAN, SUM, LEAST, MOST, TIMES_LEAST, WORDS  # WORDS: the bits of any of them


cdef struct bank_t:
    const bank_row_t* rows[GATE_BATTERIES_MAX]
    int on[GATE_BATTERIES_MAX]  # counts: connected, or none is and all are looked at
    int n, joined
    uint32_t told               # quality of the worst word about contactors


cdef inline uint32_t rank(uint32_t quality) noexcept nogil:
    """How bad a quality is: what was never seen is worse than what is too old, and that than nonsense."""
    if quality == QUALITY_GOOD:
        return 0
    if quality == QUALITY_HELD:
        return 1
    if quality == QUALITY_INVALID:
        return 2
    return 3 if quality == QUALITY_STALE else 4


cdef inline uint32_t worse(uint32_t a, uint32_t b) noexcept nogil:
    return a if rank(a) >= rank(b) else b


cdef inline int16_t index_of(const bank_row_t* row, uint32_t field) noexcept nogil:
    """The image index of the field-th signal, counted from soc."""
    return (&row.soc)[field]


cdef void fold(const bank_t* bank, uint32_t field, int16_t target, int rule, int all, point_t* image) noexcept nogil:
    """One signal of all batteries that count (all: of every one) into the unit's point."""
    cdef int k, seen = 0
    cdef int16_t index
    cdef double value = 0.0, one
    cdef uint32_t quality = QUALITY_GOOD, changes = 0, words = 0
    cdef uint64_t t_ns = 0
    if target < 0:
        return
    for k in range(bank.n):
        index = index_of(bank.rows[k], field)
        if index < 0 or not (all or bank.on[k]):
            continue
        quality = worse(quality, image[index].quality)
        changes += image[index].changes
        if seen == 0 or image[index].t_ns < t_ns:
            t_ns = image[index].t_ns
        one = image[index].value
        if not isfinite(one):
            quality = worse(quality, QUALITY_INVALID)
            one = 0.0
        if rule == WORDS:
            words |= <uint32_t>one if 0.0 <= one < 4294967296.0 else 1
        elif rule == MEAN or rule == SUM:
            value += one
        elif seen == 0 or (one > value if rule == MOST else one < value):
            value = one
        seen += 1
    if seen == 0:
        return
    if rule == MEAN:
        value /= seen
    elif rule == TIMES_LEAST:
        value *= bank.joined
    elif rule == WORDS:
        value = <double>words
    image[target].quality = quality
    if rank(quality) > 1:
        return  # as of one battery: what is not believed leaves the last value
    image[target].value = value
    image[target].t_ns = t_ns
    image[target].changes = changes


cdef void bank_look(const program_t* program, uint32_t unit, const point_t* image, bank_t* bank) noexcept nogil:
    """Which batteries the unit has, and which of them count."""
    cdef uint32_t i
    cdef int16_t index
    cdef const bank_row_t* row
    bank.n = bank.joined = 0
    bank.told = QUALITY_GOOD
    for i in range(program.n_bank_rows):
        row = &program.bank_rows[i]
        if row.unit != <int>unit or bank.n >= GATE_BATTERIES_MAX:
            continue
        index = row.connected
        bank.rows[bank.n] = row
        if index >= 0:
            bank.told = worse(bank.told, image[index].quality)
        bank.on[bank.n] = index < 0 or rank(image[index].quality) > 1 or image[index].value >= 0.5
        bank.joined += bank.on[bank.n]
        bank.n += 1
    if bank.joined == 0:
        for i in range(<uint32_t>bank.n):
            bank.on[i] = 1


cdef void bank_step(const program_t* program, point_t* image, uint64_t t_ns) noexcept nogil:
    cdef uint32_t unit
    cdef const unit_row_t* u
    cdef bank_t bank
    cdef point_t* count
    cdef int changed
    if program.n_bank_rows == 0:
        return
    for unit in range(program.n_units):
        u = &program.units[unit]
        if u.connected < 0:
            continue
        bank_look(program, unit, image, &bank)
        # In the order of bank_row_t, from soc.
        fold(&bank, 0, u.soc, MEAN, 0, image)
        fold(&bank, 1, u.soh, LEAST, 1, image)
        fold(&bank, 2, u.pack_v, MEAN, 0, image)
        fold(&bank, 3, u.pack_a, SUM, 1, image)
        fold(&bank, 4, u.temp_max_c, MOST, 1, image)
        fold(&bank, 5, u.temp_min_c, LEAST, 1, image)
        fold(&bank, 6, u.charge_a_max, TIMES_LEAST, 0, image)
        fold(&bank, 7, u.discharge_a_max, TIMES_LEAST, 0, image)
        fold(&bank, 8, u.charge_v_max, LEAST, 0, image)
        fold(&bank, 9, u.discharge_v_min, MOST, 0, image)
        fold(&bank, 10, u.charge_w_max, TIMES_LEAST, 0, image)
        fold(&bank, 11, u.discharge_w_max, TIMES_LEAST, 0, image)
        fold(&bank, 12, u.cell_v_max, MOST, 0, image)
        fold(&bank, 13, u.cell_v_min, LEAST, 0, image)
        fold(&bank, 14, u.charge_ok, LEAST, 0, image)
        fold(&bank, 15, u.discharge_ok, LEAST, 0, image)
        fold(&bank, 16, u.alarm, WORDS, 1, image)
        fold(&bank, 17, u.warning, WORDS, 1, image)
        fold(&bank, 18, u.force_charge, MOST, 0, image)
        count = &image[u.connected]
        # With another battery in or out, state of charge and voltage are those of another bank: no jump is read into it.
        changed = count.quality == QUALITY_GOOD and count.value != bank.joined
        if u.soc >= 0 and (changed or rank(bank.told) > 1):
            image[u.soc].quality = worse(image[u.soc].quality, worse(bank.told, QUALITY_INVALID if changed else QUALITY_GOOD))
        count.value = bank.joined
        count.quality = QUALITY_GOOD
        count.t_ns = t_ns
        count.changes += 1 if changed or count.changes == 0 else 0


# ---------------------------------------------------------------- what Python sees


def look(const unsigned char[::1] program not None, unsigned char[::1] image not None, uint64_t t_ns):
    """Fill the points of several batteries as one in the bytes of an image, as each cycle does; for tests."""
    cdef const program_t* site = <const program_t*>&program[0]
    if <size_t>program.shape[0] < sizeof(program_t):
        raise ValueError(f"program: {program.shape[0]} bytes, needs at least {sizeof(program_t)}")
    if <size_t>image.shape[0] < site.n_points * sizeof(point_t):
        raise ValueError(f"image: {image.shape[0]} bytes, needs {site.n_points * sizeof(point_t)}")
    bank_step(site, <point_t*>&image[0], t_ns)
