"""Data sets in their published layouts."""

import json
import os
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from jaxattr import metrics
from jaxattr.data import Source, class_mask, open_source, record, with_classes
from jaxattr.data.classes import IMAGENET, SYNSETS, VOC

RNG = np.random.default_rng(0)


def save(path, size=(6, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def test_folders_of_classes(tmp_path):
    first = save(tmp_path / "val" / "dog" / "b.png")
    second = save(tmp_path / "val" / "cat" / "a.png")
    (tmp_path / "val" / "cat" / "notes.txt").write_text("no image")
    source = open_source(f"folder:{tmp_path}", split="val")
    assert source.classes == ("cat", "dog")
    assert [r.labels.tolist() for r in source] == [[0], [1]]
    assert [source.labels(i) for i in range(2)] == [(0,), (1,)]
    np.testing.assert_array_equal(source[0].image, second)
    np.testing.assert_array_equal(source[1].image, first)


def test_folders_of_synsets_are_imagenet(tmp_path):
    save(tmp_path / "n01443537" / "x.jpg")
    source = open_source(f"folder:{tmp_path}")
    assert source.classes == IMAGENET
    assert source[0].labels.tolist() == [1]
    assert (len(SYNSETS), len(set(SYNSETS)), IMAGENET[SYNSETS.index("n02123045")]) == (
        1000,
        1000,
        "tabby",
    )


def test_a_table_of_labels(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,label\nb.png,dog; cat\na.png,\nc.png,cat\n")
    source = open_source(f"folder:{tmp_path}")
    assert source.classes == ("cat", "dog")
    assert [(r.id, r.labels.tolist()) for r in source] == [
        ("b.png", [0, 1]),
        ("a.png", []),
        ("c.png", [0]),
    ]
    Image.fromarray(np.array([[0, 1, 255], [3, 3, 0]], np.uint8)).save(tmp_path / "mask.png")
    save(tmp_path / "d.png", (2, 3))
    line = {"file": "d.png", "labels": [2], "boxes": [[0, 1, 1, 2]], "box_labels": [0]}
    (tmp_path / "more.jsonl").write_text(json.dumps({**line, "mask": "mask.png"}) + "\n")
    (found,) = open_source(f"folder:{tmp_path / 'more.jsonl'}")
    assert found.labels.tolist() == [0, 2]
    assert class_mask(found, 0).tolist() == [[False, True, False], [False] * 3]
    assert class_mask(found, 2).tolist() == [[False] * 3, [True, True, False]]
    assert np.argwhere(found.void).tolist() == [[0, 2]]
    with pytest.raises(ValueError, match=r"several tables \(labels\.csv, more\.jsonl\)"):
        open_source(f"folder:{tmp_path}")
    (tmp_path / "bad.csv").write_text("file,label\na.png,1\n,2\n")
    with pytest.raises(ValueError, match=r"line 3 of .*bad\.csv cannot be read: it has no `file`"):
        open_source(f"folder:{tmp_path / 'bad.csv'}")


def test_labels_are_numbered_as_the_models_classes():
    """With its masks: a class keeps its own pixels."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    masks = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 1]]], bool)
    given = record("a", pixels, labels=[0, 1], boxes=[[0, 0, 1, 1]], box_labels=[0], masks=masks)
    source = Source("mine", ("dog", "cat"), (0,), lambda key: given)
    (found,) = with_classes(source, ("cat", "fish", "Dog"))
    assert (found.labels.tolist(), found.box_labels.tolist()) == ([0, 2], [2])
    np.testing.assert_array_equal(class_mask(found, 2), class_mask(given, 0))
    np.testing.assert_array_equal(class_mask(found, 0), class_mask(given, 1))
    numbers = Source("mine", ("0", "1"), (0,), lambda key: given)
    assert with_classes(numbers, ("cat", "dog", "fish"))[0].labels.tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"1 of the 2 classes of mine .* 'dog'; the nearest is 'dogs'"
    ):
        with_classes(source, ("cat", "dogs"))


def test_16_bits_are_scaled_and_unknown_ranges_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    values = np.array([[0, 257, 65535]])
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "cat" / "a.png")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "cat" / "b.tiff")
    source = open_source(f"folder:{tmp_path}")
    np.testing.assert_array_equal(source[0].image[0, :, 0], [0, 1, 255])
    with pytest.raises(ValueError, match=r"b.tiff cannot be read .* no known range"):
        source[1]


def test_a_broken_image_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    with pytest.raises(ValueError, match=r"x\.jpg cannot be read as an image"):
        open_source(f"folder:{tmp_path}")[0]


def voc_folder(path, objects):
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    found = "".join(
        f"<object><name>{name}</name><difficult>{flag}</difficult>{box.format(*b)}</object>"
        for name, flag, b in objects
    )
    save(path / "JPEGImages" / "000001.jpg", (20, 40))
    (path / "Annotations").mkdir()
    (path / "Annotations" / "000001.xml").write_text(
        f"<annotation><size><width>40</width><height>20</height></size>{found}</annotation>"
    )


def test_pascal_voc(tmp_path):
    voc_folder(tmp_path, [("dog", 1, (1, 1, 30, 20)), ("cat", 0, (5, 6, 7, 8))])
    for name, ids in (("test", "000001"), ("cat_test", "000001 -1"), ("val", "")):
        file = tmp_path / "ImageSets" / "Main" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(ids + "\n")
    source = open_source(f"voc:{tmp_path}")
    assert (source.classes, source.labels(0)) == (VOC, (7, 11))
    (found,) = source
    assert (found.id, found.labels.tolist()) == ("000001", [7, 11])
    assert found.boxes.tolist() == [[0, 0, 20, 30], [5, 4, 8, 7]]
    assert found.difficult.tolist() == [True, False]
    assert found.masks is None
    xml = (tmp_path / "Annotations" / "000001.xml").read_text()
    theirs, ours = metrics.voc_annotation(xml), metrics.record_annotation(found, source.classes)
    assert ours.size == theirs.size
    for a, b in zip(ours.objects, theirs.objects, strict=True):
        assert (a.label, a.counts, a.difficult) == (b.label, b.counts, b.difficult)
        np.testing.assert_array_equal(a.boxes, b.boxes)
    assert len(open_source(f"voc:{tmp_path}", split="val")) == 0
    with pytest.raises(ValueError, match="no split 'train'; it has test, val"):
        open_source(f"voc:{tmp_path}", split="train")
    (tmp_path / "kit" / "VOC2007").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"voc:.*/VOC2007"):
        open_source(f"voc:{tmp_path / 'kit'}")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_coco(tmp_path):
    pytest.importorskip("pycocotools")
    pixels = save(tmp_path / "val2014" / "COCO_val2014_000000000007.png", (6, 8))
    save(tmp_path / "val2014" / "COCO_val2014_000000000009.png", (6, 8))
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012}.png"} for i in (9, 7)]
    square = [2, 1, 6, 1, 6, 4, 2, 4]
    thing = {"image_id": 7, "category_id": 18, "bbox": [2, 1, 4, 3], "segmentation": [square]}
    crowd = {"counts": [0, 6, 42], "size": [6, 8]}
    people = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 6], "segmentation": crowd}
    content = {
        "images": images,
        "annotations": [thing, people],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    source = open_source(f"coco:{tmp_path}")
    assert source.classes == ("person", "dog")
    first, second = source
    assert (source.labels(0), source.labels(1)) == ((0, 1), ())
    np.testing.assert_array_equal(first.image, pixels)
    assert first.labels.tolist() == [0, 1]
    assert first.boxes.tolist() == [[0, 0, 6, 1], [1, 2, 4, 6]]
    assert first.masks.sum((1, 2)).tolist() == [6, 12]
    assert second.labels.size == 0
    with pytest.raises(FileNotFoundError, match=r"cocodataset\.org"):
        open_source(f"coco:{tmp_path / 'val2014'}")


def test_parquet_shards(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    every = [save(tmp_path / f"{i}.png") for i in range(5)]
    feature = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    for shard, rows in enumerate(([0, 1, 2], [3, 4])):
        images = [{"bytes": (tmp_path / f"{i}.png").read_bytes(), "path": None} for i in rows]
        table = arrow.table({"image": images, "label": [i % 2 for i in rows]})
        name = tmp_path / f"validation-0000{shard}-of-00002.parquet"
        parquet.write_table(table.replace_schema_metadata(metadata), name, row_group_size=2)
    source = open_source(f"parquet:{tmp_path}", split="validation")
    assert (len(source), source.classes) == (5, ("cat", "dog"))
    for i in (4, 0, 2, 1, 3):
        np.testing.assert_array_equal(source[i].image, every[i])
        assert source[i].labels.tolist() == [i % 2]
    with pytest.raises(FileNotFoundError, match="begins with 'train'"):
        open_source(f"parquet:{tmp_path}", split="train")


def test_imagenet_segmentation(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "gtsegs_ijcv.mat"
    pixels, mask = RNG.integers(0, 256, (4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 1
    with h5py.File(path, "w") as file:
        reference = h5py.special_dtype(ref=h5py.Reference)
        cell = file.create_dataset("inner", (1, 1), reference)
        cell[0, 0] = file.create_dataset("mask", data=mask.T).ref
        values = {
            "img": file.create_dataset("pixels", data=pixels.T).ref,
            "gt": cell.ref,
            "target": file.create_dataset("name", data=[[ord(c)] for c in "n01440764"]).ref,
        }
        for name, value in values.items():
            file.create_dataset(f"value/{name}", (1, 1), reference)[0, 0] = value
    (found,) = open_source(f"segmentation:{path}")
    np.testing.assert_array_equal(found.image, pixels)
    assert found.labels.tolist() == [0]
    np.testing.assert_array_equal(found.masks[0], mask > 0)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("photos", ValueError, "'photos' names no data set; the kinds are tfds, folder"),
        ("fodler:x", ValueError, "did you mean folder:"),
        ("folder:nowhere", FileNotFoundError, "there is no folder nowhere"),
        ("segmentation:none.mat", FileNotFoundError, "calvin-vision.net"),
        ("tfds:imagnet_v2", ValueError, "no data set 'imagnet_v2'"),
    ],
)
def test_names_that_open_nothing(name, error, message):
    if name.startswith("tfds"):
        pytest.importorskip("tensorflow_datasets")
    if name.startswith("segmentation"):
        pytest.importorskip("h5py")
    with pytest.raises(error, match=message):
        open_source(name)


NAMES = {
    "imagenet2012": 1000,
    "imagenet_v2": 1000,
    "imagenette": 1000,
    "voc/2007": 20,
    "voc/2012": 20,
    "coco/2014": 80,
    "mnist": 10,
    "cifar10": 10,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_every_name_of_tfds(name, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.testing import mocking

    plain = mocking.RandomFakeGenerator._generate_random_obj

    def in_order(self, feature, tensor_info, rng):
        self._constant_dynamic_shape = True  # else an object's box and class differ in number
        made = plain(self, feature, tensor_info, rng)
        if made.__class__ is np.ndarray and made.ndim == 2 and made.shape[1] == 4:
            # made-up corners come in any order
            made = np.concatenate([made[:, :2] / 3, made[:, 2:] / 3 + 0.5], 1)
        return made

    monkeypatch.setattr(mocking.RandomFakeGenerator, "_generate_random_obj", in_order)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with tfds.testing.mock_data(num_examples=3):
        source = open_source(f"tfds:{name}")
        records = list(source)
    assert (len(records), len(source.classes)) == (3, NAMES[name])
    assert len({r.id for r in records}) == 3
    for r in records:
        assert r.image.dtype == np.uint8
        assert r.labels.size
        assert r.labels.max() < NAMES[name]
        assert len(r.boxes) == len(r.box_labels) == len(r.difficult)
    assert any(len(r.boxes) for r in records) == (name.startswith(("voc", "coco")))


def png(pixels):
    file = BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    file.seek(0)
    return file


def prepared(tfds, monkeypatch, tmp_path, name, split, examples):
    """Write examples as tfds itself stores a data set of its own."""
    from jaxattr.data.tfds import _without_tensorflow

    monkeypatch.setenv("TFDS_DATA_DIR", os.fspath(tmp_path))
    kind = tfds.builder_cls(name.partition("/")[0])
    monkeypatch.setattr(kind, "_split_generators", lambda self, *_: {split: iter(examples)})
    with _without_tensorflow(kind):
        builder = tfds.builder(name, data_dir=os.fspath(tmp_path))
        builder.download_and_prepare(file_format="array_record")
    monkeypatch.undo()
    monkeypatch.setenv("TFDS_DATA_DIR", os.fspath(tmp_path))
    return open_source(f"tfds:{name}")


@pytest.mark.filterwarnings("ignore")
def test_voc_through_tfds_is_voc(shared, tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    ours = open_source(f"voc:{shared / 'voc2007'}")
    ids = ours.keys[:12]

    def example(i, r):
        height, width = r.image.shape[:2]
        shift = np.array([1, 1, 0, 0])
        boxes = (r.boxes + shift) / np.array([height, width] * 2)
        path = shared / "voc2007" / "JPEGImages" / f"{r.id}.jpg"
        rest = {"pose": "unspecified", "is_truncated": False}
        objects = [
            {"label": int(k), "bbox": tfds.features.BBox(*b), "is_difficult": bool(d), **rest}
            for k, b, d in zip(r.box_labels, boxes, r.difficult, strict=True)
        ]
        labels = [int(k) for k in r.labels]
        return i, {
            "image": os.fspath(path),
            "image/filename": f"{r.id}.jpg",
            "objects": objects,
            "labels": labels,
            "labels_no_difficult": labels,
        }

    examples = [example(i, ours[i]) for i in range(len(ids))]
    theirs = prepared(tfds, monkeypatch, tmp_path, "voc/2007", "test", examples)
    assert theirs.classes == ours.classes
    by_id = {r.id.removesuffix(".jpg"): r for r in theirs}
    assert set(by_id) == set(ids)
    for i, id in enumerate(ids):
        for name in ("image", "labels", "boxes", "box_labels", "difficult"):
            np.testing.assert_array_equal(getattr(by_id[id], name), getattr(ours[i], name), name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_small_images_through_tfds(shared, tmp_path, monkeypatch, name):
    tfds = pytest.importorskip("tensorflow_datasets")
    if name == "mnist":
        with np.load(shared / "mnist.npz") as file:
            arrays = {k: file[k] for k in file}
        images = next(v for v in arrays.values() if v.shape[0] == 10000 and v.ndim >= 3)[:20]
        labels = next(v for v in arrays.values() if v.shape == (10000,))[:20]
        images = images.reshape(-1, 28, 28, 1)
    else:
        with ZipFile(shared / "cifar10_webp.zip") as file:
            find = lambda end: next(n for n in file.namelist() if n.endswith(end))
            with file.open(find("test/000.webp")) as strip:
                images = np.asarray(Image.open(strip).convert("RGB")).reshape(500, 32, 32, 3)[:20]
            with file.open(find("test_labels.npy")) as found:
                labels = np.load(found)[:20]
    ids = {} if name == "mnist" else {"id": ""}
    examples = [
        (i, {"image": png(im), "label": int(k), **({"id": str(i)} if ids else {})})
        for i, (im, k) in enumerate(zip(images, labels, strict=True))
    ]
    source = prepared(tfds, monkeypatch, tmp_path, name, "test", examples)
    assert len(source) == 20
    found = sorted((r.image[..., : images.shape[-1]].tobytes(), r.labels.tolist()) for r in source)
    given = sorted((im.tobytes(), [int(k)]) for im, k in zip(images, labels, strict=True))
    assert found == given
