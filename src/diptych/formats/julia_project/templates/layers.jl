# What Flux lacks, or what its versions compute differently, as plain functions.
#
# Axes: (W, H, C, N), spatial axes first, then channels, then the batch; fewer or more spatial axes likewise.

# ---- Elementwise functions ---------------------------------------------------------------------------

"""A function of one number as a layer of its own."""
elementwise(f) = x -> f.(x)

relu_to_six(x) = clamp(x, zero(x), oftype(x, 6))
gelu_by_tanh(x) = x / 2 * (1 + tanh(oftype(x, sqrt(2 / pi)) * (x + oftype(x, 0.044715) * x^3)))
gelu_by_erf(x) = oftype(x, x / 2 * (1 + error_function(x / sqrt(2.0))))
gelu_by_sigmoid(x) = x * sigmoid(oftype(x, 1.702) * x)
hard_sigmoid(x, slope) = clamp(oftype(x, slope) * x + oftype(x, 0.5), zero(x), one(x))
hard_swish(x) = x * clamp((x + 3) / 6, zero(x), one(x))
log_of_cosh(x) = abs(x) + log1p(exp(-2 * abs(x))) - oftype(x, log(2.0))
shrunk(x, limit) = x - clamp(x, -oftype(x, limit), oftype(x, limit))
x_minus_tanh(x) = x - tanh(x)
x_times_tanh(x) = x * tanh(x)
between(x, low, high) = clamp(x, oftype(x, low), oftype(x, high))
square_root(x) = x < 0 ? oftype(x, NaN) : sqrt(x)
arc_sine(x) = abs(x) > 1 ? oftype(x, NaN) : asin(x)
arc_cosine(x) = abs(x) > 1 ? oftype(x, NaN) : acos(x)
area_cosine(x) = x < 1 ? oftype(x, NaN) : acosh(x)
area_tangent(x) = abs(x) > 1 ? oftype(x, NaN) : atanh(x)
logarithm(x) = x < 0 ? oftype(x, NaN) : log(x)
error_of(x) = oftype(x, error_function(x))
step_above(x, theta) = oftype(x, x > theta)
power(x, p) = x < 0 && p != round(p) ? oftype(x, NaN) : oftype(x, x^p)
line(x, slope, shift) = oftype(x, slope) * x + oftype(x, shift)

"""The error function by a series of positive terms: exact to 1e-14 (Abramowitz and Stegun, 7.1.6)."""
function error_function(x)
    abs(x) > 6 && return Float64(sign(x))
    term = Float64(x)
    total = term
    for n in 1:(20 + ceil(Int, 3 * Float64(x)^2))
        term *= 2 * x * x / (2 * n + 1)
        total += term
    end
    return 2 / sqrt(pi) * exp(-Float64(x)^2) * total
end

# ---- Scaling and normalisation -----------------------------------------------------------------------

"""One number a channel, shaped to meet the channels of `x`."""
channelwise(values, x) = reshape(values, ntuple(d -> d == ndims(x) - 1 ? length(values) : 1, ndims(x)))

mean_over(x, dims) = sum(x; dims = dims) ./ Float32(prod([size(x, d) for d in dims]))

"""Mean 0 and deviation 1 along `dims`, by one of the three formulas that frameworks use."""
function standardised(x, dims, epsilon, formula)
    centred = x .- mean_over(x, dims)
    variance = mean_over(centred .* centred, dims)
    if formula == "std + eps"
        return centred ./ (sqrt.(variance) .+ Float32(epsilon))
    elseif formula == "sqrt(var + eps^2)"
        return centred ./ sqrt.(variance .+ Float32(epsilon^2))
    end
    return centred ./ sqrt.(variance .+ Float32(epsilon))
end

function scaled_and_shifted(x, scale, shift)
    scaled = scale === nothing ? x : x .* scale
    return shift === nothing ? scaled : scaled .+ shift
end

per_channel(values, x) = values === nothing ? nothing : channelwise(values, x)

"""x * scale + shift, broadcast against the first axes."""
scaling(scale, shift, f = identity) = x -> f.(scaled_and_shifted(x, scale, shift))

