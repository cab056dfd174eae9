# Pillow's resampling (libImaging/Resample.c): antialiased when shrinking, first along rows, then columns; the other
# way round for pictures that lose more than twice as many rows as columns, as Pillow 13 does.
# 8-bit pixels use fixed-point weights of 22 bits and are rounded between the two passes; Float32 is summed
# in Float64.

const PILLOW_BITS = 22

pillow_bilinear(pixels, height, width) = pillow(pixels, height, width, triangle, 1.0)
pillow_bicubic(pixels, height, width) = pillow(pixels, height, width, cubic, 2.0)
pillow_lanczos(pixels, height, width) = pillow(pixels, height, width, lanczos, 3.0)

triangle(x) = abs(x) < 1.0 ? 1.0 - abs(x) : 0.0

function cubic(x)
    x, a = abs(x), -0.5
    if x < 1.0
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    end
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0
end

lanczos(x) = -3.0 <= x < 3.0 ? sine_over(x) * sine_over(x / 3) : 0.0
sine_over(x) = x == 0.0 ? 1.0 : sin(x * pi) / (x * pi)

function pillow(pixels, height, width, window, support)
    rows_lost, columns_lost = size(pixels, 1) - height, size(pixels, 2) - width
    if rows_lost > 0 && rows_lost > 2 * columns_lost
        return pillow_across(pillow_down(pixels, height, window, support), width, window, support)
    end
    return pillow_down(pillow_across(pixels, width, window, support), height, window, support)
end

function pillow_across(pixels, width, window, support)
    return size(pixels, 2) == width ? copy(pixels) : along_rows(pixels, width, window, support)
end

pillow_down(pixels, height, window, support) = turned(pillow_across(turned(pixels), height, window, support))

turned(pixels) = ndims(pixels) == 2 ? permutedims(pixels, (2, 1)) : permutedims(pixels, (2, 1, 3))

function along_rows(pixels, width, window, support)
    starts, weights = pillow_weights(size(pixels, 2), width, window, support)
    result = zeros(eltype(pixels), size(pixels, 1), width, size(pixels, 3))
    for c in 1:size(pixels, 3), j in 1:width, i in 1:size(pixels, 1)
        if eltype(pixels) == UInt8
            total = 1 << (PILLOW_BITS - 1)
            for k in 1:length(weights[j])
                total += Int(pixels[i, starts[j] + k, c]) * fixed_point(weights[j][k])
            end
            result[i, j, c] = UInt8(clamp(total >> PILLOW_BITS, 0, 255))
        else
            sum_of_row = 0.0
            for k in 1:length(weights[j])
                sum_of_row += Float64(pixels[i, starts[j] + k, c]) * weights[j][k]
            end
            result[i, j, c] = Float32(sum_of_row)
        end
    end
    return ndims(pixels) == 2 ? result[:, :, 1] : result
end

fixed_point(weight) = trunc(Int, weight < 0 ? weight * (1 << PILLOW_BITS) - 0.5 : weight * (1 << PILLOW_BITS) + 0.5)

"""For every new pixel: how many old ones lie before its window, and the window's weights, of sum 1."""
function pillow_weights(n, m, window, support)
    scale = n / m
    stretch = max(scale, 1.0)
    reach = support * stretch
    starts, weights = Int[], Vector{Float64}[]
    for j in 0:(m - 1)
        centre = (j + 0.5) * scale
        first_one = max(trunc(Int, centre - reach + 0.5), 0)
        last_one = min(trunc(Int, centre + reach + 0.5), n)
        values = [window((x - centre + 0.5) * (1.0 / stretch)) for x in first_one:(last_one - 1)]
        total = sum(values)
        push!(starts, first_one)
        push!(weights, total == 0.0 ? values : values ./ total)
    end
    return starts, weights
end
