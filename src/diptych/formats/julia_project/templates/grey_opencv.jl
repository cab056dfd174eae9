"""OpenCV's cvtColor: (9798 R + 19235 G + 3735 B + 0x4000) >> 15."""
function grey_opencv(pixels)
    ndims(pixels) == 2 && return pixels
    red, green, blue = (Int.(pixels[:, :, c]) for c in 1:3)
    return UInt8.((9798 .* red .+ 19235 .* green .+ 3735 .* blue .+ 16384) .>> 15)
end
