"""What an image costs before it is refused: nothing is allocated or decoded for what its header only claims."""

from __future__ import annotations

import contextlib
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_bytes import (
    bmp,
    jpeg_of_scans,
    jpeg_segment,
    png,
    png_chunk,
    riff_chunk,
    tiff,
    webp_canvas,
)

from seg_perception.core.encodings.compressed import read_header, stored_pixels
from seg_perception.core.encodings.raw import decode_compressed, to_bgr
from seg_perception.core.errors import FrameError, SourceError
from seg_perception.core.frame import MAX_PIXELS
from seg_perception.core.messages.images import write_compressed_image, write_image
from seg_perception.core.messages.serialized import frame_from_compressed_image, frame_from_image
from seg_perception.offboard.data.images import open_source, read_image
from seg_perception.offboard.data.video import VideoFile

# Generous for a machine that does other things; every case here took seconds or gigabytes before it was refused.
SECONDS, MEGABYTES = 2.0, 100
TEXT = zlib.compress(bytes(7_900_000), 9)


def encode(suffix: str, width: int = 40, height: int = 24) -> bytes:
    done, data = cv2.imencode(suffix, np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    assert done
    return data.tobytes()


def animated(width: int, height: int) -> bytes:
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 1, 0, 0)
    return png(8, 8, between=png_chunk(b"acTL", struct.pack(">II", 0x7FFFFFFF, 0)) + png_chunk(b"fcTL", control))


_WHOLE = jpeg_of_scans(2048, 700)
# Scans without what a JPEG begins with.
_SCANS = _WHOLE[_WHOLE.index(b"\xff\xda", _WHOLE.index(b"\xff\xda") + 2) :]

