"""Decoding of image encodings, against references that share nothing with OpenCV."""

from __future__ import annotations

import array
import contextlib
import tracemalloc
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seg_perception.core.encodings.compressed import read_header
from seg_perception.core.encodings.raw import decode_compressed, to_bgr, view
from seg_perception.core.errors import FrameError
from seg_perception.core.frame import ENCODINGS, Frame

INTERLEAVED = {
    "bgr8": "bgr", "rgb8": "rgb", "bgra8": "bgra", "rgba8": "rgba",
    "mono8": "mono", "8UC1": "mono", "8UC3": "bgr", "8UC4": "bgra",
}  # fmt: skip
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
WIDE = {
    "bgr16": "bgr", "rgb16": "rgb", "bgra16": "bgra", "rgba16": "rgba",
    "mono16": "mono", "16UC1": "mono", "16UC3": "bgr", "16UC4": "bgra",
}  # fmt: skip
YUV422 = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv"}


def make_frame(encoding: str, width: int, height: int, padding: int, seed: int, cut: bool = False) -> Frame:
    """A frame of random bytes; `cut` leaves the padding of the last row out."""
    layout = ENCODINGS[encoding]
    row = width * layout.bytes_per_pixel
    step = row + padding
    rows = height * layout.rows_per_two // 2
    size = (rows - 1) * step + row if cut else rows * step
    return Frame(np.random.default_rng(seed).integers(0, 256, size, np.uint8), width, height, step, encoding)


def byte_at(frame: Frame, row: int, offset: int) -> int:
    return int(frame.data[row * frame.step + offset])


def bgr_from_yuv(luma: int, u: int, v: int) -> list[float]:
    """ITU-R BT.601, limited range, in floating point; luma below black is black."""
    y = 1.164383 * max(0, luma - 16)
    pixel = [
        y + 2.017232 * (u - 128),
        y - 0.391762 * (u - 128) - 0.812968 * (v - 128),
        y + 1.596027 * (v - 128),
    ]
    return [min(255.0, max(0.0, value)) for value in pixel]


sizes = st.integers(1, 24)
paddings = st.integers(0, 9)
seeds = st.integers(0, 1 << 30)


@given(st.sampled_from(sorted(INTERLEAVED)), sizes, sizes, paddings, st.booleans(), seeds)
def test_interleaved_encodings_are_views_that_skip_the_row_padding(encoding, width, height, padding, cut, seed):
    frame = make_frame(encoding, width, height, padding, seed, cut)
    pixels, order = view(frame)
    channels = ENCODINGS[encoding].bytes_per_pixel
    assert order == INTERLEAVED[encoding]
    assert pixels.shape == (height, width, channels)
    assert pixels.dtype == np.uint8
    assert np.shares_memory(pixels, frame.data)
    for y in range(height):
        row = frame.data[y * frame.step : y * frame.step + width * channels]
        np.testing.assert_array_equal(pixels[y].reshape(-1), row)


@given(st.sampled_from(sorted(INTERLEAVED)), sizes, sizes, paddings, seeds)
def test_to_bgr_orders_the_channels(encoding, width, height, padding, seed):
    frame = make_frame(encoding, width, height, padding, seed)
    pixels, order = view(frame)
    if order == "mono":
        expected = np.repeat(pixels, 3, axis=2)
    else:
        expected = pixels[..., [order.index(channel) for channel in "bgr"]]
    np.testing.assert_array_equal(to_bgr(frame), expected)


def test_bgr_is_not_copied():
    frame = make_frame("bgr8", 7, 5, 3, 0)
    assert np.shares_memory(to_bgr(frame), frame.data)


def test_a_read_only_buffer_is_decoded():
    for encoding in ENCODINGS:
        frame = make_frame(encoding, 8, 8, 4, 1)
        frozen = Frame(np.frombuffer(frame.data.tobytes(), np.uint8), 8, 8, frame.step, encoding)
        np.testing.assert_array_equal(to_bgr(frozen), to_bgr(frame))


