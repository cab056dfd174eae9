"""The text entries that a generated PNG file carries: three of them.

- `parameters`: the prompt and settings in the form that AUTOMATIC1111's web UI began and most tools read;
- `diptych`: the whole record as JSON, enough to make the picture again;
- `XML:com.adobe.xmp`: the IPTC digital source type, which marks the picture as made by an algorithm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from PIL.PngImagePlugin import PngInfo

from diptych.errors import ImageError
from diptych.images.picture import Record

__all__ = ["KEY", "entries", "parameters", "record_in"]

KEY = "diptych"
_LONGEST_RECORD = 1_000_000  # characters; ours are below a few thousand
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    "<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
# The names that AUTOMATIC1111 gives to settings, in its order.
_PARAMETERS = (("steps", "Steps"), ("sampler", "Sampler"), ("guidance", "CFG scale"))


def entries(record: Record) -> PngInfo:
    """Returns the text entries of a PNG that was made as `record` says, in a fixed order."""
    info = PngInfo()
    _add(info, "parameters", parameters(record))
    # ASCII JSON: every tool can read a plain tEXt entry, whatever language the prompt is in.
    document = {"record": 1} | record.to_document()
    info.add_text(KEY, json.dumps(document, ensure_ascii=True, sort_keys=True, allow_nan=False))
    kind = "algorithmicMedia" if record.generator == "scenes" else "trainedAlgorithmicMedia"
    info.add_itxt("XML:com.adobe.xmp", _XMP.format(source=_SOURCE_TYPES + kind))
    return info


def parameters(record: Record) -> str:
    """Returns prompt, negative prompt and settings as text, in the form of AUTOMATIC1111's web UI."""
    lines = [record.prompt]
    if negative := record.settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {negative}")
    facts = {label: record.settings[key] for key, label in _PARAMETERS if key in record.settings}
    facts["Seed"] = record.settings.get("image_seed", record.seed)
    facts["Size"] = f"{record.width}x{record.height}"
    facts["Model"] = record.generator
    facts["Version"] = f"diptych {record.version}"
    lines.append(", ".join(f"{label}: {_quoted(str(value))}" for label, value in facts.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    # AUTOMATIC1111 splits at commas and colons, and writes values that hold one as JSON strings.
    return json.dumps(value, ensure_ascii=False) if any(sign in value for sign in ',:"\n') else value


def record_in(info: Mapping[Any, Any]) -> Record | None:
    """Reads the record among the text entries of a PNG.

    Args:
        info: The entries by name.

    Returns:
        The record, or None if there is no such entry.

    Raises:
        ImageError: The entry is not a record.
    """
    text = info.get(KEY)
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > _LONGEST_RECORD:
        raise ImageError(
            f"the picture's record is damaged: it is not text of at most {_LONGEST_RECORD} characters"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImageError("the picture's record is damaged: it is not JSON") from error
    return Record.from_document(document)


def _add(info: PngInfo, key: str, text: str) -> None:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        info.add_itxt(key, text)
    else:
        info.add_text(key, text)
