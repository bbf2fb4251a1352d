"""The floor under every controller: what the delay of meter, wire and converter alone leaves above the limit."""

from libc.math cimport fabs
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.sim.plant cimport *


def floor_energy(const uint64_t[::1] t_ns, const double[::1] power_w, *, double limit_w, double seconds,
                 double cooling_share, double cooling_mean_s=600.0, double meter_interval_s, double meter_phase_s, double meter_delay_s, double wire_s,
                 double dead_s, double tau_s, double ramp_w_per_s, double discharge_w_max, double charge_w_max=0.0,
                 double recharge_w_max=0.0):
    """What a perfect controller behind the same meter, wire and converter would leave above the limit.

    It knows the load exactly, but only at each update of the meter's registers; one least read and one least write
    later (wire_s) the converter has the setpoint, and answers with the same dead time, lag and ramp. It commands the
    power that is wanted and never more (no overdrive against the lag), has all the energy it needs, and no limit but
    the converter's. With recharge_w_max it also charges, at most charge_w_max, while the grid stays below that power:
    then a step may find it charging.

    t_ns, power_w: rows of IT power, each held until the next. Returns a dict: energy_wh and peak_w above the limit,
    and the same without a battery.
    """
    cdef plant_t plant
    cdef double dt_s = 1e-3, p_w = 0.0, target_w = 0.0, alpha, move_w, most_w, over_w, next_tick_s
    cdef double above_j = 0.0, without_j = 0.0, peak_w = 0.0, peak_without_w = 0.0, wanted_w, at_s
    cdef double[1024] queue_s
    cdef double[1024] queue_w
    cdef uint32_t head = 0, tail = 0
    cdef uint64_t i, steps = <uint64_t>(seconds / dt_s)
    if t_ns.shape[0] == 0 or t_ns.shape[0] != power_w.shape[0]:
        raise ValueError(f"{t_ns.shape[0]} times and {power_w.shape[0]} powers, needs as many of both, at least one")
    if (meter_delay_s + wire_s + dead_s) / meter_interval_s > 1000.0:
        raise ValueError("delay of more than 1000 meter intervals")
    memset(&plant, 0, sizeof(plant))
    plant.dt_ns = 1000000
    plant.volt = 230.0
    plant.load_t_ns = &t_ns[0]
    plant.load_rows_w = &power_w[0]
    plant.load_count = <uint32_t>t_ns.shape[0]
    plant.cooling_share = cooling_share
    plant.cooling_count = <uint32_t>cooling_mean_s if 1.0 <= cooling_mean_s <= COOLING_S else 600
    alpha = lag_share(dt_s, tau_s)
    most_w = ramp_w_per_s * dt_s
    with nogil:
        plant_start(&plant, 0)
        next_tick_s = meter_phase_s
        for i in range(1, steps + 1):
            at_s = <double>i * dt_s
            load_step(&plant, i * 1000000)
            cooling_step(&plant, dt_s)
            plant.load_w = plant.it_w + plant.cooling_w
            while next_tick_s <= at_s:
                wanted_w = plant.load_w - limit_w
                if wanted_w < 0.0:
                    wanted_w = 0.0
                    if plant.load_w < recharge_w_max:
                        wanted_w = plant.load_w - recharge_w_max
                        if wanted_w < -charge_w_max:
                            wanted_w = -charge_w_max
                if wanted_w > discharge_w_max:
                    wanted_w = discharge_w_max
                queue_s[head % 1024] = next_tick_s + meter_delay_s + wire_s + dead_s
                queue_w[head % 1024] = wanted_w
                head += 1
                next_tick_s += meter_interval_s
            while tail != head and queue_s[tail % 1024] <= at_s:
                target_w = queue_w[tail % 1024]
                tail += 1
            move_w = (target_w - p_w) * alpha
            p_w += move_w if fabs(move_w) <= most_w else (most_w if move_w > 0.0 else -most_w)
            over_w = plant.load_w - limit_w
            if plant.load_w > peak_without_w:
                peak_without_w = plant.load_w
            if over_w > 0.0:
                without_j += over_w * dt_s
            over_w -= p_w
            if over_w + limit_w > peak_w:
                peak_w = over_w + limit_w
            if over_w > 0.0:
                above_j += over_w * dt_s
    return {"energy_wh": above_j / 3600.0, "peak_w": peak_w, "energy_without_wh": without_j / 3600.0,
            "peak_without_w": peak_without_w}
