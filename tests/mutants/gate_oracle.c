/* The gate a second time, written from ext/safety/safety.h and docs/safety.md: slow, in one piece, in wide integers. Under seeded
 * inputs that sit on every edge, both must say the same in every cycle: verdict, envelope, and all that is remembered.
 *
 * usage: gate_oracle SEED CYCLES            exit code 1 and the first difference, if there is one
 *        gate_oracle SEED CYCLES FIRST LAST each of these mutants in a process of its own; prints "<number> <cycle>" for
 *                                           one that was noticed, "<number> survived" for one that was not
 * With -DRECORD the truth of each decision is printed instead: "<decision> <truth> <outcome>".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

#include "safety.c" /* the product's, or a rewritten one from schema.py */

typedef __int128 wide;
typedef unsigned __int128 rows_t; /* the fault table in one word, where the gate has two */

static rows_t rows_of(fault_set_t set) { return (rows_t)set.hi << 64 | set.lo; }

static fault_set_t set_of(rows_t rows)
{
    const fault_set_t set = {(uint64_t)rows, (uint64_t)(rows >> 64)};
    return set;
}

/* ---------------------------------------------------------------- the oracle */

static wide between(wide low, wide x, wide high) { return x < low ? low : x > high ? high : x; }

static int told(const gate_input_t *in, uint32_t bits) { return (in->valid & bits) == bits; }

/* What a limit of `room` before zero and `width` of taper leaves of the nameplate. */
static wide tapered(wide nameplate, wide room, wide width)
{
    if (nameplate <= 0 || room <= 0)
        return 0;
    return room < width ? nameplate * room / width : nameplate;
}

static wide watts(wide mv, wide ma) { return mv > 0 && ma > 0 ? between(0, mv * ma / 1000000, INT32_MAX) : 0; }

/* One direction: every limit that counts, in a list; the least of them and 0. */
static wide direction(const gate_limits_t *l, const gate_input_t *in, int charge, uint32_t *bits)
{
    const wide nameplate = charge ? l->charge_w_max : l->discharge_w_max;
    const uint32_t ma = charge ? VALID_CHARGE_MA : VALID_DISCHARGE_MA, w = charge ? VALID_CHARGE_W : VALID_DISCHARGE_W;
    const uint32_t cell = charge ? VALID_CELL_MAX : VALID_CELL_MIN;
    const uint32_t both = VALID_PACK_V | VALID_TEMP_MAX | VALID_TEMP_MIN | VALID_ESS_W;
    const wide cell_limit = charge ? l->cell_mv_max : l->cell_mv_min;
    const wide cell_room = charge ? cell_limit - in->cell_mv_max : in->cell_mv_min - cell_limit;
    const wide fullest = in->soc_cpct + (wide)(in->soc_spread_cpct > 0 ? in->soc_spread_cpct : 0);
    const wide soc_room = charge ? l->soc_max_cpct - fullest : (wide)in->soc_cpct - l->soc_min_cpct;
    const int blind = !told(in, VALID_SOC) || in->soc_cpct != between(0, in->soc_cpct, 10000)
                      || (!told(in, w) && !told(in, VALID_PACK_V | ma)) || (in->required & ~in->valid & (both | ma | w | cell));
    const struct { int counts; wide w; uint32_t bit; } list[] = {
        {told(in, VALID_PACK_V), watts(in->pack_mv, charge ? l->charge_ma_max : l->discharge_ma_max), LIMIT_CURRENT},
        {told(in, VALID_PACK_V | ma), watts(in->pack_mv, charge ? in->charge_ma_max : in->discharge_ma_max), LIMIT_CURRENT},
        {told(in, w), charge ? in->charge_w_max : in->discharge_w_max, LIMIT_POWER},
        {1, tapered(nameplate, soc_room, l->soc_taper_cpct), LIMIT_SOC},
        {told(in, VALID_TEMP_MAX), tapered(nameplate, (wide)l->temp_max_ddegc - in->temp_max_ddegc, l->temp_taper_ddegc), LIMIT_TEMP},
        {told(in, VALID_TEMP_MIN), tapered(nameplate, (wide)in->temp_min_ddegc - l->temp_min_ddegc, l->temp_taper_ddegc), LIMIT_TEMP},
        {cell_limit > 0 && told(in, cell), tapered(nameplate, cell_room, l->cell_taper_mv), LIMIT_CELL},
        {!(charge ? in->charge_ok : in->discharge_ok), 0, LIMIT_ENABLE},
        {blind, 0, LIMIT_INVALID},
    };
    wide left = nameplate > 0 ? nameplate : 0;
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].counts && list[i].w < left) {
            left = list[i].w > 0 ? list[i].w : 0;
            *bits |= list[i].bit;
        }
    return left;
}

