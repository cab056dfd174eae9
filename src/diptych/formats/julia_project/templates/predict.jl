# What the model says about pictures or arrays, and a check that this machine computes what Diptych computed.
#
#   julia --project=. predict.jl picture.png ...           needs FileIO and ImageIO
#   julia --project=. predict.jl --input batch.npy         float32 (N, C, H, W) as NumPy writes it; no image package
#   julia --project=. predict.jl --input batch.npy --output result.npy
#   julia --project=. predict.jl --check                   every layer against expected/; exit status 1 if one differs

using Printf

include("about.jl")
include("model.jl")
include("preprocess.jl")

const SHOWN = 3
const TOLERANCE = 1e-4  # of a layer's largest value

struct WrongUsage <: Exception
    message::String
end

# ---- Predictions -------------------------------------------------------------------------------------

"""The table that `diptych predict` prints. `outputs` is (classes, N)."""
function predictions_text(outputs, names)
    classes = isempty(CLASSES) ? ["class $(i - 1)" for i in 1:size(outputs, 1)] : CLASSES
    if length(classes) != size(outputs, 1)
        error("the model gives $(size(outputs, 1)) values for a picture, but about.jl names $(length(classes)) classes")
    end
    totals = [sum(Float64.(outputs[:, i])) for i in 1:size(outputs, 2)]
    probable = all(outputs .>= 0) && all(abs.(totals .- 1) .<= 1e-3 + 1e-5)
    count = min(SHOWN, length(classes))
    head = ["image", probable ? "best probability" : "best score"]
    append!(head, ["$i." for i in 2:count])
    rows = [head, [repeat("-", 0) for _ in head]]
    for i in 1:size(outputs, 2)
        order = sortperm(outputs[:, i]; rev = true, alg = MergeSort)[1:count]
        cells = [@sprintf("%s %.4f", classes[k], outputs[k, i]) for k in order]
        push!(rows, vcat([names[i]], cells))
    end
    widths = [maximum([length(row[column]) for row in rows]) for column in 1:length(head)]
    rows[2] = [repeat("-", width) for width in widths]
    padded = [join([padded_to(row[k], widths[k]) for k in 1:length(head)], "  ") for row in rows]
    return string("model: ", MODEL_NAME, STANDING, "\n", join([rstrip(line) for line in padded], "\n"))
end

padded_to(text, width) = text * " "^(width - length(text))

"""One column for each picture or item."""
columns(y) = reshape(y, :, size(y, ndims(y)))

function predict_images(model, paths)
    isempty(RECIPE) && error("this model carries no recipe for pictures; give an array with --input FILE.npy")
    include(joinpath(@__DIR__, "read_image.jl"))
    pictures = Base.invokelatest(() -> [read_image(path) for path in paths])  # defined a moment ago
    inputs = [preprocess(pixels) for pixels in pictures]
    outputs = [columns(model(reshape(x, size(x)..., 1))) for x in inputs]
    println(predictions_text(reduce(hcat, outputs), paths))
end

function predict_array(model, path, target)
    x = read_batch(path)
    y = model(x)
    target === nothing || write_npy(target, y)
    println(predictions_text(columns(y), ["$path $i" for i in 1:size(y, ndims(y))]))
end

"""The batch in a .npy file, with NumPy's axes (N, C, H, W), so (W, H, C, N) here."""
function read_batch(path)
    x = Float32.(read_npy(path))
    fits(x) && return x
    expected = join(vcat(["N"], [n === nothing ? "any" : string(n) for n in INPUT_SHAPE]), ", ")
    error("$path holds an array of shape ($(join(reverse(size(x)), ", "))), but the model takes ($expected)")
end

function fits(x)
    INPUT_SHAPE === nothing && return true
    sizes = reverse(size(x))
    length(sizes) == length(INPUT_SHAPE) + 1 || return false
    return all([INPUT_SHAPE[d] === nothing || INPUT_SHAPE[d] == sizes[d + 1] for d in 1:length(INPUT_SHAPE)])
end

# ---- The check ---------------------------------------------------------------------------------------

"""Compares every layer with the activations in expected/; returns the number of those that differ."""
function check(model)
    expected = joinpath(@__DIR__, "expected")
    differing, seen = String[], String[]
    function compare(path, y)
        push!(seen, path)
        wanted = read_npy(joinpath(expected, string(path, ".npy")))
        label = string("layer ", path, " (", get(LAYERS, path, "?"), ")")
        if size(y) != size(wanted)
            push!(differing, path)
            println("DIFFERS  ", label, ": shape ", reverse(size(y)), ", expected ", reverse(size(wanted)))
            return nothing
        end
        furthest, largest = furthest_apart(y, wanted)
        good = furthest <= TOLERANCE * max(largest, 1e-6)
        good || push!(differing, path)
        println(good ? "agrees   " : "DIFFERS  ", label, ": ", @sprintf("%.2e", furthest), " apart, the largest value is ",
                @sprintf("%.2e", largest))
        return nothing
    end
    walk(compare, model, read_npy(joinpath(expected, "input.npy")))
    for path in keys(LAYERS)
        path in seen || push!(differing, path)
        path in seen || println("DIFFERS  layer ", path, ": the model has no such layer")
    end
    println(isempty(differing) ? "all $(length(seen)) layers agree" :
            "$(length(differing)) of $(length(LAYERS)) layers differ, the first is layer $(differing[1])")
    return length(differing)
end

"""The largest difference and the largest value; NaN and infinities must stand at the same places."""
function furthest_apart(y, wanted)
    furthest, largest = 0.0, 0.0
    for i in eachindex(wanted)
        a, b = Float64(y[i]), Float64(wanted[i])
        isequal(a, b) && continue
        isfinite(a) && isfinite(b) || return Inf, largest
        furthest = max(furthest, abs(a - b))
    end
    for b in wanted
        largest = isfinite(b) ? max(largest, abs(Float64(b))) : largest
    end
    return furthest, largest
end

# ---- The command line --------------------------------------------------------------------------------

function main(arguments)
    if isempty(arguments) || arguments[1] in ("--help", "-h")
        println("usage: predict.jl PICTURE... | --input FILE.npy [--output FILE.npy] | --check")
        return isempty(arguments) ? 2 : 0
    end
    if arguments[1] == "--check"
        length(arguments) == 1 || throw(WrongUsage("--check takes nothing else"))
        return check(build_model()) == 0 ? 0 : 1
    elseif arguments[1] == "--input"
        good = length(arguments) == 2 || (length(arguments) == 4 && arguments[3] == "--output")
        good || throw(WrongUsage("give --input FILE.npy, then perhaps --output FILE.npy"))
        predict_array(build_model(), arguments[2], length(arguments) == 4 ? arguments[4] : nothing)
    elseif startswith(arguments[1], "-")
        throw(WrongUsage("there is no option $(arguments[1]); there are --input, --output and --check"))
    else
        predict_images(build_model(), arguments)
    end
    return 0
end

"""One sentence of an error."""
function sentence(problem)
    problem isa WrongUsage && return problem.message
    problem isa ErrorException && return problem.msg
    text = sprint(showerror, problem)
    if occursin("IO", text) && (occursin("not found", text) || occursin("installed", text))
        return "reading pictures needs FileIO and ImageIO: julia --project=$(@__DIR__) -e 'import Pkg; Pkg.instantiate()'"
    end
    return String(first(split(text, "\n")))
end

status = try
    main(ARGS)
catch problem
    println(stderr, "predict.jl: ", sentence(problem))
    problem isa WrongUsage ? 2 : 1
end
exit(status)
