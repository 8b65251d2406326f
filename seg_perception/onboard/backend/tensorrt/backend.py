"""TensorRT and TensorRT-RTX: the backend of NVIDIA GPUs."""

from __future__ import annotations

from pathlib import Path

from seg_perception.core.errors import ConfigurationError

from ..base import Backend, RunOptions
from ..host.backend import HostBackend
from .cuda.backend import CudaBackend
from .cuda.pycuda_device import PycudaDevice
from .engine import load_engine
from .engine_check import check_engine
from .runner import TensorRtRunner

# Names of the one device, for `RunOptions.device`.
_DEVICES = ("", "cuda", "gpu")


def open_model(path: Path, options: RunOptions) -> Backend:
    """Check an engine and load it, with everything around it, onto the GPU.

    Returns:
        A backend that does everything there; for a model that has only a class map, the host's around a runner.

    Raises:
        ConfigurationError: `options` ask for another device.
        ModelError, NotCanonicalError, BackendUnavailable: as `check_engine`; and where TensorRT cannot load it.
        DeviceError: there is not enough memory.
    """
    if options.device.lower() not in _DEVICES:
        raise ConfigurationError(
            f"device: an engine runs on the GPU that CUDA counts first, got {options.device!r}; leave it empty, and "
            "choose among several GPUs with the environment variable CUDA_VISIBLE_DEVICES"
        )
    manifest, data = check_engine(path)
    spec = manifest.spec
    device = PycudaDevice()
    try:
        with device.active():
            engine = load_engine(path, manifest, data, device)
    except BaseException:
        device.close()
        raise
    identity = {
        "model": str(path),
        "sha256": manifest.engine_sha256,
        "family": spec.family,
        "network_size": f"{spec.network_width}x{spec.network_height}",
        "backend": f"{manifest.flavour} {manifest.version}",
        "device": f"{device.name} ({device.architecture})",
        "precision": manifest.settings.precision,
        "memory": "shared with the CPU" if device.integrated else "its own",
    }
    # Either closes engine and device, also when it cannot be made.
    if spec.max_instances:
        return CudaBackend(spec, identity, device, engine)
    return HostBackend(TensorRtRunner(spec, identity, device, engine))
