"""Colors.jl 0.11 and later: round(0.001f0 * (299r + 587g + 114b))."""
function grey_julia(pixels)
    ndims(pixels) == 2 && return pixels
    red, green, blue = (Float32.(pixels[:, :, c]) for c in 1:3)
    return eight_bits.(0.001f0 .* (299.0f0 .* red .+ 587.0f0 .* green .+ 114.0f0 .* blue))
end
