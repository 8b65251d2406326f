"""Every reader of labels, records and manifests: what a stranger's file names is never opened outside of its folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest

from seg_perception.core.errors import ConfigurationError, SegPerceptionError, SourceError
from seg_perception.offboard.evaluation.coco import CocoSet, read_annotations
from seg_perception.offboard.evaluation.datasets import open_dataset
from seg_perception.offboard.fleet.results import read_manifest, write_manifest
from seg_perception.offboard.fleet.work import RecordingFile, Result
from seg_perception.offboard.label.coco import read_coco
from seg_perception.offboard.label.cvat import read_cvat
from seg_perception.offboard.label.dataset import Dataset
from seg_perception.offboard.label.merge import merge
from seg_perception.offboard.label.records import Category, LabelledFrame, LabelledObject, MaskStyle
from seg_perception.offboard.label.review import review
from seg_perception.offboard.label.review_report import write_review
from seg_perception.offboard.label.reviewed import read_reviewed
from seg_perception.offboard.metrics.compact import CompactMask

WIDTH, HEIGHT = 80, 48
SECRET = b"a secret of this machine"


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """A FIFO that is opened waits for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError("a FIFO was opened")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write_image(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), value, np.uint8))
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco_content(*names: str, **more: Any) -> dict[str, Any]:
    square = [5, 5, 25, 5, 25, 17, 5, 17]
    images = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names, 1)]
    annotation = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 12], "segmentation": [square], **more}
    return {"images": images, "annotations": [annotation], "categories": [{"id": 1, "name": "vehicle"}]}


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing in a folder is written, deleted or added."""

    def state() -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}

    before = state()
    yield
    assert state() == before


@contextmanager
def suppress_error(kind: type[Exception], words: str) -> Iterator[None]:
    """An error of ours that says where, or none."""
    try:
        yield
    except kind as error:
        if words not in str(error):
            raise


# How a name can lead elsewhere: what is put into the folder `inside` for it, and the name.
def _parent(inside: Path) -> str:
    return "../outside/secret.jpg"


def _absolute(inside: Path) -> str:
    return str(inside.parent / "outside" / "secret.jpg")


def _link(inside: Path) -> str:
    (inside / "link.jpg").symlink_to(inside.parent / "outside" / "secret.jpg")
    return "link.jpg"


def _linked_folder(inside: Path) -> str:
    (inside / "folder").symlink_to(inside.parent / "outside")
    return "folder/secret.jpg"


def _fifo(inside: Path) -> str:
    os.mkfifo(inside / "fifo.jpg")
    return "fifo.jpg"


def _folder(inside: Path) -> str:
    (inside / "folder.jpg").mkdir()
    return "folder.jpg"


def _device(inside: Path) -> str:
    return "/dev/zero"


LEADS = pytest.mark.parametrize("lead", [_parent, _absolute, _link, _linked_folder, _fifo, _folder, _device])
Lead = Callable[[Path], str]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must be neither read nor changed: an image, so that a reader that opened it would take it."""
    write_image(tmp_path / "outside" / "secret.jpg")
    (tmp_path / "outside" / "secret.json").write_bytes(SECRET)
    return tmp_path / "outside"


@LEADS
def test_coco_images(tmp_path: Path, outside: Path, lead: Lead):
    images = tmp_path / "images"
    write_image(images / "a.jpg")
    name = lead(images)
    labels = write_json(tmp_path / "instances.json", coco_content("a.jpg", name))
    with unchanged(outside):
        read = CocoSet.load(labels)
        assert [each.path.name for each in read.images] == ["a.jpg"]
        assert read.missing == (name,)
        assert any("it is not opened" in line for line in read.omitted)
        write_json(labels, coco_content(name))
        with pytest.raises(SourceError, match="none of which is in"):
            CocoSet.load(labels)


@LEADS
def test_bdd100k_images(tmp_path: Path, outside: Path, lead: Lead):
    images = tmp_path / "images"
    write_image(images / "a.jpg")
    name = lead(images)
    box = {"category": "car", "box2d": {"x1": 1, "y1": 2, "x2": 30, "y2": 20}}
    frames = [{"name": each, "labels": [box]} for each in ("a.jpg", name)]
    labels = write_json(tmp_path / "labels.json", frames)
    if lead is _link:
        return  # a listing of the folder that the user named follows links, as any program does
    read = open_dataset(labels, images)
    assert [each["file_name"] for each in read.images.values()] == ["a.jpg"]
    assert len(read.labels.missing) == 1


