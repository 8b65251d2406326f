"""Each check of `seg_perception doctor`, with facts made up for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from colour_model import save_canonical_colour_model

from seg_perception.cli.main import main
from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.core.share import find_model
from seg_perception.core.text import is_printable
from seg_perception.onboard.doctor import dds, gpu, machine, packages, ros
from seg_perception.onboard.doctor.cameras import check_cameras, near_names
from seg_perception.onboard.doctor.examine import examine
from seg_perception.onboard.doctor.finding import Finding, Level, failed
from seg_perception.onboard.doctor.graph import ImageStream, Publisher, RosGraph
from seg_perception.onboard.doctor.model import ask_model, check_classes, check_model
from seg_perception.onboard.doctor.settings import NodeSettings, full_name, read_settings
from seg_perception.onboard.doctor.surroundings import Ran, Surroundings, run_program

ROOT = Path(__file__).resolve().parents[4]
PROFILE = ROOT / "config" / "fastdds.xml"
ABSENT = Ran(1, "", "Traceback\nModuleNotFoundError: No module named 'it'")
NO_BRIDGE = Ran(1, "", "ModuleNotFoundError: No module named 'cv_bridge'")
IMAGE = "sensor_msgs/msg/Image"


def around(
    tmp_path: Path, files: Mapping[str, str] = {}, programs: Mapping[str, Ran] = {}, **environment: str
) -> Surroundings:
    """A machine with files, and programs by name that answer."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name in programs:
        (folder / name).touch(mode=0o755)

    def run(command: Sequence[str]) -> Ran:
        return programs[command[0]]

    return Surroundings(tmp_path, {"PATH": str(folder), **environment}, run)


def levels(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.check: finding.level.value for finding in findings}


# Packages


def answers(**changed: Ran) -> dict[str, Ran]:
    return {name: changed.get(name, Ran(0, "1.2.3\n", "")) for name in packages.QUESTIONS}


def test_packages_that_all_work() -> None:
    assert set(levels(packages.check_packages(answers(), engine=False, ros=True)).values()) == {"OK"}


def test_a_missing_package_fails_and_names_the_remedy() -> None:
    findings = packages.check_packages(answers(opencv=ABSENT, onnx=ABSENT), engine=False, ros=True)
    broken = next(finding for finding in findings if finding.check == "opencv")
    assert (broken.level, "No module named" in broken.found) == (Level.FAIL, True)
    assert "pip install opencv-python" in broken.advice
    assert levels(findings)["onnx"] == "SKIPPED"


@pytest.mark.parametrize(("engine", "expected"), [(False, "FAIL"), (True, "SKIPPED")])
def test_one_cpu_backend_is_enough_and_an_engine_needs_none(engine: bool, expected: str) -> None:
    one = packages.check_packages(answers(openvino=ABSENT), engine, ros=True)
    none = packages.check_packages(answers(openvino=ABSENT, onnxruntime=ABSENT), engine, ros=True)
    assert (levels(one)["CPU backend"], levels(none)["CPU backend"]) == ("OK", expected)


def test_without_ros_its_packages_are_skipped_and_with_it_they_must_work() -> None:
    given = answers(rclpy=ABSENT, messages=ABSENT, cv_bridge=NO_BRIDGE)
    without = levels(packages.check_packages(given, engine=False, ros=False))
    broken = levels(packages.check_packages(given, engine=False, ros=True))
    assert [without[name] for name in ("rclpy", "messages", "cv_bridge")] == ["SKIPPED"] * 3
    assert [broken[name] for name in ("rclpy", "messages", "cv_bridge")] == ["FAIL", "FAIL", "SKIPPED"]


def test_packages_built_for_another_numpy_are_told_from_missing_ones() -> None:
    text = "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1\n...\nImportError: multiarray failed"
    crash = Ran(-11, "", "AttributeError: _ARRAY_API not found")
    findings = packages.check_packages(answers(messages=Ran(1, "", text), cv_bridge=crash), engine=False, ros=True)
    shown = {finding.check: finding for finding in findings}
    assert (shown["messages"].level, shown["cv_bridge"].level) == (Level.FAIL, Level.WARN)
    assert "numpy<2" in shown["messages"].advice
    assert "SIGSEGV" in shown["cv_bridge"].found
    assert "numpy<2" in shown["cv_bridge"].advice


