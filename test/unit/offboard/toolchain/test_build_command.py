"""`build` from the command line: what it says, what Ctrl-C and a full disk leave, and the way to a refused load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from colour_model import save_canonical_colour_model

from seg_perception.core.manifest import BuildSettings, load_manifest, manifest_path
from seg_perception.offboard.toolchain.engine.build import build_engine
from seg_perception.offboard.toolchain.engine.progress import BuildProgress, run_watched

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 has wheels for x86-64 and Python 3.10 to 3.13")

RTX = ("--target", "tensorrt-rtx", "--gpu", "sm_86", "--precision", "fp32")
# The six functions of the CUDA driver that tell which GPU is here, for a machine without one.
DRIVER = """
#include <stdio.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGet(int *device, int place) { *device = 7; return place ? 101 : 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "GPU number %d", device); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
{ *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : -1; return device != 7; }
int cuGetErrorString(int code, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_canonical_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx", width=64, height=64)


@pytest.fixture(scope="module")
def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    done = command("build", model, "-o", folder, *RTX)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [str(folder / "colours-fp32-tensorrt-rtx.engine.json")]
    return folder / "colours-fp32-tensorrt-rtx.engine"


def command(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "seg_perception.cli", *map(str, words)]
    return subprocess.run(call, capture_output=True, text=True, timeout=200, env={**os.environ, **(env or {})})


def image(folder: Path) -> Path:
    path = folder / "street.ppm"
    path.write_bytes(b"P6 64 64 255 " + bytes(64 * 64 * 3))
    return path


def build_driver(folder: Path, architecture: tuple[int, int] = (8, 6), init: int = 0) -> dict[str, str]:
    """The environment in which CUDA's driver says that it sees this GPU."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler to make a stand-in for the CUDA driver with")
    source = folder / "driver.c"
    source.write_text(DRIVER)
    values = {"INIT": init, "MAJOR": architecture[0], "MINOR": architecture[1]}
    defines = [f"-D{name}={value}" for name, value in values.items()]
    subprocess.run(
        [compiler, "-shared", "-fPIC", *defines, "-o", str(folder / "libcuda.so.1"), str(source)], check=True
    )
    return {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


def test_the_second_build_reuses_the_first(model: Path, engine: Path) -> None:
    written = engine.stat().st_mtime_ns
    done = command("build", model, "-o", engine.parent, *RTX)
    assert done.returncode == 0
    assert f"reusing    {engine} (" in done.stdout
    assert "--rebuild" in done.stdout
    assert engine.stat().st_mtime_ns == written


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_inspect_prints_the_manifest(engine: Path, suffix: str) -> None:
    done = command("inspect", f"{engine}{suffix}")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    manifest = load_manifest(engine)
    for expected in (
        f"model {engine} (engine, contract 1)",
        f"engine {manifest.engine_bytes / 1e6:.1f} MB, sha256 {manifest.engine_sha256}",
        f"TensorRT tensorrt-rtx {manifest.version}",
        "runs on sm_86",
        "precision fp32; multiply-accumulates: float32 100.0%",
        f"command {manifest.rebuild_command(engine)}",
        "family yolov8",
        "1 car vehicle thing",
    ):
        assert expected in lines


def test_inspect_says_what_an_engine_does_not_count(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / engine.name
    shutil.copy(engine, copy)
    values = json.loads(manifest_path(engine).read_text())
    values["precision"]["unknown"] = ["first", "second"]
    manifest_path(copy).write_text(json.dumps(values))
    lines = [" ".join(line.split()) for line in command("inspect", copy).stdout.splitlines()]
    assert "uncounted 2 layers of unknown size are not counted: first, second" in lines


def test_an_engine_without_its_suffix_is_known_by_its_content(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    copy.write_bytes(engine.read_bytes())
    done = command("inspect", copy)
    assert done.returncode == 1
    assert f"{copy}: expected its manifest model.json next to it" in done.stderr


def test_a_manifest_without_its_engine(engine: Path, tmp_path: Path) -> None:
    shutil.copy(manifest_path(engine), tmp_path)
    done = command("inspect", tmp_path / manifest_path(engine).name)
    assert "not loaded: model file: " in done.stdout
    assert "does not exist" in done.stdout


def test_the_way_from_build_to_a_refused_load(engine: Path, tmp_path: Path) -> None:
    """On the command line, on a machine without a GPU."""
    env = build_driver(tmp_path, init=100)
    done = command("image", image(tmp_path), "--model", engine, "-o", tmp_path / "out", env=env)
    assert done.returncode == 1
    assert f"error: {engine}: this engine needs an NVIDIA GPU (sm_86): the NVIDIA driver has no GPU" in done.stderr
    assert "(cuInit: error 100, no CUDA-capable device is detected" in done.stderr


def test_an_engine_for_another_gpu_is_refused(engine: Path, tmp_path: Path) -> None:
    done = command("inspect", engine, env=build_driver(tmp_path, (12, 0)))
    assert "not loaded: " in done.stdout
    assert "built for sm_86, the GPU here (GPU number 7) is sm_120; build it again for this one: " in done.stdout
    assert "--gpu sm_120" in done.stdout


@pytest.mark.skipif(find_spec("pycuda") is not None, reason="pycuda is installed, which this is about the absence of")
def test_an_engine_that_fits_but_nothing_to_run_it_with(engine: Path, tmp_path: Path) -> None:
    env = build_driver(tmp_path)
    assert "not loaded: pycuda cannot be imported" in command("inspect", engine, env=env).stdout
    done = command("image", image(tmp_path), "--model", engine, "-o", tmp_path / "out", env=env)
    assert done.returncode == 1
    assert "error: pycuda cannot be imported" in done.stderr
    done = command("image", image(tmp_path), "--model", engine, "-o", tmp_path / "out", "--device", "1", env=env)
    assert "error: device: an engine runs on the GPU that CUDA counts first, got '1'" in done.stderr


def test_a_gpu_that_is_there_is_built_for(model: Path, tmp_path: Path) -> None:
    """TensorRT-RTX needs no GPU for that, so a driver that only says there is one is enough."""
    env = build_driver(tmp_path, (8, 9))
    done = command("build", model, "-o", tmp_path, "--target", "tensorrt-rtx", "--precision", "fp32", env=env)
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(tmp_path / "colours-fp32-tensorrt-rtx.engine")
    assert (manifest.device, manifest.architectures) == ("GPU number 7", ("sm_89",))
    done = command("build", model, "-o", tmp_path, "--target", "tensorrt-rtx", env=build_driver(tmp_path, (8, 7)))
    assert "knows sm_75, sm_80" in done.stderr
    assert "is sm_87; use --target tensorrt" in done.stderr


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    # Large enough to be interrupted.
    model = save_canonical_colour_model(tmp_path / "large.onnx", batch=None)
    call = [sys.executable, "-m", "seg_perception.cli", "build", str(model), "-o", str(tmp_path / "out"), *RTX]
    process = subprocess.Popen(
        [*call, "--max-batch", "4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    seen = ""
    while "Building engine from subgraph" not in seen:
        seen = process.stdout.readline()
        assert seen, process.communicate()
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=250)
    assert process.returncode == 130, errors
    assert "cancelling" in said
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_the_old_engine(model: Path, engine: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    old = tmp_path / engine.name
    shutil.copy(engine, old)
    shutil.copy(manifest_path(engine), manifest_path(old))
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    run = "from seg_perception.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["build", str(model), "-o", str(tmp_path), *RTX, "--rebuild"]
    done = subprocess.run([sys.executable, "-c", limited + run, *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert (
        f"error: {old}: cannot be written (File too large); choose an existing folder with enough space" in done.stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([old.name, manifest_path(old).name])
    assert old.read_bytes() == engine.read_bytes()


def test_progress_is_told_in_lines_and_never_falls(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions: list[float] = []
    step = BuildProgress.step_complete

    def watched(self: BuildProgress, name: str) -> bool:
        fractions.append(self.fraction)
        return step(self, name)

    monkeypatch.setattr(BuildProgress, "step_complete", watched)
    lines: list[str] = []
    build_engine(model, tmp_path, BuildSettings("fp32", "tensorrt-rtx", ("sm_86",)), lines.append)
    assert len(fractions) > 300
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.05
    assert fractions[-1] > 0.8
    assert any("Building engine from subgraph" in line and "%" in line for line in lines)


def test_phases_that_are_over_before_anybody_looks_have_their_lines() -> None:
    progress, lines = BuildProgress(), list[str]()

    def quick() -> None:
        progress.phase_start("build", "", 3)
        for name in ("one", "two", "three"):
            progress.phase_start(name, "build", 1)
            progress.phase_finish(name)

    run_watched(quick, progress, lines.append)
    assert [line.split()[-1] for line in lines] == ["one", "two", "three"]


def test_a_build_without_news_still_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from seg_perception.offboard.toolchain.engine import progress

    monkeypatch.setattr(progress, "_HEARTBEAT_S", 0.3)
    lines: list[str] = []

    def quiet() -> int:
        time.sleep(1.5)
        return 5

    assert run_watched(quiet, BuildProgress(), lines.append) == 5
    assert len(lines) >= 2
    assert all("building" in line for line in lines)


def test_an_error_of_the_build_comes_through() -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        run_watched(fail, BuildProgress(), print)