"""Flux's BatchNorm with these statistics, in test mode."""
function batch_norm(f = identity; scale = nothing, shift = nothing, mean, variance, epsilon = 1e-5)
    affine = scale !== nothing || shift !== nothing
    layer = BatchNorm(length(mean), f; affine = affine)
    layer.μ .= mean
    layer.σ² .= variance
    layer.ϵ = epsilon
    scale === nothing || (layer.γ .= scale)
    shift === nothing || (layer.β .= shift)
    return layer
end

"""BatchNorm with the statistics of the batch itself, which some models keep when they predict."""
function batch_norm_of_the_batch(f = identity; scale = nothing, shift = nothing, epsilon = 1e-5)
    return function (x)
        dims = Tuple([d for d in 1:ndims(x) if d != ndims(x) - 1])
        y = standardised(x, dims, epsilon, "sqrt(var + eps)")
        return f.(scaled_and_shifted(y, per_channel(scale, x), per_channel(shift, x)))
    end
end

"""Normalisation over the first `count` axes; Flux's own LayerNorm changed its formula four times."""
function layer_norm(count, f = identity; scale = nothing, shift = nothing, epsilon = 1e-5, formula)
    return function (x)
        y = standardised(x, ntuple(identity, count), epsilon, formula)
        return f.(scaled_and_shifted(y, scale, shift))
    end
end

"""Division by the root of the mean of the squares over the first `count` axes."""
function rms_norm(count; scale = nothing, epsilon = 1e-5)
    return function (x)
        spread = sqrt.(mean_over(x .* x, ntuple(identity, count)) .+ Float32(epsilon))
        return scaled_and_shifted(x ./ spread, scale, nothing)
    end
end


"""GroupNorm; `groups` 0 is a group for each channel, InstanceNorm. Tracked statistics are one a group."""
function group_norm(groups, f = identity; scale = nothing, shift = nothing, mean = nothing, variance = nothing,
                    epsilon = 1e-5)
    return function (x)
        count = groups == 0 ? size(x, ndims(x) - 1) : groups
        grouped = reshape(x, div(length(x), count * size(x, ndims(x))), count, size(x, ndims(x)))
        if mean === nothing
            y = standardised(grouped, (1,), epsilon, "sqrt(var + eps)")
        else
            spread = sqrt.(reshape(variance, 1, count, 1) .+ Float32(epsilon))
            y = (grouped .- reshape(mean, 1, count, 1)) ./ spread
        end
        return f.(scaled_and_shifted(reshape(y, size(x)), per_channel(scale, x), per_channel(shift, x)))
    end
end

"""x / (bias + alpha * mean of x^2 over neighbouring channels)^beta; missing neighbours count as zero."""
function local_response_norm(before, after, alpha, beta, bias)
    return function (x)
        axis = ndims(x) - 1
        n = size(x, axis)
        first, last = min(before, n - 1), min(after, n - 1)
        longer = cat(similar_zeros(x, axis, first), x .* x, similar_zeros(x, axis, last); dims = axis)
        total = reduce((a, b) -> a .+ b, [part(longer, axis, i:(i + n - 1)) for i in 1:(first + 1 + last)])
        mean = total ./ Float32(before + 1 + after)
        return x ./ power.(bias .+ alpha .* mean, beta)
    end
end

similar_zeros(x, axis, n) = zeros(Float32, ntuple(d -> d == axis ? n : size(x, d), ndims(x))...)

"""x where it is positive, elsewhere slope * x."""
parametric_relu(slope) = x -> ifelse.(x .> 0, x, x .* slope)

# ---- Weighted layers ---------------------------------------------------------------------------------

"""Output k is the sum of weight[k, i, j] * x[i] * x[j], along the first axis."""
function bilinear(weight, bias, f = identity)
    return function (x)
        flat = reshape(x, size(x, 1), 1, :)
        pairs = flat .* reshape(x, 1, size(x, 1), :)
        y = reshape(weight, size(weight, 1), :) * reshape(pairs, size(x, 1)^2, :)
        y = reshape(y, size(weight, 1), Base.tail(size(x))...)
        return f.(scaled_and_shifted(y, nothing, bias))
    end
end

