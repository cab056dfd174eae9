"""Flux models as Julia values, and back: everything between a .bson or .jld2 document and a Model.

layouts                   the fields of every struct, by version of Flux  (a literal table)
versions                  which version wrote a file
reading, reading_*        a struct -> our layers, with the numbers of the version that wrote it
structs, structs_of_*     our layers -> the structs of one version of Flux
states                    weights without an architecture -> the layers of an architecture that is given
keys                      the top keys of the files that Diptych writes
document                  the values under the top keys of a file -> a Model
document_writing          a Model -> the values under the top keys of a file
bson_files, jld2_files    `read` and `write` of the two file formats
printing                  a model as Flux prints it

Reading uses `structs` only to fill bare weights: the structs of the architecture say which array comes where.
"""
