"""Files beside a checkpoint: what they say was compared with the processors of both libraries.

On a photograph the inputs of transformers 4.46 (ViT, ConvNeXt at 224 and 384) and of timm 1.0 were
equal to the last bit.
"""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from jaxattr import models
from jaxattr.models.hub import beside
from jaxattr.models.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

HALF = (0.5, 0.5, 0.5)
TIMM = {"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic"}
TIMM |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
NORMAL = {"image_mean": HALF, "image_std": HALF, "resample": 2}
CONVNEXT = NORMAL | {"crop_pct": 0.875}


def prepared(resize, crop, *, square=False):
    return Preprocess(resize, crop, HALF, HALF, Image.Resampling.BILINEAR, square=square)


@pytest.mark.parametrize(
    ("name", "content", "preprocess"),
    [
        (
            "config",
            {"pretrained_cfg": TIMM},
            Preprocess(235, 224, resample=Image.Resampling.BICUBIC),
        ),
        (
            "config",
            {"pretrained_cfg": TIMM | {"crop_pct": 1.0, "crop_mode": "squash"}},
            Preprocess(224, 224, resample=Image.Resampling.BICUBIC, square=True),
        ),
        (
            "preprocessor_config",
            NORMAL | {"size": {"height": 224, "width": 224}},
            prepared(224, 224, square=True),
        ),
        ("preprocessor_config", NORMAL | {"size": 224}, prepared(224, 224, square=True)),
        ("preprocessor_config", CONVNEXT | {"size": {"shortest_edge": 224}}, prepared(256, 224)),
        ("preprocessor_config", CONVNEXT | {"size": 384}, prepared(384, 384, square=True)),
        (
            "preprocessor_config",
            NORMAL
            | {"size": 256, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            prepared(256, 224),
        ),
        ("config", {"hidden_size": 3}, None),
    ],
)
def test_preprocessing(tmp_path, name, content, preprocess):
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert beside(tmp_path / "model.safetensors") == beside(tmp_path) == (None, preprocess)


def test_classes(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"id2label": {"1": "cat", "0": "dog", "10": "owl"}}))
    assert beside(tmp_path).classes == ("dog", "cat", "owl")
    config.write_text(json.dumps({"label_names": ["n01", "n02"]}))
    assert beside(tmp_path).classes == ("n01", "n02")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "config.json is no JSON"),
        (json.dumps({"pretrained_cfg": {}}), "how images are prepared .KeyError: 'input_size'"),
    ],
)
def test_files_that_say_nothing(tmp_path, content, words):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        beside(tmp_path)


def test_squares_are_squeezed():
    stripes = Image.fromarray(np.repeat(np.uint8([[[0] * 3, [200] * 3]]), 4, 0).repeat(4, 1))
    squeezed = prepared(2, 2, square=True)
    assert np.asarray(squeezed.display(stripes)).shape == (2, 2, 3)
    assert squeezed.geometry((4, 8)).boxes([[0, 4, 4, 8]]).tolist() == [[0, 1, 2, 2]]


def test_a_folder_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXATTR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    from test_foreign import torch_arrays

    model = models.cifar_resnet20(classes=3)
    save_file(torch_arrays(model), folder / "model.safetensors")
    labels = {"id2label": {"0": "a", "1": "b", "2": "c"}}
    (folder / "config.json").write_text(json.dumps(labels | {"pretrained_cfg": TIMM}))
    _, preprocess, classes = models.load("cifar_resnet20", path=folder)
    assert (preprocess.resize_size, classes) == (235, ("a", "b", "c"))
    assert models.load("cifar_resnet20", path=folder, classes="xyz").classes == ("x", "y", "z")
    as_published = models.load("cifar_resnet20", path=folder, weights="CIFAR10")
    assert as_published.preprocess.resize_size == 32
