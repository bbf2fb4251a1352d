/* ext/safety.c: the last word on every setpoint.
 *
 * The comments that begin with an at-sign are contracts; `make prove` proves them for every input (docs/safety.md says
 * in plain words what that covers). Signs: + discharge, so the envelope runs from -charge to +discharge.
 */
#include "safety.h"

_Static_assert(REACTION_NONE < REACTION_WARN && REACTION_WARN < REACTION_DERATE && REACTION_DERATE < REACTION_RAMP_ZERO
                   && REACTION_RAMP_ZERO < REACTION_ZERO && REACTION_ZERO < REACTION_ZERO_SILENT
                   && REACTION_ZERO_SILENT < REACTION_OPEN,
               "the lattice is ordered by number");
_Static_assert(GATE_RAMP_DT_US_MAX <= GATE_DT_US_MAX, "a ramp never sees a longer cycle than the clocks do");
_Static_assert(GATE_TIME_US_MAX + GATE_DT_US_MAX <= INT32_MAX, "a bucket plus one cycle fits its integer");
_Static_assert(GATE_FORGET_US + GATE_DT_US_MAX <= INT32_MAX, "so does the flap clock");
_Static_assert(GATE_FAULTS_MAX == 64, "one bit a row in a 64-bit word");

/*@ axiomatic words {
      predicate has(integer word, integer bit) = (word & bit) != 0;
    }
    logic integer low(integer a, integer b) = a < b ? a : b;
    logic integer positive(integer a) = a > 0 ? a : 0;
    logic integer severity(integer reaction) =
      0 <= reaction <= REACTION_OPEN ? reaction : REACTION_OPEN;
    predicate idle(gate_row_t *row) = row->bucket_us == 0 && row->active == 0 && row->latched == 0;
    predicate sound(gate_state_t *state) =
      state->busy == 0 ==> (\forall integer k; 0 <= k < GATE_FAULTS_MAX ==> idle(&state->rows[k]));
 */

/* ---------------------------------------------------------------- small arithmetic */

/*@ requires low_end <= high_end;
    assigns \nothing;
    ensures low_end <= \result <= high_end;
    ensures low_end <= x <= high_end ==> \result == x;
    ensures x < low_end ==> \result == low_end;
    ensures x > high_end ==> \result == high_end;
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
static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Volt times ampere, rounded towards zero; nothing from a negative factor. */
/*@ assigns \nothing;
    ensures 0 <= \result;
    ensures mv <= 0 || ma <= 0 ==> \result == 0;
    ensures mv > 0 && ma > 0 ==> \result * 1000000 <= mv * ma;
 */
static int32_t power_w(int32_t mv, int32_t ma)
{
    int64_t w;
    if (mv <= 0 || ma <= 0)
        return 0;
    w = (int64_t)mv * ma / 1000000;
    return w > INT32_MAX ? INT32_MAX : (int32_t)w;
}

/* All of w while there is room, a linear share inside the last `width` before the limit, nothing at it or beyond. */
/*@ requires -0x1FFFFFFFF <= room <= 0x1FFFFFFFF;
    assigns \nothing;
    ensures 0 <= \result <= positive(w);
    ensures room <= 0 ==> \result == 0;
    ensures room >= width && room > 0 ==> \result == positive(w);
 */
static int32_t taper_w(int32_t w, int64_t room, int32_t width)
{
    int64_t share;
    if (w <= 0 || room <= 0)
        return 0;
    if (room >= width)
        return w;
    share = (int64_t)w * room / width;
    //@ assert w * room <= w * width;
    //@ assert 0 <= share <= w;
    return (int32_t)share;
}

/* The share of a power that a derating leaves, towards zero. */
/*@ requires 0 <= permille <= 1000;
    assigns \nothing;
    ensures w >= 0 ==> 0 <= \result <= w;
    ensures w <= 0 ==> w <= \result <= 0;
    ensures permille == 1000 ==> \result == w;
    ensures permille == 0 ==> \result == 0;
 */
static int32_t derated_w(int32_t w, int32_t permille)
{
    int64_t share = (int64_t)w * permille / 1000;
    //@ assert w >= 0 ==> w * permille <= w * 1000;
    //@ assert w <= 0 ==> w * permille >= w * 1000;
    //@ assert w >= 0 ==> 0 <= share <= w;
    //@ assert w <= 0 ==> w <= share <= 0;
    return (int32_t)share;
}

/* ---------------------------------------------------------------- the envelope */

/* One direction of the envelope while its limits are applied one after the other. */
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
    ensures \result == 1 <==> (has(input->required, bit) && !has(input->valid, bit));
    ensures \result == 0 || \result == 1;
 */
static int missing(const gate_input_t *input, uint32_t bit)
{
    return (input->required & bit) != 0 && (input->valid & bit) == 0;
}

