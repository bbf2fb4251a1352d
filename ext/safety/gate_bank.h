/* ext/safety/gate_bank.h: the part of safety.c that takes several batteries behind one converter for one.
 *
 * They stand side by side on one DC side, so they share its voltage, and nothing but their resistances shares the
 * current out. Of what each allows, so many times the least is what all of them together bear; of everything else the
 * worst counts. A battery whose contactors are open bears nothing and is not counted; its temperatures still are.
 */
#ifndef TIDEGATE_GATE_BANK_H
#define TIDEGATE_GATE_BANK_H

#include "safety/safety.h"

/*@ axiomatic Joined {
      logic integer joined{L}(int32_t *connected, integer n) reads connected[0 .. n - 1];
      axiom joined_none{L}: \forall int32_t *c, integer n; n <= 0 ==> joined(c, n) == 0;
      axiom joined_one{L}: \forall int32_t *c, integer n; n > 0 ==>
        joined(c, n) == joined(c, n - 1) + (c[n - 1] != 0 ? 1 : 0);
    }
    predicate is_bank(gate_bank_t *bank) = 1 <= bank->n <= GATE_BATTERIES_MAX
      && \forall integer i; 0 <= i < bank->n ==> 0 <= bank->soc_cpct[i] <= GATE_SOC_CPCT_MAX;
    logic integer times(integer each, integer n) = each * n > 0 ? each * n : 0;
    lemma times_grows: \forall integer a, b, n; 0 <= n && a <= b ==> times(a, n) <= times(b, n);

    // No more than so many times what any connected one of n allows, as there are connected ones.
    predicate allows{L}(integer limit, int32_t *each, int32_t *connected, integer n) =
      \forall integer i; 0 <= i < n && connected[i] != 0 ==> limit <= times(each[i], joined(connected, n));
    // Not above, not below any connected one.
    predicate at_most{L}(integer value, int32_t *each, int32_t *connected, integer n) =
      \forall integer i; 0 <= i < n && connected[i] != 0 ==> value <= each[i];
    predicate at_least{L}(integer value, int32_t *each, int32_t *connected, integer n) =
      \forall integer i; 0 <= i < n && connected[i] != 0 ==> value >= each[i];
 */

/*@ requires 0 <= n <= GATE_BATTERIES_MAX && \valid_read(connected + (0 .. n - 1));
    assigns \nothing;
    ensures \result == joined(connected, n);
    ensures 0 <= \result <= n;
    ensures \result == 0 <==> \forall integer i; 0 <= i < n ==> connected[i] == 0;
 */
static int32_t bank_count(const int32_t *connected, int32_t n)
{
    int32_t i, count = 0;
    /*@ loop invariant 0 <= i <= n && 0 <= count <= i;
        loop invariant count == joined(connected, i);
        loop invariant count == 0 <==> \forall integer k; 0 <= k < i ==> connected[k] == 0;
        loop assigns i, count;
        loop variant n - i;
     */
    for (i = 0; i < n; i++)
        if (connected[i] != 0)
            count++;
    return count;
}

/* The least of the connected ones, or of all; INT32_MAX of none. */
/*@ requires 0 <= n <= GATE_BATTERIES_MAX && \valid_read(connected + (0 .. n - 1)) && \valid_read(each + (0 .. n - 1));
    assigns \nothing;
    ensures \forall integer i; 0 <= i < n && (all != 0 || connected[i] != 0) ==> \result <= each[i];
    ensures \result == INT32_MAX
      || \exists integer i; 0 <= i < n && (all != 0 || connected[i] != 0) && \result == each[i];
 */
static int32_t bank_least(const int32_t *each, const int32_t *connected, int32_t n, int all)
{
    int32_t i, least_yet = INT32_MAX;
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i && (all != 0 || connected[k] != 0) ==> least_yet <= each[k];
        loop invariant least_yet == INT32_MAX
          || \exists integer k; 0 <= k < i && (all != 0 || connected[k] != 0) && least_yet == each[k];
        loop assigns i, least_yet;
        loop variant n - i;
     */
    for (i = 0; i < n; i++)
        if ((all != 0 || connected[i] != 0) && each[i] < least_yet)
            least_yet = each[i];
    return least_yet;
}

/* The most, INT32_MIN of none. */
/*@ requires 0 <= n <= GATE_BATTERIES_MAX && \valid_read(connected + (0 .. n - 1)) && \valid_read(each + (0 .. n - 1));
    assigns \nothing;
    ensures \forall integer i; 0 <= i < n && (all != 0 || connected[i] != 0) ==> \result >= each[i];
    ensures \result == INT32_MIN
      || \exists integer i; 0 <= i < n && (all != 0 || connected[i] != 0) && \result == each[i];
 */
static int32_t bank_most(const int32_t *each, const int32_t *connected, int32_t n, int all)
{
    int32_t i, most_yet = INT32_MIN;
    /*@ loop invariant 0 <= i <= n;
        loop invariant \forall integer k; 0 <= k < i && (all != 0 || connected[k] != 0) ==> most_yet >= each[k];
        loop invariant most_yet == INT32_MIN
          || \exists integer k; 0 <= k < i && (all != 0 || connected[k] != 0) && most_yet == each[k];
        loop assigns i, most_yet;
        loop variant n - i;
     */
    for (i = 0; i < n; i++)
        if ((all != 0 || connected[i] != 0) && each[i] > most_yet)
            most_yet = each[i];
    return most_yet;
}

