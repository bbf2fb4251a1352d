/* The sleep of a port's thread and the bell that wakes it (command_ring; the wait in ext/bus/port.pyx): a setpoint is
 * never left lying while the thread sleeps. The sleep has no time limit here, so that a lost call is a deadlock.
 * PLANT_LATE: the bell's count is taken after the look at the slots. PLANT_QUIET: the flag is set after that look. */
#define PUTS 3
byte seq, bell;
bit sleeping, waiting;

active proctype loop() {
    byte n;
    do
    :: n < PUTS ->
        n++;
        seq = n;
        bell++;
        if :: sleeping -> waiting = 0 :: else fi
    :: else -> break
    od
}

active proctype port() {
    byte count, done;
    do
    :: done == PUTS -> break
    :: else ->
#ifndef PLANT_LATE
        count = bell;
#endif
#ifndef PLANT_QUIET
        sleeping = 1;
#endif
        if
        :: seq != done -> done = seq
        :: else ->
#ifdef PLANT_LATE
            count = bell;
#endif
            atomic { if :: bell == count -> waiting = 1 :: else fi };
#ifdef PLANT_QUIET
            sleeping = 1;
#endif
            waiting == 0
        fi;
        sleeping = 0
    od
}
