// Emulated driver: the device, contexts and memory.

#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "driver.h"

namespace {
constexpr int UNINITIALISED_BYTE = 0xCD;
constexpr int MAPPED = 2;  // CU_MEMHOSTALLOC_DEVICEMAP
char primary;              // its address is the handle; it stays the same when the context is made anew
thread_local std::vector<void *> stack;

Result context_fault() { return state().settings["faulty_contexts"] ? state().fault : SUCCESS; }

size_t used() {
    size_t sum = 0;
    for (auto &[address, block] : state().blocks) sum += block.device ? block.size : 0;
    return sum;
}

bool inside(uintptr_t address, size_t size, bool Block::*side) {
    auto next = state().blocks.upper_bound(address);
    if (next == state().blocks.begin()) return false;
    auto &[base, block] = *--next;
    return block.*side && address - base <= block.size && size <= block.size - (address - base);
}

Result allocate(uintptr_t *address, size_t size, bool device, bool host) {
    if (Result error = enter(true)) return error;
    if (!size) return INVALID_VALUE;
    if (used() + size > size_t(state().settings["memory"])) return OUT_OF_MEMORY;
    void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
    memset(memory, UNINITIALISED_BYTE, size);
    *address = uintptr_t(memory);
    state().blocks[*address] = {size, device, host};
    return SUCCESS;
}

Result release(uintptr_t address, bool Block::*side) {
    if (Result error = enter(true)) return error;
    if (Result error = drain_all()) return error;
    auto found = state().blocks.find(address);
    if (found == state().blocks.end() || !(found->second.*side)) return INVALID_VALUE;
    state().blocks.erase(found);
    free(reinterpret_cast<void *>(address));
    return SUCCESS;
}
}  // namespace

State &state() {
    static State *all = new State;  // never destroyed: Python calls until the very end
    return *all;
}

uint64_t this_thread() { return uint64_t(&stack); }

Result enter(bool unsafe) {
    if (!state().initialised) return NOT_INITIALIZED;
    if (stack.empty()) return INVALID_CONTEXT;
    if (!state().alive) return CONTEXT_IS_DESTROYED;
    if (state().fault) return state().fault;
    if (!unsafe) return SUCCESS;
    Result result = SUCCESS;
    for (auto &[handle, stream] : state().streams)
        if (stream->capture == Stream::CAPTURING && stream->thread == this_thread()) {
            stream->capture = Stream::INVALID;
            result = CAPTURE_UNSUPPORTED;
        }
    return result;
}

bool on_device(uintptr_t address, size_t size) { return inside(address, size, &Block::device); }
bool on_host(const void *address, size_t size) { return inside(uintptr_t(address), size, &Block::host); }

void destroy_context() {
    State &all = state();
    for (auto &[address, block] : all.blocks) free(reinterpret_cast<void *>(address));
    all.blocks.clear();
    all.streams.clear();
    all.events.clear();
    all.modules.clear();
    all.graphs.clear();
    all.executables.clear();
    all.legacy = Stream();
    all.alive = false;
    all.fault = SUCCESS;
}

#define LOCK std::lock_guard<std::recursive_mutex> lock(state().mutex)

EXPORT Result cuInit(unsigned) { return state().initialised = true, SUCCESS; }
EXPORT Result cuDriverGetVersion(int *version) { return *version = state().settings["version"], SUCCESS; }

