/* tests/fuzz/part_rtu_finish.c: the end of a transaction, in a unit of its own because Cython's helpers are static. */
#include "bus/rtu_finish.c"

#define P(name) __pyx_f_8tidegate_3ext_3bus_10rtu_finish_##name

extern void *part_slave_ended, *part_check_identity;

void *part_transaction_ended = (void *)P(transaction_ended);

/* What the module's start would fetch from its neighbours. */
void part_finish_hand_over(void *believable) {
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9registers_block_believable = believable;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_slave_slave_ended = part_slave_ended;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_slave_check_identity = part_check_identity;
}
