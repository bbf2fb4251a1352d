# ext/sim/battery.pxd: one battery of the simulated plant.
from tidegate.ext.sim.plant cimport battery_t

# Voltage of the pack at rest, V.
cdef double open_voltage(battery_t* battery) noexcept nogil
# Draws dc_w (+ discharge) at the terminals for dt_s; returns what the cells could really give, W.
cdef double battery_draw(battery_t* battery, double dc_w, double dt_s) noexcept nogil
# What the BMS works out ten times a second.
cdef void bms_step(battery_t* battery, double dt_s) noexcept nogil
