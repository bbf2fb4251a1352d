# ext/estimate/energy_register.pxd: contents page of energy_register.pyx.
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t

cdef enum:
    REGISTER_ROWS = 64  # readings of the registers that are kept; a power of two

# What the meter's energy registers count beside what its power adds up to.
cdef struct energy_register_t:
    uint64_t t_ns[REGISTER_ROWS]
    double counted_ws[REGISTER_ROWS]   # import less export
    double shown_ws[REGISTER_ROWS]     # the power shown, added up to the same moment
    double jumped_w2[REGISTER_ROWS]    # the squares of the jumps of the power shown, added up
    uint32_t head, count
    uint64_t power_t_ns                # up to where the power was added up; 0 = a gap
    double power_w, power_ws, jumps_w2
    uint64_t import_t_ns               # stamp of the newest reading of the register that was taken over
    double least_ws                    # least move of a register that was seen, or difference of two; 0 = none yet
    double import_step_ws, export_step_ws # the newest moves
    double import_ws, export_ws        # as they were last
    uint32_t against                   # windows in a row that contradict
    uint32_t holds                     # it has caught up once with what it had not counted: of this meter nothing is said
    uint32_t state, pad                # enum meter_registers, by the newest reading
    uint64_t moved_t_ns                # a register moved last then, ...
    double moved_shown_ws              # ... and so much power had been shown

cdef void energy_register_forget(energy_register_t* r) noexcept nogil
# A new grid reading.
cdef void energy_register_power(energy_register_t* r, double grid_w, uint64_t t_ns) noexcept nogil
# Once a cycle: whether the registers contradict the power. interval_s: the meter shows something new so often;
# digit_w: the least change of its power.
cdef bint energy_register_contradicts(const program_t* program, const point_t* image, energy_register_t* r,
                                      double interval_s, double digit_w) noexcept nogil
