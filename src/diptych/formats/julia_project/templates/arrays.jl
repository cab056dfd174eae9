# Reading and writing NumPy's .npy files with nothing but Base.
#
# NumPy's axes run the other way round: what is (N, C, H, W) there is (W, H, C, N) here, the same bytes.

const NPY_MAGIC = UInt8[0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]
const NPY_TYPES = Dict(
    "b1" => Bool, "u1" => UInt8, "i1" => Int8, "u2" => UInt16, "i2" => Int16, "u4" => UInt32, "i4" => Int32,
    "u8" => UInt64, "i8" => Int64, "f2" => Float16, "f4" => Float32, "f8" => Float64,
)

"""The array of a .npy file with its axes reversed."""
function read_npy(path)
    isfile(path) || error("there is no file $path; check the path")
    bytes = read(path)
    if length(bytes) < 12 || bytes[1:6] != NPY_MAGIC
        error("$path is no .npy file; write it with numpy.save")
    end
    header_start = bytes[7] == 1 ? 11 : 13
    header_length = 0
    for position in (header_start - 1):-1:9
        header_length = 256 * header_length + Int(bytes[position])
    end
    data_start = header_start + header_length
    data_start <= length(bytes) + 1 || error("$path is cut off; copy it again")
    header = String(bytes[header_start:(data_start - 1)])
    kind = match(r"'descr': *'([<>|=]?)([a-z][0-9]+)'", header)
    shape = match(r"'shape': *\(([0-9, ]*)\)", header)
    if kind === nothing || shape === nothing || kind.captures[1] == ">" || !haskey(NPY_TYPES, kind.captures[2])
        error("$path holds no plain little-endian numbers; save it as float32")
    end
    sizes = [parse(Int, strip(part)) for part in split(shape.captures[1], ",") if !isempty(strip(part))]
    type = NPY_TYPES[kind.captures[2]]
    expected = reduce(*, sizes; init = 1) * sizeof(type)
    if expected != length(bytes) - data_start + 1
        error("$path is cut off, or longer than its shape says; copy it again")
    end
    values = collect(reinterpret(type, bytes[data_start:end]))
    if occursin("'fortran_order': True", header)
        return permutedims(reshape(values, Tuple(sizes)), length(sizes):-1:1)
    end
    return reshape(values, Tuple(reverse(sizes)))
end

"""Writes an array as float32 with its axes reversed."""
function write_npy(path, array)
    shape = join([string(n, ",") for n in reverse(size(array))], " ")
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': ($shape), }"
    header = header * " "^mod(53 - length(header), 64) * "\n"
    start = vcat(NPY_MAGIC, UInt8[0x01, 0x00, UInt8(length(header) % 256), UInt8(div(length(header), 256))])
    write(path, vcat(start, Vector{UInt8}(header), reinterpret(UInt8, vec(Float32.(array)))))
    return nothing
end