/* Whether every input that is promised is there, and enough of the rest for both directions. */
static int complete(const gate_input_t *in)
{
    return !(in->required & ~in->valid & 0xFFEu & ~VALID_SOC) && told(in, VALID_SOC)
           && in->soc_cpct == between(0, in->soc_cpct, 10000)
           && (told(in, VALID_CHARGE_W) || told(in, VALID_PACK_V | VALID_CHARGE_MA))
           && (told(in, VALID_DISCHARGE_W) || told(in, VALID_PACK_V | VALID_DISCHARGE_MA));
}

static wide microseconds(wide ms) { return between(0, ms * 1000, GATE_TIME_US_MAX); }

/* Twice, four times, ... for each activation but the first, in rows that count them. */
static wide time_to_clear(const gate_fault_row_t *row, int flaps)
{
    wide us = microseconds(row->clear_ms);
    if (row->flap_max > 0)
        us <<= between(0, flaps - 1, GATE_FLAPS_MAX - 1);
    return between(0, us, GATE_TIME_US_MAX);
}

static void oracle_row(const gate_fault_row_t *row, gate_row_t *m, int reaction, int present, int ack, wide dt)
{
    const wide debounce = microseconds(row->debounce_ms), whole = present ? m->bucket_us + dt : m->bucket_us - dt / 2;
    if (reaction == REACTION_NONE) {
        memset(m, 0, sizeof *m);
        return;
    }
    if (m->active && present) {
        m->bucket_us = (int32_t)time_to_clear(row, m->flaps);
    } else if (m->active) {
        m->bucket_us = (int32_t)between(0, m->bucket_us - dt, INT32_MAX);
        m->active = m->bucket_us != 0;
    } else if (present && whole >= debounce) {
        m->active = 1;
        m->flaps = (uint8_t)between(0, m->flaps < GATE_FLAPS_MAX ? m->flaps + 1 : m->flaps, 255);
        m->latched = row->latched || (row->flap_max > 0 && m->flaps >= row->flap_max) ? 1 : m->latched;
        m->bucket_us = (int32_t)time_to_clear(row, m->flaps);
    } else {
        m->bucket_us = (int32_t)between(0, whole, debounce);
    }
    if (ack && m->latched && !m->active)
        m->latched = m->flaps = 0;
}

static wide magnitude(wide x, int side) { return side * x > 0 ? side * x : 0; }

