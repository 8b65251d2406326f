"""ONNX Runtime: the reference backend."""

from __future__ import annotations

from pathlib import Path

from seg_perception.core.contract import ModelSpec
from seg_perception.core.errors import BackendUnavailable, ConfigurationError, ModelError
from seg_perception.core.onnx_files import external_files

from ..base import RunOptions, check_signature, model_identity
from .backend import HostBackend, open_on_host
from .onnxruntime_session import SessionRunner

try:
    import onnxruntime
except ImportError as error:
    raise BackendUnavailable(
        f"backend onnxruntime: the Python package is not importable ({error}); `pip install onnxruntime`, or choose "
        "another backend"
    ) from error

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtRunner(SessionRunner):
    """A canonical model's file under ONNX Runtime, in the precision its graph states."""

    def __init__(self, path: Path, options: RunOptions) -> None:
        device = (options.device or "cpu").lower()
        provider = _PROVIDERS.get(device, "")
        available = onnxruntime.get_available_providers()
        if provider not in available:
            usable = [name for name, each in _PROVIDERS.items() if each in available]
            raise ConfigurationError(f"device: ONNX Runtime has {', '.join(usable)} here, got {options.device!r}")
        session = self._open(path, provider, options.threads)
        spec = ModelSpec.from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
        tensors = (*session.get_inputs(), *session.get_outputs())
        check_signature(spec, {tensor.name: tensor.shape for tensor in tensors}, str(path))
        identity = model_identity(path, spec) | {
            "backend": f"onnxruntime {onnxruntime.__version__}",
            "device": device,
            "precision": "as in the graph",
            "threads": str(session.get_session_options().intra_op_num_threads or "chosen by ONNX Runtime"),
        }
        super().__init__(session, spec, identity)

    @staticmethod
    def _open(path: Path, provider: str, threads: int) -> onnxruntime.InferenceSession:
        external_files(path)
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


def open_model(path: Path, options: RunOptions) -> HostBackend:
    """Open a canonical ONNX model; the errors are those of `registry.open_backend`."""
    return open_on_host(lambda own: OrtRunner(path, own), options)
