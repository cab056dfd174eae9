# The transfer function of sRGB (IEC 61966-2-1), in which pictures are stored, and its inverse; `top` is the level of white.

from_srgb(v) = v <= 0.04045f0 ? v / 12.92f0 : ((max(v, 0.0f0) + 0.055f0) / 1.055f0)^2.4f0

to_srgb(v) = v <= 0.0031308f0 ? v * 12.92f0 : 1.055f0 * max(v, 0.0f0)^(1.0f0 / 2.4f0) - 0.055f0

linear_light(pixels, top) = from_srgb.(as_float(pixels) ./ top) .* top

srgb_light(pixels, top) = to_srgb.(as_float(pixels) ./ top) .* top
