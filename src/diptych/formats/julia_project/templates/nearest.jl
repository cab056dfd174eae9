"""The pixel under each new pixel's centre: row floor((i + 1/2) n / m), counted from 0."""
function nearest(pixels, height, width)
    rows = [div((2 * i - 1) * size(pixels, 1), 2 * height) + 1 for i in 1:height]
    columns = [div((2 * i - 1) * size(pixels, 2), 2 * width) + 1 for i in 1:width]
    return ndims(pixels) == 2 ? pixels[rows, columns] : pixels[rows, columns, :]
end
