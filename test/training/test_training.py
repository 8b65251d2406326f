"""The training as a whole, small: it learns, goes on where it was stopped, and exports what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seg_perception.core.classes import ROAD_GROUPS
from seg_perception.core.errors import ConfigurationError
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.metrics.segmentations import checked_segmentation
from seg_perception.offboard.streetworld.coco import write_coco
from seg_perception.offboard.streetworld.world import StreetWorld, WorldOptions
from seg_perception.offboard.toolchain.head import HeadOptions
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.onnxruntime import OrtRunner
from seg_perception.onboard.backend.registry import open_backend
from training.__main__ import main
from training.data import IGNORED, Samples, collate, draw_map, load_images
from training.export import ForExport, export_canonical, fused
from training.losses import losses
from training.network import StreetNano
from training.state import load_weights, save_weights
from training.train import Training, TrainOptions

SMALL = TrainOptions(
    epochs=2, window_epochs=1, size=(192, 320), window=(128, 192), batch=2, rate=2e-3, warm_up=2, light=0.3
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    """Six images of the street world."""
    folder = tmp_path_factory.mktemp("world")
    write_coco(folder, StreetWorld(WorldOptions(6, 9001, 320, 192, scene_frames=3, weathers=("day",))).shots())
    return CocoSet.load(folder / "instances.json")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("maps")


def training(folder: Path, data: CocoSet, cache: Path, options: TrainOptions = SMALL, **more: Path) -> Training:
    images = load_images([data], cache, 1, lends=True)
    return Training(folder, options, images, {"world": data.only(data.image_ids[:2])}, workers=0, **more)


def test_maps_hold_what_the_annotations_say(data: CocoSet, cache: Path):
    images = load_images([data], cache, 1)
    assert len(images) == 6
    options = replace(SMALL.augmentation(1), smallest=1, largest=1, full=(320, 192), rotation=0, flip=False, light=0)
    batch = collate([Samples(images, options, 1, 0)[index] for index in range(6)])
    visible = [each for each in data.annotations["annotations"] if each["area"] >= 12]
    assert int((batch.labels >= 0).sum()) == len(visible)
    # Of the largest object of the first image: its box, and its number in the map.
    first = max((each for each in visible if each["image_id"] == data.image_ids[0]), key=lambda each: each["area"])
    x, y, width, height = first["bbox"]
    assert batch.boxes[0, 0].tolist() == [x, y, x + width, y + height]
    assert int((batch.maps[0] == 1).sum()) == first["area"]


def test_a_few_steps_on_a_few_frames_reduce_every_part_of_the_loss(data: CocoSet, cache: Path, tmp_path: Path):
    run = training(tmp_path, data, cache)
    batch = collate([Samples(load_images([data], cache, 1), SMALL.augmentation(1), 1, 0)[k] for k in range(3)])
    run.network.train()
    first = losses(run.network(batch.images.float() / 255), batch).numbers()
    for _ in range(40):
        last = run._step(batch)
    for name, value in first.items():
        assert last[name] < 0.85 * value, name


def test_what_was_stopped_comes_to_the_same_as_what_was_not(data: CocoSet, cache: Path, tmp_path: Path):
    whole = training(tmp_path / "whole", data, cache)
    assert whole.run()
    assert not training(tmp_path / "parts", data, cache).run(minutes=0)
    while not (part := training(tmp_path / "parts", data, cache)).run(minutes=0):
        assert 0 <= part.progress.epoch < 2
    for name, value in whole.average.network.state_dict().items():
        assert torch.equal(part.average.network.state_dict()[name], value), name
    rows = json.loads((tmp_path / "parts" / "history.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["score"] == whole.progress.history[1]["score"]
    assert (tmp_path / "parts" / "curves.png").stat().st_size > 1000


def test_a_checkpoint_of_other_options_is_refused(data: CocoSet, cache: Path, tmp_path: Path):
    training(tmp_path, data, cache).run(minutes=0)
    with pytest.raises(ConfigurationError, match=r"last\.pt.*other options.*rate"):
        training(tmp_path, data, cache, replace(SMALL, rate=1e-3))


def test_frozen_parts_stay_as_they_were(data: CocoSet, cache: Path, tmp_path: Path):
    run = training(tmp_path, data, cache, replace(SMALL, frozen=("stage4",)))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run(minutes=0)
    after = run.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("stage4."))
    assert not torch.equal(after["stage8.0.0.weight"], before["stage8.0.0.weight"])
    with pytest.raises(ConfigurationError, match=r"--freeze.*stage4.*'stage5'"):
        training(tmp_path / "other", data, cache, replace(SMALL, frozen=("stage5",)))


def random_network() -> StreetNano:
    """With weights and statistics under which something is found everywhere."""
    torch.manual_seed(3)
    network = StreetNano()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    for head in network.heads:
        torch.nn.init.normal_(head.classes.weight, std=0.8)
        torch.nn.init.constant_(head.classes.bias, -1.0)
        torch.nn.init.normal_(head.coefficients.weight, std=0.5)
    return network.eval()


def test_the_export_says_what_pytorch_says(tmp_path: Path):
    network = random_network()
    export_canonical(network, tmp_path / "model.onnx", (192, 320), HeadOptions(nms_iou=0.999, max_instances=40))
    images = np.random.default_rng(1).integers(0, 256, (2, 192, 320, 3), np.uint8)
    outputs = OrtRunner(tmp_path / "model.onnx", RunOptions(threads=1)).run(images)
    with torch.no_grad():
        predictions, prototypes = ForExport(network)(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    for image in range(2):
        scores, labels = predictions[image, 4:8].max(0)
        middle, size = predictions[image, :2], predictions[image, 2:4]
        corners = torch.cat((middle - size / 2, middle + size / 2)).T.numpy()
        best = scores.topk(40).values.numpy()
        assert np.allclose(outputs.scores[image], best, atol=1e-4)
        # Where scores are equal but for rounding, the order is anybody's: found again by the box.
        away = np.abs(outputs.boxes[image][:, None] - corners[None]).max(2)
        mine = away.argmin(1)
        assert len(set(mine.tolist())) == 40
        assert away.min(1).max() < 0.05
        assert np.allclose(outputs.scores[image], scores[mine].numpy(), atol=1e-4)
        assert (outputs.labels[image] == labels[mine].numpy()).all()
        masks = torch.einsum("pn,phw->nhw", predictions[image, 8:, mine], prototypes[image]).numpy()
        assert np.allclose(outputs.masks[image], masks, atol=1e-2 * np.abs(masks).max())


def test_folding_the_normalisation_changes_nothing():
    network, images = random_network(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for one, other in zip(ForExport(network)(images), ForExport(fused(network))(images), strict=True):
            assert torch.allclose(one, other, atol=1e-3)


def test_weights_survive_half_precision(tmp_path: Path):
    network, other = random_network(), StreetNano()
    save_weights(tmp_path / "w.safetensors", network)
    load_weights(tmp_path / "w.safetensors", other)
    for name, value in network.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, rtol=1e-3, atol=1e-6), name
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match="--init"):
        load_weights(tmp_path / "w.safetensors", other)


def test_the_command_fine_tunes_on_labels(data: CocoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("training.__main__.RUNS", tmp_path / "runs")
    monkeypatch.setattr("training.__main__._STEPS_PER_EPOCH", 2)
    save_weights(tmp_path / "start.safetensors", StreetNano())
    command = ["--data", str(data.path), "--init", str(tmp_path / "start.safetensors"), "--epochs", "1", "--batch", "2"]
    assert main([*command, "--window-epochs", "0", "--workers", "0", "--out", str(tmp_path / "tuned")]) == 0
    spec = open_backend(tmp_path / "tuned" / "street-nano.onnx", "onnxruntime", RunOptions(threads=1)).spec
    assert [name.replace(" ", "_") for name in spec.class_names] == list(ROAD_GROUPS)
    assert (spec.network_height, spec.network_width, spec.family) == (384, 640, "street-nano")
    history = json.loads((tmp_path / "tuned" / "history.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in history] == [0, 1]


def test_a_finished_training_is_called_so_and_other_data_are_refused(
    data: CocoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("training.__main__.RUNS", tmp_path / "runs")
    monkeypatch.setattr("training.__main__._STEPS_PER_EPOCH", 1)
    command = [
        "--data",
        str(data.path),
        "--epochs",
        "1",
        "--batch",
        "1",
        "--workers",
        "0",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(command) == 0
    assert "pedestrian -> pedestrian" in capsys.readouterr().out
    assert main(command) == 0
    assert "finished" in capsys.readouterr().out
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**data.annotations, "images": list(data.annotations["images"])[::-1]}), "utf-8")
    assert main([*command, "--data", str(other), "--images", str(data.images[0].path.parent)]) == 1
    assert "other options or data" in capsys.readouterr().err


def test_what_cannot_be_learnt_from_is_refused(
    data: CocoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("training.__main__.RUNS", tmp_path / "runs")
    images = str(data.images[0].path.parent)

    def refused(content: dict[str, object], *more: str) -> str:
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({**data.annotations, **content}), encoding="utf-8")
        assert main(["--data", str(path), "--images", images, "--out", str(tmp_path / "none"), *more]) == 1
        return capsys.readouterr().err

    animals = [{"id": each["id"], "name": name} for each, name in zip(
        data.annotations["categories"], ("dog", "cat", "cow", "bird", "sheep", "horse", "bear", "zebra", "giraffe"),
        strict=True,
    )]  # fmt: skip
    assert "objects of the road groups" in refused({"categories": animals})
    larger = [{**each, "width": 640, "height": 384} for each in data.annotations["images"]]
    # Polygons fit any image; run lengths would say by themselves that they are of another.
    polygons = [{**each, "segmentation": [[0, 0, 9, 0, 9, 9]]} for each in data.annotations["annotations"]]
    assert "says 640 x 384 pixels, the file has 320 x 192" in refused({"images": larger, "annotations": polygons})
    assert "other images than in --data" in refused({}, "--validation", str(data.path), "--validation-images", images)
    assert main(["--data", str(tmp_path / "nothing.json")]) == 1
    for wrong in (["--images", images], ["--freeze", "stage4"], ["--batch", "0"], ["--rate", "nan"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_odd_annotations_are_ignored_rather_than_background():
    crowd = {"iscrowd": 1, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]], "bbox": [0, 0, 10, 10]}
    no_shape = {"segmentation": [], "bbox": [20, 0, 10, 10]}
    line = {"segmentation": checked_segmentation([[0, 20, 10, 20]], 50, 50), "bbox": [0, 20, 10, 5]}
    large = {"segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]], "bbox": [10, 10, 30, 30]}
    small = {"segmentation": [[20, 20, 30, 20, 30, 30, 20, 30]], "bbox": [20, 20, 10, 10]}
    map_, order = draw_map([small, crowd, no_shape, line, large], 50, 50)
    assert order == [large, small]
    values = [int(map_[y, x]) for x, y in ((5, 5), (25, 5), (5, 22), (15, 15), (25, 25), (45, 45))]
    assert values == [IGNORED, IGNORED, IGNORED, 1, 2, 0]