def test_programs_that_fail_hang_or_are_absent_have_a_reason() -> None:
    assert run_program(["sh", "-c", "echo fine"]).out == "fine\n"
    assert "SIGKILL" in run_program(["sh", "-c", "kill -9 $$"]).reason
    assert "did not end within 0.2 s" in run_program(["sleep", "9"], 0.2).reason
    assert "No such file" in run_program(["/no/such/program"]).reason


# ROS


GRAPH = RosGraph("rmw_fastrtps_cpp", {}, 0, (), 3.0)
SHARED = "transport/shared_memory/enabled=true"


@pytest.mark.parametrize(
    ("environment", "version", "expected"),
    [
        ({"ROS_DISTRO": "jazzy"}, "7.1.6", ["OK", "OK", "OK"]),
        ({}, "9.1.2", ["OK", "OK", "OK"]),
        ({"ROS_DISTRO": "humble"}, "3.3.15", ["OK", "OK", "OK"]),
        ({"ROS_DISTRO": "lyrical"}, "10.0.10", ["OK", "OK", "OK"]),
        ({}, "10.0.10", ["OK", "OK", "OK"]),
        ({"ROS_DISTRO": "lyrical"}, "9.1.2", ["WARN", "OK", "OK"]),
        ({"ROS_DISTRO": "jazzy"}, "9.1.2", ["WARN", "OK", "OK"]),
        ({"ROS_DISTRO": "jazzy"}, "of unknown version", ["OK", "OK", "OK"]),
        ({"ROS_DISTRO": "rolling"}, "11.0.0", ["WARN", "OK", "OK"]),
        ({"ROS_DOMAIN_ID": "101", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, "9.1.2", ["OK", "OK", "OK"]),
        ({"ROS_DOMAIN_ID": "150"}, "9.1.2", ["OK", "OK", "WARN"]),
        ({"ROS_DOMAIN_ID": "233"}, "9.1.2", ["OK", "OK", "FAIL"]),
        ({"ROS_DOMAIN_ID": "one"}, "9.1.2", ["OK", "OK", "FAIL"]),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "9.1.2", ["OK", "OK", "FAIL"]),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhost"}, "9.1.2", ["OK", "OK", "WARN"]),
        ({}, "", ["SKIPPED", "SKIPPED", "SKIPPED"]),
    ],
)
def test_distribution_middleware_and_discovery(
    environment: dict[str, str], version: str, expected: list[str], tmp_path: Path
) -> None:
    findings = ros.check_ros(around(tmp_path, **environment), version, GRAPH, "")
    assert [finding.level.value for finding in findings] == expected


def test_a_middleware_that_does_not_load_fails_with_its_name(tmp_path: Path) -> None:
    host = around(tmp_path, RMW_IMPLEMENTATION="rmw_made_up_cpp")
    finding = ros.check_ros(host, "9.1.2", None, "cannot load library")[1]
    assert finding.level is Level.FAIL
    assert "rmw_made_up_cpp" in finding.found
    assert "cannot load library" in finding.found


# DDS


def test_the_profile_of_the_package_is_enough_for_its_largest_image() -> None:
    transport = dds.shared_memory(PROFILE)
    assert transport is not None
    assert transport.message >= 3840 * 2160 * 3 + dds.MESSAGE_BYTES
    assert transport.segment >= dds.SEGMENT_IMAGES * 3840 * 2160 * 3


