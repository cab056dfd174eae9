"""A text-to-image model of five million parameters, taught on painted scenes. See docs/tiny-generator.md."""
