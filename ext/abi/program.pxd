# ext/abi/program.pxd: contents page of program.pyx and of program.h, which owns the structs.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from tidegate.ext.abi.settings cimport control_params_t
from tidegate.ext.abi.image cimport UNITS_MAX, POINTS_MAX, integral_t, point_t
from tidegate.ext.safety.safety cimport GATE_FAULTS_MAX, gate_fault_row_t, gate_limits_t

# >> generated from abi/program.h by `make pxd`; change the header, not this
cdef extern from "abi/program.h" nogil:
    enum:
        PROGRAM_MAGIC
        PROGRAM_LAYOUT_VERSION
        CAN_BUSES_MAX
        CAN_FRAMES_MAX
        CAN_FIELDS_MAX
        CAN_TX_MAX
        PORTS_MAX
        SLAVES_MAX
        BLOCKS_MAX
        FIELDS_MAX
        COMMANDS_MAX
        COMMAND_PARTS_MAX
        COMMAND_REGS_MAX
        PORT_COMMANDS_MAX
        BLOCK_REGS_MAX
        BANK_ROWS_MAX
        INPUTS_MAX

    ctypedef struct point_row_t:
        char name[48]
        char unit[12]
        int32_t device
        uint64_t age_max_ns

    enum:
        CAN_FRAME_FD
        CAN_FRAME_MUX
        CAN_FRAME_COUNTER
        CAN_FRAME_CRC

    ctypedef struct can_frame_row_t:
        uint32_t id
        uint8_t bus
        uint8_t len_min, len_max
        uint8_t flags
        uint16_t field_first, field_count
        uint16_t mux_start
        uint8_t mux_length, mux_big_endian
        uint16_t counter_start
        uint8_t counter_length, counter_big_endian
        uint8_t crc_kind, crc_byte
        uint16_t pad
        uint64_t period_ns

    enum:
        CAN_FIELD_SENTINEL
        CAN_FIELD_ABS
        CAN_FIELD_FLOAT
        CAN_FIELD_MUXED
        CAN_FIELD_ONE_OF

    ctypedef struct can_field_row_t:
        int16_t point
        uint16_t start
        uint8_t length
        uint8_t big_endian
        uint8_t is_signed
        uint8_t flags
        uint32_t mux_value
        uint32_t mask
        double scale, offset
        double min, max
        uint64_t sentinel
        uint32_t mux2_value
        uint16_t mux2_start
        uint8_t mux2_length
        uint8_t mux2_big_endian

    enum:
        CAN_TX_ALWAYS
        CAN_TX_HEARTBEAT

    ctypedef struct can_tx_row_t:
        uint32_t id
        uint8_t bus, len
        uint8_t kind
        int8_t unit
        uint8_t data[8]
        uint64_t period_ns
        int16_t counter_start
        uint8_t counter_length
        uint8_t has_open
        uint8_t pad[4]
        uint8_t open_data[8]

    enum:
        PORT_SERIAL
        PORT_MBAP
        PORT_RTU_TCP
        PORT_PYLON
        PORT_PYLON_TCP

    enum:
        GAP_SPEC
        GAP_CHARS
        GAP_FIXED

    ctypedef struct port_row_t:
        char name[16]
        uint32_t baud
        uint8_t data_bits, stop_bits
        char parity
        uint8_t gap_rule
        uint64_t gap_ns
        uint16_t slave_first, slave_count
        uint32_t flags
        uint8_t transport
        uint8_t family
        uint8_t link
        uint8_t lead_in
        uint16_t tcp_port
        uint16_t pad1
        uint8_t host[16]

    ctypedef struct slave_row_t:
        uint8_t port, unit_id
        int16_t device
        uint32_t pad
        uint64_t timeout_ns
        uint64_t turnaround_ns
        uint16_t block_first, block_count
        uint16_t command_first, command_count

    enum:
        POLL_FAST
        POLL_SLOW
        POLL_ONCE

    ctypedef struct block_row_t:
        uint16_t slave
        uint8_t function
        uint8_t poll_class
        uint16_t address, count
        uint64_t period_ns
        uint16_t field_first, field_count
        uint32_t signature
        uint16_t signature_offset, signature_word
        uint32_t factors

    enum:
        FIELD_U16
        FIELD_S16
        FIELD_U32
        FIELD_S32
        FIELD_U64
        FIELD_S64
        FIELD_F32
        FIELD_F64
        FIELD_SUNSSF
        FIELD_BITS

    enum:
        FIELD_SENTINEL
        FIELD_LOW_WORD_FIRST
        FIELD_BYTE_SWAP
        FIELD_SF_POINT
        FIELD_ACC
        FIELD_ONE_OF
        FIELD_LESS_NEXT
        FIELD_IDENTITY

    ctypedef struct field_row_t:
        int16_t point
        uint16_t offset
        uint8_t type
        uint8_t flags
        uint8_t bit_first, bit_count
        int16_t sf_point
        int16_t held_point
        uint8_t optional
        uint8_t others
        uint16_t pad
        double scale, offset_value
        double min, max
        uint64_t sentinel

    enum:
        COMMAND_CONST
        COMMAND_SETPOINT_W
        COMMAND_HEARTBEAT
        COMMAND_STOP

    enum:
        COMMAND_KEEP
        COMMAND_TURNS
        COMMAND_FLASH

    enum:
        PART_CONST
        PART_SETPOINT
        PART_MAGNITUDE
        PART_CHARGE
        PART_DISCHARGE
        PART_DIRECTION

    ctypedef struct command_part_t:
        uint16_t offset
        uint8_t type
        uint8_t flags
        uint8_t of
        uint8_t pad
        int16_t sf_point
        double scale
        double value
        double charge, discharge

    ctypedef struct command_row_t:
        uint16_t slave
        uint8_t function
        uint8_t kind
        uint16_t address, count
        uint8_t type
        uint8_t flags
        int8_t unit
        uint8_t part_count
        int16_t sf_point
        int16_t readback_point
        double scale
        double value
        uint64_t resend_ns
        uint64_t pause_ns
        uint16_t part_first
        uint16_t pad[3]

    enum:
        BATTERY_POWER_PCS
        BATTERY_POWER_DC
        BATTERY_POWER_NONE
        BATTERY_POWER_OWN

    ctypedef struct unit_row_t:
        char name[16]
        int16_t soc, soh, pack_v, pack_a, temp_max_c, temp_min_c
        int16_t charge_a_max, discharge_a_max, charge_v_max, discharge_v_min
        int16_t charge_w_max, discharge_w_max
        int16_t cell_v_max, cell_v_min
        int16_t charge_ok, discharge_ok
        int16_t alarm, warning
        int16_t pcs_w, pcs_state, pcs_fault, pcs_hb
        int16_t pcs_ready
        int16_t dc_v, dc_a
        int16_t identity[3]
        int16_t pcs_revert_s
        int16_t grid_ok
        int16_t force_charge
        int16_t connected
        double energy_wh
        double revert_measured_s
        gate_limits_t gate
        uint32_t battery_power
        int16_t battery_w
        uint16_t pad

    ctypedef struct bank_row_t:
        int16_t unit
        int16_t connected
        int16_t soc, soh, pack_v, pack_a, temp_max_c, temp_min_c
        int16_t charge_a_max, discharge_a_max, charge_v_max, discharge_v_min
        int16_t charge_w_max, discharge_w_max
        int16_t cell_v_max, cell_v_min
        int16_t charge_ok, discharge_ok
        int16_t alarm, warning
        int16_t force_charge
        int16_t pad

    ctypedef struct site_points_t:
        int16_t grid_w
        int16_t grid_w_l[3]
        int16_t pv_w
        int16_t circuit_w[8]
        int16_t grid_import_wh, grid_export_wh
        int16_t grid_hz
        int16_t grid_v[3]
        int16_t demand_w
        int16_t window_pulse
        int16_t grid_a[3]
        int16_t genset_w, genset_hz
        int16_t island

    enum:
        INPUT_STOP
        INPUT_LIMIT
        INPUT_DOOR
        INPUT_SMOKE
        INPUT_ESTOP

    ctypedef struct input_row_t:
        int16_t point
        uint8_t what
        uint8_t pad[5]
        double import_w_max

    ctypedef struct program_t:
        uint32_t magic, layout_version, image_version, size
        uint8_t sha256[32]
        uint64_t period_ns
        uint32_t snapshot_every
        uint32_t n_points, n_units
        uint32_t n_can_buses, n_can_frames, n_can_fields, n_can_tx
        uint32_t n_ports, n_slaves, n_blocks, n_fields, n_commands, n_command_parts
        uint32_t n_bank_rows
        uint32_t n_inputs
        uint32_t describe_size
        site_points_t site
        input_row_t inputs[INPUTS_MAX]
        control_params_t control
        unit_row_t units[UNITS_MAX]
        bank_row_t bank_rows[BANK_ROWS_MAX]
        gate_fault_row_t faults[GATE_FAULTS_MAX]
        point_row_t points[POINTS_MAX]
        can_frame_row_t can_frames[CAN_FRAMES_MAX]
        can_field_row_t can_fields[CAN_FIELDS_MAX]
        can_tx_row_t can_tx[CAN_TX_MAX]
        port_row_t ports[PORTS_MAX]
        slave_row_t slaves[SLAVES_MAX]
        block_row_t blocks[BLOCKS_MAX]
        field_row_t fields[FIELDS_MAX]
        command_row_t commands[COMMANDS_MAX]
        command_part_t command_parts[COMMAND_PARTS_MAX]

    uint32_t port_over_tcp(const port_row_t *port) noexcept
    uint32_t port_speaks_pylon(const port_row_t *port) noexcept
    uint32_t port_command_rows(const program_t *p, uint32_t port, uint32_t *first) noexcept
# << end of what is generated
