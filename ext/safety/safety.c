/* ext/safety/safety.c: the last word on every setpoint.
 *
 * The comments that begin with an at-sign are contracts; `make prove` proves them for every input. A clause named S<n>
 * is the requirement of that number in docs/safety.md, which says in plain words what is proved; what relates two runs of
 * the gate to each other is proved in tests/proof/relations.c. Signs: + discharge, so the envelope runs from -charge to
 * +discharge. Both directions go through the same functions, charge as the mirror of discharge.
 */
#include "safety/safety.h"

_Static_assert(REACTION_NONE < REACTION_WARN && REACTION_WARN < REACTION_DERATE && REACTION_DERATE < REACTION_RAMP_ZERO
                   && REACTION_RAMP_ZERO < REACTION_ZERO && REACTION_ZERO < REACTION_ZERO_SILENT
                   && REACTION_ZERO_SILENT < REACTION_OPEN,
               "the lattice is ordered by number");
_Static_assert(GATE_RAMP_DT_US_MAX <= GATE_DT_US_MAX, "a ramp never sees a longer cycle than the clocks do");
_Static_assert(GATE_TIME_US_MAX + GATE_DT_US_MAX <= INT32_MAX, "a bucket plus one cycle fits its integer");
_Static_assert(GATE_FORGET_US + GATE_DT_US_MAX <= INT32_MAX, "so does the flap clock");
_Static_assert(GATE_OPEN_WAIT_US + GATE_DT_US_MAX <= INT32_MAX, "and the wait for the contactors");
_Static_assert(GATE_FLAPS_MAX < UINT8_MAX, "activations fit their byte");
_Static_assert(GATE_FAULTS_MAX == 64, "one bit a row in a 64-bit word");

/*@ predicate has(integer word, integer bit) = (word & bit) != 0;
    logic integer low(integer a, integer b) = a < b ? a : b;
    logic integer positive(integer a) = a > 0 ? a : 0;

    // Volt times ampere in W; nothing from a factor that is not positive.
    logic integer product(integer mv, integer ma) = mv <= 0 || ma <= 0 ? 0 : low(mv * ma / 1000000, INT32_MAX);
    // What is left of w: all while there is room, a linear share within `width` of the limit, nothing at it or beyond.
    logic integer taper(integer w, integer room, integer width) =
      w <= 0 || room <= 0 ? 0 : room >= width ? w : w * room / width;
    logic integer ramp_dt(integer dt_us) = low(positive(dt_us), GATE_RAMP_DT_US_MAX);
    logic integer thousandths(integer w, integer n) = w * n / 1000;
    lemma no_more: \forall integer a, b, c; c > 0 && a * c <= b * c ==> a <= b;

    // An input that the map promises has come.
    predicate kept(gate_input_t *in, integer bit) = has(in->required, bit) ==> has(in->valid, bit);
    // One direction rests on enough: a SoC, a power or current limit of its own, and all that the map promises.
    predicate rests(gate_input_t *in, integer ma_bit, integer w_bit, integer cell_bit) =
      has(in->valid, VALID_SOC) && 0 <= in->soc_cpct <= GATE_SOC_CPCT_MAX
      && (has(in->valid, w_bit) || (has(in->valid, VALID_PACK_V) && has(in->valid, ma_bit)))
      && kept(in, VALID_PACK_V) && kept(in, VALID_TEMP_MAX) && kept(in, VALID_TEMP_MIN) && kept(in, VALID_ESS_W)
      && kept(in, ma_bit) && kept(in, w_bit) && kept(in, cell_bit);
    predicate charge_rests(gate_input_t *in) = rests(in, VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX);
    predicate discharge_rests(gate_input_t *in) = rests(in, VALID_DISCHARGE_MA, VALID_DISCHARGE_W, VALID_CELL_MIN);

    // w lies inside every limit of one direction that is valid: the intersection.
    predicate inside(integer w, gate_limits_t *l, gate_input_t *in, integer nameplate_w, integer own_ma, integer ma,
                     integer power_w, integer soc_room, integer cell_mv, integer cell_room, integer enabled,
                     integer ma_bit, integer w_bit, integer cell_bit) =
      0 <= w <= positive(nameplate_w)
      && (has(in->valid, VALID_PACK_V) ==> w <= product(in->pack_mv, own_ma))
      && (has(in->valid, VALID_PACK_V) && has(in->valid, ma_bit) ==> w <= product(in->pack_mv, ma))
      && (has(in->valid, w_bit) ==> w <= positive(power_w))
      && w <= taper(nameplate_w, soc_room, l->soc_taper_cpct)
      && (has(in->valid, VALID_TEMP_MAX) ==>
          w <= taper(nameplate_w, l->temp_max_ddegc - in->temp_max_ddegc, l->temp_taper_ddegc))
      && (has(in->valid, VALID_TEMP_MIN) ==>
          w <= taper(nameplate_w, in->temp_min_ddegc - l->temp_min_ddegc, l->temp_taper_ddegc))
      && (cell_mv > 0 && has(in->valid, cell_bit) ==> w <= taper(nameplate_w, cell_room, l->cell_taper_mv))
      && (enabled == 0 ==> w == 0)
      && (!rests(in, ma_bit, w_bit, cell_bit) ==> w == 0);
    // And one of them holds it back, so that it is the most that is allowed.
    predicate held(integer w, gate_limits_t *l, gate_input_t *in, integer nameplate_w, integer own_ma, integer ma,
                   integer power_w, integer soc_room, integer cell_mv, integer cell_room, integer enabled,
                   integer ma_bit, integer w_bit, integer cell_bit) =
      w == positive(nameplate_w)
      || (has(in->valid, VALID_PACK_V) && w == product(in->pack_mv, own_ma))
      || (has(in->valid, VALID_PACK_V) && has(in->valid, ma_bit) && w == product(in->pack_mv, ma))
      || (has(in->valid, w_bit) && w == positive(power_w))
      || w == taper(nameplate_w, soc_room, l->soc_taper_cpct)
      || (has(in->valid, VALID_TEMP_MAX)
          && w == taper(nameplate_w, l->temp_max_ddegc - in->temp_max_ddegc, l->temp_taper_ddegc))
      || (has(in->valid, VALID_TEMP_MIN)
          && w == taper(nameplate_w, in->temp_min_ddegc - l->temp_min_ddegc, l->temp_taper_ddegc))
      || (cell_mv > 0 && has(in->valid, cell_bit) && w == taper(nameplate_w, cell_room, l->cell_taper_mv))
      || (w == 0 && (enabled == 0 || !rests(in, ma_bit, w_bit, cell_bit)));
    predicate discharge_inside(integer w, gate_limits_t *l, gate_input_t *in) =
      inside(w, l, in, l->discharge_w_max, l->discharge_ma_max, in->discharge_ma_max, in->discharge_w_max,
             in->soc_cpct - l->soc_min_cpct, l->cell_mv_min, in->cell_mv_min - l->cell_mv_min, in->discharge_ok,
             VALID_DISCHARGE_MA, VALID_DISCHARGE_W, VALID_CELL_MIN);
    predicate discharge_held(integer w, gate_limits_t *l, gate_input_t *in) =
      held(w, l, in, l->discharge_w_max, l->discharge_ma_max, in->discharge_ma_max, in->discharge_w_max,
           in->soc_cpct - l->soc_min_cpct, l->cell_mv_min, in->cell_mv_min - l->cell_mv_min, in->discharge_ok,
           VALID_DISCHARGE_MA, VALID_DISCHARGE_W, VALID_CELL_MIN);
    predicate charge_inside(integer w, gate_limits_t *l, gate_input_t *in) =
      inside(w, l, in, l->charge_w_max, l->charge_ma_max, in->charge_ma_max, in->charge_w_max,
             l->soc_max_cpct - in->soc_cpct, l->cell_mv_max, l->cell_mv_max - in->cell_mv_max, in->charge_ok,
             VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX);
    predicate charge_held(integer w, gate_limits_t *l, gate_input_t *in) =
      held(w, l, in, l->charge_w_max, l->charge_ma_max, in->charge_ma_max, in->charge_w_max,
           l->soc_max_cpct - in->soc_cpct, l->cell_mv_max, l->cell_mv_max - in->cell_mv_max, in->charge_ok,
           VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX);

    lemma discharge_inside_shrinks{L}: \forall integer w, v, gate_limits_t *l, gate_input_t *in;
      0 <= v <= w && discharge_inside(w, l, in) ==> discharge_inside(v, l, in);
    lemma charge_inside_shrinks{L}: \forall integer w, v, gate_limits_t *l, gate_input_t *in;
      0 <= v <= w && charge_inside(w, l, in) ==> charge_inside(v, l, in);

    logic integer severity(integer reaction) = 0 <= reaction <= REACTION_OPEN ? reaction : REACTION_OPEN;
    logic integer time(integer ms) = ms <= 0 ? 0 : low(ms * 1000, GATE_TIME_US_MAX);
    predicate idle(gate_row_t *row) = row->bucket_us == 0 && row->active == 0 && row->latched == 0;
    predicate sound(gate_state_t *state) =
      state->busy == 0 ==> (\forall integer k; 0 <= k < GATE_FAULTS_MAX ==> idle(&state->rows[k]));
 */

