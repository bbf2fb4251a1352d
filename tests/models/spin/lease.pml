/* A setpoint under a lease: it ends at its time whatever becomes of the gateway, and who has lost the lease orders
 * nothing. Time is a process of its own; the core compares with its own clock in every cycle.
 * PLANT_COPY: the core judges an order only when it is new. PLANT_OWNER: the gateway does not ask who holds the lease. */
#define END 6
#define LASTS 2
byte now, owner, lease_until;     /* the gateway's: 0 = nobody */
byte order_by, order_until;       /* the slot; its wholeness is mailbox.pml's */
bit killed;

active proctype clock() { do :: now < END -> now++ :: else -> break od }

proctype client(byte me) {
    byte asks;
    do
    :: asks < 2 ->
        asks++;
        atomic { /* one thread of the gateway does a whole request */
            if
            :: !killed && (owner == 0 || now >= lease_until) -> owner = me; lease_until = now + LASTS
            :: else
            fi
        };
        atomic {
            if
#ifdef PLANT_OWNER
            :: !killed ->
#else
            :: !killed && owner == me && now < lease_until ->
#endif
                order_by = me; order_until = lease_until;
                assert(order_by == owner && now < order_until)
            :: else
            fi
        }
    :: else -> break
    od
}

active proctype death() { if :: killed = 1 :: true fi }

active proctype core() {
    byte by, until;
    bit acts;
    do
    :: now < END ->
        d_step { /* a cycle has one time */
#ifdef PLANT_COPY
            if :: order_by != by || order_until != until -> by = order_by; until = order_until; acts = until > now :: else fi;
#else
            by = order_by; until = order_until;
            acts = until > now;
#endif
            assert(!acts || (by != 0 && now < until))
        }
    :: else -> break
    od
}

init { run client(1); run client(2) }
