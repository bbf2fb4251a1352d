/* One limit for two sites: leases above their floors, from a hub that forgets all at a restart, over a line that loses,
 * delays and doubles. Room for one lease of 1 beside one of 1, or one of 2. A site's lease lasts TERM of its own ticks
 * from when it asked; its clock may stand still SLOW times within a term, and the hub holds a lease that much longer.
 * PLANT_RECEIPT: the term begins when the answer comes. PLANT_SKEW: the hub holds a lease for TERM only. PLANT_WAIT: a
 * hub that starts again gives at once. PLANT_NEWEST: a smaller lease frees what a bigger one held. */
#define TERM 2
#define SLOW 1
#ifdef PLANT_SKEW
#define HOLD TERM
#else
#define HOLD (TERM + SLOW)
#endif
#define ROOM 2
#define OLD 3                      /* an answer older than this is of no use to anybody: see `tick` */
typedef site_t {
    byte asked;                    /* own ticks since it asked, OLD = not asking */
    byte ask;
    bit  given; byte given_w;      /* the answer on the way; it stays there, so it may come late and twice */
    byte left, extra;              /* own ticks that the lease has left, and what it adds */
    byte stood;                    /* times that its clock stood still within this term */
    byte held[4];                  /* the hub's: ticks that a lease of so much is held */
};
site_t s[2];
byte wait;                         /* hub ticks until it gives again */

#define HELD(i) (s[i].held[2] > 0 -> 2 : (s[i].held[1] > 0 -> 1 : 0))
#define LIVE(i) (s[i].left > 0 -> s[i].extra : 0)
#define SAFE    assert(LIVE(0) + LIVE(1) <= ROOM)

inline older(i) {
    if :: s[i].asked < OLD -> s[i].asked++ :: else fi;
    if :: s[i].left > 0 -> s[i].left-- :: else fi;
    if :: s[i].asked >= OLD -> s[i].given = 0; s[i].given_w = 0; s[i].ask = 0 :: else fi
}
inline tick(i) {                   /* a clock stands still at most SLOW times from asking to the lease's end */
    if
    :: older(i); if :: s[i].left == 0 && s[i].asked >= OLD -> s[i].stood = 0 :: else fi
    :: s[i].stood < SLOW && (s[i].left > 0 || s[i].asked < OLD) -> s[i].stood++
    fi
}
inline wane(i) {
    if :: s[i].held[1] > 0 -> s[i].held[1]-- :: else fi;
    if :: s[i].held[2] > 0 -> s[i].held[2]-- :: else fi
}
inline give(i, j, w) {             /* w for i, beside all that j may have */
    if
    :: wait == 0 && w + HELD(j) <= ROOM ->
        s[i].given = 1; s[i].given_w = w;
#ifdef PLANT_NEWEST
        s[i].held[1] = 0; s[i].held[2] = 0;
#endif
        s[i].held[w] = HOLD
    :: else
    fi
}
inline take(i) {
#ifdef PLANT_RECEIPT
    s[i].extra = s[i].given_w; s[i].left = TERM;
#else
    if
    :: s[i].asked < TERM -> s[i].extra = s[i].given_w; s[i].left = TERM - s[i].asked
    :: else
    fi;
#endif
    SAFE
}
inline site(i, j) {
    if
    :: s[i].asked >= OLD && s[i].stood == 0 -> s[i].asked = 0; s[i].ask = 1
    :: s[i].asked >= OLD && s[i].stood == 0 -> s[i].asked = 0; s[i].ask = 2
    :: s[i].ask > 0 -> give(i, j, s[i].ask)            /* the request arrives, again perhaps */
    :: s[i].ask > 0 -> give(i, j, 1)                   /* or gets less */
    :: s[i].given -> take(i)
    fi
}

active proctype world() {
    do
    :: d_step { wane(0); wane(1); if :: wait > 0 -> wait-- :: else fi }; atomic { tick(0); tick(1); SAFE }
    :: atomic { site(0, 1) }
    :: atomic { site(1, 0) }
    :: atomic { /* the hub ends and begins, and knows nothing */
        s[0].held[1] = 0; s[0].held[2] = 0; s[1].held[1] = 0; s[1].held[2] = 0;
#ifndef PLANT_WAIT
        wait = HOLD
#else
        skip
#endif
       }
    od
}