/* ---------------------------------------------------------------- small arithmetic */

/*@ requires low_end <= high_end;
    assigns \nothing;
    ensures x < low_end ==> \result == low_end;
    ensures x > high_end ==> \result == high_end;
    ensures low_end <= x <= high_end ==> \result == x;
 */
static int64_t within(int64_t x, int64_t low_end, int64_t high_end)
{
    if (x < low_end)
        return low_end;
    return x > high_end ? high_end : x;
}

/*@ assigns \nothing;
    ensures \result == low(a, b);
 */
static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/*@ assigns \nothing;
    ensures \result == positive(a);
 */
static int64_t above_zero(int64_t a)
{
    return a > 0 ? a : 0;
}

/* Volt times ampere, rounded towards zero; nothing from a negative factor. */
/*@ assigns \nothing;
    ensures \result == product(mv, ma);
    ensures 0 <= \result <= INT32_MAX;
 */
static int32_t power_w(int32_t mv, int32_t ma)
{
    if (mv <= 0 || ma <= 0)
        return 0;
    return (int32_t)least((int64_t)mv * ma / 1000000, INT32_MAX);
}

/* All of w while there is room, a linear share inside the last `width` before the limit, nothing at it or beyond. */
/*@ requires -0x1FFFFFFFF <= room <= 0x1FFFFFFFF;
    assigns \nothing;
    ensures \result == taper(w, room, width);
    ensures 0 <= \result <= positive(w);
 */
static int32_t taper_w(int32_t w, int64_t room, int32_t width)
{
    int64_t part;
    if (w <= 0 || room <= 0)
        return 0;
    if (room >= width)
        return w;
    //@ assert 0 <= w * room <= w * width;
    part = w * room / width;
    //@ assert part * width <= w * room;
    //@ assert 0 <= part <= w;
    return (int32_t)part;
}

/* The share of a power that a derating leaves. */
/*@ requires 0 <= permille <= 1000 && 0 <= w;
    assigns \nothing;
    ensures \result == thousandths(w, permille);
    ensures 0 <= \result <= w;
    ensures permille == 1000 ==> \result == w;
 */
static int32_t derated_w(int32_t w, int32_t permille)
{
    //@ assert 0 <= w * permille <= w * 1000;
    return (int32_t)((int64_t)w * permille / 1000);
}

/* ---------------------------------------------------------------- the envelope */

/*@ requires \valid_read(input);
    assigns \nothing;
    ensures \result == 1 <==> has(input->valid, bit);
    ensures \result == 0 || \result == 1;
 */
static int valid(const gate_input_t *input, uint32_t bit)
{
    return (input->valid & bit) != 0;
}

/*@ requires \valid_read(input);
    assigns \nothing;
    ensures \result == 0 <==> kept(input, bit);
    ensures \result == 0 || \result == 1;
 */
static int missing(const gate_input_t *input, uint32_t bit)
{
    return (input->required & bit) != 0 && (input->valid & bit) == 0;
}

/* Whether one direction rests on enough: SoC, a power or current limit of its own, and all that the map promises. */
/*@ requires \valid_read(input);
    assigns \nothing;
    ensures \result == 1 <==> rests(input, ma_bit, w_bit, cell_bit);
    ensures \result == 0 || \result == 1;
 */
static int known(const gate_input_t *input, uint32_t ma_bit, uint32_t w_bit, uint32_t cell_bit)
{
    if (!valid(input, VALID_SOC) || input->soc_cpct < 0 || input->soc_cpct > GATE_SOC_CPCT_MAX)
        return 0;
    if (!valid(input, w_bit) && !(valid(input, VALID_PACK_V) && valid(input, ma_bit)))
        return 0;
    if (missing(input, VALID_PACK_V) || missing(input, VALID_TEMP_MAX) || missing(input, VALID_TEMP_MIN)
        || missing(input, VALID_ESS_W))
        return 0;
    return !missing(input, ma_bit) && !missing(input, w_bit) && !missing(input, cell_bit);
}

/* Whether both directions do; what a unit needs to be armed and its devices to hear a heartbeat. */
/*@ requires \valid_read(input);
    assigns \nothing;
    ensures \result == 1 <==> charge_rests(input) && discharge_rests(input);
    ensures \result == 0 || \result == 1;
 */
static int healthy(const gate_input_t *input)
{
    return known(input, VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX)
           && known(input, VALID_DISCHARGE_MA, VALID_DISCHARGE_W, VALID_CELL_MIN);
}

/* One direction's numbers, whichever it is; room: how far inside the limit, nothing at 0. */
typedef struct {
    int32_t nameplate_w, own_ma; /* from the site file */
    int32_t ma, power_w;         /* from the BMS or PCS */
    int64_t soc_room, cell_room;
    int32_t cell_mv; /* 0 = cells not checked */
    int32_t enabled;
    uint32_t ma_bit, w_bit, cell_bit;
} way_t;

/* What is left of a direction while its limits are applied one after the other. */
typedef struct {
    int32_t w; /* >= 0 */
    uint32_t bits;
} side_t;

/*@ requires side.w >= 0;
    assigns \nothing;
    ensures \result.w == low(side.w, positive(limit_w));
 */
static side_t narrowed(side_t side, int32_t limit_w, uint32_t bit)
{
    if (limit_w < side.w) {
        side.w = limit_w > 0 ? limit_w : 0;
        side.bits |= bit;
    }
    return side;
}

/* The same for a limit that counts only where `applies` says so. */
/*@ requires side.w >= 0;
    assigns \nothing;
    ensures applies != 0 ==> \result.w == low(side.w, positive(limit_w));
    ensures applies == 0 ==> \result.w == side.w;
 */
static side_t narrowed_if(int applies, side_t side, int32_t limit_w, uint32_t bit)
{
    return applies ? narrowed(side, limit_w, bit) : side;
}

/*@ requires \valid_read(limits) && \valid_read(input);
    requires -0x1FFFFFFFF <= way.soc_room <= 0x1FFFFFFFF && -0x1FFFFFFFF <= way.cell_room <= 0x1FFFFFFFF;
    assigns \nothing;
    ensures inside(\result.w, limits, input, way.nameplate_w, way.own_ma, way.ma, way.power_w, way.soc_room, way.cell_mv,
                   way.cell_room, way.enabled, way.ma_bit, way.w_bit, way.cell_bit);
    ensures held(\result.w, limits, input, way.nameplate_w, way.own_ma, way.ma, way.power_w, way.soc_room, way.cell_mv,
                 way.cell_room, way.enabled, way.ma_bit, way.w_bit, way.cell_bit);
 */
