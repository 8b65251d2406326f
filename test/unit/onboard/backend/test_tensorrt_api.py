"""What differs between the versions of TensorRT, against real modules and, for 10.3, a recorded list of its names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.onboard.backend.tensorrt.api import BUILD_NAMES, RUN_NAMES, TensorRt, missing_names

ROOT = Path(__file__).resolve().parents[4]
# Of TensorRT 10.3, JetPack 6's, from the bindings that NVIDIA publishes: the classes that matter and their members.
NAMES_10_3 = json.loads(Path(__file__).with_name("tensorrt_10_3_names.json").read_text())
# What the bindings of 10.1 added, and 10.0 therefore lacks.
ADDED_IN_10_1 = ("device_memory_size_v2", "set_device_memory")
RTX_NAMES = {
    "CudaGraphStrategy": ("DISABLED",),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    "IExecutionContext": ("is_stream_capturable",),
    "IRuntimeCache": ("deserialize", "serialize"),
    "IRuntimeConfig": (
        *("create_runtime_cache", "cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"),
        *("set_execution_context_allocation_strategy", "set_runtime_cache"),
    ),
}


@pytest.fixture(scope="module")
def rtx() -> TensorRt:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 has wheels for x86-64 and Python 3.10 to 3.13")
    return TensorRt.load("tensorrt-rtx", BUILD_NAMES | RUN_NAMES)


@pytest.fixture
def config(rtx: TensorRt) -> Iterator[Any]:
    messages: list[str] = []
    logger = rtx.logger(messages)
    builder = rtx.module.Builder(logger)
    yield builder.create_builder_config()
    assert messages == []


class Recorded:
    """A class of 10.3 that has its members and does nothing."""

    def __init__(self, members: str) -> None:
        self._values = {name: index for index, name in enumerate(members.split())}

    def __getattr__(self, name: str) -> int:
        if name in self.__dict__.get("_values", ()):
            return self._values[name]
        raise AttributeError(name)


def recorded(version: str, without: tuple[str, ...] = ()) -> TensorRt:
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    for kind, members in NAMES_10_3.items():
        setattr(module, kind, Recorded(" ".join(name for name in members.split() if name not in without)))
    return TensorRt("tensorrt", module)


@pytest.fixture
def jetpack6() -> TensorRt:
    return recorded("10.3.0")


def test_rtx_builds_for_architectures(rtx: TensorRt, config: Any) -> None:
    assert rtx.architectures[:4] == ("sm_75", "sm_80", "sm_86", "sm_89")
    assert rtx.architectures == tuple(sorted(rtx.architectures, key=lambda name: int(name[3:])))
    rtx.set_architectures(config, ("sm_86", "sm_120"))
    kinds = import_module("tensorrt_rtx").ComputeCapability
    assert [config.get_compute_capability(index) for index in range(2)] == [kinds.SM86, kinds.SM120]
    assert config.num_compute_capabilities == 2


def test_rtx_takes_the_settings(rtx: TensorRt, config: Any) -> None:
    flags = import_module("tensorrt_rtx").BuilderFlag
    assert not config.get_flag(flags.REQUIRE_USER_ALLOCATION)
    rtx.allow_capture(config)
    assert config.get_flag(flags.REQUIRE_USER_ALLOCATION)
    rtx.use_sparsity(config)
    assert config.get_flag(flags.SPARSE_WEIGHTS)
    rtx.limit_workspace(config, 3 << 20)
    assert config.get_memory_pool_limit(rtx.module.MemoryPoolType.WORKSPACE) == 3 << 20


def test_rtx_has_no_timing_cache_and_no_dla(rtx: TensorRt, config: Any) -> None:
    assert rtx.has_progress_monitor
    assert not rtx.has_timing_cache
    with pytest.raises(ConfigurationError, match=r"--dla 0: tensorrt-rtx 1\..* has 0 DLA cores"):
        rtx.use_dla(SimpleNamespace(num_DLA_cores=2), config, 0)  # type: ignore[arg-type]


def test_rtx_logger_collects_errors(rtx: TensorRt) -> None:
    messages: list[str] = []
    logger = rtx.logger(messages)
    config: Any = rtx.module.Builder(logger).create_builder_config()
    config.get_compute_capability(7)
    assert any("not in a valid range" in message for message in messages)


def test_rtx_network_is_strongly_typed(rtx: TensorRt) -> None:
    logger = rtx.logger([])
    network = rtx.module.Builder(logger).create_network(rtx.network_flags)
    assert network.get_flag(rtx.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def test_tensorrt_11_has_what_running_needs() -> None:
    """Looks at names only: a Runtime without a driver can crash the interpreter."""
    lean = pytest.importorskip("tensorrt_lean", reason="tensorrt-lean-cu13 has wheels for x86-64, Python 3.10 to 3.13")
    assert lean.__version__.startswith("11.")
    assert missing_names(lean, RUN_NAMES) == []
    newest = {"ICudaEngine": ("device_memory_size_v2", "get_engine_stat"), "IExecutionContext": ("set_device_memory",)}
    assert missing_names(lean, newest) == []
    assert not hasattr(lean.ICudaEngine, "device_memory_size")
    assert not hasattr(lean, "CudaGraphStrategy")
    # It is the run-time half.
    assert "Builder.build_serialized_network" in missing_names(lean, BUILD_NAMES)


def test_rtx_has_what_only_it_needs(rtx: TensorRt) -> None:
    assert missing_names(rtx.module, RTX_NAMES) == []
    assert missing_names(rtx.module, {"ICudaEngine": ("device_memory_size_v2", "get_engine_stat")}) == []
    config: Any = import_module("tensorrt_rtx").IRuntimeConfig
    assert config.cuda_graph_strategy.fset
    assert config.dynamic_shapes_kernel_specialization_strategy.fset


@pytest.mark.parametrize("without", [(), ADDED_IN_10_1])
def test_scratch_memory_of_10_0_and_later(without: tuple[str, ...]) -> None:
    library = recorded("10.x", without)
    assert missing_names(library.module, RUN_NAMES) == []
    engine: Any = SimpleNamespace(device_memory_size=5, **({} if without else {"device_memory_size_v2": 7}))
    assert library.scratch_bytes(engine) == (5 if without else 7)
    given: list[Any] = []
    context: Any = SimpleNamespace(set_device_memory=lambda *memory: given.append(memory))
    library.set_scratch(context, 512, 7)
    assert given == ([] if without else [(512, 7)])
    assert getattr(context, "device_memory", None) == (512 if without else None)


def test_tensorrt_tells_less_than_rtx(jetpack6: TensorRt) -> None:
    nothing: Any = SimpleNamespace()
    assert jetpack6.runtime_config(nothing) is None
    assert jetpack6.is_capturable(nothing, 1)
    assert jetpack6.weights_bytes(nothing) == 0


def test_tensorrt_10_3_has_what_building_and_running_needs(jetpack6: TensorRt) -> None:
    assert missing_names(jetpack6.module, BUILD_NAMES | RUN_NAMES) == []
    assert missing_names(jetpack6.module, {"Builder": ("none",), "None": ("x",)}) == ["Builder.none", "None.x"]


def test_tensorrt_10_3_is_told_to_be_strongly_typed_and_builds_only_for_its_gpu(jetpack6: TensorRt) -> None:
    # EXPLICIT_BATCH is bit 0, STRONGLY_TYPED bit 1.
    assert jetpack6.network_flags == 2
    assert jetpack6.architectures == ()
    assert jetpack6.has_progress_monitor
    assert jetpack6.has_timing_cache
    flags: list[int] = []
    jetpack6.allow_capture(SimpleNamespace(set_flag=flags.append))  # type: ignore[arg-type]
    assert flags == []


def test_dla_of_a_jetson(jetpack6: TensorRt) -> None:
    flags: list[int] = []
    config: Any = SimpleNamespace(set_flag=flags.append)
    builder: Any = SimpleNamespace(num_DLA_cores=2)
    jetpack6.use_dla(builder, config, 1)
    assert config.DLA_core == 1
    assert config.default_device_type == jetpack6.module.DeviceType.DLA
    assert flags == [jetpack6.module.BuilderFlag.GPU_FALLBACK]
    with pytest.raises(ConfigurationError, match=r"--dla 2: tensorrt 10\.3\.0 has 2 DLA cores"):
        jetpack6.use_dla(builder, config, 2)


@pytest.mark.parametrize(
    ("flavour", "module", "remedy"),
    [("tensorrt", "tensorrt", "comes with JetPack"), ("tensorrt-rtx", "tensorrt_rtx", "pip install tensorrt-rtx-cu12")],
)
def test_absent_module(monkeypatch: pytest.MonkeyPatch, flavour: str, module: str, remedy: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailable, match=rf"{flavour}: its Python module {module} cannot .*{remedy}"):
        TensorRt.load(flavour, RUN_NAMES)


def test_old_or_empty_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name on the path imports as a module without anything."""
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(BackendUnavailable, match=r"expected TensorRT 10\.0 or later.* lacks Builder\.build_serialized"):
        TensorRt.load("tensorrt", BUILD_NAMES)


def test_mypy_knows_tensorrt(tmp_path: Path) -> None:
    """Without the stubs everything would be Any, and mypy silent."""
    if not (Path(pytest.__file__).parents[1] / "tensorrt-stubs").is_dir() or find_spec("mypy") is None:
        pytest.skip("set-up has put no types of TensorRT into this environment")
    program = tmp_path / "program.py"
    program.write_text(
        "from seg_perception.onboard.backend.tensorrt.api import TensorRt\n"
        "def use(library: TensorRt) -> None:\n"
        "    builder = library.module.Builder(library.logger([]))\n"
        "    builder.create_builder_config().set_memory_pool(1)\n"
        "    builder.create_network(library.network_flags).num_layers\n"
        "    library.module.BuilderFlag.NO_SUCH_FLAG\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    errors = [line for line in done.stdout.splitlines() if "program.py" in line and "error" in line]
    assert [line.split(":")[1] for line in errors] == ["4", "6"], done.stdout
