"""Pictures of any size, read and written a few rows at a time."""

from diptych.images.rows import PEAKS, Kept, StreamSource, Whole
from diptych.images.streams.reading import open  # noqa: A004 - the field's verb
from diptych.images.streams.writing import WRITABLE, check, write

__all__ = ["PEAKS", "WRITABLE", "Kept", "StreamSource", "Whole", "check", "open", "write"]
