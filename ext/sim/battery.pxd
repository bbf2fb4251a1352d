# ext/sim/battery.pxd: one battery of the simulated plant.
from libc.stdint cimport uint32_t

from tidegate.ext.sim.plant cimport battery_t

# Voltage of the pack at rest, V.
cdef double open_voltage(battery_t* battery) noexcept nogil
# Draws dc_w (+ discharge) at the terminals for dt_s; returns what the cells could really give, W.
cdef double battery_draw(battery_t* battery, double dc_w, double dt_s) noexcept nogil
# The same of several that stand side by side: `battery` and those of `beside`, a bit each of `all`. Their resistances share
# the current out, and what differs in their voltages flows between them.
cdef double bank_draw(battery_t* all, int battery, uint32_t beside, double dc_w, double dt_s) noexcept nogil
# One of them whose contactors are closed, the first if none is.
cdef battery_t* bank_any(battery_t* all, int battery, uint32_t beside) noexcept nogil
# Current of all of them, A.
cdef double bank_current(const battery_t* all, int battery, uint32_t beside) noexcept nogil
# What the BMS works out ten times a second.
cdef void bms_step(battery_t* battery, double dt_s) noexcept nogil
