"""The kernels become machine code for each architecture, by either compiler, and once only."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from seg_perception.core.errors import BackendUnavailable
from seg_perception.onboard.backend.tensorrt.cuda import compiler
from seg_perception.onboard.backend.tensorrt.cuda.compiler import compile_kernels

KERNELS = ("letterbox", "select_rows", "paint_f32", "paint_f16", "prune", "class_cells", "check_classes")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "seg_perception" / "kernels"


@pytest.fixture
def no_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)


@pytest.fixture
def no_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(compiler, "_TOOLKITS", ())


@pytest.fixture
def small_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a kernel that compiles in no time."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "part.cuh").write_text("#pragma once\nconstexpr int NUMBER = 7;\n")
    (folder / "all.cu").write_text('#include "part.cuh"\nextern "C" __global__ void f(int *a) { *a = NUMBER; }\n')
    monkeypatch.setattr(compiler, "_KERNELS", folder)
    return folder


def kernels_of(cubin: bytes) -> set[str]:
    """Which kernels a cubin has: each is a section `.text.NAME` of the ELF file."""
    assert cubin.startswith(b"\x7fELF")
    return {name for name in KERNELS if f".text.{name}\0".encode() in cubin}


@pytest.mark.parametrize("architecture", [f"sm_{number}" for number in (75, 80, 86, 87, 89, 90, 100, 120)])
def test_nvrtc_compiles_all_kernels(
    architecture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, no_nvcc: None
) -> None:
    # Kept between runs, for as long as the sources are the same.
    monkeypatch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir("cuda")))
    assert kernels_of(compile_kernels(architecture)) == set(KERNELS)


def test_nvcc_compiles_where_there_is_no_nvrtc(cache: Path, no_nvrtc: None) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    assert kernels_of(compile_kernels("sm_87")) == set(KERNELS)


def test_what_is_in_the_cache_is_not_compiled_again(cache: Path, small_kernels: Path) -> None:
    first = compile_kernels("sm_87")
    (entry,) = cache.iterdir()
    written = entry.stat()
    assert compile_kernels("sm_87") == first
    assert (entry.stat().st_ino, entry.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert list(cache.iterdir()) == [entry]


def test_a_change_of_any_source_and_another_architecture_are_compiled(cache: Path, small_kernels: Path) -> None:
    first = compile_kernels("sm_87")
    (small_kernels / "part.cuh").write_text("#pragma once\nconstexpr int NUMBER = 8;\n")
    assert compile_kernels("sm_87") != first
    compile_kernels("sm_90")
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_entry_is_replaced(damage, cache: Path, small_kernels: Path) -> None:
    first = compile_kernels("sm_87")
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert compile_kernels("sm_87") == first
    assert entry.read_bytes() == whole


def test_without_a_writable_cache_it_compiles_all_the_same(cache: Path, small_kernels: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert compile_kernels("sm_87") == compile_kernels("sm_87")


def test_a_fault_in_a_kernel_comes_with_the_compilers_words(cache: Path, small_kernels: Path) -> None:
    (small_kernels / "part.cuh").write_text("constexpr int NUMBER = no_such_thing;\n")
    with pytest.raises(BackendUnavailable, match="no_such_thing"):
        compile_kernels("sm_87")
    with pytest.raises(BackendUnavailable, match="sm_1"):
        compile_kernels("sm_1")


def test_nvccs_words_come_as_well(cache: Path, small_kernels: Path, no_nvrtc: None) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    (small_kernels / "part.cuh").write_text("constexpr int NUMBER = no_such_thing;\n")
    with pytest.raises(BackendUnavailable, match="no_such_thing"):
        compile_kernels("sm_87")


def test_with_no_compiler_the_error_says_what_to_install(cache: Path, no_nvrtc: None, no_nvcc: None) -> None:
    with pytest.raises(BackendUnavailable, match=r"pip install .*cuda-nvrtc.*nvcc"):
        compile_kernels("sm_87")


def test_a_compiler_of_a_later_cuda_than_the_driver_is_not_used(
    cache: Path, small_kernels: Path, no_nvcc: None
) -> None:
    major = compiler._find_nvrtc().version[0]
    assert compile_kernels("sm_87", (major, 0))
    assert compile_kernels("sm_87", (major + 1, 0))
    with pytest.raises(BackendUnavailable, match=rf"driver is for CUDA {major - 1}.6.*nvidia-cuda-nvrtc-cu12"):
        compile_kernels("sm_87", (major - 1, 6))


def test_an_nvcc_that_fits_the_driver_is_taken_where_nvrtc_does_not(
    cache: Path, small_kernels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a Jetson with the toolkit of its driver and the newest wheels."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH")
    # The real one, under the name of an earlier release.
    earlier = tmp_path / "nvcc"
    earlier.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "release 12.6, V12.6.0" || exec "{nvcc}" "$@"\n')
    earlier.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert compile_kernels("sm_87", (12, 6)).startswith(b"\x7fELF")