def dataset(folder: Path, name: str = "a") -> Dataset:
    """A data set of one frame, as `label` writes them."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 10:40] = True
    how = {"picks": {"every": 1}, "style": asdict(MaskStyle())}
    made = Dataset(folder, [Category(1, "vehicle", "vehicle")], MaskStyle(), how, resume=False)
    made.state.sources = ["drive"]
    objects = (LabelledObject("vehicle", CompactMask.of(mask), 0.9),)
    image = write_image(folder.parent / "source.jpg").read_bytes()
    made.add(LabelledFrame(f"{name}.jpg", WIDTH, HEIGHT, objects, "drive", digest=name, picks={"every": 0.0}), image)
    made.write()
    return made


def opened(folder: Path) -> None:
    Dataset.open(folder)


def dropped(folder: Path) -> None:
    found = Dataset.open(folder)
    for frame in list(found):
        found.drop(frame.name)
    found.settle()


def merged(folder: Path) -> None:
    merge([folder], folder.parent / "merged")


def reviewed(folder: Path) -> None:
    write_review(review(folder / "labelme", folder), folder, folder.parent / "reviewed")


DOES = pytest.mark.parametrize("does", [opened, dropped, merged, reviewed])


@DOES
@pytest.mark.parametrize(
    "change",
    [
        {"file_name": "../../outside/secret.jpg"},
        {"file_name": "../outside/secret.jpg"},
        {"file_name": "x/../../../outside/secret.jpg"},
        {"file_name": "/etc/passwd"},
        {"file_name": "other.jpg"},
        {"file_name": "a"},
        {"file_name": ".jpg"},
        {"file_name": ""},
        {"file_name": None},
        {"file_name": 7},
        {"file_name": "a\x1b[31m.jpg"},
        {"source": "elsewhere"},
        {"source": None},
        {"index": "0"},
        {"width": 10**12},
        {"height": -1},
        {"width": True},
        {"picks": [1]},
        {"picks": {"every": "x"}},
        {"objects": 7},
        {"objects": [{"category": "vehicle"}]},
        {"unknown": 1},
    ],
    ids=str,
)
def test_records(tmp_path: Path, outside: Path, does: Callable[[Path], None], change: Mapping[str, Any]):
    """Going on, taking back and merging write, delete and copy what the records say."""
    folder = dataset(tmp_path / "set").folder
    record = folder / ".records" / "a.json"
    write_json(record, {**json.loads(record.read_text()), **change})
    with unchanged(outside):
        if does is reviewed:
            does(folder)  # it looks at no record
        else:
            with pytest.raises(ConfigurationError, match=r"a\.json"):
                does(folder)
    assert not [path for path in tmp_path.rglob("secret*") if outside not in path.parents]


@DOES
@pytest.mark.parametrize("name", [".records", "images", "labelme", "label.json", "instances.json", ".records/a.json",
                                  "images/a.jpg", "labelme/a.json"])  # fmt: skip
@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "file", "nothing"])
def test_files_of_a_data_set(tmp_path: Path, outside: Path, does: Callable[[Path], None], name: str, kind: str):
    """Each of its files and folders is somewhere else, or something else: an error of ours, or it does not matter."""
    folder = dataset(tmp_path / "set").folder
    path = folder / name
    if path.is_dir():
        shutil.move(path, outside / "moved")
    else:
        shutil.move(path, outside / "moved.json")
    target = outside / ("moved" if (outside / "moved").exists() else "moved.json")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"no such thing")
    with unchanged(outside), suppress_error(SegPerceptionError, str(folder)):
        does(folder)


@pytest.mark.parametrize("content", ["[]", "7", "{}", "null", "[" * 100_000, '{"how": {}}', "\ufeff{}", '{"how": []}'])
def test_a_state_that_is_none(tmp_path: Path, content: str):
    folder = dataset(tmp_path / "set").folder
    (folder / "label.json").write_text(content)
    for does in (opened, merged):
        with pytest.raises(ConfigurationError, match=r"label\.json: expected what"):
            does(folder)


@pytest.mark.parametrize(
    "output",
    ["../outside/secret.jpg", "/etc/passwd", "link", "fifo", "..", ".", "", ".hidden", "a/b", None, 7, ["a"]],
    ids=str,
)
def test_manifests_of_a_fleet(tmp_path: Path, outside: Path, output: Any):
    """A result whose output lies elsewhere is no result: it is done again."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "b.json")
    (folder / "a.mcap").write_bytes(b"")
    whole = Result(
        "a", "replay", {}, RecordingFile("/bags/a", 1, 2), "a.mcap", 0, {"frames": 1, "faults": 0}, {}, 1.0, 1.0, 0,
        "h", 1, "",
    )  # fmt: skip
    write_manifest(folder, whole)
    assert read_manifest(folder / "a.json") == whole
    write_json(folder / "a.json", {**json.loads((folder / "a.json").read_text()), "output": output})
    assert read_manifest(folder / "a.json") is None
    assert read_manifest(folder / "b.json") is None
    for change in ({"outcome": []}, {"outcome": {"frames": "1", "faults": 0}}, {"terms": 7}, {"source": {"path": 1}}):
        write_json(folder / "a.json", {**json.loads(json.dumps(asdict(whole))), **change})
        assert read_manifest(folder / "a.json") is None


