/* What relates two runs of the gate to each other: the tighter of two never gives more power (S7 in docs/safety.md).
 *
 * The functions of safety.c are called twice, as gate_step calls them, and the proof compares what comes out. Because the
 * sentence about one cycle has the same shape before (the last setpoint) and after (the next), it holds for any number of
 * cycles. `make prove` proves this file after safety.c; nothing here is ever run.
 */
#include "safety.c"

/*@ lemma multiple_grows: \forall integer a, b, c; 0 <= a <= b && 0 <= c ==> a * c <= b * c;
    lemma part_fits: \forall integer n, d; 0 <= n && 0 < d ==> 0 <= n / d && (n / d) * d <= n;
    lemma part_most: \forall integer q, n, d; 0 <= n && 0 < d && q * d <= n ==> q <= n / d;
    lemma part_grows: \forall integer n, m, d; 0 <= n <= m && 0 < d ==> n / d <= m / d;
    lemma part_of_more: \forall integer n, d, e; 0 <= n && 0 < e <= d ==> n / d <= n / e;
    lemma product_grows: \forall integer mv, a, b; a <= b ==> product(mv, a) <= product(mv, b);
    lemma taper_most: \forall integer w, room, width; taper(w, room, width) <= positive(w);
    lemma share_grows: \forall integer w, v, room, width;
      0 <= w <= v && 0 <= room && 0 < width ==> w * room / width <= v * room / width;
    lemma taper_least: \forall integer w, room, width; 0 <= taper(w, room, width);
    lemma taper_grows_inside: \forall integer w, v, room, width;
      0 < w <= v && 0 < room < width ==> taper(w, room, width) <= taper(v, room, width);
    lemma taper_grows_with_power: \forall integer w, v, room, width;
      w <= v ==> taper(w, room, width) <= taper(v, room, width);
    lemma taper_grows_with_room: \forall integer w, room, more, width;
      room <= more ==> taper(w, room, width) <= taper(w, more, width);
    lemma taper_shrinks_with_width: \forall integer w, room, width, wider;
      width <= wider ==> taper(w, room, wider) <= taper(w, room, width);
    lemma thousandths_least: \forall integer w, n; 0 <= w && 0 <= n ==> 0 <= thousandths(w, n);
    lemma thousandths_grow: \forall integer w, v, p, q;
      0 <= w <= v && 0 <= p <= q ==> thousandths(w, p) <= thousandths(v, q);
    lemma reach_grows: \forall integer wanted, last_a, last_b, up_a, up_b, down_a, down_b, most_a, most_b;
      positive(last_a) <= positive(last_b) && up_a <= up_b && down_b <= down_a && most_a <= most_b ==>
      reach(wanted, last_a, up_a, down_a, most_a) <= reach(wanted, last_b, up_b, down_b, most_b);

    // One step at a time, for the prover.
    predicate tapers(integer w, integer v, integer wider, integer width, integer room, integer more) =
      taper(w, room, wider) <= taper(v, room, wider) <= taper(v, more, wider) <= taper(v, more, width);

    // a knows the same inputs as b, or fewer: and what it lacks, its map has promised.
    predicate less_known(gate_input_t *a, gate_input_t *b, integer bit) =
      (has(a->valid, bit) ==> has(b->valid, bit)) && (has(b->required, bit) ==> has(a->required, bit))
      && (has(b->valid, bit) && !has(a->valid, bit) ==> has(a->required, bit));
    predicate tighter(gate_limits_t *la, gate_input_t *a, gate_limits_t *lb, gate_input_t *b) =
      la->charge_w_max <= lb->charge_w_max && la->discharge_w_max <= lb->discharge_w_max
      && la->charge_ma_max <= lb->charge_ma_max && la->discharge_ma_max <= lb->discharge_ma_max
      && la->soc_min_cpct >= lb->soc_min_cpct && la->soc_max_cpct <= lb->soc_max_cpct
      && la->soc_taper_cpct >= lb->soc_taper_cpct
      && la->temp_min_ddegc >= lb->temp_min_ddegc && la->temp_max_ddegc <= lb->temp_max_ddegc
      && la->temp_taper_ddegc >= lb->temp_taper_ddegc
      && la->cell_mv_min >= lb->cell_mv_min && (lb->cell_mv_max <= 0 || 0 < la->cell_mv_max <= lb->cell_mv_max)
      && la->cell_taper_mv >= lb->cell_taper_mv
      && a->pack_mv == b->pack_mv && a->soc_cpct == b->soc_cpct
      && positive(a->soc_spread_cpct) >= positive(b->soc_spread_cpct) && a->temp_max_ddegc == b->temp_max_ddegc
      && a->temp_min_ddegc == b->temp_min_ddegc && a->cell_mv_max == b->cell_mv_max && a->cell_mv_min == b->cell_mv_min
      && a->charge_ma_max <= b->charge_ma_max && a->discharge_ma_max <= b->discharge_ma_max
      && a->charge_w_max <= b->charge_w_max && a->discharge_w_max <= b->discharge_w_max
      && (b->charge_ok == 0 ==> a->charge_ok == 0) && (b->discharge_ok == 0 ==> a->discharge_ok == 0)
      && less_known(a, b, VALID_SOC) && less_known(a, b, VALID_PACK_V) && less_known(a, b, VALID_CHARGE_MA)
      && less_known(a, b, VALID_DISCHARGE_MA) && less_known(a, b, VALID_TEMP_MAX) && less_known(a, b, VALID_TEMP_MIN)
      && less_known(a, b, VALID_ESS_W) && less_known(a, b, VALID_CHARGE_W) && less_known(a, b, VALID_DISCHARGE_W)
      && less_known(a, b, VALID_CELL_MAX) && less_known(a, b, VALID_CELL_MIN);
    predicate discharge_tapers(gate_limits_t *la, gate_input_t *a, gate_limits_t *lb, gate_input_t *b) =
      tapers(la->discharge_w_max, lb->discharge_w_max, la->soc_taper_cpct, lb->soc_taper_cpct,
                a->soc_cpct - la->soc_min_cpct, b->soc_cpct - lb->soc_min_cpct)
      && tapers(la->discharge_w_max, lb->discharge_w_max, la->temp_taper_ddegc, lb->temp_taper_ddegc,
                la->temp_max_ddegc - a->temp_max_ddegc, lb->temp_max_ddegc - b->temp_max_ddegc)
      && tapers(la->discharge_w_max, lb->discharge_w_max, la->temp_taper_ddegc, lb->temp_taper_ddegc,
                a->temp_min_ddegc - la->temp_min_ddegc, b->temp_min_ddegc - lb->temp_min_ddegc)
      && tapers(la->discharge_w_max, lb->discharge_w_max, la->cell_taper_mv, lb->cell_taper_mv,
                a->cell_mv_min - la->cell_mv_min, b->cell_mv_min - lb->cell_mv_min);
    predicate charge_tapers(gate_limits_t *la, gate_input_t *a, gate_limits_t *lb, gate_input_t *b) =
      tapers(la->charge_w_max, lb->charge_w_max, la->soc_taper_cpct, lb->soc_taper_cpct,
                charge_room(la, a), charge_room(lb, b))
      && tapers(la->charge_w_max, lb->charge_w_max, la->temp_taper_ddegc, lb->temp_taper_ddegc,
                la->temp_max_ddegc - a->temp_max_ddegc, lb->temp_max_ddegc - b->temp_max_ddegc)
      && tapers(la->charge_w_max, lb->charge_w_max, la->temp_taper_ddegc, lb->temp_taper_ddegc,
                a->temp_min_ddegc - la->temp_min_ddegc, b->temp_min_ddegc - lb->temp_min_ddegc)
      && (lb->cell_mv_max > 0 ==>
         tapers(la->charge_w_max, lb->charge_w_max, la->cell_taper_mv, lb->cell_taper_mv,
                la->cell_mv_max - a->cell_mv_max, lb->cell_mv_max - b->cell_mv_max));
 */

