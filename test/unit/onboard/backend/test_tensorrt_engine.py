"""Loading engines and binding them to memory.

Real engines of TensorRT-RTX as far as they go without a GPU; where TensorRT would hand out objects that only a GPU
makes, objects that note what is asked of them.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from colour_model import save_canonical_colour_model

from seg_perception.core.contract import CLASS_MAP_OUTPUT, INPUT_NAME
from seg_perception.core.errors import BackendUnavailable, DeviceError, ModelError, NotCanonicalError
from seg_perception.core.manifest import BuildSettings, EngineManifest, manifest_path
from seg_perception.offboard.toolchain.engine.build import build_engine
from seg_perception.onboard.backend.cache import read_cached
from seg_perception.onboard.backend.tensorrt.api import TensorRt
from seg_perception.onboard.backend.tensorrt.driver import first_device
from seg_perception.onboard.backend.tensorrt.engine import TensorRtEngine, load_engine
from seg_perception.onboard.backend.tensorrt.engine_check import check_engine

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 has wheels for x86-64 and Python 3.10 to 3.13")

OUTPUTS = ("boxes", "scores", "labels", "masks")
SCRATCH_BYTES = 9000
VERSIONS = ("10.0", "10.3", "rtx")
ENGINE_FILE = Path(__file__)  # Any file: what is in it is TensorRT's business.


@dataclass
class Gpu:
    """What is asked of a device here."""

    name: str = "GPU"
    architecture: str = "sm_86"
    lost: bool = False

    def memory_info(self) -> tuple[int, int]:
        return 300 << 20, 8000 << 20


class Severity(IntEnum):
    ERROR = 1
    INFO = 3


class Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class Logger:
    Severity = Severity

    def __init__(self) -> None: ...


@dataclass
class Script:
    """What TensorRT does, and what was asked of it."""

    tensors: dict[str, tuple[str, Mode, str, tuple[int, ...]]]
    largest: int = 1
    says: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    destroyed: list[str] = field(default_factory=list)
    cached: bytes = b"kernels"
    inferred: dict[str, tuple[int, ...]] = field(default_factory=dict)
    log: Callable[[Severity, str], None] = lambda severity, text: None

    def call(self, name: str, *arguments: Any) -> bool:
        """Note it; False, with words in the log, where the script says that it fails."""
        self.calls.append((name, *arguments))
        if name in self.says:
            self.log(Severity.ERROR, self.says[name])
        return name not in self.says

    def made(self, thing: object, name: str) -> None:
        weakref.finalize(thing, self.destroyed.append, name)


def script_of(manifest: EngineManifest, batch: int = 1, largest: int = 1) -> Script:
    """Of an engine that is as its manifest promises."""
    spec = manifest.spec
    rows, grid = spec.max_instances, (spec.mask_height, spec.mask_width)
    tensors = {
        INPUT_NAME: ("UINT8", Mode.INPUT, "device", (batch, spec.network_height, spec.network_width, 3)),
        "boxes": ("FLOAT", Mode.OUTPUT, "device", (batch, rows, 4)),
        "scores": ("FLOAT", Mode.OUTPUT, "device", (batch, rows)),
        "labels": ("INT32", Mode.OUTPUT, "device", (batch, rows)),
        "masks": ("FLOAT", Mode.OUTPUT, "device", (batch, rows, *grid)),
    }
    return Script(tensors, largest)


class Context:
    def __init__(self, engine: Any, config: Any) -> None:
        self._engine, self._script, self.config = engine, engine.script, config
        self._batch = 0
        self._script.made(self, "context")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._batch = shape[0]
        return self._script.call("shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._script.call("address", name, address)

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._script.tensors[name][3]
        return self._script.inferred.get(name, (self._batch, *shape[1:]))

    def execute_async_v3(self, stream: int) -> bool:
        return self._script.call("enqueue", stream)


class NewerContext(Context):
    def set_device_memory(self, address: int, size: int) -> None:
        self._script.call("scratch", address, size)


class RtxContext(NewerContext):
    def is_stream_capturable(self, stream: int) -> bool:
        return stream == 2


class OldContext(Context):
    @property
    def device_memory(self) -> int:
        raise AttributeError("cannot be read")

    @device_memory.setter
    def device_memory(self, address: int) -> None:
        self._script.call("scratch", address, SCRATCH_BYTES)


class Engine:
    def __init__(self, runtime: Any) -> None:
        self._runtime, self.script = runtime, runtime.script
        self._names = list(self.script.tensors)
        self.num_io_tensors = len(self._names)
        self.script.made(self, "engine")

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.script.tensors[name][0])

    def get_tensor_mode(self, name: str) -> Mode:
        return self.script.tensors[name][1]

    def get_tensor_location(self, name: str) -> str:
        return self.script.tensors[name][2]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.script.tensors[name][3]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [(size, *self.script.tensors[name][3][1:]) for size in (1, self.script.largest, self.script.largest)]

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        chosen = strategy if runtime_config is None else runtime_config.strategy
        done = self.script.call("context", chosen)
        return self.kind(self, runtime_config) if done else None

    kind: type[Context] = Context


class OldEngine(Engine):
    device_memory_size = SCRATCH_BYTES
    kind = OldContext


class NewerEngine(Engine):
    device_memory_size_v2 = SCRATCH_BYTES
    kind = NewerContext


class RtxEngine(NewerEngine):
    kind = RtxContext

    def create_runtime_config(self) -> Any:
        return Config(self.script)

    def get_engine_stat(self) -> int:
        return 1234


class Config:
    strategy = "static"

    def __init__(self, script: Script) -> None:
        self._script = script

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        script = self._script
        return SimpleNamespace(
            deserialize=lambda data: script.call("cache", data), serialize=lambda: script.cached, script=script
        )

    def set_runtime_cache(self, cache: Any) -> None:
        self._script.call("use cache")


def module_of(script: Script, version: str) -> TensorRt:
    """TensorRT of a version, doing what the script says."""
    engine: type[Engine] = {"10.0": OldEngine, "10.3": NewerEngine, "rtx": RtxEngine}[version]

    class Runtime:
        DLA_core = -1

        def __init__(self, logger: Any) -> None:
            script.log = logger.log
            self.script = script
            if not script.call("start"):
                raise TypeError("pybind11::init(): factory function returned nullptr")
            script.made(self, "runtime")

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            script.call("dla", self.DLA_core)
            return engine(self) if script.call("load", data) else None

    module: Any = SimpleNamespace(
        __version__=version,
        ILogger=Logger,
        Runtime=Runtime,
        ICudaEngine=engine,
        IExecutionContext=engine.kind,
        TensorIOMode=Mode,
        TensorLocation=SimpleNamespace(DEVICE="device"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="ours"),
    )
    if version == "rtx":
        module.CudaGraphStrategy = SimpleNamespace(DISABLED="disabled")
        module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    return TensorRt("tensorrt-rtx" if version == "rtx" else "tensorrt", module)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seg_perception"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineManifest]:
    """A real engine."""
    folder = tmp_path_factory.mktemp("engines")
    model = save_canonical_colour_model(folder / "colours.onnx", width=64, height=64)
    result = build_engine(model, folder, BuildSettings("fp32", "tensorrt-rtx", ("sm_86",)))
    return result.path, result.manifest


@pytest.fixture
def manifest(built: tuple[Path, EngineManifest]) -> EngineManifest:
    return built[1]


def opened(manifest: EngineManifest, script: Script, version: str = "10.3", gpu: Gpu | None = None) -> TensorRtEngine:
    library = module_of(script, version)
    return TensorRtEngine(library, ENGINE_FILE, manifest, ENGINE_FILE.read_bytes(), gpu or Gpu())  # type: ignore[arg-type]


def places(manifest: EngineManifest) -> dict[str, int]:
    return {name: 256 * (index + 1) for index, name in enumerate((INPUT_NAME, *manifest.spec.output_names))}


def open_batch(manifest: EngineManifest, largest: int) -> tuple[EngineManifest, Script]:
    return replace(manifest, spec=replace(manifest.spec, batch=0)), script_of(manifest, -1, largest)


def has_gpu() -> bool:
    try:
        return bool(first_device())
    except BackendUnavailable:
        return False


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here; this is what happens without one")
def test_real_engine_without_a_driver_brings_tensorrts_words(built: tuple[Path, EngineManifest]) -> None:
    path, manifest = built
    with pytest.raises(ModelError) as error:
        load_engine(path, manifest, path.read_bytes(), Gpu())  # type: ignore[arg-type]
    text = str(error.value)
    assert f"{path}: cannot be loaded; build it again: seg_perception build " in text
    assert "cudaError 35" in text


def test_real_damaged_engine_brings_tensorrts_words(built: tuple[Path, EngineManifest], tmp_path: Path) -> None:
    path = tmp_path / built[0].name
    path.write_bytes(built[0].read_bytes()[:-100])
    with pytest.raises(ModelError, match=rf"{path}: cannot be loaded; build it again: .* TensorRT says: .*Serializ"):
        load_engine(path, built[1], path.read_bytes(), Gpu())  # type: ignore[arg-type]


def described(folder: Path, manifest: EngineManifest, data: bytes) -> Path:
    """An engine's file with a manifest that describes it."""
    path = folder / "road.engine"
    path.write_bytes(data)
    told = replace(manifest, engine_bytes=len(data), engine_sha256=hashlib.sha256(data).hexdigest())
    manifest_path(path).write_text(told.to_json())
    return path