def _readers() -> dict[str, Callable[[Path], object]]:
    """Readers of one path that a user names."""
    return {
        "coco": CocoSet.load,
        "annotations": read_annotations,
        "reviewed json": read_reviewed,
        "reviewed xml": lambda path: read_reviewed(path.rename(path.with_suffix(".xml"))),
        "reviewed zip": lambda path: read_reviewed(path.rename(path.with_suffix(".zip"))),
        "bdd100k": lambda path: open_dataset(path, path.parent, "bdd100k"),
        "any": lambda path: open_dataset(path, path.parent),
    }


@pytest.mark.parametrize("reader", _readers().values(), ids=_readers())
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "empty", "bytes"])
def test_a_path_that_is_no_file_of_labels(tmp_path: Path, reader: Callable[[Path], object], kind: str):
    path = tmp_path / "labels.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.write_bytes(b"" if kind == "empty" else bytes(range(256)))
    with pytest.raises(SourceError, match="labels"):
        reader(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling", "bytes"])
@pytest.mark.parametrize("form", ["cityscapes", "bdd100k", "mots", "mots text", "labelme", "cvat"])
def test_odd_things_in_a_folder_of_labels(tmp_path: Path, form: str, kind: str):
    """They are stepped over, or said; the readable file next to them is read."""
    labels, images = tmp_path / "labels", tmp_path / "images"
    city = "a_000000_000000"
    good, odd, image = {
        "cityscapes": (f"{city}_gtFine_instanceIds.png", "b_0_0_gtFine_instanceIds.png", f"{city}_leftImg8bit.png"),
        "bdd100k": ("a.png", "b.png", "a.jpg"),
        "mots": ("0001/000001.png", "0001/000002.png", "0001/000001.png"),
        "mots text": ("0001.txt", "0002.txt", "0001/000001.png"),
        "labelme": ("a.json", "b.json", "a.jpg"),
        "cvat": ("annotations/instances_a.json", "annotations/instances_b.json", "a.jpg"),
    }[form]
    write_image(images / image)
    write_image(images / image.replace("a_", "b_").replace("a.", "b.").replace("001.png", "002.png"))
    path = labels / good
    path.parent.mkdir(parents=True)
    if form == "mots text":
        path.write_text(f"1 1001 1 {HEIGHT} {WIDTH} {_runs()}\n")
    elif form in ("labelme", "cvat"):
        write_json(path, coco_content("a.jpg") if form == "cvat" else labelme_content())
    else:
        channels = (4,) if form == "bdd100k" else ()
        assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, *channels), 1, np.uint8 if channels else np.uint16))
    strange = labels / odd
    if kind == "fifo":
        os.mkfifo(strange)
    elif kind == "folder":
        strange.mkdir()
    elif kind == "dangling":
        strange.symlink_to("nowhere")
    else:
        strange.write_bytes(b"no labels")
    if form in ("labelme", "cvat"):
        with suppress_error(SourceError, Path(odd).name):
            assert [each.file_name for each in read_reviewed(labels).frames] == ["a.jpg"]
        return
    read = open_dataset(labels, images, form.split()[0])
    assert len(read.images) == (2 if form == "mots text" else 1)


