"""Class tables: those that come with the package, and what is said about malformed ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seg_perception.core import share
from seg_perception.core.class_tables import (
    category_ids,
    class_table_directory,
    find_class_table,
    load_class_table,
    resolve_class_table,
    write_class_table,
)
from seg_perception.core.classes import NO_GROUP, ROAD_GROUPS, ClassTable, name_key
from seg_perception.core.errors import ClassTableError, ConfigurationError

ROOT = Path(__file__).resolve().parents[3]
ANNOTATIONS = ROOT.parent / "shared" / "data" / "coco_dev" / "instances.json"

GOOD = """
name: mine
classes: [car, person, tree]
groups:
  vehicle: [car]
  pedestrian: [person]
"""


@pytest.fixture(autouse=True)
def source_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of this checkout, whatever workspace is sourced."""
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)


def group_names(table: ClassTable, *class_names: str) -> list[str]:
    return ["" if group == NO_GROUP else ROAD_GROUPS[group] for group in table.groups(class_names)]


TABLES = {
    "ade20k": 150, "bdd100k": 10, "cityscapes": 19, "coco": 80, "coco91": 91, "coco_panoptic": 133, "coco_stuff": 171,
    "voc": 21,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), list(TABLES.items()))
def test_the_tables_of_the_package(name, count):
    table = resolve_class_table(name, ())
    assert table.name == name
    assert len(table.class_names) == count
    assert group_names(table, "car", "bus", "bicycle") == ["vehicle"] * 3
    if name not in ("ade20k", "voc"):
        assert group_names(table, "train", "motorcycle") == ["vehicle"] * 2
    if name != "voc":
        assert group_names(table, "traffic light", "Traffic_Light") == ["traffic_light"] * 2


def test_groups_that_are_not_obvious():
    assert group_names(resolve_class_table("coco", ()), "stop sign", "airplane") == ["traffic_sign", ""]
    # What VOC and ADE20K call otherwise, and writing on shops.
    assert group_names(resolve_class_table("voc", ()), "motorbike", "aeroplane", "background") == ["vehicle", "", ""]
    assert group_names(resolve_class_table("ade20k", ()), "minibike", "van", "signboard") == ["vehicle"] * 2 + [""]
    assert group_names(resolve_class_table("coco_stuff", ()), "person", "road") == ["pedestrian", ""]
    assert group_names(resolve_class_table("cityscapes", ()), "rider", "pole") == ["pedestrian", ""]
    assert group_names(resolve_class_table("bdd100k", ()), "rider", "pedestrian") == ["pedestrian"] * 2


@pytest.mark.parametrize("name", TABLES)
def test_auto_finds_the_table_of_the_models_classes(name):
    table = resolve_class_table(name, ())
    assert resolve_class_table("auto", table.class_names) == table


def test_a_model_whose_classes_are_the_road_groups():
    """As the default model's; no data set calls a class `vehicle`."""
    assert group_names(resolve_class_table("auto", ROAD_GROUPS), *ROAD_GROUPS) == list(ROAD_GROUPS)


def test_auto_without_any_known_class():
    with pytest.raises(ClassTableError, match="ade20k, bdd100k, cityscapes, coco"):
        resolve_class_table("auto", ["apfel", "birne"])


def test_a_path_is_a_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    table = resolve_class_table(str(path), ["whatever"])
    assert table == ClassTable("mine", ("car", "person", "tree"), {"car": "vehicle", "person": "pedestrian"})


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ClassTableError, match=", ".join(sorted([*TABLES, "road_groups"])) + "; got 'kitti'"):
        find_class_table("kitti", ())


