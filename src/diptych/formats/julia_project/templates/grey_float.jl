"""0.299 R + 0.587 G + 0.114 B in Float32, not rounded."""
function grey_float(pixels)
    ndims(pixels) == 2 && return Float32.(pixels)
    red, green, blue = (Float32.(pixels[:, :, c]) for c in 1:3)
    return 0.299f0 .* red .+ 0.587f0 .* green .+ 0.114f0 .* blue
end
