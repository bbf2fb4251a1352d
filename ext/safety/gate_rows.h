/* ext/safety/gate_rows.h: the part of safety.c that debounces, latches and weighs the rows of the fault table.
 *
 * Static functions with their contracts, included by safety.c alone, so that gate and proof stay one unit.
 */
#ifndef TIDEGATE_GATE_ROWS_H
#define TIDEGATE_GATE_ROWS_H

#include "safety/gate_envelope.h"

/*@ logic integer severity(integer reaction) = 0 <= reaction <= REACTION_OPEN ? reaction : REACTION_OPEN;
    logic integer time(integer ms) = ms <= 0 ? 0 : low(ms * 1000, GATE_TIME_US_MAX);
    predicate idle(gate_row_t *row) = row->bucket_us == 0 && row->active == 0 && row->latched == 0;
    predicate sound(gate_state_t *state) =
      state->busy == 0 ==> (\forall integer k; 0 <= k < GATE_FAULTS_MAX ==> idle(&state->rows[k]));
 */

/*@ requires 0 <= row < GATE_FAULTS_MAX;
    assigns \nothing;
    ensures \result == 0 || \result == 1;
 */
static int32_t holds(fault_set_t set, int32_t row)
{
    return (int32_t)((row < 64 ? set.lo >> row : set.hi >> (row - 64)) & 1u);
}

/* The set with this row in it, if it is present. */
/*@ requires 0 <= row < GATE_FAULTS_MAX;
    assigns \nothing;
 */
