"""ONNX files of strangers: a network that does not predict each view by itself is refused."""
import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import config
from evaluation.predictor import load_onnx
from predict import interpret
from utils import InputError

SIDE, COUNT = 32, 4
FACTS = {"format": 5, "classes": [{"latin": f"Rosa {letter}"} for letter in "abcd"],
         "image_size": SIDE, "crop": 0.875, "interpolation": "lanczos", "temperature": 1.0,
         "flip_tta": False, "out_of_distribution_threshold": None, "answers": None, "unknown": None}
WEIGHTS = {"axes": [1, 2, 3], "batch": [0], "column": [-1, 1], "one": [1, 1],
           "repeats": [1, COUNT + 1], "wider": [1, COUNT + 2]}
MEAN = (("Cast", ["views"], "pixels", {"to": TensorProto.FLOAT}),
        ("ReduceMean", ["pixels", "axes"], "mean", {"keepdims": 0}))
TILED = (*MEAN, ("Reshape", ["mean", "column"], "rows", {}))
NETWORKS = {  # name: (nodes, type of the outputs)
    "sound": ((*TILED, ("Tile", ["rows", "repeats"], "outputs", {})), TensorProto.FLOAT),
    "average of all": ((*TILED, ("Tile", ["rows", "repeats"], "tiled", {}),
                        ("ReduceMean", ["tiled", "batch"], "outputs", {"keepdims": 1})),
                       TensorProto.FLOAT),
    "mixed": ((*TILED, ("Tile", ["rows", "repeats"], "tiled", {}),
               ("ReduceMean", ["tiled", "batch"], "average", {"keepdims": 1}),
               ("Sub", ["tiled", "average"], "outputs", {})), TensorProto.FLOAT),
    "one row": ((*MEAN, ("Reshape", ["mean", "one"], "rows", {}),
                 ("Tile", ["rows", "repeats"], "outputs", {})), TensorProto.FLOAT),
    "strings": ((*TILED, ("Tile", ["rows", "repeats"], "tiled", {}),
                 ("Cast", ["tiled"], "outputs", {"to": TensorProto.STRING})), TensorProto.STRING),
    "whole numbers": ((*TILED, ("Tile", ["rows", "repeats"], "tiled", {}),
                       ("Cast", ["tiled"], "outputs", {"to": TensorProto.INT64})),
                      TensorProto.INT64)}


def write(path, name, **facts):
    """Write a network of NETWORKS with the metadata of export.py; return its path."""
    nodes, kind = NETWORKS[name]
    weights = [helper.make_tensor(key, TensorProto.INT64, [len(value)], value)
               for key, value in WEIGHTS.items()]
    graph = helper.make_graph(
        [helper.make_node(node, inputs, [output], **more) for node, inputs, output, more in nodes],
        "network", [helper.make_tensor_value_info("views", TensorProto.UINT8,
                                                  ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("outputs", kind, ["batch", COUNT + 1])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {key: json.dumps(value)
                                   for key, value in {**FACTS, **facts}.items()})
    onnx.save(model, path)
    return path


def test_a_sound_network_of_a_stranger_predicts(tmp_path, capsys):
    path = write(tmp_path / "a.onnx", "sound")
    predictor = load_onnx(path, config.namespace(image_size=SIDE + 1))
    assert f"image_size {SIDE + 1} without effect" in capsys.readouterr().err
    views = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    outputs = predictor.outputs(views)
    assert np.allclose(outputs, views.mean((1, 2, 3))[:, None], atol=1e-2)
    assert len(interpret(outputs, predictor, SimpleNamespace(top=2, max_risk=0.1))) == 3
    with pytest.raises(InputError, match="cannot compute 2 views"):
        predictor.outputs(np.zeros((2, SIDE, SIDE + 1, 3), np.uint8))


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"sound"}))
def test_a_network_whose_rows_are_not_those_of_its_views_is_refused(name, tmp_path):
    path = write(tmp_path / "a.onnx", name)
    with pytest.raises(InputError, match=r"a\.onnx: .*; the file is damaged"):
        load_onnx(path)


@pytest.mark.parametrize("format_", ["\x1b[31mred\nsure", 6, None, [1]])
def test_a_strange_format_is_named_on_one_line(format_, tmp_path):
    with pytest.raises(InputError, match="has format") as raised:
        load_onnx(write(tmp_path / "a.onnx", "sound", format=format_))
    assert not set("\x1b\n") & set(str(raised.value))
