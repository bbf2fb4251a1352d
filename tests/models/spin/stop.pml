/* A stop, by the API and by a signal, with a gateway that may be killed at any moment and starts again from its file:
 * once "applied" has been said, or the signal was taken, no cycle gives power until a person on site lifts it.
 * PLANT_ANSWER: the answer does not wait for the core. PLANT_FILE: the new gateway does not read its file.
 * PLANT_REMOTE: an order from another machine lifts a stop by signal. */
bit mode_stop, signal_stop;  /* the mailbox */
bit on_file, promised;
byte number, applied;        /* of the gateway's order; of the one that the core acted on */
bit signalled, ended;
byte kills = 1, lifts = 1;

active proctype gateway() {
start:
#ifdef PLANT_FILE
    mode_stop = 0;
#else
    mode_stop = on_file;
#endif
    do
    :: !promised -> /* a stop is asked for */
        on_file = 1;
        if :: kills > 0 -> kills--; goto start :: true fi;
        atomic { mode_stop = 1; number++ };
#ifndef PLANT_ANSWER
        applied == number || ended;
#endif
        promised = 1
    :: promised && kills > 0 -> kills--; goto start
    /* Run, by a person on site: the promise ends with it. In one piece: a signal in the middle of a lift is not looked at. */
    :: atomic { promised && lifts > 0 -> lifts--; promised = 0; on_file = 0; mode_stop = 0; signal_stop = 0 }
#ifdef PLANT_REMOTE
    :: signal_stop -> signal_stop = 0 /* run, from another machine */
#endif
    :: promised && lifts == 0 -> break
    od
}

active proctype signal() {
    if
    :: true
    :: atomic { signal_stop = 1; signalled = 1; lifts = 0 } /* nobody is on site from here */
    fi
}

active proctype core() {
    byte cycles, seen;
    bit stops, told;
    do
    :: cycles < 4 ->
        cycles++;
        d_step { stops = mode_stop || signal_stop; seen = number; told = signalled }; /* read */
        d_step {                                                                      /* write */
            applied = seen;
            assert(stops || (!promised && !told))
        }
    :: else -> break
    od;
    ended = 1 /* a core that has ended drives nothing */
}
