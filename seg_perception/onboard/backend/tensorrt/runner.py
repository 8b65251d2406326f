"""A model that has only a class map, on the GPU: its network runs there, everything else on the host.

The class map is small (one byte per cell), and its components are found on the host in any case.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import CLASS_MAP_OUTPUT, INPUT_NAME, ModelSpec
from seg_perception.core.errors import DeviceError

from ..host.runner import Arrays, ModelOutputs, run_in_parts
from .cuda.buffers import Block, Layout
from .cuda.device import Device
from .cuda.engine import Engine, Execution


class TensorRtRunner:
    """See `Runner`. It owns the engine and the device."""

    def __init__(self, spec: ModelSpec, identity: dict[str, str], device: Device, engine: Engine) -> None:
        """Take the memory for the largest batch.

        Args:
            spec: of a model without instances.
            identity: what runs here, human-readable.
            device: closed by `close`.
            engine: closed by `close`, and here if there is not enough memory.

        Raises:
            DeviceError: there is not enough memory.
        """
        if spec.max_instances:
            raise ValueError("spec: expected a model with a class map only, got one with instances")
        self.spec = spec
        self.identity = identity
        self._device = device
        self._engine = engine
        self._executions: dict[int, Execution] = {}
        self._closed = False
        layout: Layout = {
            INPUT_NAME: (np.uint8, (engine.largest_batch, spec.network_height, spec.network_width, 3)),
            CLASS_MAP_OUTPUT: (np.uint8, (engine.largest_batch, spec.mask_height, spec.mask_width)),
        }
        try:
            with device.active():
                self._stream = device.stream()
                self._block = Block(device, layout)
                self._scratch = device.memory(max(engine.scratch_bytes, 1))
        except BaseException:
            self.close()
            raise

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model; see `Runner.run`.

        Raises:
            DeviceError: the GPU failed.
        """
        if self._closed:
            raise RuntimeError("the model was closed")
        batch = self._engine.batch or min(len(images), self._engine.largest_batch)
        with self._device.active():
            # The next run fills the same memory.
            arrays = [array.copy() for array in run_in_parts(images, batch, self._infer)]
        return ModelOutputs.from_arrays(self.spec, arrays)

    def close(self) -> None:
        """Release engine, memory and device."""
        if self._closed:
            return
        self._closed = True
        with suppress(DeviceError), self._device.active():
            self._engine.close()
        # Again, for where the GPU could not be made current any more.
        self._engine.close()
        self._device.close()  # with all memory

    def _infer(self, images: NDArray[np.uint8]) -> Arrays:
        count, block, stream = len(images), self._block, self._stream
        execution = self._execution(count)
        classes = block.host[CLASS_MAP_OUTPUT][:count]
        block.host[INPUT_NAME][:count] = images
        block.upload(stream, INPUT_NAME, end=images.nbytes)
        execution.enqueue(stream.handle)
        block.download_rows(stream, CLASS_MAP_OUTPUT, 0, count)
        stream.wait()
        return [classes]

    def _execution(self, batch: int) -> Execution:
        if batch not in self._executions:
            places = {name: self._block.address(name) for name in (INPUT_NAME, CLASS_MAP_OUTPUT)}
            self._executions[batch] = self._engine.bind(batch, places, self._scratch)
        return self._executions[batch]