static void oracle_step(const gate_limits_t *l, const gate_fault_row_t *rows, const gate_input_t *in, gate_state_t *s,
                        gate_verdict_t *v)
{
    const wide dt = between(0, in->dt_us, GATE_DT_US_MAX), ramp_dt = between(0, in->dt_us, GATE_RAMP_DT_US_MAX);
    const wide last = between((wide)INT32_MIN * 1000, s->last_setpoint_mw, -(wide)INT32_MIN * 1000);
    const int ack = in->ack && !s->last_ack, arm = in->arm && !s->last_arm;
    const wide go = magnitude(l->ramp_go_w_per_s, 1) * ramp_dt / 1000, stop = magnitude(l->ramp_stop_w_per_s, 1) * ramp_dt / 1000;
    const rows_t present = rows_of(in->faults);
    const int idle = !present && !s->busy, asked = told(in, VALID_REQUEST);
    int i, side, share = 1000, latches = 0, trips = 0, cause = -1, reaction = REACTION_NONE, stands;
    wide now = 0, w[2];

    memset(v, 0, sizeof *v);
    s->forget_us = (int32_t)(between(0, s->forget_us, GATE_FORGET_US) + dt);
    if (s->forget_us >= GATE_FORGET_US) {
        s->forget_us = 0;
        for (i = 0; i < GATE_FAULTS_MAX; i++)
            s->rows[i].flaps -= s->rows[i].flaps > 0;
    }
    s->busy = 0;
    for (i = 0; i < GATE_FAULTS_MAX && !idle; i++) {
        const int own = rows[i].reaction == between(0, rows[i].reaction, REACTION_OPEN) ? rows[i].reaction : REACTION_OPEN;
        gate_row_t *m = &s->rows[i];
        if (!(present >> i & 1) && !m->bucket_us && !m->active && !m->latched)
            continue;
        oracle_row(&rows[i], m, own, present >> i & 1, ack, dt);
        s->busy |= m->bucket_us || m->active || m->latched;
        v->active = set_of(rows_of(v->active) | (rows_t)(m->active != 0) << i);
        v->latched = set_of(rows_of(v->latched) | (rows_t)(m->latched != 0) << i);
        latches |= m->latched != 0;
        trips |= m->latched && own > REACTION_DERATE;
        if ((m->active || m->latched) && own > reaction) {
            reaction = own;
            cause = i;
        }
        if ((m->active || m->latched) && own == REACTION_DERATE) {
            const int mine = rows[i].derate_permille == between(0, rows[i].derate_permille, 1000) ? rows[i].derate_permille : 0;
            share = mine < share ? mine : share;
        }
    }
    w[0] = direction(l, in, 1, &v->limit_bits);
    w[1] = direction(l, in, 0, &v->limit_bits);
    v->envelope_lo_w = (int32_t)-(w[0] * share / 1000);
    v->envelope_hi_w = (int32_t)(w[1] * share / 1000);

    if (trips)
        s->tripped = 1;
    else if (arm && asked && complete(in) && reaction <= REACTION_DERATE && !latches)
        s->tripped = 0;
    else
        s->tripped = s->tripped != 0;

    stands = !asked || s->tripped || reaction >= REACTION_ZERO || (reaction == REACTION_RAMP_ZERO && l->ramp_stop_w_per_s <= 0);
    for (side = -1; side <= 1 && !stands; side += 2) {
        const wide limit = (wide)(side < 0 ? -v->envelope_lo_w : v->envelope_hi_w) * 1000;
        const wide from = magnitude(last, side), most = reaction < REACTION_RAMP_ZERO ? from + go : magnitude(from - stop, 1);
        const wide goal = magnitude((wide)in->request_w * 1000, side);
        now += side * between(0, between(0, goal, limit), most);
    }
    s->last_setpoint_mw = (int64_t)now;
    v->setpoint_w = (int32_t)(now / 1000);
    v->reaction = reaction;
    v->heartbeat_ok = complete(in) && reaction < REACTION_ZERO_SILENT;
    v->limit_bits |= (asked ? 0 : LIMIT_INVALID) | (s->tripped ? LIMIT_TRIPPED : 0) | (reaction >= REACTION_DERATE ? LIMIT_FAULT : 0)
                     | (now != (wide)in->request_w * 1000 ? LIMIT_RAMP : 0);

    s->open_wait_us = reaction == REACTION_OPEN ? (int32_t)(between(0, s->open_wait_us, GATE_OPEN_WAIT_US) + dt) : 0;
    v->contactor_open = reaction == REACTION_OPEN
                        && (s->open_wait_us >= GATE_OPEN_WAIT_US
                            || (told(in, VALID_ESS_W | VALID_PACK_V)
                                && magnitude(in->ess_w, in->ess_w < 0 ? -1 : 1) <= watts(in->pack_mv, GATE_OPEN_MA)));

    if (reaction > REACTION_DERATE)
        s->first_fault = s->first_fault < 0 ? cause : s->first_fault;
    else if (!s->tripped)
        s->first_fault = -1;
    s->last_arm = in->arm;
    s->last_ack = in->ack;
    s->proof++;
    v->tripped = s->tripped;
    v->first_fault = s->first_fault;
    v->proof = s->proof;
}

/* ---------------------------------------------------------------- inputs */

static uint64_t rng_state;