def _runs() -> str:
    from seg_perception.offboard.metrics.masks import encode_rle

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 10:40] = True
    counts: str = encode_rle(mask)["counts"]
    return counts


def labelme_content(**more: Any) -> dict[str, Any]:
    shape = {"label": "vehicle", "shape_type": "polygon", "points": [[1, 1], [50, 1], [50, 40]], "group_id": None}
    return {"imagePath": "a.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape], **more}


def cvat_xml(body: str, head: str = "", size: str = f'width="{WIDTH}" height="{HEIGHT}"') -> bytes:
    image = f'<image id="0" name="a.jpg" {size}>{body}</image>'
    return f'<?xml version="1.0"?>{head}<annotations>{image}</annotations>'.encode()


BOX = '<box label="vehicle" xtl="1" ytl="1" xbr="50" ybr="40"/>'
LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            cvat_xml(BOX, f'<!DOCTYPE z [<!ENTITY a0 "xxxxxxxxxx">{LAUGHS}]>').replace(b"a.jpg", b"&a9;"),
            "document type",
        ),
        (cvat_xml(f"{BOX}<tag>&x;</tag>", '<!DOCTYPE z [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "document type"),
        (cvat_xml(BOX, "<!DOCTYPE annotations>").decode().encode("utf-16"), "document type"),
        (cvat_xml(BOX, size='width="200000" height="200000"'), "expected an image of"),
        (cvat_xml(BOX, size='width="16000" height="16000"'), "cut it into tiles"),
        (cvat_xml(BOX, size='width="-5" height="5"'), "expected an image of"),
        (cvat_xml(BOX, size='width="x" height="5"'), "invalid literal"),
        (cvat_xml('<mask label="v" rle="0,99999999999" left="0" top="0" width="99999999999" height="1"/>'), "of 1 to"),
        (cvat_xml('<mask label="v" rle="0,2500000000" left="0" top="0" width="50000" height="50000"/>'), "of 1 to"),
        (cvat_xml('<mask label="v" rle="-5,11" left="0" top="0" width="3" height="2"/>'), "whole numbers"),
        (cvat_xml('<mask label="v" rle="5" left="0" top="0" width="3" height="2"/>'), "add up to"),
        (cvat_xml('<polygon label="v" points="nan,0;1,0;1,1"/>'), "NaN"),
        (cvat_xml('<polygon label="v" points="1,0,5;1,0;1,1"/>'), "expected"),
        (cvat_xml('<ellipse label="v" cx="1e400" cy="5" rx="1" ry="1"/>'), "finite"),
        (cvat_xml(BOX.replace("<box", '<box rotation="inf"')), "finite"),
        (cvat_xml("<a>" * 200_000 + "</a>" * 200_000), "deep"),
        (cvat_xml(BOX)[:-30], "no element found|unclosed"),
    ],
)
def test_hostile_xml_is_refused_with_the_reason(data: bytes, words: str):
    with pytest.raises(SourceError, match=f"x.xml: .*({words})"):
        read_cvat(BytesIO(data), Path("x.xml"))


def test_polygons_of_cvat_that_lead_far_away_are_cut_off():
    far = '<polygon label="v" points="10,-1e18;1e18,-1e18;1e18,1e18;10,1e18"/>'
    (frame,) = read_cvat(BytesIO(cvat_xml(far)), Path("x.xml")).frames
    assert frame.objects[0].mask.area == (WIDTH - 10) * HEIGHT


