// Emulated driver: streams, events, copies, graphs and kernels.

#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "driver.h"

namespace {
using Launch = const char *(const char *name, const unsigned *grid, const unsigned *block, void **arguments,
                            const char *types);
Launch *launch_on_host;
std::mutex one_kernel;

double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

template <typename T>
T *get(std::map<void *, std::unique_ptr<T>> &all, void *handle) {
    auto found = all.find(handle);
    return found == all.end() ? nullptr : found->second.get();
}

template <typename T>
void *put(std::map<void *, std::unique_ptr<T>> &all, T value) {
    auto made = std::make_unique<T>(std::move(value));
    void *handle = made.get();
    all[handle] = std::move(made);
    return handle;
}

Result copy(void *stream, uintptr_t target, uintptr_t source, size_t size, bool valid) {
    if (!valid) return INVALID_VALUE;
    return queue(stream, [=] {
        memmove(reinterpret_cast<void *>(target), reinterpret_cast<void *>(source), size);
        return SUCCESS;
    });
}

// The types of a kernel's parameters, which the launcher names when it is given others; empty for no such kernel.
std::string types_of(const std::string &name) {
    const unsigned one[] = {1, 1, 1};
    std::string said = launch_on_host ? launch_on_host(name.c_str(), one, one, nullptr, "") : "";
    const std::string before = "expected arguments of types ", after = ", got";
    size_t begin = said.find(before), end = said.find(after);
    if (begin == std::string::npos || end == std::string::npos) return "";
    begin += before.size();
    return said.substr(begin, end - begin);
}

// Where each argument lies in a buffer of parameters; empty if the buffer has another size.
std::vector<size_t> offsets_of(const std::string &types, size_t size) {
    std::vector<size_t> offsets;
    size_t end = 0;
    for (size_t index = 1; index < types.size(); index += 2) {
        size_t each = types[index] - '0';
        offsets.push_back((end + each - 1) / each * each);
        end = offsets.back() + each;
    }
    return end == size ? offsets : std::vector<size_t>();
}

Result run(const Function &function, const unsigned *grid, const unsigned *block, std::string parameters) {
    std::vector<void *> arguments;
    for (size_t offset : offsets_of(function.types, parameters.size())) arguments.push_back(&parameters[offset]);
    {
        std::lock_guard<std::recursive_mutex> lock(state().mutex);
        int64_t &fault = state().settings["fault"];
        if (fault) return state().fault = Result(fault), fault = 0, state().fault;
    }
    std::lock_guard<std::mutex> lock(one_kernel);
    const char *problem = launch_on_host(function.name.c_str(), grid, block, arguments.data(), function.types.c_str());
    if (!problem) return SUCCESS;
    fprintf(stderr, "emulated driver: %s\n", problem);
    return state().fault = LAUNCH_FAILED;
}

bool has_kernel(const std::string &image, const std::string &name) {
    return image.find(std::string(".text.") + name + '\0') != std::string::npos;
}
}  // namespace

#define LOCK std::lock_guard<std::recursive_mutex> lock(state().mutex)
#define ENTER(unsafe) \
    LOCK;             \
    if (Result error = enter(unsafe)) return error

Stream *find(void *stream) { return stream ? get(state().streams, stream) : &state().legacy; }

Result queue(void *handle, Work work) {
    Stream *stream = find(handle);
    if (!stream) return INVALID_HANDLE;
    if (!handle)
        for (auto &[_, other] : state().streams)
            if (other->capture == Stream::CAPTURING && other->blocking)
                return other->capture = Stream::INVALID, CAPTURE_IMPLICIT;
    if (stream->capture == Stream::INVALID) return CAPTURE_INVALIDATED;
    (stream->capture == Stream::CAPTURING ? stream->captured.work : stream->queue).push_back(std::move(work));
    return SUCCESS;
}

// Called with the state locked; work runs unlocked, since some of it is Python's.
Result drain(Stream &stream) {
    while (stream.done < stream.queue.size()) {
        Work work = stream.queue[stream.done++];
        state().mutex.unlock();
        Result result = work();
        state().mutex.lock();
        if (result) return result;
    }
    stream.queue.clear();
    stream.done = 0;
    return state().fault;
}