/* Whether one direction rests on enough: SoC, a power or current limit of its own, and all that the map promises. */
/*@ requires \valid_read(input);
    assigns \nothing;
    ensures \result == 0 || \result == 1;
    ensures \result == 1 ==> has(input->valid, VALID_SOC) && 0 <= input->soc_cpct <= GATE_SOC_CPCT_MAX;
    ensures \result == 1 ==>
      has(input->valid, w_bit) || (has(input->valid, VALID_PACK_V) && has(input->valid, ma_bit));
    ensures \result == 1 ==> (has(input->required, VALID_PACK_V) ==> has(input->valid, VALID_PACK_V));
    ensures \result == 1 ==> (has(input->required, VALID_TEMP_MAX) ==> has(input->valid, VALID_TEMP_MAX));
    ensures \result == 1 ==> (has(input->required, VALID_TEMP_MIN) ==> has(input->valid, VALID_TEMP_MIN));
    ensures \result == 1 ==> (has(input->required, VALID_ESS_W) ==> has(input->valid, VALID_ESS_W));
    ensures \result == 1 ==> (has(input->required, ma_bit) ==> has(input->valid, ma_bit));
    ensures \result == 1 ==> (has(input->required, w_bit) ==> has(input->valid, w_bit));
    ensures \result == 1 ==> (has(input->required, cell_bit) ==> has(input->valid, cell_bit));
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

/* What temperature leaves of a nameplate power: nothing outside the window, a share near its edges. */
/*@ requires \valid_read(limits) && \valid_read(input);
    assigns \nothing;
    ensures 0 <= \result <= positive(w);
    ensures has(input->valid, VALID_TEMP_MAX) && input->temp_max_ddegc >= limits->temp_max_ddegc ==> \result == 0;
    ensures has(input->valid, VALID_TEMP_MIN) && input->temp_min_ddegc <= limits->temp_min_ddegc ==> \result == 0;
 */
static int32_t temp_w(const gate_limits_t *limits, const gate_input_t *input, int32_t w)
{
    int32_t hot_w = w > 0 ? w : 0, cold_w = hot_w;
    if (valid(input, VALID_TEMP_MAX))
        hot_w = taper_w(w, (int64_t)limits->temp_max_ddegc - input->temp_max_ddegc, limits->temp_taper_ddegc);
    if (valid(input, VALID_TEMP_MIN))
        cold_w = taper_w(w, (int64_t)input->temp_min_ddegc - limits->temp_min_ddegc, limits->temp_taper_ddegc);
    return least(hot_w, cold_w);
}

/* Discharge: everything that ends at a low SoC or a low cell. */
/*@ requires \valid_read(limits) && \valid_read(input);
    assigns \nothing;
    ensures 0 <= \result.w <= positive(limits->discharge_w_max);
    ensures !has(input->valid, VALID_SOC) ==> \result.w == 0;
    ensures input->soc_cpct <= limits->soc_min_cpct ==> \result.w == 0;
    ensures input->discharge_ok == 0 ==> \result.w == 0;
    ensures has(input->valid, VALID_PACK_V) && has(input->valid, VALID_DISCHARGE_MA) ==>
      \result.w * 1000000 <= positive(input->pack_mv) * positive(input->discharge_ma_max);
    ensures has(input->valid, VALID_PACK_V) ==>
      \result.w * 1000000 <= positive(input->pack_mv) * positive(limits->discharge_ma_max);
    ensures has(input->valid, VALID_DISCHARGE_W) ==> \result.w <= positive(input->discharge_w_max);
    ensures !has(input->valid, VALID_DISCHARGE_W)
      && !(has(input->valid, VALID_PACK_V) && has(input->valid, VALID_DISCHARGE_MA)) ==> \result.w == 0;
    ensures has(input->valid, VALID_TEMP_MAX) && input->temp_max_ddegc >= limits->temp_max_ddegc ==> \result.w == 0;
    ensures has(input->valid, VALID_TEMP_MIN) && input->temp_min_ddegc <= limits->temp_min_ddegc ==> \result.w == 0;
    ensures limits->cell_mv_min > 0 && has(input->valid, VALID_CELL_MIN)
      && input->cell_mv_min <= limits->cell_mv_min ==> \result.w == 0;
    ensures \result.w > 0 ==> (has(input->required, VALID_PACK_V) ==> has(input->valid, VALID_PACK_V));
    ensures \result.w > 0 ==> (has(input->required, VALID_TEMP_MAX) ==> has(input->valid, VALID_TEMP_MAX));
    ensures \result.w > 0 ==> (has(input->required, VALID_TEMP_MIN) ==> has(input->valid, VALID_TEMP_MIN));
    ensures \result.w > 0 ==> (has(input->required, VALID_ESS_W) ==> has(input->valid, VALID_ESS_W));
    ensures \result.w > 0 ==> (has(input->required, VALID_DISCHARGE_MA) ==> has(input->valid, VALID_DISCHARGE_MA));
    ensures \result.w > 0 ==> (has(input->required, VALID_DISCHARGE_W) ==> has(input->valid, VALID_DISCHARGE_W));
    ensures \result.w > 0 ==> (has(input->required, VALID_CELL_MIN) ==> has(input->valid, VALID_CELL_MIN));
 */
static side_t discharge_side(const gate_limits_t *limits, const gate_input_t *input)
{
    const int32_t nameplate_w = limits->discharge_w_max > 0 ? limits->discharge_w_max : 0;
    side_t side = {nameplate_w, 0};
    if (valid(input, VALID_PACK_V)) {
        side = narrowed(side, power_w(input->pack_mv, limits->discharge_ma_max), LIMIT_CURRENT);
        if (valid(input, VALID_DISCHARGE_MA))
            side = narrowed(side, power_w(input->pack_mv, input->discharge_ma_max), LIMIT_CURRENT);
    }
    if (valid(input, VALID_DISCHARGE_W))
        side = narrowed(side, input->discharge_w_max, LIMIT_POWER);
    side = narrowed(side, taper_w(nameplate_w, (int64_t)input->soc_cpct - limits->soc_min_cpct, limits->soc_taper_cpct),
                    LIMIT_SOC);
    side = narrowed(side, temp_w(limits, input, nameplate_w), LIMIT_TEMP);
    if (limits->cell_mv_min > 0 && valid(input, VALID_CELL_MIN))
        side = narrowed(side, taper_w(nameplate_w, (int64_t)input->cell_mv_min - limits->cell_mv_min, limits->cell_taper_mv),
                        LIMIT_CELL);
    if (input->discharge_ok == 0)
        side = narrowed(side, 0, LIMIT_ENABLE);
    if (!known(input, VALID_DISCHARGE_MA, VALID_DISCHARGE_W, VALID_CELL_MIN))
        side = narrowed(side, 0, LIMIT_INVALID);
    return side;
}