static uint64_t rng(void) /* splitmix64 */
{
    uint64_t z = (rng_state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int one_in(uint32_t n) { return rng() % n == 0; }

#define ONE_OF(list) ((list)[rng() % (sizeof(list) / sizeof *(list))])

/* On an edge or one beside it, now and then anywhere. */
static int32_t about(int32_t edge)
{
    static const int32_t extremes[] = {0, 1, -1, INT32_MAX, INT32_MIN, INT32_MAX - 1, INT32_MIN + 1};
    if (one_in(60))
        return ONE_OF(extremes);
    if (one_in(60))
        return (int32_t)rng();
    return (int32_t)between(INT32_MIN, (wide)edge + (wide)(rng() % 5) - 2, INT32_MAX);
}

static int32_t within_of(int32_t edge, int32_t spread) { return about((int32_t)between(INT32_MIN, (wide)edge + (wide)(rng() % (2u * (uint32_t)spread + 1)) - spread, INT32_MAX)); }

static int wide_open; /* this episode: nothing limits but 32 bits */
static int calm;      /* this episode: little is wrong, so that power flows */

/* Few, often; the ends of both words among them. */
static int some_row(void)
{
    static const int often[] = {0, 42, 63, 64, 127};
    return one_in(3) ? (int)(rng() % GATE_FAULTS_MAX) : often[rng() % 5];
}

static rows_t some_rows(void) { return (rows_t)(rng() & rng() & rng()) << 64 | (rng() & rng() & rng()); }

static void make_limits(gate_limits_t *l)
{
    const int32_t most = INT32_MAX - (int32_t)(rng() % 3);
    memset(l, 0, sizeof *l);
    l->charge_w_max = wide_open ? most : one_in(10) ? about(0) : about(30000);
    l->discharge_w_max = wide_open ? most : one_in(10) ? about(0) : about(20000);
    l->charge_ma_max = wide_open ? INT32_MAX : within_of(43000, 2000);
    l->discharge_ma_max = wide_open ? INT32_MAX : within_of(30000, 2000);
    l->soc_min_cpct = wide_open ? -20000 : about(1000);
    l->soc_max_cpct = wide_open ? 30000 : about(9500);
    l->soc_taper_cpct = one_in(4) ? about(0) : about(300);
    l->temp_min_ddegc = wide_open ? INT32_MIN : about(0);
    l->temp_max_ddegc = wide_open ? INT32_MAX : about(550);
    l->temp_taper_ddegc = one_in(4) ? about(0) : about(50);
    l->cell_mv_min = wide_open ? 0 : one_in(6) ? about(0) : about(2800);
    l->cell_mv_max = wide_open ? 0 : one_in(6) ? about(0) : about(3600);
    l->cell_taper_mv = one_in(4) ? about(0) : about(50);
    l->ramp_go_w_per_s = wide_open ? about(INT32_MAX) : one_in(8) ? about(0) : about(60000);
    l->ramp_stop_w_per_s = one_in(4) ? (int32_t)(rng() % 4) - 1 : one_in(3) ? about(1000) : about(300000);
}

static void make_rows(gate_fault_row_t rows[GATE_FAULTS_MAX])
{
    static const int32_t strange[] = {-1, 7, INT32_MAX, INT32_MIN};
    static const int32_t debounce[] = {0, 0, 0, 1, 2, 3, 10, 999, 1000, 1001, 2000, 2001, 5000, 2000000, 2000001};
    static const int32_t clear[] = {0, 1, 2, 3, 10, 999, 1000, 1001, 2000, 62500, 62501, 999999, 1000000, 2000000, 2000001};
    const int only = wide_open ? REACTION_RAMP_ZERO : (int)(rng() % 9);
    int i;
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        rows[i].reaction = one_in(20) ? ONE_OF(strange) : only < 7 && !one_in(4) ? only : (int32_t)(rng() % 7);
        rows[i].latched = !wide_open && one_in(calm ? 40 : 8) ? (one_in(4) ? -1 : 1) : 0;
        rows[i].debounce_ms = calm && !one_in(3) ? 0 : one_in(40) ? about(0) : ONE_OF(debounce);
        rows[i].clear_ms = one_in(40) ? about(0) : ONE_OF(clear);
        rows[i].derate_permille = one_in(3) ? about(one_in(2) ? 0 : 1000) : about(500);
        rows[i].flap_max = wide_open || one_in(3) ? (one_in(2) ? 0 : about(0)) : about(1 + (int32_t)(rng() % 7));
        rows[i].threshold_milli = rows[i].floor_milli = 0;
    }
}

static void make_input(const gate_limits_t *l, gate_input_t *in)
{
    static const int32_t dt[] = {0, 1, 999, 1000, 1001, 1999, 2000, 3000, 99999, 100000, 100001, 998999, 999000, 999999, 1000000, 1000001};
    const int32_t soc[] = {l->soc_min_cpct, l->soc_max_cpct, (int32_t)((wide)l->soc_min_cpct + l->soc_taper_cpct),
                           (int32_t)((wide)l->soc_max_cpct - l->soc_taper_cpct), 0, 10000, 5000, 5000, 5000};
    const int32_t hot[] = {l->temp_max_ddegc, (int32_t)((wide)l->temp_max_ddegc - l->temp_taper_ddegc), 250, 250};
    const int32_t cold[] = {l->temp_min_ddegc, (int32_t)((wide)l->temp_min_ddegc + l->temp_taper_ddegc), 200, 200};
    const int32_t high[] = {l->cell_mv_max, (int32_t)((wide)l->cell_mv_max - l->cell_taper_mv), 3350, 3350};
    const int32_t low[] = {l->cell_mv_min, (int32_t)((wide)l->cell_mv_min + l->cell_taper_mv), 3300, 3300};
    const int odd = !wide_open && (!calm || one_in(4));
    in->valid = odd && one_in(3) ? 0xFFFu & ~(1u << (rng() % 12)) : odd && one_in(8) ? (uint32_t)rng() : 0xFFF;
    in->required = one_in(3) ? (uint32_t)rng() & 0xFFF : one_in(3) ? 1u << (rng() % 12) : 0;
    if (wide_open ? one_in(4) : one_in(2))
        in->request_w = wide_open ? about(one_in(2) ? INT32_MAX : INT32_MIN) : one_in(6) ? about(0) : within_of(0, 40000);
    in->pack_mv = wide_open ? about(INT32_MAX) : odd && one_in(8) ? about(0) : about(700000);
    in->charge_ma_max = wide_open ? INT32_MAX : odd && one_in(8) ? about(0) : within_of(43000, 3000);
    in->discharge_ma_max = wide_open ? INT32_MAX : odd && one_in(8) ? about(0) : within_of(29000, 3000);
    in->charge_w_max = wide_open ? INT32_MAX : odd && one_in(8) ? about(0) : within_of(29000, 3000);
    in->discharge_w_max = wide_open ? INT32_MAX : odd && one_in(8) ? about(0) : within_of(20000, 3000);
    in->soc_cpct = wide_open ? 5000 : odd ? about(ONE_OF(soc)) : 5000;
    in->soc_spread_cpct = one_in(3) ? within_of(0, 4500) : odd && one_in(8) ? about(INT32_MAX) : 0;
    in->temp_max_ddegc = odd ? about(ONE_OF(hot)) : 250;
    in->temp_min_ddegc = odd ? about(ONE_OF(cold)) : 200;
    in->cell_mv_max = odd ? about(ONE_OF(high)) : 3350;
    in->cell_mv_min = odd ? about(ONE_OF(low)) : 3300;
    in->ess_w = one_in(3) ? about(0) : about((one_in(2) ? 1 : -1) * (int32_t)watts(in->pack_mv, GATE_OPEN_MA));
    in->charge_ok = odd && one_in(20) ? 0 : one_in(20) ? 2 : 1;
    in->discharge_ok = odd && one_in(20) ? 0 : one_in(20) ? -1 : 1;
    in->dt_us = one_in(50) ? about(0) : ONE_OF(dt);
    in->ack = one_in(4) ? 1 : one_in(20) ? (uint32_t)rng() : 0;
    in->arm = one_in(3) ? 1 : one_in(20) ? (uint32_t)rng() : 0;
    in->faults = one_in(calm ? 12 : 4) ? set_of((rows_t)1 << some_row()) : one_in(3) ? in->faults : set_of(0);
    if (!calm && one_in(12))
        in->faults = set_of(rows_of(in->faults) | some_rows());
}

/* What no cycle leaves behind but the types allow. */
static void scramble(gate_state_t *s)
{
    static const int64_t powers[] = {0, 1, -1, 999, -999, 1000, (int64_t)INT32_MAX * 1000, (int64_t)INT32_MIN * 1000,
                                     -(int64_t)INT32_MIN * 1000, INT64_MAX, INT64_MIN, 10000000, -10000000};
    static const int32_t buckets[] = {0, 0, 1, -1, 1000, 1000000, GATE_TIME_US_MAX};
    gate_row_t *row = &s->rows[some_row()];
    switch (wide_open && one_in(2) ? 0 : rng() % 8) {
    case 0: case 1: s->last_setpoint_mw = ONE_OF(powers); break;
    case 2: s->forget_us = one_in(2) ? about(0) : about(one_in(3) ? GATE_FORGET_US : GATE_FORGET_US - 1000000); break;
    case 3: s->open_wait_us = one_in(2) ? about(0) : about(one_in(3) ? GATE_OPEN_WAIT_US : 0); break;
    case 4: s->tripped = about(0); break;
    case 5: s->first_fault = about(0); break;
    case 6: s->busy = about(0) | (s->busy != 0); break;
    default:
        row->bucket_us = ONE_OF(buckets);
        row->active = one_in(3);
        row->latched = one_in(4);
        row->flaps = (uint8_t)(one_in(2) ? GATE_FLAPS_MAX : rng() % (GATE_FLAPS_MAX + 1));
        s->busy |= row->bucket_us || row->active || row->latched;
    }
}

/* ---------------------------------------------------------------- both at once */

static int quiet;

static int differs(const char *what, int64_t gate, int64_t oracle, uint64_t n)
{
    if (gate != oracle && !quiet)
        printf("cycle %" PRIu64 ": %s is %" PRId64 ", the oracle says %" PRId64 "\n", n, what, gate, oracle);
    return gate != oracle;
}

#define SAME(field) bad |= differs(#field, (int64_t)gate->field, (int64_t)oracle->field, n)

static int verdicts_differ(const gate_verdict_t *gate, const gate_verdict_t *oracle, uint64_t n)
{
    int bad = 0;
    SAME(setpoint_w); SAME(envelope_lo_w); SAME(envelope_hi_w); SAME(limit_bits); SAME(reaction); SAME(heartbeat_ok);
    SAME(contactor_open); SAME(tripped); SAME(first_fault); SAME(active.lo); SAME(active.hi); SAME(latched.lo); SAME(latched.hi); SAME(proof);
    return bad;
}

static int states_differ(const gate_state_t *gate, const gate_state_t *oracle, uint64_t n)
{
    int bad = 0, i;
    SAME(last_setpoint_mw); SAME(tripped); SAME(first_fault); SAME(busy); SAME(forget_us); SAME(open_wait_us);
    SAME(last_arm); SAME(last_ack); SAME(proof);
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        SAME(rows[i].bucket_us); SAME(rows[i].active); SAME(rows[i].latched); SAME(rows[i].flaps); SAME(rows[i].pad);
    }
    return bad;
}