/* What all connected ones bear together: so many times the least, nothing of none and of a negative one.
 * count: of the connected ones. */
/*@ requires 0 <= n <= GATE_BATTERIES_MAX && \valid_read(connected + (0 .. n - 1)) && \valid_read(each + (0 .. n - 1));
    requires 0 <= count <= n && count == joined(connected, n);
    assigns \nothing;
    ensures allows(\result, each, connected, n);
 */
static int32_t bank_allows(const int32_t *each, const int32_t *connected, int32_t n, int32_t count)
{
    const int32_t weakest = bank_least(each, connected, n, 0);
    const int64_t all = (int64_t)weakest * count;
    /*@ assert \forall integer i; 0 <= i < n && connected[i] != 0 ==> times(weakest, count) <= times(each[i], count); */
    //@ assert all <= times(weakest, count);
    if (all > INT32_MAX)
        return INT32_MAX;
    return all > 0 ? (int32_t)all : 0;
}

/* The numbers of several batteries as those of one. */
typedef struct {
    int32_t emptiest, fullest, pack_mv, charge_ma, discharge_ma, charge_w, discharge_w, hottest, coldest, cell_max, cell_min;
    int32_t charge_ok, discharge_ok;
} bank_one_t;

/*@ requires \valid_read(bank) && is_bank(bank);
    assigns \nothing;
    ensures allows(\result.charge_ma, &bank->charge_ma_max[0], &bank->connected[0], bank->n);
    ensures allows(\result.discharge_ma, &bank->discharge_ma_max[0], &bank->connected[0], bank->n);
    ensures allows(\result.charge_w, &bank->charge_w_max[0], &bank->connected[0], bank->n);
    ensures allows(\result.discharge_w, &bank->discharge_w_max[0], &bank->connected[0], bank->n);
    ensures at_most(\result.emptiest, &bank->soc_cpct[0], &bank->connected[0], bank->n);
    ensures at_least(\result.fullest, &bank->soc_cpct[0], &bank->connected[0], bank->n);
    ensures 0 <= \result.emptiest <= \result.fullest <= GATE_SOC_CPCT_MAX;
    ensures at_most(\result.pack_mv, &bank->pack_mv[0], &bank->connected[0], bank->n);
    ensures at_most(\result.cell_min, &bank->cell_mv_min[0], &bank->connected[0], bank->n);
    ensures at_least(\result.cell_max, &bank->cell_mv_max[0], &bank->connected[0], bank->n);
    ensures \forall integer i; 0 <= i < bank->n ==>
      bank->temp_max_ddegc[i] <= \result.hottest && \result.coldest <= bank->temp_min_ddegc[i];
    ensures \forall integer i; 0 <= i < bank->n && bank->connected[i] != 0 ==>
      (bank->charge_ok[i] <= 0 ==> \result.charge_ok == 0) && (bank->discharge_ok[i] <= 0 ==> \result.discharge_ok == 0);
    ensures (\forall integer i; 0 <= i < bank->n ==> bank->connected[i] == 0) ==>
      \result.charge_ok == 0 && \result.discharge_ok == 0;
 */
static bank_one_t bank_as_one(const gate_bank_t *bank)
{
    const int32_t n = bank->n, *const who = bank->connected, count = bank_count(who, n);
    const int all = !count; // none is connected: looked at all the same
    const int32_t charge_ok = bank_least(bank->charge_ok, who, n, 0);
    const int32_t discharge_ok = bank_least(bank->discharge_ok, who, n, 0);
    const int32_t emptiest = bank_least(bank->soc_cpct, who, n, all);
    const int32_t fullest = bank_most(bank->soc_cpct, who, n, all);
    bank_one_t one;
    //@ assert all != 0 || \exists integer i; 0 <= i < n && who[i] != 0;
    //@ assert \exists integer i; 0 <= i < n && (all != 0 || who[i] != 0) && emptiest <= bank->soc_cpct[i] <= fullest;
    //@ assert 0 <= emptiest <= fullest <= GATE_SOC_CPCT_MAX;
    one.emptiest = emptiest;
    one.fullest = fullest;
    one.pack_mv = bank_least(bank->pack_mv, who, n, all);
    one.charge_ma = bank_allows(bank->charge_ma_max, who, n, count);
    one.discharge_ma = bank_allows(bank->discharge_ma_max, who, n, count);
    one.charge_w = bank_allows(bank->charge_w_max, who, n, count);
    one.discharge_w = bank_allows(bank->discharge_w_max, who, n, count);
    one.hottest = bank_most(bank->temp_max_ddegc, who, n, 1);
    one.coldest = bank_least(bank->temp_min_ddegc, who, n, 1);
    one.cell_max = bank_most(bank->cell_mv_max, who, n, all);
    one.cell_min = bank_least(bank->cell_mv_min, who, n, all);
    one.charge_ok = !all && charge_ok > 0;
    one.discharge_ok = !all && discharge_ok > 0;
    return one;
}

#endif