def test_absent_engine(manifest: EngineManifest, tmp_path: Path) -> None:
    path = described(tmp_path, manifest, b"engine")
    path.unlink()
    with pytest.raises(ModelError, match=r"the engine cannot be read \(No such file.*; build it again: seg_percep"):
        check_engine(path)
    os.mkfifo(path)
    with pytest.raises(ModelError, match=r"the engine cannot be read \(not a regular file"):
        check_engine(path)


@pytest.mark.parametrize("data", [b"", b"engin", b"Engine", b"engine!", b"engine" * 1000])
def test_another_file_than_the_manifest_describes(manifest: EngineManifest, tmp_path: Path, data: bytes) -> None:
    path = described(tmp_path, manifest, b"engine")
    path.write_bytes(data)
    with pytest.raises(ModelError, match="its SHA-256 differs"):
        check_engine(path)


def test_the_bytes_that_were_checked_are_loaded(
    manifest: EngineManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = described(tmp_path, manifest, b"engine")
    library = SimpleNamespace(version=manifest.version)

    def load(*_: object) -> SimpleNamespace:
        # The moment between the check and the load, in which somebody puts another file there.
        path.write_bytes(b"another")
        return library

    device = SimpleNamespace(architecture=manifest.architectures[0], name="GPU")
    monkeypatch.setattr("seg_perception.onboard.backend.tensorrt.engine_check.TensorRt.load", load)
    monkeypatch.setattr("seg_perception.onboard.backend.tensorrt.engine_check.first_device", lambda: device)
    _, data = check_engine(path)
    assert data == b"engine"


@pytest.mark.parametrize("version", VERSIONS)
def test_bound_memory_is_set_before_the_first_run(manifest: EngineManifest, version: str) -> None:
    script = script_of(manifest)
    engine = opened(manifest, script, version)
    assert (engine.batch, engine.largest_batch, engine.scratch_bytes) == (1, 1, SCRATCH_BYTES)
    assert engine.mask_type == np.float32
    assert engine.memory_bytes == (1234 if version == "rtx" else 0)
    script.calls.clear()
    execution = engine.bind(1, places(manifest), 8192)
    execution.enqueue(2)
    calls = [call for call in script.calls if call[0] != "use cache"]
    assert calls[0] == ("context", "ours")
    assert calls[1] == ("scratch", 8192, SCRATCH_BYTES)
    assert calls[2] == ("shape", INPUT_NAME, (1, 64, 64, 3))
    assert calls[3:-1] == [("address", name, address) for name, address in places(manifest).items()]
    assert {name for _, name, _ in calls[3:-1]} == {INPUT_NAME, *OUTPUTS}
    assert calls[-1] == ("enqueue", 2)
    assert execution.capturable(2)
    assert execution.capturable(1) is (version != "rtx")


def test_rtx_makes_no_graph_of_its_own_and_compiles_before_the_first_run(manifest: EngineManifest) -> None:
    execution = opened(manifest, script_of(manifest), "rtx").bind(1, places(manifest), 256)
    config: Any = execution._config
    assert (config.strategy, config.cuda_graph_strategy) == ("ours", "disabled")
    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"


def test_open_batch(manifest: EngineManifest) -> None:
    any_batch, script = open_batch(manifest, 3)
    script.tensors["masks"] = ("HALF", *script.tensors["masks"][1:])
    engine = opened(any_batch, script)
    assert (engine.batch, engine.largest_batch, engine.mask_type) == (0, 3, np.float16)
    engine.bind(2, places(manifest), 256)
    assert ("shape", INPUT_NAME, (2, 64, 64, 3)) in script.calls
    with pytest.raises(ValueError, match=r"batch: expected 1 to 3, got 4"):
        engine.bind(4, places(manifest), 256)


@pytest.mark.parametrize(
    ("batch", "changes", "scratch", "message"),
    [
        (2, {}, 256, r"batch: expected 1, got 2"),
        (1, {"masks": 0}, 256, r"address of masks: expected a multiple of 256 above 0, got 0"),
        (1, {"boxes": 384}, 256, r"address of boxes: expected a multiple of 256 above 0, got 384"),
        (1, {}, 0, r"address of scratch: expected a multiple of 256 above 0, got 0"),
    ],
)
def test_what_does_not_fit(
    manifest: EngineManifest, batch: int, changes: dict[str, int], scratch: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(manifest, script_of(manifest)).bind(batch, places(manifest) | changes, scratch)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("labels", ("INT64", Mode.OUTPUT, "device", None), r"expected 'labels' of type INT32 as .*of type INT64"),
        ("masks", ("BF16", Mode.OUTPUT, "device", None), r"expected 'masks' of type FLOAT or HALF as"),
        ("boxes", ("FLOAT", Mode.INPUT, "device", None), r"expected 'boxes' of type FLOAT as .*OUTPUT.*INPUT"),
        ("scores", ("FLOAT", Mode.OUTPUT, "host", None), r"expected 'scores' .*'device'\).* as .*'host'\)"),
        (
            "masks",
            ("FLOAT", Mode.OUTPUT, "device", (1, 7, 7)),
            r"promise 'masks' of shape .*, the model has \(1, 7, 7\)",
        ),
        ("boxes", None, r"promise 'boxes' .*the model has no such tensor"),
        (CLASS_MAP_OUTPUT, ("UINT8", Mode.OUTPUT, "device", (1, 4, 4)), r"tensors that the contract lacks: \['cl"),
        (INPUT_NAME, ("UINT8", Mode.INPUT, "device", (-1, 64, 64, 3)), r"expected 1 images at once, the engine has"),
    ],
)
def test_engine_that_breaks_its_promise(manifest: EngineManifest, name: str, tensor: Any, message: str) -> None:
    script = script_of(manifest)
    if tensor is None:
        del script.tensors[name]
    else:
        script.tensors[name] = (*tensor[:3], tensor[3] or script.tensors[name][3])
    with pytest.raises(NotCanonicalError, match=message) as error:
        opened(manifest, script)
    assert "build it again: seg_perception build " in str(error.value)
    # Also while the error is on its way: the CUDA context ends with the caller's `with`.
    gc.collect()
    assert script.destroyed == ["engine", "runtime"]


