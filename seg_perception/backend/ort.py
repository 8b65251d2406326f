"""ONNX Runtime: the reference backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..contract import INPUT_NAME, ModelSpec
from ..errors import BackendUnavailable, ConfigurationError, ModelError
from .base import ModelOutputs, RunOptions, check_signature, model_identity
from .batches import Arrays, run_in_parts

try:
    import onnxruntime
except ImportError as error:
    raise BackendUnavailable(
        f"backend onnxruntime: the Python package is not importable ({error}); `pip install onnxruntime`, or choose "
        "another backend"
    ) from error

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtRunner:
    """A canonical model under ONNX Runtime, in the precision its graph states."""

    def __init__(self, path: Path, options: RunOptions) -> None:
        device = (options.device or "cpu").lower()
        provider = _PROVIDERS.get(device, "")
        available = onnxruntime.get_available_providers()
        if provider not in available:
            usable = [name for name, each in _PROVIDERS.items() if each in available]
            raise ConfigurationError(f"device: ONNX Runtime has {', '.join(usable)} here, got {options.device!r}")
        self._session: onnxruntime.InferenceSession | None = self._open(path, provider, options.threads)
        self.spec = ModelSpec.from_metadata(self._session.get_modelmeta().custom_metadata_map, str(path))
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        check_signature(self.spec, {tensor.name: tensor.shape for tensor in tensors}, str(path))
        self.identity = model_identity(path, self.spec) | {
            "backend": f"onnxruntime {onnxruntime.__version__}",
            "device": device,
            "precision": "as in the graph",
            "threads": str(self._session.get_session_options().intra_op_num_threads or "chosen by ONNX Runtime"),
        }

    def run(self, images: NDArray[np.uint8]) -> ModelOutputs:
        """Run the model; see `Runner.run`."""
        arrays = run_in_parts(images, self.spec.batch or len(images), self._infer)
        return ModelOutputs.from_arrays(self.spec, arrays)

    def close(self) -> None:
        """Release the session."""
        self._session = None

    def _infer(self, images: NDArray[np.uint8]) -> Arrays:
        if self._session is None:
            raise RuntimeError("the model was closed")
        arrays: Arrays = self._session.run(list(self.spec.output_names), {INPUT_NAME: images})
        return arrays

    @staticmethod
    def _open(path: Path, provider: str, threads: int) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3
        # For its integer kernels it would quantize biases, too, and in a float16 graph divide them in float16.
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            return onnxruntime.InferenceSession(str(path), settings, providers=[provider])
        # ONNX Runtime's errors have no common base class of their own.
        except Exception as error:
            raise ModelError(
                f"{path}: not a readable ONNX model (truncated, damaged, of another format, or with operators that "
                f"ONNX Runtime lacks); export or copy it again. ONNX Runtime says: {error}"
            ) from error


def open_model(path: Path, options: RunOptions) -> OrtRunner:
    """Open a canonical ONNX model; the errors are those of `registry.open_model`."""
    return OrtRunner(path, options)
