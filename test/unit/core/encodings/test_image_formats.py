"""What the pixels of an image are: by the format of its message, its bit depth, its EXIF data, and not by its name."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_bytes import exif, png_chunk, riff_chunk, tiff, webp_canvas
from numpy.typing import NDArray

from seg_perception.core.encodings.bit_depth import BitDepth, BitDepths
from seg_perception.core.encodings.raw import decode_compressed, to_bgr, view
from seg_perception.core.errors import ConfigurationError, FrameError, SourceError
from seg_perception.core.frame import Frame
from seg_perception.core.messages.images import write_compressed_image, write_image
from seg_perception.core.messages.serialized import frame_from_compressed_image, frame_from_image
from seg_perception.offboard.data.images import open_source, read_image
from seg_perception.offboard.evaluation.coco import CocoSet

RED, BLUE = (0, 0, 200), (220, 0, 0)


def scene() -> NDArray[np.uint8]:
    """A red field with a blue square, bgr."""
    image = np.full((96, 160, 3), RED, np.uint8)
    image[30:60, 50:90] = BLUE
    return image


def mosaic(bgr: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    out = np.empty(bgr.shape[:2], np.uint8)
    for place, letter in enumerate(order):
        y, x = divmod(place, 2)
        out[y::2, x::2] = bgr[y::2, x::2, "bgr".index(letter)]
    return out


def encode(suffix: str, pixels: NDArray[np.generic], *options: int) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def compressed(described: str, data: bytes) -> Frame:
    return frame_from_compressed_image(write_compressed_image(1, "optical", described, data), "front")


def raw(encoding: str, pixels: NDArray[np.generic]) -> Frame:
    return frame_from_image(write_image(1, "optical", encoding, pixels), "front")


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("suffix", "codec"), [(".png", "png"), (".tiff", "tiff")])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_compressed_mosaic_is_the_raw_one(order, suffix, codec, bits):
    mosaic8 = mosaic(scene(), order)
    cells = mosaic8 if bits == 8 else mosaic8.astype(np.uint16) * 257
    frame = compressed(f"bayer_{order}{bits}; {codec} compressed ", encode(suffix, cells))
    assert frame.encoding == f"bayer_{order}{bits}"
    np.testing.assert_array_equal(to_bgr(frame), to_bgr(raw(f"bayer_{order}{bits}", cells)))
    assert np.abs(to_bgr(frame)[45, 70].astype(int) - BLUE).max() <= 1


def test_a_jpeg_of_a_mosaic_is_a_mosaic():
    cells = mosaic(np.full((96, 160, 3), (40, 90, 200), np.uint8), "rggb")
    frame = compressed("bayer_rggb8; jpeg compressed ", encode(".jpg", cells, cv2.IMWRITE_JPEG_QUALITY, 100))
    assert np.abs(to_bgr(frame)[40, 40].astype(int) - (40, 90, 200)).max() < 12
    assert frame.warnings == ()


@pytest.mark.parametrize("original", ["bayer_rggb8", "bayer_gbrg16", "yuv422", "yuv422_yuy2"])
def test_grey_of_a_colour_camera_is_said(original):
    frame = compressed(f"{original}; jpeg compressed mono8", encode(".jpg", np.full((96, 160), 90, np.uint8)))
    assert tuple(to_bgr(frame)[5, 5]) == (90, 90, 90)
    assert [warning.kind for warning in frame.warnings] == ["colour_lost"]
    assert original in frame.warnings[0].text


@pytest.mark.parametrize("described", [
    "rgb8; png compressed bgr8", "bgr8; png compressed bgr8", "rgba8; png compressed bgr8", "png", "", "rgb8",
    "rgb8; png", "bgr8; png compressed ", "mono8; png compressed ", "8UC3; png compressed ", "; ; ;", "bayer_rggb8",
])  # fmt: skip
def test_colours_as_the_codec_has_them(described):
    frame = compressed(described, encode(".png", scene()))
    np.testing.assert_array_equal(to_bgr(frame), scene())
    assert frame.warnings == ()


@pytest.mark.parametrize(("described", "suffix"), [
    ("rgb8; tiff compressed ", ".tiff"), ("rgb8; png compressed rgb8", ".png"), ("bgr8; png compressed rgb8", ".png"),
])  # fmt: skip
def test_red_first_where_the_format_says_so(described, suffix):
    handed = np.ascontiguousarray(scene()[..., ::-1])
    frame = compressed(described, encode(suffix, handed))
    np.testing.assert_array_equal(to_bgr(frame), scene())
    wide = compressed(described.replace("8", "16"), encode(suffix, handed.astype(np.uint16) * 257))
    assert wide.encoding == "rgb16"
    np.testing.assert_array_equal(to_bgr(wide), scene())


def test_a_tiff_is_as_it_came_from_the_camera():
    frame = compressed("bgr8; tiff compressed ", encode(".tiff", scene()))
    np.testing.assert_array_equal(to_bgr(frame), scene())


def test_sixteen_bits_of_a_message_are_those_of_the_raw_one():
    words = (np.arange(96 * 160, dtype=np.uint32).reshape(96, 160) * 65535 // (96 * 160)).astype(np.uint16)
    for described in ("mono16; png compressed ", "mono16; tiff compressed ", "png"):
        frame = compressed(described, encode(".tiff" if "tiff" in described else ".png", words))
        assert frame.encoding == "mono16"
        np.testing.assert_array_equal(to_bgr(frame), to_bgr(raw("mono16", words)))


def test_two_channels_of_a_png_are_those_of_yuv422():
    pairs = np.stack([np.full((8, 12), 100, np.uint8), np.full((8, 12), 150, np.uint8)], -1)
    grey_and_alpha = two_channel_png(pairs)
    frame = compressed("yuv422_yuy2; png compressed ", grey_and_alpha)
    assert frame.encoding == "yuv422_yuy2"
    np.testing.assert_array_equal(to_bgr(frame), to_bgr(raw("yuv422_yuy2", pairs)))
    grey = compressed("yuv422; png compressed ", encode(".png", pairs[..., 0]))
    assert [warning.kind for warning in grey.warnings] == ["colour_lost"]


def two_channel_png(pixels: NDArray[np.uint8]) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("described", ["16UC1; compressedDepth png", "32FC1; compressedDepth rvl", ";compressedDepth"])
def test_distances_are_refused_as_such(described):
    with pytest.raises(FrameError, match="got distances") as caught:
        compressed(described, encode(".png", np.zeros((8, 8), np.uint16)))
    assert caught.value.kind == "encoding"


def test_a_format_of_a_stranger_does_not_reach_the_log_as_it_is():
    frame = compressed("yuv422; png compressed mono\x1b[2J\n8", encode(".png", np.zeros((8, 8), np.uint8)))
    assert frame.warnings[0].text.isprintable()


# Bytes that do not belong to a JPEG, and those that it lacks.


def with_stray_bytes(data: bytes, count: int = 5) -> bytes:
    at = data.index(b"\xff\xdb")
    return data[:at] + bytes(count) + data[at:]


def with_long_segment(data: bytes) -> bytes:
    """An APP segment that is shorter than it says, so that it ends in the next one, another APP segment."""
    segment = b"\xff\xe5\x00\x0cabcd" + b"\xff\xe6\x00\x10" + b"x" * 14
    return data[:2] + segment + data[2:]


def with_a_length_of_zero(data: bytes) -> bytes:
    return data[:2] + b"\xff\xe5\0\0abcd" + data[2:]


@pytest.mark.parametrize("change", [
    with_stray_bytes, with_long_segment, with_a_length_of_zero, lambda data: with_stray_bytes(data, 1),
])  # fmt: skip
def test_bytes_between_segments_are_passed_over_and_said(change):
    data = encode(".jpg", np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8))
    frame = compressed("jpeg", change(data))
    np.testing.assert_array_equal(to_bgr(frame), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert [warning.kind for warning in frame.warnings] == ["stray_bytes"]


@pytest.mark.parametrize("options", [
    (), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3), (cv2.IMWRITE_JPEG_QUALITY, 30),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(96, 160, 3), (33, 47, 3), (40, 40)])
def test_a_missing_end_is_said_where_all_of_the_image_is_there(options, shape):
    data = encode(".jpg", np.random.default_rng(0).integers(0, 256, shape, np.uint8), *options)
    whole = to_bgr(compressed("jpeg", data))
    for end in (-1, -2):
        frame = compressed("jpeg", data[:end])
        np.testing.assert_array_equal(to_bgr(frame), whole)
        assert [warning.kind for warning in frame.warnings] == ["no_end"]
    for end in (-4, -20, len(data) // 2):
        with pytest.raises(FrameError, match="truncated"):
            compressed("jpeg", data[:end])


def test_a_progressive_jpeg_that_lacks_its_last_scan_is_truncated():
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    data = encode(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    with pytest.raises(FrameError, match="truncated"):
        compressed("jpeg", data[: data.rindex(b"\xff\xda")])


# Bit depth.


def wide(depth: int, grey: NDArray[np.uint8] | None = None) -> NDArray[np.uint16]:
    """Sixteen-bit words in which a ramp of grey values uses `depth` bits."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16) if grey is None else grey
    return np.round(grey.astype(float) * ((1 << depth) - 1) / 255).astype(np.uint16)