def test_output_of_another_shape_than_promised(manifest: EngineManifest) -> None:
    script = script_of(manifest)
    script.inferred["masks"] = (1, 2, 3, 4)
    with pytest.raises(NotCanonicalError, match=r"promise 'masks'.*\(1, 2, 3, 4\).*build it again"):
        opened(manifest, script).bind(1, places(manifest), 256)
    assert "context" in script.destroyed


@pytest.mark.parametrize("failing", ["shape", "address"])
def test_refused_binding(manifest: EngineManifest, failing: str) -> None:
    script = script_of(manifest)
    engine = opened(manifest, script)
    script.says[failing] = "invalid argument"
    with pytest.raises(ModelError, match=r"does not take images of shape \(1, 64.*build .*says: invalid argument"):
        engine.bind(1, places(manifest), 256)


@pytest.mark.parametrize("words", ["Error Code 2: OutOfMemory (requested 9 bytes)", "(cudaError 2: out of memory)"])
def test_too_little_memory(manifest: EngineManifest, words: str) -> None:
    script = script_of(manifest)
    script.says["load"] = words
    size = f"{ENGINE_FILE.stat().st_size / 2**20:.0f}"
    message = rf"cannot be loaded, for want of GPU memory: it needs {size} MiB and more, 300 of 8000 MiB are free; end "
    with pytest.raises(DeviceError, match=message):
        opened(manifest, script)
    script = script_of(manifest)
    engine = opened(manifest, script)
    script.says["context"] = words
    with pytest.raises(DeviceError, match=r"cannot be executed, for want of GPU memory: it needs 0 MiB and more"):
        engine.bind(1, places(manifest), 256)


