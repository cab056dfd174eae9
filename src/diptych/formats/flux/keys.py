"""The top keys under which Diptych's own files keep what a Flux model has no field for."""

from __future__ import annotations

__all__ = ["CLASSES", "FLUX_VERSION", "NOTES", "PREPROCESSING"]

PREPROCESSING = "diptych_preprocessing"  # a JSON text, `Preprocessing.to_document`
CLASSES = "classes"  # a list of strings
NOTES = "diptych_notes"  # a JSON text: name, input shape, whether trained, notes
# The version of Flux the file was written for: versions compute some structs differently that look the same.
FLUX_VERSION = "diptych_flux_version"