static side_t narrowest(const gate_limits_t *limits, const gate_input_t *input, way_t way)
{
    const int pack_v = valid(input, VALID_PACK_V);
    const int64_t hot_room = (int64_t)limits->temp_max_ddegc - input->temp_max_ddegc;
    const int64_t cold_room = (int64_t)input->temp_min_ddegc - limits->temp_min_ddegc;
    side_t side = {(int32_t)above_zero(way.nameplate_w), 0};
    side = narrowed_if(pack_v, side, power_w(input->pack_mv, way.own_ma), LIMIT_CURRENT);
    side = narrowed_if(pack_v && valid(input, way.ma_bit), side, power_w(input->pack_mv, way.ma), LIMIT_CURRENT);
    side = narrowed_if(valid(input, way.w_bit), side, way.power_w, LIMIT_POWER);
    side = narrowed(side, taper_w(way.nameplate_w, way.soc_room, limits->soc_taper_cpct), LIMIT_SOC);
    side = narrowed_if(valid(input, VALID_TEMP_MAX), side, taper_w(way.nameplate_w, hot_room, limits->temp_taper_ddegc),
                       LIMIT_TEMP);
    side = narrowed_if(valid(input, VALID_TEMP_MIN), side, taper_w(way.nameplate_w, cold_room, limits->temp_taper_ddegc),
                       LIMIT_TEMP);
    side = narrowed_if(way.cell_mv > 0 && valid(input, way.cell_bit), side,
                       taper_w(way.nameplate_w, way.cell_room, limits->cell_taper_mv), LIMIT_CELL);
    side = narrowed_if(way.enabled == 0, side, 0, LIMIT_ENABLE);
    return narrowed_if(!known(input, way.ma_bit, way.w_bit, way.cell_bit), side, 0, LIMIT_INVALID);
}

/*@ requires \valid_read(limits) && \valid_read(input) && \valid(lo_w) && \valid(hi_w) && \valid(bits);
    requires \separated(lo_w, hi_w, bits, limits, input);
    assigns *lo_w, *hi_w, *bits;
    ensures S1: -INT32_MAX <= *lo_w <= 0 <= *hi_w;
    ensures S2: discharge_inside{Pre}(*hi_w, limits, input);
    ensures S2: charge_inside{Pre}(-*lo_w, limits, input);
    ensures S2: discharge_held{Pre}(*hi_w, limits, input);
    ensures S2: charge_held{Pre}(-*lo_w, limits, input);
    ensures S3: input->soc_cpct <= limits->soc_min_cpct ==> *hi_w == 0;
    ensures S3: input->soc_cpct >= limits->soc_max_cpct ==> *lo_w == 0;
    ensures S3: has(input->valid, VALID_TEMP_MAX) && input->temp_max_ddegc >= limits->temp_max_ddegc ==>
      *lo_w == 0 && *hi_w == 0;
    ensures S3: has(input->valid, VALID_TEMP_MIN) && input->temp_min_ddegc <= limits->temp_min_ddegc ==>
      *lo_w == 0 && *hi_w == 0;
    ensures S3: limits->cell_mv_min > 0 && has(input->valid, VALID_CELL_MIN)
      && input->cell_mv_min <= limits->cell_mv_min ==> *hi_w == 0;
    ensures S3: limits->cell_mv_max > 0 && has(input->valid, VALID_CELL_MAX)
      && input->cell_mv_max >= limits->cell_mv_max ==> *lo_w == 0;
    ensures S4: !charge_rests(input) ==> *lo_w == 0;
    ensures S4: !discharge_rests(input) ==> *hi_w == 0;
    ensures S6: (input->charge_ok == 0 ==> *lo_w == 0) && (input->discharge_ok == 0 ==> *hi_w == 0);
 */
void gate_envelope(const gate_limits_t *limits, const gate_input_t *input, int32_t *lo_w, int32_t *hi_w, uint32_t *bits)
{
    const way_t charge = {
        .nameplate_w = limits->charge_w_max, .own_ma = limits->charge_ma_max,
        .ma = input->charge_ma_max, .power_w = input->charge_w_max,
        .soc_room = (int64_t)limits->soc_max_cpct - input->soc_cpct,
        .cell_mv = limits->cell_mv_max, .cell_room = (int64_t)limits->cell_mv_max - input->cell_mv_max,
        .enabled = input->charge_ok, .ma_bit = VALID_CHARGE_MA, .w_bit = VALID_CHARGE_W, .cell_bit = VALID_CELL_MAX,
    };
    const way_t discharge = {
        .nameplate_w = limits->discharge_w_max, .own_ma = limits->discharge_ma_max,
        .ma = input->discharge_ma_max, .power_w = input->discharge_w_max,
        .soc_room = (int64_t)input->soc_cpct - limits->soc_min_cpct,
        .cell_mv = limits->cell_mv_min, .cell_room = (int64_t)input->cell_mv_min - limits->cell_mv_min,
        .enabled = input->discharge_ok,
        .ma_bit = VALID_DISCHARGE_MA, .w_bit = VALID_DISCHARGE_W, .cell_bit = VALID_CELL_MIN,
    };
    const side_t in = narrowest(limits, input, charge), out = narrowest(limits, input, discharge);
    //@ assert charge_inside(in.w, limits, input) && charge_held(in.w, limits, input);
    //@ assert discharge_inside(out.w, limits, input) && discharge_held(out.w, limits, input);
    *lo_w = -in.w;
    *hi_w = out.w;
    *bits = in.bits | out.bits;
}

/* ---------------------------------------------------------------- fault rows */

/*@ assigns \nothing;
    ensures \result == severity(row_reaction);
    ensures 0 <= \result <= REACTION_OPEN;
 */
static int32_t severity_of(int32_t row_reaction)
{
    return row_reaction < 0 || row_reaction > REACTION_OPEN ? REACTION_OPEN : row_reaction;
}

/*@ assigns \nothing;
    ensures \result == time(ms);
    ensures 0 <= \result <= GATE_TIME_US_MAX;
 */
static int32_t time_us(int32_t ms)
{
    return (int32_t)within((int64_t)ms * 1000, 0, GATE_TIME_US_MAX);
}

/* The clear time grows with each activation that is not yet forgotten: twice, four times, up to 32 times. */
/*@ requires 0 <= clear_us <= GATE_TIME_US_MAX && 0 <= doublings < GATE_FLAPS_MAX;
    assigns \nothing;
    ensures clear_us <= \result <= GATE_TIME_US_MAX;
    ensures doublings == 0 ==> \result == clear_us;
 */
static int32_t held_off_us(int32_t clear_us, int32_t doublings)
{
    int64_t held_us = clear_us;
    int32_t n;
    /*@ loop invariant 0 <= n <= doublings;
        loop invariant clear_us <= held_us <= GATE_TIME_US_MAX;
        loop invariant n == 0 ==> held_us == clear_us;
        loop assigns n, held_us;
        loop variant doublings - n;
     */
    for (n = 0; n < doublings; n++)
        held_us = least(held_us * 2, GATE_TIME_US_MAX);
    return (int32_t)held_us;
}

/* How long a row stays active once its condition is gone. */
/*@ requires \valid_read(row);
    assigns \nothing;
    ensures time(row->clear_ms) <= \result <= GATE_TIME_US_MAX;
    ensures row->flap_max <= 0 ==> \result == time(row->clear_ms);
 */
