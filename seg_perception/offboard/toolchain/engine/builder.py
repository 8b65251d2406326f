"""From a canonical model in memory to the bytes of an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.contract import INPUT_NAME, ModelSpec
from seg_perception.core.errors import ConfigurationError, ModelError
from seg_perception.core.files import write_atomically
from seg_perception.core.manifest import BuildSettings

from .progress import BuildProgress, run_watched
from .target import Target

if TYPE_CHECKING:
    import tensorrt as trt

Report = Callable[[str], None]
_SHOWN = 8  # messages of TensorRT in one of ours
# On a machine without a GPU, where RTX can build all the same.
_NO_DRIVER = "cudaError 35"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built.

    Attributes:
        model: canonical ONNX, serialised.
        spec: what it says of itself.
        origin: where it came from, for messages.
        settings: the user's.
    """

    model: bytes
    spec: ModelSpec
    origin: str
    settings: BuildSettings


class EngineBuild:
    """One run of TensorRT's builder: `parse`, then `build`."""

    def __init__(self, target: Target, plan: Plan, report: Report) -> None:
        self._target, self._plan, self._report = target, plan, report
        # TensorRT's objects refer to these without keeping them alive.
        self._messages: list[str] = []
        self._library = library = target.library
        self._logger = library.logger(self._messages)
        self._builder = library.module.Builder(self._logger)
        self._network = self._builder.create_network(library.network_flags)
        self._progress = BuildProgress()

    def parse(self) -> None:
        """Read the model.

        Raises:
            ModelError: TensorRT cannot take it; names the nodes.
        """
        parser = self._library.module.OnnxParser(self._network, self._logger)
        if parser.parse(self._plan.model):
            return
        lines = []
        for error in map(parser.get_error, range(parser.num_errors)):
            reason = error.desc()
            if "UNSUPPORTED" in str(error.code()):
                known = parser.supports_operator(error.node_operator())
                reason = f"not supported ({reason})" if known else "not supported"
            lines.append(f"  node {error.node_name()!r} ({error.node_operator()}): {reason}")
        raise ModelError(
            f"{self._plan.origin}: {self._name} cannot take this model of family {self._plan.spec.family!r}\n"
            + "\n".join(_shortened(lines or [f"  {text}" for text in self._said()]))
            + "\nexport the model without these operators, or prepare it with this version of seg_perception; until "
            "then it runs under OpenVINO and ONNX Runtime (.onnx)"
        )

    def build(self) -> bytes:
        """Build what was parsed.

        Raises:
            ConfigurationError: a setting does not fit the model or this TensorRT.
            ModelError: TensorRT gave up; the message has its own last errors.
            KeyboardInterrupt: the build was cancelled.
        """
        config = self._configured()
        cache = self._read_timing_cache(config)
        engine = run_watched(
            lambda: self._builder.build_serialized_network(self._network, config), self._progress, self._report
        )
        if engine is None:
            raise ModelError(self._failure())
        for message in _shortened(list(dict.fromkeys(self._said()))):
            self._report(f"TensorRT: {message}")
        if cache:
            data = config.get_timing_cache().serialize()
            write_atomically(Path(self._plan.settings.timing_cache), bytes(memoryview(data)))
        return bytes(memoryview(engine))

    @property
    def _name(self) -> str:
        return f"{self._library.flavour} {self._library.version}"

    def _configured(self) -> trt.IBuilderConfig:
        config, settings = self._builder.create_builder_config(), self._plan.settings
        self._library.allow_capture(config)
        if self._library.architectures:
            self._library.set_architectures(config, self._target.architectures)
        if settings.workspace:
            self._library.limit_workspace(config, settings.workspace << 20)
        if settings.sparsity:
            self._library.use_sparsity(config)
        if settings.dla is not None:
            self._library.use_dla(self._builder, config, settings.dla)
        if self._library.has_progress_monitor:
            self._library.watch(config, self._progress)
        self._add_profile(config)
        return config

    def _add_profile(self, config: trt.IBuilderConfig) -> None:
        """Say which batch sizes a model with an open batch axis will get: all cameras at once is the usual one."""
        spec, largest = self._plan.spec, self._plan.settings.max_batch or 1
        if spec.batch:
            return
        profile = self._builder.create_optimization_profile()
        one, all_ = (
            self._library.module.Dims([size, spec.network_height, spec.network_width, 3]) for size in (1, largest)
        )
        profile.set_shape(INPUT_NAME, min=one, opt=all_, max=all_)
        if config.add_optimization_profile(profile) < 0:
            raise ConfigurationError(f"--max-batch {largest}: refused: {'; '.join(self._said()[-_SHOWN:])}")

    def _read_timing_cache(self, config: trt.IBuilderConfig) -> bool:
        name = self._plan.settings.timing_cache
        if not name:
            return False
        data = b""
        with contextlib.suppress(FileNotFoundError):
            data = Path(name).read_bytes()
        cache = config.create_timing_cache(data)
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            self._report(f"timing cache {name}: of another device or version; beginning a new one")
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        return True

    def _said(self) -> list[str]:
        return [message for message in self._messages if _NO_DRIVER not in message]

    def _failure(self) -> str:
        said = self._said()
        remedy = "try another --precision, or run the canonical model (.onnx) under OpenVINO or ONNX Runtime"
        if self._plan.settings.workspace and any("workspace" in line.lower() for line in said):
            remedy = f"raise --workspace from {self._plan.settings.workspace}, or leave it out"
        elif any("FP32 GEMM is not supported" in line for line in said):
            remedy = "no float32 matrices on GPUs before sm_80: use --precision fp16, or leave those out of --gpu"
        what = f"{self._name} could not build this model of family {self._plan.spec.family!r}"
        lines = "\n".join(f"  {line}" for line in said[-_SHOWN:] or ["nothing"])
        return f"{self._plan.origin}: {what}; it says\n{lines}\n{remedy}"


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[:_SHOWN], *([f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]
