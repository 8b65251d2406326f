"""What stands in for a GPU: it computes what a GPU does, and refuses what a GPU would hang on or read as garbage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_host import HostKernels

SOURCE = """
extern "C" __global__ void __launch_bounds__(256) sums(const float *values, int count, double *total, unsigned *above) {
    __shared__ double parts[256];
    const int thread = threadIdx.x + threadIdx.y * blockDim.x, index = blockIdx.x * 256 + thread;
    parts[thread] = index < count ? values[index] : 0;
    for (int half = 128; half; half /= 2) {
        __syncthreads();
        if (thread < half) parts[thread] += parts[thread + half];
    }
    const unsigned ballot = __ballot_sync(0xffffffffu, index < count && values[index] > 0.5f);
    const unsigned first = __shfl_sync(0xffffffffu, ballot + thread, 5);
    if (thread % 32 == 0) above[index / 32] = ballot + (first - ballot - thread - 5);
    if (thread == 0) atomicAdd(total, parts[0]);
}
extern "C" __global__ void part_of_a_block(int waiting) {
    if (threadIdx.x < waiting) __syncthreads();
}
extern "C" __global__ void part_of_a_warp(int waiting) {
    if (threadIdx.x < waiting) __ballot_sync(0xffffffffu, 1);
}
extern "C" __global__ void unwritten(int *seen) {
    __shared__ int value;
    *seen = value;
    value = 5;
}
"""
ONE = (1, 1, 1)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    folder = tmp_path_factory.mktemp("kernels")
    Path(folder, "all.cu").write_text(SOURCE)
    return HostKernels.load(folder)


def test_blocks_warps_and_shared_memory(kernels: HostKernels) -> None:
    values = np.random.default_rng(0).random(5000).astype(np.float32)
    total, above = np.zeros(1), np.zeros(160, np.uint32)
    addresses = [np.uint64(array.ctypes.data) for array in (values, total, above)]
    kernels.launch("sums", (20, 1, 1), (64, 4, 1), [addresses[0], np.int32(5000), *addresses[1:]])
    np.testing.assert_allclose(total[0], values.sum(dtype=np.float64))
    bits = np.unpackbits(above.view(np.uint8), bitorder="little")[:5000]
    np.testing.assert_array_equal(bits, values > 0.5)


@pytest.mark.parametrize(
    ("name", "message"), [("part_of_a_block", "wait at __syncthreads"), ("part_of_a_warp", "exchange within a warp")]
)
def test_a_barrier_that_some_threads_never_reach(kernels: HostKernels, name: str, message: str) -> None:
    for _ in range(2):
        kernels.launch(name, (2, 1, 1), (64, 1, 1), [np.int32(64)])
        with pytest.raises(RuntimeError, match=message):
            kernels.launch(name, (2, 1, 1), (64, 1, 1), [np.int32(40)])


def test_shared_memory_begins_as_garbage_in_each_block(kernels: HostKernels) -> None:
    seen = np.zeros(1, np.int32)
    kernels.launch("unwritten", (3, 1, 1), ONE, [np.uint64(seen.ctypes.data)])
    assert seen[0] not in (0, 5)


def test_arguments_of_other_types_are_refused(kernels: HostKernels) -> None:
    with pytest.raises(RuntimeError, match="expected arguments of types i4, got i8"):
        kernels.launch("part_of_a_block", ONE, ONE, [np.int64(1)])
    with pytest.raises(RuntimeError, match="no kernel is called nothing"):
        kernels.launch("nothing", ONE, ONE, [])
    with pytest.raises(RuntimeError, match="1 to 1024 threads"):
        kernels.launch("part_of_a_block", ONE, (1025, 1, 1), [np.int32(1)])