static int32_t clear_us(const gate_fault_row_t *row, int32_t flaps)
{
    const int32_t doublings = row->flap_max > 0 ? (int32_t)within((int64_t)flaps - 1, 0, GATE_FLAPS_MAX - 1) : 0;
    return held_off_us(time_us(row->clear_ms), doublings);
}

/* A row that is not active: the leaky bucket fills while its condition is present and drains at half speed. */
/*@ requires \valid_read(row) && 0 <= dt_us <= GATE_DT_US_MAX && memory.active == 0;
    assigns \nothing;
    ensures S18: \result.active != 0 <==> (present != 0 && memory.bucket_us + dt_us >= time(row->debounce_ms));
    ensures S18: present == 0 ==> \result.active == 0;
    ensures S18: \result.active != 0 ==> \result.bucket_us >= time(row->clear_ms);
    ensures 0 <= \result.bucket_us <= GATE_TIME_US_MAX;
    ensures memory.latched != 0 ==> \result.latched != 0;
    ensures row->latched != 0 && \result.active != 0 ==> \result.latched != 0;
 */
static gate_row_t filled(const gate_fault_row_t *row, gate_row_t memory, int present, int32_t dt_us)
{
    const int32_t debounce_us = time_us(row->debounce_ms);
    const int64_t filled_us = (int64_t)memory.bucket_us + (present ? dt_us : -(dt_us / 2));
    memory.bucket_us = (int32_t)within(filled_us, 0, debounce_us);
    if (!present || filled_us < debounce_us)
        return memory;
    memory.active = 1;
    if (memory.flaps < GATE_FLAPS_MAX)
        memory.flaps++;
    if (row->latched || (row->flap_max > 0 && memory.flaps >= row->flap_max))
        memory.latched = 1;
    memory.bucket_us = clear_us(row, memory.flaps);
    return memory;
}

/* A row that is active: it clears when its condition has been absent for the clear time without a break. */
/*@ requires \valid_read(row) && 0 <= dt_us <= GATE_DT_US_MAX && memory.active != 0;
    assigns \nothing;
    ensures S18: \result.active == 0 <==> (present == 0 && memory.bucket_us <= dt_us);
    ensures S18: present != 0 ==> \result.bucket_us >= time(row->clear_ms);
    ensures \result.bucket_us >= 0 && \result.latched == memory.latched;
 */
static gate_row_t drained(const gate_fault_row_t *row, gate_row_t memory, int present, int32_t dt_us)
{
    if (present) {
        memory.bucket_us = clear_us(row, memory.flaps);
    } else {
        memory.bucket_us = (int32_t)above_zero((int64_t)memory.bucket_us - dt_us);
        memory.active = memory.bucket_us > 0;
    }
    return memory;
}

/* One fault row in one cycle: leaky bucket in, clear time out, latch, flap count. */
/*@ requires \valid_read(row) && 0 <= dt_us <= GATE_DT_US_MAX;
    assigns \nothing;
    ensures severity(row->reaction) == REACTION_NONE ==>
      \result.bucket_us == 0 && \result.active == 0 && \result.latched == 0;
    ensures S13: severity(row->reaction) != REACTION_NONE && memory.latched != 0 && (ack == 0 || \result.active != 0)
      ==> \result.latched != 0;
    ensures S13: severity(row->reaction) != REACTION_NONE && row->latched != 0 && memory.active == 0 && \result.active != 0
      ==> \result.latched != 0;
    ensures S18: severity(row->reaction) != REACTION_NONE && present != 0
      && (memory.active != 0 || memory.bucket_us + dt_us >= time(row->debounce_ms)) ==> \result.active != 0;
    ensures S18: memory.active == 0 && \result.active != 0 ==>
      present != 0 && memory.bucket_us + dt_us >= time(row->debounce_ms);
    ensures S18: severity(row->reaction) != REACTION_NONE && memory.active != 0 && \result.active == 0 ==>
      present == 0 && memory.bucket_us <= dt_us;
 */
static gate_row_t row_step(const gate_fault_row_t *row, gate_row_t memory, int present, int ack, int32_t dt_us)
{
    const gate_row_t nothing = {0, 0, 0, 0, 0};
    if (severity_of(row->reaction) == REACTION_NONE)
        return nothing;
    memory = memory.active ? drained(row, memory, present, dt_us) : filled(row, memory, present, dt_us);
    if (ack && !memory.active && memory.latched) {
        memory.latched = 0;
        memory.flaps = 0;
    }
    return memory;
}

/* What all rows together ask for. */
typedef struct {
    int32_t reaction;
    int32_t cause;           /* row that asks for it, -1 none */
    int32_t derate_permille;
    int32_t busy;            /* a row remembers something */
    int32_t latches;         /* rows latched */
    int32_t trips;           /* rows latched that ask for more than a derating */
    uint64_t active, latched;
} demand_t;

/*@ predicate fair(demand_t demand) = 0 <= demand.reaction <= REACTION_OPEN && 0 <= demand.derate_permille <= 1000;
    predicate grown(demand_t demand, demand_t from) =
      demand.reaction >= from.reaction && demand.derate_permille <= from.derate_permille
      && (from.busy != 0 ==> demand.busy != 0) && (from.latches != 0 ==> demand.latches != 0)
      && (from.trips != 0 ==> demand.trips != 0);
    logic integer left(integer permille) = 0 <= permille <= 1000 ? permille : 0;
    // The demand does justice to a row.
    predicate heard(demand_t demand, integer reaction, integer permille, integer bucket_us, integer active, integer latched) =
      (active != 0 || latched != 0 ==> demand.reaction >= severity(reaction))
      && ((active != 0 || latched != 0) && severity(reaction) == REACTION_DERATE ==> demand.derate_permille <= left(permille))
      && (latched != 0 ==> demand.latches != 0)
      && (latched != 0 && severity(reaction) > REACTION_DERATE ==> demand.trips != 0)
      && (bucket_us != 0 || active != 0 || latched != 0 ==> demand.busy != 0);
 */

/*@ assigns \nothing;
    ensures \result == left(permille);
 */
static int32_t left_permille(int32_t permille)
{
    return permille < 0 || permille > 1000 ? 0 : permille;
}

/* The demand with one more row in it, but for the masks that are told to people. */
/*@ requires \valid_read(row) && 0 <= number < GATE_FAULTS_MAX && fair(demand);
    assigns \nothing;
    ensures fair(\result);
    ensures grown(\result, demand);
    ensures heard(\result, row->reaction, row->derate_permille, memory.bucket_us, memory.active, memory.latched);
 */
static demand_t joined(demand_t demand, const gate_fault_row_t *row, gate_row_t memory, int32_t number)
{
    const int asks = memory.active || memory.latched;
    const int32_t severe = asks ? severity_of(row->reaction) : REACTION_NONE;
    const int32_t permille = severe == REACTION_DERATE ? left_permille(row->derate_permille) : 1000;
    const int graver = severe > demand.reaction;
    const demand_t both = {
        .reaction = graver ? severe : demand.reaction,
        .cause = graver ? number : demand.cause,
        .derate_permille = (int32_t)least(permille, demand.derate_permille),
        .busy = demand.busy || asks || memory.bucket_us != 0,
        .latches = demand.latches || memory.latched,
        .trips = demand.trips || (memory.latched && severe > REACTION_DERATE),
        .active = demand.active,
        .latched = demand.latched,
    };
    return both;
}

/* One row takes its step and joins the demand; a row that has nothing to do is left alone. */
/*@ requires \valid_read(row) && \valid(memory) && \separated(row, memory);
    requires 0 <= number < GATE_FAULTS_MAX && 0 <= dt_us <= GATE_DT_US_MAX && fair(demand);
    assigns *memory;
    ensures fair(\result);
    ensures grown(\result, demand);
    ensures heard(\result, row->reaction, row->derate_permille, memory->bucket_us, memory->active, memory->latched);
    ensures S13: severity(row->reaction) != REACTION_NONE && ack == 0 && \old(memory->latched) != 0 ==> memory->latched != 0;
 */
