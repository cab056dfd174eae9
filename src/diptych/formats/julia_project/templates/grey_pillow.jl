"""Pillow's convert("L"): (19595 R + 38470 G + 7471 B + 0x8000) >> 16."""
function grey_pillow(pixels)
    ndims(pixels) == 2 && return pixels
    red, green, blue = (Int.(pixels[:, :, c]) for c in 1:3)
    return UInt8.((19595 .* red .+ 38470 .* green .+ 7471 .* blue .+ 32768) .>> 16)
end
