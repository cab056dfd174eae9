"""Pictures: read from files, painted from a caption, or made by a text-to-image model."""
