// The kernels of the package as functions of a shared library. `registered_kernels.inc` is written by the loader.

#include "launch.h"

#include "all.cu"

namespace {
const cuda_host::Kernel KERNELS[] = {
#include "registered_kernels.inc"
};
std::string message;
}  // namespace

// Launch; null, or what was wrong, until the next call.
extern "C" __attribute__((visibility("default"))) const char *cuda_host_launch(
    const char *name, const unsigned *blocks, const unsigned *threads, void **arguments, const char *types) {
    for (const cuda_host::Kernel &kernel : KERNELS) {
        if (kernel.name != std::string(name)) continue;
        if (kernel.types != types)
            message = "expected arguments of types " + kernel.types + ", got " + types;
        else
            message = kernel.launch({blocks[0], blocks[1], blocks[2]}, {threads[0], threads[1], threads[2]}, arguments);
        return message.empty() ? nullptr : (message = std::string(name) + ": " + message).c_str();
    }
    message = std::string("no kernel is called ") + name;
    return message.c_str();
}
