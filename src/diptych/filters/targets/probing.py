"""What can be known of a filter before time is spent on it: a few small pictures through it, and a look.

A local network computes every pixel from those around it, by the same rule everywhere, and nothing else. A
filter that is random, that depends on the whole picture or on the place in it cannot be imitated, and is
refused here. What fades with distance (total variation, L0, recursive smoothing) can be approached, and what
works tile by tile (CLAHE) too: they pass, with a remark where far pixels still count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diptych.errors import UsageError
from diptych.filters.planes import coloured
from diptych.filters.target import Target
from diptych.filters.targets import pair_probing
from diptych.filters.targets.functions import Checked
from diptych.filters.targets.named import widened
from diptych.filters.targets.pairs import Pairs
from diptych.model.layers import Array, PadMode
from diptych.preprocessing.grey import WEIGHTS, grey_pillow

__all__ = ["PADDING_MODES", "Findings", "detect_padding_mode", "probe"]

FAR = 64  # pixels: what reaches farther is not looked for by `radius`
_GLOBAL = 4.0  # levels: pixels beyond FAR must matter less than this on average
_FELT = 0.25  # levels: a mean influence beyond FAR that is worth a remark
_SEEN = 1e-3  # levels: a change
_STEADY = 1.5  # levels: what may change over a flat or periodic picture, by rounding
_SIDE = 256
_OFTEN = 0.1  # of the pixels: fewer are changed by a filter that changes hardly anything
_ROUNDED_BY = {"opencv": "OpenCV", "pillow": "Pillow", "julia": "Julia"}
PADDING_MODES: tuple[PadMode, ...] = ("replicate", "reflect", "zero", "wrap")  # the likeliest first
_PADDING_MODE_NAMES = ", ".join(PADDING_MODES).replace(
    "reflect", "reflect (without repeating the border pixel)"
)


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found, and remarks for the reader.

    `target`: a function's with what was found filled in (edge, radius, per_channel); a named one as it was.
    `radius`: how far in pixels a change was seen at all, None beyond 64. `effective`: the distance beyond which
    no change of more than a quarter of a level was seen, at most 64. Both are what was seen in a few pictures:
    filters that weigh by likeness may reach farther in others. `far`: by how many levels on average pixels
    farther than 64 matter.
    """

    target: Target
    remarks: tuple[str, ...] = ()
    radius: int | None = None
    effective: int = 0
    far: float = 0.0


def probe(target: Target, pictures: Sequence[Array] = (), seed: int = 0) -> Findings:
    """Looks whether a local network can learn `target`, and what it should look like.

    `pictures` (uint8) are those to learn from; the first is looked at in small. A filter whose radius is
    known is taken at its word. Raises `UsageError`, with the reason, for a filter that no local network can
    do, or that keeps to no contract.
    """
    if isinstance(target, Pairs):
        return Findings(target, pair_probing.examine(target))
    if target.radius is not None:
        return Findings(target, (), target.radius, target.radius)
    generator = np.random.default_rng(seed)
    grey = target.channels[0] == 1
    picture = _square(pictures[0] if len(pictures) else generator.integers(0, 256, (_SIDE, _SIDE, 3)), grey)
    _check_deterministic(target, picture[:61, :83])
    _check_position(target, generator, grey)
    far = _influence_from_afar(target, picture, generator)
    radius, effective = _radius(target, generator, grey)
    remarks = []
    if far > _FELT:
        remarks.append(
            f"pixels farther than {FAR} still matter by {far:.1f} levels: it can only be approached"
        )
    if isinstance(target.function, Checked):
        target, more = _filled_in(target, picture, radius)
        remarks += more
    return Findings(target, tuple(remarks), radius, effective, far)


def _filled_in(target: Target, picture: Array, radius: int | None) -> tuple[Target, list[str]]:
    """A function's edge, radius and channels, and remarks on them."""
    remarks = []
    if target.channels[0] == 1:
        remarks.append(f"{target.name} takes grey pictures only, and is learned for those")
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
            f"what happens at the border is none of {_PADDING_MODE_NAMES}: the nearest, {padding_mode}, "
            f"is off by {error:.1f} levels there on average"
        )
    per_channel = _is_per_channel(target, picture[:61, :83])
    return replace(
        target, edge=padding_mode, radius=radius, per_channel=per_channel, left_alone=left_alone
    ), remarks


def _of_grey(target: Target, weights: str) -> Target:
    """The same filter for grey pictures; colour is made grey before."""
    channels = (1, target.channels[1])
    return replace(
        target, grey=weights, channels=channels, function=lambda image: target.function(coloured(image))
    )


