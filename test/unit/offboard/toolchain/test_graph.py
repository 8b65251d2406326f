"""The view and the editor of graphs: order, names, inner graphs, and that large graphs take time in proportion."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from colour_model import colour_model
from onnx import TensorProto, helper, numpy_helper
from small_graphs import floats, model_of

from seg_perception.offboard.toolchain.graph import (
    GraphView,
    copy_of,
    lift_constants,
    name_nodes,
    prune,
    rename_tensors,
    set_attribute,
    set_nodes,
    sort_nodes,
)
from seg_perception.offboard.toolchain.prepare import prepare


def chain(*names: str) -> list[onnx.NodeProto]:
    """One Relu after the other, each named as the tensor that it makes."""
    return [helper.make_node("Relu", [before], [name], name=name) for before, name in pairwise(("x", *names))]


def graph_of(nodes: list[onnx.NodeProto], *outputs: str) -> onnx.GraphProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", *outputs)]
    return helper.make_graph(nodes, "test", infos[:1], infos[1:])


def with_branches(reads: str) -> onnx.NodeProto:
    """An If whose branches read a tensor of the graph around it and make one called `inner`."""
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Neg", [reads], ["inner"], name="neg")], "branch", [], [output])
    return helper.make_node("If", ["x"], ["chosen"], name="if", then_branch=branch, else_branch=branch)


class TestOrder:
    def test_nodes_that_are_in_order_stay_where_they_are(self):
        graph = graph_of([*chain("a"), *chain("b"), *chain("c")], "c")
        sort_nodes(graph)
        assert [node.name for node in graph.node] == ["a", "b", "c"]

    def test_a_reversed_chain_is_turned_round(self):
        names = [f"n{place}" for place in range(5000)]
        graph = graph_of(chain(*names)[::-1], names[-1])
        sort_nodes(graph)
        assert [node.name for node in graph.node] == names

    def test_what_a_branch_reads_comes_before_its_node(self):
        graph = graph_of([with_branches("a"), *chain("a")], "chosen")
        sort_nodes(graph)
        assert [node.name for node in graph.node] == ["a", "if"]

    def test_a_circle_ends_and_loses_nothing(self):
        nodes = [helper.make_node("Relu", [before], [name], name=name) for before, name in ("ab", "bc", "ca")]
        graph = graph_of([*nodes[::-1], helper.make_node("Relu", ["a"], ["y"], name="y")], "y")
        sort_nodes(graph)
        assert sorted(node.name for node in graph.node) == ["a", "b", "c", "y"]


class TestView:
    def test_a_node_reads_what_the_graphs_within_it_read(self):
        view = GraphView(graph_of([*chain("a"), with_branches("a")], "chosen"))
        assert [node.name for node in view.readers("a")] == ["if"]
        assert [node.name for node in view.ancestors("chosen")] == ["if", "a"]

    def test_constants_are_initializers_and_numeric_constant_nodes(self):
        graph = graph_of(
            [
                helper.make_node("Constant", [], ["tensor"], value=numpy_helper.from_array(floats(2))),
                helper.make_node("Constant", [], ["ints"], value_ints=[3, 4]),
                helper.make_node("Constant", [], ["text"], value_string=b"word"),
                *chain("a"),
            ],
            "a",
        )
        graph.initializer.append(numpy_helper.from_array(np.array([5], np.int64), "filled"))
        view = GraphView(graph)
        arrays = {name: view.array(name) for name in ("tensor", "ints", "filled")}
        assert {name: None if array is None else array.tolist() for name, array in arrays.items()} == {
            "tensor": [1.0, 1.0], "ints": [3, 4], "filled": [5],
        }  # fmt: skip
        assert [view.array(name) for name in ("text", "a", "x", "nothing")] == [None] * 4

    @pytest.mark.parametrize("taken", ["a", "x", "inner", "neg"])
    def test_a_free_name_is_nobodys_not_even_in_a_branch(self, taken: str):
        view = GraphView(graph_of([*chain("a"), with_branches("a")], "chosen"))
        assert view.free_name(taken) == f"{taken}_"
        assert view.free_name(taken) == f"{taken}__"
        assert view.free_name("other") == "other"


class TestEdits:
    def test_a_name_changes_wherever_it_occurs(self):
        graph = graph_of([*chain("a"), with_branches("a")], "chosen")
        rename_tensors(graph, {"a": "b", "inner": "deep"})
        (branch, _) = (item.g for item in graph.node[1].attribute)
        assert graph.node[0].output[0] == branch.node[0].input[0] == "b"
        assert branch.node[0].output[0] == branch.output[0].name == "deep"

    def test_what_no_output_needs_goes_and_what_a_branch_needs_stays(self):
        graph = graph_of([*chain("a"), *chain("unused"), with_branches("a")], "chosen")
        graph.initializer.append(numpy_helper.from_array(floats(1), "idle"))
        prune(graph)
        assert [node.name for node in graph.node] == ["a", "if"]
        assert not graph.initializer

    def test_constants_become_initializers_but_for_those_that_are_kept(self):
        value = numpy_helper.from_array(floats(1))
        nodes = [helper.make_node("Constant", [], [name], name=name, value=value) for name in ("one", "head/two")]
        graph = graph_of([*nodes, *chain("a")], "a")
        lift_constants(graph, keep=lambda node: node.name.startswith("head/"))
        assert [tensor.name for tensor in graph.initializer] == ["one"]
        assert [node.name for node in graph.node] == ["head/two", "a"]

    def test_nodes_get_names_of_their_own(self):
        graph = graph_of([*chain("a"), *chain("a", "b")], "b")
        graph.node[2].name = ""
        name_nodes(graph)
        assert [node.name for node in graph.node] == ["a", "a_", "Relu_2"]

    def test_an_attribute_is_replaced(self):
        node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
        set_attribute(node, "axis", 2)
        assert [(item.name, item.i) for item in node.attribute] == [("axis", 2)]

    def test_a_copy_shares_nothing(self):
        model = model_of(chain("a"), {"x": [1]}, {"a": 1}, {})
        copy = copy_of(model)
        copy.graph.node[0].name = "other"
        assert model.graph.node[0].name == "a"


def behind_a_chain(count: int) -> onnx.ModelProto:
    """The colour model behind `count` nodes that change nothing, written in reverse as some converters do."""
    model = colour_model()
    image = model.graph.input[0].name
    rename_tensors(model.graph, {image: "late"})
    model.graph.input[0].name = image
    names = [image, *(f"chain_{place}" for place in range(count - 1)), "late"]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    nodes = [helper.make_node("Mul", [before, "one"], [name], name=name) for before, name in pairwise(names)]
    set_nodes(model.graph, [*model.graph.node, *reversed(nodes)])
    return model


def prepared_in(folder: Path, count: int) -> float:
    """Processor time of preparing a chain, seconds."""
    source = folder / f"{count}.onnx"
    source.write_bytes(behind_a_chain(count).SerializeToString())
    begin = time.process_time()
    prepare(source, folder / "canonical.onnx")
    seconds = time.process_time() - begin
    names = {node.name for node in onnx.load(folder / "canonical.onnx").graph.node}
    assert {f"chain_{place}" for place in range(count - 1)} <= names
    return seconds


def test_a_graph_of_20000_nodes_is_prepared(tmp_path: Path):
    prepared_in(tmp_path, 20_000)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_graph_of_150000_nodes_takes_time_in_proportion(tmp_path: Path):
    # Of a quadratic step, 7.5 times the nodes would take 56 times the time.
    small = prepared_in(tmp_path, 20_000)
    assert prepared_in(tmp_path, 150_000) < 20 * small