/*@ requires \valid_read(la) && \valid_read(a) && \valid_read(lb) && \valid_read(b);
    requires \separated(la, a) && \separated(lb, b);
    requires tighter(la, a, lb, b);
    assigns \nothing;
 */
void a_tighter_envelope_is_no_wider(const gate_limits_t *la, const gate_input_t *a, const gate_limits_t *lb,
                                    const gate_input_t *b)
{
    int32_t lo_a, hi_a, lo_b, hi_b;
    uint32_t bits_a, bits_b;
    //@ assert discharge_tapers(la, a, lb, b);
    //@ assert charge_tapers(la, a, lb, b);
    gate_envelope(la, a, &lo_a, &hi_a, &bits_a);
    gate_envelope(lb, b, &lo_b, &hi_b, &bits_b);
    //@ assert S7: hi_a <= hi_b;
    //@ assert S7: -lo_a <= -lo_b;
}

/* Neither does a graver fault response, a lower last setpoint or a slower ramp give more. */
/*@ requires \valid_read(la) && \valid_read(a) && \valid_read(lb) && \valid_read(b);
    requires \separated(la, a) && \separated(lb, b) && tighter(la, a, lb, b) && a->request_w == b->request_w;
    requires has(a->valid, VALID_REQUEST) ==> has(b->valid, VALID_REQUEST);
    requires fair(da) && fair(db) && da.reaction >= db.reaction && da.derate_permille <= db.derate_permille;
    requires la->ramp_go_w_per_s <= lb->ramp_go_w_per_s;
    requires la->ramp_stop_w_per_s <= 0 || (0 < lb->ramp_stop_w_per_s <= la->ramp_stop_w_per_s);
    requires small(last_a) && small(last_b) && 0 <= dt_us <= GATE_RAMP_DT_US_MAX;
    requires positive(last_a) <= positive(last_b) && positive(-last_a) <= positive(-last_b);
    assigns \nothing;
 */