/* Nothing to do, nothing to read: a row that is idle is left alone, and the usual cycle, in which all are, looks at none. */
static void hide(gate_fault_row_t *rows, const gate_input_t *in, gate_state_t *s)
{
    const wide forget = between(0, s->forget_us, GATE_FORGET_US) + between(0, in->dt_us, GATE_DT_US_MAX);
    int i;
    for (i = 0; i < GATE_FAULTS_MAX; i++)
        if (!(rows_of(in->faults) >> i & 1) && !s->rows[i].bucket_us && !s->rows[i].active && !s->rows[i].latched)
            ASAN_POISON_MEMORY_REGION(&rows[i], sizeof *rows);
    if (!rows_of(in->faults) && !s->busy && forget < GATE_FORGET_US)
        ASAN_POISON_MEMORY_REGION(s->rows, sizeof s->rows);
}

/* The cycle of the first difference, or `cycles`. */
/* ---- several batteries as one ---- */

enum { LEAST, MOST };

/* The outermost of those that count, worked out from a list of them; `none` of an empty one. */
static wide outermost(const int32_t *each, const gate_bank_t *b, int everybody, int which, wide none)
{
    wide found[GATE_BATTERIES_MAX];
    int32_t i, count = 0, k;
    for (i = 0; i < b->n; i++)
        if (everybody || b->connected[i])
            found[count++] = each[i];
    for (i = 0; i < count; i++) {
        int beaten = 0;
        for (k = 0; k < count; k++)
            beaten |= which == LEAST ? found[k] < found[i] : found[k] > found[i];
        if (!beaten)
            return found[i];
    }
    return none;
}

