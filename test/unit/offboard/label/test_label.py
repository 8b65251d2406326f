"""`seg_perception label` on a short drive through the street world, with the default model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO

from seg_perception.cli.main import main
from seg_perception.core.class_tables import resolve_class_table
from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import ConfigurationError, SourceError
from seg_perception.core.files import write_atomically
from seg_perception.offboard.data.images import open_source
from seg_perception.offboard.evaluation.coco import CocoSet
from seg_perception.offboard.label import dataset as dataset_module
from seg_perception.offboard.label.merge import merge
from seg_perception.offboard.label.observe import Observation, Observer
from seg_perception.offboard.label.picks import PickOptions
from seg_perception.offboard.label.run import Labeller, LabelOptions, LabelSummary
from seg_perception.onboard.backend.base import RunOptions
from seg_perception.onboard.backend.host.openvino import OpenVinoRunner
from seg_perception.onboard.backend.host.runner import ModelOutputs
from seg_perception.onboard.backend.host.select import SelectOptions
from seg_perception.onboard.backend.registry import open_backend
from seg_perception.onboard.pipeline.options import SegmenterOptions
from seg_perception.onboard.pipeline.segmenter import Segmenter
from seg_perception.onboard.pipeline.track import TrackerOptions

ROOT = Path(__file__).resolve().parents[4]
MODEL, INT8 = ROOT / "engines" / "street-nano.onnx", ROOT / "engines" / "street-nano-int8.onnx"
ONE = RunOptions(threads=1)
FRAMES = 9
WORLD = ["--frames", str(FRAMES), "--seed", "3", "--scene-frames", "5", "--weather", "day,night"]
# Made of all records, and equal when the records are.
WHOLE = ("instances.json", "cvat.xml", "cvat_labels.json", "quality.json", "quality.csv", "label.json")


@pytest.fixture(scope="module", autouse=True)
def opened_once() -> Iterator[None]:
    """Opening a model takes longer than labelling these drives, and their images come again and again."""
    patched, infer = pytest.MonkeyPatch(), OpenVinoRunner.run
    outputs: dict[tuple[int, bytes], ModelOutputs] = {}

    def infer_once(runner: OpenVinoRunner, images: NDArray[np.uint8]) -> ModelOutputs:
        key = id(runner), images.tobytes()
        if key not in outputs:
            outputs[key] = infer(runner, images)
        return outputs[key]

    patched.setattr(OpenVinoRunner, "run", infer_once)
    patched.setattr("seg_perception.onboard.pipeline.opening.open_backend", cache(open_backend))
    patched.setattr(Segmenter, "close", lambda self: None)
    yield
    patched.undo()


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drives") / "drive"
    assert main(["streetworld", *WORLD, "--bag", str(folder)]) == 0
    return folder


def options(**changes: Any) -> LabelOptions:
    picks = changes.pop("picks", PickOptions(every=4, lowest_confidence=2))
    return LabelOptions(MODEL, picks, run=ONE, **changes)


def frames_of(bag: Path) -> list[NDArray[np.uint8]]:
    return [to_bgr(frame) for _, frame in open_source(bag)]


def video(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (640, 384))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    return path


def label(folder: Path, *paths: Path, resume: bool = False, **changes: Any) -> LabelSummary:
    with Labeller(options(**changes)) as labeller:
        return labeller.label(paths, folder, resume)


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "instances.json").read_text())
    return content


def test_labels_are_what_the_node_shows_under_the_same_numbers(tmp_path: Path, bag: Path):
    summary = label(tmp_path / "set", bag, images="png", weather="mixed")
    assert (summary.seen, summary.picks["every"], summary.failures) == (FRAMES, 3, {})
    assert 3 <= summary.chosen <= 5
    coco = COCO(str(tmp_path / "set" / "instances.json"))
    images = {each["file_name"]: each for each in coco.dataset["images"]}
    assert len(images) == summary.chosen
    backend = open_backend(MODEL, options=ONE)
    chosen = SegmenterOptions(SelectOptions(0.4), tracking=TrackerOptions())
    segmenter = Segmenter(backend, resolve_class_table("auto", backend.spec.class_names), chosen)
    source = open_source(bag)
    for name, frame in source:
        result = segmenter.segment([frame])[0]
        image = images.get(f"{name}.png")
        if image is None:
            continue
        assert (image["stamp_ns"], image["camera"], image["weather"]) == (frame.stamp_ns, frame.camera, "mixed")
        assert image["source"] == str(bag)
        assert np.array_equal(cv2.imread(str(tmp_path / "set" / "images" / f"{name}.png")), to_bgr(frame))
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert [each["track_id"] for each in found] == result.instances.ids.tolist()
        assert [each["score"] for each in found] == pytest.approx(result.instances.scores.tolist(), abs=1e-4)
        for each in found:
            mask = coco.annToMask(each) > 0
            assert np.array_equal(mask, result.instance_map.pixels == each["track_id"])
            assert 0 < each["visible"] <= 1
            assert each["area"] == mask.sum()
    backend.close()
    assert sorted(each.stem for each in (tmp_path / "set" / "labelme").iterdir()) == sorted(
        Path(name).stem for name in images
    )
    assert CocoSet.load(tmp_path / "set" / "instances.json").missing == ()


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_was_not(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch
):
    other = video(tmp_path / "later.mp4", [frame[:, ::-1] for frame in frames_of(bag)])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    label(whole, bag, other)
    look, left = Observer.look, FRAMES + 8

    def until(self: Observer, frame: Any) -> Observation:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return look(self, frame)

    with monkeypatch.context() as patched:
        patched.setattr(Observer, "look", until)
        with pytest.raises(KeyboardInterrupt):
            label(parts, bag, other)
    state = json.loads((parts / "label.json").read_text())
    assert state["finished"] == [str(bag)]
    stopped = CocoSet.load(parts / "instances.json")
    assert stopped.missing == ()
    assert {image.path.stem.rpartition("_")[0] for image in stopped.images} == {"drive", "later"}
    # As after a kill: what is made of all records is old, and one file did not get written.
    (parts / "instances.json").unlink()
    next((parts / "labelme").iterdir()).unlink()
    (parts / "images" / ".drive_000003.jpg.x.partial").write_bytes(b"half")
    seen = 0

    def counted(self: Observer, frame: Any) -> Observation:
        nonlocal seen
        seen += 1
        return look(self, frame)

    monkeypatch.setattr(Observer, "look", counted)
    label(parts, bag, other, resume=True)
    assert seen == FRAMES  # of the video that was not finished
    for name in WHOLE:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    for folder in ("images", "labelme"):
        assert {each.name: each.read_bytes() for each in (parts / folder).iterdir()} == {
            each.name: each.read_bytes() for each in (whole / folder).iterdir()
        }
    content = read(whole)
    source_of = {each["id"]: each["source"] for each in content["images"]}
    tracks = {
        source: {each["track_id"] for each in content["annotations"] if source_of[each["image_id"]] == source}
        for source in source_of.values()
    }
    assert not tracks[str(bag)] & tracks[str(other)]
    assert all(tracks.values())


def test_what_is_wholly_hidden_is_no_label(tmp_path: Path, bag: Path):
    summary = label(tmp_path / "set", bag, score=0.02, min_pixels=0)
    assert summary.chosen
    assert min(each["area"] for each in read(tmp_path / "set")["annotations"]) > 0


def test_no_image_comes_twice(tmp_path: Path, bag: Path):
    again = tmp_path / "copies" / bag.name
    shutil.copytree(bag, again)
    summary = label(tmp_path / "set", bag, bag, again, picks=PickOptions(every=4))
    assert (summary.seen, summary.chosen, summary.repeated) == (2 * FRAMES, 3, 3)
    assert len(list((tmp_path / "set" / "images").iterdir())) == 3


def test_images_of_two_folders_with_equal_names_stay_apart_and_have_no_tracks(tmp_path: Path, bag: Path):
    for number, frame in enumerate(frames_of(bag)[:4]):
        folder = tmp_path / ("first" if number < 2 else "second")
        folder.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / f"{number % 2}.png"), frame)
    label(tmp_path / "set", tmp_path / "first", tmp_path / "second", picks=PickOptions(every=1))
    content = read(tmp_path / "set")
    assert [each["file_name"] for each in content["images"]] == ["0.jpg", "1.jpg", "0.2.jpg", "1.2.jpg"]
    assert content["annotations"]
    assert not any("track_id" in each for each in content["annotations"])


def test_videos_are_taken_with_their_tracks(tmp_path: Path, bag: Path):
    path = video(tmp_path / "clip.mp4", frames_of(bag))
    label(tmp_path / "set", path, picks=PickOptions(scene_change=0.15))
    content = read(tmp_path / "set")
    # The first frame, and the one where another drive begins.
    assert [each["file_name"] for each in content["images"]] == ["clip_000000.jpg", "clip_000005.jpg"]
    assert all(each["track_id"] for each in content["annotations"])


def test_frames_in_which_two_models_disagree(tmp_path: Path, bag: Path):
    picks = PickOptions(disagree=2, apart=0.2)
    with pytest.raises(ConfigurationError, match="expected a second model"):
        options(picks=picks)
    same = label(tmp_path / "same", bag, picks=picks, other_model=MODEL)
    other = label(tmp_path / "other", bag, picks=picks, other_model=INT8)
    assert other.chosen == 2
    assert same.chosen <= 2
    kinds = []
    for name in ("same", "other"):
        frames = json.loads((tmp_path / name / "quality.json").read_text())["frames"]
        kinds.append(sum(one["kind"] == "models" for each in frames for one in each["concerns"]))
    # Tracking keeps a few that one frame alone would not.
    assert kinds[0] < kinds[1]


def test_what_cannot_be_read_is_told_and_the_rest_is_labelled(
    tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    given = ["--model", str(MODEL), "--threads", "1", "--every", "6", "--categories", "classes", "--masks", "polygons"]
    assert main(["label", str(broken), str(bag), *given, "-o", str(tmp_path / "set")]) == 1
    told = capsys.readouterr().out
    assert "9 frames seen, 2 chosen (2 by every)" in told
    assert f"skipped: {broken}:" in told
    content = read(tmp_path / "set")
    categories = [(each["name"], each["supercategory"]) for each in content["categories"]]
    assert ("traffic sign", "traffic_sign") in categories
    assert any(isinstance(each["segmentation"], list) for each in content["annotations"])
    with pytest.raises(SourceError):
        label(tmp_path / "none", broken)


def test_a_folder_is_gone_on_with_only_where_that_is_meant(tmp_path: Path, bag: Path):
    folder = tmp_path / "set"
    picks = PickOptions(every=6)
    with pytest.raises(SourceError, match="misspelt: does not exist"):
        label(folder, tmp_path / "misspelt")
    label(folder, bag, picks=picks)
    with pytest.raises(ConfigurationError, match="go on with --resume"):
        label(folder, bag, picks=picks)
    with pytest.raises(ConfigurationError, match=r"score 0.4, not 0.5"):
        label(folder, bag, picks=picks, score=0.5, resume=True)
    assert label(folder, bag, picks=picks, resume=True).chosen == 2
    with pytest.raises(ConfigurationError, match="expected a new or empty folder"):
        label(bag, bag)


def test_data_sets_of_single_recordings_merge_into_that_of_all(tmp_path: Path, bag: Path):
    other = video(tmp_path / "later.mp4", [frame[:, ::-1] for frame in frames_of(bag)])
    picks = PickOptions(every=5, lowest_confidence=3)
    label(tmp_path / "whole", bag, other, picks=picks)
    parts = [tmp_path / "first", tmp_path / "second"]
    for part, path in zip(parts, (bag, other), strict=True):
        label(part, path, picks=picks)
    merge(parts, tmp_path / "merged")
    for name in WHOLE:
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    label(tmp_path / "otherwise", bag, picks=PickOptions(every=5))
    with pytest.raises(ConfigurationError, match="others are picks; label them alike"):
        merge([parts[0], tmp_path / "otherwise"], tmp_path / "none")
    with pytest.raises(ConfigurationError, match="expected what `seg_perception label` has written"):
        merge([bag], tmp_path / "nothing")


class Killed(BaseException):
    """Ends a run where a signal would; nothing is written any more."""


class _Kills:
    """Counts what a data set does to the disk, and ends it before the n-th of these, and all that follow."""

    def __init__(self, patched: pytest.MonkeyPatch, at: int | None) -> None:
        self.count, self._at = 0, at
        write, unlink = write_atomically, Path.unlink

        def step() -> None:
            if self._at is not None and self.count >= self._at:
                raise Killed
            self.count += 1

        def counted_write(path: Path, data: bytes) -> None:
            step()
            write(path, data)

        def counted_unlink(path: Path, missing_ok: bool = False) -> None:
            if not path.name.endswith(".partial"):
                step()
            unlink(path, missing_ok=missing_ok)

        patched.setattr(dataset_module, "write_atomically", counted_write)
        patched.setattr(Path, "unlink", counted_unlink)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed_and_resumed(folder: Path, sources: list[Path], picks: PickOptions, points: Sequence[int]) -> None:
    """Label, end it at each of these points counted from its last start, and go on until it is done."""
    resume = False
    for at in (*points, None):
        with pytest.MonkeyPatch.context() as patched:
            _Kills(patched, at)
            try:
                label(folder, *sources, picks=picks, resume=resume)
            except Killed:
                # As seen by whoever looks at it between the runs: what is there can be read.
                resume = (folder / "label.json").exists()


@pytest.fixture(scope="module")
def equal_names(tmp_path_factory: pytest.TempPathFactory, bag: Path) -> list[Path]:
    """Two folders whose images have equal names, and the second one has the less certain ones."""
    folders = [tmp_path_factory.mktemp("equal") / name for name in ("one", "two")]
    for folder, images in zip(folders, (frames_of(bag), [frame[::-1] for frame in frames_of(bag)]), strict=True):
        folder.mkdir()
        for number, image in enumerate(images):
            assert cv2.imwrite(str(folder / f"{number}.png"), np.ascontiguousarray(image))
    return folders


def _kill_points(total: int, count: int) -> list[int]:
    return np.linspace(1, total - 1, min(count, total - 1)).astype(int).tolist()


@pytest.mark.parametrize("kind", ["drives", "equal names"])
@pytest.mark.parametrize("count", [3, pytest.param(16, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_run_that_is_killed_anywhere_and_resumed_gives_the_same_bytes(
    tmp_path: Path, bag: Path, equal_names: list[Path], kind: str, count: int
):
    """Also the records: why frames were chosen, and the numbers they were ranked by."""
    drives = [bag, video(tmp_path / "later.mp4", [frame[:, ::-1] for frame in frames_of(bag)])]
    sources = drives if kind == "drives" else equal_names
    # The second recording displaces frames of the first one, of which some are wanted by another rule, too.
    picks = PickOptions(every=4, lowest_confidence=3, apart=0.05)
    with pytest.MonkeyPatch.context() as patched:
        kills = _Kills(patched, None)
        label(tmp_path / "whole", *sources, picks=picks)
    whole = tree(tmp_path / "whole")
    for point in _kill_points(kills.count, count):
        folder = tmp_path / "parts"
        killed_and_resumed(folder, sources, picks, [point])
        assert tree(folder) == whole, point
        shutil.rmtree(folder)


def test_a_run_that_is_killed_again_and_again_gives_the_same_bytes(tmp_path: Path, equal_names: list[Path]):
    picks = PickOptions(every=4, lowest_confidence=3)
    label(tmp_path / "whole", *equal_names, picks=picks)
    killed_and_resumed(tmp_path / "parts", equal_names, picks, [40, 55, 70, 25, 3])
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_a_data_set_of_an_earlier_release_is_gone_on_with(tmp_path: Path, bag: Path):
    label(tmp_path / "set", bag)
    state = json.loads((tmp_path / "set" / "label.json").read_text())
    del state["dropped"]
    (tmp_path / "set" / "label.json").write_text(json.dumps(state))
    assert label(tmp_path / "set", bag, resume=True).seen == FRAMES
