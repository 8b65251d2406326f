"""The GPU through pycuda: memory, times, graphs, other programs next to ours, and what happens when it fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gpu.on_gpu import child

from seg_perception.core.errors import DeviceError
from seg_perception.core.frame import Frame
from seg_perception.core.geometry import ResizeGeometry, ResizeSpec
from seg_perception.onboard.backend.tensorrt.cuda.device import CaptureFailed, Kernel, Stream, address
from seg_perception.onboard.backend.tensorrt.cuda.letterbox import describe, launch_letterbox
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA

if TYPE_CHECKING:
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

SIZE = 1 << 20


def test_a_graph_of_copies_and_a_kernel_works_on_new_contents(device: PycudaDevice) -> None:
    """A letterbox that changes nothing but the order of the channels, from pinned memory and back."""
    height, width = 96, 320
    size = height * width * 3
    frame = Frame(np.zeros(size, np.uint8), width, height, width * 3, "bgr8")
    host, out = device.pinned(CAMERA.itemsize + size), device.pinned(size)
    geometry = ResizeGeometry.fit(ResizeSpec(), width, height, width, height)
    records = host.array[: CAMERA.itemsize].view(CAMERA)
    records[...] = 0
    describe(records[0], frame, geometry, 0, 0)
    block, images = device.memory(host.array.size), device.memory(size)
    stream, kernel = device.stream(), device.kernel("letterbox")

    def work() -> None:
        device.copy_in(block, host.array, stream)
        launch_letterbox(kernel, block + CAMERA.itemsize, block, images, 1, (height, width), stream)
        device.copy_out(out.array, images, stream)

    graph = device.capture(stream, work)
    taken = device.allocations
    for seed in range(3):
        host.array[CAMERA.itemsize :] = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
        graph.launch(stream)
        stream.wait()
        expected = host.array[CAMERA.itemsize :].reshape(height, width, 3)[..., ::-1]
        np.testing.assert_array_equal(out.array.reshape(height, width, 3), expected)
    assert device.allocations == taken


def test_copies_on_the_device_zeros_and_times(device: PycudaDevice) -> None:
    host, one, two = device.pinned(SIZE), device.memory(SIZE), device.memory(SIZE)
    assert one % 256 == two % 256 == 0
    stream, begin, end = device.stream(), device.event(), device.event()
    host.array[...] = 7
    begin.record(stream)
    device.copy_in(one, host.array, stream)
    device.copy(two, one, SIZE, stream)
    device.zero(two, SIZE // 2, stream)
    device.copy_out(host.array, two, stream)
    end.record(stream)
    stream.wait()
    assert not host.array[: SIZE // 2].any()
    assert (host.array[SIZE // 2 :] == 7).all()
    assert 0 < end.seconds_since(begin) < 10


def test_an_allocation_ends_a_capture_and_the_stream_goes_on(device: PycudaDevice) -> None:
    stream, block = device.stream(), device.memory(SIZE)

    def allocates() -> None:
        device.zero(block, SIZE, stream)
        device.memory(SIZE)

    with pytest.raises(CaptureFailed):
        device.capture(stream, allocates)
    device.zero(block, SIZE, stream)
    stream.wait()


def test_more_memory_than_there_is(device: PycudaDevice) -> None:
    _, total = device.memory_info()
    with pytest.raises(DeviceError, match="out of memory"):
        device.memory(2 * total)
    assert not device.lost
    block = device.memory(SIZE)
    device.zero(block, SIZE, device.stream())
    device.free(block)


BAD_ADDRESS = """
from gpu.test_device import illegal_address
illegal_address()
print("done")
"""


def illegal_address() -> None:
    """A kernel reads where nothing is: the device is lost, and one that is opened afterwards works."""
    from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice

    for _ in range(2):
        device = PycudaDevice()
        with device.active():
            stream, kernel = device.stream(), device.kernel("letterbox")
            if os.environ.get("EMULATED_CUDA") == "1":
                # Its kernels would end the process.
                from cuda_driver import EmulatedDriver

                EmulatedDriver.load().set(fault=700)
            _read_nothing(kernel, stream)
            try:
                stream.wait()
            except DeviceError as error:
                print(error)
            assert device.lost
        device.close()
    device = PycudaDevice()
    with device.active():
        stream, block, host = device.stream(), device.memory(SIZE), device.pinned(SIZE)
        host.array[...] = 1
        device.zero(block, SIZE, stream)
        device.copy_out(host.array, block, stream)
        stream.wait()
        assert not host.array.any()
    device.close()


def _read_nothing(kernel: Kernel, stream: Stream) -> None:
    nowhere = address(1 << 20)
    kernel.launch((1, 1, 1), (32, 8, 1), (nowhere, nowhere, nowhere, np.int32(32), np.int32(8)), stream)


def test_an_illegal_address_and_a_new_start() -> None:
    """In a process of its own, which ends with it if it does more harm than expected."""
    process = child(BAD_ADDRESS)
    out, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert out.count("illegal") == 2, out
    assert out.endswith("done\n")


NEIGHBOUR = """
import sys
import numpy as np
from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice
device = PycudaDevice()
with device.active():
    stream, size = device.stream(), 1 << 24
    sent, back, block = device.pinned(size), device.pinned(size), device.memory(size)
    print("ready", flush=True)
    for number in range(200):
        sent.array[...] = number
        device.copy_in(block, sent.array, stream)
        device.copy_out(back.array, block, stream)
        stream.wait()
        assert (back.array == number).all()
    sys.stdin.readline()
device.close()
"""


def test_another_process_on_the_gpu(device: PycudaDevice) -> None:
    process = child(NEIGHBOUR)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(3):
        test_copies_on_the_device_zeros_and_times(device)
        test_a_graph_of_copies_and_a_kernel_works_on_new_contents(device)
    _, said = process.communicate("\n", timeout=200)
    assert process.returncode == 0, said