REFUSED = {
    "chunk of 2 GB": (lambda: png(1, 1, between=png_chunk(b"IDAT", b"", 0x7FFFFFF0)), "compressed"),
    "text chunk of 2 GB": (lambda: png(1, 1, between=png_chunk(b"tEXt", b"", 0x7FFFFFF0)), "compressed"),
    "chunk of 4 GB": (lambda: png(1, 1, between=png_chunk(b"IDAT", b"", 0xFFFFFFFF)), "compressed"),
    "image data of 1 GB for one pixel": (
        lambda: png(1, 1, image_data=zlib.compress(bytes(100_000_000), 1)), "compressed"),
    "more chunks than bytes of image": (lambda: png(1, 1, between=png_chunk(b"teSt", b"") * 100_000), "compressed"),
    "PNG of too many pixels": (lambda: png(16384, 16384, 1, 0), "size"),
    "interlaced PNG of too many pixels": (lambda: png(16384, 8192, 1, 0, interlaced=True), "size"),
    "PNG with 8 bytes a pixel": (lambda: png(8192, 4100, 16, 6, image_data=bytes(300_000)), "size"),
    "PNG with too few bytes": (lambda: png(8000, 8000, 16, 6, image_data=zlib.compress(bytes(100))), "compressed"),
    "palette with 16 bits": (lambda: png(8, 8, 16, 0).replace(b"\x10\0\0\0\0", b"\x10\x03\0\0\0", 1), "compressed"),
    "JPEG of too many pixels": (lambda: jpeg_of_scans(16384, 1), "size"),
    "many scans": (lambda: jpeg_of_scans(8192, 700), "compressed"),
    "many scans of a large image": (lambda: jpeg_of_scans(8192, 13), "compressed"),
    "many scans of a small image": (lambda: jpeg_of_scans(64, 33), "compressed"),
    "many sequential scans": (lambda: jpeg_of_scans(4096, 3000, progressive=False), "compressed"),
    "scans behind a false end": (
        lambda: jpeg_of_scans(2048, 2)[:-2] + jpeg_segment(0xFE, b"\xff\xd9") + _SCANS,
        "compressed"),
    "scans behind a marker without a length": (
        lambda: jpeg_of_scans(2048, 2)[:-2] + b"\xff\x01\xff\xff" + _SCANS, "compressed"),
    "scans behind many segments": (
        lambda: jpeg_of_scans(2048, 2)[:-2] + b"\xff\xfe\0\2" * 20_000 + _SCANS, "compressed"),
    "scans behind a segment without a length": (
        lambda: jpeg_of_scans(2048, 2)[:-2] + b"\xff\xe5\0\0" + _SCANS, "compressed"),
    "scans between restart markers": (
        lambda: jpeg_of_scans(2048, 2)[:-2] + b"\xff\xd3" * 100 + _SCANS, "compressed"),
    "JPEG of no channels": (
        lambda: b"\xff\xd8" + jpeg_segment(0xC0, b"\x08\0\x08\0\x08\0") + jpeg_segment(0xDD, b"\0\1")
        + jpeg_segment(0xDA, b"\0\0\x3f\0") + bytes(9), "compressed"),
    "run-length coded BMP": (lambda: bmp(16000, 16000), "size"),
    "upside-down BMP": (lambda: bmp(16000, -16000), "size"),
    "BMP that ends early": (lambda: bmp(8000, 8000, compression=0), "compressed"),
    "TIFF of strips that are all the same": (lambda: tiff(16000, 16000), "size"),
    "TIFF of one huge tile": (lambda: tiff(8, 8, extra={322: (4, 16384), 323: (4, 16384)}), "compressed"),
    "TIFF of many channels": (lambda: tiff(8, 8, extra={277: (3, 65535)}), "encoding"),
    "floating-point TIFF": (lambda: tiff(8, 8, extra={258: (3, 32), 339: (3, 3)}), "encoding"),
    "TIFF with a JPEG of many scans": (
        lambda: tiff(64, 64, extra={259: (3, 7)}, data=jpeg_of_scans(64, 40)), "compressed"),
    "PGM": (lambda: b"P5 16000 16000 255\n" + b"x", "compressed"),
    "PPM in text": (lambda: b"P3 16000 16000 255\n1 1 1", "compressed"),
    "PBM of too many pixels": (lambda: b"P4\n# comment\n16000 16000\n" + bytes(32_000_000), "size"),
    "lossless WebP": (
        lambda: b"RIFF" + struct.pack("<I", 18) + b"WEBPVP8L" + struct.pack("<IBI", 5, 0x2F, 0x0FFFFFFF) + b"\0",
        "size"),
    "segments of no length": (lambda: b"\xff\xd8" + b"\xff\xe1\0\2" * 1_000_000, "compressed"),
    "restart markers": (lambda: b"\xff\xd8" + b"\xff\xd0" * 1_000_000, "compressed"),
    "chunks of a WebP": (
        lambda: webp_canvas(40, 24, encode(".webp"), *[riff_chunk(b"teSt", b"")] * 400_000), "compressed"),
    "canvas of a WebP": (lambda: webp_canvas(16000, 16000, encode(".webp")), "size"),
    "frame of an animated WebP": (
        lambda: webp_canvas(40, 24, encode(".webp"), riff_chunk(b"ANMF", bytes(6) + b"\x7f\x3e\0" * 2 + bytes(4))),
        "size"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_claim_is_refused_at_little_cost(name):
    make, kind = REFUSED[name]
    data = make()
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(FrameError) as caught:
        decode_compressed(data)
    assert caught.value.kind == kind
    assert time.perf_counter() - begin < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES << 10


@pytest.mark.parametrize("between", [
    png_chunk(b"zTXt", b"a\0\0" + TEXT) * 100,
    png_chunk(b"iTXt", b"a\0\1\0\0\0" + TEXT) * 100,
    png_chunk(b"iCCP", b"a\0\0" + TEXT) + png_chunk(b"iCCP", b"b\0\0" + TEXT),
], ids=["zTXt", "iTXt", "iCCP"])  # fmt: skip
def test_what_a_decoder_does_not_need_is_not_inflated(between):
    begin = time.perf_counter()
    assert to_bgr(decode_compressed(png(8, 8, between=between))).shape == (8, 8, 3)
    assert time.perf_counter() - begin < SECONDS


def test_sizes_of_an_animation_do_not_matter():
    assert decode_compressed(animated(60000, 60000)).width == 8
    still = encode(".png")
    control = struct.pack(">IIIIIHHBB", 0, 40, 24, 0, 0, 1, 1, 0, 0)
    twice = still[:33] + png_chunk(b"fcTL", control) * 2 + still[33:]
    frame = decode_compressed(twice)
    np.testing.assert_array_equal(to_bgr(frame), to_bgr(decode_compressed(still)))
    assert [warning.kind for warning in frame.warnings] == ["pages"]


@pytest.mark.parametrize("make", [
    lambda: png(300, 200, 16, 6), lambda: png(300, 200, 1, 0, interlaced=True), lambda: png(300, 200, 8, 3),
    lambda: jpeg_of_scans(64, 32), lambda: jpeg_of_scans(2048, 12), lambda: bmp(300, 200), lambda: tiff(300, 200),
    lambda: b"P4 300 200\n" + bytes(38 * 200), lambda: b"P2 # a comment\n2 1 255\n1 2\n", lambda: encode(".webp"),
    lambda: encode(".tiff"), lambda: encode(".ppm"), lambda: encode(".bmp"), lambda: png(8192, 1, 1, 0),
])  # fmt: skip
def test_what_looks_odd_but_is_an_image_is_read(make):
    data = make()
    frame = decode_compressed(data)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (frame.height, frame.width) == reference.shape[:2]


def test_the_limit_is_one_argument_of_every_reader(tmp_path):
    data = encode(".png", 40, 24)
    for limit in (40 * 24, MAX_PIXELS):
        assert decode_compressed(data, max_pixels=limit).width == 40
    message = write_compressed_image(0, "", "png", data)
    for read in (
        lambda: decode_compressed(data, max_pixels=40 * 24 - 1),
        lambda: read_header(memoryview(data), max_pixels=40 * 24 - 1),
        lambda: frame_from_compressed_image(message, "front", max_pixels=40 * 24 - 1),
    ):
        with pytest.raises(FrameError, match="expected at most 959 pixels, got 40 x 24 = 960") as caught:
            read()
        assert caught.value.kind == "size"


def test_every_reader_of_files_has_the_same_gate(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(16384, 16384, 1, 0))
    with pytest.raises(SourceError, match="scale it down"):
        read_image(path)
    source = open_source(path)
    assert list(source) == []
    assert len(source.failures) == 1
    assert stored_pixels(path) is None


def test_a_video_of_too_many_pixels_is_not_begun(tmp_path, monkeypatch):
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert len(list(VideoFile(path))) == 1
    monkeypatch.setattr("seg_perception.offboard.data.video.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(SourceError, match="expected at most 3071 pixels"):
        VideoFile(path)


def test_a_raw_image_must_have_the_bytes_of_its_size():
    for width, height in ((16384, 16384), (2**31 - 1, 2**31 - 1), (0, 5)):
        serialized = bytearray(write_image(0, "", "bgr8", np.zeros((2, 2, 3), np.uint8)))
        at = serialized.index(struct.pack("<II", 2, 2))
        serialized[at : at + 8] = struct.pack("<II", height, width)
        with pytest.raises(FrameError) as caught:
            frame_from_image(bytes(serialized), "front")
        assert caught.value.kind in ("size", "layout")


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import cv2, numpy
from seg_perception.core.errors import FrameError, SourceError
from seg_perception.core.frame import Frame
from seg_perception.core.encodings.raw import decode_compressed, to_bgr
from seg_perception.offboard.data.images import read_image
path = Path(sys.argv[1])
data = path.read_bytes()
raw = Frame(numpy.zeros(4000 * 4000, numpy.uint8), 4000, 4000, 4000, "bayer_rggb8")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (30 << 20),) * 2)
for read in (lambda: decode_compressed(data), lambda: to_bgr(raw), lambda: read_image(path)):
    try:
        read()
        print("read")
    except FrameError as error:
        print(error.kind)
    except SourceError as error:
        print("memory" if "memory" in str(error) else error)
small = cv2.imencode(".png", numpy.zeros((8, 8, 3), numpy.uint8))[1].tobytes()
print(decode_compressed(small).width)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_too_little_memory_is_the_fault_of_that_frame(suffix, tmp_path):
    path = tmp_path / f"large{suffix}"
    assert cv2.imwrite(str(path), np.full((2000 if suffix == ".bmp" else 4000, 4000, 3), 90, np.uint8))
    ran = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(path)], capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == ["memory", "memory", "memory", "8"], ran.stderr[-500:]


