# VGG and ResNet as Metalhead 0.7 and later builds them: a Chain of the backbone and the classifier.
# Parsed before a file that uses Metalhead, and never run.

struct VGG
    layers
end
(m::VGG)(x) = m.layers(x)

function VGG(depth::Integer; pretrain = false, batchnorm = false, inchannels = 3, nclasses = 1000)
    repeats = Dict(11 => [1, 1, 2, 2, 2], 13 => [2, 2, 2, 2, 2], 16 => [2, 2, 3, 3, 3], 19 => [2, 2, 4, 4, 4])
    layers = []
    inputs = inchannels
    for (outputs, count) in zip([64, 128, 256, 512, 512], repeats[depth])
        for _ in 1:count
            if batchnorm
                push!(layers, Conv((3, 3), inputs => outputs; pad = 1, bias = false), BatchNorm(outputs, relu))
            else
                push!(layers, Conv((3, 3), inputs => outputs, relu; pad = 1))
            end
            inputs = outputs
        end
        push!(layers, MaxPool((2, 2); stride = 2))
    end
    head = Chain(Flux.flatten, Dense(7 * 7 * 512 => 4096, relu), Dropout(0.5), Dense(4096 => 4096, relu), Dropout(0.5),
                 Dense(4096 => nclasses))
    VGG(Chain(Chain(layers...), head))
end

struct ResNet
    layers
end
(m::ResNet)(x) = m.layers(x)

metalhead_pair(kernel, io, activation; options...) =
    [Conv(kernel, io; bias = false, options...), BatchNorm(io[2], activation)]

metalhead_basic(inputs, planes, stride) =
    Chain(metalhead_pair((3, 3), inputs => planes, identity; stride, pad = 1)..., relu,
          metalhead_pair((3, 3), planes => planes, identity; pad = 1)...)

metalhead_bottleneck(inputs, planes, stride) =
    Chain(metalhead_pair((1, 1), inputs => planes, relu)...,
          metalhead_pair((3, 3), planes => planes, identity; stride, pad = 1)..., relu,
          metalhead_pair((1, 1), planes => 4 * planes, identity)...)

function ResNet(depth::Integer; pretrain = false, inchannels = 3, nclasses = 1000)
    repeats = Dict(18 => [2, 2, 2, 2], 34 => [3, 4, 6, 3], 50 => [3, 4, 6, 3], 101 => [3, 4, 23, 3],
                   152 => [3, 8, 36, 3])[depth]
    stem = Chain(Conv((7, 7), inchannels => 64; stride = 2, pad = 3, bias = false), BatchNorm(64, relu),
                 MaxPool((3, 3); stride = 2, pad = 1))
    stages = []
    inputs = 64
    for (stage, count) in enumerate(repeats)
        planes = 64 * 2^(stage - 1)
        outputs = depth < 50 ? planes : 4 * planes
        blocks = []
        for block in 1:count
            stride = stage > 1 && block == 1 ? 2 : 1
            path = depth < 50 ? metalhead_basic(inputs, planes, stride) : metalhead_bottleneck(inputs, planes, stride)
            changes = stride != 1 || inputs != outputs
            past = changes ? Chain(metalhead_pair((1, 1), inputs => outputs, identity; stride)...) : identity
            push!(blocks, Chain(Parallel(+, path, past), relu))
            inputs = outputs
        end
        push!(stages, Chain(blocks...))
    end
    head = Chain(AdaptiveMeanPool((1, 1)), Flux.flatten, Dense(inputs => nclasses))
    ResNet(Chain(Chain(stem, stages...), head))
end
