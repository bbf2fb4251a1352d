# ext/sim/habits.pxd: what real batteries, converters and meters add to the plain ones of plant.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.sim.plant cimport average_t, battery_t, meter_t, pcs_t, plant_t

# Share of limits that jump, and a state of charge in whole steps; before injected faults.
cdef void battery_habit(battery_t* battery, double dt_s) noexcept nogil
# The AC power that a converter makes for, W.
cdef double pcs_goal(plant_t* plant, pcs_t* pcs, uint64_t t_ns) noexcept nogil
# Starts, and moves on by one step, what a meter remembers.
cdef void meter_habits_start(plant_t* plant, meter_t* meter, uint64_t t_ns) noexcept nogil
cdef void meter_habit(plant_t* plant, meter_t* meter, uint64_t t_ns) noexcept nogil
# Whether a reading that is due gets into the registers; when the next one is due.
cdef bint meter_reports(plant_t* plant, meter_t* meter) noexcept nogil
cdef void meter_next(meter_t* meter) noexcept nogil
cdef double average_w(const average_t* average, double now_w, double dt_s) noexcept nogil
