"""The floor under every controller: what the delay of meter, wire and converter alone leaves above the limit."""

from libc.math cimport ceil, fabs
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from tidegate.ext.sim.assembly cimport Assembly
from tidegate.ext.sim.habits cimport average_w
from tidegate.ext.sim.buses cimport world_faults, world_t
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


cdef enum:
    KNOWN_MAX = 4096  # readings on their way from the meter to the converter

cdef struct ideal_t:
    double limit_w, recharge_w_max, recharge_w, target_soc, soc_min, soc_max, soc_taper
    uint64_t wire_ns
    int meter
    bint invert
    uint64_t known_t_ns[KNOWN_MAX]
    double known_w[KNOWN_MAX]
    uint32_t head, tail
    uint64_t taken_t_ns


cdef double ramp_share(double room, double width) noexcept nogil:
    if room <= 0.0:
        return 0.0
    return room / width if room < width else 1.0


cdef double bank_share(const pcs_t* pcs, double each_w, double most_w) noexcept nogil:
    """What all batteries of a converter allow, and the converter."""
    cdef uint32_t beside = pcs.beside
    cdef double all_w = each_w
    while beside:
        all_w += each_w if beside & 1 else 0.0
        beside >>= 1
    return all_w if all_w < most_w else most_w


cdef void ideal_write(ideal_t* ideal, plant_t* plant, double net_w, uint64_t t_ns) noexcept nogil:
    """Write to every converter its part of what this net power asks for."""
    cdef double wanted_w, hi_w, lo_w, soc, set_w
    cdef pcs_t* pcs
    cdef battery_t* battery
    cdef uint32_t i
    for i in range(plant.n_pcs):
        pcs = &plant.pcs[i]
        battery = &plant.batteries[pcs.battery]
        soc = battery.v[BATTERY_SOC]
        hi_w = bank_share(pcs, battery.v[BATTERY_DISCHARGE_W_MAX], pcs.discharge_w_max)
        lo_w = bank_share(pcs, battery.v[BATTERY_CHARGE_W_MAX], pcs.charge_w_max)
        hi_w *= ramp_share(soc - ideal.soc_min, ideal.soc_taper)
        lo_w *= ramp_share(ideal.soc_max - soc, ideal.soc_taper)
        wanted_w = net_w - ideal.limit_w
        if wanted_w < 0.0:
            wanted_w = 0.0
            if net_w < ideal.recharge_w_max and soc < ideal.target_soc:
                wanted_w = net_w - ideal.recharge_w_max
                if wanted_w < -ideal.recharge_w:
                    wanted_w = -ideal.recharge_w
        wanted_w /= <double>plant.n_pcs
        wanted_w = hi_w if wanted_w > hi_w else (-lo_w if wanted_w < -lo_w else wanted_w)
        set_w = wanted_w
        if pcs.habits != NULL:
            if ideal.invert:
                set_w = (wanted_w - pcs.habits.offset_w) / pcs.habits.gain
            if pcs.habits.quantum_w > 0.0:  # to the side that keeps the limit
                set_w = ceil(set_w / pcs.habits.quantum_w) * pcs.habits.quantum_w
        pcs.v[PCS_SET_W] = set_w
        pcs_written(plant, pcs, PCS_SET_W, t_ns)


def run_ideal(Assembly world, double[::1] grid_w, double[::1] ess_w, *, int meter, double limit_w, double recharge_w_max, double recharge_w,
              double target_soc, double soc_min, double soc_max, double soc_taper, double wire_s, double start_s, bint invert=True):
    """Run a started plant under a perfect controller that reads its meter through its bus, and recharges.

    The plant is the whole one: cells, limits of the BMS, derating, ramps, quantised setpoints, injected faults. The
    controller sees what the meter measures, when it measures it and with its averaging, free of its resolution, sign
    and faults, and free of what the battery did; wire_s later than the registers it writes what that asks for, never
    more than the limit and the recharge band need (no overdrive). It knows gain and offset and undoes them (invert),
    and is bounded by the BMS's limits, the nameplate and the site's SoC limits. Before start_s it writes nothing.

    grid_w, ess_w: filled with the true power after each step of the plant, W. meter: number of the grid meter.
    """
    cdef world_t* at = world.ptr()
    cdef plant_t* plant = &at.plant
    cdef ideal_t ideal
    cdef meter_t* source
    cdef pcs_t* pcs
    cdef uint32_t i
    cdef Py_ssize_t row, rows = grid_w.shape[0]
    cdef uint64_t start_ns = plant.t_ns + <uint64_t>(start_s * 1e9)
    cdef double net_w
    if not 0 <= meter < <int>plant.n_meters:
        raise IndexError(f"no meter {meter}")
    if ess_w.shape[0] != rows or soc_taper <= 0.0:
        raise ValueError("as many rows of grid as of battery, and a taper above 0")
    memset(&ideal, 0, sizeof(ideal))
    ideal.limit_w, ideal.recharge_w_max, ideal.recharge_w = limit_w, recharge_w_max, recharge_w
    ideal.target_soc, ideal.soc_min, ideal.soc_max, ideal.soc_taper = target_soc, soc_min, soc_max, soc_taper
    ideal.wire_ns = <uint64_t>(wire_s * 1e9)
    ideal.invert = invert
    source = &plant.meters[meter]
    for i in range(plant.n_pcs):
        pcs = &plant.pcs[i]
        pcs.v[PCS_SET_ENA] = pcs.v[PCS_SET_MODE] = pcs.v[PCS_OP_CTL] = 1.0
        pcs.v[PCS_REVERT_ENA] = 0.0
        pcs.heartbeat_timeout_ns = 0
    with nogil:
        for row in range(rows):
            at.t_ns += plant.dt_ns
            if at.t_ns >= at.fault_next_ns:
                world_faults(at, at.t_ns)
            plant_step(plant, at.t_ns)
            if source.taken_t_ns != ideal.taken_t_ns:
                ideal.taken_t_ns = source.taken_t_ns
                net_w = plant.load_w - plant.pv_w
                if source.habits != NULL:
                    net_w = average_w(&source.habits.net, net_w, plant.dt_s)
                if ideal.head - ideal.tail < KNOWN_MAX:
                    ideal.known_t_ns[ideal.head % KNOWN_MAX] = source.taken_t_ns + source.delay_ns + ideal.wire_ns
                    ideal.known_w[ideal.head % KNOWN_MAX] = net_w
                    ideal.head += 1
            while ideal.tail != ideal.head and ideal.known_t_ns[ideal.tail % KNOWN_MAX] <= at.t_ns:
                # What came before start_s is the newest known then.
                if at.t_ns < start_ns and (ideal.tail + 1 == ideal.head or ideal.known_t_ns[(ideal.tail + 1) % KNOWN_MAX] > at.t_ns):
                    break
                if at.t_ns >= start_ns:
                    ideal_write(&ideal, plant, ideal.known_w[ideal.tail % KNOWN_MAX], at.t_ns)
                ideal.tail += 1
            grid_w[row] = plant.grid_w
            ess_w[row] = plant.ess_w
