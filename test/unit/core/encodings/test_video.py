"""Decoding of compressed video: where it begins, where it begins again, and what a stranger's packet cannot do."""

from __future__ import annotations

import random
import sys
from contextlib import suppress

import numpy as np
import pytest
from video_packets import GROUP, SIZE, grey, packets, units

from seg_perception.core.encodings.raw import to_bgr
from seg_perception.core.encodings.video import VideoDecoder, VideoImage, check_decoder, packet_content, video_codec
from seg_perception.core.errors import BackendUnavailable, FrameError

ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}


def feed(decoder: VideoDecoder, coded: list[tuple[int, bytes]]) -> list[VideoImage]:
    images = []
    for number, data in coded:
        content = decoder.look(data)
        if not decoder.skips(content):
            images += decoder.decode(number, data, content)
    return images


def brightness(image: VideoImage) -> float:
    return float(to_bgr(image.frame(0, "", "")).mean())


@pytest.mark.parametrize(("format_", "start", "expected"), [
    ("jpeg", b"\xff\xd8\xff\xe0", None), ("bgr8; jpeg compressed bgr8", b"\xff\xd8\xff\xe0", None),
    ("h264", b"\xff\xd8\xff\xe0", None), ("H.265", b"\x00\x00\x00\x01", "hevc"),
    ("libx264", b"\x00\x00\x00\x01", "h264"), ("libsvtav1", b"\x12\x00\x0a\x0a", "av1"),
    ("", b"\x00\x00\x00\x01", None),
])  # fmt: skip
def test_videos_are_told_from_still_images(format_: str, start: bytes, expected: str | None) -> None:
    assert video_codec(format_, np.frombuffer(start, np.uint8)) == expected


@pytest.mark.parametrize("codec", ENCODERS)
def test_images_come_at_once_and_in_their_order(codec: str) -> None:
    decoder = VideoDecoder(codec)
    for number, data in packets(ENCODERS[codec], 8):
        (image,) = feed(decoder, [(number, data)])
        assert image.number == number
        assert abs(brightness(image) - grey(number)) < 4


@pytest.mark.parametrize("codec", ENCODERS)
def test_who_comes_late_waits_for_a_key_frame(codec: str) -> None:
    decoder = VideoDecoder(codec)
    coded = packets(ENCODERS[codec], 12)
    assert feed(decoder, coded[1:GROUP]) == []
    assert decoder.awaited == "a key frame"
    later = feed(decoder, coded[GROUP:])
    assert [image.number for image in later] == list(range(later[0].number, 12))
    assert not decoder.waiting
    decoder.restart()
    assert feed(decoder, coded[1:GROUP]) == []


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_parameter_sets_may_come_in_packets_of_their_own(codec: str) -> None:
    first, *rest = packets(ENCODERS[codec], 4)
    split = [(0, unit) for unit in units(first[1])]
    decoder = VideoDecoder(codec)
    content = [packet_content(codec, unit) for _, unit in split]
    assert [each.image for each in content] == [*[False] * (len(split) - 1), True]
    assert [image.number for image in feed(decoder, [*split, *rest])] == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_parameter_sets_that_never_come_are_named(codec: str) -> None:
    first, *rest = packets(ENCODERS[codec], 4)
    decoder = VideoDecoder(codec)
    assert feed(decoder, [(0, units(first[1])[-1]), *rest]) == []
    assert "parameter sets" in decoder.awaited


def test_parameter_sets_are_kept_when_the_stream_starts_again() -> None:
    coded = packets("libx264", 2 * GROUP + 1)
    decoder = VideoDecoder("h264")
    feed(decoder, coded[:2])
    decoder.restart()
    bare = [(number, units(data)[-1]) for number, data in coded[GROUP:]]
    assert [image.number for image in feed(decoder, bare)] == list(range(GROUP, 2 * GROUP + 1))


