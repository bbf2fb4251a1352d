/* ext/safety/gate_envelope.h: the part of safety.c that intersects the limits of one direction.
 *
 * Static functions with their contracts, included by safety.c alone, so that gate and proof stay one unit.
 */
#ifndef TIDEGATE_GATE_ENVELOPE_H
#define TIDEGATE_GATE_ENVELOPE_H

#include "safety/safety.h"

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
    // How far the fullest battery is from the end of the window.
    logic integer charge_room(gate_limits_t *l, gate_input_t *in) =
      l->soc_max_cpct - in->soc_cpct - positive(in->soc_spread_cpct);
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
             charge_room(l, in), l->cell_mv_max, l->cell_mv_max - in->cell_mv_max, in->charge_ok,
             VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX);
    predicate charge_held(integer w, gate_limits_t *l, gate_input_t *in) =
      held(w, l, in, l->charge_w_max, l->charge_ma_max, in->charge_ma_max, in->charge_w_max,
           charge_room(l, in), l->cell_mv_max, l->cell_mv_max - in->cell_mv_max, in->charge_ok,
           VALID_CHARGE_MA, VALID_CHARGE_W, VALID_CELL_MAX);

    lemma discharge_inside_shrinks{L}: \forall integer w, v, gate_limits_t *l, gate_input_t *in;
      0 <= v <= w && discharge_inside(w, l, in) ==> discharge_inside(v, l, in);
    lemma charge_inside_shrinks{L}: \forall integer w, v, gate_limits_t *l, gate_input_t *in;
      0 <= v <= w && charge_inside(w, l, in) ==> charge_inside(v, l, in);
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
} direction_t;

/* What is left of a direction while its limits are applied one after the other. */
typedef struct {
    int32_t w; /* >= 0 */
    uint32_t bits;
} bound_t;

/*@ requires bound.w >= 0;
    assigns \nothing;
    ensures \result.w == low(bound.w, positive(limit_w));
 */
static bound_t bound_narrow(bound_t bound, int32_t limit_w, uint32_t bit)
{
    if (limit_w < bound.w) {
        bound.w = limit_w > 0 ? limit_w : 0;
        bound.bits |= bit;
    }
    return bound;
}

/* The same for a limit that counts only where `applies` says so. */
/*@ requires bound.w >= 0;
    assigns \nothing;
    ensures applies != 0 ==> \result.w == low(bound.w, positive(limit_w));
    ensures applies == 0 ==> \result.w == bound.w;
 */
static bound_t bound_narrow_if(int applies, bound_t bound, int32_t limit_w, uint32_t bit)
{
    return applies ? bound_narrow(bound, limit_w, bit) : bound;
}

/*@ requires \valid_read(limits) && \valid_read(input);
    requires -0x1FFFFFFFF <= dir.soc_room <= 0x1FFFFFFFF && -0x1FFFFFFFF <= dir.cell_room <= 0x1FFFFFFFF;
    assigns \nothing;
    ensures inside(\result.w, limits, input, dir.nameplate_w, dir.own_ma, dir.ma, dir.power_w, dir.soc_room, dir.cell_mv,
                   dir.cell_room, dir.enabled, dir.ma_bit, dir.w_bit, dir.cell_bit);
    ensures held(\result.w, limits, input, dir.nameplate_w, dir.own_ma, dir.ma, dir.power_w, dir.soc_room, dir.cell_mv,
                 dir.cell_room, dir.enabled, dir.ma_bit, dir.w_bit, dir.cell_bit);
 */
static bound_t narrowest(const gate_limits_t *limits, const gate_input_t *input, direction_t dir)
{
    const int pack_v = valid(input, VALID_PACK_V);
    const int64_t hot_room = (int64_t)limits->temp_max_ddegc - input->temp_max_ddegc;
    const int64_t cold_room = (int64_t)input->temp_min_ddegc - limits->temp_min_ddegc;
    bound_t bound = {(int32_t)above_zero(dir.nameplate_w), 0};
    bound = bound_narrow_if(pack_v, bound, power_w(input->pack_mv, dir.own_ma), LIMIT_CURRENT);
    bound = bound_narrow_if(pack_v && valid(input, dir.ma_bit), bound, power_w(input->pack_mv, dir.ma), LIMIT_CURRENT);
    bound = bound_narrow_if(valid(input, dir.w_bit), bound, dir.power_w, LIMIT_POWER);
    bound = bound_narrow(bound, taper_w(dir.nameplate_w, dir.soc_room, limits->soc_taper_cpct), LIMIT_SOC);
    bound = bound_narrow_if(valid(input, VALID_TEMP_MAX), bound,
                            taper_w(dir.nameplate_w, hot_room, limits->temp_taper_ddegc), LIMIT_TEMP);
    bound = bound_narrow_if(valid(input, VALID_TEMP_MIN), bound,
                            taper_w(dir.nameplate_w, cold_room, limits->temp_taper_ddegc), LIMIT_TEMP);
    bound = bound_narrow_if(dir.cell_mv > 0 && valid(input, dir.cell_bit), bound,
                            taper_w(dir.nameplate_w, dir.cell_room, limits->cell_taper_mv), LIMIT_CELL);
    bound = bound_narrow_if(dir.enabled == 0, bound, 0, LIMIT_ENABLE);
    return bound_narrow_if(!known(input, dir.ma_bit, dir.w_bit, dir.cell_bit), bound, 0, LIMIT_INVALID);
}

#endif