@pytest.mark.parametrize(("text", "message"), [
    ("", "expected the keys"),
    ("- car", "expected the keys classes, groups, name and optionally ids, stuff, got a list of 1"),
    ("name: [", "is not YAML"),
    ("name: !!python/object/apply:os.getcwd []", "is not YAML"),
    ("name: x", "missing: classes, groups"),
    (GOOD + "colour: red", "unknown: 'colour'"),
    (GOOD.replace("name: mine", "name: 3"), "`name`: expected a word, got a value of type int"),
    (GOOD.replace("[car, person, tree]", "car"), "`classes`: expected a list of class names, got text of 3"),
    (GOOD.replace("tree", "no"), "expected a list of class names, got a value of type bool as entry 3; quote names"),
    (GOOD.replace("[car, person, tree]", "[]"), "expected at least one class name"),
    (GOOD.replace("tree", "Car"), "more than one of 'car'"),
    (GOOD.replace("[person]", "[person, car]"), "more than one of 'car'"),
    (GOOD.replace("vehicle: [car]", "vehicle: car"), "`groups: vehicle`: expected a list"),
    (GOOD.replace("[person]", "[persn]"), "expected names from `classes`, got 'persn'"),
    (GOOD.replace("vehicle", "ship"), "group 'ship', expected one of pedestrian, vehicle"),
    ("name: x\nclasses: [a]\ngroups: [a]", "`groups`: expected a mapping"),
])  # fmt: skip
def test_malformed_tables(tmp_path, text, message):
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(ClassTableError, match=r"table\.yaml") as caught:
        load_class_table(path)
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ClassTableError, match="does not exist"):
        load_class_table(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ClassTableError, match="cannot be read"):
        load_class_table(tmp_path / "folder.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ClassTableError, match="cannot be read"):
        load_class_table(tmp_path / "binary.yaml")


def test_an_empty_group_is_allowed(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "  traffic_sign:\n")
    assert load_class_table(path).name == "mine"


def test_category_ids_follow_the_models_order():
    path = find_class_table("coco", ())
    assert category_ids(path, ["Stop_sign", "person", "toothbrush"]).tolist() == [13, 1, 90]
    ids = category_ids(path, load_class_table(path).class_names)
    assert len(np.unique(ids)) == 80
    assert (np.diff(ids) > 0).all()


@pytest.mark.skipif(not ANNOTATIONS.is_file(), reason="needs ../shared/data/coco_dev")
def test_category_ids_are_those_of_the_annotations():
    path = find_class_table("coco", ())
    categories = json.loads(ANNOTATIONS.read_text())["categories"]
    ids = category_ids(path, [category["name"] for category in categories])
    assert ids.tolist() == [category["id"] for category in categories]


def test_the_tables_of_coco_agree():
    coco, numbered, panoptic = (find_class_table(name, ()) for name in ("coco", "coco91", "coco_panoptic"))
    names = load_class_table(coco).class_names
    # The number of a class is its place in the one table; the other begins with the same classes and adds the stuff.
    assert [load_class_table(numbered).class_names[number] for number in category_ids(coco, names)] == list(names)
    scene = load_class_table(panoptic)
    assert scene.class_names[:80] == names
    assert scene.stuff == {name_key(name) for name in scene.class_names[80:]}
    for path in (numbered, panoptic):
        assert category_ids(path, names).tolist() == category_ids(coco, names).tolist()
        assert load_class_table(path).group_of == load_class_table(coco).group_of
        ids = category_ids(path, load_class_table(path).class_names)
        assert (np.diff(ids) > 0).all()


def test_category_ids_that_are_not_there(tmp_path):
    with pytest.raises(ClassTableError, match="the table has none"):
        category_ids(find_class_table("bdd100k", ()), ["car"])
    with pytest.raises(ClassTableError, match="got none for 'unicorn'"):
        category_ids(find_class_table("coco", ()), ["car", "unicorn"])
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "ids: {car: true}")
    with pytest.raises(ClassTableError, match="mapping from class name to integer"):
        category_ids(path, ["car"])


# Where the package's files are


def make_share(prefix: Path) -> Path:
    folder = prefix / "share" / "seg_perception"
    (folder / "config" / "classes").mkdir(parents=True)
    (folder / "package.xml").write_text("<package/>")
    return folder


def test_a_checkout_is_its_own_share_directory():
    assert share.share_directory() == ROOT
    assert (class_table_directory() / "coco.yaml").is_file()


def test_a_sourced_workspace_comes_first(monkeypatch, tmp_path):
    expected = make_share(tmp_path / "second")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert share.share_directory() == expected


def test_an_installation_without_ros(monkeypatch, tmp_path):
    monkeypatch.setattr(share, "__file__", str(tmp_path / "lib" / "seg_perception" / "core" / "share.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"install/setup\.bash"):
        share.share_directory()
    assert make_share(tmp_path) == share.share_directory()


# Files of strangers, and files that are no class tables


@pytest.mark.parametrize("text", [
    "network={\n  ssid=\"fleet\"\n  psk=\"hunter2\"\n}\n",
    "-----BEGIN PRIVATE KEY-----\nhunter2+hunter2/\n-----END PRIVATE KEY-----\n",
    "root:hunter2:0:0:root:/root:/bin/bash\n",
    "TOKEN=hunter2\tdef: {hunter2\n",
    "user: admin\npassword: hunter2\nhunter2: 1\n",
    "name: hunter2\nclasses: {user: admin, password: hunter2}\ngroups: {}\n",
    "name: x\nclasses: hunter2\ngroups: {}\n",
    "name: [hunter2]\nclasses: [a]\ngroups: {}\n",
    "name: {hunter2: 1}\nclasses: [a]\ngroups: {}\n",
    "name: x\nclasses: [[hunter2]]\ngroups: {}\n",
    "name: x\nclasses: [a]\ngroups: hunter2\n",
    "name: x\nclasses: [a]\ngroups: {vehicle: hunter2}\n",
    "name: x\nclasses: [a]\ngroups: {vehicle: [{hunter2: 1}]}\n",
    "name: x\nclasses: [a]\ngroups: {}\nstuff: hunter2\n",
])  # fmt: skip
def test_a_file_that_is_no_class_table_is_not_quoted(tmp_path: Path, text: str) -> None:
    """A parameter may name any file of the vehicle, and whoever sets it is told the error."""
    for name in ("secret.yaml", "secret.yml", "secret", "secret.conf"):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ClassTableError) as caught:
            resolve_class_table(str(path), ())
        assert "hunter2" not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "/dev/zero", "/dev/stdin", "./Makefile"])