static demand_t visited(demand_t demand, const gate_fault_row_t *row, int32_t number, int present, int ack, int32_t dt_us,
                        gate_row_t *memory)
{
    if (!present && memory->bucket_us == 0 && !memory->active && !memory->latched)
        return demand;
    *memory = row_step(row, *memory, present, ack, dt_us);
    return joined(demand, row, *memory, number);
}

/* The fault rows; nothing present and nothing remembered is the usual case and costs nothing. */
/*@ requires \valid_read(faults + (0 .. GATE_FAULTS_MAX - 1)) && \valid(state);
    requires \separated(faults + (0 .. GATE_FAULTS_MAX - 1), state);
    requires 0 <= dt_us <= GATE_DT_US_MAX && sound(state);
    assigns state->rows[0 .. GATE_FAULTS_MAX - 1], state->busy;
    ensures fair(\result) && sound(state);
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX ==>
      heard(\result, faults[k].reaction, faults[k].derate_permille,
            state->rows[k].bucket_us, state->rows[k].active, state->rows[k].latched);
    ensures S13: \forall integer k; 0 <= k < GATE_FAULTS_MAX && ack == 0 && severity(faults[k].reaction) != REACTION_NONE
      && \old(state->rows[k].latched) != 0 ==> state->rows[k].latched != 0;
 */
static demand_t faults_step(const gate_fault_row_t faults[GATE_FAULTS_MAX], uint64_t present, int ack, int32_t dt_us,
                            gate_state_t *state)
{
    demand_t demand = {REACTION_NONE, -1, 1000, 0, 0, 0, 0, 0};
    uint64_t active = 0, latched = 0;
    int32_t i;
    if (present == 0 && state->busy == 0)
        return demand;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX && fair(demand);
        loop invariant \forall integer k; 0 <= k < i ==>
          heard(demand, faults[k].reaction, faults[k].derate_permille,
                state->rows[k].bucket_us, state->rows[k].active, state->rows[k].latched);
        loop invariant \forall integer k; 0 <= k < GATE_FAULTS_MAX && \at(state->rows[k].latched, LoopEntry) != 0
          && (k >= i || (ack == 0 && severity(faults[k].reaction) != REACTION_NONE)) ==> state->rows[k].latched != 0;
        loop assigns i, demand, active, latched, state->rows[0 .. GATE_FAULTS_MAX - 1];
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        demand = visited(demand, &faults[i], i, (present >> i) & 1, ack, dt_us, &state->rows[i]);
        active |= (uint64_t)(state->rows[i].active != 0) << i;
        latched |= (uint64_t)(state->rows[i].latched != 0) << i;
    }
    state->busy = demand.busy;
    demand.active = active;
    demand.latched = latched;
    return demand;
}

/* Every ten minutes each row forgets one activation. */
/*@ requires \valid(state) && 0 <= dt_us <= GATE_DT_US_MAX;
    assigns state->forget_us, state->rows[0 .. GATE_FAULTS_MAX - 1].flaps;
    ensures 0 <= state->forget_us < GATE_FORGET_US;
 */
static void forget_flaps(gate_state_t *state, int32_t dt_us)
{
    int32_t i;
    state->forget_us = (int32_t)within(state->forget_us, 0, GATE_FORGET_US) + dt_us;
    if (state->forget_us < GATE_FORGET_US)
        return;
    state->forget_us = 0;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX;
        loop assigns i, state->rows[0 .. GATE_FAULTS_MAX - 1].flaps;
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++)
        if (state->rows[i].flaps > 0)
            state->rows[i].flaps--;
}

/* Latches trip; only an order, with everything good, ends that. */
/*@ requires fair(demand);
    assigns \nothing;
    ensures \result == 0 || \result == 1;
    ensures S14: demand.trips != 0 ==> \result == 1;
    ensures S15: tripped != 0 && \result == 0 ==>
      arm != 0 && good != 0 && demand.reaction <= REACTION_DERATE && demand.latches == 0;
 */
static int32_t trip_of(int32_t tripped, demand_t demand, int arm, int good)
{
    if (demand.trips)
        return 1;
    if (arm && good && demand.reaction <= REACTION_DERATE && !demand.latches)
        return 0;
    return tripped != 0;
}

/* The row that first asked for more than a derating, kept while any does and until the trip is over. */
/*@ assigns \nothing; */
static int32_t first_fault_of(int32_t first_fault, demand_t demand, int32_t tripped)
{
    if (demand.reaction > REACTION_DERATE)
        return first_fault < 0 ? demand.cause : first_fault;
    return tripped ? first_fault : -1;
}

/* ---------------------------------------------------------------- the setpoint */

/* W per second times microseconds, in mW. */
/*@ requires 0 <= dt_us <= GATE_RAMP_DT_US_MAX;
    assigns \nothing;
    ensures \result == thousandths(positive(w_per_s), dt_us);
    ensures 0 <= \result <= 0x1FFFFFFFFFFF;
 */
static int64_t ramp_step_mw(int32_t w_per_s, int32_t dt_us)
{
    return above_zero(w_per_s) * dt_us / 1000;
}

/*@ predicate small(integer mw) = -0x1FFFFFFFFFFF <= mw <= 0x1FFFFFFFFFFF;
    // How far one direction may go: no further than wanted, than the ramp reaches from where it was, than its limit.
    logic integer reach(integer wanted_mw, integer last_mw, integer up_mw, integer down_mw, integer most_mw) =
      low(low(positive(wanted_mw), most_mw), positive(positive(last_mw) + up_mw - down_mw));
 */

/* One direction of the setpoint: up_mw away from zero, or down_mw less than before; less than that at once. */
/*@ requires small(wanted_mw) && small(last_mw) && 0 <= up_mw && small(up_mw) && 0 <= down_mw && small(down_mw);
    requires 0 <= most_mw && small(most_mw);
    assigns \nothing;
    ensures \result == reach(wanted_mw, last_mw, up_mw, down_mw, most_mw);
 */
static int64_t reach_mw(int64_t wanted_mw, int64_t last_mw, int64_t up_mw, int64_t down_mw, int64_t most_mw)
{
    return least(least(above_zero(wanted_mw), most_mw), above_zero(above_zero(last_mw) + up_mw - down_mw));
}

/*@ // Rates of the ramp in this cycle, mW: away from zero below ramp to zero; the stop rate from there.
    logic integer up(integer go_w_per_s, integer reaction, integer dt_us) =
      reaction < REACTION_RAMP_ZERO ? thousandths(positive(go_w_per_s), dt_us) : 0;
    logic integer down(integer stop_w_per_s, integer reaction, integer dt_us) =
      reaction < REACTION_RAMP_ZERO ? 0 : thousandths(positive(stop_w_per_s), dt_us);
    predicate stands(integer stop_w_per_s, integer may_run, integer reaction) =
      may_run == 0 || reaction >= REACTION_ZERO || (reaction == REACTION_RAMP_ZERO && stop_w_per_s <= 0);
 */

