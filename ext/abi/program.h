/* ext/abi/program.h: a site compiled for the core, one flat struct, no pointers, every loop bounded by a MAX below.
 *
 * The configuration compiler fills it (ext/abi/program.pyx packs the rows), the core checks magic, versions, size and
 * every index, and then only reads it. Index fields hold -1 for "this site has none".
 */
#ifndef TIDEGATE_PROGRAM_H
#define TIDEGATE_PROGRAM_H

#include "abi/settings.h"
#include "abi/image.h"
#include "safety/safety.h"

#define PROGRAM_MAGIC 0x31474454u /* "TDG1" */
#define PROGRAM_LAYOUT_VERSION 14u

#define CAN_BUSES_MAX 4
#define CAN_FRAMES_MAX 128 /* received ids, all buses */
#define CAN_FIELDS_MAX 512
#define CAN_TX_MAX 32 /* cyclic frames to devices */
#define PORTS_MAX 40 /* serial ports, and what is in flight at once over TCP */
#define SLAVES_MAX 64
#define BLOCKS_MAX 192 /* polled register blocks, all ports */
#define FIELDS_MAX 768 /* register fields decoded from blocks */
#define COMMANDS_MAX 96 /* registers written */
#define COMMAND_PARTS_MAX 192 /* values that share one write */
#define COMMAND_REGS_MAX 16   /* registers of one write */
#define PORT_COMMANDS_MAX 32 /* of one port */
#define BLOCK_REGS_MAX 125
#define BANK_ROWS_MAX 32 /* batteries of units that have several */
#define INPUTS_MAX 16 /* contacts that mean something to the control or the fault table */

/* One row of the image. */
typedef struct {
    char name[48]; /* device.signal_unit */
    char unit[12];
    int32_t device;      /* index into the describe blob's devices, -1 = the site or a unit */
    uint64_t age_max_ns; /* older is stale; 0 = never stale */
} point_row_t;
_Static_assert(sizeof(point_row_t) == 72, "program layout");

/* ---- CAN ---- */

enum can_frame_flags { CAN_FRAME_FD = 1, CAN_FRAME_MUX = 2, CAN_FRAME_COUNTER = 4, CAN_FRAME_CRC = 8 };

typedef struct {
    uint32_t id; /* as in struct can_frame: CAN_EFF_FLAG set for 29 bit */
    uint8_t bus;
    uint8_t len_min, len_max;
    uint8_t flags; /* enum can_frame_flags */
    uint16_t field_first, field_count;
    uint16_t mux_start; /* DBC start bit of the multiplexer */
    uint8_t mux_length, mux_big_endian;
    uint16_t counter_start; /* live counter, DBC start bit */
    uint8_t counter_length, counter_big_endian;
    uint8_t crc_kind, crc_byte; /* enum can_crc in can.pyx's map vocabulary; 0 = none */
    uint16_t pad;
    uint64_t period_ns; /* nominal, 0 = event driven */
} can_frame_row_t;

enum can_field_flags { CAN_FIELD_SENTINEL = 1, CAN_FIELD_ABS = 2, CAN_FIELD_FLOAT = 4, CAN_FIELD_MUXED = 8,
                       CAN_FIELD_ONE_OF = 16 /* value = 1 if bit `raw` of sentinel is set (raw < 64), else 0 */ };

typedef struct {
    int16_t point;
    uint16_t start; /* DBC start bit: LSB for little endian, MSB for big endian */
    uint8_t length; /* 1..64 bits */
    uint8_t big_endian;
    uint8_t is_signed;
    uint8_t flags;      /* enum can_field_flags */
    uint32_t mux_value; /* decoded only while the multiplexer holds this, with CAN_FIELD_MUXED */
    uint32_t mask;      /* not 0: raw &= mask before all else (alarm bits that come in pairs) */
    double scale, offset; /* value = raw * scale + offset, sign convention included */
    double min, max;      /* outside: invalid */
    uint64_t sentinel;    /* raw pattern that means "not available" */
    uint32_t mux2_value;  /* and while the second multiplexer holds this, a nested one or one beside the frame's */
    uint16_t mux2_start;
    uint8_t mux2_length;  /* 0 = none */
    uint8_t mux2_big_endian;
} can_field_row_t;

enum can_tx_kind { CAN_TX_ALWAYS = 0, CAN_TX_HEARTBEAT = 1 /* only with the gate's permission */ };

typedef struct {
    uint32_t id;
    uint8_t bus, len;
    uint8_t kind; /* enum can_tx_kind */
    int8_t unit;  /* whose gate permits it; -1 = all units */
    uint8_t data[8];
    uint64_t period_ns;
    int16_t counter_start; /* bit position of a running counter in data, -1 none */
    uint8_t counter_length;
    uint8_t has_open, pad[4];
    uint8_t open_data[8];  /* with has_open: instead of data while the gate asks for open contactors */
} can_tx_row_t;

