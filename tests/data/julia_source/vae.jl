using Flux

struct Sampler
    mean
    spread
end
Flux.@functor Sampler

struct Autoencoder{E, D}
    encoder::E
    decoder::D
end
Flux.@functor Autoencoder
(m::Autoencoder)(x) = m.decoder(m.encoder(x))

Base.@kwdef mutable struct Args
    hidden::Int = 16
    latent::Int = 4
    rate::Float64 = 1e-3
end

function build(args::Args; size = (28, 28))
    inputs = prod(size)
    layers = Any[Flux.flatten]
    for (i, o) in [(inputs, args.hidden), (args.hidden, args.latent)]
        push!(layers, Dense(i => o, i > 100 ? relu : identity))
    end
    decoder = Chain(Dense(args.latent, args.hidden, tanh), x -> leakyrelu.(x, 0.2f0), Dense(args.hidden, inputs, σ))
    return Autoencoder(Chain(layers...), decoder)
end

function train(; kws...)
    args = Args(; kws...)
    model = build(args) |> gpu
    opt = Flux.setup(Adam(args.rate), model)
    for epoch in 1:10
        for (x, y) in loader
            loss, grads = Flux.withgradient(m -> Flux.mse(m(x), y), model)
            Flux.update!(opt, model, grads[1])
        end
        @info "epoch" epoch
    end
    BSON.@save "model.bson" model
end
