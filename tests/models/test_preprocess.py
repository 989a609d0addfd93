"""The preprocessing of images: torchvision's, to a thousandth of the 0-1 scale."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxattr.models import PUBLISHED, Preprocess, published
from jaxattr.models.preprocess import PlainResize, to_rgb

V1 = Preprocess(resize_size=256, crop_size=224)
V2 = Preprocess(resize_size=232, crop_size=224)


def photograph(width: int, height: int) -> Image.Image:
    """Draw a colorful image with edges, gradients and noise."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7) * np.cos(y / 11), (x + y) % 37 / 18 - 1, np.sign(np.sin(x * y / 900))]
    grain = np.random.RandomState(0).uniform(-0.3, 0.3, (height, width, 3))
    values = np.stack(waves, -1) * 0.7 + grain
    return Image.fromarray(((values + 1) * 127.5).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("preprocess", [V1, V2])
@pytest.mark.parametrize(
    "size", [(224, 224), (256, 256), (640, 480), (333, 501), (57, 91), (225, 1000), (30, 30)]
)
def test_it_is_torchvisions(torchvision, preprocess, size):
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=preprocess.crop_size, resize_size=preprocess.resize_size)
    image = photograph(*size)
    expected = preset(image).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(preprocess(image), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_every_published_preprocessing_is_torchvisions(torchvision):
    models = torchvision.models
    image = photograph(401, 377)
    for entry in PUBLISHED:
        if entry.url.startswith("https://download.pytorch.org"):
            preset = models.get_model_weights(entry.model)[entry.weights].transforms()
            expected = preset(image).numpy().transpose(1, 2, 0)
            np.testing.assert_allclose(entry.preprocess(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_gives_the_channels_of_its_rgb(mode):
    image = photograph(300, 260).convert(mode)
    found = V1(image)
    assert found.shape == (224, 224, 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, V1(image.convert("RGB")))


def test_sixteen_bits_are_scaled():
    gray = np.asarray(photograph(300, 260).convert("L"))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    np.testing.assert_array_equal(V1(deep), V1(Image.fromarray(gray)))


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped_in_silence(tmp_path: Path):
    image = photograph(64, 64).quantize(16)
    image.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    with Image.open(tmp_path / "palette.png") as palette:
        np.testing.assert_array_equal(V1(palette), V1(image.convert("RGB")))


def test_transparency_lies_on_a_color_of_ones_choice():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 100, 0, 255))
    on_blue = np.asarray(to_rgb(image, background="#0000ff"))
    np.testing.assert_array_equal(on_blue, [[[0, 0, 255], [200, 100, 0]]])
    np.testing.assert_array_equal(to_rgb(image), [[[0, 0, 0], [200, 100, 0]]])


def test_12_bits_in_16_are_told():
    values = np.array([[0, 4095]], np.uint16)
    with pytest.warns(UserWarning, match=r"largest value of the 16-bit image is 4095, as of 12"):
        to_rgb(Image.fromarray(values))
    assert np.asarray(to_rgb(Image.fromarray(values * 16))).max() == 255


def test_an_orientation_is_followed(tmp_path: Path):
    image = photograph(300, 260)
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        upright = image.transpose(Image.Transpose.ROTATE_270)
        np.testing.assert_array_equal(V1(turned), V1(upright))


def test_display_is_the_photograph_before_normalization():
    image = photograph(301, 260)
    for entry in PUBLISHED:
        shown = np.asarray(entry.preprocess.display(image), np.float64) / 255
        if isinstance(entry.preprocess, PlainResize):  # shown rounded, given to the model not
            expected, within = 255 * (shown - entry.preprocess.mean), 0.501
        else:
            expected, within = (shown - entry.preprocess.mean) / entry.preprocess.std, 1e-5
            assert shown.shape == (entry.preprocess.crop_size,) * 2 + (3,)
        np.testing.assert_allclose(entry.preprocess(image), expected, rtol=0, atol=within)


def test_efficientnet_lite_leaves_the_odd_row_and_column_bottom_and_right():
    image = photograph(259, 256)
    preprocess = published.find("efficientnet_lite0").preprocess
    pixels = np.asarray(image, np.float32)[16:240, 17:241]
    np.testing.assert_allclose(preprocess(image), (pixels - 127) / 128, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 2)])
def test_the_smallest_images_are_enlarged(size):
    assert np.isfinite(V1(photograph(*size))).all()


def test_what_is_no_image_is_refused():
    with pytest.raises(TypeError, match=r"got ndarray: use PIL.Image.open\(path\)"):
        V1(np.zeros((224, 224, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode 'F' have no known range"):
        V1(Image.new("F", (300, 300)))
