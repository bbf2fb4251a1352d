/* An order in the mailbox (order_put, order_get): the gateway may be killed in the middle and begins anew; the core
 * takes an order whole or not at all. Two words of payload stand for all of them.
 * PLANT_RECHECK: the reader does not look at the number again. PLANT_KILLED: the writer trusts the number it finds. */
#define WRITES 3
#define READS 3
byte seq, a, b, kills = 2;

active proctype gateway() {
    byte n, odd;
again:
    do
    :: n < WRITES ->
        n++;
#ifdef PLANT_KILLED
        odd = seq + 1;
#else
        odd = (seq + 1) | 1;
#endif
        seq = odd;
        if :: kills > 0 -> kills--; goto again :: true fi;
        a = n;
        if :: kills > 0 -> kills--; goto again :: true fi;
        b = n;
        if :: kills > 0 -> kills--; goto again :: true fi;
        seq = odd + 1
    :: else -> break
    od
}

active proctype core() {
    byte before, x, y, reads;
    do
    :: reads < READS ->
        reads++;
        before = seq;
        if
        :: before & 1
        :: else ->
            if :: x = a; y = b :: y = b; x = a fi;
#ifdef PLANT_RECHECK
            assert(x == y)
#else
            if :: d_step { seq == before; assert(x == y) } :: seq != before fi
#endif
        fi
    :: else -> break
    od
}
