"""A battery with its BMS: cells behind a resistance, their heat, and what the BMS makes of them."""

from libc.math cimport NAN, fabs, sqrt

from tidegate.ext.sim.habits cimport battery_habit
from tidegate.ext.sim.plant cimport *


cdef double open_voltage(battery_t* battery) noexcept nogil:
    """Voltage of the pack at rest: piecewise linear in the state of charge."""
    cdef double soc = battery.charge_as / battery.capacity_as
    cdef int i = battery.segment
    while i > 0 and soc < battery.ocv_soc[i]:
        i -= 1
    while i < battery.ocv_count - 2 and soc >= battery.ocv_soc[i + 1]:
        i += 1
    battery.segment = i
    return battery.cells * (
        battery.ocv_v[i]
        + (battery.ocv_v[i + 1] - battery.ocv_v[i]) * (soc - battery.ocv_soc[i])
        / (battery.ocv_soc[i + 1] - battery.ocv_soc[i])
    )


cdef double battery_draw(battery_t* battery, double dc_w, double dt_s) noexcept nogil:
    """Draw dc_w (+ discharge) at the terminals for dt_s; return what the cells could really give."""
    cdef double open_v = battery.open_v
    cdef double room, current_a
    if not battery.contactor:
        battery.current_a = 0.0
        battery.dc_w = 0.0
        return 0.0
    # V = E - R I and P = V I; the smaller root is the working one. Beyond E^2 / 4R no current gives more.
    room = open_v * open_v - 4.0 * battery.r_ohm * dc_w
    if room < 0.0:
        room = 0.0
    current_a = (open_v - sqrt(room)) / (2.0 * battery.r_ohm)
    if current_a > 0.0 and battery.charge_as <= 0.0:
        current_a = 0.0
    battery_carry(battery, current_a, dt_s)
    return battery.dc_w


cdef void battery_carry(battery_t* battery, double current_a, double dt_s) noexcept nogil:
    """What a current of so long does to the cells."""
    cdef double open_v = battery.open_v
    battery.current_a = current_a
    battery.dc_w = (open_v - battery.r_ohm * current_a) * current_a
    battery.charge_as -= current_a * dt_s
    battery.drawn_j += open_v * current_a * dt_s
    battery.heat_j += battery.r_ohm * current_a * current_a * dt_s
    battery.temp_c += (
        battery.r_ohm * current_a * current_a - (battery.temp_c - battery.ambient_c) * battery.cooling_w_per_k
    ) * dt_s / battery.heat_j_per_k
    battery.open_v = open_voltage(battery)


cdef inline bint beside_or_own(int number, int battery, uint32_t beside) noexcept nogil:
    return number == battery or (beside >> number) & 1


cdef battery_t* bank_any(battery_t* all, int battery, uint32_t beside) noexcept nogil:
    cdef int i
    for i in range(BATTERIES_MAX):
        if beside_or_own(i, battery, beside) and all[i].contactor:
            return &all[i]
    return &all[battery]


cdef double bank_current(const battery_t* all, int battery, uint32_t beside) noexcept nogil:
    cdef int i
    cdef double current_a = 0.0
    for i in range(BATTERIES_MAX):
        if beside_or_own(i, battery, beside):
            current_a += all[i].current_a
    return current_a


cdef double bank_draw(battery_t* all, int battery, uint32_t beside, double dc_w, double dt_s) noexcept nogil:
    cdef int i
    cdef double conductance = 0.0, open_v = 0.0, r_ohm, room, bus_v, current_a, got_w = 0.0
    if beside == 0:
        return battery_draw(&all[battery], dc_w, dt_s)
    for i in range(BATTERIES_MAX):
        if beside_or_own(i, battery, beside) and all[i].contactor:
            conductance += 1.0 / all[i].r_ohm
            open_v += all[i].open_v / all[i].r_ohm
    bus_v = 0.0
    if conductance > 0.0:  # as one battery behind one resistance
        open_v /= conductance
        r_ohm = 1.0 / conductance
        room = open_v * open_v - 4.0 * r_ohm * dc_w
        if room < 0.0:
            room = 0.0
        bus_v = open_v - (open_v - sqrt(room)) / 2.0
    for i in range(BATTERIES_MAX):
        if not beside_or_own(i, battery, beside):
            continue
        if not all[i].contactor:
            all[i].current_a = 0.0
            all[i].dc_w = 0.0
            continue
        current_a = (all[i].open_v - bus_v) / all[i].r_ohm
        if current_a > 0.0 and all[i].charge_as <= 0.0:
            current_a = 0.0
        battery_carry(&all[i], current_a, dt_s)
        got_w += bus_v * current_a
    return got_w


