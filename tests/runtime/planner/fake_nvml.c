/* A management library with two GPUs and one that has no power limit, its limits in the file FAKE_NVML, so that they
 * outlive a process as a driver's do. Names and codes after NVIDIA's documentation of the interface. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DONE = 0, WRONG_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, UNKNOWN = 999 };
static int numbers[3] = {0, 1, 2};
static const char *names[3] = {"GPU-aaaa", "GPU-bbbb", "GPU-cccc"};

struct state { unsigned limit_mw[2]; int refuses; unsigned enforced_least_mw; };

static int load(struct state *at) {
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    if (!file) return UNKNOWN;
    int found = fscanf(file, "%u %u %d %u", &at->limit_mw[0], &at->limit_mw[1], &at->refuses, &at->enforced_least_mw);
    fclose(file);
    return found == 4 ? DONE : UNKNOWN;
}

int nvmlInitWithFlags(unsigned flags) { struct state at; (void)flags; return load(&at); }
int nvmlInit_v2(void) { struct state at; return load(&at); }
int nvmlShutdown(void) { return DONE; }
const char *nvmlErrorString(int code) { return code == NO_PERMISSION ? "Insufficient Permissions" : "Fake Error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return DONE; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 2) return WRONG_ARGUMENT;
    *device = &numbers[index];
    return DONE;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(uuid, names[i])) { *device = &numbers[i]; return DONE; }
    return WRONG_ARGUMENT;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "%s", names[*(int *)device]);
    return DONE;
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *least, unsigned *most) {
    if (*(int *)device == 2) return NOT_SUPPORTED;
    *least = 200000, *most = 700000;
    return DONE;
}

int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *limit) {
    struct state at;
    int code = load(&at);
    *limit = at.limit_mw[*(int *)device & 1];
    return code;
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *limit) {
    struct state at;
    int code = load(&at);
    *limit = at.limit_mw[*(int *)device & 1];
    if (*limit < at.enforced_least_mw) *limit = at.enforced_least_mw;
    return code;
}

int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit) {
    struct state at;
    int code = load(&at);
    if (code) return code;
    if (at.refuses) return NO_PERMISSION;
    if (limit < 200000 || limit > 700000) return WRONG_ARGUMENT;
    at.limit_mw[*(int *)device & 1] = limit;
    FILE *file = fopen(getenv("FAKE_NVML"), "w");
    fprintf(file, "%u %u %d %u\n", at.limit_mw[0], at.limit_mw[1], at.refuses, at.enforced_least_mw);
    fclose(file);
    return DONE;
}