void a_tighter_gate_never_gives_more(const gate_limits_t *la, const gate_input_t *a, fault_response_t da,
                                     int32_t tripped_a, int arm_a, int64_t last_a, const gate_limits_t *lb,
                                     const gate_input_t *b, fault_response_t db, int32_t tripped_b, int arm_b,
                                     int64_t last_b, int32_t dt_us)
{
    //@ assert discharge_tapers(la, a, lb, b);
    //@ assert charge_tapers(la, a, lb, b);
    const assessment_t sa = assess(la, a), sb = assess(lb, b);
    const outcome_t pa = decide(sa, da, tripped_a, arm_a, last_a, dt_us);
    const outcome_t pb = decide(sb, db, tripped_b, arm_b, last_b, dt_us);
    //@ assert sa.hi_w <= sb.hi_w && -sa.lo_w <= -sb.lo_w;
    //@ assert pa.hi_w <= pb.hi_w && -pa.lo_w <= -pb.lo_w;
    //@ assert held_at_zero(sb.stop_w_per_s, 1, db.reaction) ==> held_at_zero(sa.stop_w_per_s, 1, da.reaction);
    //@ assert up(sa.go_w_per_s, da.reaction, dt_us) <= up(sb.go_w_per_s, db.reaction, dt_us);
    //@ assert 0 < sa.stop_w_per_s ==> 0 < sb.stop_w_per_s <= sa.stop_w_per_s;
    //@ assert 0 < sa.stop_w_per_s ==> thousandths(sb.stop_w_per_s, dt_us) <= thousandths(sa.stop_w_per_s, dt_us);
    //@ assert 0 <= down(sa.stop_w_per_s, da.reaction, dt_us);
    //@ assert db.reaction < REACTION_RAMP_ZERO ==> down(sb.stop_w_per_s, db.reaction, dt_us) == 0;
    /*@ assert !held_at_zero(sa.stop_w_per_s, 1, da.reaction) ==>
          down(sb.stop_w_per_s, db.reaction, dt_us) <= down(sa.stop_w_per_s, da.reaction, dt_us); */
    //@ assert S7: (pa.tripped == 0 ==> pb.tripped == 0) ==> positive(pa.setpoint_mw) <= positive(pb.setpoint_mw);
    //@ assert S7: (pa.tripped == 0 ==> pb.tripped == 0) ==> positive(-pa.setpoint_mw) <= positive(-pb.setpoint_mw);
}
