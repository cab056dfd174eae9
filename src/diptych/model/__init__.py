"""The neutral model: layers, what travels with them, their shapes, and a trace of what they compute."""