static int bank_differs(uint64_t n)
{
    gate_bank_t *b = calloc(1, sizeof *b); /* alone, so that a step beyond it is seen */
    gate_input_t in;
    int32_t *const parts[] = {b->pack_mv, b->charge_ma_max, b->discharge_ma_max, b->charge_w_max, b->discharge_w_max,
                              b->temp_max_ddegc, b->temp_min_ddegc, b->cell_mv_max, b->cell_mv_min};
    /* So many times one of these is just inside 32 bits or just beyond. */
    static const int32_t edges[] = {1 << 30, -(1 << 30), 1 << 29, 1 << 28, -715827883, 715827882, INT32_MIN, INT32_MAX};
    const int32_t edge = ONE_OF(edges);
    const int far = one_in(4);
    int32_t i, k, count = 0, all;
    int bad;
    b->n = 1 + (int32_t)(rng() % GATE_BATTERIES_MAX);
    memset(&in, 0x5A, sizeof in);
    for (i = 0; i < b->n; i++) {
        count += b->connected[i] = !one_in(3);
        if (b->connected[i] && one_in(4))
            b->connected[i] = one_in(2) ? -1 : 7;
        b->charge_ok[i] = one_in(4) ? -(int32_t)(rng() % 2) : 1;
        b->discharge_ok[i] = one_in(4) ? -(int32_t)(rng() % 2) : 1;
        b->soc_cpct[i] = one_in(4) ? (one_in(2) ? 0 : GATE_SOC_CPCT_MAX) : (int32_t)(rng() % (GATE_SOC_CPCT_MAX + 1));
        for (k = 0; k < (int32_t)(sizeof parts / sizeof *parts); k++)
            parts[k][i] = far ? about(edge) : one_in(5) ? about(0) : (int32_t)(rng() % 5000) - 1000;
    }
    all = count == 0;
    gate_combine(b, &in);
#define OF(part, everybody, which) outermost(b->part, b, everybody, which, 0)
#define TOGETHER(part) (count ? between(0, OF(part, 0, LEAST) * count, INT32_MAX) : 0)
    bad = differs("bank soc", in.soc_cpct, OF(soc_cpct, all, LEAST), n)
        | differs("bank spread", in.soc_spread_cpct, OF(soc_cpct, all, MOST) - OF(soc_cpct, all, LEAST), n)
        | differs("bank volts", in.pack_mv, OF(pack_mv, all, LEAST), n)
        | differs("bank charge", in.charge_ma_max, TOGETHER(charge_ma_max), n)
        | differs("bank discharge", in.discharge_ma_max, TOGETHER(discharge_ma_max), n)
        | differs("bank charge W", in.charge_w_max, TOGETHER(charge_w_max), n)
        | differs("bank discharge W", in.discharge_w_max, TOGETHER(discharge_w_max), n)
        | differs("bank hottest", in.temp_max_ddegc, OF(temp_max_ddegc, 1, MOST), n)
        | differs("bank coldest", in.temp_min_ddegc, OF(temp_min_ddegc, 1, LEAST), n)
        | differs("bank highest", in.cell_mv_max, OF(cell_mv_max, all, MOST), n)
        | differs("bank lowest", in.cell_mv_min, OF(cell_mv_min, all, LEAST), n)
        | differs("bank may charge", in.charge_ok, count && OF(charge_ok, 0, LEAST) > 0, n)
        | differs("bank may discharge", in.discharge_ok, count && OF(discharge_ok, 0, LEAST) > 0, n);
    free(b);
    return bad;
}

