import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from jaxattr import viz

WHITE = np.ones(3)


@pytest.fixture
def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def test_signed_maps_share_one_scale_for_both_signs():
    a = np.concatenate([np.linspace(-2, 1, 1000), [100.0]])
    low, high = viz.scale(a).get_clim()
    assert low == -high
    np.testing.assert_allclose(high, np.percentile(np.abs(a), 99.5), rtol=1e-12)


def test_maps_without_negative_values_start_at_zero():
    a = np.linspace(3, 4, 1000)
    np.testing.assert_allclose(viz.scale(a, percentile=50).get_clim(), (0, 3.5), rtol=1e-12)


@pytest.mark.parametrize(("value", "limit"), [(0.0, 1.0), (5.0, 5.0)])
def test_a_map_of_zeros_and_a_single_spike_have_a_scale(value: float, limit: float):
    a = np.zeros((40, 40))
    a[3, 4] = value
    assert viz.scale(a).get_clim() == (0, limit)


def test_red_speaks_for_the_class_blue_against_it_and_zero_is_white():
    against, nothing, weakly, strongly = viz.paint([[-2.0, 0.0, 1.0, 2.0]], percentile=100)[0]
    assert against[2] > against[0]
    np.testing.assert_allclose(nothing, WHITE, atol=0.01)
    assert weakly[0] > weakly[2] > strongly[2]
    np.testing.assert_allclose(against, viz.SIGNED(0.0)[:3])
    np.testing.assert_allclose(strongly, viz.SIGNED(1.0)[:3])
    np.testing.assert_allclose(viz.paint([[1.0, 0.0]])[0, 1], WHITE, atol=0.01)


def test_outliers_take_the_color_of_the_end():
    a = np.ones((100, 100))
    a[0, 0] = 1e6
    np.testing.assert_array_equal(viz.paint(a)[0, 0], viz.paint(a)[1, 1])


def test_channels_are_summed():
    a = np.random.default_rng(1).normal(size=(5, 6, 3))
    np.testing.assert_array_equal(viz.paint(a), viz.paint(a.sum(-1)))


def test_an_overlay_of_nothing_is_the_photograph_in_light_grays(photograph: np.ndarray):
    over = viz.overlay(photograph, np.zeros((24, 32, 1)))
    gray = photograph / 255 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(over, np.repeat((0.45 + 0.55 * gray)[..., None], 3, -1), atol=1e-12)
    np.testing.assert_array_equal(over, viz.overlay(photograph / 255, np.zeros((24, 32))))


def test_an_overlay_is_as_red_as_the_map(photograph: np.ndarray):
    a = np.zeros((24, 32))
    a[5, 6] = 1.0
    over = viz.overlay(photograph, a)
    assert over[5, 6, 0] > 2 * over[5, 6, 2]


def test_bad_input_is_named(photograph: np.ndarray):
    with pytest.raises(ValueError, match=r"map of shape \(1, 2\) holds values that are not finite"):
        viz.paint([[1.0, np.nan]])
    with pytest.raises(ValueError, match=r"map is \(24, 31\), the photograph \(24, 32\): resize"):
        viz.overlay(photograph, np.zeros((24, 31)))
    with pytest.raises(ValueError, match=r"shape \(2,\); expected \(height, width\)"):
        viz.paint([1.0, 2.0])
    with pytest.raises(ValueError, match=r"photograph has shape \(24, 32, 2\)"):
        viz.figure(photograph[..., :2], {})


def test_a_figure_shows_each_map_with_its_name_scale_and_classes(photograph: np.ndarray):
    rng = np.random.default_rng(2)
    maps = {"fine": rng.normal(size=(24, 32, 3)), "coarse": rng.uniform(size=(24, 32, 1))}
    classes = [("tabby", 0.75), ("a name too long to stand in its place", 0.125)]
    figure = viz.figure(photograph, maps, classes=classes, target=0)
    titles = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(titles) == ["photograph", "fine", "coarse"]
    shown = [axes.images[0].get_array() for axes in titles.values()]
    np.testing.assert_allclose(shown[0], photograph / 255)
    np.testing.assert_allclose(shown[1], viz.paint(maps["fine"]))
    np.testing.assert_allclose(shown[2], viz.overlay(photograph, maps["coarse"]))
    texts = [(t.get_text(), t.get_weight()) for axes in figure.axes for t in axes.texts]
    assert texts[:2] == [("tabby", "bold"), ("75.0 %", "bold")]
    assert texts[2] == ("a name too long to ...", "normal")
    bars = [a for axes in figure.axes for a in axes.child_axes]
    limits = [viz.scale(a.sum(-1)).get_clim() for a in maps.values()]
    assert [bar.get_xlim() for bar in bars] == limits
    labels = [t.get_text() for t in bars[0].get_xticklabels()]
    assert labels == [f"−{limits[0][1]:.2g}", "0", f"{limits[0][1]:.2g}"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_integers_of_any_dtype_are_one_photograph(photograph: np.ndarray, dtype: type):
    a = np.ones((24, 32))
    shown = viz.overlay(photograph.astype(dtype), a)
    np.testing.assert_array_equal(shown, viz.overlay(photograph / 255, a))
    assert 0 <= shown.min() <= shown.max() <= 1


def test_values_that_no_photograph_has_are_refused(photograph: np.ndarray):
    normalized = (photograph / 255 - 0.45) / 0.225
    nan = np.where(photograph == photograph.max(), np.nan, 0.5)
    for values in (normalized, photograph.astype(float), 256 * photograph.astype(int), nan):
        for draw in (viz.overlay, lambda image, a: viz.figure(image, {"a": a})):
            with pytest.raises(ValueError, match=r"photograph holds .*undo what the model's"):
                draw(values, np.ones((24, 32)))
    restored = normalized.astype(np.float32) * 0.225 + 0.45
    shown = viz.overlay(restored, np.ones((24, 32)))
    assert 0 <= shown.min() <= shown.max() <= 1


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 1)])
def test_gray_photographs_are_drawn(photograph: np.ndarray, shape: tuple[int, ...]):
    gray = photograph[..., :1].reshape(shape)
    shown = viz.figure(gray, {}).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, np.repeat(photograph[..., :1] / 255, 3, -1))


