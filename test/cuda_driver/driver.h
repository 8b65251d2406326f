// The state of the emulated driver. One GPU, whose memory is the host's.

#pragma once

#include <stdint.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Of CUresult.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

using Work = std::function<Result()>;

struct Event {
    double time = 0;
    bool passed = false, captured = false;
};

struct Graph {
    std::vector<Work> work;
};

struct Stream {
    bool blocking = true;
    std::vector<Work> queue;  // nothing runs before somebody waits, so that a wait that is left out is noticed
    size_t done = 0;          // of the queue
    enum { NOT, CAPTURING, INVALID } capture = NOT;
    uint64_t thread = 0;  // that captures
    Graph captured;
};

struct Block {
    size_t size;
    bool device, host;  // by whom it may be used
};

struct Function {
    std::string name, types;
};

struct Module {
    std::string image;
    std::map<std::string, Function> functions;
};

// Of the primary context. Handles are addresses of what the maps hold; those of a context that was destroyed are invalid.
struct State {
    std::recursive_mutex mutex;
    bool initialised = false;
    bool alive = false;
    int holds = 0;
    Result fault = SUCCESS;
    std::map<uintptr_t, Block> blocks;
    std::map<void *, std::unique_ptr<Stream>> streams;
    std::map<void *, std::unique_ptr<Event>> events;
    std::map<void *, std::unique_ptr<Module>> modules;
    std::map<void *, std::unique_ptr<Graph>> graphs, executables;
    Stream legacy;
    std::map<std::string, int64_t> settings{
        {"memory", int64_t(1) << 30},  // bytes of the GPU
        {"integrated", 0},
        {"fault", 0},            // the next kernel ends with this error
        {"faulty_contexts", 0},  // after a fault, contexts cannot be pushed and popped either
        {"capability", 86},
        {"version", 13050},
    };
};

State &state();

// Tells threads apart.
uint64_t this_thread();

// Begin a call that needs a context. `unsafe`: it is forbidden while this thread captures.
Result enter(bool unsafe = false);

// Put work into a stream, or into what it captures. `null` is the legacy stream.
Result queue(void *stream, Work work);

// Run what a stream has queued.
Result drain(Stream &stream);
Result drain_all();
Stream *find(void *stream);

// Whether all of a range lies in one block that the device, or copies from and to the host, can use.
bool on_device(uintptr_t address, size_t size);
bool on_host(const void *address, size_t size);

void destroy_context();
