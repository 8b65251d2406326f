"""CUDA graphs on a stream of pycuda's, which has none itself: through NVIDIA's own bindings of the driver."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from seg_perception.core.errors import DeviceError

from .device import CaptureFailed, Stream
from .faults import Faults


class PycudaGraph:
    """Captured work, ready to be launched."""

    def __init__(self, driver: Any, executable: Any, faults: Faults) -> None:
        self._driver = driver
        self._executable = executable
        self._faults = faults

    def launch(self, stream: Stream) -> None:
        """Queue all of it.

        Raises:
            DeviceError: it was closed with its device, or CUDA failed.
        """
        if self._executable is None:
            raise DeviceError("a captured graph was used after its device was closed; open the model again")
        code = int(self._driver.cuGraphLaunch(self._executable, stream.handle)[0])
        if code:
            raise self._faults.of_code("cuGraphLaunch", code)

    def close(self) -> None:
        """Destroy it, unless it went away with a lost context."""
        executable, self._executable = self._executable, None
        if executable is not None and not self._faults.lost:
            self._driver.cuGraphExecDestroy(executable)

    def __del__(self) -> None:
        # At the end of the interpreter the bindings may be gone already.
        with contextlib.suppress(Exception):
            self.close()


def capture(stream: Stream, work: Callable[[], None], faults: Faults) -> PycudaGraph:
    """Capture what `work` queues on `stream`, without running it.

    Raises:
        CaptureFailed: with the reason; the stream is as it was.
        DeviceError: the device was lost.
    """
    driver = _bindings()
    # Another thread may allocate memory meanwhile; this one may not.
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    _checked(faults, driver, "cuStreamBeginCapture", stream.handle, mode)
    try:
        work()
    except BaseException as error:
        with contextlib.suppress(CaptureFailed):
            _end(driver, stream, faults)
        if isinstance(error, DeviceError) and not faults.lost:
            raise CaptureFailed(str(error)) from error
        raise
    graph = _checked(faults, driver, "cuStreamEndCapture", stream.handle)
    try:
        return PycudaGraph(driver, _checked(faults, driver, "cuGraphInstantiate", graph, 0), faults)
    finally:
        driver.cuGraphDestroy(graph)


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise CaptureFailed(f"cuda-bindings cannot be imported ({error}); pip install cuda-bindings") from error
    return driver


def _end(driver: Any, stream: Stream, faults: Faults) -> None:
    """End a capture of which nothing is wanted any more."""
    driver.cuGraphDestroy(_checked(faults, driver, "cuStreamEndCapture", stream.handle))


def _checked(faults: Faults, driver: Any, function: str, *arguments: Any) -> Any:
    """The result of a function of the bindings.

    Raises:
        CaptureFailed: CUDA refused.
        DeviceError: the device was lost.
    """
    try:
        code, *values = getattr(driver, function)(*arguments)
    except (AttributeError, RuntimeError, TypeError) as error:  # bindings or a driver of another age
        raise CaptureFailed(f"{function}: {error}") from error
    if int(code):
        failure = faults.of_code(function, int(code))
        raise failure if faults.lost else CaptureFailed(str(failure))
    return values[0] if values else None
