"""TensorRT 10, 11 and TensorRT-RTX behind one set of names: whatever differs between them is decided here.

Both are the same API under two module names. What one version has and another lacks is asked of the module itself,
never read off a version number, so that the next version needs no change here.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from seg_perception.core.errors import BackendUnavailable, ConfigurationError

if TYPE_CHECKING:
    import tensorrt as trt

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL = {
    "tensorrt": "on a Jetson it comes with JetPack (`apt install python3-libnvinfer`), elsewhere from NVIDIA's package "
    "repositories; a virtual environment sees it only if made with --system-site-packages",
    "tensorrt-rtx": "`pip install tensorrt-rtx-cu12`",
}
# What every supported version must have, by class. Names that only some have are asked for where they are used.
BUILD_NAMES = {
    "Builder": ("build_serialized_network", "create_builder_config", "create_network", "create_optimization_profile"),
    "BuilderFlag": ("SPARSE_WEIGHTS",),
    "IBuilderConfig": ("add_optimization_profile", "set_flag", "set_memory_pool_limit"),
    "ILogger": ("Severity", "log"),
    "IOptimizationProfile": ("set_shape",),
    "MemoryPoolType": ("WORKSPACE",),
    "OnnxParser": ("get_error", "num_errors", "parse", "supports_operator"),
    "ParserError": ("code", "desc", "node_name", "node_operator"),
}
RUN_NAMES = {
    "Runtime": ("DLA_core", "deserialize_cuda_engine"),
    "ICudaEngine": (
        *("create_execution_context", "get_tensor_dtype", "get_tensor_location", "get_tensor_mode", "get_tensor_name"),
        *("get_tensor_profile_shape", "get_tensor_shape", "num_io_tensors"),
    ),
    "IExecutionContext": (
        *("execute_async_v3", "get_tensor_shape", "infer_shapes", "set_input_shape", "set_tensor_address"),
    ),
    "DataType": ("FLOAT", "HALF", "INT32", "UINT8"),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "ILogger": ("Severity", "log"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "TensorLocation": ("DEVICE",),
}
Names = dict[str, tuple[str, ...]]


class _Module(Protocol):
    """What is taken from the module, so that mypy holds every use against the types of TensorRT 10.13."""

    __version__: str
    Builder: type[trt.Builder]
    BuilderFlag: type[trt.BuilderFlag]
    DeviceType: type[trt.DeviceType]
    Dims: type[trt.Dims]
    ExecutionContextAllocationStrategy: type[trt.ExecutionContextAllocationStrategy]
    ICudaEngine: type[trt.ICudaEngine]
    IExecutionContext: type[trt.IExecutionContext]
    ILogger: type[trt.ILogger]
    MemoryPoolType: type[trt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[trt.NetworkDefinitionCreationFlag]
    OnnxParser: type[trt.OnnxParser]
    Runtime: type[trt.Runtime]
    TensorIOMode: type[trt.TensorIOMode]
    TensorLocation: type[trt.TensorLocation]


class BuildListener(Protocol):
    """Is told of a build's progress, from any thread."""

    def phase_start(self, name: str, parent: str, steps: int) -> None:
        """A phase of `steps` steps begins within the phase `parent`; empty for the outermost."""

    def step_complete(self, name: str) -> bool:
        """A step of a phase is done; False cancels the build."""

    def phase_finish(self, name: str) -> None:
        """A phase is over, with or without all its steps."""