@pytest.mark.parametrize("depth", range(8, 17))
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_a_bit_depth_brings_back_the_brightness(depth, encoding):
    frame = BitDepth(str(depth)).apply(raw(encoding, wide(depth)))
    assert frame.bit_depth == depth
    np.testing.assert_array_equal(view(frame)[0][..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("depth", [10, 12, 14, 16])
def test_auto_is_the_lowest_usual_depth_of_the_largest_value(depth):
    grey = np.full((16, 16), 255, np.uint8)
    cells = wide(depth, grey)
    for frame in (raw("bayer_rggb16", cells), raw("mono16", cells), raw("bgr16", np.dstack([cells] * 3))):
        assert (to_bgr(BitDepth("auto").apply(frame)) == 255).all()


def test_auto_does_not_go_down_and_is_one_of_each_camera():
    depths = BitDepths("auto")
    front = [raw("mono16", np.full((4, 4), value, np.uint16)) for value in (300, 4000, 300)]
    assert [depths.apply(frame).bit_depth for frame in front] == [10, 12, 12]
    rear = frame_from_image(write_image(1, "", "mono16", np.full((4, 4), 900, np.uint16)), "rear")
    assert depths.apply(rear).bit_depth == 10


def test_values_above_the_depth_are_white():
    frame = BitDepth("12").apply(raw("mono16", np.array([[4095, 4096, 65535]], np.uint16)))
    assert view(frame)[0].ravel().tolist() == [255, 255, 255]


def test_a_byte_order_other_than_ours():
    serialized = bytearray(write_image(1, "", "mono16", np.full((4, 4), 4095, ">u2").view("<u2")))
    serialized[serialized.index(b"mono16") + 7] = 1
    frame = frame_from_image(bytes(serialized), "front")
    assert frame.big_endian
    assert BitDepth("auto").apply(frame).bit_depth == 12


def test_full_range_stays_as_it_is_and_eight_bits_too():
    full, eight = raw("mono16", wide(16)), raw("mono8", np.zeros((16, 16), np.uint8))
    for setting in ("16", "auto"):
        assert to_bgr(BitDepth(setting).apply(full)).tobytes() == to_bgr(full).tobytes()
    for setting in ("12", "auto", "16"):
        assert BitDepth(setting).apply(eight) is eight


def test_a_stream_of_dark_images_gets_one_hint():
    depth, kinds = BitDepth(), []
    for _ in range(30):
        kinds += [warning.kind for warning in depth.apply(raw("mono16", wide(12))).warnings]
    assert kinds == ["bit_depth"]
    bright = BitDepth()
    assert not any(bright.apply(raw("mono16", wide(16))).warnings for _ in range(30))


def test_the_hint_says_what_to_set():
    depth = BitDepth()
    texts = [warning.text for _ in range(10) for warning in depth.apply(raw("16UC1", wide(14))).warnings]
    assert "14 of 16 bits" in texts[0]
    assert "set the bit depth to 14 or auto" in texts[0]


@pytest.mark.parametrize(("setting", "bits", "count", "told"), [
    ("16", 12, 8, True), ("16", 10, 1, True),
    # The hint has come already; the depth is known; the images use all bits; there was none.
    ("16", 12, 12, False), ("12", 12, 8, False), ("auto", 12, 8, False), ("16", 16, 8, False), ("16", 12, 0, False),
])  # fmt: skip
def test_a_stream_that_ends_early_gets_the_hint_at_its_end(setting, bits, count, told):
    depth = BitDepth(setting)
    for _ in range(count):
        depth.apply(raw("mono16", wide(bits)))
    texts = [warning.text for warning in depth.at_end()]
    assert [f"use {bits} of 16 bits" in text for text in texts] == [True] * told


@pytest.mark.parametrize("setting", ["7", "17", "", "twelve", "-8", "12.0", "²", "0012"])
def test_a_depth_that_does_not_exist(setting):
    with pytest.raises(ConfigurationError, match="expected 8 to 16 or auto"):
        BitDepth(setting)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_files_of_twelve_bits(suffix, tmp_path):
    for name in ("a", "b"):
        assert cv2.imwrite(str(tmp_path / f"{name}{suffix}"), wide(12))
    source = open_source(tmp_path)
    assert {int(to_bgr(frame).max()) for _, frame in source} == {15}
    for setting in ("12", "auto"):
        source.bit_depth = setting
        for _, frame in source:
            np.testing.assert_array_equal(to_bgr(frame)[..., 0], np.arange(256).reshape(16, 16))


def test_full_range_files_are_byte_for_byte_what_opencv_makes_of_them(tmp_path):
    for suffix in (".png", ".tiff", ".ppm"):
        path = tmp_path / f"image{suffix}"
        assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65536, (16, 16, 3), np.uint16))
        np.testing.assert_array_equal(to_bgr(read_image(path)), cv2.imread(str(path)))