static fault_set_t with(fault_set_t set, int32_t row, int present)
{
    const uint64_t bit = present ? 1u : 0u;
    if (row < 64)
        set.lo |= bit << row;
    else
        set.hi |= bit << (row - 64);
    return set;
}

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
static gate_row_t row_fill(const gate_fault_row_t *row, gate_row_t memory, int present, int32_t dt_us)
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
static gate_row_t row_drain(const gate_fault_row_t *row, gate_row_t memory, int present, int32_t dt_us)
{
    if (present) {
        memory.bucket_us = clear_us(row, memory.flaps);
    } else {
        memory.bucket_us = (int32_t)above_zero((int64_t)memory.bucket_us - dt_us);
        memory.active = memory.bucket_us ? 1 : 0;
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
    memory = memory.active ? row_drain(row, memory, present, dt_us) : row_fill(row, memory, present, dt_us);
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
    fault_set_t active, latched;
} fault_response_t;

/*@ predicate fair(fault_response_t response) =
      0 <= response.reaction <= REACTION_OPEN && 0 <= response.derate_permille <= 1000;
    predicate grown(fault_response_t response, fault_response_t from) =
      response.reaction >= from.reaction && response.derate_permille <= from.derate_permille
      && (from.busy != 0 ==> response.busy != 0) && (from.latches != 0 ==> response.latches != 0)
      && (from.trips != 0 ==> response.trips != 0);
    logic integer left(integer permille) = 0 <= permille <= 1000 ? permille : 0;
    // The response is what a row asks for, or more.
    predicate covered(fault_response_t response, integer reaction, integer permille, integer bucket_us, integer active,
                      integer latched) =
      (active != 0 || latched != 0 ==> response.reaction >= severity(reaction))
      && ((active != 0 || latched != 0) && severity(reaction) == REACTION_DERATE ==>
          response.derate_permille <= left(permille))
      && (latched != 0 ==> response.latches != 0)
      && (latched != 0 && severity(reaction) > REACTION_DERATE ==> response.trips != 0)
      && (bucket_us != 0 || active != 0 || latched != 0 ==> response.busy != 0);
 */

/*@ assigns \nothing;
    ensures \result == left(permille);
 */
static int32_t left_permille(int32_t permille)
{
    return permille < 0 || permille > 1000 ? 0 : permille;
}

/* The response with one more row in it, without the masks for people, which faults_step lays in at its end. */
/*@ requires \valid_read(row) && 0 <= number < GATE_FAULTS_MAX && fair(response);
    assigns \nothing;
    ensures fair(\result);
    ensures grown(\result, response);
    ensures covered(\result, row->reaction, row->derate_permille, memory.bucket_us, memory.active, memory.latched);
 */
static fault_response_t response_join(fault_response_t response, const gate_fault_row_t *row, gate_row_t memory,
                                      int32_t number)
{
    const int asks = memory.active || memory.latched;
    const int32_t severe = asks ? severity_of(row->reaction) : REACTION_NONE;
    const int32_t permille = severe == REACTION_DERATE ? left_permille(row->derate_permille) : 1000;
    const int graver = severe > response.reaction;
    const fault_response_t both = {
        .reaction = graver ? severe : response.reaction,
        .cause = graver ? number : response.cause,
        .derate_permille = (int32_t)least(permille, response.derate_permille),
        .busy = response.busy || asks || memory.bucket_us,
        .latches = response.latches || memory.latched,
        .trips = response.trips || (memory.latched && severe > REACTION_DERATE),
    };
    return both;
}

/* One row takes its step and joins the response; a row that has nothing to do is left alone. */
/*@ requires \valid_read(row) && \valid(memory) && \separated(row, memory);
    requires 0 <= number < GATE_FAULTS_MAX && 0 <= dt_us <= GATE_DT_US_MAX && fair(response);
    assigns *memory;
    ensures fair(\result);
    ensures grown(\result, response);
    ensures covered(\result, row->reaction, row->derate_permille, memory->bucket_us, memory->active, memory->latched);
    ensures S13: severity(row->reaction) != REACTION_NONE && ack == 0 && \old(memory->latched) != 0 ==> memory->latched != 0;
 */
static fault_response_t row_visit(fault_response_t response, const gate_fault_row_t *row, int32_t number, int present,
                                  int ack, int32_t dt_us, gate_row_t *memory)
{
    if (!present && memory->bucket_us == 0 && !memory->active && !memory->latched)
        return response;
    *memory = row_step(row, *memory, present, ack, dt_us);
    return response_join(response, row, *memory, number);
}

/* The fault rows; nothing present and nothing remembered is the usual case and costs nothing. */
/*@ requires \valid_read(faults + (0 .. GATE_FAULTS_MAX - 1)) && \valid(state);
    requires \separated(faults + (0 .. GATE_FAULTS_MAX - 1), state);
    requires 0 <= dt_us <= GATE_DT_US_MAX && sound(state);
    assigns state->rows[0 .. GATE_FAULTS_MAX - 1], state->busy;
    ensures fair(\result) && sound(state);
    ensures \forall integer k; 0 <= k < GATE_FAULTS_MAX ==>
      covered(\result, faults[k].reaction, faults[k].derate_permille,
            state->rows[k].bucket_us, state->rows[k].active, state->rows[k].latched);
    ensures S13: \forall integer k; 0 <= k < GATE_FAULTS_MAX && ack == 0 && severity(faults[k].reaction) != REACTION_NONE
      && \old(state->rows[k].latched) != 0 ==> state->rows[k].latched != 0;
 */
static fault_response_t faults_step(const gate_fault_row_t faults[GATE_FAULTS_MAX], fault_set_t present, int ack,
                                    int32_t dt_us, gate_state_t *state)
{
    fault_response_t response = {REACTION_NONE, -1, 1000, 0, 0, 0, {0, 0}, {0, 0}};
    fault_set_t active = {0, 0}, latched = {0, 0};
    int32_t i;
    if (present.lo == 0 && present.hi == 0 && state->busy == 0)
        return response;
    /*@ loop invariant 0 <= i <= GATE_FAULTS_MAX && fair(response);
        loop invariant \forall integer k; 0 <= k < i ==>
          covered(response, faults[k].reaction, faults[k].derate_permille,
                state->rows[k].bucket_us, state->rows[k].active, state->rows[k].latched);
        loop invariant \forall integer k; 0 <= k < GATE_FAULTS_MAX && \at(state->rows[k].latched, LoopEntry) != 0
          && (k >= i || (ack == 0 && severity(faults[k].reaction) != REACTION_NONE)) ==> state->rows[k].latched != 0;
        loop assigns i, response, active, latched, state->rows[0 .. GATE_FAULTS_MAX - 1];
        loop variant GATE_FAULTS_MAX - i;
     */
    for (i = 0; i < GATE_FAULTS_MAX; i++) {
        response = row_visit(response, &faults[i], i, holds(present, i), ack, dt_us, &state->rows[i]);
        active = with(active, i, state->rows[i].active != 0);
        latched = with(latched, i, state->rows[i].latched != 0);
    }
    state->busy = response.busy;
    response.active = active;
    response.latched = latched;
    return response;
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
/*@ requires fair(response);
    assigns \nothing;
    ensures \result == 0 || \result == 1;
    ensures S14: response.trips != 0 ==> \result == 1;
    ensures S15: tripped != 0 && \result == 0 ==>
      arm != 0 && good != 0 && response.reaction <= REACTION_DERATE && response.latches == 0;
 */
static int32_t trip_of(int32_t tripped, fault_response_t response, int arm, int good)
{
    if (response.trips)
        return 1;
    if (arm && good && response.reaction <= REACTION_DERATE && !response.latches)
        return 0;
    return tripped != 0;
}

/* The row that first asked for more than a derating, kept while any does and until the trip is over. */
/*@ assigns \nothing; */
static int32_t first_fault_of(int32_t first_fault, fault_response_t response, int32_t tripped)
{
    if (response.reaction > REACTION_DERATE)
        return first_fault < 0 ? response.cause : first_fault;
    return tripped ? first_fault : -1;
}

#endif
