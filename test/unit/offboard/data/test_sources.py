"""Frames from image files, folders and videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.errors import SourceError
from seg_perception.offboard.data.images import open_source, read_image

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"


def write_image(path: Path, grey: int, size: tuple[int, int] = (20, 30)) -> Path:
    assert cv2.imwrite(str(path), np.full((*size, 3), grey, np.uint8))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "b.png", 20)
    write_image(tmp_path / "a.jpg", 10)
    write_image(tmp_path / "c.BMP", 30)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "inner").mkdir()
    write_image(tmp_path / "inner" / "d.png", 40)
    return tmp_path


def test_a_folder_in_the_order_of_names(folder):
    source = open_source(folder, camera="front")
    assert (len(source), source.ignored, source.fps) == (3, ("notes.txt",), None)
    for _ in range(2):
        frames = list(source)
        assert [name for name, _ in frames] == ["a", "b", "c"]
        assert [int(to_bgr(frame)[0, 0, 0]) for _, frame in frames] == [10, 20, 30]
        assert {(frame.camera, frame.stamp_ns) for _, frame in frames} == {("front", 0)}
        assert source.failures == []


def test_equal_stems_do_not_collide(folder):
    write_image(folder / "a.png", 50)
    assert [name for name, _ in open_source(folder)] == ["a_jpg", "a_png", "b", "c"]


def test_unreadable_images_are_listed_and_left_out(folder):
    data = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(data[:-20])
    (folder / "c.BMP").write_bytes(b"")
    (folder / "e.webp").write_bytes(b"no webp")
    source = open_source(folder)
    assert [name for name, _ in source] == ["b"]
    assert [str(failure).split(":")[0] for failure in source.failures] == [
        str(folder / name) for name in ("a.jpg", "c.BMP", "e.webp")
    ]
    write_image(folder / "c.BMP", 30)
    assert [name for name, _ in source] == ["b", "c"]
    assert len(source.failures) == 2


def test_errors_of_files_do_not_speak_of_cameras(folder):
    data = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(data[:-20])
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-20])
    (folder / "c.jpg").write_bytes(b"text")
    (folder / "d.jpg").write_bytes(data[:20])
    write_image(folder / "e.bmp", 0, (1, 20_000))
    write_image(folder / "f.png", 0, (1, 20_000))
    source = open_source(folder)
    assert [name for name, _ in source] == ["c_BMP"]
    assert len(source.failures) == 6
    for failure in source.failures:
        assert "file" in str(failure) or "scale it down" in str(failure)
        assert not any(word in str(failure) for word in ("camera", "driver", "link", "transport"))


def test_a_folder_of_videos_says_what_to_do(folder):
    write_video(folder / "inner" / "drive.avi", 2, 10.0)
    (folder / "inner" / "d.png").unlink()
    with pytest.raises(SourceError, match=r"videos \(drive\.avi\); give these by their own paths"):
        open_source(folder / "inner")


def test_one_image(folder):
    assert [name for name, _ in open_source(folder / "a.jpg")] == ["a"]
    with pytest.raises(SourceError, match=r"none\.png"):
        read_image(folder / "none.png")


def test_sources_that_cannot_be_opened(folder):
    (folder / "empty").mkdir()
    with pytest.raises(SourceError, match="expected files ending in"):
        open_source(folder / "empty")
    with pytest.raises(SourceError, match="does not exist"):
        open_source(folder / "none.png")
    with pytest.raises(SourceError, match=r"expected a folder, an image .* a video .* or a bag"):
        open_source(folder / "notes.txt")
    (folder / "junk.mp4").write_bytes(b"junk" * 100)
    with pytest.raises(SourceError, match=r"junk\.mp4"):
        open_source(folder / "junk.mp4")


def write_video(path: Path, frames: int, fps: float) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 20 * index % 256, np.uint8))
    writer.release()
    return path


def test_a_video_has_stamps_by_its_frame_rate(tmp_path):
    source = open_source(write_video(tmp_path / "drive.avi", 6, 25.0), camera="front")
    assert (len(source), source.fps) == (6, 25.0)
    for _ in range(2):
        frames = list(source)
        assert [name for name, _ in frames] == [f"drive_{index:06d}" for index in range(6)]
        assert [frame.stamp_ns for _, frame in frames] == [index * 40_000_000 for index in range(6)]
        means = [to_bgr(frame).mean() for _, frame in frames]
        np.testing.assert_allclose(means, np.arange(6) * 20, atol=3)


def test_a_truncated_video_is_noticed(tmp_path):
    path = write_video(tmp_path / "drive.avi", 60, 25.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert len(source) == 60  # The header, which is at the front, still says so.
    assert 0 < len(list(source)) < 55
    assert "truncated" in str(source.failures[0])


@pytest.mark.skipif(not (SHARED / "video").is_dir(), reason="needs ../shared/data/video")
def test_a_real_video():
    path = next((SHARED / "video").glob("*.mp4"))
    source = open_source(path)
    names = [name for name, _ in source]
    assert len(names) == len(source)
    assert source.failures == []
