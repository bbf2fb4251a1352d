/* The gate under seeded random inputs, in volume: every cycle's verdict is held against the rules of docs/safety.md.
 *
 * usage: gate_volume SEED CYCLES      prints cycles, those with power, violations and a digest of all
 * verdicts; exit code 1 on a violation
 * Inputs are a walk with jumps: mostly a believable unit, often at the edges of its limits, sometimes anything at all.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "safety.c"

static uint64_t rng_state;

static uint64_t rng(void) /* splitmix64 */
{
    uint64_t z = (rng_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int one_in(uint32_t n) { return rng() % n == 0; }

static int ordinary; /* this episode: extremes are rare, so that power flows */

static int32_t near(int32_t value, int32_t spread) /* about a value, or one of the extremes */
{
    static const int32_t edges[] = {0, 1, -1, INT32_MAX, INT32_MIN, INT32_MIN + 1, 1000, 10000};
    if (one_in(ordinary ? 4000 : 40))
        return edges[rng() % 8];
    if (one_in(ordinary ? 4000 : 40))
        return (int32_t)rng();
    return (int32_t)within((int64_t)value + (int64_t)(rng() % (2u * (uint32_t)spread + 1u)) - spread, INT32_MIN, INT32_MAX);
}

static int violations;

static void must(int holds, const char *rule, uint64_t cycle)
{
    if (holds)
        return;
    if (violations++ < 10)
        printf("violated in cycle %" PRIu64 ": %s\n", cycle, rule);
}

static void random_limits(gate_limits_t *l)
{
    memset(l, 0, sizeof *l);
    l->charge_w_max = one_in(16) ? 0 : near(30000, 100);
    l->discharge_w_max = near(30000, 100);
    l->charge_ma_max = near(60000, 20000);
    l->discharge_ma_max = near(60000, 20000);
    l->soc_min_cpct = near(1000, 5);
    l->soc_max_cpct = near(9500, 5);
    l->soc_taper_cpct = near(300, 300);
    l->temp_min_ddegc = near(0, 5);
    l->temp_max_ddegc = near(550, 5);
    l->temp_taper_ddegc = near(50, 50);
    l->cell_mv_min = near(2800, 5);
    l->cell_mv_max = near(3600, 5);
    l->cell_taper_mv = near(50, 50);
    l->ramp_go_w_per_s = one_in(16) ? 0 : near(60000, 60000);
    l->ramp_stop_w_per_s = one_in(8) ? 0 : near(300000, 300000);
}

static void random_rows(gate_fault_row_t rows[GATE_FAULTS_MAX])
{
    int i;
    memset(rows, 0, GATE_FAULTS_MAX * sizeof *rows);
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        rows[i].reaction = one_in(50) ? near(0, 9) : (int32_t)(rng() % 7);
        rows[i].latched = one_in(ordinary ? 30 : 8);
        rows[i].debounce_ms = one_in(3) ? 0 : near(20, 20);
        rows[i].clear_ms = near(50, 50);
        rows[i].derate_permille = near(500, 520);
        rows[i].flap_max = one_in(3) ? 0 : near(3, 3);
    }
}

static void random_input(const gate_limits_t *l, gate_input_t *in)
{
    const int32_t anchors[] = {l->soc_min_cpct, l->soc_max_cpct, 5000};
    in->valid = one_in(ordinary ? 500 : 5) ? (uint32_t)rng() : 0xFFF;
    in->required = one_in(3) ? (uint32_t)rng() & 0xFFF : 0x1FF;
    in->request_w = one_in(ordinary ? 30 : 3) ? near(0, 40000) : in->request_w;
    in->pack_mv = near(700000, 100000);
    in->charge_ma_max = near(50000, 50000);
    in->discharge_ma_max = near(50000, 50000);
    in->charge_w_max = near(40000, 20000);
    in->discharge_w_max = near(40000, 20000);
    in->soc_cpct = near(anchors[rng() % 3], 400);
    in->soc_spread_cpct = one_in(4) ? near(300, 400) : 0;
    in->temp_max_ddegc = near(one_in(2) ? 300 : 530, 60);
    in->temp_min_ddegc = near(one_in(2) ? 200 : 20, 60);
    in->cell_mv_max = near(one_in(2) ? 3350 : 3580, 60);
    in->cell_mv_min = near(one_in(2) ? 3300 : 2830, 60);
    in->ess_w = near(0, 30000);
    in->charge_ok = !one_in(ordinary ? 500 : 20);
    in->discharge_ok = !one_in(ordinary ? 500 : 20);
    in->dt_us = one_in(10) ? near(1000, 2000) : one_in(500) ? GATE_DT_US_MAX : 1000;
    in->ack = one_in(5);
    in->arm = one_in(5);
    in->faults.lo = one_in(8) ? rng() & rng() & rng() & rng() : 0;
    in->faults.hi = one_in(8) ? rng() & rng() & rng() & rng() : 0;
    if (ordinary) {
        const int row = one_in(50) ? (int)(rng() % GATE_FAULTS_MAX) : -1, some = one_in(2);
        in->faults.lo = row >= 0 ? (uint64_t)(row < 64) << (row & 63) : some ? in->faults.lo & rng() & rng() : 0;
        in->faults.hi = row >= 0 ? (uint64_t)(row >= 64) << (row & 63) : some ? in->faults.hi & rng() & rng() : 0;
    } else if (one_in(50)) {
        in->faults.lo = rng();
        in->faults.hi = rng();
    }
}

static int has_bit(fault_set_t set, int bit) { return (int)(((bit < 64 ? set.lo : set.hi) >> (bit & 63)) & 1); }

static void check(const gate_limits_t *l, const gate_fault_row_t *rows, const gate_input_t *in, const gate_state_t *before,
                  const gate_state_t *after, const gate_verdict_t *v, uint64_t n)
{
    const int64_t dt = in->dt_us < 0 ? 0 : in->dt_us > GATE_RAMP_DT_US_MAX ? GATE_RAMP_DT_US_MAX : in->dt_us;
    const int64_t last = before->last_setpoint_mw, now = after->last_setpoint_mw;
    const int64_t go = l->ramp_go_w_per_s > 0 ? (int64_t)l->ramp_go_w_per_s * dt / 1000 : 0;
    int32_t lo, hi, i;
    uint32_t bits, bit;
    gate_input_t changed;

    must(v->envelope_lo_w <= v->setpoint_w && v->setpoint_w <= v->envelope_hi_w, "setpoint inside the envelope", n);
    must(v->envelope_lo_w <= 0 && v->envelope_hi_w >= 0, "zero inside the envelope", n);
    must(v->setpoint_w == 0 || (v->setpoint_w > 0) == (in->request_w > 0) || v->reaction == REACTION_RAMP_ZERO,
         "the side of the request", n);
    must(v->reaction < REACTION_ZERO || v->setpoint_w == 0, "zero means zero", n);
    must(!v->tripped || v->setpoint_w == 0, "tripped means zero", n);
    must((in->valid & VALID_REQUEST) || v->setpoint_w == 0, "no request, no power", n);
    must((in->valid & VALID_SOC) || v->setpoint_w == 0, "no state of charge, no power", n);
    must(v->reaction < REACTION_ZERO_SILENT || !v->heartbeat_ok, "silence means silence", n);
    must(!v->heartbeat_ok || !(in->required & ~in->valid & 0xFFE), "a heartbeat needs every required input", n);
    must(!v->contactor_open || (v->reaction == REACTION_OPEN && v->setpoint_w == 0), "contactors open at zero only", n);
    must(!before->tripped || v->tripped || (in->arm && !before->last_arm && !(v->latched.lo | v->latched.hi) && v->reaction <= REACTION_DERATE),
         "a trip ends by an order with nothing latched", n);
    if (v->reaction != REACTION_RAMP_ZERO) {
        must(now <= (last > 0 ? last : 0) + go && now >= (last < 0 ? last : 0) - go, "away from zero by the ramp", n);
        if (v->reaction < REACTION_ZERO && !v->tripped && (in->valid & VALID_REQUEST)) {
            const int64_t wanted = (int64_t)in->request_w * 1000;
            const int64_t held = wanted > (int64_t)v->envelope_hi_w * 1000   ? (int64_t)v->envelope_hi_w * 1000
                                 : wanted < (int64_t)v->envelope_lo_w * 1000 ? (int64_t)v->envelope_lo_w * 1000
                                                                              : wanted;
            if ((wanted >= 0 && wanted <= last) || (wanted <= 0 && wanted >= last))
                must(now == held, "towards zero at once", n);
        }
    } else {
        must((now >= 0 && now <= (last > 0 ? last : 0)) || (now <= 0 && now >= (last < 0 ? last : 0)),
             "ramp to zero never grows", n);
    }
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        const int32_t reaction = rows[i].reaction < 0 || rows[i].reaction > REACTION_OPEN ? REACTION_OPEN : rows[i].reaction;
        if (has_bit(v->active, i) || has_bit(v->latched, i))
            must(v->reaction >= reaction, "the highest reaction wins", n);
        if (has_bit(v->latched, i) && reaction > REACTION_DERATE)
            must(v->tripped, "a latch trips", n);
        if (before->rows[i].latched && reaction != REACTION_NONE && (!in->ack || before->last_ack || after->rows[i].active))
            must(after->rows[i].latched, "a latch stays", n);
        if (has_bit(in->faults, i) && reaction != REACTION_NONE && rows[i].debounce_ms <= 0)
            must(has_bit(v->active, i), "without debounce at once", n);
        must(has_bit(v->active, i) == (after->rows[i].active != 0), "what is told is what is held", n);
    }
    must(v->proof == before->proof + 1, "the proof counts", n);

    /* Taking an input away never gives power. */
    gate_envelope(l, in, &lo, &hi, &bits);
    must(v->envelope_lo_w >= lo && v->envelope_hi_w <= hi, "faults only narrow", n);
    bit = 1u << (rng() % 12);
    changed = *in;
    changed.required |= bit;
    changed.valid &= ~bit;
    gate_envelope(l, &changed, &changed.charge_ok, &changed.discharge_ok, &bits);
    must(changed.charge_ok >= lo && changed.discharge_ok <= hi, "a required input lost never widens", n);
}