Result drain_all() {
    for (auto &[_, stream] : state().streams)
        if (Result error = drain(*stream)) return error;
    return drain(state().legacy);
}

EXPORT Result cuStreamCreate(void **stream, unsigned flags) {
    ENTER(true);
    Stream made;
    made.blocking = !(flags & 1);
    return *stream = put(state().streams, std::move(made)), SUCCESS;
}

EXPORT Result cuStreamDestroy_v2(void *handle) {
    ENTER(false);
    Stream *stream = get(state().streams, handle);
    if (!stream) return INVALID_HANDLE;
    Result result = drain(*stream);
    state().streams.erase(handle);
    return result;
}

static Result wait(void *handle) {
    Stream *stream = find(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture != Stream::NOT) return stream->capture = Stream::INVALID, CAPTURE_UNSUPPORTED;
    return drain(*stream);
}

EXPORT Result cuStreamSynchronize(void *handle) {
    ENTER(false);
    return wait(handle);
}

EXPORT Result cuCtxSynchronize() {
    ENTER(true);
    return drain_all();
}

EXPORT Result cuStreamQuery(void *handle) {
    ENTER(false);
    return wait(handle);
}

EXPORT Result cuEventCreate(void **event, unsigned) {
    ENTER(false);
    return *event = put(state().events, Event()), SUCCESS;
}

EXPORT Result cuEventDestroy_v2(void *event) {
    ENTER(false);
    return state().events.erase(event) ? SUCCESS : INVALID_HANDLE;
}

EXPORT Result cuEventRecord(void *handle, void *stream) {
    ENTER(false);
    Event *event = get(state().events, handle);
    if (!event || !find(stream)) return INVALID_HANDLE;
    *event = Event();
    event->captured = find(stream)->capture != Stream::NOT;
    if (event->captured) return SUCCESS;
    return queue(stream, [event] { return event->time = now(), event->passed = true, SUCCESS; });
}

EXPORT Result cuEventElapsedTime(float *milliseconds, void *begin, void *end) {
    ENTER(false);
    Event *first = get(state().events, begin), *second = get(state().events, end);
    if (!first || !second) return INVALID_HANDLE;
    if (first->captured || second->captured) return CAPTURED_EVENT;
    if (!first->passed || !second->passed) return NOT_READY;
    return *milliseconds = float(1e3 * (second->time - first->time)), SUCCESS;
}

EXPORT Result cuMemcpyHtoDAsync_v2(uintptr_t target, const void *source, size_t size, void *stream) {
    ENTER(false);
    return copy(stream, target, uintptr_t(source), size, on_device(target, size) && on_host(source, size));
}

EXPORT Result cuMemcpyDtoHAsync_v2(void *target, uintptr_t source, size_t size, void *stream) {
    ENTER(false);
    return copy(stream, uintptr_t(target), source, size, on_device(source, size) && on_host(target, size));
}

EXPORT Result cuMemcpyDtoDAsync_v2(uintptr_t target, uintptr_t source, size_t size, void *stream) {
    ENTER(false);
    return copy(stream, target, source, size, on_device(target, size) && on_device(source, size));
}

EXPORT Result cuMemsetD8Async(uintptr_t target, unsigned char value, size_t size, void *stream) {
    ENTER(false);
    if (!on_device(target, size)) return INVALID_VALUE;
    return queue(stream, [=] { return memset(reinterpret_cast<void *>(target), value, size), SUCCESS; });
}

EXPORT Result cuLaunchHostFunc(void *stream, void (*function)(void *), void *argument) {
    ENTER(false);
    return queue(stream, [=] { return function(argument), SUCCESS; });
}

EXPORT Result cuStreamBeginCapture_v2(void *handle, int) {
    ENTER(false);
    Stream *stream = get(state().streams, handle);
    if (!stream) return handle ? INVALID_HANDLE : CAPTURE_UNSUPPORTED;
    if (stream->capture != Stream::NOT) return INVALID_VALUE;
    stream->capture = Stream::CAPTURING;
    stream->thread = this_thread();
    return SUCCESS;
}

