/* What a program under valgrind's callgrind says to it: count from here, and write down under a name what was counted. */
#include <valgrind/callgrind.h>

int gate_running(void) { return RUNNING_ON_VALGRIND; }

void gate_start(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void gate_stop(const char* name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
