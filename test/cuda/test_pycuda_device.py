"""The real pycuda and the real cuda.bindings do what the package asks of a GPU, on the emulated driver."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cuda_driver import EmulatedDriver
from numpy.typing import NDArray

from seg_perception.core.errors import BackendUnavailable, DeviceError
from seg_perception.onboard.backend.tensorrt.cuda.device import CaptureFailed, Graph, Pinned, Stream
from seg_perception.onboard.backend.tensorrt.cuda.letterbox import launch_letterbox
from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice
from seg_perception.onboard.backend.tensorrt.cuda.records import CAMERA, ENCODINGS

SIZE = 1000
HEIGHT, WIDTH = 9, 21


@pytest.fixture
def device(driver: EmulatedDriver) -> Iterator[PycudaDevice]:
    """A device that is current in this thread."""
    opened = PycudaDevice()
    with opened.active():
        yield opened
    opened.close()


class Channels:
    """Real work: a letterbox that changes nothing but the order of the channels, from pinned memory and back."""

    def __init__(self, device: PycudaDevice) -> None:
        self.device = device
        self.stream = device.stream()
        self.kernel = device.kernel("letterbox")
        self.host = device.pinned(HEIGHT * WIDTH * 3)
        self.result = device.pinned(HEIGHT * WIDTH * 3)
        self._record = device.pinned(CAMERA.itemsize)
        self._on_device = [block.address or device.memory(len(block.array)) for block in self._blocks]
        record = self._record.array.view(CAMERA)[0]
        record["width"] = record["content_width"] = WIDTH
        record["height"] = record["content_height"] = HEIGHT
        record["pixels"] = record["left"] = record["top"] = record["pad_value"] = 0
        record["step"], record["encoding"] = WIDTH * 3, ENCODINGS["bgr8"]
        self.fill(0)

    @property
    def _blocks(self) -> tuple[Pinned, Pinned, Pinned]:
        return self.host, self._record, self.result

    @property
    def expected(self) -> NDArray[np.uint8]:
        return self.host.array.reshape(HEIGHT, WIDTH, 3)[..., ::-1].ravel()

    def fill(self, seed: int) -> None:
        self.host.array[:] = np.random.default_rng(seed).integers(0, 256, len(self.host.array), np.uint8)

    def queue(self) -> None:
        frames, cameras, images = self._on_device
        if not self.device.integrated:
            self.device.copy_in(frames, self.host.array, self.stream)
            self.device.copy_in(cameras, self._record.array, self.stream)
        launch_letterbox(self.kernel, frames, cameras, images, 1, (HEIGHT, WIDTH), self.stream)
        if not self.device.integrated:
            self.device.copy_out(self.result.array, images, self.stream)

    def check(self, seed: int, queue: Callable[[], None] | None = None) -> None:
        """Do the work on new contents."""
        self.fill(seed)
        (queue or self.queue)()
        self.stream.wait()
        np.testing.assert_array_equal(self.result.array, self.expected)


def test_memory_goes_there_and_back(device: PycudaDevice) -> None:
    stream, host = device.stream(), device.pinned(SIZE)
    address = device.memory(SIZE)
    assert address % 256 == 0
    host.array[:] = sent = np.arange(SIZE) % 251
    device.copy_in(address, host.array, stream)
    device.zero(address + 100, 50, stream)
    device.copy(address + 300, address + 700, 30, stream)
    device.copy_out(host.array[200:600], address, stream)
    stream.wait()
    sent[100:150] = 0
    sent[300:330] = sent[700:730]
    np.testing.assert_array_equal(host.array[200:600], sent[:400])
    assert device.allocations == 2
    assert host.address == 0


def test_free_memory(device: PycudaDevice, driver: EmulatedDriver) -> None:
    free, total = device.memory_info()
    address, pinned = device.memory(SIZE), device.pinned(SIZE)
    assert device.memory_info() == (free - SIZE, total)
    device.free(address)
    device.free(pinned)
    assert device.memory_info() == (free, total)
    assert driver.count("blocks") == 0
    assert device.allocations == 2


def test_copies_stay_within_their_block(device: PycudaDevice) -> None:
    stream, host, address = device.stream(), device.pinned(SIZE), device.memory(SIZE)
    with pytest.raises(DeviceError, match="Emulated GPU failed: cuMemcpyHtoDAsync: invalid argument; nvidia-smi"):
        device.copy_in(address + 1, host.array, stream)
    assert not device.lost


def test_kernel(device: PycudaDevice) -> None:
    work = Channels(device)
    for seed in range(3):
        work.check(seed)


def test_events_tell_times(device: PycudaDevice) -> None:
    work, begin, end = Channels(device), device.event(), device.event()
    begin.record(work.stream)
    work.queue()
    end.record(work.stream)
    with pytest.raises(DeviceError, match="device not ready"):
        end.seconds_since(begin)
    work.stream.wait()
    assert 0 < end.seconds_since(begin) < 10


def test_kernel_that_is_not_there(device: PycudaDevice) -> None:
    with pytest.raises(DeviceError, match="cuModuleGetFunction: named symbol not found"):
        device.kernel("somersault")


def test_wrong_arguments(device: PycudaDevice) -> None:
    stream, kernel = device.stream(), device.kernel("letterbox")
    with pytest.raises(DeviceError, match="cuLaunchKernel: invalid argument"):
        kernel.launch((1, 1, 1), (32, 8, 1), (np.uint64(0), np.int32(1)), stream)


def test_captured_work_runs_on_new_contents(device: PycudaDevice) -> None:
    work = Channels(device)
    graph = device.capture(work.stream, work.queue)
    work.result.array[:] = 0
    work.stream.wait()
    assert not work.result.array.any()  # Nothing ran yet.
    taken = device.allocations
    for seed in range(5):
        work.check(seed, lambda: graph.launch(work.stream))
    assert device.allocations == taken
    other = device.stream()
    graph.launch(other)
    other.wait()


def test_what_others_queue_on_the_handle_is_captured(device: PycudaDevice, driver: EmulatedDriver) -> None:
    work, order = Channels(device), []

    def queue() -> None:
        driver.queue(work.stream.handle, lambda: order.append(work.result.array.any()))
        work.queue()
        driver.queue(0, lambda: None)  # The legacy stream has nothing to do with ours.
        driver.queue(work.stream.handle, lambda: order.append(work.result.array.any()))

    work.result.array[:] = 0
    graph = device.capture(work.stream, queue)
    assert order == []
    work.check(1, lambda: graph.launch(work.stream))
    assert order == [False, True]


def test_replaced_graphs_go(device: PycudaDevice, driver: EmulatedDriver) -> None:
    work = Channels(device)
    for _ in range(5):
        graph = device.capture(work.stream, work.queue)
    assert driver.count("executables") == 1
    assert driver.count("graphs") == 0
    work.check(1, lambda: graph.launch(work.stream))


def test_without_the_bindings(device: PycudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    work = Channels(device)
    with pytest.raises(CaptureFailed, match=r"cuda-bindings cannot be imported .*pip install cuda-bindings"):
        device.capture(work.stream, work.queue)
    work.check(1)


@pytest.mark.parametrize("forbidden", ["memory", "wait", "pinned"])
def test_what_a_capture_forbids(device: PycudaDevice, driver: EmulatedDriver, forbidden: str) -> None:
    work = Channels(device)
    deeds = {
        "memory": lambda: device.memory(SIZE),
        "pinned": lambda: device.pinned(SIZE),
        "wait": work.stream.wait,
    }

    def wrong() -> None:
        work.queue()
        deeds[forbidden]()

    with pytest.raises(CaptureFailed, match="operation not permitted when stream is capturing"):
        device.capture(work.stream, wrong)
    assert not device.lost
    work.check(1)
    graph = device.capture(work.stream, work.queue)
    work.check(2, lambda: graph.launch(work.stream))


def test_other_errors_pass_through_a_capture(device: PycudaDevice, driver: EmulatedDriver) -> None:
    work = Channels(device)

    def wrong() -> None:
        work.queue()
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        device.capture(work.stream, wrong)
    assert driver.count("graphs") == 0
    work.check(1)


def test_another_thread_may_allocate_during_a_capture(device: PycudaDevice) -> None:
    work = Channels(device)

    def allocate() -> None:
        with device.active():
            device.memory(SIZE)

    def queue() -> None:
        work.queue()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(allocate).result()

    graph = device.capture(work.stream, queue)
    work.check(1, lambda: graph.launch(work.stream))


def test_out_of_memory(device: PycudaDevice, driver: EmulatedDriver) -> None:
    driver.set(memory=100 << 20)
    device.memory(90 << 20)
    expected = (
        r"out of memory on Emulated GPU \(20.0 MiB of {} were asked for, and 10.0 MiB of 100.0 MiB are free\); use a "
        r"smaller max_batch, .* or end other programs on this GPU \(nvidia-smi lists them\)"
    )
    with pytest.raises(DeviceError, match=expected.format("device memory")):
        device.memory(20 << 20)
    assert not device.lost
    assert device.allocations == 1
    Channels(device).check(1)


def faulted(device: PycudaDevice, driver: EmulatedDriver, code: int = 700) -> Stream:
    """A fault that shows when somebody waits; the stream it is in."""
    work = Channels(device)
    driver.set(fault=code)
    work.queue()
    assert not device.lost
    return work.stream


def use_after_a_fault(device: PycudaDevice, driver: EmulatedDriver) -> Graph:
    lost = r"an illegal memory access was encountered.*configure the node again, .*dmesg \| grep -i xid"
    with device.active():
        stream = faulted(device, driver)
        event, block = device.event(), device.memory(SIZE)
        graph = device.capture(stream, lambda: None)
        with pytest.raises(DeviceError, match=lost):
            stream.wait()
        assert device.lost
        for use in (lambda: device.memory(SIZE), lambda: graph.launch(stream), lambda: event.record(stream)):
            with pytest.raises(DeviceError, match=lost):
                use()
        with pytest.raises(DeviceError, match=lost):
            device.capture(stream, lambda: None)
        device.free(block)
    return graph


@pytest.mark.parametrize("faulty_contexts", [0, 1])
@pytest.mark.parametrize("held_by_tensorrt", [False, True])
def test_illegal_address(
    driver: EmulatedDriver, capfd: pytest.CaptureFixture[str], faulty_contexts: int, held_by_tensorrt: bool
) -> None:
    if held_by_tensorrt:
        driver.retain()
    driver.set(faulty_contexts=faulty_contexts)
    device = PycudaDevice()
    with ThreadPoolExecutor(1) as pool:
        graph = pool.submit(use_after_a_fault, device, driver).result()
    device.close()
    del graph
    driver.set(faulty_contexts=0)
    driver.clear_stack()  # of what could not be popped
    again = PycudaDevice()
    with again.active():
        Channels(again).check(1)
    again.close()
    if held_by_tensorrt:
        driver.release()
    assert capfd.readouterr().err == ""


def test_fault_found_by_close(driver: EmulatedDriver) -> None:
    device = PycudaDevice()
    with device.active():
        faulted(device, driver, code=719)
    device.close()
    assert device.lost


def test_fault_in_a_captured_kernel(device: PycudaDevice, driver: EmulatedDriver) -> None:
    work = Channels(device)
    graph = device.capture(work.stream, work.queue)
    driver.set(fault=716)
    graph.launch(work.stream)
    with pytest.raises(DeviceError, match="is lost"):
        work.stream.wait()


def test_opened_by_one_thread_used_by_another_closed_by_a_third(driver: EmulatedDriver) -> None:
    with ThreadPoolExecutor(1) as first, warnings.catch_warnings():
        warnings.simplefilter("error")
        device = first.submit(PycudaDevice).result()

        def use() -> None:
            with device.active(), device.active():
                work = Channels(device)
                graph = device.capture(work.stream, work.queue)
                work.check(1, lambda: graph.launch(work.stream))
                device.event().record(work.stream)

        with ThreadPoolExecutor(1) as second:
            second.submit(use).result()
        device.close()
        assert driver.counts() == dict.fromkeys(driver.counts(), 0)


def test_two_threads_at_once(device: PycudaDevice) -> None:
    def work(seed: int) -> None:
        with device.active():
            mine = Channels(device)
            for step in range(20):
                mine.check(100 * seed + step)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))


def test_closed_by_another_thread_while_current_here(device: PycudaDevice) -> None:
    thread = threading.Thread(target=device.close)
    thread.start()
    thread.join()
    with pytest.raises(DeviceError, match=r"invalid|destroyed"):
        device.memory(SIZE)


def test_nothing_current_and_closed(driver: EmulatedDriver) -> None:
    device = PycudaDevice()
    with pytest.raises(DeviceError, match="context"):
        device.memory(SIZE)
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="used after it was closed or lost"), device.active():
        pass


def test_closed_within_active(driver: EmulatedDriver) -> None:
    device = PycudaDevice()
    with device.active():
        stream = device.stream()
        graph = device.capture(stream, lambda: None)
        pinned = device.pinned(SIZE)
        device.close()
        device.free(pinned)
    with pytest.raises(DeviceError, match="used after its device was closed"):
        graph.launch(stream)


def test_two_devices_in_one_process(driver: EmulatedDriver) -> None:
    first, second = PycudaDevice(), PycudaDevice()
    with first.active():
        one = Channels(first)
        with second.active():
            Channels(second).check(1)
        second.close()
        one.check(2)
    first.close()


def test_opened_and_closed_again_and_again(driver: EmulatedDriver) -> None:
    for seed in range(30):
        device = PycudaDevice()
        with device.active():
            work = Channels(device)
            graph = device.capture(work.stream, work.queue)
            work.check(seed, lambda: graph.launch(work.stream))  # noqa: B023 - called at once
        device.close()
        assert driver.counts() == dict.fromkeys(driver.counts(), 0)


def test_integrated_gpu_shares_its_memory(driver: EmulatedDriver) -> None:
    driver.set(integrated=1)
    device = PycudaDevice()
    with device.active():
        assert device.integrated
        work = Channels(device)
        assert work.host.address
        assert driver.count("blocks") == 3  # none of them on the device alone
        graph = device.capture(work.stream, work.queue)
        work.check(1)
        work.check(2, lambda: graph.launch(work.stream))
    device.close()


def test_program_that_forgets_to_close(driver: EmulatedDriver) -> None:
    code = (
        "import sys; sys.path[:0] = ['test']; from cuda_driver import EmulatedDriver; EmulatedDriver.load();"
        "from concurrent.futures import ThreadPoolExecutor as T;"
        "from seg_perception.onboard.backend.tensorrt.cuda.pycuda_device import PycudaDevice;"
        "device = T(1).submit(PycudaDevice).result(); context = device.active(); context.__enter__();"
        "kept = device.stream(), device.pinned(9), device.event(), device.kernel('letterbox');"
        "context.__exit__(None, None, None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_kernels_that_cannot_be_loaded(driver: EmulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "seg_perception.onboard.backend.tensorrt.cuda.pycuda_device"
    monkeypatch.setattr(f"{module}.compile_kernels", lambda *_: b"no cubin")
    with pytest.raises(DeviceError, match="cuModuleLoadDataEx: device kernel image is invalid"):
        PycudaDevice()


def test_without_pycuda(driver: EmulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendUnavailable, match=r"pycuda cannot be imported .*`make setup` tries to build it"):
        PycudaDevice()