/* The setpoint: ramp first, envelope last. */
/*@ requires -INT32_MAX <= lo_w <= 0 <= hi_w <= INT32_MAX;
    requires 0 <= dt_us <= GATE_RAMP_DT_US_MAX && 0 <= reaction <= REACTION_OPEN && small(wanted_mw) && small(last_mw);
    assigns \nothing;
    ensures stands(stop_w_per_s, may_run, reaction) ==> \result == 0;
    ensures !stands(stop_w_per_s, may_run, reaction) ==> positive(\result) ==
      reach(wanted_mw, last_mw, up(go_w_per_s, reaction, dt_us), down(stop_w_per_s, reaction, dt_us), hi_w * 1000);
    ensures !stands(stop_w_per_s, may_run, reaction) ==> positive(-\result) ==
      reach(-wanted_mw, -last_mw, up(go_w_per_s, reaction, dt_us), down(stop_w_per_s, reaction, dt_us), -lo_w * 1000);
    ensures S1: lo_w * 1000 <= \result <= hi_w * 1000;
    ensures S5: (wanted_mw >= 0 ==> \result <= wanted_mw) && (wanted_mw <= 0 ==> wanted_mw <= \result);
    ensures S8: reaction < REACTION_RAMP_ZERO ==> (wanted_mw >= 0 ==> 0 <= \result) && (wanted_mw <= 0 ==> \result <= 0);
    ensures S8: positive(\result) <= positive(last_mw) + thousandths(positive(go_w_per_s), dt_us);
    ensures S8: positive(-\result) <= positive(-last_mw) + thousandths(positive(go_w_per_s), dt_us);
    ensures S9: may_run != 0 && reaction < REACTION_RAMP_ZERO && 0 <= wanted_mw <= last_mw
      ==> \result == low(wanted_mw, hi_w * 1000);
    ensures S9: may_run != 0 && reaction < REACTION_RAMP_ZERO && last_mw <= wanted_mw <= 0
      ==> -\result == low(-wanted_mw, -lo_w * 1000);
    ensures S9: reaction >= REACTION_RAMP_ZERO ==>
      positive(\result) <= positive(last_mw) && positive(-\result) <= positive(-last_mw);
 */
static int64_t setpoint_of(int32_t go_w_per_s, int32_t stop_w_per_s, int may_run, int32_t reaction, int64_t wanted_mw,
                           int64_t last_mw, int32_t dt_us, int32_t lo_w, int32_t hi_w)
{
    const int stopping = reaction >= REACTION_RAMP_ZERO;
    const int64_t up_mw = stopping ? 0 : ramp_step_mw(go_w_per_s, dt_us);
    const int64_t down_mw = stopping ? ramp_step_mw(stop_w_per_s, dt_us) : 0;
    if (!may_run || reaction >= REACTION_ZERO || (stopping && stop_w_per_s <= 0))
        return 0;
    /* At most one of the two is not zero, because only one side is wanted. */
    return reach_mw(wanted_mw, last_mw, up_mw, down_mw, (int64_t)hi_w * 1000)
           - reach_mw(-wanted_mw, -last_mw, up_mw, down_mw, -(int64_t)lo_w * 1000);
}

/* Towards zero, so still inside the envelope. */
/*@ requires -INT32_MAX * 1000 <= mw <= INT32_MAX * 1000;
    assigns \nothing;
    ensures mw >= 0 ==> 0 <= \result * 1000 <= mw < \result * 1000 + 1000;
    ensures mw <= 0 ==> \result * 1000 - 1000 < mw <= \result * 1000 <= 0;
 */
static int32_t whole_w(int64_t mw)
{
    return (int32_t)(mw / 1000);
}

/* What people are told about a setpoint that is not the request. */
/*@ assigns \nothing; */
static uint32_t reason_bits(int request_valid, int32_t tripped, int32_t reaction, int64_t wanted_mw, int64_t setpoint_mw)
{
    uint32_t bits = 0;
    if (!request_valid)
        bits |= LIMIT_INVALID;
    if (tripped)
        bits |= LIMIT_TRIPPED;
    if (reaction >= REACTION_DERATE)
        bits |= LIMIT_FAULT;
    if (setpoint_mw != wanted_mw)
        bits |= LIMIT_RAMP;
    return bits;
}

/* Contactors may be asked to open once the current is small or the setpoint has been zero for a second. */
/*@ requires \valid_read(input) && \valid(state) && \separated(input, state);
    requires 0 <= dt_us <= GATE_DT_US_MAX && 0 <= reaction <= REACTION_OPEN;
    assigns state->open_wait_us;
    ensures \result == 0 || \result == 1;
    ensures S17: \result == 1 ==> reaction == REACTION_OPEN;
    ensures S17: \result == 1 ==> state->open_wait_us >= GATE_OPEN_WAIT_US
      || (has(input->valid, VALID_ESS_W) && has(input->valid, VALID_PACK_V)
          && -product(input->pack_mv, GATE_OPEN_MA) <= input->ess_w <= product(input->pack_mv, GATE_OPEN_MA));
    ensures S17: state->open_wait_us <= positive(\old(state->open_wait_us)) + dt_us;
 */
static int contactor_request(const gate_input_t *input, int32_t reaction, int32_t dt_us, gate_state_t *state)
{
    int32_t quiet_w;
    if (reaction != REACTION_OPEN) {
        state->open_wait_us = 0;
        return 0;
    }
    state->open_wait_us = (int32_t)within(state->open_wait_us, 0, GATE_OPEN_WAIT_US) + dt_us;
    if (state->open_wait_us >= GATE_OPEN_WAIT_US)
        return 1;
    quiet_w = power_w(input->pack_mv, GATE_OPEN_MA);
    return valid(input, VALID_ESS_W) && valid(input, VALID_PACK_V) && input->ess_w <= quiet_w && input->ess_w >= -quiet_w;
}

/* What a cycle knows of one unit before the rows have spoken: its envelope, its request, its ramps. */
typedef struct {
    int32_t lo_w, hi_w;
    uint32_t bits;
    int32_t good, request_valid, request_w;
    int32_t go_w_per_s, stop_w_per_s;
} sight_t;

/*@ predicate open(sight_t sight) = -INT32_MAX <= sight.lo_w <= 0 <= sight.hi_w <= INT32_MAX; */

/*@ requires \valid_read(limits) && \valid_read(input) && \separated(limits, input);
    assigns \nothing;
    ensures S1: open(\result);
    ensures S2: discharge_inside(\result.hi_w, limits, input) && discharge_held(\result.hi_w, limits, input);
    ensures S2: charge_inside(-\result.lo_w, limits, input) && charge_held(-\result.lo_w, limits, input);
    ensures \result.good != 0 <==> charge_rests(input) && discharge_rests(input);
    ensures \result.request_valid != 0 <==> has(input->valid, VALID_REQUEST);
    ensures \result.request_w == input->request_w;
    ensures \result.go_w_per_s == limits->ramp_go_w_per_s && \result.stop_w_per_s == limits->ramp_stop_w_per_s;
 */
static sight_t seen(const gate_limits_t *limits, const gate_input_t *input)
{
    sight_t sight;
    int32_t lo_w, hi_w;
    uint32_t bits;
    gate_envelope(limits, input, &lo_w, &hi_w, &bits);
    sight.lo_w = lo_w;
    sight.hi_w = hi_w;
    sight.bits = bits;
    sight.good = healthy(input);
    sight.request_valid = valid(input, VALID_REQUEST);
    sight.request_w = input->request_w;
    sight.go_w_per_s = limits->ramp_go_w_per_s;
    sight.stop_w_per_s = limits->ramp_stop_w_per_s;
    return sight;
}

/* What it decides once they have. */
typedef struct {
    int32_t lo_w, hi_w;
    int32_t setpoint_w;
    int64_t setpoint_mw;
    uint32_t bits;
    int32_t tripped, heartbeat_ok;
} decision_t;

