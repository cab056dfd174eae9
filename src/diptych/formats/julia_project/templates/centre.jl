"""The centre of `pixels`; where a side is too short, the rest has the levels of `ground`, one or three."""
function centred(pixels, height, width, ground)
    h, w = size(pixels, 1), size(pixels, 2)
    top, left = margin(h, height), margin(w, width)
    result = fill(eltype(pixels)(ground[1]), height, width, size(pixels, 3))
    for c in 1:size(pixels, 3)
        result[:, :, c] = fill(eltype(pixels)(ground[length(ground) == 1 ? 1 : c]), height, width)
    end
    rows = max(1, 1 - top):min(height, h - top)
    columns = max(1, 1 - left):min(width, w - left)
    result[rows, columns, :] = pixels[rows .+ top, columns .+ left, :]
    return ndims(pixels) == 2 ? result[:, :, 1] : result
end

"""What is cut off before the centre of a side; negative where it is too short."""
margin(side, wanted) = side >= wanted ? round(Int, (side - wanted) / 2) : -div(wanted - side, 2)
