/* A FAKE of NVIDIA's libnvidia-ml, for tests on machines without a GPU. It invents one GPU; nothing in it was recorded.
 *
 * The environment says how it behaves:
 *   FAKE_NVML_INIT=CODE         nvmlInit fails with that code
 *   FAKE_NVML_ANSWER=CODE       whatever is asked about the GPU, its name apart, fails with that code
 *   FAKE_NVML_LOST_AFTER=N      the GPU is lost after N looks at its throttling
 *   FAKE_NVML_FIELDS=N          only the first N throttling fields are known (old drivers)
 */
#include <stdlib.h>
#include <string.h>

#define SUCCESS 0
#define NOT_SUPPORTED 3
#define INSUFFICIENT_SIZE 7
#define GPU_IS_LOST 15

typedef struct { unsigned id, scope; long long timestamp, latency; int type, status; union { unsigned long long ull; } value; } field_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process_t;

static int looks = 0;

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int answer(void) {
    int lost_after = setting("FAKE_NVML_LOST_AFTER", -1);
    if (lost_after >= 0 && looks >= lost_after) return GPU_IS_LOST;
    return setting("FAKE_NVML_ANSWER", SUCCESS);
}

int nvmlInitWithFlags(unsigned flags) { return setting("FAKE_NVML_INIT", SUCCESS); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "an error of the fake"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return SUCCESS; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)1; return strcmp(uuid, "GPU-fake") ? 6 : SUCCESS; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) { *device = (void *)1; return strcmp(bus, "0000:01:00.0") ? 6 : SUCCESS; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { strncpy(name, "Fake GPU", length); return SUCCESS; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { strncpy(version, "999.1", length); return SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) { strncpy(uuid, "GPU-fake", length); return answer(); }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = 8; *minor = 9; return answer(); }
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) { *mhz = 1500 + 100 * looks; return answer(); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw) { *mw = 450000; return answer(); }
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) { *mw = 300000; return answer(); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { *celsius = 60 + looks; return answer(); }
int nvmlDeviceGetEccMode(void *device, unsigned *now, unsigned *next) { *now = 0; *next = 1; return answer(); }
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next) { *now = 0; *next = 0; return answer(); }
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) { *reasons = 0x4; return answer(); }

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
    if (answer() != SUCCESS) return answer();
    if (*count < 2) { *count = 2; return INSUFFICIENT_SIZE; }
    *count = 2;
    memset(found, 0, 2 * sizeof *found);
    found[0].pid = 11;
    found[1].pid = 12;
    return SUCCESS;
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *device, unsigned *count, process_t *found) { *count = 0; return answer(); }

int nvmlDeviceGetFieldValues(void *device, int count, field_t *values) {
    looks++;
    if (answer() != SUCCESS) return answer();
    for (int place = 0; place < count; place++) {
        values[place].type = 3;
        values[place].status = place < setting("FAKE_NVML_FIELDS", count) ? SUCCESS : NOT_SUPPORTED;
        values[place].value.ull = 1000000000000ULL + 2000000ULL * (unsigned)looks * (unsigned)(place == 0);
    }
    return SUCCESS;
}