def test_failed_enqueue_brings_tensorrts_words(manifest: EngineManifest) -> None:
    script = script_of(manifest)
    execution = opened(manifest, script).bind(1, places(manifest), 256)
    script.log(Severity.ERROR, "something that was long ago")
    script.says["enqueue"] = "an illegal memory access was encountered"
    with pytest.raises(DeviceError, match=r"could not queue an inference; it says: an illegal memory access was enc"):
        execution.enqueue(2)
    with pytest.raises(DeviceError) as error:
        execution.enqueue(2)
    assert "long ago" not in str(error.value)


def test_tensorrt_that_cannot_start(manifest: EngineManifest) -> None:
    script = script_of(manifest)
    script.says["start"] = "CUDA driver version is insufficient"
    with pytest.raises(BackendUnavailable, match=r"tensorrt 10\.3 cannot start on GPU; update .*version is insuff"):
        opened(manifest, script)


def test_everything_goes_in_order(manifest: EngineManifest) -> None:
    script = script_of(manifest)
    engine = opened(manifest, script)
    first, second = (engine.bind(1, places(manifest), 256) for _ in range(2))
    first.close()
    first.close()
    assert script.destroyed == ["context"]
    engine.close()
    engine.close()
    assert script.destroyed == ["context", "context", "engine", "runtime"]
    with pytest.raises(RuntimeError, match="the execution was closed"):
        second.enqueue(2)
    with pytest.raises(RuntimeError, match="the engine was closed"):
        engine.bind(1, places(manifest), 256)


