/* A ring of pictures or events (snapshot_push, snapshot_read): the writer never waits and overtakes slow readers, who
 * must then hear so and never see parts of two pictures.
 * PLANT_RECHECK: no second look at the slot. PLANT_OPEN: the writer leaves the old number on a slot that it fills. */
#define SLOTS 2
#define PICTURES 5
byte seq[SLOTS], a[SLOTS], b[SLOTS], head;

active proctype loop() {
    byte at;
    do
    :: head < PICTURES ->
        at = head % SLOTS;
#ifndef PLANT_OPEN
        seq[at] = 0;
#endif
        a[at] = head;
        b[at] = head;
        seq[at] = head + 1;
        head = head + 1
    :: else -> break
    od
}

active proctype reader() {
    byte number, before, x, y, at;
    do
    :: number < PICTURES && head > number ->
        at = number % SLOTS;
        before = seq[at];
        if
        :: before != number + 1 -> assert(before == 0 || before > number + 1) /* overtaken, or being overtaken */
        :: else ->
            if :: x = a[at]; y = b[at] :: y = b[at]; x = a[at] fi;
#ifdef PLANT_RECHECK
            assert(x == number && y == number)
#else
            if :: d_step { seq[at] == before; assert(x == number && y == number) } :: seq[at] != before fi
#endif
        fi;
        number++
    :: number == PICTURES -> break
    od
}