def _left_alone(target: Target, picture: Array) -> int:
    """How many pixels along the border stay as they are, where all others do not."""
    answer = _levels(target, picture)
    if answer.shape != picture.shape:
        return 0
    changed = np.abs(answer - picture) > _SEEN
    changed = changed if changed.ndim == 2 else changed.any(axis=2)
    for width in range(min(changed.shape) // 2):
        last = -1 - width
        sides = (changed[width], changed[last], changed[:, width], changed[:, last])
        if any(side.any() for side in sides):
            return width if sides[0].mean() > _OFTEN else 0
    return 0


def _grey_first(target: Target) -> str:
    """The weights of `preprocessing.Grey` after which the filter sees nothing but grey; none where it sees more.

    The kinds differ by a level in one colour of a thousand, and 90,000 are tried.
    """
    if target.channels[0] == 1:
        return ""
    colours = np.random.default_rng(1).integers(0, 256, (300, 300, 3))
    pictures = [
        given.astype(np.uint8) for given in (colours, 96 + colours // 8)
    ]  # what has contrast may be clipped
    small = pictures[0][:40, :40]
    if np.mean(target(small) != target(coloured(grey_pillow(small)))) > 0.5:
        return ""  # soon said, for what is slow
    answers = [target(picture) for picture in pictures]
    for weights in _ROUNDED_BY:
        greys = (coloured(WEIGHTS[weights](picture)) for picture in pictures)
        if all(np.array_equal(target(grey), answer) for grey, answer in zip(greys, answers, strict=True)):
            return weights
    return ""


def detect_padding_mode(target: Target, picture: Array, radius: int) -> tuple[PadMode, float]:
    """What the filter takes the pixels beyond the border to be, and by how many levels that is off on average.

    Compares the filtered picture with the filter of the same picture extended by `radius` pixels in every
    mode; the mean is over a band of that width along the border.
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
    """The middle of a picture, or all of it and its mirror images, 256 x 256."""
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
    difference = float(np.abs(_levels(target, picture) - _levels(target, picture)).max())
    if difference > _SEEN:
        raise UsageError(
            f"{target.name} is random: the same picture twice gave results that differ by up to {difference:.3g} "
            "levels, and a network cannot learn chance; fix its seed, or learn the part that is not random"
        )


def _check_position(target: Target, generator: np.random.Generator, grey: bool) -> None:
    """A flat picture must stay flat away from the border, and a pattern must stay the same wherever it stands."""
    last = () if grey else (3,)
    period = 7
    pattern = generator.integers(0, 256, (period, period, *last), dtype=np.uint8)
    flat = np.broadcast_to(np.array(96 if grey else (40, 96, 200), np.uint8), (period, period, *last))
    inside = slice(63, 189)
    for cell in (flat, pattern):
        whole = np.tile(cell, (37, 37) if grey else (37, 37, 1))[:_SIDE, :_SIDE]
        shown = _levels(target, np.ascontiguousarray(whole))[inside, inside]
        cells = shown.reshape(18, period, 18, period, -1)
        usual = np.median(cells, axis=(0, 2), keepdims=True)
        if cell is flat:
            usual = np.median(cells, axis=(0, 1, 2, 3), keepdims=True)
        off = float(np.abs(cells - usual).mean(axis=(1, 3, 4)).max())
        if off > _STEADY:
            raise UsageError(
                f"{target.name} depends on the place in the picture: the same pattern comes out up to {off:.1f} "
                "levels apart in different places, and a local network treats all places alike; "
                "learn the part that is the same everywhere"
            )


def _influence_from_afar(target: Target, picture: Array, generator: np.random.Generator) -> float:
    """The mean change in levels, 64 to 128 pixels from a change; raises where there is no fading."""
    third = 96
    muted = 64 + picture // 2  # not black nor white, so that a stretch of the levels has something to do
    glaring, dim = muted.copy(), muted.copy()
    spots = generator.random((_SIDE, third) + (1,) * (picture.ndim - 2)) < 0.5
    glaring[:, :third] = np.where(spots, 0, 255)
    dim[:, :third] //= 4
    before = _levels(target, muted)
    band = slice(third + FAR, third + 2 * FAR)
    far = max(float(np.abs(_levels(target, other) - before)[:, band].mean()) for other in (glaring, dim))
    if far > _GLOBAL:
        raise UsageError(
            f"{target.name} depends on the whole picture: changing one side of it changed pixels more than {FAR} "
            f"pixels away by {far:.0f} levels on average, and a local network never sees those; "
            "learn what it does with fixed settings instead"
        )
    return far


def _radius(target: Target, generator: np.random.Generator, grey: bool) -> tuple[int | None, int]:
    """How far a change was seen at all (None: beyond 64 pixels), and how far by over a quarter of a level."""
    half, block = 8, 2 * (FAR + 8) + 32
    noise = generator.integers(64, 192, (block, block) if grey else (block, block, 3), dtype=np.uint8)
    smooth = (noise // 32 + 112).astype(np.uint8)
    middle = slice(block // 2 - half, block // 2 + half)
    away = np.abs(np.arange(block) + 0.5 - block / 2) - half + 0.5
    distance = np.maximum(np.maximum(away[:, None], away[None, :]), 0)
    seen, felt = 0.0, 0.0
    for around, inner in ((noise, 255), (noise, 0), (smooth, 255)):
        changed = around.copy()
        changed[middle, middle] = inner
        difference = np.abs(_levels(target, changed) - _levels(target, around))
        difference = difference if difference.ndim == 2 else difference.max(axis=2)
        seen = max(seen, float(distance[difference > _SEEN].max(initial=0)))
        felt = max(felt, float(distance[difference > _FELT].max(initial=0)))
    return (int(seen) if seen <= FAR else None), min(int(felt), FAR)


def _is_per_channel(target: Target, picture: Array) -> bool:
    if target.channels != (3, 3):
        return False
    order, filtered = [2, 0, 1], _levels(target, picture)
    turned = _levels(target, np.ascontiguousarray(picture[..., order]))
    other = picture.copy()
    other[..., 0] = np.random.default_rng(0).integers(0, 256, picture.shape[:2])
    apart = np.abs(_levels(target, other) - filtered)[..., 1:].max()
    return bool(np.abs(turned - filtered[..., order]).max() <= _SEEN and apart <= _SEEN)
