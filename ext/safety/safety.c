/* ext/safety/safety.c: the last word on every setpoint.
 *
 * The comments that begin with an at-sign are contracts; `make prove` proves them for every input. A clause named S<n>
 * is the requirement of that number in docs/safety.md, which says in plain words what is proved; what relates two runs of
 * the gate to each other is proved in tests/proof/relations.c. Signs: + discharge, so the envelope runs from -charge to
 * +discharge. Both directions go through the same functions, charge as the mirror of discharge.
 */
#include "safety/safety.h"

#include "safety/gate_bank.h"
#include "safety/gate_envelope.h"
#include "safety/gate_rows.h"

_Static_assert(REACTION_NONE < REACTION_WARN && REACTION_WARN < REACTION_DERATE && REACTION_DERATE < REACTION_RAMP_ZERO
                   && REACTION_RAMP_ZERO < REACTION_ZERO && REACTION_ZERO < REACTION_ZERO_SILENT
                   && REACTION_ZERO_SILENT < REACTION_OPEN,
               "the lattice is ordered by number");
_Static_assert(GATE_RAMP_DT_US_MAX <= GATE_DT_US_MAX, "a ramp never sees a longer cycle than the clocks do");
_Static_assert(GATE_TIME_US_MAX + GATE_DT_US_MAX <= INT32_MAX, "a bucket plus one cycle fits its integer");
_Static_assert(GATE_FORGET_US + GATE_DT_US_MAX <= INT32_MAX, "so does the flap clock");
_Static_assert(GATE_OPEN_WAIT_US + GATE_DT_US_MAX <= INT32_MAX, "and the wait for the contactors");
_Static_assert(GATE_FLAPS_MAX < UINT8_MAX, "activations fit their byte");
_Static_assert(GATE_FAULTS_MAX == 128, "one bit a row in two 64-bit words");

/* ---------------------------------------------------------------- the envelope */

/*@ requires \valid_read(limits) && \valid_read(input) && \valid(lo_w) && \valid(hi_w) && \valid(bits);
    requires \separated(lo_w, hi_w, bits, limits, input);
    assigns *lo_w, *hi_w, *bits;
    ensures S1: -INT32_MAX <= *lo_w <= 0 <= *hi_w;
    ensures S2: discharge_inside{Pre}(*hi_w, limits, input);
    ensures S2: charge_inside{Pre}(-*lo_w, limits, input);
    ensures S2: discharge_held{Pre}(*hi_w, limits, input);
    ensures S2: charge_held{Pre}(-*lo_w, limits, input);
    ensures S3: input->soc_cpct <= limits->soc_min_cpct ==> *hi_w == 0;
    ensures S3: input->soc_cpct + positive(input->soc_spread_cpct) >= limits->soc_max_cpct ==> *lo_w == 0;
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
    const direction_t charge = {
        .nameplate_w = limits->charge_w_max, .own_ma = limits->charge_ma_max,
        .ma = input->charge_ma_max, .power_w = input->charge_w_max,
        .soc_room = (int64_t)limits->soc_max_cpct - input->soc_cpct - above_zero(input->soc_spread_cpct),
        .cell_mv = limits->cell_mv_max, .cell_room = (int64_t)limits->cell_mv_max - input->cell_mv_max,
        .enabled = input->charge_ok, .ma_bit = VALID_CHARGE_MA, .w_bit = VALID_CHARGE_W, .cell_bit = VALID_CELL_MAX,
    };
    const direction_t discharge = {
        .nameplate_w = limits->discharge_w_max, .own_ma = limits->discharge_ma_max,
        .ma = input->discharge_ma_max, .power_w = input->discharge_w_max,
        .soc_room = (int64_t)input->soc_cpct - limits->soc_min_cpct,
        .cell_mv = limits->cell_mv_min, .cell_room = (int64_t)input->cell_mv_min - limits->cell_mv_min,
        .enabled = input->discharge_ok,
        .ma_bit = VALID_DISCHARGE_MA, .w_bit = VALID_DISCHARGE_W, .cell_bit = VALID_CELL_MIN,
    };
    const bound_t in = narrowest(limits, input, charge), out = narrowest(limits, input, discharge);
    //@ assert charge_inside(in.w, limits, input) && charge_held(in.w, limits, input);
    //@ assert discharge_inside(out.w, limits, input) && discharge_held(out.w, limits, input);
    *lo_w = -in.w;
    *hi_w = out.w;
    *bits = in.bits | out.bits;
}

/* ---------------------------------------------------------------- several batteries */

