using Flux

double(i, o) = Chain(Conv((3, 3), i => o, relu; pad = SamePad()), Conv((3, 3), o => o, relu; pad = SamePad()))

struct UNet
    downs
    ups
    last
end
Flux.@layer UNet

function UNet(channels = [8, 16, 32]; inputs = 1)
    pairs = collect(zip([inputs; channels[1:end-1]], channels))
    downs = [double(i, o) for (i, o) in pairs]
    ups = [ConvTranspose((2, 2), channels[k+1] => channels[k]; stride = 2) for k in length(channels)-1:-1:1]
    UNet(downs, ups, Conv((1, 1), 2 * channels[1] => 2))
end

function (u::UNet)(x)
    a = u.downs[1](x)
    b = u.downs[2](maxpool(a, (2, 2)))
    c = u.ups[2](b)
    u.last(cat(a, c, dims = 3))
end
