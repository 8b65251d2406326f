// How a kernel is called by name, with arguments as they are given to a GPU: by address, each of exactly its type.

#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "cuda_host.h"

namespace cuda_host {
// Set `place` and call one thread of the kernel.
struct Call {
    virtual void thread() = 0;
    virtual ~Call() = default;
};

// Run a grid. Empty, or why it could not be finished.
std::string run(dim3 blocks, dim3 threads, Call &call);

struct Kernel {
    const char *name;
    std::string (*launch)(dim3 blocks, dim3 threads, void **arguments);
    std::string types;  // of the arguments, as numpy spells them: `u8i4f4`
};

template <typename T>
std::string type_of() {
    if (std::is_pointer<T>::value) return "u8";
    const char *kind = std::is_floating_point<T>::value ? "f" : std::is_unsigned<T>::value ? "u" : "i";
    return kind + std::to_string(sizeof(T));
}

template <auto function>
struct Launcher;

template <typename... A, void (*function)(A...)>
struct Launcher<function> {
    static std::string launch(dim3 blocks, dim3 threads, void **arguments) {
        return with(blocks, threads, arguments, std::index_sequence_for<A...>());
    }
    static std::string types() { return (std::string() + ... + type_of<A>()); }

private:
    template <size_t... index>
    static std::string with(dim3 blocks, dim3 threads, void **arguments, std::index_sequence<index...>) {
        struct Bound : Call {
            void **arguments;
            void thread() override { function(*static_cast<A *>(arguments[index])...); }
        } bound;
        bound.arguments = arguments;
        return run(blocks, threads, bound);
    }
};
}  // namespace cuda_host

#define CUDA_HOST_KERNEL(name) \
    {#name, cuda_host::Launcher<&name>::launch, cuda_host::Launcher<&name>::types()}
