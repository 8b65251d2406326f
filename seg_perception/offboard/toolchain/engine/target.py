"""Where an engine is to run: which TensorRT, and which GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.core.manifest import BuildSettings
from seg_perception.onboard.backend.tensorrt.api import BUILD_NAMES, TensorRt
from seg_perception.onboard.backend.tensorrt.driver import Device, first_device


@dataclass(frozen=True, slots=True)
class Target:
    """What to build with and for.

    Attributes:
        library: TensorRT.
        device: name of the GPU to build on; empty for a build without.
        architectures: the GPU architectures that the engine is for.
    """

    library: TensorRt
    device: str
    architectures: tuple[str, ...]

    def __str__(self) -> str:
        where = f"{self.device} ({self.architectures[0]})" if self.device else ", ".join(self.architectures)
        return f"{where} with {self.library.flavour} {self.library.version}"

    @classmethod
    def choose(cls, settings: BuildSettings) -> Target:
        """Find what the settings ask for.

        Raises:
            BackendUnavailable: TensorRT is absent or too old, or there is no GPU to build for.
            ConfigurationError: this TensorRT cannot do what a setting asks for.
        """
        library = TensorRt.load(settings.target, BUILD_NAMES)
        known = library.architectures
        if settings.timing_cache and not library.has_timing_cache:
            raise ConfigurationError(
                f"--timing-cache: {library.flavour} {library.version} has none, since it times nothing when it builds; "
                "leave the option out"
            )
        if settings.dla is not None and settings.precision != "fp16":
            raise ConfigurationError(
                f"--dla: engines for a DLA are built in float16, got --precision {settings.precision}; use fp16"
            )
        if settings.gpu:
            return cls(library, "", _known_ones(settings.gpu, library))
        device = _device(library)
        if known and device.architecture not in known:
            raise BackendUnavailable(
                f"{library.flavour} {library.version}: knows {', '.join(known)}, the GPU here ({device.name}) is "
                f"{device.architecture}; use --target tensorrt"
            )
        return cls(library, device.name, (device.architecture,))


def _known_ones(wanted: tuple[str, ...], library: TensorRt) -> tuple[str, ...]:
    known = library.architectures
    if not known:
        raise ConfigurationError(
            f"--gpu: {library.flavour} {library.version} builds for the GPU it runs on; leave the option out and "
            "build on the vehicle's computer. Ahead of time, --target tensorrt-rtx builds for desktop GPUs; nothing "
            "does for Jetson Orin"
        )
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigurationError(
            f"--gpu: expected some of {', '.join(known)}, got {', '.join(unknown)}; for a Jetson, build on it with "
            "--target tensorrt"
        )
    return tuple(name for name in known if name in wanted)


def _device(library: TensorRt) -> Device:
    try:
        return first_device()
    except BackendUnavailable as error:
        remedy = "build on the machine that will run the engine"
        if library.architectures:
            remedy += f", or name the GPUs to build for: --gpu with some of {', '.join(library.architectures)}"
        reason = f"{library.flavour} {library.version} builds for the GPU here: {error}"
        raise BackendUnavailable(f"{reason}; {remedy}") from error
