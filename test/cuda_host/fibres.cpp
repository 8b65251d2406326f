// Threads of a block as fibres: made with ucontext, switched with _setjmp and _longjmp, which make no system call.

#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <vector>

#include "launch.h"

extern char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));

namespace cuda_host {
Place place;

namespace {
constexpr size_t STACK = 256 << 10;
constexpr int SHARED_PATTERN = 0xA5;

enum class Wait { RUNNING, BARRIER, EXCHANGE, RETURNED };

struct Fibre {
    ucontext_t context;
    jmp_buf place;
    bool begun = false;
};

struct Thread {
    Wait wait = Wait::RUNNING;
    Fibre *fibre = nullptr;
    unsigned mask = 0;
    uint64_t value = 0;
};

std::vector<Fibre *> all_fibres, idle;
std::vector<Thread> threads;
std::vector<Exchange> exchanges;  // of each warp, the latest
std::vector<unsigned> ready;      // threads that can go on, the next one last
Fibre *running;
unsigned current, next_thread, counted;  // counted: by the latest barrier
Call *call;
jmp_buf finished;
std::string failure;

uint3 index_of(unsigned thread) {
    dim3 size = place.threads;
    return {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
}

[[noreturn]] void finish(const char *why) {
    failure = why;
    _longjmp(finished, 1);
}

// Complete the exchanges that all lanes named by their masks have come to.
void complete_exchanges() {
    for (unsigned warp = 0; warp * 32 < threads.size(); ++warp) {
        for (unsigned lane = 0; lane < 32 && warp * 32 + lane < threads.size(); ++lane) {
            Thread *lanes = &threads[warp * 32];
            unsigned mask = lanes[lane].mask;
            if (lanes[lane].wait != Wait::EXCHANGE) continue;
            bool complete = mask >> lane & 1;
            for (unsigned other = 0; other < 32 && complete; ++other) {
                if (!(mask >> other & 1)) continue;
                complete = warp * 32 + other < threads.size() && lanes[other].wait == Wait::EXCHANGE &&
                           lanes[other].mask == mask;
            }
            if (!complete) continue;
            exchanges[warp].ballot = 0;
            for (unsigned other = 0; other < 32; ++other) {
                if (!(mask >> other & 1)) continue;
                exchanges[warp].values[other] = lanes[other].value;
                exchanges[warp].ballot |= unsigned(lanes[other].value != 0) << other;
                lanes[other].wait = Wait::RUNNING;
                ready.push_back(warp * 32 + other);
            }
        }
    }
}

// No thread can go on by itself: see for whom the others have come. Ends the block when all have returned.
void release() {
    complete_exchanges();
    if (!ready.empty()) return;
    unsigned returned = 0, waiting = 0;
    for (Thread &thread : threads) {
        returned += thread.wait == Wait::RETURNED;
        waiting += thread.wait == Wait::BARRIER;
    }
    if (returned == threads.size()) finish("");
    if (waiting != threads.size())
        finish(waiting == 0 ? "an exchange within a warp names lanes that never come to it"
                            : "some threads of a block wait at __syncthreads, others never come to it");
    counted = 0;
    for (unsigned thread = 0; thread < threads.size(); ++thread) {
        counted += threads[thread].value != 0;
        threads[thread].wait = Wait::RUNNING;
        ready.push_back(thread);
    }
}

void fibre_body();

Fibre *take_fibre() {
    if (!idle.empty()) {
        Fibre *fibre = idle.back();
        idle.pop_back();
        return fibre;
    }
    Fibre *fibre = new Fibre;
    void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) abort();
    getcontext(&fibre->context);
    fibre->context.uc_stack.ss_sp = stack;
    fibre->context.uc_stack.ss_size = STACK;
    fibre->context.uc_link = nullptr;
    all_fibres.push_back(fibre);
    return fibre;
}

// Leave the fibre that runs, for ever or until its thread is ready, for what can go on.
[[noreturn]] void go_on() {
    if (ready.empty() && next_thread == threads.size()) release();
    if (next_thread < threads.size()) {
        running = take_fibre();
    } else {
        current = ready.back();
        ready.pop_back();
        running = threads[current].fibre;
        place.thread = index_of(current);
    }
    if (running->begun) _longjmp(running->place, 1);
    running->begun = true;
    makecontext(&running->context, fibre_body, 0);
    setcontext(&running->context);
    abort();
}

void fibre_body() {
    Fibre *const own = running;
    for (;;) {
        while (next_thread < threads.size()) {
            current = next_thread++;
            threads[current].fibre = own;
            place.thread = index_of(current);
            call->thread();
            threads[current].wait = Wait::RETURNED;
        }
        idle.push_back(own);
        if (!_setjmp(own->place)) go_on();
    }
}

__attribute__((noinline)) void park(Wait wait) {
    Fibre *const own = running;
    threads[current].wait = wait;
    if (!_setjmp(own->place)) go_on();
}

// After an error fibres hang in the middle of their threads: all begin anew.
void forget_fibres() {
    idle = all_fibres;
    for (Fibre *fibre : idle) fibre->begun = false;
}

void run_block() {
    if (__start_cuda_shared) memset(__start_cuda_shared, SHARED_PATTERN, __stop_cuda_shared - __start_cuda_shared);
    threads.assign(threads.size(), Thread());
    ready.clear();
    next_thread = 0;
    if (!_setjmp(finished)) go_on();
    if (!failure.empty()) forget_fibres();
}
}  // namespace

unsigned barrier(uint64_t value) {
    threads[current].value = value;
    park(Wait::BARRIER);
    return counted;
}

const Exchange &exchange(unsigned mask, uint64_t value) {
    threads[current].mask = mask;
    threads[current].value = value;
    unsigned warp = current / 32;
    park(Wait::EXCHANGE);
    return exchanges[warp];
}

std::string run(dim3 blocks, dim3 block, Call &kernel) {
    if (block.x * block.y * block.z > 1024 || block.x * block.y * block.z == 0 || block.z > 64)
        return "expected 1 to 1024 threads in a block and at most 64 in z";
    if (!blocks.x || !blocks.y || !blocks.z || blocks.y > 65535 || blocks.z > 65535)
        return "expected at least one block, and at most 65535 in y and in z";
    call = &kernel;
    place.threads = block;
    place.blocks = blocks;
    threads.resize(block.x * block.y * block.z);
    exchanges.resize((threads.size() + 31) / 32);
    failure.clear();
    for (unsigned z = 0; z < blocks.z; ++z)
        for (unsigned y = 0; y < blocks.y; ++y)
            for (unsigned x = 0; x < blocks.x; ++x) {
                place.block = {x, y, z};
                run_block();
                if (!failure.empty()) return failure;
            }
    return "";
}
}  // namespace cuda_host