/* Charge: the mirror, ending at a high SoC or a high cell. */
/*@ requires \valid_read(limits) && \valid_read(input);
    assigns \nothing;
    ensures 0 <= \result.w <= positive(limits->charge_w_max);
    ensures !has(input->valid, VALID_SOC) ==> \result.w == 0;
    ensures input->soc_cpct >= limits->soc_max_cpct ==> \result.w == 0;
    ensures input->charge_ok == 0 ==> \result.w == 0;
    ensures has(input->valid, VALID_PACK_V) && has(input->valid, VALID_CHARGE_MA) ==>
      \result.w * 1000000 <= positive(input->pack_mv) * positive(input->charge_ma_max);
    ensures has(input->valid, VALID_PACK_V) ==>
      \result.w * 1000000 <= positive(input->pack_mv) * positive(limits->charge_ma_max);
    ensures has(input->valid, VALID_CHARGE_W) ==> \result.w <= positive(input->charge_w_max);
    ensures !has(input->valid, VALID_CHARGE_W)
      && !(has(input->valid, VALID_PACK_V) && has(input->valid, VALID_CHARGE_MA)) ==> \result.w == 0;
    ensures has(input->valid, VALID_TEMP_MAX) && input->temp_max_ddegc >= limits->temp_max_ddegc ==> \result.w == 0;
    ensures has(input->valid, VALID_TEMP_MIN) && input->temp_min_ddegc <= limits->temp_min_ddegc ==> \result.w == 0;
    ensures limits->cell_mv_max > 0 && has(input->valid, VALID_CELL_MAX)
      && input->cell_mv_max >= limits->cell_mv_max ==> \result.w == 0;
    ensures \result.w > 0 ==> (has(input->required, VALID_PACK_V) ==> has(input->valid, VALID_PACK_V));
    ensures \result.w > 0 ==> (has(input->required, VALID_TEMP_MAX) ==> has(input->valid, VALID_TEMP_MAX));
    ensures \result.w > 0 ==> (has(input->required, VALID_TEMP_MIN) ==> has(input->valid, VALID_TEMP_MIN));
    ensures \result.w > 0 ==> (has(input->required, VALID_ESS_W) ==> has(input->valid, VALID_ESS_W));
    ensures \result.w > 0 ==> (has(input->required, VALID_CHARGE_MA) ==> has(input->valid, VALID_CHARGE_MA));
    ensures \result.w > 0 ==> (has(input->required, VALID_CHARGE_W) ==> has(input->valid, VALID_CHARGE_W));
    ensures \result.w > 0 ==> (has(input->required, VALID_CELL_MAX) ==> has(input->valid, VALID_CELL_MAX));
 */
static side_t charge_side(const gate_limits_t *limits, const gate_input_t *input)
{
    const int32_t nameplate_w = limits->charge_w_max > 0 ? limits->charge_w_max : 0;
    side_t side = {nameplate_w, 0};
    if (valid(input, VALID_PACK_V)) {
        side = narrowed(side, power_w(input->pack_mv, limits->charge_ma_max), LIMIT_CURRENT);
        if (valid(input, VALID_CHARGE_MA))
            side = narrowed(side, power_w(input->pack_mv, input->charge_ma_max), LIMIT_CURRENT);
    }
    if (valid(input, VALID_CHARGE_W))
        side = narrowed(side, input->charge_w_max, LIMIT_POWER);
    side = narrowed(side, taper_w(nameplate_w, (int64_t)limits->soc_max_cpct - input->soc_cpct, limits->soc_taper_cpct),
                    LIMIT_SOC);
    side = narrowed(side, temp_w(limits, input, nameplate_w), LIMIT_TEMP);
    if (limits->cell_mv_max > 0 && valid(input, VALID_CELL_MAX))
        side = narrowed(side, taper_w(nameplate_w, (int64_t)limits->cell_mv_max - input->cell_mv_max, limits->cell_taper_mv),
                        LIMIT_CELL);
    if (input->charge_ok == 0)
        side = narrowed(side, 0, LIMIT_ENABLE);
    if (!known(input, VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX))
        side = narrowed(side, 0, LIMIT_INVALID);
    return side;
}

