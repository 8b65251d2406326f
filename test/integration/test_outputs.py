"""Frames in, every topic of the message contract out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from colour_model import NAMES
from integration.harness import (
    HEIGHT,
    WIDTH,
    NodeProcess,
    assert_same_instances,
    image_message,
    pixels_of,
    street,
    wait_for,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray, LabelInfo

GROUPS = {"person": "pedestrian", "car": "vehicle", "stop sign": "traffic_sign", "traffic light": "traffic_light"}


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess], model: object) -> NodeProcess:
    node = start_node(
        "outputs", "-r", "image_raw:=/outputs_image", "-r", "camera_info:=/outputs_info", model=model, autostart=True
    )
    node.wait_state("active")
    return node


def bgr(scene: Any) -> np.ndarray:
    return np.ascontiguousarray(scene.image[..., ::-1])


def test_an_image_becomes_an_instance_map_and_detections(node: NodeProcess) -> None:
    scene, maps = street(), node.output(Image, "instance_map")
    detections = node.output(Detection2DArray, "detections")
    frame = image_message(bgr(scene))
    result = node.process(frame, maps)
    assert result.header == frame.header
    assert (result.encoding, result.width, result.height, result.is_bigendian) == ("mono16", WIDTH, HEIGHT, 0)
    matched = assert_same_instances(pixels_of(result), scene)

    stamp = (frame.header.stamp.sec, frame.header.stamp.nanosec)
    found = wait_for(lambda: detections.of(stamp), "detections")
    assert found.header == frame.header
    assert sorted(int(detection.id) for detection in found.detections) == sorted(matched)
    scores = [detection.results[0].hypothesis.score for detection in found.detections]
    assert scores == sorted(scores, reverse=True)
    for detection in found.detections:
        index = matched[int(detection.id)]
        name = NAMES[scene.labels[index]]
        assert [result.hypothesis.class_id for result in detection.results] == [GROUPS[name], name]
        assert detection.results[0].hypothesis.score == detection.results[1].hypothesis.score > 0.25
        assert detection.header == frame.header
        centre = np.array([detection.bbox.center.position.x, detection.bbox.center.position.y])
        half = np.array([detection.bbox.size_x, detection.bbox.size_y]) / 2
        np.testing.assert_allclose(np.concatenate([centre - half, centre + half]), scene.boxes[index], atol=2)


def test_a_frame_with_nothing_on_it_is_published_too(node: NodeProcess) -> None:
    maps, detections = node.output(Image, "instance_map"), node.output(Detection2DArray, "detections")
    frame = image_message(np.full((HEIGHT, WIDTH, 3), 114, np.uint8))
    assert not pixels_of(node.process(frame, maps)).any()
    found = wait_for(lambda: detections.of((frame.header.stamp.sec, frame.header.stamp.nanosec)), "empty detections")
    assert (found.header, list(found.detections)) == (frame.header, [])


def test_late_subscribers_learn_the_labels(node: NodeProcess) -> None:
    labels = node.output(LabelInfo, "label_info", latched=True)
    info = wait_for(lambda: labels.messages, "label_info")[0]
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [
        (0, "background"),
        *((index + 1, name) for index, name in enumerate(NAMES)),
    ]
    assert info.threshold == pytest.approx(0.25)


def test_images_for_people_are_made_while_watched(node: NodeProcess) -> None:
    scene, maps = street(), node.output(Image, "instance_map")
    node.process(image_message(bgr(scene)), maps)
    kinds = {
        "semantic_map": Image,
        "instance_map/color": Image,
        "overlay": Image,
        "overlay/compressed": CompressedImage,
    }
    recorders = {name: node.output(kind, name) for name, kind in kinds.items()}
    found = {}
    for name, recorder in recorders.items():
        frame = image_message(bgr(scene))
        found[name] = node.process(frame, recorder)
        assert found[name].header == frame.header
    numbers = pixels_of(maps.messages[-1])
    semantic = pixels_of(found["semantic_map"])
    assert found["semantic_map"].encoding == "mono8"
    for number, index in assert_same_instances(numbers, scene).items():
        assert set(semantic[numbers == number]) == {scene.labels[index] + 1}
    assert not semantic[numbers == 0].any()
    colour = pixels_of(found["instance_map/color"])
    assert not colour[numbers == 0].any()
    assert colour[numbers > 0].any(axis=-1).all()
    assert found["overlay"].encoding == "bgr8"
    overlay = pixels_of(found["overlay"])
    decoded = cv2.imdecode(np.frombuffer(bytes(found["overlay/compressed"].data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == overlay.shape == (HEIGHT, WIDTH, 3)
    assert (overlay != bgr(scene)).any(axis=-1).mean() > 0.1
    for name in kinds:
        node.forget(name)


def test_the_calibration_goes_with_the_frame(node: NodeProcess) -> None:
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0.0, 0.0])
    info.k = [200.0, 0.0, 159.5, 0.0, 210.0, 95.5, 0.0, 0.0, 1.0]
    info.p = [200.0, 0.0, 159.5, -12.0, 0.0, 210.0, 95.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.header.frame_id = "another"
    infos, publisher = node.output(CameraInfo, "camera_info"), node.publisher(CameraInfo, "/outputs_info")
    frame = image_message(bgr(street()))

    def calibrated() -> CameraInfo | None:
        publisher.publish(info)
        node.publisher().publish(frame)
        return infos.of((frame.header.stamp.sec, frame.header.stamp.nanosec))

    found = wait_for(calibrated, "camera_info")
    assert found.header == frame.header
    np.testing.assert_allclose(found.k, info.k)
    np.testing.assert_allclose(found.p, info.p)
    assert (found.width, found.height, list(found.d)) == (WIDTH, HEIGHT, list(info.d))

    other = CameraInfo(width=WIDTH * 2, height=HEIGHT)

    def refused() -> bool:
        publisher.publish(other)
        node.publisher().publish(image_message(bgr(street())))
        return "expected a calibration for images of 320 x 192, got one for 640 x 192" in node.log

    wait_for(refused, "warning about the calibration")
    assert node.state() == "active"


def _grey_words(scene: Any) -> np.ndarray:
    return cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257


def _mosaic(image: np.ndarray) -> np.ndarray:
    mosaic = image[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = image[::2, ::2, 0], image[1::2, 1::2, 2]
    return mosaic


def _yuyv(image: np.ndarray) -> np.ndarray:
    yuv = cv2.cvtColor(image, cv2.COLOR_RGB2YUV)
    packed = np.empty((*image.shape[:2], 2), np.uint8)
    packed[..., 0] = yuv[..., 0]
    packed[:, ::2, 1], packed[:, 1::2, 1] = yuv[:, ::2, 1], yuv[:, ::2, 2]
    return packed


def _nv12(image: np.ndarray) -> np.ndarray:
    i420 = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
    height, width = image.shape[:2]
    chroma = i420[height:].reshape(2, -1)
    return np.vstack([i420[:height], np.stack([chroma[0], chroma[1]], axis=-1).reshape(height // 2, width)])


COLOURED = {
    "rgb8": lambda image: image_message(image, "rgb8"),
    "bgra8": lambda image: image_message(cv2.cvtColor(image, cv2.COLOR_RGB2BGRA), "bgra8"),
    "rgba8": lambda image: image_message(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), "rgba8"),
    "bgr8 with padded rows": lambda image: image_message(image[..., ::-1], step=WIDTH * 3 + 29),
    "bayer_rggb8": lambda image: image_message(_mosaic(image), "bayer_rggb8"),
    "bayer_rggb16": lambda image: image_message(_mosaic(image).astype(np.uint16) * 257, "bayer_rggb16"),
    "yuv422_yuy2": lambda image: image_message(_yuyv(image), "yuv422_yuy2"),
    "nv12": lambda image: image_message(_nv12(image), "nv12", height=HEIGHT),
    "rgb16": lambda image: image_message(image.astype(np.uint16) * 257, "rgb16"),
    "bgr16 big-endian": lambda image: image_message(
        (image[..., ::-1].astype(np.uint16) * 257).astype(">u2"), "bgr16", big=True
    ),
}


@pytest.mark.parametrize("encoding", COLOURED)
def test_every_encoding_shows_the_same_scene(node: NodeProcess, encoding: str) -> None:
    scene, maps = street(), node.output(Image, "instance_map")
    result = node.process(COLOURED[encoding](scene.image), maps)
    assert_same_instances(pixels_of(result), scene, iou=0.8 if encoding.startswith(("bayer", "yuv", "nv12")) else 0.9)


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "16UC1"])
def test_grey_images_are_processed(node: NodeProcess, encoding: str) -> None:
    words = _grey_words(street())
    message = image_message((words // 257).astype(np.uint8) if encoding == "mono8" else words, encoding)
    result = node.process(message, node.output(Image, "instance_map"))
    assert (result.width, result.height) == (WIDTH, HEIGHT)


def test_the_size_may_change_from_frame_to_frame(node: NodeProcess) -> None:
    maps = node.output(Image, "instance_map")
    for width, height in ((WIDTH, HEIGHT), (640, 384), (160, 96), (WIDTH, HEIGHT)):
        scene = street(width, height)
        result = node.process(image_message(bgr(scene)), maps)
        assert (result.width, result.height) == (width, height)
        assert_same_instances(pixels_of(result), scene, iou=0.85)


def test_compressed_images_and_a_smaller_map(start_node: Callable[..., NodeProcess], model: object) -> None:
    node = start_node(
        "compressed",
        model=model,
        autostart=True,
        output_size=0.5,
        **{"cameras.camera.topic": "/compressed_image", "cameras.camera.transport": "compressed"},
    )
    node.wait_state("active")
    detections, overlays = node.output(Detection2DArray, "detections"), node.output(Image, "overlay")
    scene = street()
    frame = image_message(bgr(scene))
    for extension, described in ((".jpg", "rgb8; jpeg compressed bgr8"), (".png", "png")):
        _, data = cv2.imencode(extension, bgr(scene))
        frame = image_message(bgr(scene))
        message = CompressedImage(header=frame.header, format=described, data=data.tobytes())
        result = node.process(message, node.output(Image, "instance_map"), "/compressed_image/compressed")
        assert (result.width, result.height, result.header) == (WIDTH // 2, HEIGHT // 2, frame.header)
        small = type(scene)(scene.image, scene.boxes, scene.labels, scene.instance_map[1::2, 1::2])
        assert_same_instances(pixels_of(result), small, iou=0.8)
        stamp = (frame.header.stamp.sec, frame.header.stamp.nanosec)
        found = wait_for(lambda stamp=stamp: detections.of(stamp), "its detections")
        assert len(found.detections) == len(scene.boxes)
        for detection in found.detections:
            # One pixel space: the box is that of its own pixels in the map.
            rows, columns = np.nonzero(pixels_of(result) == int(detection.id))
            centre, box = detection.bbox.center.position, detection.bbox
            assert abs(centre.x - (columns.min() + columns.max() + 1) / 2) < 2
            assert abs(centre.y - (rows.min() + rows.max() + 1) / 2) < 2
            assert abs(box.size_x - (columns.max() + 1 - columns.min())) < 3
        drawn = wait_for(lambda stamp=stamp: overlays.of(stamp), "its overlay")
        assert (drawn.width, drawn.height) == (WIDTH // 2, HEIGHT // 2)
    for extension, described in ((".jpg", "jpeg"), (".png", "png")):
        _, data = cv2.imencode(extension, bgr(scene))
        truncated = CompressedImage(header=frame.header, format=described, data=data.tobytes()[: len(data) // 2])
        node.lose(truncated, "compressed", "/compressed_image/compressed")
    assert node.state() == "active"


def test_two_cameras_have_topics_of_their_own(start_node: Callable[..., NodeProcess], model: object) -> None:
    topics = {"cameras.left.topic": "/two_left", "cameras.right.topic": "/two_right"}
    node = start_node("two", model=model, autostart=True, camera_names=["left", "right"], **topics)
    node.wait_state("active")
    full, empty = bgr(street()), np.full((96, 160, 3), 114, np.uint8)
    left = node.process(image_message(full), node.output(Image, "left/instance_map"), "/two_left")
    right = node.process(image_message(empty), node.output(Image, "right/instance_map"), "/two_right")
    assert (left.width, right.width) == (WIDTH, 160)
    assert pixels_of(left).any()
    assert not pixels_of(right).any()
    wait_for(lambda: node.count("processed", "camera left"), "diagnostics of the left camera")
    wait_for(lambda: node.count("processed", "camera right"), "diagnostics of the right camera")


def test_limits_of_compressed_images_and_bit_depth_follow_the_camera(
    start_node: Callable[..., NodeProcess], model: object
) -> None:
    node = start_node(
        "limited",
        model=model,
        autostart=True,
        camera_names=["jpeg", "wide"],
        overlay_figures=False,
        score_threshold=1.0,
        **{
            "cameras.jpeg.topic": "/limited_jpeg",
            "cameras.jpeg.transport": "compressed",
            "cameras.jpeg.max_image_size": "320x100",
            "cameras.wide.topic": "/limited_wide",
            "cameras.wide.bit_depth": 10,
        },
    )
    node.wait_state("active")
    scene = street()
    frame = image_message(bgr(scene))
    data = cv2.imencode(".png", bgr(scene))[1].tobytes()
    message = CompressedImage(header=frame.header, format="png", data=data)
    node.lose(message, "size", "/limited_jpeg/compressed", "camera jpeg")
    assert "cameras.jpeg.max_image_size is 320x100" in node.values("camera jpeg")["last_fault"]
    (refused,) = node.set(cameras__jpeg__max_image_size="huge")
    assert "expected WIDTHxHEIGHT" in refused.reason
    assert node.set(cameras__jpeg__max_image_size="1920x1080")[0].successful
    node.process(message, node.output(Image, "jpeg/instance_map"), "/limited_jpeg/compressed")

    grey = image_message(np.full((48, 64), 512, np.uint16), "mono16")
    overlays = node.output(Image, "wide/overlay")
    assert abs(np.median(pixels_of(node.process(grey, overlays, "/limited_wide"))) - 128) <= 1
    assert node.set(cameras__wide__bit_depth="16")[0].successful
    grey = image_message(np.full((48, 64), 512, np.uint16), "mono16")
    assert np.median(pixels_of(node.process(grey, overlays, "/limited_wide"))) == 2
    (refused,) = node.set(cameras__wide__bit_depth="17")
    assert "cameras.wide.bit_depth" in refused.reason
    # Ten frames that use few of the bits: a word, once, counted.
    for _ in range(12):
        node.process(image_message(np.full((48, 64), 512, np.uint16), "mono16"), overlays, "/limited_wide")
    wait_for(lambda: node.count("warned_bit_depth", "camera wide") == 1, "the hint is counted")
    node.wait_log("bit depth")
