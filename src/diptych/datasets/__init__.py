"""Pictures to work with: `photographs` are scikit-image's own, there without a download."""