def mosaic_of(encoding: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a sensor with the colour filter that ROS calls `encoding` sees of a bgr image."""
    letters = encoding.removeprefix("bayer_")[:4]
    mosaic = np.empty(image.shape[:2], np.uint8)
    for position, letter in enumerate(letters):
        y, x = divmod(position, 2)
        mosaic[y::2, x::2] = image[y::2, x::2, "bgr".index(letter)]
    return mosaic


@given(st.sampled_from(BAYER), sizes, sizes, paddings, seeds)
def test_bayer_finds_the_colour_of_a_uniform_image(encoding, half_width, half_height, padding, seed):
    width, height = 2 * half_width, 2 * half_height
    random = np.random.default_rng(seed)
    colour = random.integers(0, 256, 3, np.uint8)
    image = np.broadcast_to(colour, (height, width, 3))
    memory = random.integers(0, 256, (height, width + padding), np.uint8)
    memory[:, :width] = mosaic_of(encoding, image)
    decoded = to_bgr(Frame(memory.reshape(-1), width, height, width + padding, encoding))
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("encoding", BAYER)
def test_bayer_keeps_the_measured_samples_of_a_coloured_image(encoding):
    """Bilinear interpolation leaves each pixel's own colour as measured, away from the border."""
    image = np.random.default_rng(3).integers(0, 256, (16, 20, 3), np.uint8)
    mosaic = mosaic_of(encoding, image)
    decoded = to_bgr(Frame(mosaic.reshape(-1), 20, 16, 20, encoding))
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_array_equal(mosaic_of(encoding, decoded)[inner], mosaic[inner])


@given(st.sampled_from(sorted(YUV422)), sizes, sizes, paddings, seeds)
def test_yuv422_is_bt601(encoding, half_width, height, padding, seed):
    width = 2 * half_width
    frame = make_frame(encoding, width, height, padding, seed)
    order = YUV422[encoding]
    first, second = (0, 2) if order == "yuyv" else (1, 3)
    expected = np.array(
        [
            [
                bgr_from_yuv(
                    byte_at(frame, y, x // 2 * 4 + (second if x % 2 else first)),
                    byte_at(frame, y, x // 2 * 4 + order.index("u")),
                    byte_at(frame, y, x // 2 * 4 + order.index("v")),
                )
                for x in range(width)
            ]
            for y in range(height)
        ]
    )
    assert np.abs(to_bgr(frame) - expected).max() <= 2.0


@given(st.sampled_from(("nv12", "nv21")), sizes, sizes, paddings, st.booleans(), seeds)
def test_nv_chroma_follows_the_luma_plane_at_height_times_step(encoding, half_width, half_height, padding, cut, seed):
    width, height = 2 * half_width, 2 * half_height
    frame = make_frame(encoding, width, height, padding, seed, cut)
    u, v = (0, 1) if encoding == "nv12" else (1, 0)
    expected = np.array(
        [
            [
                bgr_from_yuv(
                    byte_at(frame, y, x),
                    byte_at(frame, height + y // 2, x // 2 * 2 + u),
                    byte_at(frame, height + y // 2, x // 2 * 2 + v),
                )
                for x in range(width)
            ]
            for y in range(height)
        ]
    )
    assert np.abs(to_bgr(frame) - expected).max() <= 2.0


# Channels of 16 bits


def wide_frame(
    words: NDArray[np.uint16], encoding: str, *, big: bool = False, padding: int = 0, cut: bool = False
) -> Frame:
    """A frame of 16-bit words `[H, W, C]` in a byte order; `cut` leaves the padding of the last row out."""
    height, width = words.shape[:2]
    rows = words.reshape(height, -1).astype(">u2" if big else "<u2").view(np.uint8)
    memory = np.pad(rows, ((0, 0), (0, padding)), constant_values=173).reshape(-1)
    data = memory[: memory.size - padding] if cut else memory
    return Frame(data, width, height, rows.shape[1] + padding, encoding, big_endian=big)


@given(st.sampled_from(sorted(WIDE)), sizes, sizes, paddings, st.booleans(), st.booleans(), seeds)
def test_sixteen_bits_are_scaled_in_either_byte_order(encoding, width, height, padding, cut, big, seed):
    channels = ENCODINGS[encoding].bytes_per_pixel // 2
    words = np.random.default_rng(seed).integers(0, 2**16, (height, width, channels), np.uint16)
    pixels, order = view(wide_frame(words, encoding, big=big, padding=padding, cut=cut))
    assert order == WIDE[encoding]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.rint(words * (255 / 65535)).astype(np.uint8))


@given(st.sampled_from(sorted(WIDE)), sizes, sizes, st.booleans(), seeds)
def test_sixteen_bits_become_the_bgr_of_eight(encoding, width, height, big, seed):
    channels = ENCODINGS[encoding].bytes_per_pixel // 2
    octets = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    narrow = Frame(octets.reshape(-1), width, height, width * channels, encoding.replace("16", "8"))
    wide = wide_frame(octets.astype(np.uint16) * 257, encoding, big=big)
    np.testing.assert_array_equal(to_bgr(wide), to_bgr(narrow))


@pytest.mark.parametrize("big", [False, True])
def test_every_word_of_sixteen_bits_is_rounded_to_the_nearest(big):
    words = np.arange(2**16, dtype=np.uint16).reshape(256, 256, 1)
    pixels, _ = view(wide_frame(words, "mono16", big=big))
    np.testing.assert_array_equal(pixels, (words.astype(int) + 128) // 257)


@pytest.mark.parametrize(("word", "byte"), [(0, 0), (257, 1), (65535, 255), (32896, 128), (255, 1), (128, 0)])
def test_grey_of_sixteen_bits(word, byte):
    for encoding in ("mono16", "16UC1"):
        frame = wide_frame(np.full((2, 4, 1), word, np.uint16), encoding)
        assert view(frame)[1] == "mono"
        assert (frame.width, frame.height) == (4, 2)
        assert set(to_bgr(frame).reshape(-1)) == {byte}


@pytest.mark.parametrize("big", [False, True])
def test_mosaics_of_sixteen_bits_keep_their_pattern(big):
    octets = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    for encoding in BAYER:
        wide = wide_frame(octets.astype(np.uint16) * 257, encoding.replace("8", "16"), big=big, padding=3)
        np.testing.assert_array_equal(to_bgr(wide), to_bgr(Frame(octets.reshape(-1), 8, 8, 8, encoding)))


def test_sixteen_bits_at_an_odd_address():
    words = np.random.default_rng(2).integers(0, 2**16, (5, 7, 3), np.uint16)
    frame = wide_frame(words, "bgr16")
    shifted = Frame(np.frombuffer(b"\0" + frame.data.tobytes(), np.uint8, offset=1), 7, 5, frame.step, "bgr16")
    np.testing.assert_array_equal(to_bgr(shifted), to_bgr(frame))


def test_byte_order_is_nothing_to_eight_bits():
    for encoding, layout in ENCODINGS.items():
        if layout.bytes_per_channel == 1:
            frame = make_frame(encoding, 8, 8, 4, 1)
            np.testing.assert_array_equal(to_bgr(replace(frame, big_endian=True)), to_bgr(frame))


def test_every_encoding_of_frame_has_a_decoder():
    for encoding in ENCODINGS:
        assert to_bgr(make_frame(encoding, 8, 6, 5, 2)).shape == (6, 8, 3)


# Compressed images


def photo(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A smooth image, which JPEG hardly changes."""
    y, x = np.mgrid[:height, :width]
    planes = (x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 64 + 90)
    return np.stack(planes, -1).astype(np.uint8)


def encode(suffix: str, image: NDArray[np.uint8], *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, options)
    assert done
    return data.tobytes()


PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: array.array("B", b),
                                  lambda b: np.frombuffer(b, np.uint8)])  # fmt: skip
def test_png_survives_in_every_kind_of_buffer(wrap):
    frame = decode_compressed(wrap(encode(".png", photo())), stamp_ns=7, frame_id="front", camera="left")
    assert (frame.encoding, frame.stamp_ns, frame.frame_id, frame.camera) == ("bgr8", 7, "front", "left")
    np.testing.assert_array_equal(to_bgr(frame), photo())


@pytest.mark.parametrize("options", [(), PROGRESSIVE, RESTARTS])
@pytest.mark.parametrize("trailer", [b"", b"\0" * 17, b"\xff\xd9 again"])
def test_jpeg_with_or_without_padding_behind_its_end(options, trailer):
    data = encode(".jpg", photo(), cv2.IMWRITE_JPEG_QUALITY, 95, *options) + trailer
    error = to_bgr(decode_compressed(data)).astype(int) - photo()
    assert np.abs(error).mean() < 4


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", ()), (".jpg", PROGRESSIVE), (".jpg", RESTARTS), (".png", ())])
def test_every_truncation_is_refused(suffix, options):
    data = encode(suffix, photo(), *options)
    # The end marker of a JPEG is not missed where the whole image is there.
    for length in range(len(data) - (2 if suffix == ".jpg" else 0)):
        with pytest.raises(FrameError) as caught:
            decode_compressed(data[:length])
        assert caught.value.kind == "compressed", length


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    data = encode(".jpg", photo())
    thumbnail = encode(".jpg", photo(16, 16))
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    with_thumbnail = data[:2] + segment + data[2:]
    np.testing.assert_array_equal(to_bgr(decode_compressed(with_thumbnail)), to_bgr(decode_compressed(data)))
    with pytest.raises(FrameError, match="truncated"):
        decode_compressed(with_thumbnail[:-40])


def exif_orientation(value: int) -> bytes:
    tiff = b"MM\0*\0\0\0\x08\0\x01" + b"\x01\x12\0\x03\0\0\0\x01" + value.to_bytes(2, "big") + b"\0\0" + b"\0\0\0\0"
    return b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff


def test_orientation_is_applied_only_on_request():
    data = encode(".jpg", photo())
    turned = data[:2] + exif_orientation(6) + data[2:]
    assert to_bgr(decode_compressed(turned)).shape == (48, 64, 3)
    assert to_bgr(decode_compressed(turned, apply_orientation=True)).shape == (64, 48, 3)


def claim_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG or PNG whose header claims another size."""
    if data.startswith(b"\x89PNG"):
        header = data[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
        return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


@pytest.mark.parametrize(("suffix", "width", "height", "kind"), [
    (".jpg", 65535, 65535, "size"),
    (".jpg", 0, 48, "compressed"),
    (".jpg", 16384, 16384, "compressed"),
    (".png", 100_000, 100_000, "size"),
    (".png", 0, 5, "size"),
    (".png", 16384, 16384, "compressed"),
])  # fmt: skip
def test_an_absurd_size_is_refused_before_anything_is_allocated(suffix, width, height, kind):
    data = claim_size(encode(suffix, photo()), width, height)
    tracemalloc.start()
    with pytest.raises(FrameError) as caught:
        decode_compressed(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.kind == kind
    assert peak < 1 << 20


def test_a_large_uniform_image_is_not_mistaken_for_a_bomb():
    white = np.full((3000, 4000, 3), 255, np.uint8)
    for suffix, options in ((".jpg", (cv2.IMWRITE_JPEG_QUALITY, 1)), (".jpg", PROGRESSIVE), (".png", ())):
        assert read_header(memoryview(encode(suffix, white, *options))).width == 4000


@given(st.binary(max_size=200), st.sampled_from((b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n")))
def test_junk_is_refused(junk, start):
    with pytest.raises(FrameError):
        decode_compressed(start + junk)


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from((".jpg", ".png")))
def test_a_flipped_byte_gives_a_frame_or_a_frame_error(position, value, suffix):
    data = bytearray(encode(suffix, photo()))
    data[position % len(data)] = value
    with contextlib.suppress(FrameError):
        assert to_bgr(decode_compressed(data)).ndim == 3