EXPORT Result cuGetErrorString(int code, const char **text) {
    static const std::map<int, const char *> texts{
        {INVALID_VALUE, "invalid argument"},
        {OUT_OF_MEMORY, "out of memory"},
        {NOT_INITIALIZED, "initialization error"},
        {INVALID_DEVICE, "invalid device ordinal"},
        {INVALID_IMAGE, "device kernel image is invalid"},
        {INVALID_CONTEXT, "invalid device context"},
        {INVALID_HANDLE, "invalid resource handle"},
        {NOT_FOUND, "named symbol not found"},
        {NOT_READY, "device not ready"},
        {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
        {CONTEXT_IS_DESTROYED, "context is destroyed"},
        {MISALIGNED_ADDRESS, "misaligned address"},
        {LAUNCH_FAILED, "unspecified launch failure"},
        {NOT_SUPPORTED, "operation not supported"},
        {CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
        {CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"},
        {CAPTURE_UNMATCHED, "capture was not initiated in this stream"},
        {CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream"},
        {CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"},
        {CAPTURE_WRONG_THREAD, "attempt to terminate a thread-local capture sequence from another thread"},
    };
    auto found = texts.find(code);
    *text = found == texts.end() ? nullptr : found->second;
    return *text ? SUCCESS : INVALID_VALUE;
}

EXPORT Result cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
EXPORT Result cuDeviceGet(int *device, int index) { return *device = 0, index == 0 ? SUCCESS : INVALID_DEVICE; }

EXPORT Result cuDeviceGetName(char *name, int size, int) {
    strncpy(name, "Emulated GPU", size);
    return SUCCESS;
}

EXPORT Result cuDeviceGetAttribute(int *value, int attribute, int) {
    int capability = state().settings["capability"], integrated = state().settings["integrated"];
    static const std::map<int, int> kinds{{18, 0}, {19, 1}, {75, 2}, {76, 3}};
    auto kind = kinds.find(attribute);
    if (kind == kinds.end()) return INVALID_VALUE;
    const int values[] = {integrated, 1, capability / 10, capability % 10};  // 1: every GPU can map host memory
    *value = values[kind->second];
    return SUCCESS;
}

EXPORT Result cuDevicePrimaryCtxRetain(void **context, int) {
    LOCK;
    if (!state().initialised) return NOT_INITIALIZED;
    ++state().holds;
    state().alive = true;
    *context = &primary;
    return SUCCESS;
}

EXPORT Result cuDevicePrimaryCtxRelease_v2(int) {
    LOCK;
    if (!state().holds) return INVALID_CONTEXT;
    if (!--state().holds) destroy_context();
    return SUCCESS;
}

EXPORT Result cuDevicePrimaryCtxReset_v2(int) {
    LOCK;
    destroy_context();
    return SUCCESS;
}

EXPORT Result cuCtxPushCurrent_v2(void *context) {
    LOCK;
    if (context != &primary) return INVALID_CONTEXT;
    if (!state().alive) return CONTEXT_IS_DESTROYED;
    if (Result error = context_fault()) return error;
    stack.push_back(context);
    return SUCCESS;
}

EXPORT Result cuCtxPopCurrent_v2(void **context) {
    LOCK;
    if (stack.empty()) return INVALID_CONTEXT;
    if (Result error = context_fault()) return error;
    *context = stack.back();
    stack.pop_back();
    return SUCCESS;
}

EXPORT Result cuCtxGetDevice(int *device) {
    *device = 0;
    return enter();
}

EXPORT Result cuMemAlloc_v2(uintptr_t *address, size_t size) {
    LOCK;
    return allocate(address, size, true, false);
}

EXPORT Result cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    LOCK;
    return allocate(reinterpret_cast<uintptr_t *>(address), size, flags & MAPPED, true);
}

EXPORT Result cuMemFree_v2(uintptr_t address) {
    LOCK;
    return release(address, &Block::device);
}

EXPORT Result cuMemFreeHost(void *address) {
    LOCK;
    return release(uintptr_t(address), &Block::host);
}

EXPORT Result cuMemHostGetDevicePointer_v2(uintptr_t *device, void *host, unsigned) {
    LOCK;
    if (Result error = enter()) return error;
    *device = uintptr_t(host);
    return on_device(*device, 1) ? SUCCESS : INVALID_VALUE;
}

EXPORT Result cuMemGetInfo_v2(size_t *unused, size_t *total) {
    LOCK;
    *total = state().settings["memory"];
    *unused = *total - std::min(*total, used());
    return enter();
}

// For tests: change how the driver behaves, and count what exists.
EXPORT void emulated_set(const char *name, int64_t value) {
    LOCK;
    state().settings.at(name) = value;
}

EXPORT void emulated_clear_stack() { stack.clear(); }

EXPORT int64_t emulated_count(const char *name) {
    LOCK;
    State &all = state();
    const std::map<std::string, size_t> counts{
        {"blocks", all.blocks.size()},   {"streams", all.streams.size()}, {"events", all.events.size()},
        {"modules", all.modules.size()}, {"graphs", all.graphs.size()},   {"executables", all.executables.size()},
        {"holds", all.holds},            {"current", stack.size()},
    };
    return counts.at(name);
}