/*@ requires \valid_read(limits) && \valid_read(input) && \valid(lo_w) && \valid(hi_w) && \valid(bits);
    requires \separated(lo_w, hi_w, bits, limits, input);
    assigns *lo_w, *hi_w, *bits;
    ensures -positive(limits->charge_w_max) <= *lo_w <= 0 <= *hi_w <= positive(limits->discharge_w_max);
    ensures !has(input->valid, VALID_SOC) ==> *lo_w == 0 && *hi_w == 0;
    ensures input->soc_cpct <= limits->soc_min_cpct ==> *hi_w == 0;
    ensures input->soc_cpct >= limits->soc_max_cpct ==> *lo_w == 0;
    ensures input->discharge_ok == 0 ==> *hi_w == 0;
    ensures input->charge_ok == 0 ==> *lo_w == 0;
    ensures has(input->valid, VALID_PACK_V) && has(input->valid, VALID_DISCHARGE_MA) ==>
      *hi_w * 1000000 <= positive(input->pack_mv) * positive(input->discharge_ma_max);
    ensures has(input->valid, VALID_PACK_V) && has(input->valid, VALID_CHARGE_MA) ==>
      -*lo_w * 1000000 <= positive(input->pack_mv) * positive(input->charge_ma_max);
    ensures has(input->valid, VALID_DISCHARGE_W) ==> *hi_w <= positive(input->discharge_w_max);
    ensures has(input->valid, VALID_CHARGE_W) ==> -*lo_w <= positive(input->charge_w_max);
    ensures !has(input->valid, VALID_DISCHARGE_W)
      && !(has(input->valid, VALID_PACK_V) && has(input->valid, VALID_DISCHARGE_MA)) ==> *hi_w == 0;
    ensures !has(input->valid, VALID_CHARGE_W)
      && !(has(input->valid, VALID_PACK_V) && has(input->valid, VALID_CHARGE_MA)) ==> *lo_w == 0;
    ensures has(input->valid, VALID_TEMP_MAX) && input->temp_max_ddegc >= limits->temp_max_ddegc ==>
      *lo_w == 0 && *hi_w == 0;
    ensures has(input->valid, VALID_TEMP_MIN) && input->temp_min_ddegc <= limits->temp_min_ddegc ==>
      *lo_w == 0 && *hi_w == 0;
 */