def test_a_pgm_that_says_its_highest_value_needs_no_setting(tmp_path):
    path = tmp_path / "thermal.pgm"
    path.write_bytes(b"P5 16 16 4095\n" + wide(12).astype(">u2").tobytes())
    np.testing.assert_array_equal(to_bgr(read_image(path))[..., 0], np.arange(256).reshape(16, 16))


# Image files.


def photo() -> NDArray[np.uint8]:
    image = np.zeros((24, 40, 3), np.uint8)
    image[:12, :20] = 255
    return image


def turned_file(suffix: str, orientation: int, prefix: bytes = b"") -> bytes:
    note = exif(orientation)
    data = encode(suffix, photo(), *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))
    if suffix == ".jpg":
        segment = b"Exif\0\0" + note
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if suffix == ".png":
        return data[:33] + png_chunk(b"eXIf", note) + data[33:]
    return webp_canvas(40, 24, data, riff_chunk(b"EXIF", prefix + note))


# How an image whose upper left quarter is white looks when it is turned: rows and columns of the white quarter.
UPRIGHT = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("suffix", "prefix"), [(".jpg", b""), (".png", b""), (".webp", b""), (".webp", b"Exif\0\0")])
def test_photographs_are_turned_by_their_exif_data(orientation, suffix, prefix, tmp_path):
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(turned_file(suffix, orientation, prefix))
    image = to_bgr(read_image(path))
    height, width = (24, 40) if orientation < 5 else (40, 24)
    assert image.shape == (height, width, 3)
    quarters = [[int(image[y * height // 4, x * width // 4, 0] > 128) for x in (1, 3)] for y in (1, 3)]
    row, column = UPRIGHT[orientation]
    assert quarters[row][column] == 1
    assert sum(map(sum, quarters)) == 1
    stored = decode_compressed(path.read_bytes())
    assert (stored.width, stored.height) == (40, 24)


def labelled(folder: Path, orientation: int, size: tuple[int, int]) -> CocoSet:
    (folder / "photo.jpg").write_bytes(turned_file(".jpg", orientation))
    content = {
        "images": [{"id": 1, "file_name": "photo.jpg", "width": size[0], "height": size[1]}],
        "annotations": [], "categories": [{"id": 1, "name": "car"}],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(content))
    return CocoSet.load(folder / "instances.json")


def test_a_labelled_photograph_is_turned_only_as_its_labels_are(tmp_path):
    source = labelled(tmp_path, 6, (40, 24)).source()
    ((_, frame),) = source
    assert (frame.width, frame.height) == (40, 24)
    assert "not turned" in source.warnings.lines()[0]
    source = labelled(tmp_path, 6, (24, 40)).source()
    ((_, frame),) = source
    assert (frame.width, frame.height) == (24, 40)
    assert source.warnings.lines() == []
    source = labelled(tmp_path, 6, (41, 24)).source()
    assert list(source) == []
    assert "41 x 24" in str(source.failures[0])


@pytest.mark.parametrize(("name", "suffix"), [
    ("image.jpg", ".webp"), ("image.jpg", ".bmp"), ("image.png", ".jpg"), ("image.bmp", ".png"), ("image.tiff", ".ppm"),
])  # fmt: skip
def test_the_name_of_a_file_does_not_matter(name, suffix, tmp_path):
    path = tmp_path / name
    path.write_bytes(encode(suffix, photo()))
    assert np.abs(to_bgr(read_image(path)).astype(int) - photo()).mean() < 10


@pytest.mark.parametrize(("tags", "said"), [
    ({258: (3, 12)}, "of 12 bits, positive"), ({258: (3, 16), 339: (3, 3)}, "of 16 bits, signed, floating-point"),
    ({258: (3, 16), 262: (3, 32845)}, "logarithmic"), ({258: (3, 16), 339: (3, 2)}, "signed"),
    ({258: (3, 24)}, "of 24 bits"), ({277: (3, 5)}, "got 5 of 8 bits"),
])  # fmt: skip
def test_a_tiff_that_opencv_would_read_wrongly_is_refused(tags, said):
    with pytest.raises(FrameError, match=said) as caught:
        decode_compressed(tiff(8, 8, extra=tags))
    assert caught.value.kind == "encoding"


@pytest.mark.parametrize(("kind", "told"), [(2, True), (1, False), (0, False)])
def test_transparent_pixels_of_a_tiff_that_become_dark_are_warned_of(kind, told):
    bits, strip = (3, 8), zlib.compress(bytes([200, 100, 50, 0] * 64 * 8))
    tags = {258: bits, 262: (3, 2), 277: (3, 4), 284: (3, 1), 338: (3, kind)}
    frame = decode_compressed(tiff(8, 8, extra=tags, data=strip))
    assert [warning.kind for warning in frame.warnings] == ["alpha"] * told
    # That this is what OpenCV does; where it no longer is, the warning may go.
    assert to_bgr(frame)[0, 0].tolist() == ([0, 0, 0] if told else [50, 100, 200])


@pytest.mark.parametrize(("start", "said"), [
    (b"GIF89a" + bytes(40), "a GIF; convert it"),
    (bytes(4) + b"ftypavif" + bytes(40), "an AVIF; convert it"),
    (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000; convert it"),
    (b"<!DOCTYPE html><html>404</html>", "HTML or XML"),
    (b"\xef\xbb\xbf  <svg/>", "HTML or XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    (b"PK\x03\x04" + bytes(40), "a ZIP archive"),
    (b"nothing known", "another format"),
    (b"", "0 bytes"),
])  # fmt: skip
def test_what_is_no_image_of_these_is_said_by_its_name(start, said, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(start)
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert said in str(caught.value)
    assert "camera" not in str(caught.value)


def test_warnings_of_a_source_are_counted_by_kind(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(with_stray_bytes(encode(".jpg", photo())))
    (tmp_path / "d.jpg").write_bytes(encode(".jpg", photo())[:-2])
    source = open_source(tmp_path)
    for _ in range(2):
        assert len(list(source)) == 4
        first, second = source.warnings.lines()
        assert first.startswith("3 images, such as ")
        assert "d.jpg: JPEG: the end-of-image marker" in second
