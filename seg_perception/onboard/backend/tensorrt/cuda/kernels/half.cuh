// Half precision without cuda_fp16.h, which is not at hand where NVRTC compiles.

#pragma once

struct Half {
    unsigned short bits;
};

__device__ inline float as_float(float value) { return value; }

// Exact for every value, with denormals, infinity and NaN.
__device__ inline float as_float(Half value) {
#ifdef __CUDA_ARCH__
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    unsigned bits = (value.bits & 0x7fffu) << 13;
    const bool special = (value.bits & 0x7c00) == 0x7c00;
    // The exponents of the two formats are 112 apart.
    const float scaled = __uint_as_float(bits) * __uint_as_float(0x77800000);
    bits = special ? bits | 0x7f800000 : __float_as_uint(scaled);
    return __uint_as_float(bits | (value.bits & 0x8000u) << 16);
#endif
}