@dataclass(frozen=True, slots=True)
class TensorRt:
    """One of the modules.

    Attributes:
        flavour: a key of `MODULES`.
        module: TensorRT itself.
    """

    flavour: str
    module: _Module

    @classmethod
    def load(cls, flavour: str, names: Names) -> TensorRt:
        """Import the module.

        Args:
            flavour: a key of `MODULES`.
            names: what it must have, `BUILD_NAMES` or `RUN_NAMES`.

        Raises:
            BackendUnavailable: it is not installed, or too old.
        """
        try:
            module = import_module(MODULES[flavour])
        except ImportError as error:
            raise BackendUnavailable(
                f"{flavour}: its Python module {MODULES[flavour]} cannot be imported ({error}); {_INSTALL[flavour]}"
            ) from error
        missing = missing_names(module, names)
        if missing:
            version = getattr(module, "__version__", "of unknown version")
            raise BackendUnavailable(
                f"{flavour} {version}: expected TensorRT 10.0 or later, or TensorRT-RTX 1.4 or later; this module "
                f"lacks {', '.join(missing)}; {_INSTALL[flavour]}"
            )
        return cls(flavour, cast("_Module", module))

    @property
    def version(self) -> str:
        """Of the module, such as 10.3.0.30."""
        return self.module.__version__

    @property
    def network_flags(self) -> int:
        """For a strongly typed network, which TensorRT 11 and RTX always make."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    @property
    def architectures(self) -> tuple[str, ...]:
        """GPU architectures it can build for without one, as `sm_86`; none where it builds for the GPU it runs on."""
        kinds = getattr(self.module, "ComputeCapability", None)
        if kinds is None or not hasattr(self._config_type, "set_compute_capability"):
            return ()
        numbers = sorted(int(name[2:]) for name in dir(kinds) if name.startswith("SM") and name[2:].isdecimal())
        return tuple(f"sm_{number}" for number in numbers)

    @property
    def has_progress_monitor(self) -> bool:
        """Whether a build can be watched and cancelled."""
        return hasattr(self.module, "IProgressMonitor") and hasattr(self._config_type, "progress_monitor")

    @property
    def has_timing_cache(self) -> bool:
        """Whether measured kernel times can be kept for the next build; RTX measures nothing when it builds."""
        return self.flavour == "tensorrt" and hasattr(self._config_type, "create_timing_cache")

    def set_architectures(self, config: trt.IBuilderConfig, architectures: Sequence[str]) -> None:
        """Build for these instead of for the GPU here.

        Raises:
            ConfigurationError: the module refuses one.
        """
        untyped: Any = config  # of TensorRT-RTX only
        kinds: Any = self.module
        untyped.num_compute_capabilities = len(architectures)
        for index, name in enumerate(architectures):
            kind = getattr(kinds.ComputeCapability, name.replace("sm_", "SM"))
            if not untyped.set_compute_capability(kind, index):
                raise ConfigurationError(f"--gpu: {self.flavour} {self.version} refuses {name} among {architectures}")

    def allow_capture(self, config: trt.IBuilderConfig) -> None:
        """Let the engine run in memory that the caller gives it, so that a CUDA graph can hold all of it.

        RTX would allocate at run time otherwise; TensorRT itself does so only where shapes depend on the data.
        """
        if hasattr(self.module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            config.set_flag(self.module.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def use_sparsity(self, config: trt.IBuilderConfig) -> None:
        """Let kernels skip the zeros of weights that are 2:4 sparse."""
        config.set_flag(self.module.BuilderFlag.SPARSE_WEIGHTS)

    def limit_workspace(self, config: trt.IBuilderConfig, size: int) -> None:
        """Limit the scratch memory of a layer, in bytes."""
        config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, size)

    def use_dla(self, builder: trt.Builder, config: trt.IBuilderConfig, core: int) -> None:
        """Run what a DLA core can do there, and the rest on the GPU.

        Raises:
            ConfigurationError: this version or this device has no such core.
        """
        # RTX takes the setting and ignores it.
        cores = builder.num_DLA_cores if self.flavour == "tensorrt" else 0
        if core >= cores:
            raise ConfigurationError(
                f"--dla {core}: {self.flavour} {self.version} has {cores} DLA cores on this device; there are some on "
                "Jetson Orin with TensorRT up to 10.7, and on AGX Orin from 11.4.1 on; leave --dla out"
            )
        config.default_device_type = self.module.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(self.module.BuilderFlag.GPU_FALLBACK)

    def scratch_bytes(self, engine: trt.ICudaEngine) -> int:
        """Device memory that an execution needs in addition to inputs and outputs, for any shape."""
        if hasattr(self.module.ICudaEngine, "device_memory_size_v2"):
            return engine.device_memory_size_v2
        return engine.device_memory_size

    def weights_bytes(self, engine: trt.ICudaEngine) -> int:
        """Size of the weights of an engine; 0 where TensorRT cannot tell."""
        if not hasattr(self.module.ICudaEngine, "get_engine_stat"):
            return 0
        return max(0, int(cast(Any, engine).get_engine_stat()))

    def runtime_config(self, engine: trt.ICudaEngine) -> Any:
        """Return how RTX is to run an execution; None for TensorRT, which has nothing more to be told."""
        module: Any = self.module
        if not hasattr(module, "CudaGraphStrategy"):
            return None
        config: Any = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        # Our own graph holds the engine together with what surrounds it; RTX must not make one inside it.
        config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED
        # The best kernels for a batch size before the first run: ours would else capture what RTX runs until then.
        config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
        return config

    def create_context(self, engine: trt.ICudaEngine, config: Any) -> trt.IExecutionContext | None:
        """An execution context that works in memory of ours, with what `runtime_config` gave; None if it failed."""
        if config is not None:
            return engine.create_execution_context(runtime_config=config)
        return engine.create_execution_context(self.module.ExecutionContextAllocationStrategy.USER_MANAGED)

    def set_scratch(self, context: trt.IExecutionContext, address: int, size: int) -> None:
        """Give a context its `scratch_bytes`."""
        if hasattr(self.module.IExecutionContext, "set_device_memory"):
            context.set_device_memory(address, size)
        else:
            cast(Any, context).device_memory = address

    def is_capturable(self, context: trt.IExecutionContext, stream: int) -> bool:
        """Return whether a stream may be captured while it runs; TensorRT itself lets one try."""
        if not hasattr(self.module.IExecutionContext, "is_stream_capturable"):
            return True
        return bool(cast(Any, context).is_stream_capturable(stream))

    def logger(self, messages: MutableSequence[str]) -> trt.ILogger:
        """One that collects errors and warnings, and prints nothing."""
        base = self.module.ILogger
        worst_unimportant = base.Severity.INFO

        class Collector(base):  # type: ignore[valid-type, misc]
            def __init__(self) -> None:
                base.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity < worst_unimportant:
                    messages.append(message)

        return Collector()

    def watch(self, config: trt.IBuilderConfig, listener: BuildListener) -> None:
        """Tell `listener` how the build goes."""
        base: Any = cast(Any, self.module).IProgressMonitor

        class Monitor(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                listener.phase_start(name, parent or "", steps)

            def step_complete(self, name: str, step: int) -> bool:
                return listener.step_complete(name)

            def phase_finish(self, name: str) -> None:
                listener.phase_finish(name)

        config.progress_monitor = Monitor()

    @property
    def _config_type(self) -> Any:
        return cast(Any, self.module).IBuilderConfig


def missing_names(module: object, names: Names) -> list[str]:
    """Return those of `names` that a module lacks, as `Class.name`."""
    return [
        f"{kind}.{name}"
        for kind, members in names.items()
        for name in members
        if not hasattr(getattr(module, kind, None), name)
    ]
