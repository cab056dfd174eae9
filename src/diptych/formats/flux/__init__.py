"""Flux models as Julia values, and back: what lies in a .bson or .jld2 file between the container and a Model.

layouts      the fields of every struct by version           (a literal table)
reading      a struct -> our layers, with the numbers of the version that wrote it
document     the top keys of a file -> a Model
states       weights without an architecture -> a Model, by one that is given
writing      our layers -> structs for a version of Flux
bson_files, jld2_files    the two file formats' verbs
"""
