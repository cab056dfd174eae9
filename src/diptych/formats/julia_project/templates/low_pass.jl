gaussian_tap(apart, reach, sigma) = abs(apart) <= reach ? exp((0.0 - apart * apart) / (2 * sigma * sigma)) : 0.0

"""The matrix that smooths `n` pixels before they become `size`; each row has the taps that lie inside, which sum to 1."""
function smoothing(n, size)
    sigma = 0.75 * n / size
    reach = 2 * ceil(sigma)
    places = Float64.(collect(1:n))
    taps = gaussian_tap.(places .- reshape(places, 1, n), reach, sigma)
    return taps ./ sum(taps; dims = 2)
end

"""Gaussian smoothing, as `imfilter(img, KernelFactors.gaussian, NA())`, before a resize to height and width."""
function low_pass(pixels, height, width)
    down = smoothing(size(pixels, 1), height)
    across = permutedims(smoothing(size(pixels, 2), width), (2, 1))
    smooth(plane) = Float32.(Float64.(Float32.(down * Float64.(plane))) * across)
    if ndims(pixels) == 2
        return smooth(pixels)
    end
    return cat(smooth(pixels[:, :, 1]), smooth(pixels[:, :, 2]), smooth(pixels[:, :, 3]); dims = 3)
end