/* Several batteries as one: whatever each says, no connected one is asked for more than it allows. */
static uint64_t check_bank(uint64_t n)
{
    gate_bank_t bank;
    gate_input_t one;
    int64_t joined = 0;
    int32_t i;
    memset(&bank, 0, sizeof bank);
    memset(&one, 0, sizeof one);
    bank.n = 1 + (int32_t)(rng() % GATE_BATTERIES_MAX);
    for (i = 0; i < bank.n; i++) {
        bank.connected[i] = !one_in(4);
        bank.charge_ok[i] = !one_in(20);
        bank.discharge_ok[i] = !one_in(20);
        bank.soc_cpct[i] = (int32_t)(rng() % (GATE_SOC_CPCT_MAX + 1));
        bank.pack_mv[i] = near(700000, 1000);
        bank.charge_ma_max[i] = near(20000, 25000);
        bank.discharge_ma_max[i] = near(20000, 25000);
        bank.charge_w_max[i] = near(10000, 12000);
        bank.discharge_w_max[i] = near(10000, 12000);
        bank.temp_max_ddegc[i] = near(300, 200);
        bank.temp_min_ddegc[i] = near(200, 200);
        bank.cell_mv_max[i] = near(3400, 200);
        bank.cell_mv_min[i] = near(3300, 200);
        joined += bank.connected[i];
    }
    if (one_in(20))
        for (i = 0, joined = 0; i < bank.n; i++)
            bank.connected[i] = 0;
    gate_combine(&bank, &one);
    must(joined || (!one.charge_ok && !one.discharge_ok && !one.charge_ma_max && !one.discharge_w_max), "none connected, none allowed", n);
    for (i = 0; i < bank.n; i++) {
        must(one.temp_max_ddegc >= bank.temp_max_ddegc[i] && one.temp_min_ddegc <= bank.temp_min_ddegc[i], "the worst temperature", n);
        if (!bank.connected[i])
            continue;
        must(one.charge_ma_max <= within(joined * bank.charge_ma_max[i], 0, INT32_MAX), "so many times each, charge", n);
        must(one.discharge_ma_max <= within(joined * bank.discharge_ma_max[i], 0, INT32_MAX), "so many times each", n);
        must(one.charge_w_max <= within(joined * bank.charge_w_max[i], 0, INT32_MAX), "so many times each, charge W", n);
        must(one.discharge_w_max <= within(joined * bank.discharge_w_max[i], 0, INT32_MAX), "so many times each, W", n);
        must(one.soc_cpct <= bank.soc_cpct[i] && bank.soc_cpct[i] <= one.soc_cpct + one.soc_spread_cpct, "the window of all", n);
        must(one.pack_mv <= bank.pack_mv[i], "the least voltage", n);
        must(one.cell_mv_min <= bank.cell_mv_min[i] && one.cell_mv_max >= bank.cell_mv_max[i], "the worst cell", n);
        must((bank.charge_ok[i] || !one.charge_ok) && (bank.discharge_ok[i] || !one.discharge_ok), "one forbids for all", n);
    }
    return (uint64_t)(uint32_t)one.charge_ma_max ^ (uint64_t)(uint32_t)one.discharge_w_max << 32;
}