/* ---- Modbus ---- */

/* What carries a port's frames. TCP ports with the same `link` share one connection, each with a request of its own. */
enum port_transport { PORT_SERIAL = 0, PORT_MBAP = 1 /* Modbus TCP */, PORT_RTU_TCP = 2 /* RTU frames over TCP */,
                      PORT_PYLON = 3 /* a tty with Pylontech's ASCII frames (ext/bus/pylon.pyx) */,
                      PORT_PYLON_TCP = 4 /* the same over TCP, through a gateway that knows no protocol */ };

enum gap_rule { GAP_SPEC = 0 /* 1750 us above 19200 */, GAP_CHARS = 1 /* 3.5 real characters */, GAP_FIXED = 2 };

typedef struct {
    char name[16];
    uint32_t baud;
    uint8_t data_bits, stop_bits;
    char parity; /* 'N' 'E' 'O' */
    uint8_t gap_rule;
    uint64_t gap_ns; /* for GAP_FIXED */
    uint16_t slave_first, slave_count;
    uint32_t flags; /* bit 0: strip echo of own bytes, bit 1: RS-485 by TIOCSRS485 */
    uint8_t transport; /* enum port_transport */
    uint8_t family;    /* TCP: 4 or 6 */
    uint8_t link;      /* TCP: number of the connection */
    uint8_t lead_in;   /* bytes that may touch the front of each reply and are none of it: a line driver that turns round */
    uint16_t tcp_port;
    uint16_t pad1;
    uint8_t host[16]; /* TCP: the address, network order; of IPv4 the first four bytes */
} port_row_t;

typedef struct {
    uint8_t port, unit_id;
    int16_t device;
    uint32_t pad;
    uint64_t timeout_ns; /* first guess and upper bound for a reply's first byte */
    uint64_t turnaround_ns; /* least time that the device wants between its reply and the next request to it */
    uint16_t block_first, block_count;
    uint16_t command_first, command_count;
} slave_row_t;

enum poll_class { POLL_FAST = 0, POLL_SLOW = 1, POLL_ONCE = 2 /* at start and after each silence */ };

typedef struct {
    uint16_t slave;
    uint8_t function; /* 1..4 */
    uint8_t poll_class;
    uint16_t address, count;
    uint64_t period_ns; /* wanted; 0 = as often as the wire allows */
    uint16_t field_first, field_count;
    uint32_t signature; /* bit 0: first word of the block must equal signature_word (tells equal lengths apart) */
    uint16_t signature_offset, signature_word;
    uint32_t factors; /* 1 = values of the slave's other blocks wait until the factors in this one have been read again */
} block_row_t;

enum field_type {
    FIELD_U16 = 0, FIELD_S16, FIELD_U32, FIELD_S32, FIELD_U64, FIELD_S64, FIELD_F32, FIELD_F64, FIELD_SUNSSF, FIELD_BITS,
};
enum field_flags { FIELD_SENTINEL = 1, FIELD_LOW_WORD_FIRST = 2, FIELD_BYTE_SWAP = 4, FIELD_SF_POINT = 8, FIELD_ACC = 16,
                   FIELD_ONE_OF = 32 /* value = 1 if bit `raw` of sentinel is set (raw < 64), else 0 */,
                   FIELD_LESS_NEXT = 128 /* value = this number less the one that follows it, of the same type */,
                   FIELD_IDENTITY = 64 /* nothing is written to the slave before this value was read and was in range */ };

typedef struct {
    int16_t point;
    uint16_t offset; /* words from the block's address; bit offset for function 1 and 2 */
    uint8_t type;    /* enum field_type */
    uint8_t flags;   /* enum field_flags */
    uint8_t bit_first, bit_count; /* with FIELD_BITS: part of the word */
    int16_t sf_point; /* with FIELD_SF_POINT: value *= 10 ** image[sf_point] */
    int16_t held_point; /* where the number waits until its factor has been read again, in another block; 0 = it is in this one */
    uint8_t optional; /* 1 = a device may lack it: the pattern that SunSpec has for its type is then no value */
    uint8_t others;   /* with `optional`: so many rows behind this one are the same point, for a device that lacks it */
    uint16_t pad;
    double scale, offset_value; /* value = raw * scale + offset_value, sign convention included */
    double min, max;
    uint64_t sentinel; /* raw pattern of "not available"; with ONE_OF the set of values */
} field_row_t;

