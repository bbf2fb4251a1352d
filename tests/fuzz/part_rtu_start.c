/* tests/fuzz/part_rtu_start.c: the engine's beginning, in a unit of its own because Cython's helpers are static. */
#include "bus/rtu_start.c"

#define P(name) __pyx_f_8tidegate_3ext_3bus_9rtu_start_##name

void *part_engine_made = (void *)P(engine_made);

/* What the module's start would fetch from its neighbours. */
void part_start_hand_over(void *encode, void *char_ns, void *gap_ns) {
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9registers_command_encode = encode;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_rtu_char_ns = char_ns;
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_frame_rtu_gap_ns = gap_ns;
}
