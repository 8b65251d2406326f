"""`seg_perception bench`: where the time of a frame goes, on any backend."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from seg_perception.core.errors import ConfigurationError, SegPerceptionError
from seg_perception.core.text import aligned

from .model_arguments import at_least
from .streetworld import size_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seg_perception.core.frame import Frame
    from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
    from seg_perception.onboard.pipeline.segmenter import Segmenter

HELP = "measure what a frame costs, stage by stage, and on a GPU how near that is to what its memory allows"
EPILOG = """\
JSON: one object. `model` (what runs here), `frames` (width, height, encoding, images, batch), `instances` (fewest,
most, mean on a map), `rounds`; `stages` and `total`: milliseconds per batch as p50, p95, p99; `frames_per_second`;
`memory`: MiB. With the frames on a GPU also, for each stage and in total, `bytes` (the least that it must move),
`floor_ms` (those over `bandwidth`, or the engine alone) and `ratio` (p50 over that floor); `graph` (the whole as it
runs, on the GPU), `obstacle` (why it is not a captured graph, or ""), `host` (the CPU's parts of the total, `gap` being
what the total is more than the graph), `frames_per_second_two_under_way`, and `allocations` after the warm-up.
"""
PERCENTILES = (50, 95, 99)
_WARM_UP = 5
_MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("model", type=Path, metavar="MODEL", help="canonical model (.onnx) or engine (.engine)")
    parser.add_argument("--backend", default="", help="openvino, onnxruntime or tensorrt (default: by the suffix)")
    parser.add_argument("--device", default="", help="the backend's name of the device")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 lets the backend choose")
    parser.add_argument("--batch", type=at_least(1), default=1, metavar="N", help="cameras at once (default: 1)")
    parser.add_argument(
        "--size", default="1920x1080", metavar="WxH", help="of the camera images (default: %(default)s)"
    )
    parser.add_argument("--encoding", default="bgr8", metavar="ENC", help="of the camera images (default: %(default)s)")
    parser.add_argument(
        "--input",
        type=Path,
        nargs="+",
        default=[],
        metavar="IMAGES",
        help="images, folders, videos or bags, scaled to --size (default: a made-up street)",
    )
    parser.add_argument("--rounds", type=at_least(1), default=100, metavar="N", help="batches (default: %(default)s)")
    parser.add_argument("--json", default="", metavar="FILE", help="write the result there, too; - for stdout alone")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    width, height = size_of(arguments.size)
    from seg_perception.core.share import find_model

    from .bench_frames import frames

    arguments.model = find_model(str(arguments.model))
    images = frames(arguments.input, width, height, arguments.encoding)
    result = _measured(arguments, images)
    if arguments.json == "-":
        print(json.dumps(result, indent=1))
        return 0
    print("\n".join(report(result)))
    if arguments.json:
        try:
            Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"--json: {arguments.json} cannot be written ({error.strerror})") from error
    return 0


def _measured(arguments: argparse.Namespace, images: list[Frame]) -> dict[str, Any]:
    from seg_perception.onboard.backend.tensorrt.cuda.backend import CudaBackend
    from seg_perception.onboard.pipeline.opening import ModelChoice, open_segmenter

    before = _gpu_memory(arguments.model)
    choice = ModelChoice(str(arguments.model), arguments.backend, arguments.device, arguments.threads)
    segmenter = open_segmenter(choice)
    try:
        backend = segmenter.backend
        # One batch for each image, so that each camera sees each of them.
        count = len(images)
        batches = [[images[(first + camera) % count] for camera in range(arguments.batch)] for first in range(count)]
        if isinstance(backend, CudaBackend):
            groups = segmenter.table.groups(backend.spec.class_names)
            details = measure_gpu(backend, groups, batches, arguments.rounds)
            details["memory"]["gpu_before"] = before
        else:
            details = measure_cpu(segmenter, batches, arguments.rounds)
        first = images[0]
        shown = {"width": first.width, "height": first.height, "encoding": first.encoding}
        return {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "model": backend.identity,
            "frames": {**shown, "images": len(images), "batch": arguments.batch},
            "rounds": arguments.rounds,
            **details,
        }
    finally:
        segmenter.close()


def measure_cpu(segmenter: Segmenter, batches: Sequence[Sequence[Frame]], rounds: int) -> dict[str, Any]:
    """Time a backend whose stages run one after the other on the host; the keys are explained by `EPILOG`.

    Raises:
        ModelOutputError: the model produced NaN or infinity.
    """
    for number in range(_WARM_UP):
        segmenter.segment(batches[number % len(batches)])
    stages: dict[str, list[float]] = {}
    total, instances = [], []
    for number in range(rounds):
        begin = perf_counter()
        results = segmenter.segment(batches[number % len(batches)])
        total.append(perf_counter() - begin)
        instances += [len(result.instances) for result in results]
        for name in results[0].timings:
            stages.setdefault(name, []).append(sum(result.timings[name] for result in results))
    return {
        "instances": _spread(instances),
        "stages": {name: _percentiles(seconds) for name, seconds in stages.items()},
        "total": _percentiles(total),
        "frames_per_second": rounds * len(batches[0]) / sum(total),
        "memory": _host_memory(),
    }


def measure_gpu(
    backend: CudaBackend,
    groups: NDArray[np.int32],
    batches: Sequence[Sequence[Frame]],
    rounds: int,
    **sizes: int,
) -> dict[str, Any]:
    """Time a backend on a GPU; the keys are explained by `EPILOG`.

    Args:
        backend: nothing of it is in flight.
        groups: int32 `[C]`, road group of each class.
        batches: frames, one per camera.
        rounds: how often.
        sizes: more arguments of `profile`.

    Raises:
        ConfigurationError: the batches are too large for the engine.
        ModelOutputError: the model produced NaN or infinity.
    """
    import numpy as np

    from seg_perception.onboard.backend.tensorrt.cuda.profile import profile
    from seg_perception.onboard.pipeline.options import SegmenterOptions
    from seg_perception.onboard.pipeline.selection import Selection

    if len(batches[0]) > backend.largest_batch:
        raise ConfigurationError(
            f"--batch: expected 1 to {backend.largest_batch}, which the engine takes, got {len(batches[0])}; build it "
            "with a larger --max-batch"
        )
    selection, options = Selection(backend.spec, groups, {}), SegmenterOptions()
    found = profile(backend, batches, lambda frame: selection.of(frame, options), rounds, **sizes)
    graph, wall = _percentiles(found.graph), _percentiles(found.wall)
    stages = {}
    for stage in found.stages:
        stages[stage.name] = _against(_percentiles(stage.seconds), stage.moved, stage.floor)
    moved, floor = sum(stage.moved for stage in found.stages), sum(stage.floor for stage in found.stages)
    host = {name: _percentiles(seconds) for name, seconds in found.host.items()}
    bandwidth = {name: getattr(found.bandwidth, name) for name in ("to_device", "to_host", "on_device")}
    return {
        "instances": _spread(found.painted),
        "stages": stages,
        "graph": _against(graph, moved, floor),
        "total": _against(wall, moved, floor),
        "obstacle": found.obstacle,
        "host": {**host, "gap": {"p50": wall["p50"] - graph["p50"]}},
        "frames_per_second": found.alone,
        "frames_per_second_two_under_way": found.together,
        "bandwidth": {name: rate / 1e9 if np.isfinite(rate) else None for name, rate in bandwidth.items()},
        "allocations": found.allocations,
        "memory": {**_host_memory(), "gpu": found.memory / _MIB},
    }


def _percentiles(seconds: Any) -> dict[str, float]:
    """Milliseconds."""
    import numpy as np

    values = np.percentile(np.asarray(seconds) * 1e3, PERCENTILES)
    return {f"p{name}": float(value) for name, value in zip(PERCENTILES, values, strict=True)}


def _against(percentiles: dict[str, float], moved: int, floor: float) -> dict[str, float | int | None]:
    """Return percentiles together with the floor; `floor` in seconds."""
    ratio = percentiles["p50"] / (floor * 1e3) if floor else None
    return {**percentiles, "bytes": moved, "floor_ms": floor * 1e3, "ratio": ratio}


def _spread(counts: Sequence[int]) -> dict[str, float]:
    return {"fewest": min(counts), "most": max(counts), "mean": sum(counts) / len(counts)}


def _host_memory() -> dict[str, float]:
    """MiB of this process, now and at most."""
    import resource

    import psutil

    # Linux counts in KiB.
    memory = {"host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    memory["host"] = psutil.Process().memory_info().rss / _MIB
    memory["host_peak"] = max(memory.values())
    return memory


def _gpu_memory(model: Path) -> float | None:
    """MiB in use on the GPU that an engine will run on; None for other models, or where nobody can tell."""
    if model.suffix != ".engine":
        return None
    from seg_perception.onboard.backend.tensorrt.cuda.profile import memory_in_use

    try:
        return memory_in_use() / _MIB
    except SegPerceptionError:
        # Opening the engine will say what is wrong.
        return None


def report(result: Mapping[str, Any]) -> list[str]:
    """Return the result as lines of text."""
    model, frames, instances = result["model"], result["frames"], result["instances"]
    size = f"{frames['width']}x{frames['height']} {frames['encoding']}"
    counts = (
        f"{instances['fewest']} to {instances['most']} instances painted on each, {instances['mean']:.1f} on average"
    )
    facts = [(name, str(model[name])) for name in ("model", "backend", "device", "precision") if model.get(name)]
    facts.append(("images", f"{frames['images']} of {size}; {counts}"))
    facts.append(("batches", f"{result['rounds']} of {frames['batch']}, after a warm-up; times are of a whole batch"))
    on_gpu = "graph" in result
    rows = [("stage", *(f"p{name} ms" for name in PERCENTILES), *(("MB", "floor ms", "ratio") if on_gpu else ()))]
    rows += [(name, *_cells(stage)) for name, stage in result["stages"].items()]
    if on_gpu:
        rows.append(("all, on the GPU", *_cells(result["graph"])))
    rows.append(("frames to results", *_cells(result["total"])))
    lines = [*aligned(facts, (0, 1)), "", *aligned(rows), ""]
    return [*lines, *aligned(_gpu_facts(result) if on_gpu else _host_facts(result), (0, 1))]


def _cells(times: Mapping[str, float | None]) -> list[str]:
    cells = [f"{times[f'p{name}']:.3f}" for name in PERCENTILES]
    if "ratio" in times:
        moved, floor, ratio = times["bytes"] or 0, times["floor_ms"], times["ratio"]
        cells += [f"{moved / 1e6:.2f}" if moved else "-", f"{floor:.3f}", f"{ratio:.2f}" if ratio else "-"]
    return cells


def _host_facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory = result["memory"]
    now = f"{memory['host']:.0f} MiB now, " if "host" in memory else ""
    return [
        ("throughput", f"{result['frames_per_second']:.1f} frames/s"),
        ("memory", f"{now}{memory['host_peak']:.0f} MiB at most"),
    ]


def _gpu_facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    host, memory, rates = result["host"], result["memory"], result["bandwidth"]
    parts = ", ".join(f"{name} {part['p50']:.3f}" for name, part in host.items() if name != "gap")
    before = memory["gpu_before"]
    since = "" if before is None else f", {before:.0f} MiB before the engine was loaded"
    two, one = result["frames_per_second_two_under_way"], result["frames_per_second"]
    copies = [f"{name.replace('_', ' ')} {rate:.1f} GB/s" for name, rate in rates.items() if rate is not None]
    return [
        ("launches", f"one by one: {result['obstacle']}" if result["obstacle"] else "one captured graph"),
        ("host gap", f"{host['gap']['p50']:.3f} ms (frames to results less all on the GPU); CPU, p50 ms: {parts}"),
        ("throughput", f"{one:.1f} frames/s one batch at a time, {two:.1f} with two batches in flight"),
        ("copies", f"{', '.join(copies)} (on the device read and written bytes count)"),
        ("GPU memory", f"{memory['gpu']:.0f} MiB in use by all programs{since}"),
        *_host_facts(result)[1:],
        ("allocations", f"{result['allocations']} after the warm-up"),
    ]