static uint64_t compared(uint64_t seed, uint64_t cycles)
{
    gate_limits_t *limits = calloc(1, sizeof *limits); /* each alone, so that a step beyond one is seen */
    gate_fault_row_t *rows = calloc(GATE_FAULTS_MAX, sizeof *rows);
    gate_input_t *in = calloc(1, sizeof *in);
    gate_state_t *state = calloc(1, sizeof *state), *mine = calloc(1, sizeof *mine);
    gate_verdict_t *verdict = calloc(1, sizeof *verdict), *own = calloc(1, sizeof *own);
    uint64_t n;
    rows_t latched;
    int32_t lo, hi, i;
    uint32_t bits, own_bits;
    rng_state = seed;
    for (n = 0; n < cycles; n++) {
        if (n % 100 == 0) {
            wide_open = one_in(4);
            calm = one_in(2);
            make_limits(limits);
            make_rows(rows);
            memset(state, 0xA5, sizeof *state);
            gate_init(state);
            memset(mine, 0, sizeof *mine);
            mine->tripped = 1;
            mine->first_fault = -1;
            if (states_differ(state, mine, n))
                break;
        }
        if (one_in(3) && bank_differs(n))
            break;
        if (one_in(100)) {
            latched = some_rows();
            gate_restore(state, set_of(latched));
            for (i = 0; i < GATE_FAULTS_MAX; i++)
                mine->rows[i].latched |= latched >> i & 1;
            mine->busy = mine->tripped = 1;
            if (states_differ(state, mine, n))
                break;
        }
        if (one_in(wide_open ? 5 : 15)) {
            scramble(state);
            memcpy(mine, state, sizeof *mine);
        }
        if (!one_in(3))
            make_input(limits, in);
        if (n % 100 < 4 || (calm && one_in(10))) { /* all good, to get going */
            in->valid = 0xFFF;
            in->faults = set_of(0);
            in->charge_ok = in->discharge_ok = 1;
            in->soc_cpct = 5000;
            in->ack = in->arm = (uint32_t)n & 1;
        }
        memset(verdict, 0x5A, sizeof *verdict);
        gate_envelope(limits, in, &lo, &hi, &bits);
        own_bits = 0;
        if (differs("envelope", lo, (int64_t)-direction(limits, in, 1, &own_bits), n)
            | differs("envelope", hi, (int64_t)direction(limits, in, 0, &own_bits), n) | differs("bits", bits, own_bits, n))
            break;
        hide(rows, in, state);
        gate_step(limits, rows, in, state, verdict);
        ASAN_UNPOISON_MEMORY_REGION(rows, GATE_FAULTS_MAX * sizeof *rows);
        ASAN_UNPOISON_MEMORY_REGION(state, sizeof *state);
        oracle_step(limits, rows, in, mine, own);
        if (verdicts_differ(verdict, own, n) | states_differ(state, mine, n))
            break;
    }
    free(limits); free(rows); free(in); free(state); free(mine); free(verdict); free(own);
    return n;
}

