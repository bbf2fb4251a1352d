/* Finished transactions from a port to the loop (port_done_begin, _commit, _peek, _pop): none changed, none out of order,
 * and each one that has no room is counted.
 * PLANT_FULL: one slot too many is given out. PLANT_EARLY: the head moves before the slot is filled. */
#define SLOTS 2
#define ALL 5
byte slot[SLOTS], head, tail, dropped, taken;
bit finished;

active proctype port() {
    byte n, seen;
    do
    :: n < ALL ->
        n++;
        seen = tail;
#ifdef PLANT_FULL
        if
        :: head - seen > SLOTS -> dropped++
#else
        if
        :: head - seen >= SLOTS -> dropped++
#endif
        :: else ->
#ifdef PLANT_EARLY
            head++;
            slot[(head - 1) % SLOTS] = n
#else
            slot[head % SLOTS] = n;
            head++
#endif
        fi
    :: else -> break
    od;
    finished = 1
}

active proctype loop() {
    byte last, before;
    do
    :: head != tail ->
        before = slot[tail % SLOTS];
        assert(before > last);
        assert(before == slot[tail % SLOTS]); /* it stands still while it is being read */
        last = before;
        taken++;
        tail++
    :: finished && head == tail -> break
    od;
    assert(taken + dropped == ALL)
}
