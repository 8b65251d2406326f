// Emulated driver: every other function of CUDA that is asked for says that it is not supported.

#include <dlfcn.h>
#include <string.h>

#include <string>

#include "driver.h"

EXPORT Result emulated_unsupported() { return NOT_SUPPORTED; }

// `absent_functions.inc` names what pycuda links against and this driver does not have.
#define ABSENT(name) \
    EXPORT Result name() { return NOT_SUPPORTED; }
#include "absent_functions.inc"

// NVRTC calls it, without looking whether it is there.
EXPORT Result cuGetExportTable(const void **table, const void *) { return *table = nullptr, NOT_SUPPORTED; }

EXPORT Result cuGetProcAddress_v2(const char *name, void **function, int, uint64_t, int *status) {
    Dl_info own;
    dladdr(reinterpret_cast<void *>(&emulated_unsupported), &own);
    void *library = dlopen(own.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    *function = nullptr;
    for (const char *suffix : {"_v3", "_v2", "WithFlags", ""})
        if (!*function) *function = dlsym(library, (std::string(name) + suffix).c_str());
    dlclose(library);
    if (!*function) *function = reinterpret_cast<void *>(&emulated_unsupported);
    if (status) *status = 0;
    return SUCCESS;
}

EXPORT Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