void gate_envelope(const gate_limits_t *limits, const gate_input_t *input, int32_t *lo_w, int32_t *hi_w, uint32_t *bits)
{
    const side_t charge = charge_side(limits, input), discharge = discharge_side(limits, input);
    *lo_w = -charge.w;
    *hi_w = discharge.w;
    *bits = charge.bits | discharge.bits;
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
    ensures 0 <= \result <= GATE_TIME_US_MAX;
    ensures 0 <= ms && ms * 1000 <= GATE_TIME_US_MAX ==> \result == ms * 1000;
    ensures ms <= 0 ==> \result == 0;
 */
static int32_t time_us(int32_t ms)
{
    return (int32_t)within((int64_t)ms * 1000, 0, GATE_TIME_US_MAX);
}

/* The clear time grows with each activation that is not yet forgotten: twice, four times, up to 64 times. */
/*@ requires 0 <= flaps <= GATE_FLAPS_MAX;
    assigns \nothing;
    ensures 0 <= \result <= GATE_TIME_US_MAX;
    ensures \result >= clear_us || \result == GATE_TIME_US_MAX;
 */
static int32_t held_off_us(int32_t clear_us, int32_t flaps)
{
    int64_t held_us = clear_us;
    int32_t n;
    /*@ loop invariant 0 <= n <= flaps;
        loop invariant clear_us >= 0 ==> clear_us <= held_us || held_us == GATE_TIME_US_MAX;
        loop invariant clear_us >= 0 ==> 0 <= held_us <= INT32_MAX;
        loop invariant clear_us < 0 ==> 0 <= held_us <= INT32_MAX || held_us == clear_us;
        loop assigns n, held_us;
        loop variant flaps - n;
     */
    for (n = 0; n < flaps; n++)
        held_us = within(held_us * 2, 0, GATE_TIME_US_MAX);
    return (int32_t)within(held_us, 0, GATE_TIME_US_MAX);
}

/* One fault row in one cycle: leaky bucket in, clear time out, latch, flap count. */
/*@ requires \valid_read(row) && \valid(memory) && \separated(row, memory);
    requires 0 <= dt_us <= GATE_DT_US_MAX;
    assigns *memory;
    ensures severity(row->reaction) == REACTION_NONE ==> idle(memory);
    ensures severity(row->reaction) != REACTION_NONE && \old(memory->latched) != 0 && ack == 0 ==> memory->latched != 0;
    ensures severity(row->reaction) != REACTION_NONE && \old(memory->latched) != 0 && memory->active != 0
      ==> memory->latched != 0;
    ensures severity(row->reaction) != REACTION_NONE && present != 0 && \old(memory->active) != 0 ==> memory->active != 0;
    ensures severity(row->reaction) != REACTION_NONE && present != 0 && row->debounce_ms <= 0 ==> memory->active != 0;
    ensures row->latched != 0 && \old(memory->active) == 0 && memory->active != 0 ==> memory->latched != 0;
    ensures present == 0 && \old(memory->active) == 0 ==> memory->active == 0;
 */
static void row_step(const gate_fault_row_t *row, int present, int ack, int32_t dt_us, gate_row_t *memory)
{
    const int32_t debounce_us = time_us(row->debounce_ms);
    int64_t bucket_us = memory->bucket_us;
    if (severity_of(row->reaction) == REACTION_NONE) {
        memory->bucket_us = 0;
        memory->active = 0;
        memory->latched = 0;
        memory->flaps = 0;
        return;
    }
    if (memory->active == 0) {
        bucket_us = within(bucket_us + (present ? dt_us : -(dt_us / 2)), 0, debounce_us);
        if (present && bucket_us >= debounce_us) {
            memory->active = 1;
            if (memory->flaps < GATE_FLAPS_MAX)
                memory->flaps++;
            if (row->latched || (row->flap_max > 0 && memory->flaps >= row->flap_max))
                memory->latched = 1;
        }
    } else if (!present) {
        bucket_us -= dt_us;
        if (bucket_us <= 0) {
            bucket_us = 0;
            memory->active = 0;
        }
    }
    if (memory->active && present)
        bucket_us = held_off_us(time_us(row->clear_ms), row->flap_max > 0 && memory->flaps > 1 ? least(memory->flaps, GATE_FLAPS_MAX) - 1 : 0);
    memory->bucket_us = (int32_t)within(bucket_us, 0, GATE_TIME_US_MAX);
    if (ack && !memory->active && memory->latched) {
        memory->latched = 0;
        memory->flaps = 0;
    }
}

/* What all rows together ask for. */
typedef struct {
    int32_t reaction;
    int32_t cause;           /* row that asks for it, -1 none */
    int32_t derate_permille;
    int32_t latches;         /* rows latched */
    int32_t trips;           /* rows latched that ask for more than a derating */
    uint64_t active, latched;
} demand_t;

/*@ requires \valid_read(faults + (0 .. GATE_FAULTS_MAX - 1)) && \valid(state);
    requires \separated(faults + (0 .. GATE_FAULTS_MAX - 1), state);
    requires 0 <= dt_us <= GATE_DT_US_MAX;
    assigns state->rows[0 .. GATE_FAULTS_MAX - 1], state->busy;
    ensures 0 <= \result.reaction <= REACTION_OPEN;
    ensures 0 <= \result.derate_permille <= 1000;
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && (state->rows[k].active != 0 || state->rows[k].latched != 0)
      ==> \result.reaction >= severity(faults[k].reaction);
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && state->rows[k].latched != 0 ==> \result.latches == 1;
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && state->rows[k].latched != 0
      && severity(faults[k].reaction) > REACTION_DERATE ==> \result.trips == 1;
    ensures sound(state);
 */
static demand_t rows_step(const gate_fault_row_t faults[GATE_FAULTS_MAX], uint64_t present, int ack, int32_t dt_us,
                      gate_state_t *state)
{
    int32_t i;
    demand_t demand = {REACTION_NONE, -1, 1000, 0, 0, 0, 0};
    int32_t busy = 0;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX;
        loop invariant 0 <= demand.reaction <= REACTION_OPEN;
        loop invariant 0 <= demand.derate_permille <= 1000;
        loop invariant \forall integer k; 0 <= k < i && (state->rows[k].active != 0 || state->rows[k].latched != 0)
          ==> demand.reaction >= severity(faults[k].reaction);
        loop invariant \forall integer k; 0 <= k < i && state->rows[k].latched != 0 ==> demand.latches == 1;
        loop invariant \forall integer k; 0 <= k < i && state->rows[k].latched != 0
          && severity(faults[k].reaction) > REACTION_DERATE ==> demand.trips == 1;
        loop invariant \forall integer k; 0 <= k < i && !idle(&state->rows[k]) ==> busy == 1;
        loop assigns i, state->rows[0 .. GATE_FAULTS_MAX - 1], busy, demand;
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        const gate_fault_row_t *row = &faults[i];
        gate_row_t *memory = &state->rows[i];
        const int present_here = (present >> i) & 1;
        int32_t severe;
        if (!present_here && memory->bucket_us == 0 && !memory->active && !memory->latched)
            continue;
        row_step(row, present_here, ack, dt_us, memory);
        if (memory->bucket_us != 0 || memory->active || memory->latched)
            busy = 1;
        if (!memory->active && !memory->latched)
            continue;
        severe = severity_of(row->reaction);
        if (severe > demand.reaction) {
            demand.reaction = severe;
            demand.cause = i;
        }
        if (severe == REACTION_DERATE)
            demand.derate_permille = least(
                demand.derate_permille,
                row->derate_permille < 0 || row->derate_permille > 1000 ? 0 : row->derate_permille);
        if (memory->latched) {
            demand.latches = 1;
            if (severe > REACTION_DERATE)
                demand.trips = 1;
        }
        demand.active |= (uint64_t)(memory->active != 0) << i;
        demand.latched |= (uint64_t)(memory->latched != 0) << i;
    }
    state->busy = busy;
    return demand;
}

/* Every ten minutes each row forgets one activation. */
/*@ requires \valid(state) && 0 <= dt_us <= GATE_DT_US_MAX;
    assigns state->forget_us, state->rows[0 .. GATE_FAULTS_MAX - 1].flaps;
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

/* ---------------------------------------------------------------- the setpoint */

/* Away from zero by at most step; towards zero at once; a change of side starts at zero. */
/*@ requires -0x1FFFFFFFFFFF <= wanted_mw <= 0x1FFFFFFFFFFF && -0x1FFFFFFFFFFF <= last_mw <= 0x1FFFFFFFFFFF;
    requires 0 <= step_mw <= 0x1FFFFFFFFFFF;
    assigns \nothing;
    ensures wanted_mw >= 0 ==> 0 <= \result <= wanted_mw;
    ensures wanted_mw <= 0 ==> wanted_mw <= \result <= 0;
    ensures wanted_mw >= 0 ==> \result <= positive(last_mw) + step_mw;
    ensures wanted_mw <= 0 ==> -\result <= positive(-last_mw) + step_mw;
    ensures 0 <= wanted_mw <= last_mw ==> \result == wanted_mw;
    ensures last_mw <= wanted_mw <= 0 ==> \result == wanted_mw;
 */