def test_a_name_is_no_formula(photograph: np.ndarray):
    maps = {"cost $_{": np.ones((24, 32))}
    figure = viz.figure(photograph, maps, classes=[("$5 $ bill \\frac", 1.0)])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_maps_share_a_scale_if_asked(photograph: np.ndarray):
    maps = {"weak": np.ones((24, 32)), "strong": np.full((24, 32, 3), -3.0)}
    figure = viz.figure(photograph, maps, shared_scale=True, percentile=100)
    bars = [a for axes in figure.axes for a in axes.child_axes]
    assert [bar.get_xlim() for bar in bars] == [(-9, 9)] * 2
    colors = viz.scale([1.0, -9.0], percentile=100)
    np.testing.assert_array_equal(
        viz.paint(maps["weak"], colors=colors)[0, 0], colors.to_rgba(1.0)[:3]
    )


def test_a_pixel_of_a_map_is_a_whole_number_of_pixels_in_the_file():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(64, 64, 3))
    file = io.BytesIO()
    viz.figure(np.zeros((64, 64, 3)), {"map": a}).savefig(file, format="png")
    drawn = imread(io.BytesIO(file.getvalue()))[..., :3]
    painted = viz.paint(a)
    factor = 5  # 160 dots per inch on a panel of two inches
    blocks = painted.repeat(factor, 0).repeat(factor, 1)
    top, left = 40, 5 * 64 + 2 * 20  # the title; a gap, the photograph, a gap
    window = drawn[top : top + len(blocks), left : left + len(blocks)]
    inside = (slice(factor, -factor),) * 2  # the frame lies on the border
    np.testing.assert_allclose(window[inside], blocks[inside], atol=1 / 255)


def test_panels_wrap(photograph: np.ndarray):
    maps = {str(i): np.ones((24, 32)) for i in range(6)}
    one, two = viz.figure(photograph, maps, columns=7), viz.figure(photograph, maps, columns=4)
    assert two.get_figheight() == 2 * one.get_figheight()
    assert two.get_figwidth() < one.get_figwidth()


@pytest.mark.slow
def test_drawing_needs_no_pyplot():
    code = (
        "import sys, numpy as np, io; from jaxattr import viz;"
        "viz.figure(np.ones((8, 8, 3)), {'a': np.ones((8, 8))}).savefig(io.BytesIO());"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_slider_blends_and_a_menu_chooses(photograph: np.ndarray):
    rng = np.random.default_rng(1)
    maps = {"a": rng.normal(size=(24, 32, 3)), "b": rng.uniform(size=(24, 32, 1))}
    shown = viz.interactive(photograph, maps)
    ground, *layers = shown.data
    np.testing.assert_array_equal(ground.z, photograph)
    for layer, (title, a) in zip(layers, maps.items(), strict=True):
        assert layer.name == title
        np.testing.assert_allclose(layer.z, a.sum(-1))
        low, high = viz.scale(a.sum(-1)).get_clim()
        assert (layer.zmin, layer.zmax) == (low, high)
    (slider,), (menu,) = shown.layout.sliders, shown.layout.updatemenus
    assert [step.args[0]["opacity"] for step in slider.steps] == [i / 10 for i in range(11)]
    assert [tuple(button.args[0]["visible"]) for button in menu.buttons] == [
        (True, True, False),
        (True, False, True),
    ]
    together = viz.interactive(photograph, maps, shared_scale=True).data[1:]
    assert len({(layer.zmin, layer.zmax) for layer in together}) == 1


def test_an_interactive_figure_refuses_maps_of_another_size(photograph: np.ndarray):
    with pytest.raises(ValueError, match=r"map 'a' is \(2, 2\), the photograph \(24, 32\)"):
        viz.interactive(photograph, {"a": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="no map"):
        viz.interactive(photograph, {})