cdef void bms_step(battery_t* battery, double dt_s) noexcept nogil:
    """What the BMS works out ten times a second: limits, alarms, its own protection."""
    cdef double* v = battery.v
    cdef double soc = battery.charge_as / battery.capacity_as
    cdef double cell_v = (battery.open_v - battery.r_ohm * battery.current_a) / battery.cells
    cdef double up = (1.0 - soc) / battery.taper, down = soc / battery.taper
    cdef int broken
    up = 0.0 if up < 0.0 else (1.0 if up > 1.0 else up)
    down = 0.0 if down < 0.0 else (1.0 if down > 1.0 else down)

    # Its own protection: a limit broken by a tenth for two seconds raises the alarm, for five opens the contactor.
    broken = (
        cell_v > battery.cell_v_max
        or cell_v < battery.cell_v_min
        or battery.temp_c > battery.temp_c_max
        or battery.temp_c < battery.temp_c_min
        or battery.current_a > 1.1 * battery.discharge_a_max * down + 1.0
        or -battery.current_a > 1.1 * battery.charge_a_max * up + 1.0
    )
    battery.above_s = battery.above_s + dt_s if broken else 0.0
    if battery.faults & BATTERY_OPEN and battery.contactor:
        battery.contactor = 0
        battery.parked = 1
    elif not battery.faults & BATTERY_OPEN and battery.parked:
        battery.contactor = 1
        battery.parked = 0
    if battery.above_s > 5.0 and battery.contactor:
        battery.contactor = 0
        battery.opened += 1
        if fabs(battery.current_a) > 5.0:
            battery.opened_under_load += 1

    if battery.faults & BATTERY_FROZEN:  # its frames come on, each with what the last true one said
        return
    v[BATTERY_SOC] = soc
    v[BATTERY_SOH] = battery.soh
    v[BATTERY_PACK_V] = battery.open_v - battery.r_ohm * battery.current_a
    v[BATTERY_PACK_A] = battery.current_a
    v[BATTERY_TEMP_MAX_C] = battery.temp_c + 1.0
    v[BATTERY_TEMP_MIN_C] = battery.temp_c - 1.0
    v[BATTERY_CELL_V_MAX] = cell_v + 0.004
    v[BATTERY_CELL_V_MIN] = cell_v - 0.004
    v[BATTERY_CHARGE_V_MAX] = battery.cell_v_max * battery.cells
    v[BATTERY_DISCHARGE_V_MIN] = battery.cell_v_min * battery.cells
    v[BATTERY_CHARGE_A_MAX] = battery.charge_a_max * up
    v[BATTERY_DISCHARGE_A_MAX] = battery.discharge_a_max * down
    v[BATTERY_CHARGE_OK] = 1.0 if battery.contactor and up > 0.0 else 0.0
    v[BATTERY_DISCHARGE_OK] = 1.0 if battery.contactor and down > 0.0 else 0.0
    v[BATTERY_ALARM] = 1.0 if battery.above_s > 2.0 or not (battery.contactor or battery.parked) else 0.0
    v[BATTERY_WARNING] = 1.0 if broken else 0.0
    v[BATTERY_CONTACTOR] = battery.contactor
    v[BATTERY_CAPACITY_AH] = battery.capacity_as / 3600.0
    v[BATTERY_ENERGY_WH] = battery.charge_as * battery.open_v / 3600.0
    v[BATTERY_STATE] = 3.0 if battery.contactor else 99.0
    if battery.habits != NULL:
        battery_habit(battery, dt_s)
    if battery.faults:
        battery_misreport(battery)
    v[BATTERY_CHARGE_W_MAX] = v[BATTERY_CHARGE_A_MAX] * v[BATTERY_PACK_V]
    v[BATTERY_DISCHARGE_W_MAX] = v[BATTERY_DISCHARGE_A_MAX] * v[BATTERY_PACK_V]


cdef void battery_misreport(battery_t* battery) noexcept nogil:
    """Injected faults of the BMS: what it says, never what the cells are."""
    cdef double* v = battery.v
    if battery.faults & BATTERY_WARNS:
        v[BATTERY_WARNING] = 1.0
    if battery.faults & BATTERY_ALARMS:
        v[BATTERY_ALARM] = 1.0
    if battery.faults & BATTERY_NO_CHARGE:
        v[BATTERY_CHARGE_OK] = 0.0
        v[BATTERY_CHARGE_A_MAX] = 0.0
    if battery.faults & BATTERY_NO_DISCHARGE:
        v[BATTERY_DISCHARGE_OK] = 0.0
        v[BATTERY_DISCHARGE_A_MAX] = 0.0
    if battery.faults & BATTERY_LIMITS_ZERO:
        v[BATTERY_CHARGE_A_MAX] = 0.0
        v[BATTERY_DISCHARGE_A_MAX] = 0.0
    if battery.faults & BATTERY_SENTINEL:
        v[BATTERY_SOC] = NAN
    if battery.faults & BATTERY_WILD:
        v[BATTERY_TEMP_MAX_C] = -150.0
        v[BATTERY_TEMP_MIN_C] = -150.0
        v[BATTERY_PACK_V] = 0.0
    if battery.faults & BATTERY_SOC_JUMP:
        v[BATTERY_SOC] = v[BATTERY_SOC] + 0.25 if v[BATTERY_SOC] < 0.5 else v[BATTERY_SOC] - 0.25
    if battery.faults & BATTERY_VOLTAGE_OFF:
        v[BATTERY_PACK_V] *= 0.93
    if battery.faults & BATTERY_HOT:
        v[BATTERY_TEMP_MAX_C] = battery.temp_c_max + 2.0
