"""Probes a filter with a few small pictures before any time is spent on learning it.

A local network computes each pixel from those around it, by the same rule everywhere. A filter that is random,
or depends on the whole picture or on the place in it, cannot be imitated and is refused. Filters whose influence
fades with distance (total variation, L0, recursive smoothing) or that work tile by tile (CLAHE) can be
approximated; they pass, with a remark where distant pixels still matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diptych.errors import UsageError
from diptych.filters.planes import coloured
from diptych.filters.target import Target
from diptych.filters.targets import pair_probing
from diptych.filters.targets.functions import CheckedFunction
from diptych.filters.targets.named import widened
from diptych.filters.targets.pairs import Pairs
from diptych.model.layers import Array, PadMode
from diptych.preprocessing.grey import WEIGHTS, grey_pillow

__all__ = ["PADDING_MODES", "Findings", "detect_padding_mode", "probe"]

FAR = 64  # pixels; the largest radius that is looked for
_GLOBAL = 4.0  # levels; the mean influence from beyond FAR must be smaller
_NOTICEABLE = 0.25  # levels; a larger influence from beyond FAR gets a remark
_CHANGED = 1e-3  # levels; a larger difference is a change
_STEADY = 1.5  # levels; differences within a flat or periodic picture that rounding may cause
_SIDE = 256
_MANY_PIXELS = 0.1  # share of pixels; a filter that changes fewer hardly changes anything
_ROUNDED_BY = {"opencv": "OpenCV", "pillow": "Pillow", "julia": "Julia"}
PADDING_MODES: tuple[PadMode, ...] = (
    "replicate",
    "reflect",
    "symmetric",
    "zero",
    "wrap",
)  # the most likely first
_PADDING_MODE_NAMES = ", ".join(PADDING_MODES)


@dataclass(frozen=True, eq=False)
class Findings:
    """What probing a filter found.

    Attributes:
        target: The filter. A function's edge, radius and per_channel are filled in.
        remarks: Sentences for the user.
        radius: The distance in pixels up to which any change was seen; None beyond 64.
        effective: The distance up to which changes of more than a quarter of a level were seen, at most 64.
        far: The mean influence, in levels, of pixels farther away than 64.

    The distances are those seen in a few pictures. Filters that weigh pixels by similarity may have a larger radius in
    others.
    """

    target: Target
    remarks: tuple[str, ...] = ()
    radius: int | None = None
    effective: int = 0
    far: float = 0.0


def probe(target: Target, pictures: Sequence[Array] = (), seed: int = 0) -> Findings:
    """Finds out whether a local network can learn a filter, and which properties the network needs.

    A filter that states its radius is not probed.

    Args:
        target: The filter.
        pictures: Uint8 pictures to learn from, of which a part of the first is used; noise by default.
        seed: For the pictures of noise.

    Raises:
        UsageError: The filter cannot be learned by a local network; the message says why.
    """
    if isinstance(target, Pairs):
        return Findings(target, pair_probing.examine(target))
    if target.radius is not None:
        return Findings(target, (), target.radius, target.radius)
    generator = np.random.default_rng(seed)
    grey = target.channels[0] == 1
    picture = _square(pictures[0] if len(pictures) else generator.integers(0, 256, (_SIDE, _SIDE, 3)), grey)
    _check_deterministic(target, picture[:61, :83])
    far = _influence_from_afar(target, picture, generator)
    _check_position(target, generator, grey)
    radius, effective = _radius(target, generator, grey)
    remarks = []
    if far > _NOTICEABLE:
        remarks.append(
            f"pixels farther away than {FAR} change the result by {far:.1f} levels on average, so it can only be "
            "approximated"
        )
    if isinstance(target.function, CheckedFunction):
        target, more = _filled_in(target, picture, radius)
        remarks += more
    return Findings(target, tuple(remarks), radius, effective, far)


def _filled_in(target: Target, picture: Array, radius: int | None) -> tuple[Target, list[str]]:
    """A function with its edge, radius and channels filled in, and remarks."""
    remarks = []
    if target.channels[0] == 1:
        remarks.append(f"{target.name} takes grey pictures only, and is learned on grey pictures")
    grey = "" if radius == 0 else _grey_first(target)
    if grey:
        remarks.append(f"{target.name} makes colour grey first, in whole levels, as {_ROUNDED_BY[grey]} does")
        target = _of_grey(target, grey)
        picture = WEIGHTS[grey](picture)
    left_alone = 0 if radius == 0 else _left_alone(target, picture[:61, :83])
    padding_mode, error = target.edge, 0.0
    if radius != 0 and not left_alone:
        padding_mode, error = detect_padding_mode(target, picture[:96, :96], radius or FAR // 2)
    if error > 1 and radius is not None:
        remarks.append(
            f"the edge is none of {_PADDING_MODE_NAMES}: the closest, {padding_mode}, "
            f"is off by {error:.1f} levels on average along the border"
        )
    per_channel = _is_per_channel(target, picture[:61, :83])
    return replace(
        target, edge=padding_mode, radius=radius, per_channel=per_channel, left_alone=left_alone
    ), remarks


def _of_grey(target: Target, weights: str) -> Target:
    """The same filter for grey pictures."""
    channels = (1, target.channels[1])
    return replace(
        target, grey=weights, channels=channels, function=lambda image: target.function(coloured(image))
    )


def _left_alone(target: Target, picture: Array) -> int:
    """The width in pixels of a border that stays unchanged while other pixels change."""
    answer = _levels(target, picture)
    if answer.shape != picture.shape:
        return 0
    changed = np.abs(answer - picture) > _CHANGED
    changed = changed if changed.ndim == 2 else changed.any(axis=2)
    for width in range(min(changed.shape) // 2):
        last = -1 - width
        sides = (changed[width], changed[last], changed[:, width], changed[:, last])
        if any(side.any() for side in sides):
            return width if sides[0].mean() > _MANY_PIXELS else 0
    return 0


def _grey_first(target: Target) -> str:
    """How a filter makes colour grey before anything else, as a weight of `preprocessing.Grey`; "" if it does not.

    The kinds of grey differ by a level in one of a thousand colours, so 90,000 colours are tried.
    """
    if target.channels[0] == 1:
        return ""
    colours = np.random.default_rng(1).integers(0, 256, (300, 300, 3))
    # High contrast may be clipped, so low contrast is tried as well.
    pictures = [given.astype(np.uint8) for given in (colours, 96 + colours // 8)]
    small = pictures[0][:40, :40]
    if np.mean(target(small) != target(coloured(grey_pillow(small)))) > 0.5:
        return ""  # decided on a small picture, since filters may be slow
    answers = [target(picture) for picture in pictures]
    for weights in _ROUNDED_BY:
        greys = (coloured(WEIGHTS[weights](picture)) for picture in pictures)
        if all(np.array_equal(target(grey), answer) for grey, answer in zip(greys, answers, strict=True)):
            return weights
    return ""


def detect_padding_mode(target: Target, picture: Array, radius: int) -> tuple[PadMode, float]:
    """Finds how a filter extends a picture beyond its border.

    The filtered picture is compared with the filter of the picture extended in every mode, on a band along the border.

    Args:
        target: The filter.
        picture: Uint8, (H, W, 3) or (H, W).
        radius: Pixels by which to extend, and the width of the band.

    Returns:
        The mode with the smallest error, and its mean error in levels on the band.
    """
    filtered = _levels(target, picture)
    band = np.ones(picture.shape[:2], bool)
    width = max(min(radius, *(side // 2 - 1 for side in picture.shape[:2])), 1)
    band[width:-width, width:-width] = False
    errors: dict[PadMode, float] = {}
    for mode in PADDING_MODES:
        extended = widened(target, radius, mode)(picture) * 255
        errors[mode] = float(np.abs(extended - filtered)[band].mean())
    best = min(PADDING_MODES, key=lambda mode: errors[mode])
    return best, errors[best]


def _levels(target: Target, picture: Array) -> Array:
    levels: Array = target(picture) * np.float32(255)
    return levels


def _square(picture: Array, grey: bool) -> Array:
    """The middle 256 x 256 pixels of a picture; smaller ones are continued by mirror images."""
    picture = np.asarray(picture, np.uint8)
    picture = grey_pillow(picture) if grey else coloured(picture)
    for axis in (0, 1):
        side = picture.shape[axis]
        if side < _SIDE:
            widths = [(0, 0)] * picture.ndim
            widths[axis] = (0, _SIDE - side)
            picture = np.pad(picture, widths, mode="symmetric")
        else:
            picture = picture.take(range((side - _SIDE) // 2, (side + _SIDE) // 2), axis)
    return np.ascontiguousarray(picture)


def _check_deterministic(target: Target, picture: Array) -> None:
    """Refuses a filter that gives different results for the same picture."""
    difference = float(np.abs(_levels(target, picture) - _levels(target, picture)).max())
    if difference > _CHANGED:
        raise UsageError(
            f"{target.name} is random: two results for the same picture differ by up to {difference:.3g} levels, "
            "and a network always gives the same result; learn the part that is not random (with a fixed seed the "
            "noise would depend on the place in the picture, which a local network cannot imitate either)"
        )


def _check_position(target: Target, generator: np.random.Generator, grey: bool) -> None:
    """Refuses a filter that treats equal patterns at different places differently."""
    last = () if grey else (3,)
    period = 7
    pattern = generator.integers(0, 256, (period, period, *last), dtype=np.uint8)
    flat = np.broadcast_to(np.array(96 if grey else (40, 96, 200), np.uint8), (period, period, *last))
    inside = slice(63, 189)
    for cell in (flat, pattern):
        whole = np.tile(cell, (37, 37) if grey else (37, 37, 1))[:_SIDE, :_SIDE]
        described = "of a single colour" if cell is flat else f"that repeats every {period} pixels"
        try:
            shown = _levels(target, np.ascontiguousarray(whole))[inside, inside]
        except UsageError as error:
            raise UsageError(f"on a picture {described}, {error}") from error
        cells = shown.reshape(18, period, 18, period, -1)
        usual = np.median(cells, axis=(0, 2), keepdims=True)
        if cell is flat:
            usual = np.median(cells, axis=(0, 1, 2, 3), keepdims=True)
        off = float(np.abs(cells - usual).mean(axis=(1, 3, 4)).max())
        if off > _STEADY:
            raise UsageError(
                f"{target.name} depends on the place in the picture: results for the same pattern differ by up to "
                f"{off:.1f} levels between places, and a local network treats all places alike; "
                "learn the part that is the same everywhere"
            )


def _influence_from_afar(target: Target, picture: Array, generator: np.random.Generator) -> float:
    """The mean change in levels at a distance of 64 to 128 pixels from a change.

    Raises `UsageError` where it is too large for an influence that fades with distance.
    """
    third = 96
    muted = 64 + picture // 2  # neither black nor white, so that a filter that stretches levels has an effect
    glaring, dim = muted.copy(), muted.copy()
    spots = generator.random((_SIDE, third) + (1,) * (picture.ndim - 2)) < 0.5
    glaring[:, :third] = np.where(spots, 0, 255)
    dim[:, :third] //= 4
    band = slice(third + FAR, third + 2 * FAR)
    before, *after = (_levels(target, each)[:, band] for each in (muted, glaring, dim))
    far = max(float(np.abs(each - before).mean()) for each in after)
    if far > _NOTICEABLE and any(_is_rescaled(before, each) for each in after):
        raise UsageError(
            f"{target.name} rescales its result by values of the whole picture, such as its extremes, mean or "
            f"histogram: a change of one side changed the scale more than {FAR} pixels away, by {far:.1f} levels on "
            "average, and a local network does not see that far; rescale by fixed numbers instead"
        )
    if far > _GLOBAL:
        raise UsageError(
            f"{target.name} depends on the whole picture: a change of one side changed pixels more than {FAR} pixels "
            f"away by {far:.0f} levels on average, and a local network does not see that far; "
            "learn the filter with fixed settings instead"
        )
    return far


def _is_rescaled(before: Array, after: Array) -> bool:
    """Whether one result is a factor times the other, plus an offset, within rounding and clipping."""
    free = (before > 1) & (before < 254) & (after > 1) & (after < 254)
    x, y = before[free].astype(np.float64), after[free].astype(np.float64)
    if len(x) < 100 or x.std() < 1 or y.std() < 1:
        return False
    slope, offset = np.polyfit(x, y, 1)
    apart, change = slope * x + offset - y, float(np.sqrt(np.square(y - x).mean()))
    return bool(np.abs(apart).max() < _STEADY and apart.std() < 0.2 * change)


def _radius(target: Target, generator: np.random.Generator, grey: bool) -> tuple[int | None, int]:
    """The distances up to which changes are seen.

    The first counts any change, None beyond 64 pixels; the second counts changes of more than a quarter of a level.
    """
    half, block = 8, 2 * (FAR + 8) + 32
    noise = generator.integers(64, 192, (block, block) if grey else (block, block, 3), dtype=np.uint8)
    smooth = (noise // 32 + 112).astype(np.uint8)
    middle = slice(block // 2 - half, block // 2 + half)
    away = np.abs(np.arange(block) + 0.5 - block / 2) - half + 0.5
    distance = np.maximum(np.maximum(away[:, None], away[None, :]), 0)
    changed_at, noticeable_at = 0.0, 0.0
    for around, inner in ((noise, 255), (noise, 0), (smooth, 255)):
        changed = around.copy()
        changed[middle, middle] = inner
        difference = np.abs(_levels(target, changed) - _levels(target, around))
        difference = difference if difference.ndim == 2 else difference.max(axis=2)
        changed_at = max(changed_at, float(distance[difference > _CHANGED].max(initial=0)))
        noticeable_at = max(noticeable_at, float(distance[difference > _NOTICEABLE].max(initial=0)))
    return (int(changed_at) if changed_at <= FAR else None), min(int(noticeable_at), FAR)


def _is_per_channel(target: Target, picture: Array) -> bool:
    """Whether channels are treated alike, each alone."""
    if target.channels != (3, 3):
        return False
    order, filtered = [2, 0, 1], _levels(target, picture)
    turned = _levels(target, np.ascontiguousarray(picture[..., order]))
    other = picture.copy()
    other[..., 0] = np.random.default_rng(0).integers(0, 256, picture.shape[:2])
    apart = np.abs(_levels(target, other) - filtered)[..., 1:].max()
    return bool(np.abs(turned - filtered[..., order]).max() <= _CHANGED and apart <= _CHANGED)
