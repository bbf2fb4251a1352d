/* tests/fuzz/part_rtu_frame.c: the frames of the engine, in a unit of its own because Cython's helpers are static. */
#include "bus/rtu_frame.c"

#define P(name) __pyx_f_8tidegate_3ext_3bus_9rtu_frame_##name

void *part_crc16 = (void *)P(crc16), *part_crc_append = (void *)P(crc_append), *part_predicted = (void *)P(predicted),
     *part_char_ns = (void *)P(rtu_char_ns), *part_gap_ns = (void *)P(rtu_gap_ns), *part_judge = (void *)P(judge),
     *part_overdue = (void *)P(overdue), *part_judge_framed = (void *)P(judge_framed), *part_noise = (void *)P(noise);

void part_crc_init(void) { P(crc_init)(); }

void part_frame_hand_over(void *note_stray_bytes) {
    *(void **)&__pyx_f_8tidegate_3ext_3bus_9rtu_slave_note_stray_bytes = note_stray_bytes;
}
