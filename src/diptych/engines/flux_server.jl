# The Julia side of Diptych's engine "flux": reads one request a line, answers each with one line.
#
#   load NUMBER FOLDER           the model of a folder with model.jl         -> ok
#   run NUMBER INPUT OUTPUT      a .npy batch through it                     -> ok
#   trace NUMBER INPUT FOLDER    every layer's output as FOLDER/PATH.npy     -> ok
#   drop NUMBER                  forget it                                   -> ok
#
# Words are separated by tabs. Answers start with "diptych" and a tab, so that whatever else a package prints
# is passed over; an error is "diptych", "error" and one line of text. End of input ends the process.

import Flux

function answer(words...)
    println(stdout, join(("diptych", words...), "\t"))
    flush(stdout)
end

function flux_version()
    folder = pkgdir(Flux)
    folder === nothing && return "unknown"
    for line in eachline(joinpath(folder, "Project.toml"))
        found = match(r"^version *= *\"([^\"]+)\"", line)
        found === nothing || return String(found.captures[1])
    end
    return "unknown"
end

const MODELS = Dict{String,Any}()

"""A module of its own for each model, so that none sees another's names."""
function load_model(number, folder)
    file = repr(joinpath(folder, "model.jl"))
    rooms = Core.eval(Main, Meta.parse("module Model$number\ninclude($file)\nend"))
    MODELS[number] = (rooms, Base.invokelatest(() -> rooms.build_model()))
end

function run_model(number, input, output)
    rooms, model = MODELS[number]
    Base.invokelatest() do
        rooms.write_npy(output, model(Float32.(rooms.read_npy(input))))
    end
end

function trace_model(number, input, folder)
    rooms, model = MODELS[number]
    Base.invokelatest() do
        x = Float32.(rooms.read_npy(input))
        rooms.walk((path, y) -> rooms.write_npy(joinpath(folder, string(path, ".npy")), y), model, x)
    end
end

function obey(words)
    if words[1] == "load"
        load_model(words[2], words[3])
    elseif words[1] == "run"
        run_model(words[2], words[3], words[4])
    elseif words[1] == "trace"
        trace_model(words[2], words[3], words[4])
    elseif words[1] == "drop"
        delete!(MODELS, words[2])
    else
        error("there is no request called $(words[1])")
    end
    return nothing
end

answer("ready", string(VERSION), flux_version())
for line in eachline(stdin)
    try
        obey([String(word) for word in split(line, "\t")])
        answer("ok")
    catch problem
        text = sprint(showerror, problem)
        answer("error", strip(first(split(text, "\n"))))
    end
end
