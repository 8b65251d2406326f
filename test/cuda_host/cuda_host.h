// CUDA C++ as far as the kernels use it, for a C++ compiler: one block after the other, its threads as fibres.
//
// A fibre runs thread after thread to their ends; only a thread that comes to a barrier or to an exchange within its
// warp keeps its stack and waits until the others have come there, too. What a GPU may punish with a hang or with
// silence, a barrier that some threads never reach, ends the launch with an error here. Shared memory is filled with a
// pattern before each block, so that reading what nobody wrote shows.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

namespace cuda_host {
struct Place { uint3 thread, block; dim3 threads, blocks; };
// Of the thread that runs.
extern Place place;

// Wait for all threads of the block; returns how many of them gave a value other than 0.
unsigned barrier(uint64_t value);

// What every lane of a warp gave.
struct Exchange { uint64_t values[32]; unsigned ballot; };

// Give a value to the lanes in `mask`, and wait for theirs.
const Exchange &exchange(unsigned mask, uint64_t value);

template <typename T>
T from_lane(const Exchange &all, unsigned lane) {
    T value;
    memcpy(&value, &all.values[lane & 31], sizeof value);
    return value;
}

template <typename T>
const Exchange &give(unsigned mask, T value) {
    uint64_t bits = 0;
    static_assert(sizeof value <= sizeof bits, "a lane gives at most 64 bits");
    memcpy(&bits, &value, sizeof value);
    return exchange(mask, bits);
}

inline unsigned lane() {
    const Place &p = place;
    return (p.thread.x + p.threads.x * (p.thread.y + p.threads.y * p.thread.z)) & 31;
}

template <typename T, typename F>
T reduce(unsigned mask, T value, F combine) {
    const Exchange &all = give(mask, value);
    bool first = true;
    for (unsigned other = 0; other < 32; ++other) {
        if (!(mask >> other & 1)) continue;
        T theirs = from_lane<T>(all, other);
        value = first ? theirs : combine(value, theirs);
        first = false;
    }
    return value;
}
}  // namespace cuda_host

#define threadIdx (cuda_host::place.thread)
#define blockIdx (cuda_host::place.block)
#define blockDim (cuda_host::place.threads)
#define gridDim (cuda_host::place.blocks)
constexpr int warpSize = 32;

inline void __syncthreads() { cuda_host::barrier(0); }
inline int __syncthreads_count(int predicate) { return int(cuda_host::barrier(predicate != 0)); }
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(!predicate) == 0; }
inline void __syncwarp(unsigned mask = ~0u) { cuda_host::exchange(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// Warps. A lane outside the mask, or one that has returned, must not be named by it.
inline unsigned __ballot_sync(unsigned mask, int predicate) { return cuda_host::exchange(mask, predicate != 0).ballot; }
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    int own = int(cuda_host::lane());
    return cuda_host::from_lane<T>(cuda_host::give(mask, value), (own & ~(width - 1)) | (lane & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return cuda_host::from_lane<T>(cuda_host::give(mask, value), cuda_host::lane() ^ lanes);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
    unsigned own = cuda_host::lane();
    return cuda_host::from_lane<T>(cuda_host::give(mask, value), own >= distance ? own - distance : own);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
    unsigned own = cuda_host::lane();
    return cuda_host::from_lane<T>(cuda_host::give(mask, value), own + distance < 32 ? own + distance : own);
}

// Bits and numbers.
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline int __float2int_rn(float value) { return int(rintf(value)); }
inline int __float2int_rd(float value) { return int(floorf(value)); }
inline int __float2int_rz(float value) { return int(value); }
inline int __double2int_rn(double value) { return int(rint(value)); }
inline int __double2int_rd(double value) { return int(floor(value)); }
inline int __double2int_rz(double value) { return int(value); }
inline float __double2float_rn(double value) { return float(value); }
inline float __double2float_rd(double value) {
    float nearest = float(value);
    return nearest > value ? nextafterf(nearest, -INFINITY) : nearest;
}
inline float __double2float_ru(double value) { return -__double2float_rd(-value); }
inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }
inline int __float_as_int(float value) { return int(__float_as_uint(value)); }
template <typename T>
T __ldg(const T *address) { return *address; }

#define CUDA_HOST_MIN_MAX(T)                                  \
    inline T min(T a, T b) { return b < a ? b : a; }          \
    inline T max(T a, T b) { return a < b ? b : a; }
CUDA_HOST_MIN_MAX(int)
CUDA_HOST_MIN_MAX(unsigned)
CUDA_HOST_MIN_MAX(long long)
CUDA_HOST_MIN_MAX(unsigned long long)
// Of a number and NaN, the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// Blocks and fibres run one after the other, so that nothing can come between.
template <typename T, typename F>
T cuda_host_update(T *address, F change) {
    T before = *address;
    *address = change(before);
    return before;
}
template <typename T>
T atomicAdd(T *address, T value) { return cuda_host_update(address, [=](T old) { return T(old + value); }); }
template <typename T>
T atomicOr(T *address, T value) { return cuda_host_update(address, [=](T old) { return T(old | value); }); }
template <typename T>
T atomicAnd(T *address, T value) { return cuda_host_update(address, [=](T old) { return T(old & value); }); }
template <typename T>
T atomicMin(T *address, T value) { return cuda_host_update(address, [=](T old) { return value < old ? value : old; }); }
template <typename T>
T atomicMax(T *address, T value) { return cuda_host_update(address, [=](T old) { return old < value ? value : old; }); }
template <typename T>
T atomicExch(T *address, T value) { return cuda_host_update(address, [=](T) { return value; }); }

#define CUDA_HOST_VECTORS(name, T, bytes)                                                     \
    struct name##2 { T x, y; } __attribute__((aligned(bytes * 2)));                           \
    struct name##3 { T x, y, z; };                                                            \
    struct name##4 { T x, y, z, w; } __attribute__((aligned(bytes * 4)));                     \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                        \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VECTORS(uchar, unsigned char, 1)
CUDA_HOST_VECTORS(ushort, unsigned short, 2)
CUDA_HOST_VECTORS(int, int, 4)
CUDA_HOST_VECTORS(float, float, 4)
struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// The unsigned operations for whole warps that GPUs have as one instruction.
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
    return cuda_host::reduce(mask, value, [](unsigned a, unsigned b) { return a + b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
    return cuda_host::reduce(mask, value, [](unsigned a, unsigned b) { return a | b; });
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
    return cuda_host::reduce(mask, value, [](unsigned a, unsigned b) { return b < a ? b : a; });
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    return cuda_host::reduce(mask, value, [](unsigned a, unsigned b) { return a < b ? b : a; });
}