enum command_kind {
    COMMAND_CONST = 0,  /* written at start and after each silence of the slave, in row order, before any setpoint */
    COMMAND_SETPOINT_W, /* the gate's setpoint of one unit */
    COMMAND_HEARTBEAT,  /* the gate's proof counter, only with its permission */
    COMMAND_STOP,       /* written once when the unit must stop by other means than setpoint 0 */
};

/* Beside enum field_flags in command_row_t.flags. */
enum command_flags { COMMAND_KEEP = 32 /* with TURNS: 0 W has no word of its own, the last direction stays */,
                     COMMAND_TURNS = 64 /* chooses a direction: changed only while the unit's other setpoints hold 0 */,
                     COMMAND_FLASH = 128 /* the register wears out: no repeats, no write of what it already holds */ };

enum part_of {
    PART_CONST = 0,  /* `value` */
    PART_SETPOINT,   /* the command's value, with its sign */
    PART_MAGNITUDE,  /* without */
    PART_CHARGE,     /* the magnitude of a charge, 0 else */
    PART_DISCHARGE,  /* of a discharge */
    PART_DIRECTION,  /* one of three words */
};

/* One value of a command that writes several, or of one whose registers are not its value as it is. */
typedef struct {
    uint16_t offset; /* words from the command's address */
    uint8_t type;    /* enum field_type */
    uint8_t flags;   /* enum field_flags */
    uint8_t of;      /* enum part_of */
    uint8_t pad;
    int16_t sf_point; /* with FIELD_SF_POINT */
    double scale;     /* raw = value / scale */
    double value;     /* PART_CONST; of PART_DIRECTION at 0 W; else raw that stands for 0 W */
    double charge, discharge; /* PART_DIRECTION */
} command_part_t;

typedef struct {
    uint16_t slave;
    uint8_t function; /* 6 or 16 (5, 15 for coils) */
    uint8_t kind;     /* enum command_kind */
    uint16_t address, count;
    uint8_t type; /* enum field_type of the value */
    uint8_t flags; /* enum field_flags */
    int8_t unit;   /* storage unit, -1 = none */
    uint8_t part_count;     /* 0 = the row itself says how its value is written */
    int16_t sf_point;       /* with FIELD_SF_POINT */
    int16_t readback_point; /* point that must follow the written value, -1 none */
    double scale;           /* raw = value / scale, sign convention included */
    double value;           /* COMMAND_CONST and COMMAND_STOP */
    uint64_t resend_ns;     /* at the latest; half of the device's own time-out; 0 = only when the value changes */
    uint64_t pause_ns;      /* the device takes no other write for so long after this one */
    uint16_t part_first;
    uint16_t pad[3];
} command_row_t;

/* ---- storage units and the site ---- */

/* Which of a converter's readings is its battery's power, to be held against what the BMS says. */
enum battery_power { BATTERY_POWER_PCS = 0 /* pcs_w: nothing else feeds or loads it */,
                     BATTERY_POWER_DC      /* dc_v times dc_a */,
                     BATTERY_POWER_NONE    /* none: the rows that compare are off, and power beyond the setpoint is its modules' */,
                     BATTERY_POWER_OWN     /* battery_w: setpoints and pcs_w are AC power, its modules' included */ };

/* Where the control and the gate find a unit's signals: image indices, -1 = the map has none. */
typedef struct {
    char name[16];
    int16_t soc, soh, pack_v, pack_a, temp_max_c, temp_min_c;
    int16_t charge_a_max, discharge_a_max, charge_v_max, discharge_v_min;
    int16_t charge_w_max, discharge_w_max; /* where the BMS gives power limits */
    int16_t cell_v_max, cell_v_min;
    int16_t charge_ok, discharge_ok;       /* enable bits, 1 = allowed */
    int16_t alarm, warning;                /* any bit set = active */
    int16_t pcs_w, pcs_state, pcs_fault, pcs_hb; /* pcs_w + discharge */
    int16_t pcs_ready;                     /* 1 = the PCS accepts and runs setpoints */
    int16_t dc_v, dc_a;                    /* PCS side, for the cross check */
    int16_t identity[3];                   /* believable only while the PCS is the device of its map */
    int16_t pcs_revert_s;                  /* time-out of the PCS's own watchdog as it reads back, s; 0 = off */
    int16_t grid_ok;                       /* 0 = the converter misses the grid */
    int16_t force_charge;                  /* 1 = the BMS asks to be charged */
    int16_t connected;                     /* how many of its batteries are; -1 = it has one, which its own fields are */
    double energy_wh;                      /* usable, nameplate */
    double revert_measured_s;              /* of the PCS's own watchdog, as commissioning measured it; 0 = not measured */
    gate_limits_t gate;
    uint32_t battery_power;                /* enum battery_power */
    int16_t battery_w;                     /* the converter's reading of its battery's power, + discharge */
    uint16_t pad;
} unit_row_t;

