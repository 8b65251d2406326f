"""Accuracy of the whole line on real photographs, through the command that people use."""

from __future__ import annotations

from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seg_perception.cli.main import main

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
# Of a plain float pipeline (letterbox, greedy suppression, masks at full resolution) on the same images: 0.2731.
LOWEST_MASK_AP = 0.268


@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the model and the labelled images of ../shared/data")
def test_mask_ap_on_real_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, results = tmp_path / "model.onnx", tmp_path / "results.json"
    assert main(["prepare", str(DATA / "models" / "yolov8n-seg-640.onnx"), "-o", str(model)]) == 0
    images = str(DATA / "coco_dev" / "images")
    options = ["--model", str(model), "-o", str(tmp_path / "out"), "--score", "0.01", "--coco", str(results)]
    assert main(["image", images, *options]) == 0
    assert "95 frames" in capsys.readouterr().out
    truth = COCO(str(DATA / "coco_dev" / "instances.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(results)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] >= LOWEST_MASK_AP
