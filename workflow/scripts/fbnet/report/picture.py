"""Pictures as the page carries them."""

import base64
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fbnet.errors import InputError

PIXELS = {"pt": 4 / 3, "px": 1, "in": 96, "": 1}


@dataclass(frozen=True)
class Picture:
    """An SVG picture: its bytes, the caption that it carries as its description, its width in CSS pixels."""

    svg: bytes
    caption: str
    width: float

    @property
    def uri(self) -> str:
        """The picture as the address of an image that loads nothing."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


def read_picture(path: Path) -> Picture:
    """An SVG file with its caption. Raises InputError that names the file."""
    try:
        svg = Path(path).read_bytes()
        root = ElementTree.fromstring(svg)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"the picture {path} cannot be read as SVG: {error}") from None
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        raise InputError(f"the picture {path} is no SVG: its first element is {root.tag}")
    width = root.get("width", "")
    digits = width.rstrip("ptxin")
    try:
        pixels = float(digits) * PIXELS[width[len(digits) :]]
    except (ValueError, KeyError):
        raise InputError(f"the picture {path} has the width {width!r}, but must have one in pt, px or in") from None
    return Picture(svg, root.findtext(".//{http://purl.org/dc/elements/1.1/}description", ""), pixels)
