# Pixels are UInt8 in 0-255, (H, W) or (H, W, 3), until a step leaves 8 bits behind; then they are Float32.

as_float(pixels) = Float32.(pixels)

"""Rounded to the nearest level, exact halves to the even one, as Julia's `round` does."""
eight_bits(value) = UInt8(clamp(round(Int, value), 0, 255))

scaled(pixels) = Float32.(pixels) ./ 255.0f0

function normalised(pixels, mean, std)
    if ndims(pixels) == 2
        length(mean) == 1 || error("the recipe has three means, but the picture is grey; use a colour picture")
        return (pixels .- mean[1]) ./ std[1]
    end
    return (pixels .- reshape(mean, 1, 1, :)) ./ reshape(std, 1, 1, :)
end

colour(pixels) = ndims(pixels) == 2 ? cat(pixels, pixels, pixels; dims = 3) : pixels

swapped(pixels) = ndims(pixels) == 2 ? permutedims(pixels, (2, 1)) : permutedims(pixels, (2, 1, 3))
