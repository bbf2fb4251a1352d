# ext/sim/plant.pxd: the physics of one site: batteries, power converters, meters, load. No bus, no clock of its own.
#
# Signs as everywhere: grid + import, battery + discharge, PV + generation. Every device keeps a flat row of
# variables `v`, which registers and CAN fields are bound to by number; the Python side knows them by name.
from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef enum:
    BATTERIES_MAX = 16
    PCS_MAX = 16
    METERS_MAX = 32
    OCV_POINTS_MAX = 24
    SETPOINTS_MAX = 1024  # accepted by a PCS, not yet effective
    READINGS_MAX = 512   # measured by a meter, not yet in its registers
    AVERAGE_ROWS = 1025  # points of the integral that a moving mean looks back on
    COOLING_S = 3600     # the cooling follows the mean of at most this many seconds of IT power

cdef enum:  # battery_var
    BATTERY_SOC, BATTERY_SOH, BATTERY_PACK_V, BATTERY_PACK_A, BATTERY_TEMP_MAX_C, BATTERY_TEMP_MIN_C
    BATTERY_CELL_V_MAX, BATTERY_CELL_V_MIN, BATTERY_CHARGE_V_MAX, BATTERY_DISCHARGE_V_MIN
    BATTERY_CHARGE_A_MAX, BATTERY_DISCHARGE_A_MAX, BATTERY_CHARGE_W_MAX, BATTERY_DISCHARGE_W_MAX
    BATTERY_CHARGE_OK, BATTERY_DISCHARGE_OK, BATTERY_ALARM, BATTERY_WARNING, BATTERY_CONTACTOR, BATTERY_CAPACITY_AH
    BATTERY_ENERGY_WH, BATTERY_STATE, BATTERY_ZERO
    BATTERY_VARS

cdef enum:  # pcs_var
    PCS_W, PCS_W_L1, PCS_W_L2, PCS_W_L3, PCS_VA, PCS_VAR, PCS_A, PCS_A_L1, PCS_V_LL, PCS_V_LN, PCS_HZ, PCS_PF
    PCS_DC_V, PCS_DC_A, PCS_DC_W, PCS_STORAGE_W, PCS_STATE, PCS_ON, PCS_CONN, PCS_ALARM, PCS_TEMP_C, PCS_OUT_WH, PCS_IN_WH
    PCS_W_MAX, PCS_CHARGE_W_MAX, PCS_DISCHARGE_W_MAX
    PCS_SET_W, PCS_SET_ENA, PCS_SET_MODE, PCS_SET_PERMILLE, PCS_REVERT_W, PCS_REVERT_ENA, PCS_REVERT_S
    PCS_REVERT_LEFT_S, PCS_HB_DEVICE, PCS_HB_CONTROLLER, PCS_OP_CTL, PCS_LOCAL, PCS_READY, PCS_FAULT, PCS_ZERO
    PCS_VARS

cdef enum:  # meter_var
    METER_W, METER_W_L1, METER_W_L2, METER_W_L3, METER_VA, METER_VAR, METER_A, METER_A_L1, METER_A_L2, METER_A_L3
    METER_V, METER_V_L1, METER_V_L2, METER_V_L3, METER_HZ, METER_PF, METER_IMPORT_WH, METER_EXPORT_WH, METER_TOTAL_WH
    METER_ZERO
    METER_VARS

cdef enum:  # meter_source
    METERS_GRID = 0
    METERS_IT
    METERS_COOLING
    METERS_PV
    METERS_PCS       # the one numbered `index`
    METERS_CIRCUIT   # a share of the IT power
    METERS_GENSET