"""Columns of `weight` by their numbers, which count from `first_number`; `reduction` joins those of a row."""
function embedding(weight, first_number, reduction)
    return function (x)
        columns = clamp.(round.(Int, x) .- first_number .+ 1, 1, size(weight, 2))
        found = weight[:, columns]
        reduction == "none" && return found
        reduction == "max" && return dropdims(maximum(found; dims = 2); dims = 2)
        total = dropdims(sum(found; dims = 2); dims = 2)
        return reduction == "sum" ? total : total ./ Float32(size(x, 1))
    end
end

"""A transposed convolution whose output is longer by `extra` zeros at the far ends, then bias and function."""
function lengthened(layer, extra, bias, f = identity)
    longer = extended(map(n -> (0, n), extra), "zero")
    return function (x)
        y = longer(layer(x))
        return f.(scaled_and_shifted(y, nothing, per_channel(bias, y)))
    end
end

# ---- Pools and shape ---------------------------------------------------------------------------------

"""A mean pool that does not count padding in the divisor."""
function mean_pool_inside(pool)
    return function (x)
        share = pool(one.(x))
        return ifelse.(share .> 0, pool(x) ./ share, zero(eltype(x)))
    end
end

"""A max pool whose windows skip values."""
function dilated_max_pool(kernel, stride, pads, dilation)
    longer = extended(pads, "zero", -Inf32)
    return function (x)
        x = longer(x)
        for axis in 1:length(kernel)
            count = div(size(x, axis) - dilation[axis] * (kernel[axis] - 1) - 1, stride[axis]) + 1
            taps = [part(x, axis, [(i - 1) * stride[axis] + t * dilation[axis] + 1 for i in 1:count])
                    for t in 0:(kernel[axis] - 1)]
            x = largest(taps...)
        end
        return x
    end
end

"""The part of `x` at `index` along one axis."""
part(x, axis, index) = x[ntuple(d -> d == axis ? index : Colon(), ndims(x))...]

"""PyTorch's adaptive pool: window i of m over n values runs from floor((i-1)n/m)+1 to ceil(in/m)."""
function adaptive_pool(output, pool)
    return function (x)
        for axis in 1:length(output)
            n, m = size(x, axis), output[axis]
            windows = [part(x, axis, (div((i - 1) * n, m) + 1):cld(i * n, m)) for i in 1:m]
            pooled = [pool == "max" ? maximum(w; dims = axis) : mean_over(w, (axis,)) for w in windows]
            x = cat(pooled...; dims = axis)
        end
        return x
    end
end

"""Longer spatial axes, by (low, high) each: "zero" (or `number`), "reflect" (edge not repeated), "symmetric" (repeated),
"replicate", "wrap"."""
function extended(pads, mode, number = 0.0f0)
    return function (x)
        for axis in 1:length(pads)
            n = size(x, axis)
            positions = (1 - pads[axis][1]):(n + pads[axis][2])
            if mode == "zero"
                y = part(x, axis, [clamp(p, 1, n) for p in positions])
                inside = [1 <= p <= n ? 1.0f0 : 0.0f0 for p in positions]
                mask = reshape(inside, ntuple(d -> d == axis ? length(inside) : 1, ndims(x)))
                x = ifelse.(mask .> 0, y, number)
            elseif mode == "reflect"
                x = part(x, axis, [p < 1 ? 2 - p : (p > n ? 2 * n - p : p) for p in positions])
            elseif mode == "symmetric"
                x = part(x, axis, [p < 1 ? 1 - p : (p > n ? 2 * n + 1 - p : p) for p in positions])
            elseif mode == "replicate"
                x = part(x, axis, [clamp(p, 1, n) for p in positions])
            else
                x = part(x, axis, [mod1(p, n) for p in positions])
            end
        end
        return x
    end
end

"""Larger (or smaller) spatial axes: `scale` or `target` gives one number an axis, `mode` the rule.

"nearest" reads floor(i n / m); "linear" has half-pixel centres; "corners" lays the corners on each other.
"""
function upsampling(mode; scale = nothing, target = nothing)
    return function (x)
        sizes = target === nothing ? [floor(Int, size(x, d) * scale[d]) for d in 1:length(scale)] : target
        for axis in 1:length(sizes)
            x = along_axis(x, axis, sizes[axis], mode)
        end
        return x
    end
end

