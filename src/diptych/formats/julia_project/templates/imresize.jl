"""ImageTransformations' `imresize`: bilinear, half-pixel, not antialiased, blended in Float64."""
function imresize(pixels, height, width)
    size(pixels)[1:2] == (height, width) && return copy(pixels)
    above, below, down = two_neighbours(size(pixels, 1), height)
    left, right, across = two_neighbours(size(pixels, 2), width)
    result = zeros(eltype(pixels), height, width, size(pixels, 3))
    for c in 1:size(pixels, 3), j in 1:width, i in 1:height
        top = between_columns(pixels, above[i], c, left[j], right[j], across[j])
        bottom = between_columns(pixels, below[i], c, left[j], right[j], across[j])
        value = (1 - down[i]) * top + down[i] * bottom
        result[i, j, c] = eltype(pixels) == UInt8 ? eight_bits(255 * value) : Float32(value)
    end
    return ndims(pixels) == 2 ? result[:, :, 1] : result
end

"""One value between two columns; 8-bit levels as a fraction of 255, in the order of operations of Julia's
`Gray` (value / 255 times the weight) and `RGB` (the level times weight / 255), so that halves round alike."""
function between_columns(pixels, row, c, left, right, share)
    a, b = Float64(pixels[row, left, c]), Float64(pixels[row, right, c])
    if eltype(pixels) != UInt8
        return (1 - share) * a + share * b
    elseif ndims(pixels) == 2
        return (1 - share) * (a / 255) + share * (b / 255)
    end
    return ((1 - share) * (1 / 255)) * a + (share * (1 / 255)) * b
end

"""Along one axis from n to m: every new pixel's two neighbours and the second one's share."""
function two_neighbours(n, m)
    s = n / m
    positions = [clamp(s * i + (0.5 - 0.5 * s), 1.0, Float64(n)) for i in 1:m]
    first_ones = [min(floor(Int, x), max(n - 1, 1)) for x in positions]
    second_ones = [min(f + 1, n) for f in first_ones]
    return first_ones, second_ones, [positions[i] - first_ones[i] for i in 1:m]
end