def test_dla_core_of_the_build(manifest: EngineManifest) -> None:
    script = script_of(manifest)
    opened(replace(manifest, settings=replace(manifest.settings, dla=1)), script)
    assert ("dla", 1) in script.calls


def test_compiled_kernels_are_kept(manifest: EngineManifest, cache_folder: Path) -> None:
    engine = opened(manifest, script_of(manifest), "rtx")
    engine.bind(1, places(manifest), 256)
    engine.close()
    (file,) = cache_folder.iterdir()
    assert read_cached(file) == b"kernels"
    script = script_of(manifest)
    engine = opened(manifest, script, "rtx")
    assert ("cache", b"kernels") in script.calls
    engine.bind(1, places(manifest), 256)
    assert ("use cache",) in script.calls
    script.cached = b"more kernels"
    engine.close()
    assert read_cached(file) == b"more kernels"
    opened(manifest, script_of(manifest), "rtx", Gpu(lost=True)).close()
    assert read_cached(file) == b"more kernels"
    file.write_bytes(file.read_bytes()[:-1])
    script = script_of(manifest)
    opened(manifest, script, "rtx")
    assert not [call for call in script.calls if call[0] == "cache"]


def test_cache_that_cannot_be_written_is_only_said(
    manifest: EngineManifest, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_folder.parent.mkdir()
    cache_folder.write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        opened(manifest, script_of(manifest), "rtx").close()
    assert "the kernels that RTX compiled cannot be kept" in caplog.text
