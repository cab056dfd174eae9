# A picture file as UInt8 levels, (H, W) when it is grey, else (H, W, 3). Needs FileIO and ImageIO.

using FileIO

function read_image(path)
    isfile(path) || error("there is no file $path; check the path")
    picture = load(path)
    first_pixel = first(picture)
    names = propertynames(first_pixel)
    if :r in names
        planes = [level.(getproperty.(picture, name)) for name in (:r, :g, :b)]
    elseif :val in names
        planes = [level.(getproperty.(picture, :val))]
    else
        error("$path has pixels of the kind $(typeof(first_pixel)); save it as a grey or RGB picture")
    end
    if :alpha in names
        cover = level.(getproperty.(picture, :alpha))
        planes = [over_white.(plane, cover) for plane in planes]
    end
    return length(planes) == 1 ? planes[1] : cat(planes...; dims = 3)
end

"""8 bits of a colour value: those it has, the high byte of 16, or 255 times a fraction."""
function level(value)
    if hasproperty(value, :i)
        value.i isa UInt8 && return value.i
        value.i isa UInt16 && return UInt8(value.i >> 8)
    end
    return UInt8(clamp(round(Int, 255 * Float64(value)), 0, 255))
end

"""(c a + 255 (255 - a)) / 255, rounded to nearest."""
over_white(c, a) = UInt8(div(Int(c) * Int(a) + 255 * (255 - Int(a)) + 127, 255))
