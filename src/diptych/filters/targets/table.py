"""The filters that have names: their summaries, parameters and references.

In references, `x` is the 8-bit picture in levels, 0..255, and `luma(x)` is 0.299 R + 0.587 G + 0.114 B, unrounded.
Results are in levels as well, clipped to 0..255, and unrounded unless the reference gives whole levels. The
term 127.5 makes negative values visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from diptych.filters.targets import curves, edges, heavy, linear, neighbours, unlearnable
from diptych.filters.targets.linear import gaussian_radius
from diptych.filters.targets.named import NamedFilter, choice, odd, real, whole

__all__ = ["FILTERS"]

_SIGMA = {"sigma": real(1.0, 0.3, 5)}
_KSIZE = {"ksize": odd(3, 7)}
_GRADIENTS = (
    "gx, gy = the derivatives of luma(x) by cv2.getDerivKernels(1, 0, {ksize}), each sign summing to 1"
)


def _half(size: int, **_: object) -> int:
    return size // 2


def _morphology(operation: str, summary: str, stages: int = 1) -> NamedFilter:
    return NamedFilter(
        partial(neighbours.morphology, operation),
        summary,
        f"cv2.morphologyEx(x, cv2.MORPH_{operation}, {{shape}} of {{size}} x {{size}})",
        parameters={"size": odd(3, 15), "shape": choice("box", "cross")},
        radius=lambda size, **_: stages * (size // 2),
        per_channel=True,
        staged=stages > 1,
    )


def _by_skimage(name: str, summary: str) -> NamedFilter:
    return NamedFilter(
        partial(edges.by_skimage, name), summary, f"skimage.filters.{name}(luma(x))", (3, 1), radius=1
    )


FILTERS: Mapping[str, NamedFilter] = {
    # Colours and curves, one pixel at a time.
    "identity": NamedFilter(linear.identity, "the picture unchanged", "x", per_channel=True),
    "grey": NamedFilter(linear.grey, "Rec.601 luma", "luma(x)", (3, 1)),
    "sepia": NamedFilter(linear.sepia, "a sepia tone", "x @ M.T, M the usual sepia matrix (0.393 ...)"),
    "saturation": NamedFilter(
        curves.saturation,
        "saturation raised (above 1) or lowered",
        "luma(x) + {amount} * (x - luma(x))",
        parameters={"amount": real(1.5, 0, 4)},
    ),
    "invert": NamedFilter(curves.invert, "the negative", "255 - x", per_channel=True),
    "brightness": NamedFilter(
        curves.brightness,
        "brightness raised, or lowered below 0",
        "x + 255 * {amount}",
        parameters={"amount": real(0.2, -1, 1)},
        per_channel=True,
    ),
    "contrast": NamedFilter(
        curves.contrast,
        "contrast about middle grey raised (above 1) or lowered",
        "127.5 + {amount} * (x - 127.5)",
        parameters={"amount": real(1.5, 0, 8)},
        per_channel=True,
    ),
    "gamma": NamedFilter(
        curves.gamma,
        "a power curve; exponents below 1 brighten",
        "255 * skimage.exposure.adjust_gamma(x / 255, {gamma})",
        parameters={"gamma": real(0.5, 0.1, 5)},
        per_channel=True,
    ),
    "s_curve": NamedFilter(
        curves.s_curve,
        "an S-shaped curve: more contrast in the midtones",
        "255 * skimage.exposure.adjust_sigmoid(x / 255, 0.5, {gain})",
        parameters={"gain": real(8.0, 1, 20)},
        per_channel=True,
    ),
    "threshold": NamedFilter(
        curves.threshold,
        "white above a level, black up to it, in every channel",
        "cv2.threshold(x, {level}, 255, cv2.THRESH_BINARY)",
        parameters={"level": whole(127, 0, 254)},
        per_channel=True,
    ),
    "posterise": NamedFilter(
        curves.posterise,
        "reduced to a few evenly spaced levels",
        "floor(x * {levels} / 256) * 255 / ({levels} - 1)",
        parameters={"levels": whole(4, 2, 64)},
        per_channel=True,
    ),
    "solarise": NamedFilter(
        curves.solarise,
        "bright levels inverted",
        "PIL.ImageOps.solarize(x, {level})",
        parameters={"level": whole(128, 0, 255)},
        per_channel=True,
    ),
    # Linear filters.
    "box": NamedFilter(
        linear.box,
        "the mean of a square",
        "scipy.ndimage.uniform_filter(x, {size}, mode='nearest')",
        parameters={"size": odd(3, 15)},
        radius=_half,
        per_channel=True,
    ),
    "gaussian": NamedFilter(
        linear.gaussian,
        "a Gaussian blur, cut at three sigma",
        "scipy.ndimage.gaussian_filter(x, {sigma}, mode='nearest', truncate=3)",
        parameters={"sigma": real(1.0, 0.3, 20)},
        radius=gaussian_radius,
        per_channel=True,
    ),
    "motion": NamedFilter(
        linear.motion,
        "motion blur along a line, `angle` degrees from the horizontal",
        "scipy.ndimage.correlate(x, a line of {size} pixels at {angle} degrees / {size}, mode='nearest')",
        parameters={"size": odd(9, 15), "angle": choice(0, 45, 90, 135)},
        radius=_half,
        per_channel=True,
    ),
    "sharpen": NamedFilter(
        linear.sharpen,
        "sharpening with the four neighbours",
        "scipy.ndimage.correlate(x, [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], mode='nearest')",
        radius=1,
        per_channel=True,
    ),
    "unsharp": NamedFilter(
        linear.unsharp,
        "sharpening by the difference from a blur (unsharp mask)",
        "x + {amount} * (x - scipy.ndimage.gaussian_filter(x, {sigma}, mode='nearest', truncate=3)), clipped",
        parameters={**_SIGMA, "amount": real(1.0, 0, 10)},
        radius=lambda sigma, amount: gaussian_radius(sigma),
        per_channel=True,
    ),
    "emboss": NamedFilter(
        linear.emboss,
        "a relief, lit from one corner",
        "scipy.ndimage.correlate(x, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], mode='nearest')",
        radius=1,
        per_channel=True,
    ),
    "high_pass": NamedFilter(
        linear.high_pass,
        "what a Gaussian blur removes, on grey",
        "127.5 + x - scipy.ndimage.gaussian_filter(x, {sigma}, mode='nearest', truncate=3)",
        parameters={"sigma": real(2.0, 0.3, 5)},
        radius=gaussian_radius,
        per_channel=True,
    ),
    "laplacian": NamedFilter(
        linear.laplacian,
        "the Laplacian, on grey",
        "127.5 + scipy.ndimage.laplace(luma(x), mode='nearest') / 2",
        (3, 1),
        radius=1,
    ),
    "log": NamedFilter(
        linear.laplacian_of_gaussian,
        "the Laplacian of a Gaussian, on grey",
        "127.5 + {sigma}**2 * scipy.ndimage.gaussian_laplace(luma(x), {sigma}, mode='nearest', truncate=3)",
        (3, 1),
        _SIGMA,
        radius=gaussian_radius,
    ),
    "dog": NamedFilter(
        linear.difference_of_gaussians,
        "twice the difference of two Gaussians, on grey",
        "127.5 + 2 * 255 * skimage.filters.difference_of_gaussians(luma(x) / 255, {sigma}, {ratio} * {sigma}, "
        "mode='nearest', truncate=3)",
        (3, 1),
        {"sigma": real(1.0, 0.3, 2.5), "ratio": real(1.6, 1.1, 2)},
        radius=lambda sigma, ratio: gaussian_radius(sigma * ratio),
    ),
    "random": NamedFilter(
        linear.random,
        "a random linear kernel, from colour to grey",
        "scipy.ndimage.correlate(x, k, mode='nearest') summed over channels, k {size} x {size} x 3 from "
        "numpy.random.default_rng({seed}).uniform(-1, 1), scaled to sum |k| = 2 and shifted to sum k = 1",
        (3, 1),
        {"seed": whole(0, 0, 2**31 - 1), "size": odd(3, 15)},
        radius=_half,
    ),
    # Edge detectors on the luma.
    "sobel": NamedFilter(
        edges.sobel,
        "the gradient magnitude",
        "sqrt((gx**2 + gy**2) / 2), skimage.filters.sobel(luma(x)) for ksize=3; " + _GRADIENTS,
        (3, 1),
        _KSIZE,
        radius=lambda ksize: ksize // 2,
    ),
    "sobel_l1": NamedFilter(
        edges.sobel_l1,
        "the gradient magnitude in the L1 norm",
        "|gx| + |gy|, clipped; gx, gy = skimage.filters.sobel_v, sobel_h of luma(x)",
        (3, 1),
        radius=1,
    ),
    "sobel_x": NamedFilter(
        edges.sobel_x,
        "the horizontal derivative, on grey",
        "127.5 + gx / 2; " + _GRADIENTS,
        (3, 1),
        _KSIZE,
        radius=lambda ksize: ksize // 2,
    ),
    "sobel_y": NamedFilter(
        edges.sobel_y,
        "the vertical derivative, on grey",
        "127.5 + gy / 2; " + _GRADIENTS,
        (3, 1),
        _KSIZE,
        radius=lambda ksize: ksize // 2,
    ),
    "scharr": _by_skimage("scharr", "the gradient magnitude, more isotropic than Sobel's"),
    "prewitt": _by_skimage("prewitt", "the gradient magnitude, with uniform smoothing"),
    "roberts": _by_skimage("roberts", "the gradient magnitude from 2 x 2 pixels"),
    # Rank filters.
    "erosion": _morphology("ERODE", "the minimum of the neighbourhood"),
    "dilation": _morphology("DILATE", "the maximum of the neighbourhood"),
    "opening": _morphology("OPEN", "erosion, then dilation: bright spots removed", stages=2),
    "closing": _morphology("CLOSE", "dilation, then erosion: dark spots removed", stages=2),
    "gradient": _morphology("GRADIENT", "the morphological gradient: maximum minus minimum"),
    "top_hat": _morphology("TOPHAT", "the bright spots that opening removes", stages=2),
    "median": NamedFilter(
        neighbours.median,
        "the median of the neighbourhood",
        "cv2.medianBlur(x, {size})",
        parameters={"size": odd(3, 7)},
        radius=_half,
        per_channel=True,
    ),
    # Heavy filters, which a small network only approximates.
    "bilateral": NamedFilter(
        heavy.bilateral,
        "smoothing that keeps edges",
        "cv2.bilateralFilter(x as float32, {size}, {colour}, {space}, borderType=cv2.BORDER_REPLICATE)",
        parameters={"size": odd(9, 31), "colour": real(30.0, 1, 255), "space": real(3.0, 0.5, 16)},
        radius=None,
    ),
    "tv": NamedFilter(
        heavy.tv,
        "total variation denoising",
        "255 * skimage.restoration.denoise_tv_chambolle(x as float32 / 255, {weight}, eps=0, max_num_iter={steps}, "
        "channel_axis=2)",
        parameters={"weight": real(0.1, 0.01, 1), "steps": whole(50, 1, 500)},
        radius=None,
        padding_mode="reflect",
        per_channel=True,
    ),
    "nlm": NamedFilter(
        heavy.nlm,
        "non-local means: similar patches averaged",
        "cv2.fastNlMeansDenoising(x, None, {h}, {patch}, {search})",
        parameters={"h": real(10.0, 1, 60), "patch": odd(5, 9), "search": odd(15, 35)},
        radius=None,
        padding_mode="reflect",
        rounded=True,
    ),
    "edge_preserving": NamedFilter(
        heavy.edge_preserving,
        "edge-preserving smoothing by the domain transform",
        "cv2.edgePreservingFilter(x as BGR, None, cv2.RECURS_FILTER, {space}, {colour})",
        parameters={"space": real(20.0, 1, 200), "colour": real(0.4, 0.01, 1)},
        radius=None,
        rounded=True,
    ),
    "detail_enhance": NamedFilter(
        heavy.detail_enhance,
        "fine detail amplified",
        "cv2.detailEnhance(x as BGR, None, {space}, {colour})",
        parameters={"space": real(10.0, 1, 200), "colour": real(0.15, 0.01, 1)},
        radius=None,
        rounded=True,
    ),
    "stylise": NamedFilter(
        heavy.stylise,
        "smooth areas between dark edges",
        "cv2.stylization(x as BGR, None, {space}, {colour})",
        parameters={"space": real(20.0, 1, 200), "colour": real(0.4, 0.01, 1)},
        radius=None,
        padding_mode="reflect",
        rounded=True,
    ),
    "pencil": NamedFilter(
        heavy.pencil,
        "a pencil sketch, grey",
        "cv2.pencilSketch(x as BGR, None, None, {space}, {colour}, {shade})[0]",
        (3, 1),
        {"space": real(20.0, 1, 200), "colour": real(0.1, 0.01, 1), "shade": real(0.04, 0, 0.1)},
        radius=None,
        padding_mode="zero",
        rounded=True,
    ),
    "clahe": NamedFilter(
        heavy.clahe,
        "contrast-limited adaptive histogram equalisation",
        "cv2.createCLAHE({clip}, tiles of about {tile} x {tile} pixels).apply on L of CIE Lab",
        parameters={"clip": real(2.0, 1, 40), "tile": whole(64, 16, 512)},
        radius=None,
        padding_mode="reflect",
        rounded=True,
    ),
    "local_tone": NamedFilter(
        heavy.local_tone,
        "tone mapping that keeps detail (Durand and Dorsey 2002)",
        "x * exp(({compression} - 1) * cv2.bilateralFilter(log((luma(x) + 1) / 256), {size}, 0.4, {size} / 4))",
        parameters={"compression": real(0.6, 0.2, 1), "size": odd(15, 31)},
        radius=None,
    ),
    "l0": NamedFilter(
        heavy.l0,
        "L0 gradient minimisation (Xu, Lu, Xu and Jia 2011)",
        "Xu et al. 2011, algorithm 1, lambda={strength}, kappa={kappa}, beta up to 1e5",
        parameters={"strength": real(0.02, 0.001, 0.2), "kappa": real(2.0, 1.05, 8)},
        radius=None,
        padding_mode="wrap",
    ),
    # Filters that cannot be learned: they need more than the neighbourhood of a pixel.
    "auto_levels": NamedFilter(
        unlearnable.auto_levels,
        "levels stretched to the full range (needs the whole picture: cannot be learned)",
        "255 * skimage.exposure.rescale_intensity(x, out_range=(0, 1))",
        radius=None,
    ),
    "equalise": NamedFilter(
        unlearnable.equalise,
        "histogram equalisation (needs the whole picture: cannot be learned)",
        "cv2.equalizeHist(x) of every channel",
        radius=None,
        per_channel=True,
        rounded=True,
    ),
    "noise": NamedFilter(
        unlearnable.noise,
        "Gaussian noise (random: cannot be learned)",
        "x + numpy.random.default_rng().normal(0, {sigma}, x.shape)",
        parameters={"sigma": real(10.0, 0.1, 100)},
        radius=None,
    ),
}
