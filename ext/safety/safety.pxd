# ext/safety/safety.pxd: contents page of safety.h, the gate in C, which owns the structs. Takes nothing from any room.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

# >> generated from safety/safety.h by `make pxd`; change the header, not this
cdef extern from "safety/safety.h" nogil:
    enum:
        SAFETY_LAYOUT_VERSION
        GATE_FAULTS_MAX
        GATE_DT_US_MAX
        GATE_RAMP_DT_US_MAX
        GATE_TIME_US_MAX
        GATE_FLAPS_MAX
        GATE_FORGET_US
        GATE_OPEN_MA
        GATE_OPEN_WAIT_US
        GATE_SOC_CPCT_MAX
        GATE_BATTERIES_MAX

    ctypedef struct fault_set_t:
        uint64_t lo, hi

    enum:
        REACTION_NONE
        REACTION_WARN
        REACTION_DERATE
        REACTION_RAMP_ZERO
        REACTION_ZERO
        REACTION_ZERO_SILENT
        REACTION_OPEN

    ctypedef struct gate_fault_row_t:
        int32_t reaction
        int32_t latched
        int32_t debounce_ms
        int32_t clear_ms
        int32_t derate_permille
        int32_t flap_max
        int32_t threshold_milli
        int32_t floor_milli

    ctypedef struct gate_limits_t:
        int32_t charge_w_max, discharge_w_max
        int32_t charge_ma_max, discharge_ma_max
        int32_t soc_min_cpct, soc_max_cpct
        int32_t soc_taper_cpct
        int32_t temp_min_ddegc, temp_max_ddegc
        int32_t temp_taper_ddegc
        int32_t cell_mv_min, cell_mv_max
        int32_t ramp_go_w_per_s, ramp_stop_w_per_s
        int32_t cell_taper_mv
        int32_t reserved[5]

    enum:
        VALID_REQUEST
        VALID_SOC
        VALID_PACK_V
        VALID_CHARGE_MA
        VALID_DISCHARGE_MA
        VALID_TEMP_MAX
        VALID_TEMP_MIN
        VALID_ESS_W
        VALID_CHARGE_W
        VALID_DISCHARGE_W
        VALID_CELL_MAX
        VALID_CELL_MIN

    ctypedef struct gate_input_t:
        uint32_t valid
        uint32_t required
        int32_t request_w
        int32_t pack_mv
        int32_t charge_ma_max, discharge_ma_max
        int32_t charge_w_max, discharge_w_max
        int32_t soc_cpct
        int32_t temp_max_ddegc, temp_min_ddegc
        int32_t cell_mv_max, cell_mv_min
        int32_t soc_spread_cpct
        int32_t ess_w
        int32_t charge_ok, discharge_ok
        int32_t dt_us
        uint32_t ack
        uint32_t arm
        fault_set_t faults

    enum:
        LIMIT_NAMEPLATE
        LIMIT_CURRENT
        LIMIT_SOC
        LIMIT_TEMP
        LIMIT_CELL
        LIMIT_ENABLE
        LIMIT_POWER
        LIMIT_INVALID
        LIMIT_FAULT
        LIMIT_RAMP
        LIMIT_TRIPPED

    ctypedef struct gate_row_t:
        int32_t bucket_us
        uint8_t active, latched
        uint8_t flaps
        uint8_t pad

    ctypedef struct gate_state_t:
        gate_row_t rows[GATE_FAULTS_MAX]
        int64_t last_setpoint_mw
        int32_t tripped
        int32_t first_fault
        int32_t busy
        int32_t forget_us
        int32_t open_wait_us
        uint32_t last_arm, last_ack
        uint64_t proof

    ctypedef struct gate_verdict_t:
        int32_t setpoint_w
        int32_t envelope_lo_w, envelope_hi_w
        uint32_t limit_bits
        int32_t reaction
        int32_t heartbeat_ok
        int32_t contactor_open
        int32_t tripped
        int32_t first_fault
        fault_set_t active, latched
        uint64_t proof

    ctypedef struct gate_bank_t:
        int32_t n
        int32_t connected[GATE_BATTERIES_MAX]
        int32_t charge_ok[GATE_BATTERIES_MAX]
        int32_t discharge_ok[GATE_BATTERIES_MAX]
        int32_t soc_cpct[GATE_BATTERIES_MAX]
        int32_t pack_mv[GATE_BATTERIES_MAX]
        int32_t charge_ma_max[GATE_BATTERIES_MAX]
        int32_t discharge_ma_max[GATE_BATTERIES_MAX]
        int32_t charge_w_max[GATE_BATTERIES_MAX]
        int32_t discharge_w_max[GATE_BATTERIES_MAX]
        int32_t temp_max_ddegc[GATE_BATTERIES_MAX]
        int32_t temp_min_ddegc[GATE_BATTERIES_MAX]
        int32_t cell_mv_max[GATE_BATTERIES_MAX]
        int32_t cell_mv_min[GATE_BATTERIES_MAX]

    void gate_combine(const gate_bank_t *bank, gate_input_t *input) noexcept
    void gate_init(gate_state_t *state) noexcept
    void gate_restore(gate_state_t *state, fault_set_t latched) noexcept
    void gate_envelope(const gate_limits_t *limits, const gate_input_t *input, int32_t *lo_w, int32_t *hi_w,
                       uint32_t *bits) noexcept
    void gate_step(const gate_limits_t *limits, const gate_fault_row_t faults[GATE_FAULTS_MAX],
                   const gate_input_t *input, gate_state_t *state, gate_verdict_t *verdict) noexcept
# << end of what is generated