#ifdef RECORD
static unsigned char seen_truth[64][2][256];

static int record_truth(int number, unsigned truth, int outcome)
{
    seen_truth[number][outcome != 0][truth] = 1;
    return outcome;
}
#endif

#ifdef MUTANTS
/* A mutant may write anywhere or never end: it gets a process of its own, and ten seconds of a processor. */
static void try_mutant(int number, uint64_t seed, uint64_t cycles)
{
    const struct rlimit most = {10, 10};
    int status;
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CPU, &most);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(2);
        mutant = number;
        _exit(compared(seed, cycles) < cycles ? 1 : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("gate_oracle");
        exit(2);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        printf("%d survived\n", number);
    else
        printf("%d %s\n", number, WIFEXITED(status) && WEXITSTATUS(status) == 1 ? "noticed" : "stopped");
}
#endif

int main(int argc, char **argv)
{
    const uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, cycles = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
#ifdef MUTANTS
    int number;
    quiet = 1;
    for (number = argc > 3 ? atoi(argv[3]) : 1; number <= (argc > 4 ? atoi(argv[4]) : 0); number++)
        try_mutant(number, seed, cycles);
    return 0;
#else
    const uint64_t n = compared(seed, cycles);
#ifdef RECORD
    int number, outcome, truth;
    for (number = 0; number < 64; number++)
        for (outcome = 0; outcome < 2; outcome++)
            for (truth = 0; truth < 256; truth++)
                if (seen_truth[number][outcome][truth])
                    printf("%d %d %d\n", number, truth, outcome);
#endif
    if (n == cycles)
        fprintf(stderr, "%" PRIu64 " cycles, gate and oracle agree in all\n", cycles);
    return n != cycles;
#endif
}
