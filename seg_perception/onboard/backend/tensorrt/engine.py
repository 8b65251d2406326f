"""An engine file, loaded and bound to memory: TensorRT's half of the GPU backend.

Everything here is called with the CUDA context current (`with device.active()`), by one thread at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from seg_perception.core.contract import CLASS_MAP_OUTPUT, INPUT_NAME, ModelSpec
from seg_perception.core.errors import (
    BackendUnavailable,
    DeviceError,
    ModelError,
    NotCanonicalError,
    SegPerceptionError,
)
from seg_perception.core.manifest import EngineManifest

from ..base import check_signature
from ..cache import cache_file, read_cached, write_cached
from .api import RUN_NAMES, TensorRt
from .cuda.device import Device

if TYPE_CHECKING:
    import tensorrt as trt

_ALIGNMENT = 256  # of every address, says TensorRT
_SHOWN = 8  # messages of TensorRT in one of ours
_MIB = 1 << 20
# Types of the contract's tensors, as TensorRT calls them.
_TYPES = {
    INPUT_NAME: ("UINT8",),
    "boxes": ("FLOAT",),
    "scores": ("FLOAT",),
    "labels": ("INT32",),
    "masks": ("FLOAT", "HALF"),
    CLASS_MAP_OUTPUT: ("UINT8",),
}


def load_engine(path: Path, manifest: EngineManifest, data: bytes, device: Device) -> TensorRtEngine:
    """Load an engine that `engine_check.check_engine` has passed.

    Args:
        path: of the engine, for messages.
        manifest, data: what `check_engine` returned.
        device: the GPU that is active.

    Raises:
        ModelError: TensorRT refuses it, or it does not do what its manifest promises; with the rebuild command.
        DeviceError: there is not enough memory.
        BackendUnavailable: TensorRT is absent, too old, or cannot start on this GPU.
    """
    return TensorRtEngine(TensorRt.load(manifest.flavour, RUN_NAMES), path, manifest, data, device)


class TensorRtEngine:
    """See `cuda.engine.Engine`."""

    def __init__(self, library: TensorRt, path: Path, manifest: EngineManifest, data: bytes, device: Device) -> None:
        """Load it; the errors are those of `load_engine`."""
        self._library, self._device, self._spec = library, device, manifest.spec
        self._says = _Words(path, manifest, device)
        # TensorRT refers to the logger without keeping it alive, and its objects to one another.
        self._logger = library.logger(self._says.messages)
        self._runtime: Any = self._start(manifest)
        self._engine: Any = None
        self._cache: _KernelCache | None = None
        self._executions: WeakSet[TensorRtExecution] = WeakSet()
        try:
            self._engine = self._deserialized(data)
            self.mask_type, self.largest_batch = _checked(library, self._engine, manifest.spec, self._says)
            self.batch = manifest.spec.batch
            self.scratch_bytes = library.scratch_bytes(self._engine)
            self.memory_bytes = library.weights_bytes(self._engine)
            config = library.runtime_config(self._engine)
            if config is not None:
                self._cache = _KernelCache(config, f"{manifest.engine_sha256[:16]}-{device.architecture}")
        except SegPerceptionError as error:
            self.close()
            # Frames of tracebacks would keep TensorRT's objects alive for longer than the CUDA context.
            error.__context__ = None
            raise error.with_traceback(None) from None

    def bind(self, batch: int, addresses: Mapping[str, int], scratch: int) -> TensorRtExecution:
        """See `Engine.bind`."""
        if self._engine is None:
            raise RuntimeError("the engine was closed")
        fits = batch == self.batch if self.batch else 1 <= batch <= self.largest_batch
        if not fits:
            raise ValueError(f"batch: expected {self.batch or f'1 to {self.largest_batch}'}, got {batch}")
        names = (INPUT_NAME, *self._spec.output_names)
        places = {name: addresses.get(name, 0) for name in names}
        for name, place in {**places, **({"scratch": scratch} if self.scratch_bytes else {})}.items():
            if place <= 0 or place % _ALIGNMENT:
                raise ValueError(f"address of {name}: expected a multiple of {_ALIGNMENT} above 0, got {place}")
        self._says.messages.clear()
        config = self._library.runtime_config(self._engine)
        if self._cache is not None:
            self._cache.use_in(config)
        execution = TensorRtExecution(self._library, self._engine, config, self._says)
        self._executions.add(execution)
        try:
            execution.prepare(self._spec, batch, places, (scratch, self.scratch_bytes))
        except SegPerceptionError:
            execution.close()
            raise
        return execution

    def close(self) -> None:
        """See `Engine.close`."""
        # What TensorRT made goes in the reverse order.
        for execution in list(self._executions):
            execution.close()
        if self._cache is not None and not self._device.lost:
            self._cache.save()
        self._cache = self._engine = self._runtime = None

    def _start(self, manifest: EngineManifest) -> trt.Runtime:
        name = f"{self._library.flavour} {self._library.version}"
        try:
            runtime = self._library.module.Runtime(self._logger)
        except TypeError as error:  # a constructor of pybind11 that gave nothing
            raise BackendUnavailable(
                f"{name} cannot start on {self._device.name}; update the GPU's driver to one for the CUDA version that "
                f"this TensorRT was made for. It says: {self._says}"
            ) from error
        if manifest.settings.dla is not None:
            runtime.DLA_core = manifest.settings.dla
        return runtime

    def _deserialized(self, data: bytes) -> trt.ICudaEngine:
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise self._says.failure("cannot be loaded", len(data))
        return engine


class TensorRtExecution:
    """See `cuda.engine.Execution`."""

    def __init__(self, library: TensorRt, engine: trt.ICudaEngine, config: Any, says: _Words) -> None:
        self._library, self._says, self._config = library, says, config
        self._context = library.create_context(engine, config)

    def prepare(self, spec: ModelSpec, batch: int, places: Mapping[str, int], scratch: tuple[int, int]) -> None:
        """Set memory and shapes. A new context has optimization profile 0, the only one that our engines have.

        Args:
            spec: the model.
            batch: images per inference.
            places: address of each tensor.
            scratch: address and size of the scratch memory.

        Raises:
            ModelError: TensorRT refuses a shape, or the shape of an output is not the promised one.
            DeviceError: there is not enough memory.
        """
        if self._context is None:
            raise self._says.failure("cannot be executed", scratch[1])
        self._library.set_scratch(self._context, *scratch)
        shape = (batch, spec.network_height, spec.network_width, 3)
        done = self._context.set_input_shape(INPUT_NAME, shape)
        for name, place in places.items():
            done = done and self._context.set_tensor_address(name, place)
        try:
            done = done and not self._context.infer_shapes()
        except RuntimeError:
            done = False
        if not done:
            raise self._says.failure(f"does not take images of shape {shape}", scratch[1])
        _check_shapes(spec, {name: _shape(self._context.get_tensor_shape(name)) for name in places}, batch, self._says)

    def enqueue(self, stream: int) -> None:
        """See `Execution.enqueue`."""
        self._says.messages.clear()
        if not self._opened().execute_async_v3(stream):
            raise DeviceError(f"{self._says.path}: TensorRT could not queue an inference; it says: {self._says}")

    def capturable(self, stream: int) -> bool:
        """See `Execution.capturable`."""
        return self._library.is_capturable(self._opened(), stream)

    def close(self) -> None:
        """See `Execution.close`."""
        self._context = None
        self._config = None

    def _opened(self) -> trt.IExecutionContext:
        if self._context is None:
            raise RuntimeError("the execution was closed")
        return self._context


class _Words:
    """What TensorRT said lately, and how it becomes an error of ours.

    Attributes:
        path: of the engine.
        messages: errors and warnings; only the last ones, for a node runs for days.
        rebuild: what to do about an engine that does not fit.
    """

    def __init__(self, path: Path, manifest: EngineManifest, device: Device) -> None:
        self.path = path
        self.messages: deque[str] = deque(maxlen=_SHOWN)
        self.rebuild = f"build it again: {manifest.rebuild_command(path)}"
        self._device = device

    def __str__(self) -> str:
        return "; ".join(self.messages) or "nothing"

    def failure(self, what: str, size: int) -> SegPerceptionError:
        """The error for an engine that failed.

        Args:
            what: what it cannot do, for the message.
            size: bytes that it needs for that.
        """
        text = str(self).lower()
        if "out of memory" not in text and "outofmemory" not in text:
            return ModelError(f"{self.path}: {what}; {self.rebuild}. TensorRT says: {self}")
        free, total = self._device.memory_info()
        return DeviceError(
            f"{self.path}: {what}, for want of GPU memory: it needs {size / _MIB:.0f} MiB and more, {free / _MIB:.0f} "
            f"of {total / _MIB:.0f} MiB are free; end other programs on this GPU, or build the engine for a smaller "
            f"--max-batch or in a lower --precision. TensorRT says: {self}"
        )


class _KernelCache:
    """The kernels that TensorRT-RTX compiled for this GPU, kept from one start to the next.

    A cache that cannot be read or written costs time only, so that is said and nothing more.
    """

    def __init__(self, config: Any, name: str) -> None:
        self._config = config
        self._cache = config.create_runtime_cache()
        self._file = cache_file(f"{name}.rtx")
        self._loaded = read_cached(self._file)
        # RTX itself tells a cache of another GPU, driver or version, and leaves it.
        if self._loaded and not self._cache.deserialize(self._loaded):
            logging.getLogger(__name__).info("%s: does not fit this GPU and driver; RTX compiles again", self._file)

    def use_in(self, config: Any) -> None:
        """Let executions made with `config` take kernels from here and leave theirs."""
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what is new."""
        memory = self._cache.serialize()
        if memory is None or (data := bytes(memoryview(memory))) == self._loaded:
            return
        try:
            write_cached(self._file, data)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "%s: the kernels that RTX compiled cannot be kept (%s); the next start compiles them again",
                self._file,
                error.strerror,
            )


