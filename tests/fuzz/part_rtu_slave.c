/* tests/fuzz/part_rtu_slave.c: the other half of the engine, in a unit of its own because Cython's helpers are static. */
#include "bus/rtu_slave.c"

#define P(name) __pyx_f_8tidegate_3ext_3bus_9rtu_slave_##name

void *part_timeout_of = (void *)P(timeout_of), *part_slave_ended = (void *)P(slave_ended), *part_suspect = (void *)P(suspect),
     *part_prove = (void *)P(prove);