/* One of several batteries side by side behind a unit's converter: image indices, as in unit_row_t, -1 = none. */
typedef struct {
    int16_t unit;
    int16_t connected;                     /* 1 = its contactors are closed; where the map does not say, they are */
    int16_t soc, soh, pack_v, pack_a, temp_max_c, temp_min_c;
    int16_t charge_a_max, discharge_a_max, charge_v_max, discharge_v_min;
    int16_t charge_w_max, discharge_w_max;
    int16_t cell_v_max, cell_v_min;
    int16_t charge_ok, discharge_ok;
    int16_t alarm, warning;
    int16_t force_charge;
    int16_t pad;
} bank_row_t;

typedef struct {
    int16_t grid_w, grid_w_l[3];
    int16_t pv_w;
    int16_t circuit_w[8]; /* sub-meters with limits of their own */
    int16_t grid_import_wh, grid_export_wh;
    int16_t grid_hz, grid_v[3];
    int16_t demand_w;     /* the utility's own mean of the running window */
    int16_t window_pulse; /* its every change is a window's begin */
    int16_t grid_a[3];    /* of the grid meter's phases */
    int16_t genset_w, genset_hz; /* of a meter of its own; -1 = in an island the grid meter shows the genset */
    int16_t island;       /* 1 = the transfer switch has left the grid */
} site_points_t;

/* What a contact means while its point is 1, and while nobody knows: a relay counts as commanded, a guard as lost. */
enum input_what { INPUT_STOP = 1 /* the grid operator's: no battery power */, INPUT_LIMIT /* its step: import_w_max */,
                  INPUT_DOOR, INPUT_SMOKE, INPUT_ESTOP };

typedef struct {
    int16_t point;
    uint8_t what; /* enum input_what */
    uint8_t pad[5];
    double import_w_max; /* for INPUT_LIMIT: most grid import, W */
} input_row_t;

typedef struct {
    uint32_t magic, layout_version, image_version, size;
    uint8_t sha256[32]; /* of everything behind this field, the describe blob included */
    uint64_t period_ns;
    uint32_t snapshot_every; /* cycles between two snapshots pushed to the ring */
    uint32_t n_points, n_units;
    uint32_t n_can_buses, n_can_frames, n_can_fields, n_can_tx;
    uint32_t n_ports, n_slaves, n_blocks, n_fields, n_commands, n_command_parts;
    uint32_t n_bank_rows;
    uint32_t n_inputs;
    uint32_t describe_size; /* bytes of JSON that follow this struct, for the gateway and people */
    site_points_t site;
    input_row_t inputs[INPUTS_MAX];
    control_params_t control;
    unit_row_t units[UNITS_MAX];
    bank_row_t bank_rows[BANK_ROWS_MAX];
    gate_fault_row_t faults[GATE_FAULTS_MAX];
    point_row_t points[POINTS_MAX];
    can_frame_row_t can_frames[CAN_FRAMES_MAX];
    can_field_row_t can_fields[CAN_FIELDS_MAX];
    can_tx_row_t can_tx[CAN_TX_MAX];
    port_row_t ports[PORTS_MAX];
    slave_row_t slaves[SLAVES_MAX];
    block_row_t blocks[BLOCKS_MAX];
    field_row_t fields[FIELDS_MAX];
    command_row_t commands[COMMANDS_MAX];
    command_part_t command_parts[COMMAND_PARTS_MAX];
} program_t;

/* Whether a port's frames go over a connection and not over a tty. */
static inline uint32_t port_over_tcp(const port_row_t *port) {
    return port->transport == PORT_MBAP || port->transport == PORT_RTU_TCP || port->transport == PORT_PYLON_TCP;
}
/* Whether its frames are Pylontech's, which carry nothing to write. */
static inline uint32_t port_speaks_pylon(const port_row_t *port) {
    return port->transport == PORT_PYLON || port->transport == PORT_PYLON_TCP;
}

/* How many command rows a port has, and the first of them: slot n of its mail belongs to row first + n. */
static inline uint32_t port_command_rows(const program_t *p, uint32_t port, uint32_t *first) {
    uint32_t low = COMMANDS_MAX, high = 0;
    for (uint32_t s = p->ports[port].slave_first; s < (uint32_t)p->ports[port].slave_first + p->ports[port].slave_count; s++) {
        const slave_row_t *slave = &p->slaves[s];
        if (slave->command_count == 0)
            continue;
        if (slave->command_first < low)
            low = slave->command_first;
        if ((uint32_t)slave->command_first + slave->command_count > high)
            high = (uint32_t)slave->command_first + slave->command_count;
    }
    *first = high > low ? low : 0u;
    return high > low ? high - low : 0u;
}

#endif