/*@ requires \valid_read(bank) && \valid(input) && \separated(bank, input);
    requires is_bank(bank);
    assigns input->soc_cpct, input->soc_spread_cpct, input->pack_mv, input->charge_ma_max, input->discharge_ma_max,
      input->charge_w_max, input->discharge_w_max, input->temp_max_ddegc, input->temp_min_ddegc, input->cell_mv_max,
      input->cell_mv_min, input->charge_ok, input->discharge_ok;
    ensures S23: allows{Pre}(input->charge_ma_max, &bank->charge_ma_max[0], &bank->connected[0], bank->n);
    ensures S23: allows{Pre}(input->discharge_ma_max, &bank->discharge_ma_max[0], &bank->connected[0], bank->n);
    ensures S23: allows{Pre}(input->charge_w_max, &bank->charge_w_max[0], &bank->connected[0], bank->n);
    ensures S23: allows{Pre}(input->discharge_w_max, &bank->discharge_w_max[0], &bank->connected[0], bank->n);
    ensures S23: at_most{Pre}(input->soc_cpct, &bank->soc_cpct[0], &bank->connected[0], bank->n);
    ensures S23: at_least{Pre}(input->soc_cpct + input->soc_spread_cpct, &bank->soc_cpct[0], &bank->connected[0], bank->n);
    ensures S23: 0 <= input->soc_cpct <= input->soc_cpct + input->soc_spread_cpct <= GATE_SOC_CPCT_MAX;
    ensures S23: at_most{Pre}(input->pack_mv, &bank->pack_mv[0], &bank->connected[0], bank->n);
    ensures S23: at_most{Pre}(input->cell_mv_min, &bank->cell_mv_min[0], &bank->connected[0], bank->n);
    ensures S23: at_least{Pre}(input->cell_mv_max, &bank->cell_mv_max[0], &bank->connected[0], bank->n);
    ensures S23: \forall integer i; 0 <= i < \at(bank->n, Pre) ==>
      \at(bank->temp_max_ddegc[i], Pre) <= input->temp_max_ddegc
      && input->temp_min_ddegc <= \at(bank->temp_min_ddegc[i], Pre);
    ensures S23: \forall integer i; 0 <= i < \at(bank->n, Pre) && \at(bank->connected[i], Pre) != 0 ==>
      (\at(bank->charge_ok[i], Pre) <= 0 ==> input->charge_ok == 0)
      && (\at(bank->discharge_ok[i], Pre) <= 0 ==> input->discharge_ok == 0);
    ensures S23: (\forall integer i; 0 <= i < \at(bank->n, Pre) ==> \at(bank->connected[i], Pre) == 0) ==>
      input->charge_ok == 0 && input->discharge_ok == 0;
 */