static int64_t ramped_mw(int64_t wanted_mw, int64_t last_mw, int64_t step_mw)
{
    if (wanted_mw >= 0)
        return within(wanted_mw, 0, (last_mw > 0 ? last_mw : 0) + step_mw);
    return within(wanted_mw, (last_mw < 0 ? last_mw : 0) - step_mw, 0);
}

/* On the way to zero at the stop rate: never further out than before, never beyond what is wanted. */
/*@ requires -0x1FFFFFFFFFFF <= wanted_mw <= 0x1FFFFFFFFFFF && -0x1FFFFFFFFFFF <= last_mw <= 0x1FFFFFFFFFFF;
    requires 0 <= step_mw <= 0x1FFFFFFFFFFF;
    assigns \nothing;
    ensures last_mw >= 0 ==> 0 <= \result <= positive(last_mw - step_mw) && \result <= positive(wanted_mw);
    ensures last_mw <= 0 ==> -positive(-last_mw - step_mw) <= \result <= 0 && -\result <= positive(-wanted_mw);
 */
static int64_t wound_down_mw(int64_t wanted_mw, int64_t last_mw, int64_t step_mw)
{
    if (last_mw >= 0)
        return within(wanted_mw, 0, last_mw > step_mw ? last_mw - step_mw : 0);
    return within(wanted_mw, -last_mw > step_mw ? last_mw + step_mw : 0, 0);
}

/* Whether both directions rest on enough; what a unit needs to be armed and its devices to hear a heartbeat. */
/*@ requires \valid_read(input);
    assigns \nothing;
    ensures \result == 0 || \result == 1;
    ensures \result == 1 ==> has(input->valid, VALID_SOC) && 0 <= input->soc_cpct <= GATE_SOC_CPCT_MAX;
    ensures \result == 1 ==> (has(input->required, VALID_PACK_V) ==> has(input->valid, VALID_PACK_V));
    ensures \result == 1 ==> (has(input->required, VALID_TEMP_MAX) ==> has(input->valid, VALID_TEMP_MAX));
    ensures \result == 1 ==> (has(input->required, VALID_TEMP_MIN) ==> has(input->valid, VALID_TEMP_MIN));
    ensures \result == 1 ==> (has(input->required, VALID_ESS_W) ==> has(input->valid, VALID_ESS_W));
    ensures \result == 1 ==> (has(input->required, VALID_CHARGE_MA) ==> has(input->valid, VALID_CHARGE_MA));
    ensures \result == 1 ==> (has(input->required, VALID_DISCHARGE_MA) ==> has(input->valid, VALID_DISCHARGE_MA));
    ensures \result == 1 ==> (has(input->required, VALID_CHARGE_W) ==> has(input->valid, VALID_CHARGE_W));
    ensures \result == 1 ==> (has(input->required, VALID_DISCHARGE_W) ==> has(input->valid, VALID_DISCHARGE_W));
    ensures \result == 1 ==> (has(input->required, VALID_CELL_MAX) ==> has(input->valid, VALID_CELL_MAX));
    ensures \result == 1 ==> (has(input->required, VALID_CELL_MIN) ==> has(input->valid, VALID_CELL_MIN));
 */
static int inputs_good(const gate_input_t *input)
{
    return known(input, VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX)
           && known(input, VALID_DISCHARGE_MA, VALID_DISCHARGE_W, VALID_CELL_MIN);
}

/* W per second times microseconds, in mW. */
/*@ requires 0 <= dt_us <= GATE_RAMP_DT_US_MAX;
    assigns \nothing;
    ensures 0 <= \result <= 0x1FFFFFFFFFFF;
    ensures w_per_s <= 0 ==> \result == 0;
    ensures w_per_s > 0 ==> \result * 1000 <= w_per_s * dt_us;
 */
static int64_t ramp_step_mw(int32_t w_per_s, int32_t dt_us)
{
    return w_per_s > 0 ? (int64_t)w_per_s * dt_us / 1000 : 0;
}

/* Contactors may be asked to open once the current is small or the setpoint has been zero for a second. */
/*@ requires \valid_read(input) && \valid(state) && \separated(input, state);
    requires 0 <= dt_us <= GATE_DT_US_MAX && 0 <= reaction <= REACTION_OPEN;
    assigns state->open_wait_us;
    ensures \result == 0 || \result == 1;
    ensures \result == 1 ==> reaction == REACTION_OPEN;
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

/*@ requires \valid(state);
    assigns *state;
    ensures state->tripped == 1;
    ensures state->last_setpoint_mw == 0;
    ensures sound(state);
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
    ensures state->tripped == 1 && state->busy == 1;
 */
void gate_restore(gate_state_t *state, uint64_t latched)
{
    int32_t i;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX;
        loop assigns i, state->rows[0 .. GATE_FAULTS_MAX - 1].latched;
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++)
        if ((latched >> i) & 1)
            state->rows[i].latched = 1;
    state->busy = 1;
    state->tripped = 1;
}

/* The fault rows, where any of them has something to do; nothing present and nothing remembered is the usual case. */
/*@ requires \valid_read(faults + (0 .. GATE_FAULTS_MAX - 1)) && \valid(state);
    requires \separated(faults + (0 .. GATE_FAULTS_MAX - 1), state);
    requires 0 <= dt_us <= GATE_DT_US_MAX && sound(state);
    assigns state->rows[0 .. GATE_FAULTS_MAX - 1], state->busy;
    ensures 0 <= \result.reaction <= REACTION_OPEN;
    ensures 0 <= \result.derate_permille <= 1000;
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && (state->rows[k].active != 0 || state->rows[k].latched != 0)
      ==> \result.reaction >= severity(faults[k].reaction);
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && state->rows[k].latched != 0 ==> \result.latches == 1;
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && state->rows[k].latched != 0
      && severity(faults[k].reaction) > REACTION_DERATE ==> \result.trips == 1;
    ensures sound(state);
 */