function along_axis(x, axis, m, mode)
    n = size(x, axis)
    if mode == "nearest"
        return part(x, axis, [div((i - 1) * n, m) + 1 for i in 1:m])
    elseif mode == "corners"
        positions = [(i - 1) * (n - 1) / max(m - 1, 1) for i in 1:m]
    else
        positions = [clamp((i - 0.5) * n / m - 0.5, 0.0, n - 1.0) for i in 1:m]
    end
    low = [floor(Int, p) for p in positions]
    share = [Float32(positions[i] - low[i]) for i in 1:m]
    share = reshape(share, ntuple(d -> d == axis ? m : 1, ndims(x)))
    first_values = part(x, axis, [p + 1 for p in low])
    second_values = part(x, axis, [min(p + 2, n) for p in low])
    return (1 .- share) .* first_values .+ share .* second_values
end

# ---- Picking, reordering, reducing -------------------------------------------------------------------
# `axis` counts from the last, which is 0: channels are 1.

"""The values from `from` before `to`, counted from 0, or from the end where negative."""
function sliced(axis, from, to, step)
    return function (x)
        n = size(x, ndims(x) - axis)
        low = from < 0 ? max(n + from, 0) : min(from, n)
        high = to < 0 ? n + to : min(to, n)
        return part(x, ndims(x) - axis, (low + 1):step:high)
    end
end

gathered(indices, axis) = x -> part(x, ndims(x) - axis, [round(Int, i) + 1 for i in indices])

"""Axes of length 1 repeated to `shape`."""
expanded(shape) = x -> x .+ zeros(Float32, shape..., size(x, ndims(x)))

"""The same value for every sample."""
constant(value) = x -> value .+ zeros(Float32, size(value)..., size(x, ndims(x)))

"""One number in place of all along some axes; `keep` leaves them with length 1."""
function reduced(kind, axes, keep)
    return function (x)
        dims = Tuple([ndims(x) - a for a in axes])
        y = reduction(kind, x, dims)
        return keep ? y : dropdims(y; dims = dims)
    end
end

function reduction(kind, x, dims)
    kind == "mean" && return mean_over(x, dims)
    kind == "sum" && return sum(x; dims = dims)
    kind == "max" && return maximum(x; dims = dims)
    kind == "min" && return minimum(x; dims = dims)
    kind == "product" && return prod(x; dims = dims)
    top = maximum(x; dims = dims)
    return log.(sum(exp.(x .- top); dims = dims)) .+ top
end

# ---- Recurrent layers and attention --------------------------------------------------------------------
# Sequences are (features, time, N), single steps (features, N); axes before the batch hold more sequences. Gates lie one after the other in the rows.

"""`step(projected, state)` gives the state behind one step, whose first part is the output of that step."""
function recurrent(step, projection, states; backwards = false)
    return function (x)
        projected = projection(reshape(x, size(x, 1), ndims(x) == 2 ? 1 : size(x, 2), :))
        steps, samples = size(projected, 2), size(projected, 3)
        state = [s .+ zeros(Float32, length(s), samples) for s in states]
        outputs = zeros(Float32, length(states[1]), steps, samples)
        for number in 1:steps
            place = backwards ? steps + 1 - number : number
            state = step(projected[:, place, :], state)
            outputs[:, place, :] = state[1]
        end
        return reshape(outputs, size(outputs, 1), [size(x, d) for d in 2:ndims(x)]...)
    end
end

"""Of `count` gates the one at `number`."""
function gate(x, number, count)
    rows = div(size(x, 1), count)
    return x[((number - 1) * rows + 1):(number * rows), :]
end

plain_step(weights, f) = (projected, state) -> [f.(projected .+ Dense(weights, false)(state[1]))]

function lstm_step(weights)
    return function (projected, state)
        gates = projected .+ Dense(weights, false)(state[1])
        memory = sigmoid.(gate(gates, 2, 4)) .* state[2] .+ sigmoid.(gate(gates, 1, 4)) .* tanh.(gate(gates, 3, 4))
        return [sigmoid.(gate(gates, 4, 4)) .* tanh.(memory), memory]
    end
end