/*@ requires open(sight) && fair(demand) && small(last_mw) && 0 <= dt_us <= GATE_RAMP_DT_US_MAX;
    assigns \nothing;
    ensures \result.hi_w == thousandths(sight.hi_w, demand.derate_permille);
    ensures -\result.lo_w == thousandths(-sight.lo_w, demand.derate_permille);
    ensures sight.request_valid == 0 || \result.tripped != 0 || stands(sight.stop_w_per_s, 1, demand.reaction) ==>
      \result.setpoint_mw == 0;
    ensures sight.request_valid != 0 && \result.tripped == 0 && !stands(sight.stop_w_per_s, 1, demand.reaction) ==>
      positive(\result.setpoint_mw) == reach(sight.request_w * 1000, last_mw, up(sight.go_w_per_s, demand.reaction, dt_us),
                                             down(sight.stop_w_per_s, demand.reaction, dt_us), \result.hi_w * 1000);
    ensures sight.request_valid != 0 && \result.tripped == 0 && !stands(sight.stop_w_per_s, 1, demand.reaction) ==>
      positive(-\result.setpoint_mw) == reach(-sight.request_w * 1000, -last_mw,
                                              up(sight.go_w_per_s, demand.reaction, dt_us),
                                              down(sight.stop_w_per_s, demand.reaction, dt_us), -\result.lo_w * 1000);
    ensures S1: \result.lo_w <= \result.setpoint_w <= \result.hi_w;
    ensures S2: sight.lo_w <= \result.lo_w <= 0 <= \result.hi_w <= sight.hi_w;
    ensures S5: sight.request_valid == 0 ==> \result.setpoint_w == 0;
    ensures S5: sight.request_w >= 0 ==> \result.setpoint_w <= sight.request_w;
    ensures S5: sight.request_w <= 0 ==> sight.request_w <= \result.setpoint_w;
    ensures S8: \result.setpoint_w * 1000 <= positive(\result.setpoint_mw)
      && -\result.setpoint_w * 1000 <= positive(-\result.setpoint_mw);
    ensures S8: positive(\result.setpoint_mw) <= positive(last_mw) + thousandths(positive(sight.go_w_per_s), dt_us);
    ensures S8: positive(-\result.setpoint_mw) <= positive(-last_mw) + thousandths(positive(sight.go_w_per_s), dt_us);
    ensures S9: sight.request_valid != 0 && \result.tripped == 0 && demand.reaction < REACTION_RAMP_ZERO
      && 0 <= sight.request_w * 1000 <= last_mw ==> \result.setpoint_w == low(sight.request_w, \result.hi_w);
    ensures S9: sight.request_valid != 0 && \result.tripped == 0 && demand.reaction < REACTION_RAMP_ZERO
      && last_mw <= sight.request_w * 1000 <= 0 ==> -\result.setpoint_w == low(-sight.request_w, -\result.lo_w);
    ensures S9: demand.reaction >= REACTION_RAMP_ZERO ==> positive(\result.setpoint_mw) <= positive(last_mw)
      && positive(-\result.setpoint_mw) <= positive(-last_mw);
    ensures S12: demand.reaction >= REACTION_ZERO ==> \result.setpoint_w == 0 && \result.setpoint_mw == 0;
    ensures S14: demand.trips != 0 ==> \result.tripped != 0;
    ensures S14: \result.tripped != 0 ==> \result.setpoint_w == 0 && \result.setpoint_mw == 0;
    ensures S15: tripped != 0 && \result.tripped == 0 ==> armed != 0 && sight.request_valid != 0 && sight.good != 0
      && demand.reaction <= REACTION_DERATE && demand.latches == 0;
    ensures S16: \result.heartbeat_ok != 0 ==> sight.good != 0 && demand.reaction < REACTION_ZERO_SILENT;
 */
static decision_t decided(sight_t sight, demand_t demand, int32_t tripped, int armed, int64_t last_mw, int32_t dt_us)
{
    const int64_t wanted_mw = (int64_t)sight.request_w * 1000;
    const int32_t lo_w = -derated_w(-sight.lo_w, demand.derate_permille);
    const int32_t hi_w = derated_w(sight.hi_w, demand.derate_permille);
    const int32_t stays = trip_of(tripped, demand, armed, sight.good && sight.request_valid);
    const int64_t setpoint_mw = setpoint_of(sight.go_w_per_s, sight.stop_w_per_s, sight.request_valid && !stays,
                                            demand.reaction, wanted_mw, last_mw, dt_us, lo_w, hi_w);
    const decision_t decision = {
        .lo_w = lo_w,
        .hi_w = hi_w,
        .setpoint_w = whole_w(setpoint_mw),
        .setpoint_mw = setpoint_mw,
        .bits = sight.bits | reason_bits(sight.request_valid, stays, demand.reaction, wanted_mw, setpoint_mw),
        .tripped = stays,
        .heartbeat_ok = sight.good && demand.reaction < REACTION_ZERO_SILENT,
    };
    return decision;
}

/* An order acts when it turns from 0 to 1. */
/*@ assigns \nothing;
    ensures \result != 0 <==> (now != 0 && before == 0);
 */
static int rising(uint32_t now, uint32_t before)
{
    return now != 0 && before == 0;
}

/* ---------------------------------------------------------------- what the loop calls */

/*@ requires \valid(state);
    assigns *state;
    ensures S15: state->tripped == 1 && state->last_setpoint_mw == 0 && sound(state);
 */
void gate_init(gate_state_t *state)
{
    int32_t i;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX;
        loop invariant \forall integer k; 0 <= k < i ==> idle(&state->rows[k]);
        loop assigns i, state->rows[0 .. GATE_FAULTS_MAX - 1];
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        state->rows[i].bucket_us = 0;
        state->rows[i].active = 0;
        state->rows[i].latched = 0;
        state->rows[i].flaps = 0;
        state->rows[i].pad = 0;
    }
    state->last_setpoint_mw = 0;
    state->tripped = 1;
    state->first_fault = -1;
    state->busy = 0;
    state->forget_us = 0;
    state->open_wait_us = 0;
    state->last_arm = 0;
    state->last_ack = 0;
    state->proof = 0;
}

/*@ requires \valid(state);
    assigns state->rows[0 .. GATE_FAULTS_MAX - 1].latched, state->busy, state->tripped;
    ensures S20: state->tripped == 1 && state->busy == 1 && sound(state);
    ensures S20: \forall integer k; 0 <= k < GATE_FAULTS_MAX && \old(state->rows[k].latched) != 0 ==>
      state->rows[k].latched != 0;
 */
void gate_restore(gate_state_t *state, uint64_t latched)
{
    int32_t i;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX;
        loop invariant \forall integer k; 0 <= k < GATE_FAULTS_MAX && \at(state->rows[k].latched, LoopEntry) != 0 ==>
          state->rows[k].latched != 0;
        loop assigns i, state->rows[0 .. GATE_FAULTS_MAX - 1].latched;
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++)
        if ((latched >> i) & 1)
            state->rows[i].latched = 1;
    state->busy = 1;
    state->tripped = 1;
}