def _checked(
    library: TensorRt, engine: trt.ICudaEngine, spec: ModelSpec, says: _Words
) -> tuple[np.dtype[np.floating], int]:
    """Hold every tensor of an engine against the contract: names, directions, places, types and shapes.

    Returns:
        The type of the masks, and the largest batch size.

    Raises:
        ModelError: something else than promised.
    """
    modes, on_device = library.module.TensorIOMode, library.module.TensorLocation.DEVICE
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    unknown = set(names) - {INPUT_NAME, *spec.output_names}
    if unknown:
        raise NotCanonicalError(f"{says.path}: has tensors that the contract lacks: {sorted(unknown)}; {says.rebuild}")
    _check_shapes(spec, {name: _shape(engine.get_tensor_shape(name)) for name in names}, spec.batch or -1, says)
    types = {name: engine.get_tensor_dtype(name).name for name in names}
    for name in names:
        place = (modes.INPUT if name == INPUT_NAME else modes.OUTPUT, on_device)
        found = (engine.get_tensor_mode(name), engine.get_tensor_location(name))
        if found != place or types[name] not in _TYPES[name]:
            raise NotCanonicalError(
                f"{says.path}: expected {name!r} of type {' or '.join(_TYPES[name])} as {place}, the engine has it of "
                f"type {types[name]} as {found}; {says.rebuild}"
            )
    largest = spec.batch or engine.get_tensor_profile_shape(INPUT_NAME, 0)[2][0]
    return np.dtype(np.float16 if types.get("masks") == "HALF" else np.float32), largest


def _check_shapes(spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]], batch: int, says: _Words) -> None:
    """Hold shapes, with this batch size, against the contract."""
    try:
        check_signature(spec, shapes, str(says.path))
    except NotCanonicalError as error:
        raise NotCanonicalError(f"{error}, or {says.rebuild}") from error
    other = {name: shape for name, shape in shapes.items() if shape[0] != batch}
    if other:
        expected = "any number of" if batch < 0 else batch
        raise NotCanonicalError(
            f"{says.path}: expected {expected} images at once, the engine has {other}; {says.rebuild}"
        )


def _shape(dims: Any) -> tuple[int, ...]:
    """A `Dims` of TensorRT's as it compares with others."""
    return tuple(dims)