cdef enum:  # plant_fault  # bits of battery_t.faults, pcs_t.faults and meter_t.faults
    PCS_FROZEN = 1        # keeps its power whatever is written
    PCS_TRIPPED = 2       # fault state, 0 W
    PCS_IN_LOCAL = 4      # the panel's key is on local: 0 W, writes have no effect
    PCS_WRONG_SIGN = 8
    PCS_TURNED = 32       # wrong sign in what it takes and in what it shows, as one option of a map does it
    PCS_DEAF = 16         # acknowledges writes, does not take them
    GENSET_WONT_START = 1
    GENSET_STOPS = 2
    METER_STUCK = 1
    METER_REVERSED = 2
    METER_NAN = 4
    METER_SWAPPED = 8     # phases 1 and 2
    METER_RESET = 16      # energy registers fall to zero
    METER_ABSOLUTE = 32   # shows |W|
    METER_NO_L3 = 64      # the transformer of phase 3 is missing
    METER_W_STUCK = 128   # powers keep their values, energies count on, replies stay fresh
    METER_ELSEWHERE = 256 # sits before the load, on another circuit than the converter
    METER_TENFOLD = 512   # a transformer ratio ten times too large
    METER_TENTH = 1024    # and ten times too small
    METER_REPLAYED = 2048 # shows its newest REPLAY_READINGS again and again; only of a meter with a delay
    METER_L3_OFF = 4096   # no lie: the building's third phase is off, all of the power flows on the two others
    METER_TWO_PHASES = 8192 # no lie: the converter is on the first two phases alone
    BATTERY_WARNS = 1
    BATTERY_ALARMS = 2
    BATTERY_NO_CHARGE = 4
    BATTERY_NO_DISCHARGE = 8
    BATTERY_LIMITS_ZERO = 16
    BATTERY_SENTINEL = 32   # state of charge "not available"
    BATTERY_WILD = 64       # values outside any plausible range
    BATTERY_SOC_JUMP = 128
    BATTERY_VOLTAGE_OFF = 256  # pack voltage disagrees with the PCS
    BATTERY_HOT = 512
    BATTERY_FROZEN = 2048   # every frame says what the last true one said; counters and checksums go on
    BATTERY_OPEN = 1024     # somebody has opened its contactors: no alarm, and they close again afterwards

# What real devices add to the plain ones; a pointer to it is NULL where a device has none of it.
cdef struct battery_habits_t:
    double soc_step        # state of charge shown in whole steps of this, 0 = as it is
    double jump_lo         # from time to time the BMS's limits are another share of themselves, jump_lo..1
    double share           # the one that holds now
    uint64_t jump_ns, next_ns, random  # mean time between two jumps, 0 = none

cdef struct pcs_habits_t:
    double gain, offset_w  # what it gives = gain * told + offset
    double quantum_w       # it takes whole steps of this, 0 = any
    double share, cap_w    # derated: gives this share of what it is told, and at most this much
    uint64_t from_ns, until_ns  # while it is derated, since the start
    double full_soc        # takes no charge from here on, until 1 % below; above 1 = never
    uint32_t full
    uint32_t own_told      # 1 = setpoints are AC power, that of modules included: the battery gives the rest
    double own_w           # what modules of its own give to its AC side from own_ns on; loads behind its output: below 0
    uint64_t own_ns

cdef struct average_t:     # of one power
    double window_s, alpha  # moving mean over so much; share of the gap closed in one step; both 0 = none
    double integral_j, smooth_w
    double rows_j[AVERAGE_ROWS]  # the integral, once a block
    uint32_t block, left, at, pad  # steps of a block, and until its end

cdef struct meter_habits_t:
    double jitter          # share of the interval by which a reading may come late
    double band_w          # reports only changes of at least this, or after silent_ns
    uint64_t silent_ns, said_ns, base_ns, random
    double said_w
    uint64_t then_ns, then_interval_ns  # from then on another interval and average, 0 = never
    double then_window_s, then_lag_s
    average_t own, net     # of what it measures, and of the site's load less PV (for the floor)

cdef struct battery_t:
    double v[BATTERY_VARS]
    # nameplate
    double cells           # in series
    double capacity_as, soh  # ampere seconds, as it is now
    double r_ohm           # of the pack
    double ocv_soc[OCV_POINTS_MAX]  # rising, first 0, last 1
    double ocv_v[OCV_POINTS_MAX]    # of one cell
    double heat_j_per_k, cooling_w_per_k, ambient_c
    double charge_a_max, discharge_a_max
    double taper           # width in SoC over which the BMS takes its current limits to zero
    double cell_v_max, cell_v_min, temp_c_max, temp_c_min  # the BMS's own protection
    int32_t ocv_count, segment
    # now
    double charge_as, temp_c, current_a, open_v, dc_w
    double above_s         # how long a limit of the BMS has been broken
    uint32_t contactor, faults, opened, opened_under_load
    uint32_t parked, pad   # opened by somebody, not by its own protection
    battery_habits_t* habits
    # totals, J
    double drawn_j, heat_j