def test_an_archive_takes_no_more_memory_than_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What unpacks to gigabytes is read as a stream and ends at a limit; JSON in an archive is bounded by its size."""
    monkeypatch.setattr("seg_perception.offboard.label.cvat.MOST_BYTES", 4 << 20)
    monkeypatch.setattr("seg_perception.offboard.label.reviewed._MOST_JSON", 4 << 20)
    for name, words in (("annotations.xml", "4 MiB"), ("annotations/instances_default.json", "4 MiB")):
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, b"<annotations>" + b" " * (5 << 20))
        with pytest.raises(SourceError, match=words):
            read_reviewed(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", b"<annotations>" + b" " * (20 << 20))
    with pytest.raises(SourceError, match="unpacks to 20 MiB"):
        read_reviewed(tmp_path / "bomb.zip")


def test_odd_archives_are_refused(tmp_path: Path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../annotations.xml", cvat_xml(BOX))
    with pytest.raises(SourceError, match=r"neither annotations\.xml nor"):
        read_reviewed(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations.xml", cvat_xml(BOX))
    data = bytearray(path.read_bytes())
    for start in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[start] |= 1  # encrypted
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.zip: cannot be read"):
        read_reviewed(path)
    path.write_bytes(bytes(data[:60]))
    with pytest.raises(SourceError, match=r"a\.zip: cannot be read"):
        read_reviewed(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 2**40, "height": 2**40}, "expected an image of"),
        ({"width": -5}, "expected an image of"),
        ({"width": True}, "expected an image of"),
        ({"width": "80"}, "expected `width` as int"),
        ({"id": 10**400}, "`id` as a finite number"),
        ({"stamp_ns": 10**40}, "`stamp_ns` as a finite number"),
    ],
)
def test_images_of_odd_sizes(tmp_path: Path, change: dict[str, Any], words: str):
    write_image(tmp_path / "images" / "a.jpg")
    content = coco_content("a.jpg")
    content["images"][0] |= change
    path = write_json(tmp_path / "instances.json", content)
    for reader in (CocoSet.load, read_coco):
        with pytest.raises(SourceError, match=words):
            reader(path)


@pytest.mark.parametrize(
    "change",
    [{"segmentation": [[float("nan")] * 6]}, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "5"}},
     {"segmentation": {"size": [1, 1], "counts": [1]}}, {"segmentation": ["abcdef"]}],
    ids=str,
)  # fmt: skip
def test_an_image_with_a_broken_annotation_is_left_out_and_named(tmp_path: Path, change: dict[str, Any]):
    """Others of the set are still of use to an evaluation; what people have reviewed must not get lost in part."""
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.jpg")
    path = write_json(tmp_path / "instances.json", coco_content("a.jpg", "b.jpg", id=77, **change))
    read = CocoSet.load(path)
    assert [each.path.name for each in read.images] == ["b.jpg"]
    assert read.annotations["annotations"] == []
    assert "annotation 77 of image 1" in read.omitted[0]
    with pytest.raises(SourceError, match="annotation 77 of image 1"):
        read_coco(path)
    write_json(path, coco_content("a.jpg", **change))
    with pytest.raises(SourceError, match="of image 1"):
        CocoSet.load(path)


def test_names_that_lie_are_read(tmp_path: Path):
    """A byte order mark, slashes of Windows, folders of another machine; not what would then be one name."""
    write_image(tmp_path / "images" / "a.jpg")
    write_image(tmp_path / "images" / "b.jpg")
    for names, folder in (
        (("images\\a.jpg", "images\\b.jpg"), None),
        (("images\\a.jpg", "images\\b.jpg"), "images"),
        (("C:\\Users\\x\\images\\a.jpg", "C:\\Users\\x\\images\\b.jpg"), "images"),
        (("/home/x/images/a.jpg", "/home/x/images/b.jpg"), "images"),
        (("../images/a.jpg", "../images/b.jpg"), "images"),
    ):
        path = write_json(tmp_path / "instances.json", coco_content(*names))
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        read = CocoSet.load(path, None if folder is None else tmp_path / folder)
        assert [each.path for each in read.images] == [tmp_path / "images" / name for name in ("a.jpg", "b.jpg")], names
        assert [each.file_name for each in read_reviewed(path).frames] == ["a.jpg", "b.jpg"]
    path = write_json(tmp_path / "instances.json", coco_content("/x/a.jpg", "/y/a.jpg"))
    with pytest.raises(SourceError, match="lists 2 images"):
        CocoSet.load(path)
    labelme = write_json(tmp_path / "lm" / "a.json", labelme_content(imagePath="..\\images\\a.jpg"))
    labelme.write_bytes(b"\xef\xbb\xbf" + labelme.read_bytes())
    assert read_reviewed(tmp_path / "lm").frames[0].file_name == "a.jpg"


def test_sides_that_are_exchanged_are_told_as_an_orientation(tmp_path: Path):
    write_image(tmp_path / "images" / "a.jpg")
    content = coco_content("a.jpg", segmentation=[])
    content["images"][0] |= {"width": HEIGHT, "height": WIDTH}
    read = CocoSet.load(write_json(tmp_path / "instances.json", content))
    source = read.source()
    assert list(source) == []
    assert "EXIF orientation" in str(source.failures[0])