@pytest.mark.parametrize(
    ("distribution", "environment", "image", "expected"),
    [
        ("kilted", {}, 0, "WARN"),
        ("lyrical", {"FASTDDS_DEFAULT_PROFILES_FILE": "PROFILE"}, 0, "OK"),
        ("kilted", {"FASTDDS_DEFAULT_PROFILES_FILE": "PROFILE"}, 0, "OK"),
        ("kilted", {"FASTRTPS_DEFAULT_PROFILES_FILE": "PROFILE"}, 0, "OK"),
        ("jazzy", {"FASTRTPS_DEFAULT_PROFILES_FILE": "PROFILE"}, 0, "OK"),
        ("jazzy", {"FASTDDS_DEFAULT_PROFILES_FILE": "PROFILE"}, 0, "WARN"),
        ("jazzy", {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, 0, "OK"),
        ("kilted", {"FASTDDS_DEFAULT_PROFILES_FILE": "PROFILE"}, 50_000_000, "WARN"),
        ("kilted", {"FASTDDS_DEFAULT_PROFILES_FILE": "/no/such.xml"}, 0, "FAIL"),
        ("kilted", {"FASTDDS_DEFAULT_PROFILES_FILE": "BROKEN"}, 0, "FAIL"),
        ("kilted", {"FASTDDS_DEFAULT_PROFILES_FILE": "ODD"}, 0, "FAIL"),
        ("kilted", {"FASTDDS_DEFAULT_PROFILES_FILE": "PLAIN"}, 0, "WARN"),
    ],
)
def test_profile(distribution: str, environment: dict[str, str], image: int, expected: str, tmp_path: Path) -> None:
    # Well-formed, but its transport is for participants that ask for it by name.
    (tmp_path / "plain.xml").write_text(PROFILE.read_text().replace('is_default_profile="true"', ""))
    (tmp_path / "broken.xml").write_text("<profiles>")
    (tmp_path / "odd.xml").write_text(PROFILE.read_text().replace("134217728", "128 MiB"))
    places = {"PROFILE": str(PROFILE), "PLAIN": str(tmp_path / "plain.xml"), "BROKEN": str(tmp_path / "broken.xml")}
    places["ODD"] = str(tmp_path / "odd.xml")
    given = {name: places.get(value, value) for name, value in environment.items()}
    finding, _ = dds.check_profile(around(tmp_path, **given), distribution, image)
    assert finding.level.value == expected, finding
    assert finding.advice or expected == "OK"


@pytest.mark.parametrize(
    ("buffer", "fragments", "shared", "expected"),
    [
        ("212992", "4194304", False, "WARN"),
        ("212992", "4194304", True, "OK"),
        ("67108864", "134217728", False, "OK"),
        ("67108864", "4194304", False, "WARN"),
    ],
)
def test_socket_limits(buffer: str, fragments: str, shared: bool, expected: str, tmp_path: Path) -> None:
    files = {
        "proc/sys/net/core/rmem_max": buffer,
        "proc/sys/net/ipv4/ipfrag_high_thresh": fragments,
        "proc/sys/net/ipv4/ipfrag_time": "30",
    }
    environment = {"FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)} if shared else {}
    found = dds.check_dds(around(tmp_path, files, **environment), "kilted", "rmw_fastrtps_cpp", 0)[-1]
    assert (found.check, found.level.value) == ("sockets", expected)
    assert found.facts["rmem_max"] == int(buffer)


def test_shared_memory_that_is_too_small_or_absent(tmp_path: Path) -> None:
    host = around(tmp_path)
    assert dds.check_shared_memory(host, None).level is Level.WARN
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    assert dds.check_shared_memory(host, dds.Transport(1 << 20, 1 << 20)).level is Level.OK
    full = dds.check_shared_memory(host, dds.Transport(1 << 60, 1 << 20))
    assert full.level is Level.FAIL
    assert "--shm-size" in full.advice


def test_other_middlewares_and_none(tmp_path: Path) -> None:
    host = around(tmp_path)
    assert levels(dds.check_dds(host, "jazzy", "", 0)) == {"profile": "SKIPPED", "sockets": "SKIPPED"}
    assert levels(dds.check_dds(host, "jazzy", "rmw_cyclonedds_cpp", 0))["profile"] == "WARN"


@pytest.mark.parametrize(
    ("environment", "image_bytes", "expected"),
    [
        ({}, 0, "WARN"),
        ({"ZENOH_SHM_ALLOC_SIZE": "99999999"}, 0, "WARN"),
        ({"ZENOH_CONFIG_OVERRIDE": SHARED}, 0, "OK"),
        ({"ZENOH_CONFIG_OVERRIDE": SHARED}, 25_000_000, "WARN"),
        ({"ZENOH_CONFIG_OVERRIDE": SHARED, "ZENOH_SHM_ALLOC_SIZE": "999999"}, 0, "WARN"),
        ({"ZENOH_CONFIG_OVERRIDE": SHARED, "ZENOH_SHM_ALLOC_SIZE": "99999999"}, 0, "OK"),
        ({"ZENOH_CONFIG_OVERRIDE": f"mode=peer; {SHARED}", "ZENOH_SHM_ALLOC_SIZE": "99999999"}, 0, "OK"),
        ({"ZENOH_CONFIG_OVERRIDE": SHARED, "ZENOH_SHM_ALLOC_SIZE": "99999999"}, 25_000_000, "WARN"),
        ({"ZENOH_CONFIG_OVERRIDE": SHARED, "ZENOH_SHM_ALLOC_SIZE": "much"}, 0, "WARN"),
        ({"ZENOH_SESSION_CONFIG_URI": "/my/zenoh.json5"}, 0, "SKIPPED"),
    ],
)
def test_zenoh_needs_shared_memory_for_images(
    environment: dict[str, str], image_bytes: int, expected: str, tmp_path: Path
) -> None:
    finding = dds.check_dds(around(tmp_path, **environment), "lyrical", "rmw_zenoh_cpp", image_bytes)[0]
    assert (finding.check, finding.level.value) == ("profile", expected)
    assert ("ZENOH_SHM_ALLOC_SIZE=" in finding.advice) == (expected == "WARN")


# The machine


@pytest.mark.parametrize(
    ("governor", "driver", "expected"),
    [
        ("performance", "acpi-cpufreq", "OK"),
        ("schedutil", "tegra194", "OK"),
        ("powersave", "acpi-cpufreq", "WARN"),
        ("powersave", "intel_pstate", "OK"),
        (None, "", "SKIPPED"),
    ],
)
def test_governor(governor: str | None, driver: str, expected: str, tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    files = {f"{folder}/scaling_governor": governor, f"{folder}/scaling_driver": driver} if governor else {}
    assert machine.check_governor(around(tmp_path, files)).level.value == expected


def test_power_mode(tmp_path: Path) -> None:
    def mode(text: str, code: int = 0) -> str:
        return machine.check_power_mode(around(tmp_path, {}, {"nvpmodel": Ran(code, text, "")})).level.value

    assert mode("NV Power Mode: MAXN_SUPER\n2\n") == "OK"
    assert mode("NV Power Mode: 15W\n0\n") == "WARN"
    assert mode("", 1) == "SKIPPED"
    supply = "sys/class/power_supply/AC"
    (tmp_path / "laptop").mkdir()
    laptop = around(tmp_path / "laptop", {f"{supply}/type": "Mains", f"{supply}/online": "0"})
    assert machine.check_power_mode(laptop).level is Level.WARN


@pytest.mark.parametrize(("said", "code", "expected"), [("yes", 0, "OK"), ("no", 0, "WARN"), ("", 1, "SKIPPED")])
def test_time(said: str, code: int, expected: str, tmp_path: Path) -> None:
    found = machine.check_time(around(tmp_path, {}, {"timedatectl": Ran(code, f"{said}\n", "no bus")}))
    assert found.level.value == expected


def test_disks(tmp_path: Path) -> None:
    findings = machine.check_disks(around(tmp_path, HOME=str(tmp_path / "nobody")))
    assert [finding.check for finding in findings] == ["disk for cache", "disk for logs"]
    assert all("GiB free" in finding.found for finding in findings)


# The GPU


def gpu_answers(**changed: Ran) -> dict[str, Ran]:
    given = {"tensorrt": "10.3.0", "tensorrt-rtx": "1.4.0", "pycuda": "2026.1", "NVRTC": "12.6", "nvcc": "12.6"}
    return {name: changed.get(name.replace("-", "_"), Ran(0, text, "")) for name, text in given.items()}


def found_gpu() -> gpu.Gpu:
    return gpu.Gpu("Orin (sm_87)", (12, 6))


def no_gpu() -> gpu.Gpu:
    raise BackendUnavailable("no NVIDIA driver on this machine")


def test_a_machine_that_has_all_for_engines() -> None:
    assert set(levels(gpu.check_gpu(gpu_answers(), "tensorrt", found_gpu)).values()) == {"OK"}


def test_without_a_gpu_only_an_engine_makes_it_fail() -> None:
    given = dict.fromkeys(gpu.QUESTIONS, ABSENT)
    assert set(levels(gpu.check_gpu(given, "", no_gpu)).values()) == {"SKIPPED"}
    needed = levels(gpu.check_gpu(given, "tensorrt", no_gpu))
    assert (needed["driver"], needed["tensorrt"], needed["tensorrt-rtx"]) == ("FAIL", "FAIL", "SKIPPED")


@pytest.mark.parametrize(
    ("nvrtc", "nvcc", "flavour", "expected"),
    [
        ("13.0", "12.6", "tensorrt", "OK"),
        ("13.0", "", "tensorrt", "FAIL"),
        ("13.0", "", "", "WARN"),
        ("", "", "tensorrt", "FAIL"),
        ("12.9", "", "tensorrt", "OK"),
        ("11.8", "", "tensorrt", "OK"),
    ],
)
def test_the_kernels_compiler_must_not_be_later_than_the_driver(
    nvrtc: str, nvcc: str, flavour: str, expected: str
) -> None:
    given = gpu_answers(NVRTC=Ran(0, nvrtc, "") if nvrtc else ABSENT, nvcc=Ran(0, nvcc, "") if nvcc else ABSENT)
    found = gpu.check_gpu(given, flavour, found_gpu)[-1]
    assert found.level.value == expected
    assert expected == "OK" or "cuda-bindings<13" in found.advice


# The model


def test_a_model_of_the_user_s_is_opened(tmp_path: Path) -> None:
    save_canonical_colour_model(tmp_path / "mine.onnx")
    findings = check_model(tmp_path / "mine.onnx", "onnxruntime", "auto")
    assert levels(findings) == {"model": "OK", "classes": "OK"}
    assert "onnxruntime" in findings[0].found


def test_the_default_model_is_to_start_with() -> None:
    findings = check_model(find_model("street-nano.onnx"), "", "auto")
    assert levels(findings) == {"model": "WARN", "classes": "OK"}


def test_the_model_is_opened_in_a_process_of_its_own(tmp_path: Path) -> None:
    save_canonical_colour_model(tmp_path / "it's mine.onnx")
    findings = ask_model(Surroundings(), tmp_path / "it's mine.onnx", "onnxruntime", "auto")
    assert findings == check_model(tmp_path / "it's mine.onnx", "onnxruntime", "auto")
    crashes = Surroundings(run=lambda command: Ran(-11, "", "CUDA error"))
    (crashed,) = ask_model(crashes, tmp_path / "mine.onnx", "", "auto")
    assert (crashed.level, "SIGSEGV" in crashed.found) == (Level.FAIL, True)


def test_models_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    (tmp_path / "lonely.engine").write_bytes(b"ftrt")
    for name in ("broken.onnx", "lonely.engine", "absent.onnx", "absent.engine"):
        findings = check_model(tmp_path / name, "", "auto")
        assert levels(findings) == {"model": "FAIL", "classes": "SKIPPED"}
        assert name in findings[0].found


def test_classes_that_the_table_does_not_know() -> None:
    names = ["person", "car", "traffic light", "stop sign"]
    assert check_classes(names, "coco").level is Level.OK
    partly = check_classes(names[:2], "coco")
    assert (partly.level, "traffic_sign" in partly.found) == (Level.WARN, True)
    assert check_classes(["banana"], "coco").level is Level.FAIL
    assert check_classes(["ghost"], "auto").level is Level.FAIL


def test_settings_of_a_parameter_file(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("""
/ns/segmenter:
  ros__parameters:
    model: road.onnx
    use_sim_time: true
    camera_names: [front, left, rear]
    cameras.front.topic: lens/image
    cameras.left.transport: compressed
    cameras.rear.enabled: false
""")
    topics = ("/lens/image", "/left/image_raw/compressed")
    assert read_settings(path) == NodeSettings("road.onnx", "", "auto", topics, True)
    assert read_settings(None).model == "street-nano.onnx"
    assert full_name("image_raw") == full_name("/image_raw") == "/image_raw"
    for text in ("a: 1", "a: [", "- 3"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"node\.yaml"):
            read_settings(path)


# Cameras


STREAM = ImageStream(
    "/front/image_raw",
    IMAGE,
    (Publisher("/driver", "RELIABLE", "VOLATILE", 5),),
    infos=1,
    frames=60,
    hz=20.0,
    width=1920,
    height=1080,
    step=5760,
    encoding="bgr8",
    size=6_220_900,
    frame_id="front",
    stamp=1.8e9,
    ages=(0.01, 0.02, 0.05),
)


def judge(stream: ImageStream, simulated: bool = False, clocks: int = 0, named: bool = True) -> list[Finding]:
    known = {"/front/image_raw": (IMAGE,), "/rear/image_raw": (IMAGE,), "/speed": ("std_msgs/msg/Float32",)}
    graph = RosGraph("rmw_fastrtps_cpp", known, clocks, (stream,), 3.0)
    # As it comes from the other process.
    graph = RosGraph.from_json(json.loads(json.dumps(graph.as_json())))
    return check_cameras(graph, "", (stream.topic,) if named else (), simulated)


def test_a_camera_that_is_as_it_should_be() -> None:
    clock, images, stamps = judge(STREAM)
    assert levels([clock, images, stamps]) == {
        "/clock": "OK",
        "/front/image_raw": "OK",
        "/front/image_raw stamps": "OK",
    }
    assert images.found == "20.0 Hz, 1920x1080 bgr8, 6.22 MB, from /driver (reliable, volatile, depth 5)"
    assert (images.facts["hz"], images.facts["size"]) == (20.0, 6_220_900)
    assert "20 ms" in stamps.found


@pytest.mark.parametrize(
    ("stream", "expected", "words"),
    [
        (ImageStream("/fromt/image_raw"), "FAIL", "did you mean /front/image_raw"),
        (ImageStream("/front"), "FAIL", "did you mean /front/image_raw"),
        (ImageStream("/speed", "std_msgs/msg/Float32"), "FAIL", "is of type std_msgs/msg/Float32"),
        (replace(STREAM, frames=0), "FAIL", "nothing came within 3 s"),
        (replace(STREAM, fault="image encoding: 'plaid'"), "FAIL", "plaid"),
        (ImageStream("/v", "foxglove_msgs/msg/CompressedVideo"), "OK", "packets of video"),
        (ImageStream("/v", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"), "OK", "packets of video"),
        (replace(STREAM, missed=40), "WARN", "40 of 100 frames were lost"),
        (replace(STREAM, missed=2), "OK", "20.0 Hz"),
        (replace(STREAM, publishers=STREAM.publishers * 2), "WARN", "several publishers"),
    ],
)
def test_cameras_whose_images_do_not_come(stream: ImageStream, expected: str, words: str) -> None:
    finding = judge(stream)[1]
    assert finding.level.value == expected
    assert words in f"{finding.found} {finding.advice}"


def test_a_topic_that_was_merely_found_does_not_fail() -> None:
    assert judge(replace(STREAM, frames=0), named=False)[1].level is Level.WARN


@pytest.mark.parametrize(
    ("stamp", "age", "on_clock", "simulated", "expected", "words"),
    [
        (1.8e9, -3.0, None, False, "WARN", "3.0 s in the future"),
        (1.8e9, 4.0, None, False, "WARN", "4.0 s old"),
        (60.0, 1.8e9, None, False, "WARN", "another epoch"),
        (60.0, 1.8e9, 0.1, False, "WARN", "use_sim_time:=true"),
        (60.0, 1.8e9, 0.1, True, "OK", "100 ms"),
        (0.0, 1.8e9, None, False, "WARN", "zero"),
    ],
)
def test_stamps(stamp: float, age: float, on_clock: float | None, simulated: bool, expected: str, words: str) -> None:
    stream = replace(STREAM, stamp=stamp, ages=(age, age, age), simulated_age=on_clock)
    finding = judge(stream, simulated, clocks=int(on_clock is not None))[2]
    assert finding.level.value == expected
    assert words in f"{finding.found} {finding.advice}"


@pytest.mark.parametrize(
    ("simulated", "clocks", "expected"),
    [(False, 0, "OK"), (True, 1, "OK"), (True, 0, "FAIL"), (False, 1, "WARN"), (True, 2, "WARN")],
)
def test_simulated_time(simulated: bool, clocks: int, expected: str) -> None:
    assert judge(STREAM, simulated, clocks)[0].level.value == expected


def test_no_cameras_and_no_ros() -> None:
    assert levels(check_cameras(GRAPH, "", (), False)) == {"/clock": "OK", "topics": "WARN"}
    assert levels(check_cameras(None, "no rclpy", (), False)) == {"topics": "SKIPPED"}
    assert levels(check_cameras(None, "no rclpy", ("/image_raw",), False)) == {"topics": "FAIL"}


def test_near_names() -> None:
    known = ["/front/image_raw", "/front/image_raw/compressed", "/rear/image_raw", "/speed"]
    assert near_names("/ns/front/image_raw", known)[0] == "/front/image_raw"
    assert near_names("/front/image_rwa", known)[0] == "/front/image_raw"
    assert near_names("/front/image", known)[0] == "/front/image_raw"
    assert near_names("/quite/another", known) == []


# All of it


def test_nothing_at_all_is_a_report_and_not_a_crash(tmp_path: Path) -> None:
    """A machine where no program runs: no packages, no ROS, no GPU."""

    def look(topics: Sequence[str]) -> RosGraph:
        raise AssertionError("nobody asks without rclpy")

    bare = Surroundings(tmp_path, {"PATH": ""}, lambda command: ABSENT)
    findings = examine(NodeSettings(model=str(tmp_path / "absent.onnx")), bare, look, lambda step: None)
    assert failed(findings)
    assert {finding.group for finding in findings} == {"python", "ros", "dds", "machine", "gpu", "model", "cameras"}
    for finding in findings:
        assert finding.found
        assert finding.advice or finding.level is not Level.FAIL or finding.group == "model"


def test_a_model_by_name_that_was_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEG_PERCEPTION_HOME", str(tmp_path))
    bare = Surroundings(tmp_path, {"PATH": ""}, lambda command: ABSENT)
    settings = NodeSettings(model="rfdetr-seg-nano")
    findings = examine(settings, bare, lambda topics: pytest.fail("nobody asks"), lambda step: None)
    told = [finding for finding in findings if finding.group == "model"]
    assert [finding.level for finding in told] == [Level.FAIL]
    assert "seg_perception fetch rfdetr-seg-nano" in told[0].found


def test_wrong_usage_ends_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--params", "/no/such.yaml"]) == 1
    assert "/no/such.yaml" in capsys.readouterr().err
    for arguments in (["--seconds", "0"], ["--seconds", "soon"]):
        with pytest.raises(SystemExit, match="2"):
            main(["doctor", *arguments])


def test_what_strangers_chose_is_printed_escaped_and_bounded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "/image_raw\n[FATAL] brakes \x1b[2J\x1b]0;owned\x07"
    publisher = Publisher(evil, evil, evil)
    ages = (0.0, 0.0, 0.0)
    stream = ImageStream(evil, IMAGE, (publisher,) * 1000, 1, 10, 0, 5.0, 4, 4, 12, evil, 48, evil, 1.0, ages)
    graph = RosGraph(evil, {evil: (IMAGE,)}, 0, (stream, replace(stream, kind=evil), ImageStream("/absent")), 3.0)
    findings = check_cameras(graph, "", [evil], False)
    monkeypatch.setattr("seg_perception.onboard.doctor.examine.examine", lambda *_: findings)
    main(["doctor"])
    shown = capsys.readouterr().out
    assert all(is_printable(line) for line in shown.splitlines())
    assert not any(line.strip().startswith("[FATAL]") for line in shown.splitlines())
    assert "\\x1b]0;owned\\x07" in shown
    assert "and 992 more" in shown
    assert len(shown) < 30_000


def test_the_findings_of_a_model_are_the_last_ones_that_are_printed(tmp_path: Path) -> None:
    told = json.dumps([Finding("model", "model", Level.OK, "really").as_json()])
    forged = json.dumps([Finding("model", "model", Level.OK, "forged").as_json()])
    machine = Surroundings(tmp_path, {}, lambda _: Ran(0, f"findings: {forged}\nfindings: {told}\n", ""))
    assert [finding.found for finding in ask_model(machine, tmp_path, "", "")] == ["really"]