cdef struct pcs_t:
    double v[PCS_VARS]
    double state_standby, state_run, state_fault  # as its map numbers them
    double charge_w_max, discharge_w_max, tau_s, ramp_w_per_s, loss_w, loss_ratio
    double alpha           # share of the gap that the lag closes in one step
    uint64_t dead_ns, measure_ns, heartbeat_timeout_ns
    int32_t battery
    uint32_t beside        # bit each battery that stands side by side with it
    # now
    double target_w, w, dc_w, own_w
    uint64_t queue_t_ns[SETPOINTS_MAX]
    double queue_w[SETPOINTS_MAX]
    uint32_t queue_head, queue_tail
    uint64_t set_t_ns      # last write of the setpoint, 0 = never
    uint64_t heartbeat_t_ns, measure_next_ns
    uint32_t faults, reverted, reverts, writes
    pcs_habits_t* habits
    # totals, J
    double out_j, in_j, loss_j, battery_j

# An engine with its own panel: starts when it is told to, gives what load, PV and batteries leave, protects itself.
cdef struct genset_t:
    double w_min, w_max    # what it should give; w_max 0 = there is none
    double start_s         # from the order to its first power
    double w, hz
    uint32_t at_grid_meter  # 1 = the transfer switch is ahead of the grid meter, which then shows the genset
    uint32_t told          # by somebody's wish
    uint32_t carries       # 1 = it gives the site its voltage
    uint32_t faults        # GENSET_WONT_START, GENSET_STOPS
    double starting_s, overload_s, reverse_s
    uint32_t trips, pad
    double run_s, above_s, below_s, dark_s, energy_j, w_most, w_least
    double after_s         # since it took the load

cdef struct reading_t:
    uint64_t t_ns
    double v[METER_VARS]

cdef struct meter_t:
    double v[METER_VARS]   # what the registers show
    int32_t source, index
    double share
    uint32_t downstream        # bit each converter on a circuit's side of its meter
    uint64_t interval_ns, delay_ns, next_ns
    double resolution_w
    double import_j, export_j
    uint64_t shown_t_ns    # when the registers last changed
    uint64_t taken_t_ns    # when the newest reading was measured that they show, or will
    uint32_t faults, updates
    reading_t* readings    # ring, only with a delay
    meter_habits_t* habits
    uint32_t head, tail

cdef struct totals_t:
    double seconds, it_j, cooling_j, pv_j, grid_in_j, grid_out_j, ess_out_j, ess_in_j
    # against the grid limit
    double above_without_j, above_with_j, above_outside_j  # outside: not in the reaction time of a step
    double peak_without_w, peak_with_w, peak_outside_w
    double above_with_s, above_outside_s, reaction_s
    uint64_t steps

cdef struct plant_t:
    uint64_t dt_ns, t_ns
    double dt_s
    # load
    const uint64_t* load_t_ns
    const double* load_rows_w
    uint32_t load_count, load_row
    const uint64_t* pv_t_ns
    const double* pv_rows_w
    uint32_t pv_count, pv_row
    uint64_t t0_ns         # plant time of the traces' zero
    double cooling_share, cooling_sum, cooling_second_w
    double cooling_ring[COOLING_S]
    uint32_t cooling_at, cooling_left, cooling_count
    double it_w, cooling_w, pv_w, load_w, ess_w, grid_w, volt, hz
    double phase_share[3]
    uint32_t islanded, live  # the grid is gone; there is a voltage, whoever gives it
    genset_t genset
    # judgement
    double limit_w, step_w
    uint64_t reaction_ns, reaction_until_ns
    double last_load_w
    uint64_t step_t_ns     # last load step of at least step_w
    double step_jump_w     # and its height, + up
    totals_t totals
    # devices
    uint32_t n_batteries, n_pcs, n_meters
    uint32_t slow_left
    battery_t batteries[BATTERIES_MAX]
    pcs_t pcs[PCS_MAX]
    meter_t meters[METERS_MAX]

# Moves the plant on by one dt_ns, to t_ns. Deterministic: no libm function but sqrt, floor and fabs.
cdef void plant_start(plant_t* plant, uint64_t t_ns) noexcept nogil
cdef void plant_step(plant_t* plant, uint64_t t_ns) noexcept nogil
# True power at the place where a meter sits.
cdef double meter_w(const plant_t* plant, const meter_t* meter) noexcept nogil
# Only the traces, and only the cooling that follows them.
cdef void load_step(plant_t* plant, uint64_t t_ns) noexcept nogil
cdef void cooling_step(plant_t* plant, double dt_s) noexcept nogil
# A controller has written variable `var` of a PCS (its new value stands in v already).
cdef void pcs_written(plant_t* plant, pcs_t* pcs, int var, uint64_t t_ns) noexcept nogil
# Brings the derived variables of a PCS up to date, before somebody reads them.
cdef void pcs_refresh(plant_t* plant, pcs_t* pcs, uint64_t t_ns) noexcept nogil
cdef double lag_share(double dt_s, double tau_s) noexcept nogil