static demand_t faults_step(const gate_fault_row_t faults[GATE_FAULTS_MAX], uint64_t present, int ack, int32_t dt_us,
                            gate_state_t *state)
{
    const demand_t quiet = {REACTION_NONE, -1, 1000, 0, 0, 0, 0};
    if (present == 0 && state->busy == 0)
        return quiet;
    return rows_step(faults, present, ack, dt_us, state);
}

/* Latches trip; only an order, with everything good, ends that. */
/*@ requires 0 <= demand.reaction <= REACTION_OPEN;
    assigns \nothing;
    ensures \result == 0 || \result == 1;
    ensures demand.trips != 0 ==> \result == 1;
    ensures tripped != 0 && \result == 0 ==>
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

/* The setpoint: ramp first, envelope last. */
/*@ requires \valid_read(limits);
    requires -INT32_MAX <= lo_w <= 0 <= hi_w <= INT32_MAX;
    requires 0 <= ramp_dt_us <= GATE_RAMP_DT_US_MAX && 0 <= reaction <= REACTION_OPEN;
    requires -0x1FFFFFFFFFFF <= wanted_mw <= 0x1FFFFFFFFFFF && -0x1FFFFFFFFFFF <= last_mw <= 0x1FFFFFFFFFFF;
    assigns \nothing;
    ensures lo_w * 1000 <= \result <= hi_w * 1000;
    ensures may_run == 0 || reaction >= REACTION_ZERO ==> \result == 0;
    ensures reaction < REACTION_RAMP_ZERO && wanted_mw >= 0 ==> 0 <= \result <= wanted_mw;
    ensures reaction < REACTION_RAMP_ZERO && wanted_mw <= 0 ==> wanted_mw <= \result <= 0;
    ensures wanted_mw >= 0 ==> \result * 1000 <= positive(last_mw) * 1000 + positive(limits->ramp_go_w_per_s) * ramp_dt_us;
    ensures wanted_mw <= 0 ==> -\result * 1000 <= positive(-last_mw) * 1000 + positive(limits->ramp_go_w_per_s) * ramp_dt_us;
    ensures may_run != 0 && reaction < REACTION_RAMP_ZERO && 0 <= wanted_mw <= last_mw && wanted_mw <= hi_w * 1000
      ==> \result == wanted_mw;
    ensures may_run != 0 && reaction < REACTION_RAMP_ZERO && last_mw <= wanted_mw <= 0 && lo_w * 1000 <= wanted_mw
      ==> \result == wanted_mw;
    ensures reaction == REACTION_RAMP_ZERO && last_mw >= 0 ==> 0 <= \result <= last_mw;
    ensures reaction == REACTION_RAMP_ZERO && last_mw <= 0 ==> last_mw <= \result <= 0;
 */
static int64_t setpoint_of(const gate_limits_t *limits, int may_run, int32_t reaction, int64_t wanted_mw, int64_t last_mw,
                           int32_t ramp_dt_us, int32_t lo_w, int32_t hi_w)
{
    int64_t ramp_mw;
    if (!may_run || reaction >= REACTION_ZERO)
        return 0;
    if (reaction < REACTION_RAMP_ZERO)
        ramp_mw = ramped_mw(wanted_mw, last_mw, ramp_step_mw(limits->ramp_go_w_per_s, ramp_dt_us));
    else if (limits->ramp_stop_w_per_s > 0)
        ramp_mw = wound_down_mw(wanted_mw, last_mw, ramp_step_mw(limits->ramp_stop_w_per_s, ramp_dt_us));
    else
        ramp_mw = 0;
    return within(ramp_mw, (int64_t)lo_w * 1000, (int64_t)hi_w * 1000);
}

/* What people are told about a setpoint that is not the request. */
/*@ assigns \nothing; */
static uint32_t reason_bits(int request_valid, int32_t tripped, demand_t demand, int64_t wanted_mw, int64_t setpoint_mw)
{
    uint32_t bits = 0;
    if (!request_valid)
        bits |= LIMIT_INVALID;
    if (tripped)
        bits |= LIMIT_TRIPPED;
    if (demand.reaction >= REACTION_DERATE)
        bits |= LIMIT_FAULT;
    if (setpoint_mw != wanted_mw)
        bits |= LIMIT_RAMP;
    return bits;
}

