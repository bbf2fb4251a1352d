# ext/control/recharging.pxd: contents page of recharging.pyx.
from libc.stdint cimport uint64_t

from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.control.corridor cimport control_state_t, decision_t
from tidegate.ext.estimate.estimate cimport estimate_state_t, plant_t

# What recharging has cost of late.
cdef struct recharging_t:
    double charged_ws, harm_ws # charged, and of this so much while the grid stood above its limit
    double wait_s, hold_s      # it is held back for so much longer; and was for so long the last time
    double grid_w              # the newest reading
    uint64_t t_ns              # and its stamp; 0 = none

# Once a cycle before the control: holds the recharging power at nothing where it has shown to do harm.
cdef void recharging_watch(recharging_t* watch, const control_params_t* params, const estimate_state_t* estimate,
                           const plant_t* plant, const decision_t* last, control_state_t* state, double dt_s) noexcept nogil