"""`new_bias` is added before the reset gate, which stands behind the product, or before it if `first` is true."""
function gru_step(weights, new_bias, first)
    resets, updates, news = [Dense(gate(weights, i, 3), false) for i in 1:3]
    return function (projected, state)
        output = state[1]
        r = sigmoid.(gate(projected, 1, 3) .+ resets(output))
        z = sigmoid.(gate(projected, 2, 3) .+ updates(output))
        inner = first ? news(r .* output) : r .* (news(output) .+ new_bias)
        return [(1 .- z) .* tanh.(gate(projected, 3, 3) .+ inner) .+ z .* output]
    end
end

"""Self-attention of (features, time, N): `query`, `key`, `value` and `out` are Dense layers."""
function self_attention(query, key, value, out, heads)
    return function (x)
        q, k, v = [permutedims(in_heads(part(x), heads), (1, 3, 2, 4)) for part in (query, key, value)]
        size_of_key = Float32(sqrt(size(k, 1)))
        scores = matrix_product(q ./ size_of_key, permutedims(k, (2, 1, 3, 4)))
        mixed = permutedims(matrix_product(softmax(scores; dims = 1), v), (1, 3, 2, 4))
        return out(reshape(mixed, :, size(x, 2), size(x, 3)))
    end
end

in_heads(x, heads) = reshape(x, div(size(x, 1), heads), heads, size(x, 2), size(x, 3))

# ---- Joining branches --------------------------------------------------------------------------------

add(branches...) = reduce((a, b) -> a .+ b, branches)
multiply(branches...) = reduce((a, b) -> a .* b, branches)
subtract(branches...) = reduce((a, b) -> a .- b, branches)
divide(branches...) = reduce((a, b) -> a ./ b, branches)
largest(branches...) = reduce((a, b) -> max.(a, b), branches)
smallest(branches...) = reduce((a, b) -> min.(a, b), branches)

"""The second value where the first is not 0, elsewhere the third."""
chosen(condition, first, second) = ifelse.(abs.(condition) .> 0, first, second)

"""The products of the matrices in the first two axes; axes of length 1 behind them are repeated."""
matrix_products(branches...) = reduce(matrix_product, branches)

function matrix_product(a, b)
    sizes = ntuple(d -> max(size(a, d + 2), size(b, d + 2)), ndims(a) - 2)
    left = reshape(b .+ zeros(Float32, 1, 1, sizes...), size(b, 1), size(b, 2), :)
    right = reshape(a .+ zeros(Float32, 1, 1, sizes...), size(a, 1), size(a, 2), :)
    return reshape(batched_mul(left, right), size(b, 1), size(a, 2), sizes...)
end

"""Joins along one axis; `axis` counts from the last, which is 0: channels are 1."""
concatenate(axis) = (branches...) -> cat(branches...; dims = ndims(branches[1]) - axis)

# ---- Graphs ------------------------------------------------------------------------------------------

"""Layers that are no tree. Each node is (name, names of the values that it takes, layer); "input" is x."""
struct Graph
    output
    nodes
end

graph(output, nodes...) = Graph(output, nodes)

(graph::Graph)(x) = walk((path, y) -> nothing, graph, x)

# ---- Layer by layer ----------------------------------------------------------------------------------

"""The output of `layer`; `record(path, y)` is told that of every layer inside, counted from 0: "3.1"."""
function walk(record, layer, x, path = "")
    inside(index) = isempty(path) ? string(index - 1) : string(path, ".", index - 1)
    if layer isa Chain
        y = x
        for (index, inner) in enumerate(layer.layers)
            y = walk(record, inner, y, inside(index))
        end
    elseif layer isa SkipConnection
        y = layer.connection(walk(record, layer.layers, x, inside(1)), x)
    elseif layer isa Parallel
        branches = [walk(record, inner, x, inside(index)) for (index, inner) in enumerate(layer.layers)]
        y = layer.connection(branches...)
    elseif layer isa Graph
        values = Dict{String,Any}("input" => x)
        for (index, node) in enumerate(layer.nodes)
            taken = [values[name] for name in node[2]]
            if length(taken) == 1
                values[node[1]] = walk(record, node[3], taken[1], inside(index))
            else
                values[node[1]] = node[3](taken...)
                record(inside(index), values[node[1]])
            end
        end
        y = values[layer.output]
    else
        y = layer(x)
    end
    isempty(path) || record(path, y)
    return y
end