static uint64_t digest(uint64_t h, const void *data, size_t size)
{
    const unsigned char *at = data;
    while (size--)
        h = (h ^ *at++) * 0x100000001B3u;
    return h;
}

int main(int argc, char **argv)
{
    const uint64_t cycles = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
    uint64_t n, flowing = 0, h = 0xCBF29CE484222325u;
    gate_limits_t limits;
    gate_fault_row_t rows[GATE_FAULTS_MAX];
    gate_input_t input;
    gate_state_t state, before;
    gate_verdict_t verdict;

    rng_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    memset(&input, 0, sizeof input);
    memset(&verdict, 0, sizeof verdict);
    memset(&state, 0, sizeof state);
    for (n = 0; n < cycles; n++) {
        if (n % 2000 == 0) {
            ordinary = !one_in(4);
            random_limits(&limits);
            random_rows(rows);
            gate_init(&state);
            state.forget_us = one_in(2) ? GATE_FORGET_US - (int32_t)(rng() % 1000000) : 0; /* as if it ran for long */
            if (one_in(4))
                gate_restore(&state, (fault_set_t){rng() & rng() & rng(), rng() & rng() & rng()});
        }
        /* Half of the time the unit is left alone, so that ramps and clear times get somewhere. */
        if (one_in(2))
            random_input(&limits, &input);
        if ((n % 2000 < 40 || (ordinary && state.tripped)) && !one_in(3)) {
            input.faults.lo = input.faults.hi = 0;
            input.ack = (uint32_t)n & 1;
            input.arm = input.ack;
            input.valid = 0xFFF;
        }
        before = state;
        gate_step(&limits, rows, &input, &state, &verdict);
        check(&limits, rows, &input, &before, &state, &verdict, n);
        flowing += verdict.setpoint_w != 0;
        h = digest(h, &verdict, sizeof verdict);
        if (n % 4 == 0) {
            const uint64_t told = check_bank(n);
            h = digest(h, &told, sizeof told);
        }
    }
    printf("cycles %" PRIu64 " flowing %" PRIu64 " violations %d digest %016" PRIx64 "\n", cycles, flowing, violations, h);
    return violations != 0;
}