void gate_combine(const gate_bank_t *bank, gate_input_t *input)
{
    const bank_one_t one = bank_as_one(bank);
    input->soc_cpct = one.emptiest;
    input->soc_spread_cpct = one.fullest - one.emptiest;
    input->pack_mv = one.pack_mv;
    input->charge_ma_max = one.charge_ma;
    input->discharge_ma_max = one.discharge_ma;
    input->charge_w_max = one.charge_w;
    input->discharge_w_max = one.discharge_w;
    input->temp_max_ddegc = one.hottest;
    input->temp_min_ddegc = one.coldest;
    input->cell_mv_max = one.cell_max;
    input->cell_mv_min = one.cell_min;
    input->charge_ok = one.charge_ok;
    input->discharge_ok = one.discharge_ok;
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
    predicate held_at_zero(integer stop_w_per_s, integer may_run, integer reaction) =
      may_run == 0 || reaction >= REACTION_ZERO || (reaction == REACTION_RAMP_ZERO && stop_w_per_s <= 0);
 */

/* The setpoint: ramp first, envelope last. */
/*@ requires -INT32_MAX <= lo_w <= 0 <= hi_w <= INT32_MAX;
    requires 0 <= dt_us <= GATE_RAMP_DT_US_MAX && 0 <= reaction <= REACTION_OPEN && small(wanted_mw) && small(last_mw);
    assigns \nothing;
    ensures held_at_zero(stop_w_per_s, may_run, reaction) ==> \result == 0;
    ensures !held_at_zero(stop_w_per_s, may_run, reaction) ==> positive(\result) ==
      reach(wanted_mw, last_mw, up(go_w_per_s, reaction, dt_us), down(stop_w_per_s, reaction, dt_us), hi_w * 1000);
    ensures !held_at_zero(stop_w_per_s, may_run, reaction) ==> positive(-\result) ==
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
} assessment_t;

/*@ predicate open(assessment_t facts) = -INT32_MAX <= facts.lo_w <= 0 <= facts.hi_w <= INT32_MAX; */

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
static assessment_t assess(const gate_limits_t *limits, const gate_input_t *input)
{
    assessment_t facts;
    int32_t lo_w, hi_w;
    uint32_t bits;
    gate_envelope(limits, input, &lo_w, &hi_w, &bits);
    facts.lo_w = lo_w;
    facts.hi_w = hi_w;
    facts.bits = bits;
    facts.good = healthy(input);
    facts.request_valid = valid(input, VALID_REQUEST);
    facts.request_w = input->request_w;
    facts.go_w_per_s = limits->ramp_go_w_per_s;
    facts.stop_w_per_s = limits->ramp_stop_w_per_s;
    return facts;
}

/* What it decides once they have. */
typedef struct {
    int32_t lo_w, hi_w;
    int32_t setpoint_w;
    int64_t setpoint_mw;
    uint32_t bits;
    int32_t tripped, heartbeat_ok;
} outcome_t;

/*@ requires open(facts) && fair(response) && small(last_mw) && 0 <= dt_us <= GATE_RAMP_DT_US_MAX;
    assigns \nothing;
    ensures \result.hi_w == thousandths(facts.hi_w, response.derate_permille);
    ensures -\result.lo_w == thousandths(-facts.lo_w, response.derate_permille);
    ensures facts.request_valid == 0 || \result.tripped != 0 || held_at_zero(facts.stop_w_per_s, 1, response.reaction) ==>
      \result.setpoint_mw == 0;
    ensures facts.request_valid != 0 && \result.tripped == 0 && !held_at_zero(facts.stop_w_per_s, 1, response.reaction) ==>
      positive(\result.setpoint_mw) == reach(facts.request_w * 1000, last_mw,
                                             up(facts.go_w_per_s, response.reaction, dt_us),
                                             down(facts.stop_w_per_s, response.reaction, dt_us), \result.hi_w * 1000);
    ensures facts.request_valid != 0 && \result.tripped == 0 && !held_at_zero(facts.stop_w_per_s, 1, response.reaction) ==>
      positive(-\result.setpoint_mw) == reach(-facts.request_w * 1000, -last_mw,
                                              up(facts.go_w_per_s, response.reaction, dt_us),
                                              down(facts.stop_w_per_s, response.reaction, dt_us), -\result.lo_w * 1000);
    ensures S1: \result.lo_w <= \result.setpoint_w <= \result.hi_w;
    ensures S2: facts.lo_w <= \result.lo_w <= 0 <= \result.hi_w <= facts.hi_w;
    ensures S5: facts.request_valid == 0 ==> \result.setpoint_w == 0;
    ensures S5: facts.request_w >= 0 ==> \result.setpoint_w <= facts.request_w;
    ensures S5: facts.request_w <= 0 ==> facts.request_w <= \result.setpoint_w;
    ensures S8: \result.setpoint_w * 1000 <= positive(\result.setpoint_mw)
      && -\result.setpoint_w * 1000 <= positive(-\result.setpoint_mw);
    ensures S8: positive(\result.setpoint_mw) <= positive(last_mw) + thousandths(positive(facts.go_w_per_s), dt_us);
    ensures S8: positive(-\result.setpoint_mw) <= positive(-last_mw) + thousandths(positive(facts.go_w_per_s), dt_us);
    ensures S9: facts.request_valid != 0 && \result.tripped == 0 && response.reaction < REACTION_RAMP_ZERO
      && 0 <= facts.request_w * 1000 <= last_mw ==> \result.setpoint_w == low(facts.request_w, \result.hi_w);
    ensures S9: facts.request_valid != 0 && \result.tripped == 0 && response.reaction < REACTION_RAMP_ZERO
      && last_mw <= facts.request_w * 1000 <= 0 ==> -\result.setpoint_w == low(-facts.request_w, -\result.lo_w);
    ensures S9: response.reaction >= REACTION_RAMP_ZERO ==> positive(\result.setpoint_mw) <= positive(last_mw)
      && positive(-\result.setpoint_mw) <= positive(-last_mw);
    ensures S12: response.reaction >= REACTION_ZERO ==> \result.setpoint_w == 0 && \result.setpoint_mw == 0;
    ensures S14: response.trips != 0 ==> \result.tripped != 0;
    ensures S14: \result.tripped != 0 ==> \result.setpoint_w == 0 && \result.setpoint_mw == 0;
    ensures S15: tripped != 0 && \result.tripped == 0 ==> armed != 0 && facts.request_valid != 0 && facts.good != 0
      && response.reaction <= REACTION_DERATE && response.latches == 0;
    ensures S16: \result.heartbeat_ok != 0 ==> facts.good != 0 && response.reaction < REACTION_ZERO_SILENT;
 */
static outcome_t decide(assessment_t facts, fault_response_t response, int32_t tripped, int armed, int64_t last_mw,
                        int32_t dt_us)
{
    const int64_t wanted_mw = (int64_t)facts.request_w * 1000;
    const int32_t lo_w = -derated_w(-facts.lo_w, response.derate_permille);
    const int32_t hi_w = derated_w(facts.hi_w, response.derate_permille);
    const int32_t stays = trip_of(tripped, response, armed, facts.good && facts.request_valid);
    const int64_t setpoint_mw = setpoint_of(facts.go_w_per_s, facts.stop_w_per_s, facts.request_valid && !stays,
                                            response.reaction, wanted_mw, last_mw, dt_us, lo_w, hi_w);
    const outcome_t outcome = {
        .lo_w = lo_w,
        .hi_w = hi_w,
        .setpoint_w = whole_w(setpoint_mw),
        .setpoint_mw = setpoint_mw,
        .bits = facts.bits | reason_bits(facts.request_valid, stays, response.reaction, wanted_mw, setpoint_mw),
        .tripped = stays,
        .heartbeat_ok = facts.good && response.reaction < REACTION_ZERO_SILENT,
    };
    return outcome;
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
void gate_restore(gate_state_t *state, fault_set_t latched)
{
    int32_t i;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX;
        loop invariant \forall integer k; 0 <= k < GATE_FAULTS_MAX && \at(state->rows[k].latched, LoopEntry) != 0 ==>
          state->rows[k].latched != 0;
        loop assigns i, state->rows[0 .. GATE_FAULTS_MAX - 1].latched;
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++)
        if (holds(latched, i))
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
    const assessment_t facts = assess(limits, input);
    const int32_t dt_us = (int32_t)within(input->dt_us, 0, GATE_DT_US_MAX);
    const int32_t ramp_dt_us = (int32_t)within(input->dt_us, 0, GATE_RAMP_DT_US_MAX);
    const int64_t last_mw = within(state->last_setpoint_mw, (int64_t)INT32_MIN * 1000, -(int64_t)INT32_MIN * 1000);
    const int armed = rising(input->arm, state->last_arm), ack = rising(input->ack, state->last_ack);
    fault_response_t response;
    outcome_t outcome;
    int open;

    //@ assert ramp_dt_us == ramp_dt(input->dt_us);
    //@ assert positive(last_mw) <= positive(state->last_setpoint_mw);
    //@ assert positive(-last_mw) <= positive(-state->last_setpoint_mw);
    forget_flaps(state, dt_us);
    /*@ assert \forall integer k; 0 <= k < GATE_FAULTS_MAX ==>
          state->rows[k].latched == \at(state->rows[k].latched, Pre); */
    response = faults_step(faults, input->faults, ack, dt_us, state);
    outcome = decide(facts, response, state->tripped, armed, last_mw, ramp_dt_us);
    /*@ assert S13: \forall integer k; 0 <= k < GATE_FAULTS_MAX && ack == 0 && severity(faults[k].reaction) != REACTION_NONE
          && \at(state->rows[k].latched, Pre) != 0 ==> state->rows[k].latched != 0; */
    //@ assert facts.go_w_per_s == \at(limits->ramp_go_w_per_s, Pre) && ramp_dt_us == ramp_dt(\at(input->dt_us, Pre));
    /*@ assert positive(outcome.setpoint_mw) <= positive(last_mw) + thousandths(positive(facts.go_w_per_s), ramp_dt_us)
          && positive(-outcome.setpoint_mw) <= positive(-last_mw) + thousandths(positive(facts.go_w_per_s), ramp_dt_us); */
    /*@ assert S8: positive(outcome.setpoint_mw) <= positive(\at(state->last_setpoint_mw, Pre))
          + thousandths(positive(\at(limits->ramp_go_w_per_s, Pre)), ramp_dt(\at(input->dt_us, Pre))); */
    /*@ assert S8: positive(-outcome.setpoint_mw) <= positive(-\at(state->last_setpoint_mw, Pre))
          + thousandths(positive(\at(limits->ramp_go_w_per_s, Pre)), ramp_dt(\at(input->dt_us, Pre))); */
    /*@ assert S9: has(\at(input->valid, Pre), VALID_REQUEST) && outcome.tripped == 0
          && response.reaction < REACTION_RAMP_ZERO
          && \at(state->last_setpoint_mw, Pre) <= \at(input->request_w, Pre) * 1000 <= 0
          ==> -outcome.setpoint_w == low(-\at(input->request_w, Pre), -outcome.lo_w); */
    open = contactor_request(input, response.reaction, dt_us, state);

    state->last_setpoint_mw = outcome.setpoint_mw;
    state->tripped = outcome.tripped;
    state->first_fault = first_fault_of(state->first_fault, response, outcome.tripped);
    state->last_arm = input->arm;
    state->last_ack = input->ack;
    state->proof++;

    verdict->setpoint_w = outcome.setpoint_w;
    verdict->envelope_lo_w = outcome.lo_w;
    verdict->envelope_hi_w = outcome.hi_w;
    verdict->limit_bits = outcome.bits;
    verdict->reaction = response.reaction;
    verdict->heartbeat_ok = outcome.heartbeat_ok;
    verdict->contactor_open = open;
    verdict->tripped = outcome.tripped;
    verdict->first_fault = state->first_fault;
    verdict->active = response.active;
    verdict->latched = response.latched;
    verdict->proof = state->proof;
}