EXPORT Result cuStreamEndCapture(void *handle, void **graph) {
    ENTER(false);
    Stream *stream = get(state().streams, handle);
    *graph = nullptr;
    if (!stream) return INVALID_HANDLE;
    if (stream->capture == Stream::NOT) return CAPTURE_UNMATCHED;
    if (stream->thread != this_thread()) return CAPTURE_WRONG_THREAD;
    bool invalid = stream->capture == Stream::INVALID;
    Graph captured = std::move(stream->captured);
    stream->captured = Graph();
    stream->capture = Stream::NOT;
    if (invalid) return CAPTURE_INVALIDATED;
    return *graph = put(state().graphs, std::move(captured)), SUCCESS;
}

EXPORT Result cuGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long) {
    ENTER(false);
    Graph *graph = get(state().graphs, handle);
    if (!graph) return INVALID_VALUE;
    return *executable = put(state().executables, *graph), SUCCESS;
}

EXPORT Result cuGraphDestroy(void *graph) {
    LOCK;
    return state().graphs.erase(graph) ? SUCCESS : INVALID_VALUE;
}

EXPORT Result cuGraphExecDestroy(void *executable) {
    LOCK;
    if (state().executables.erase(executable)) return SUCCESS;
    fprintf(stderr, "emulated driver: a graph is destroyed that is gone, where CUDA may crash\n");
    return INVALID_VALUE;
}

EXPORT Result cuGraphLaunch(void *handle, void *stream) {
    ENTER(false);
    Graph *graph = get(state().executables, handle);
    if (!graph) return INVALID_VALUE;
    for (const Work &work : graph->work)
        if (Result error = queue(stream, work)) return error;
    return SUCCESS;
}

EXPORT Result cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    ENTER(true);
    // CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES and CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES come back as what was written: nothing.
    for (unsigned index = 0; index < count; ++index)
        if (options[index] == 4 || options[index] == 6) values[index] = nullptr;
    auto *header = static_cast<const Elf64_Ehdr *>(image);
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return INVALID_IMAGE;
    size_t size = header->e_shoff + size_t(header->e_shnum) * header->e_shentsize;
    Module made;
    made.image.assign(static_cast<const char *>(image), size);
    return *module = put(state().modules, std::move(made)), SUCCESS;
}

EXPORT Result cuModuleLoadData(void **module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

EXPORT Result cuModuleUnload(void *module) {
    ENTER(true);
    return state().modules.erase(module) ? SUCCESS : INVALID_HANDLE;
}

EXPORT Result cuModuleGetFunction(void **function, void *handle, const char *name) {
    ENTER(false);
    Module *module = get(state().modules, handle);
    if (!module) return INVALID_HANDLE;
    std::string types = types_of(name);
    if (types.empty() || !has_kernel(module->image, name)) return NOT_FOUND;
    return *function = &(module->functions[name] = {name, types}), SUCCESS;
}

EXPORT Result cuFuncGetAttribute(int *value, int, void *) {
    *value = 1;
    return enter();
}

EXPORT Result cuLaunchKernel(void *handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                             unsigned block_y, unsigned block_z, unsigned, void *stream, void **, void **extra) {
    ENTER(false);
    Function function = *static_cast<Function *>(handle);
    // CU_LAUNCH_PARAM_BUFFER_POINTER, the buffer, CU_LAUNCH_PARAM_BUFFER_SIZE, its size.
    std::string parameters(static_cast<char *>(extra[1]), *static_cast<size_t *>(extra[3]));
    if (offsets_of(function.types, parameters.size()).empty()) return INVALID_VALUE;
    return queue(stream, [=] {
        const unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
        return run(function, grid, block, parameters);
    });
}

// For tests: who runs kernels, `cuda_host_launch` of the kernels compiled for the host.
EXPORT void emulated_launcher(Launch *launcher) { launch_on_host = launcher; }