/*@ requires \valid_read(limits) && \valid_read(faults + (0 .. GATE_FAULTS_MAX - 1)) && \valid_read(input);
    requires \valid(state) && \valid(verdict);
    requires \separated(state, verdict, limits, input, faults + (0 .. GATE_FAULTS_MAX - 1));
    requires sound(state);
    assigns *state, *verdict;
    ensures sound(state);
    ensures S1: verdict->envelope_lo_w <= verdict->setpoint_w <= verdict->envelope_hi_w;
    ensures S1: verdict->envelope_lo_w <= 0 <= verdict->envelope_hi_w;
    ensures S2: discharge_inside{Pre}(verdict->envelope_hi_w, limits, input);
    ensures S2: charge_inside{Pre}(-verdict->envelope_lo_w, limits, input);
    ensures S5: !has(\old(input->valid), VALID_REQUEST) ==> verdict->setpoint_w == 0;
    ensures S5: \old(input->request_w) >= 0 ==> verdict->setpoint_w <= \old(input->request_w);
    ensures S5: \old(input->request_w) <= 0 ==> \old(input->request_w) <= verdict->setpoint_w;
    ensures S8: positive(state->last_setpoint_mw) <= positive(\old(state->last_setpoint_mw))
      + thousandths(positive(\old(limits->ramp_go_w_per_s)), ramp_dt(\old(input->dt_us)));
    ensures S8: positive(-state->last_setpoint_mw) <= positive(-\old(state->last_setpoint_mw))
      + thousandths(positive(\old(limits->ramp_go_w_per_s)), ramp_dt(\old(input->dt_us)));
    ensures S8: verdict->setpoint_w * 1000 <= positive(state->last_setpoint_mw)
      && -verdict->setpoint_w * 1000 <= positive(-state->last_setpoint_mw);
    ensures S9: has(\old(input->valid), VALID_REQUEST) && state->tripped == 0 && verdict->reaction < REACTION_RAMP_ZERO
      && 0 <= \old(input->request_w) * 1000 <= \old(state->last_setpoint_mw)
      ==> verdict->setpoint_w == low(\old(input->request_w), verdict->envelope_hi_w);
    ensures S9: has(\old(input->valid), VALID_REQUEST) && state->tripped == 0 && verdict->reaction < REACTION_RAMP_ZERO
      && \old(state->last_setpoint_mw) <= \old(input->request_w) * 1000 <= 0
      ==> -verdict->setpoint_w == low(-\old(input->request_w), -verdict->envelope_lo_w);
    ensures S9: verdict->reaction >= REACTION_RAMP_ZERO ==>
      positive(state->last_setpoint_mw) <= positive(\old(state->last_setpoint_mw))
      && positive(-state->last_setpoint_mw) <= positive(-\old(state->last_setpoint_mw));
    ensures S11: \forall integer k; 0 <= k < GATE_FAULTS_MAX && (state->rows[k].active != 0 || state->rows[k].latched != 0)
      ==> verdict->reaction >= severity(faults[k].reaction);
    ensures S12: verdict->reaction >= REACTION_ZERO ==> verdict->setpoint_w == 0;
    ensures S13: \forall integer k; 0 <= k < GATE_FAULTS_MAX && (\old(input->ack) == 0 || \old(state->last_ack) != 0)
      && severity(faults[k].reaction) != REACTION_NONE && \old(state->rows[k].latched) != 0 ==> state->rows[k].latched != 0;
    ensures S14: \forall integer k; 0 <= k < GATE_FAULTS_MAX && state->rows[k].latched != 0
      && severity(faults[k].reaction) > REACTION_DERATE ==> state->tripped != 0;
    ensures S14: state->tripped != 0 ==> verdict->setpoint_w == 0 && state->last_setpoint_mw == 0;
    ensures S15: \old(state->tripped) != 0 && state->tripped == 0 ==>
      \old(input->arm) != 0 && \old(state->last_arm) == 0 && has(\old(input->valid), VALID_REQUEST)
      && charge_rests{Pre}(input) && discharge_rests{Pre}(input) && verdict->reaction <= REACTION_DERATE;
    ensures S15: \old(state->tripped) != 0 && state->tripped == 0 ==>
      \forall integer k; 0 <= k < GATE_FAULTS_MAX ==> state->rows[k].latched == 0;
    ensures S16: verdict->heartbeat_ok != 0 ==>
      charge_rests{Pre}(input) && discharge_rests{Pre}(input) && verdict->reaction < REACTION_ZERO_SILENT;
    ensures S17: verdict->contactor_open != 0 ==> verdict->reaction == REACTION_OPEN && verdict->setpoint_w == 0;
    ensures verdict->tripped == state->tripped;
    ensures state->last_arm == \old(input->arm) && state->last_ack == \old(input->ack);
 */
void gate_step(const gate_limits_t *limits, const gate_fault_row_t faults[GATE_FAULTS_MAX], const gate_input_t *input,
               gate_state_t *state, gate_verdict_t *verdict)
{
    const sight_t sight = seen(limits, input);
    const int32_t dt_us = (int32_t)within(input->dt_us, 0, GATE_DT_US_MAX);
    const int32_t ramp_dt_us = (int32_t)within(input->dt_us, 0, GATE_RAMP_DT_US_MAX);
    const int64_t last_mw = within(state->last_setpoint_mw, (int64_t)INT32_MIN * 1000, -(int64_t)INT32_MIN * 1000);
    const int armed = rising(input->arm, state->last_arm), ack = rising(input->ack, state->last_ack);
    demand_t demand;
    decision_t decision;
    int open;

    //@ assert ramp_dt_us == ramp_dt(input->dt_us);
    //@ assert positive(last_mw) <= positive(state->last_setpoint_mw);
    //@ assert positive(-last_mw) <= positive(-state->last_setpoint_mw);
    forget_flaps(state, dt_us);
    /*@ assert \forall integer k; 0 <= k < GATE_FAULTS_MAX ==>
          state->rows[k].latched == \at(state->rows[k].latched, Pre); */
    demand = faults_step(faults, input->faults, ack, dt_us, state);
    decision = decided(sight, demand, state->tripped, armed, last_mw, ramp_dt_us);
    /*@ assert S13: \forall integer k; 0 <= k < GATE_FAULTS_MAX && ack == 0 && severity(faults[k].reaction) != REACTION_NONE
          && \at(state->rows[k].latched, Pre) != 0 ==> state->rows[k].latched != 0; */
    //@ assert sight.go_w_per_s == \at(limits->ramp_go_w_per_s, Pre) && ramp_dt_us == ramp_dt(\at(input->dt_us, Pre));
    /*@ assert positive(decision.setpoint_mw) <= positive(last_mw) + thousandths(positive(sight.go_w_per_s), ramp_dt_us)
          && positive(-decision.setpoint_mw) <= positive(-last_mw) + thousandths(positive(sight.go_w_per_s), ramp_dt_us); */
    /*@ assert S8: positive(decision.setpoint_mw) <= positive(\at(state->last_setpoint_mw, Pre))
          + thousandths(positive(\at(limits->ramp_go_w_per_s, Pre)), ramp_dt(\at(input->dt_us, Pre))); */
    /*@ assert S8: positive(-decision.setpoint_mw) <= positive(-\at(state->last_setpoint_mw, Pre))
          + thousandths(positive(\at(limits->ramp_go_w_per_s, Pre)), ramp_dt(\at(input->dt_us, Pre))); */
    /*@ assert S9: has(\at(input->valid, Pre), VALID_REQUEST) && decision.tripped == 0 && demand.reaction < REACTION_RAMP_ZERO
          && \at(state->last_setpoint_mw, Pre) <= \at(input->request_w, Pre) * 1000 <= 0
          ==> -decision.setpoint_w == low(-\at(input->request_w, Pre), -decision.lo_w); */
    open = contactor_request(input, demand.reaction, dt_us, state);

    state->last_setpoint_mw = decision.setpoint_mw;
    state->tripped = decision.tripped;
    state->first_fault = first_fault_of(state->first_fault, demand, decision.tripped);
    state->last_arm = input->arm;
    state->last_ack = input->ack;
    state->proof++;

    verdict->setpoint_w = decision.setpoint_w;
    verdict->envelope_lo_w = decision.lo_w;
    verdict->envelope_hi_w = decision.hi_w;
    verdict->limit_bits = decision.bits;
    verdict->reaction = demand.reaction;
    verdict->heartbeat_ok = decision.heartbeat_ok;
    verdict->contactor_open = open;
    verdict->tripped = decision.tripped;
    verdict->first_fault = state->first_fault;
    verdict->active = demand.active;
    verdict->latched = demand.latched;
    verdict->proof = state->proof;
}
