# ext/estimate/easing.pxd: contents page of easing.pyx.
from libc.stdint cimport uint32_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport unit_row_t
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.estimate.estimate cimport unit_view_t


# A limit that goes down at once and up slowly, the more slowly the sooner it fell again.
cdef struct easing_t:
    double w        # what is counted on, >= 0
    double hold_s   # a rise waits so long, and takes twice that for all of the unit's power; 0 = it never fell
    double wait_s   # left of that
    double high_s   # since the last rise ended
    double low_w    # where it fell to last
    uint32_t started, rising

# Memory of one unit's battery; zeroed at start.
cdef struct battery_t:
    easing_t charge, discharge
    uint32_t closed     # enum band
    uint32_t asks       # 1 = it wants to be charged
    double asked_s      # since it last said so

# size_w: the unit's power, for what counts as a fall and how fast a rise is.
cdef double easing_step(easing_t* easing, double allowed_w, double size_w, double dt_s) noexcept nogil

# Makes of the unit's view what the control may count on: eased limits, bands with a way back, what the BMS asks for.
cdef void battery_step(battery_t* battery, const unit_row_t* row, const point_t* image, const control_params_t* params,
                       unit_view_t* view, double dt_s) noexcept nogil
