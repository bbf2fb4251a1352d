"""What real devices add to the plain ones: averages, jitter, reports on change; gain, derating; whole-percent SoC.

Sums, shares and integers only, as in plant.pyx: a run repeats to the byte on any machine.
"""

from libc.math cimport fabs, floor
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.sim.plant cimport *

cdef double SECOND = 1e-9
cdef uint64_t SECOND_NS = 1000000000
cdef uint64_t TENTH_NS = 100000000


cdef double chance(uint64_t* state) noexcept nogil:
    """0..1, by xorshift64."""
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return <double>(state[0] >> 11) * (1.0 / 9007199254740992.0)


# ---------------------------------------------------------------- battery


cdef void battery_habit(battery_t* battery, double dt_s) noexcept nogil:
    cdef battery_habits_t* habits = battery.habits
    cdef double* v = battery.v
    if habits.jump_ns > 0:
        if habits.next_ns <= TENTH_NS:  # counted down by the BMS's own tenth of a second
            habits.share = habits.jump_lo + (1.0 - habits.jump_lo) * chance(&habits.random)
            habits.next_ns = habits.jump_ns // 2 + <uint64_t>(chance(&habits.random) * <double>habits.jump_ns)
        else:
            habits.next_ns -= TENTH_NS
        v[BATTERY_CHARGE_A_MAX] *= habits.share
        v[BATTERY_DISCHARGE_A_MAX] *= habits.share
    if habits.soc_step > 0.0:
        v[BATTERY_SOC] = floor(v[BATTERY_SOC] / habits.soc_step + 0.5) * habits.soc_step


# ---------------------------------------------------------------- power converter


cdef double pcs_goal(plant_t* plant, pcs_t* pcs, uint64_t t_ns) noexcept nogil:
    cdef pcs_habits_t* habits = pcs.habits
    cdef battery_t* battery = &plant.batteries[pcs.battery]
    cdef double goal_w = pcs.target_w, soc = battery.charge_as / battery.capacity_as
    cdef uint64_t at_ns = t_ns - plant.t0_ns
    if habits.quantum_w > 0.0:
        goal_w = floor(goal_w / habits.quantum_w + 0.5) * habits.quantum_w
    goal_w = habits.gain * goal_w + habits.offset_w
    if habits.from_ns <= at_ns < habits.until_ns:
        goal_w *= habits.share
        if goal_w > habits.cap_w:
            goal_w = habits.cap_w
        elif goal_w < -habits.cap_w:
            goal_w = -habits.cap_w
    if soc >= habits.full_soc:
        habits.full = 1
    elif soc < habits.full_soc - 0.01:
        habits.full = 0
    if habits.full and goal_w < 0.0:
        goal_w = 0.0
    if goal_w > pcs.discharge_w_max:
        goal_w = pcs.discharge_w_max
    elif goal_w < -pcs.charge_w_max:
        goal_w = -pcs.charge_w_max
    return goal_w


# ---------------------------------------------------------------- meter


cdef void average_start(average_t* average, double w, double dt_s) noexcept nogil:
    """As if the power had always been w."""
    cdef uint32_t i
    average.integral_j = 0.0
    average.smooth_w = w
    average.at = 0
    if average.window_s > 0.0:
        average.block = <uint32_t>(average.window_s / (dt_s * (AVERAGE_ROWS - 1)) + 0.999999)
        if average.block == 0:
            average.block = 1
        average.left = average.block
        for i in range(<uint32_t>AVERAGE_ROWS):
            average.rows_j[(AVERAGE_ROWS - i) % AVERAGE_ROWS] = -w * <double>i * <double>average.block * dt_s


cdef void average_step(average_t* average, double w, double dt_s) noexcept nogil:
    if average.alpha > 0.0:
        average.smooth_w += (w - average.smooth_w) * average.alpha
    if average.window_s <= 0.0:
        return
    average.integral_j += w * dt_s
    average.left -= 1
    if average.left == 0:
        average.left = average.block
        average.at = (average.at + 1) % AVERAGE_ROWS
        average.rows_j[average.at] = average.integral_j


cdef double average_w(const average_t* average, double now_w, double dt_s) noexcept nogil:
    """What the meter takes for the power: its mean over the window, or what its filter says, or the power itself."""
    cdef double block_s = <double>average.block * dt_s
    cdef uint32_t rows
    if average.window_s > 0.0:
        rows = <uint32_t>(average.window_s / block_s + 0.5)
        rows = 1 if rows == 0 else (AVERAGE_ROWS - 1 if rows > AVERAGE_ROWS - 1 else rows)
        return (
            average.integral_j - average.rows_j[(average.at + AVERAGE_ROWS - rows) % AVERAGE_ROWS]
        ) / (<double>rows * block_s + <double>(average.block - average.left) * dt_s)
    if average.alpha > 0.0:
        return average.smooth_w
    return now_w


cdef void meter_habits_start(plant_t* plant, meter_t* meter, uint64_t t_ns) noexcept nogil:
    cdef meter_habits_t* habits = meter.habits
    habits.base_ns = meter.next_ns
    average_start(&habits.own, meter_w(plant, meter), plant.dt_s)
    average_start(&habits.net, plant.load_w - plant.pv_w, plant.dt_s)
    habits.said_ns = 0


cdef void meter_habit(plant_t* plant, meter_t* meter, uint64_t t_ns) noexcept nogil:
    cdef meter_habits_t* habits = meter.habits
    cdef double w = meter_w(plant, meter), net_w = plant.load_w - plant.pv_w
    if habits.then_ns > 0 and t_ns - plant.t0_ns >= habits.then_ns:
        habits.then_ns = 0
        meter.interval_ns = habits.then_interval_ns
        habits.own.window_s = habits.net.window_s = habits.then_window_s
        habits.own.alpha = habits.net.alpha = (
            lag_share(plant.dt_s, habits.then_lag_s) if habits.then_lag_s > 0.0 else 0.0
        )
        average_start(&habits.own, w, plant.dt_s)
        average_start(&habits.net, net_w, plant.dt_s)
    average_step(&habits.own, w, plant.dt_s)
    average_step(&habits.net, net_w, plant.dt_s)


cdef bint meter_reports(plant_t* plant, meter_t* meter) noexcept nogil:
    cdef meter_habits_t* habits = meter.habits
    cdef double w
    if habits.band_w <= 0.0:
        return True
    w = average_w(&habits.own, meter_w(plant, meter), plant.dt_s)
    if habits.said_ns > 0 and fabs(w - habits.said_w) < habits.band_w and meter.next_ns < habits.said_ns + habits.silent_ns:
        return False
    habits.said_ns = meter.next_ns
    habits.said_w = w
    return True


cdef void meter_next(meter_t* meter) noexcept nogil:
    cdef meter_habits_t* habits = meter.habits
    habits.base_ns += meter.interval_ns
    meter.next_ns = habits.base_ns
    if habits.jitter > 0.0:
        meter.next_ns += <uint64_t>(chance(&habits.random) * habits.jitter * <double>meter.interval_ns)
