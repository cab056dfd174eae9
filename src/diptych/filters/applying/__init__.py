"""Apply learned filters to pictures of any size, in constant memory where the file format allows it."""

from diptych.filters.applying.apply import Applied, FolderResult, apply, apply_file, apply_folder
from diptych.filters.applying.many import apply_many

__all__ = ["Applied", "FolderResult", "apply", "apply_file", "apply_folder", "apply_many"]
