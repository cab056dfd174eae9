# OpenCV's resize.cpp on an x86 processor. 8-bit linear is in whole numbers, with weights of 11 bits; the others
# are summed in Float64 and rounded at the end, which parts from OpenCV's Float32 where a value lies at a half.

opencv_linear(pixels, height, width) = opencv_pairs(pixels, height, width, opencv_centred)

opencv_cubic(pixels, height, width) =
    opencv_sums(pixels, opencv_four(size(pixels, 1), height), opencv_four(size(pixels, 2), width), false)

"""The mean of the area when shrinking; when enlarging, linear between pixels that keep their own area."""
function opencv_area(pixels, height, width)
    h, w = size(pixels, 1), size(pixels, 2)
    if height > h || width > w
        return opencv_pairs(pixels, height, width, opencv_edged)
    end
    halved = (h, w) == (2 * height, 2 * width)  # for which it rounds a half up
    return opencv_sums(pixels, opencv_areas(h, height), opencv_areas(w, width), halved)
end

"""Along one axis from n to m: the first of every new pixel's two neighbours, from 0, and the second's share."""
function opencv_centred(n, m, exact)
    positions = [(i - 0.5) * (n / m) - 0.5 for i in 1:m]
    if exact
        return [floor(Int, x) for x in positions], [x - floor(x) for x in positions]
    end
    rounded = Float32.(positions)
    return [floor(Int, x) for x in rounded], [x - floor(x) for x in rounded]
end

function opencv_edged(n, m, exact)
    first_ones = [floor(Int, (i - 1) * (1 / (m / n))) for i in 1:m]  # its very operations: the last digit decides
    shares = [max(Float32(i - (first_ones[i] + 1) * (m / n)), 0.0f0) for i in 1:m]
    return first_ones, [share - floor(share) for share in shares]
end

function opencv_pairs(pixels, height, width, neighbours)
    h, w, exact = size(pixels, 1), size(pixels, 2), eltype(pixels) != UInt8
    above, down = neighbours(h, height, exact)
    left, across = neighbours(w, width, exact)
    result = zeros(eltype(pixels), height, width, size(pixels, 3))
    for c in 1:size(pixels, 3), j in 1:width, i in 1:height
        top, bottom = clamp(above[i] + 1, 1, h), clamp(above[i] + 2, 1, h)
        a, b = clamp(left[j] + 1, 1, w), clamp(left[j] + 2, 1, w)
        if exact
            upper = (1 - across[j]) * pixels[top, a, c] + across[j] * pixels[top, b, c]
            lower = (1 - across[j]) * pixels[bottom, a, c] + across[j] * pixels[bottom, b, c]
            result[i, j, c] = Float32((1 - down[i]) * upper + down[i] * lower)
        else
            first_share, second_share = opencv_bits(1 - across[j]), opencv_bits(across[j])
            upper = (Int(pixels[top, a, c]) * first_share + Int(pixels[top, b, c]) * second_share) >> 4
            lower = (Int(pixels[bottom, a, c]) * first_share + Int(pixels[bottom, b, c]) * second_share) >> 4
            total = ((upper * opencv_bits(1 - down[i])) >> 16) + ((lower * opencv_bits(down[i])) >> 16)
            result[i, j, c] = UInt8((total + 2) >> 2)
        end
    end
    return ndims(pixels) == 2 ? result[:, :, 1] : result
end

opencv_bits(share) = round(Int, 2048 * share)

"""Sums by windows, (how many old pixels lie before each, its weights); past the border the last pixel counts."""
function opencv_sums(pixels, rows, columns, half_up)
    h, w = size(pixels, 1), size(pixels, 2)
    height, width = length(rows[1]), length(columns[1])
    wide = zeros(Float64, h, width, size(pixels, 3))
    for c in 1:size(pixels, 3), j in 1:width, i in 1:h
        for k in 1:length(columns[2][j])
            wide[i, j, c] += Float64(pixels[i, clamp(columns[1][j] + k, 1, w), c]) * columns[2][j][k]
        end
    end
    result = zeros(eltype(pixels), height, width, size(pixels, 3))
    for c in 1:size(pixels, 3), j in 1:width, i in 1:height
        total = 0.0
        for k in 1:length(rows[2][i])
            total += wide[clamp(rows[1][i] + k, 1, h), j, c] * rows[2][i][k]
        end
        value = Float32(total)
        result[i, j, c] = eltype(pixels) == UInt8 ? eight_bits(half_up ? floor(value + 0.5f0) : value) : value
    end
    return ndims(pixels) == 2 ? result[:, :, 1] : result
end

"""Keys' cubic with a = -0.75."""
function opencv_four(n, m)
    first_ones, shares = opencv_centred(n, m, true)
    return [f - 1 for f in first_ones], [opencv_keys(x) for x in shares]
end

function opencv_keys(x)
    outer, inner = ((-0.75 * (x + 1) + 3.75) * (x + 1) - 6.0) * (x + 1) + 3.0, (1.25 * x - 2.25) * x * x + 1
    rest = (1.25 * (1 - x) - 2.25) * (1 - x) * (1 - x) + 1
    return [outer, inner, rest, 1 - outer - inner - rest]
end

"""The parts of the old pixels that every new one covers; less than a thousandth of one is left out."""
function opencv_areas(n, m)
    starts, weights = Int[], Vector{Float64}[]
    for i in 0:(m - 1)
        from, to = i * (n / m), (i + 1) * (n / m)
        first_one, last_one = floor(Int, from), min(ceil(Int, to), n)
        parts = [min(x + 1.0, to) - max(Float64(x), from) for x in first_one:(last_one - 1)]
        push!(starts, first_one)
        push!(weights, [part > 0.001 ? part / min(n / m, n - from) : 0.0 for part in parts])
    end
    return starts, weights
end