def test_only_yaml_files_are_opened(path: str) -> None:
    with pytest.raises(ClassTableError, match=r"is not read: expected a file \.yaml or \.yml"):
        resolve_class_table(path, ())


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\x1b[2J", "\ud800", "~nobody_here/x.yaml", "x" * 5000 + ".yaml"])
def test_an_odd_name_is_an_error_of_ours(name: str) -> None:
    with pytest.raises(ClassTableError):
        resolve_class_table(name, ())


@pytest.mark.parametrize(("name", "message"), [
    ('"a\\0b"', "class 3: expected a name without control characters, got a\\x00b"),
    ('"\\e[31mred"', "got \\x1b[31mred"),
    ('"x\\ny"', "got x\\x0ay"),
    ('"\\u202etxt"', "got \\u202etxt"),
    ('" "', "class 3: expected a name, got one that is empty"),
    ("''", "class 3: expected a name, got one that is empty"),
    ("x" * 201, "expected a name of at most 200 characters, got 201"),
])  # fmt: skip
def test_names_that_no_message_could_carry(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(GOOD.replace("tree]", f"tree, {name}]"))
    with pytest.raises(ClassTableError) as caught:
        load_class_table(path)
    assert message in str(caught.value)


def test_a_large_table_is_read_and_one_without_end_is_not(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    names = ", ".join(f"class {number}" for number in range(20_000))
    path.write_text(f"name: large\nclasses: [{names}]\ngroups: {{vehicle: [{names}]}}\n")
    assert len(load_class_table(path).class_names) == 20_000
    path.write_text(f"name: large\nclasses: [{', '.join(map(repr, map(str, range(30_000))))}]\ngroups: {{}}\n")
    with pytest.raises(ClassTableError, match="expected at most 25000 classes, got 30000"):
        load_class_table(path)


def test_an_error_names_some_of_many(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(GOOD.replace("[car]", "[" + ", ".join(f"x{number}" for number in range(100)) + "]"))
    with pytest.raises(ClassTableError, match=r"got 'x0', 'x1', .*'x7' and 92 more; config"):
        load_class_table(path)


def test_numbers_of_classes_that_no_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + f"ids: {{car: {1 << 63}}}")
    with pytest.raises(ClassTableError, match="mapping from class name to integer"):
        category_ids(path, ["car"])


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800", "models/" + "y" * 300])
def test_a_model_of_an_odd_name_is_just_not_there(name: str) -> None:
    assert share.find_model(name) == Path(name)


def test_a_home_of_nobody() -> None:
    with pytest.raises(ConfigurationError, match="no home folder of that user"):
        share.find_model("~nobody_here/model.onnx")


def test_a_table_of_a_models_own_classes_is_written_to_be_edited(tmp_path: Path):
    path, names = tmp_path / "mine.yaml", ["Car", "no", "road", "Person", "traffic light", "größe"]
    table = write_class_table(path, names, ["road"])
    assert (table.name, table.class_names) == ("mine", tuple(names))
    assert group_names(table, *names) == ["vehicle", "", "", "pedestrian", "traffic_light", ""]
    assert table.stuff == {"road"}
    path.write_text(path.read_text().replace("traffic_sign: []", "traffic_sign: ['no']"))
    assert group_names(load_class_table(path), "no") == ["traffic_sign"]


def test_a_table_of_classes_that_nobody_knows_has_empty_groups(tmp_path: Path):
    table = write_class_table(tmp_path / "fruit.yaml", ["apfel", "birne"])
    assert (table.class_names, table.group_of) == (("apfel", "birne"), {})


@pytest.mark.parametrize(("name", "classes", "message"), [
    ("mine.yaml", ["car"], "exists and is not overwritten"),
    ("mine.json", ["car"], "expected a file .yaml"),
    ("new.yaml", ["car", "CAR"], "more than one of 'car'"),
    ("new.yaml", ["car", ""], "expected a name, got one that is empty"),
    ("none/new.yaml", ["car"], "cannot be written"),
])  # fmt: skip
def test_tables_that_are_not_written(tmp_path: Path, name: str, classes: list[str], message: str):
    (tmp_path / "mine.yaml").write_text(GOOD)
    with pytest.raises(ClassTableError, match=message):
        write_class_table(tmp_path / name, classes)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]
    assert (tmp_path / "mine.yaml").read_text() == GOOD