def mutations(data: bytes, random: np.random.Generator) -> bytes:
    """An image with a few of its bytes, lengths and ends changed."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        at = int(random.integers(0, min(len(out), 400) if random.random() < 0.6 else len(out)))
        change = random.random()
        if change < 0.5:
            out[at] = int(random.integers(0, 256))
        elif change < 0.65:
            del out[at : at + int(random.integers(1, 40))]
        elif change < 0.8:
            out[at:at] = random.bytes(int(random.integers(1, 40)))
        elif change < 0.9:
            value = int(random.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF]))
            out[at : at + 4] = struct.pack(random.choice(["<I", ">I"]), value)
        else:
            del out[at:]
        if not out:
            break
    return bytes(out)


def corpus() -> list[bytes]:
    random = np.random.default_rng(0)
    images = [png(8, 8, between=png_chunk(b"zTXt", b"a\0\0" + TEXT[:100])), jpeg_of_scans(64, 4), bmp(9, 9)]
    images += [tiff(70, 70)]
    images += [png(33, 17, 16, 6, interlaced=True), animated(8, 8), webp_canvas(40, 24, encode(".webp"))]
    for height, width in ((1, 1), (17, 33), (64, 80)):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"):
            images.append(cv2.imencode(suffix, image)[1].tobytes())
        for suffix in (".png", ".tiff", ".pgm"):
            images.append(cv2.imencode(suffix, random.integers(0, 4096, (height, width), np.uint16))[1].tobytes())
        for option in (cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL):
            images.append(cv2.imencode(".jpg", image, (option, 1))[1].tobytes())
    return images


FORMATS = (
    "jpeg", "png", "", "bayer_rggb8; png compressed ", "mono16; png compressed ", "yuv422; tiff compressed ",
    "rgb8; jpeg compressed rgb8", "bayer_grbg16; jpeg compressed mono8", "; compressed", "\x1b[2J; a b c",
)  # fmt: skip


def read_mutations(count: int, seed: int) -> int:
    """Read mutated images as messages; anything but a frame or a FrameError is a failure. How many were frames."""
    random = np.random.default_rng(seed)
    images, frames = corpus(), 0
    for _ in range(count):
        data = mutations(images[int(random.integers(len(images)))], random)
        serialized = write_compressed_image(0, "", str(random.choice(FORMATS)), data)
        begin = time.perf_counter()
        with contextlib.suppress(FrameError):
            frame = frame_from_compressed_image(serialized, "front", max_pixels=1 << 22)
            assert to_bgr(frame).shape == (frame.height, frame.width, 3)
            frames += 1
        assert time.perf_counter() - begin < 5
    return frames


def test_mutated_images_give_a_frame_or_a_frame_error():
    assert 20 < read_mutations(600, 1) < 500


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_many_mutated_images_give_a_frame_or_a_frame_error(seed):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_mutations(10_000, seed) > 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_mutated_files_give_an_image_or_a_source_error(tmp_path: Path):
    random = np.random.default_rng(2)
    images = corpus()
    for index in range(200):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(mutations(images[index % len(images)], random))
        with contextlib.suppress(SourceError):
            assert read_image(path).width > 0


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_damaged_png_is_refused_before_its_decoder_writes_to_the_log(
    kind: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(png(300, 200, 8, 3))
    checksum = data.index(kind) + 4 + int.from_bytes(data[data.index(kind) - 4 : data.index(kind)], "big")
    data[checksum] ^= 1
    with pytest.raises(FrameError, match=f"{kind.decode()} chunk is damaged"):
        decode_compressed(bytes(data))
    assert capfd.readouterr().err == ""


def test_a_png_whose_text_is_damaged_is_decoded() -> None:
    text = bytearray(png_chunk(b"tEXt", b"a\0text"))
    text[-1] ^= 1
    assert to_bgr(decode_compressed(png(8, 8, between=bytes(text)))).shape == (8, 8, 3)


def test_the_limit_of_a_camera_bounds_the_scans_too() -> None:
    """A usual number of scans at its full size, more for smaller images."""
    scans = jpeg_of_scans(1024, 20)
    assert read_header(memoryview(scans), max_pixels=2048 * 2048).format == "JPEG"
    with pytest.raises(FrameError, match="more than 12 scans"):
        read_header(memoryview(scans), max_pixels=1024 * 1024)
