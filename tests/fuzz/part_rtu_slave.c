/* tests/fuzz/part_rtu_slave.c: what the engine learns about slaves, in a unit of its own because Cython's helpers are static. */
#include "bus/rtu_slave.c"

#define P(name) __pyx_f_8tidegate_3ext_3bus_9rtu_slave_##name

void *part_timeout_of = (void *)P(timeout_of), *part_slave_ended = (void *)P(slave_ended),
     *part_note_foreign_frame = (void *)P(note_foreign_frame), *part_check_identity = (void *)P(check_identity),
     *part_note_stray_bytes = (void *)P(note_stray_bytes);
