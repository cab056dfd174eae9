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

"""Dark becomes light; `top` is the level of white."""
inverted(pixels, top) = eltype(pixels) == UInt8 ? UInt8(top) .- pixels : Float32(top) .- pixels

"""The picture's own mean taken away, and divided by its standard deviation."""
function standardised_picture(pixels, epsilon, corrected)
    values = Float64.(pixels)
    mean = sum(values) / length(values)
    variance = sum((values .- mean) .* (values .- mean)) / (corrected ? max(length(values) - 1, 1) : length(values))
    return Float32.((values .- mean) ./ (sqrt(variance) + epsilon))
end

colour(pixels) = ndims(pixels) == 2 ? cat(pixels, pixels, pixels; dims = 3) : pixels

swapped(pixels) = ndims(pixels) == 2 ? permutedims(pixels, (2, 1)) : permutedims(pixels, (2, 1, 3))
