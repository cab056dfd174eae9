"""
`pixels` at height x width by `kernel`; `fit` is "stretch", "crop" (centre), "pad" (on `ground`), or one of those that
keep the whole picture as it is: "cover", "cover-rounded" and "contain".
"""
function resized(pixels, height, width, kernel, fit, ground)
    h, w = size(pixels, 1), size(pixels, 2)
    inner_height, inner_width = size_within(h, w, height, width, fit)
    result = kernel(pixels, inner_height, inner_width)
    if fit == "crop"
        top, left = round(Int, (inner_height - height) / 2), round(Int, (inner_width - width) / 2)
        rows, columns = (top + 1):(top + height), (left + 1):(left + width)
        return ndims(result) == 2 ? result[rows, columns] : result[rows, columns, :]
    elseif fit == "pad" && (inner_height, inner_width) != (height, width)
        top, left = round(Int, (height - inner_height) / 2), round(Int, (width - inner_width) / 2)
        whole = fill(eltype(result)(ground), height, width, size(result, 3))
        whole[(top + 1):(top + inner_height), (left + 1):(left + inner_width), :] = result
        return ndims(result) == 2 ? whole[:, :, 1] : whole
    end
    return result
end

function size_within(h, w, height, width, fit)
    if fit == "cover-rounded" || fit == "contain"
        ratio = fit == "contain" ? max(h / height, w / width) : min(h / height, w / width)
        return max(1, round(Int, h / ratio)), max(1, round(Int, w / ratio))
    end
    if fit == "stretch" || h * width == w * height
        return height, width
    end
    wider = w * height > h * width
    if fit == "crop" || fit == "cover"
        return wider ? (height, div(w * height, h)) : (div(h * width, w), width)
    end
    return wider ? (max(1, round(Int, h / w * width)), width) : (height, max(1, round(Int, w / h * height)))
end