/*@ requires \valid_read(limits) && \valid_read(faults + (0 .. GATE_FAULTS_MAX - 1)) && \valid_read(input);
    requires \valid(state) && \valid(verdict);
    requires \separated(state, verdict, limits, input, faults + (0 .. GATE_FAULTS_MAX - 1));
    requires sound(state);
    assigns *state, *verdict;
    ensures sound(state);
    ensures -positive(limits->charge_w_max) <= verdict->envelope_lo_w <= 0;
    ensures 0 <= verdict->envelope_hi_w <= positive(limits->discharge_w_max);
    ensures verdict->envelope_lo_w <= verdict->setpoint_w <= verdict->envelope_hi_w;
    ensures !has(input->valid, VALID_REQUEST) ==> verdict->setpoint_w == 0;
    ensures !has(input->valid, VALID_SOC) ==> verdict->setpoint_w == 0;
    ensures input->request_w >= 0 && verdict->reaction < REACTION_RAMP_ZERO ==> 0 <= verdict->setpoint_w <= input->request_w;
    ensures input->request_w <= 0 && verdict->reaction < REACTION_RAMP_ZERO ==> input->request_w <= verdict->setpoint_w <= 0;
    ensures verdict->reaction >= REACTION_ZERO ==> verdict->setpoint_w == 0;
    ensures state->tripped != 0 ==> verdict->setpoint_w == 0;
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && (state->rows[k].active != 0 || state->rows[k].latched != 0)
      ==> verdict->reaction >= severity(faults[k].reaction);
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX && state->rows[k].latched != 0
      && severity(faults[k].reaction) > REACTION_DERATE ==> state->tripped != 0;
    ensures verdict->heartbeat_ok != 0 ==> verdict->reaction < REACTION_ZERO_SILENT;
    ensures verdict->heartbeat_ok != 0 ==> has(input->valid, VALID_SOC) && 0 <= input->soc_cpct <= GATE_SOC_CPCT_MAX
      && (has(input->required, VALID_PACK_V) ==> has(input->valid, VALID_PACK_V))
      && (has(input->required, VALID_TEMP_MAX) ==> has(input->valid, VALID_TEMP_MAX))
      && (has(input->required, VALID_TEMP_MIN) ==> has(input->valid, VALID_TEMP_MIN))
      && (has(input->required, VALID_ESS_W) ==> has(input->valid, VALID_ESS_W))
      && (has(input->required, VALID_CHARGE_MA) ==> has(input->valid, VALID_CHARGE_MA))
      && (has(input->required, VALID_DISCHARGE_MA) ==> has(input->valid, VALID_DISCHARGE_MA))
      && (has(input->required, VALID_CHARGE_W) ==> has(input->valid, VALID_CHARGE_W))
      && (has(input->required, VALID_DISCHARGE_W) ==> has(input->valid, VALID_DISCHARGE_W))
      && (has(input->required, VALID_CELL_MAX) ==> has(input->valid, VALID_CELL_MAX))
      && (has(input->required, VALID_CELL_MIN) ==> has(input->valid, VALID_CELL_MIN));
    ensures verdict->contactor_open != 0 ==> verdict->reaction == REACTION_OPEN && verdict->setpoint_w == 0;
    ensures \old(state->tripped) != 0 && state->tripped == 0 ==>
      input->arm != 0 && \old(state->last_arm) == 0 && has(input->valid, VALID_REQUEST)
      && has(input->valid, VALID_SOC) && verdict->reaction <= REACTION_DERATE;
    ensures \old(state->tripped) != 0 && state->tripped == 0 ==>
      \forall integer k; 0 <= k < GATE_FAULTS_MAX ==> state->rows[k].latched == 0;
 */
void gate_step(const gate_limits_t *limits, const gate_fault_row_t faults[GATE_FAULTS_MAX], const gate_input_t *input,
               gate_state_t *state, gate_verdict_t *verdict)
{
    const int32_t dt_us = (int32_t)within(input->dt_us, 0, GATE_DT_US_MAX);
    const int32_t ramp_dt_us = least(dt_us, GATE_RAMP_DT_US_MAX);
    const int arm = input->arm != 0 && state->last_arm == 0;
    const int ack = input->ack != 0 && state->last_ack == 0;
    const int request_valid = valid(input, VALID_REQUEST);
    const int good = inputs_good(input);
    const int64_t wanted_mw = (int64_t)input->request_w * 1000;
    const int64_t last_mw = within(state->last_setpoint_mw, -(int64_t)INT32_MAX * 1000, (int64_t)INT32_MAX * 1000);
    int32_t lo_w, hi_w, tripped;
    int64_t setpoint_mw;
    uint32_t bits;
    demand_t demand;

    forget_flaps(state, dt_us);
    demand = faults_step(faults, input->faults, ack, dt_us, state);
    tripped = trip_of(state->tripped, demand, arm, good && request_valid);

    gate_envelope(limits, input, &lo_w, &hi_w, &bits);
    lo_w = derated_w(lo_w, demand.derate_permille);
    hi_w = derated_w(hi_w, demand.derate_permille);
    setpoint_mw = setpoint_of(limits, request_valid && !tripped, demand.reaction, wanted_mw, last_mw, ramp_dt_us, lo_w, hi_w);

    state->last_setpoint_mw = setpoint_mw;
    state->tripped = tripped;
    state->first_fault = first_fault_of(state->first_fault, demand, tripped);
    state->last_arm = input->arm;
    state->last_ack = input->ack;
    state->proof++;

    verdict->setpoint_w = (int32_t)(setpoint_mw / 1000); /* towards zero, so still inside the envelope */
    verdict->envelope_lo_w = lo_w;
    verdict->envelope_hi_w = hi_w;
    verdict->limit_bits = bits | reason_bits(request_valid, tripped, demand, wanted_mw, setpoint_mw);
    verdict->reaction = demand.reaction;
    verdict->heartbeat_ok = good && demand.reaction < REACTION_ZERO_SILENT;
    verdict->contactor_open = contactor_request(input, demand.reaction, dt_us, state);
    verdict->tripped = tripped;
    verdict->first_fault = state->first_fault;
    verdict->active = demand.active;
    verdict->latched = demand.latched;
    verdict->proof = state->proof;
}
