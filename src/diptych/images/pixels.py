"""Conversion of the pixels of any file to 8-bit sRGB or grey, with a remark where something is decided.

The rules: the high byte of 16 bits (as libpng, libtiff and OpenCV do), numbers with a fraction from 0-1 to
0-255, transparency over white, an embedded colour profile other than sRGB converted to sRGB.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

__all__ = ["OutOfRange", "full_scale", "of_rows", "to_plain"]


class OutOfRange(ValueError):
    """The samples are of a kind or on a scale that is not known, so that reading them would be a guess."""


def to_plain(image: Image.Image, rawmode: str) -> tuple[Image.Image | NDArray[np.uint8], tuple[str, ...]]:
    """Converts a loaded Pillow image to 8-bit sRGB or grey.

    Args:
        image: The image, of any mode.
        rawmode: How the file stores its pixels, such as "RGB;16B", which Pillow forgets on loading.

    Returns:
        An image of mode RGB or L where Pillow holds the pixels so, else uint8 (H, W, 3) or (H, W); and the remarks.

    Raises:
        OutOfRange: The numbers are on no known scale.
        Exception: Whatever Pillow raises on a damaged palette.
    """
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;16"):
        return _from_numbers(image)
    remarks = ["16 bits to 8: the high byte"] if ";16" in rawmode else []
    image = _plain(image, remarks)
    image = _to_srgb(image, remarks)
    if image.mode in ("LA", "RGBA"):
        return _over_white(np.asarray(image), remarks), tuple(remarks)
    return image, tuple(remarks)


def of_rows(
    rows: NDArray[Any], profile: bytes | None
) -> tuple[Image.Image | NDArray[np.uint8], tuple[str, ...]]:
    """Converts the rows of a TIFF file to 8-bit sRGB or grey.

    Args:
        rows: Uint8, uint16 or float32, (H, W, 1 or 3).
        profile: The colour profile embedded in the file, or None.

    Returns:
        As `to_plain`.

    Raises:
        OutOfRange: The fractions are on no known scale.
    """
    values, remarks = rows if rows.shape[2] == 3 else rows[..., 0], tuple[str, ...]()
    if values.dtype.kind == "f":
        values, remarks = _from_fractions(values)
    elif values.dtype == np.uint16:
        values, remarks = (values >> 8).astype(np.uint8), ("16 bits to 8: the high byte",)
    image = Image.fromarray(np.ascontiguousarray(values))
    if profile:
        image.info["icc_profile"] = profile
    plain, more = to_plain(image, "")
    return plain, (*remarks, *more)


def _from_numbers(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    values = np.asarray(image)
    if image.mode == "F":
        return _from_fractions(values)
    remarks = ["16 bits to 8: the high byte"]
    if image.mode == "I":
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0 or highest > 65535:
            raise OutOfRange(
                f"its values go from {lowest} to {highest}, and only 0-255 and 0-65535 are known"
            )
        if highest <= 255:
            return values.astype(np.uint8), (f"32 bits with values up to {highest}, taken as 0-255",)
    pixels = (values >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int) and (clear := values == key).any():
        pixels[clear] = 255
        remarks.append("transparency over white")
    return pixels, tuple(remarks)


def _from_fractions(values: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    remarks = ["fractions from 0-1 to 0-255"]
    finite = np.isfinite(values)
    if not finite.all():
        remarks.append(f"{int((~finite).sum())} values that are not numbers shown as black")
        values = np.where(finite, values, 0)
    lowest, highest = float(values.min()), float(values.max())
    full = full_scale(lowest, highest)
    if full == 255:
        remarks[0] = f"fractions from {lowest:.4g} to {highest:.4g}, taken as 0-255"
    if lowest < 0 or highest > full:
        remarks.append(f"values from {lowest:.4g} to {highest:.4g} clipped to 0-{full}")
    return np.rint(np.clip(values, 0, full) * (255 / full)).astype(np.uint8), tuple(remarks)


def full_scale(lowest: float, highest: float) -> int:
    """Finds what stands for white in a picture of fractions.

    Args:
        lowest: The lowest value.
        highest: The highest value.

    Returns:
        1 or 255.

    Raises:
        OutOfRange: The values fit neither.
    """
    # Resampling overshoots a little; between the two scales nobody can tell which is meant.
    for full, least in ((1, 0.0), (255, 32.0)):
        if lowest >= -0.1 * full and least <= highest <= 1.1 * full:
            return full
    raise OutOfRange(f"its values go from {lowest:.4g} to {highest:.4g}, and only 0-1 and 0-255 are known")


def _plain(image: Image.Image, remarks: list[str]) -> Image.Image:
    """One of L, LA, RGB, RGBA, CMYK or LAB, without a palette or a transparent colour."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # 16-bit colour: Pillow keeps the key but not the pixels
        remarks.append("the transparent colour of a 16-bit picture not applied")
        del image.info["transparency"]
    see_through = image.has_transparency_data
    if image.mode == "1":
        image = image.convert("L") if not see_through else image.convert("LA")
    elif image.mode in ("P", "PA", "RGBa", "RGBX"):
        image = image.convert("RGBA" if see_through else "RGB")
    elif image.mode in ("L", "La") and see_through:
        image = image.convert("LA")
    elif image.mode == "RGB" and see_through:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        remarks.append(f"{image.mode} to RGB")
        image = image.convert("RGB")
    return image


def _over_white(pixels: NDArray[np.uint8], remarks: list[str]) -> NDArray[np.uint8]:
    """Colour over white in proportion to alpha, rounded to nearest: (c*a + 255*(255-a)) / 255."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if colour.shape[2] == 1:
        colour, alpha = colour[..., 0], alpha[..., 0]
    if (alpha == 255).all():
        return np.ascontiguousarray(colour)
    remarks.append("transparency over white")
    a = alpha.astype(np.uint16)
    return ((colour * a + (255 - a) * 255 + 127) // 255).astype(np.uint8)


def _to_srgb(image: Image.Image, remarks: list[str]) -> Image.Image:
    embedded = image.info.get("icc_profile")
    if embedded and image.mode not in ("L", "LA"):  # grey profiles only bend the tone curve: left alone
        converted = _through_profile(image, embedded, remarks)
        if converted is not None:
            return converted
    if image.mode == "LAB":
        remarks.append("LAB to RGB")
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return _converted(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    if image.mode == "CMYK":
        remarks.append("CMYK to RGB without a colour profile")
        return image.convert("RGB")
    return image


def _through_profile(image: Image.Image, embedded: bytes, remarks: list[str]) -> Image.Image | None:
    """The picture in sRGB; None when its profile is sRGB already, damaged, or meant for other pixels."""
    to = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        name = _shown(profile.profile.profile_description)
        if profile.profile.xcolor_space.strip() == "RGB" and _is_srgb(name):
            return None
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), image.mode, to)
        converted = _converted(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        remarks.append("a colour profile that does not fit not applied")
        return None
    remarks.append(f"colour profile {name!r} to sRGB")
    return converted


def _converted(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only an in-place conversion answers None
    return converted


def _is_srgb(name: str) -> bool:
    lower = name.lower()
    return ("srgb" in lower and "linear" not in lower) or lower == "c2"  # c2: the tiny sRGB of web services


def _shown(description: str | None) -> str:
    return "".join(sign for sign in description or "" if sign.isprintable()).strip()[:60] or "without a name"