def test_a_stream_that_refreshes_without_key_frames_is_joined_at_a_recovery_point() -> None:
    coded = packets("libx264", 40, extra=":keyint=9:intra-refresh=1")
    sets = [(0, unit) for unit in units(coded[0][1])[:2]]
    later = [
        (number, b"".join(unit for unit in units(data) if unit[3] & 31 not in (7, 8))) for number, data in coded[3:]
    ]
    assert not any(packet_content("h264", data).parameters for _, data in later)
    decoder = VideoDecoder("h264")
    images = feed(decoder, [*sets, *later])
    assert images
    assert images[-1].number == 39


def test_b_frames_keep_their_numbers() -> None:
    decoder = VideoDecoder("h264")
    images = feed(decoder, packets("libx264", 12, b_frames=2)) + decoder.finish()
    assert sorted(image.number for image in images) == list(range(12))
    assert all(abs(brightness(image) - grey(image.number)) < 4 for image in images)


@pytest.mark.parametrize("codec", ENCODERS)
def test_a_size_beyond_the_limit_is_refused(codec: str) -> None:
    coded = packets(ENCODERS[codec], 2, size=(320, 240))
    with pytest.raises(FrameError, match="expected at most 76799 pixels") as caught:
        feed(VideoDecoder(codec, 320 * 240 - 1), coded)
    assert caught.value.kind == "size"
    assert len(feed(VideoDecoder(codec, 320 * 240), coded)) == 2


@pytest.mark.parametrize("codec", ENCODERS)
def test_a_size_far_beyond_the_limit_takes_no_memory(codec: str) -> None:
    # FFmpeg refuses it before it allocates: at most two million pixels more than the limit.
    coded = packets(ENCODERS[codec], 1, size=(2048, 1280))
    decoder = VideoDecoder(codec, 100)
    with pytest.raises(FrameError) as caught:
        feed(decoder, coded)
    assert caught.value.kind == "size"
    assert decoder.waiting


def test_a_stream_may_change_its_size() -> None:
    decoder = VideoDecoder("h264")
    images = feed(decoder, packets("libx264", 3)) + feed(decoder, packets("libx264", 3, size=(96, 80)))
    assert [(image.image.width, image.image.height) for image in images] == [SIZE] * 3 + [(96, 80)] * 3


@pytest.mark.parametrize("codec", ENCODERS)
def test_damage_ends_at_the_next_key_frame(codec: str) -> None:
    decoder = VideoDecoder(codec)
    coded = packets(ENCODERS[codec], 2 * GROUP + 2)
    keys = [number for number, data in coded if packet_content(codec, data).starts]
    broken = coded[2][1][:3] + bytes(20) + bytes(range(200, 255))
    feed(decoder, coded[:2])
    with pytest.raises(FrameError) as caught:
        feed(decoder, [(2, broken)])
    assert caught.value.kind == "compressed"
    assert decoder.waiting
    rest = feed(decoder, coded[3:])
    if len(keys) > 1:
        assert [image.number for image in rest] == list(range(keys[1], 2 * GROUP + 2))


@pytest.mark.parametrize("codec", ENCODERS)
def test_mutated_packets_are_refused_or_decoded_and_nothing_else(codec: str) -> None:
    chance = random.Random(7)
    coded = packets(ENCODERS[codec], 6)
    decoder = VideoDecoder(codec, 1 << 20)
    for _ in range(150):
        number, data = chance.choice(coded)
        mutated = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        with suppress(FrameError):
            feed(decoder, [(number, bytes(mutated[: chance.randint(1, len(mutated))]))])
    assert feed(VideoDecoder(codec), coded)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x01", b"\x00\x00\x00\x19\x65\x88\x84"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_packets_without_start_codes_are_named(codec: str, data: bytes) -> None:
    with pytest.raises(FrameError, match="Annex B"):
        packet_content(codec, data)


@pytest.mark.parametrize("codec", ENCODERS)
def test_units_without_end_take_no_time_without_end(codec: str) -> None:
    for data in (b"\x00\x00\x01\x06" * 500_000, b"\x00\x00\x01\x06" + b"\xff" * 500_000, b"\x0a\x00" * 500_000):
        if codec in ("vp9", "av1") or b"\x01" in data:
            packet_content(codec, data)


def test_video_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendUnavailable, match="pip install av"):
        check_decoder()
