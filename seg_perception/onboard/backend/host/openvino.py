"""OpenVINO: the backend for CPUs, and for Intel GPUs and NPUs by `device`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.core.contract import INPUT_NAME, METADATA_KEY, ModelSpec
from seg_perception.core.errors import BackendUnavailable, ConfigurationError, ModelError, is_out_of_memory
from seg_perception.core.onnx_files import external_files

from ..base import RunOptions, check_signature, model_identity, run_error
from .backend import HostBackend, open_on_host
from .runner import Arrays, ModelOutputs, run_in_parts

# Otherwise the import of openvino tells a server of its maker, from a copy that it forks of this process, with all its
# threads and locks.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino
except ImportError as error:
    raise BackendUnavailable(
        f"backend openvino: the Python package is not importable ({error}); `pip install openvino`, or choose "
        "another backend"
    ) from error


# The latter when its message has names of a damaged file.
_ERRORS = (RuntimeError, UnicodeError)
# Made of others; their parts are checked when the model is compiled.
_VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")


class _Request:
    """An infer request with the memory of its outputs; it is used again once this is dropped."""

    def __init__(self, request: Any, idle: list[Any]) -> None:
        self._request, self._idle = request, idle

    def infer(self, images: NDArray[np.uint8], names: Sequence[str]) -> Arrays:
        self._request.set_tensor(INPUT_NAME, openvino.Tensor(images, shared_memory=True))
        try:
            self._request.infer()
        except _ERRORS as error:
            if is_out_of_memory(error):
                raise
            raise run_error("OpenVINO", error) from error
        return [self._request.get_tensor(name).data for name in names]

    def __del__(self) -> None:
        self._idle.append(self._request)


class OpenVinoRunner:
    """A canonical model under OpenVINO.

    On the CPU the precision is float32 unless the model itself is in another: OpenVINO would otherwise pick bfloat16
    on processors that have it, and results would differ from machine to machine.
    """

    def __init__(self, path: Path, options: RunOptions) -> None:
        self._core = openvino.Core()
        self._device = options.device or "CPU"
        self._check_device()
        self._model = self._read(path)
        self.spec = self._spec(path)
        self._check_shapes(path)
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            # Pinned threads of several processes would share the first cores while others are idle.
            self._settings |= {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
            if options.threads:
                self._settings["INFERENCE_NUM_THREADS"] = options.threads
            if any(node.get_type_name() == "FakeQuantize" for node in self._model.get_ops()):
                # OpenVINO 2026.4 turns a signed quantization behind a Concat into an unsigned one, which loses all
                # negative values. Without its integer kernels it computes what the graph says, slower.
                self._settings["LP_TRANSFORMS_MODE"] = "NO"
        # One compiled model per batch size: static shapes run faster than a dynamic batch axis.
        self._compiled: dict[int, Any] = {}
        self._idle: dict[int, list[Any]] = {}
        compiled = self._model_for(self.spec.batch or 1)
        self.identity = model_identity(path, self.spec) | {
            "backend": f"openvino {openvino.__version__}",
            "device": " on ".join((self._device, *map(self._full_name, compiled.get_property("EXECUTION_DEVICES")))),
            "precision": _property(compiled, "INFERENCE_PRECISION_HINT"),
            "threads": _property(compiled, "INFERENCE_NUM_THREADS"),
        }

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model; see `Runner.run`."""
        batch = self.spec.batch or len(images)
        compiled, idle = self._model_for(batch), self._idle[batch]
        request = _Request(idle.pop() if idle else compiled.create_infer_request(), idle)
        arrays = run_in_parts(images, batch, lambda part: request.infer(part, self.spec.output_names))
        return ModelOutputs.from_arrays(self.spec, arrays, memory=request)

    def close(self) -> None:
        """Release the compiled models."""
        self._compiled.clear()
        self._idle.clear()
        self._model = None

    def _model_for(self, batch: int) -> Any:
        if batch not in self._compiled:
            if self._model is None:
                raise RuntimeError("the model was closed")
            model = self._model
            if not self.spec.batch:
                model = self._model.clone()
                model.reshape({INPUT_NAME: [batch, self.spec.network_height, self.spec.network_width, 3]})
            try:
                self._compiled[batch] = self._core.compile_model(model, self._device, self._settings)
            except _ERRORS as error:
                raise ModelError(
                    f"model: OpenVINO cannot compile it for device {self._device!r}; try device 'CPU' or another "
                    f"backend. OpenVINO says: {_last_line(error)}"
                ) from error
            self._idle[batch] = []
        return self._compiled[batch]

    def _check_device(self) -> None:
        available = self._core.available_devices
        name = self._device.split(":")[0]
        # With several devices of a kind each has a number (GPU.0), and the kind alone stands for the first.
        if name not in _VIRTUAL_DEVICES and name not in {*available, *(each.split(".")[0] for each in available)}:
            raise ConfigurationError(
                f"device: OpenVINO has {', '.join(available)} here, got {self._device!r}; "
                "set parameter `device` (or --device) to one of these, or install the device's driver"
            )

    def _full_name(self, device: str) -> str:
        try:
            return str(self._core.get_property(device.strip("()"), "FULL_DEVICE_NAME"))
        except RuntimeError:
            return device

    def _read(self, path: Path) -> Any:
        external_files(path)
        try:
            return self._core.read_model(str(path))
        except _ERRORS as error:
            raise ModelError(
                f"{path}: not a readable ONNX model (truncated, damaged, of another format, or with operators that "
                f"OpenVINO lacks); export or copy it again. OpenVINO says: {_last_line(error)}"
            ) from error

    def _spec(self, path: Path) -> ModelSpec:
        info = ["framework", METADATA_KEY]
        metadata = {METADATA_KEY: str(self._model.get_rt_info(info).value)} if self._model.has_rt_info(info) else {}
        return ModelSpec.from_metadata(metadata, str(path))

    def _check_shapes(self, path: Path) -> None:
        shapes = {
            name: [axis.get_length() if axis.is_static else None for axis in port.partial_shape]
            for port in (*self._model.inputs, *self._model.outputs)
            for name in port.names
        }
        check_signature(self.spec, shapes, str(path))


def open_model(path: Path, options: RunOptions) -> HostBackend:
    """Open a canonical ONNX model; the errors are those of `registry.open_backend`."""
    return open_on_host(lambda own: OpenVinoRunner(path, own), options)


def _property(compiled: Any, name: str) -> str:
    """A property of a compiled model; not every device has every one."""
    try:
        value = compiled.get_property(name)
    except RuntimeError:
        return "unknown"
    return str(value.to_string() if hasattr(value, "to_string") else value)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
