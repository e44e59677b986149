"""Pages that hold all that they show: HTML made from the templates beside this module.

What they are given is shown as text, whatever characters it has. Their Content-Security-Policy lets them load nothing.
"""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from deepdream.errors import one_line

_TEMPLATES = Path(__file__).with_name("templates")


def render_page(template: str, **values: Any) -> bytes:
    """The page that a template makes of ``values``, UTF-8."""
    return _environment().get_template(template).render(values).encode(errors="replace")


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = one_line
    return environment


def data_url(data: bytes, kind: str) -> str:
    """Bytes of a media type, such as image/jpeg, as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """uint8 RGB (h, w, 3) as a JPEG file."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=quality, optimize=True)
    return encoded.getvalue()


def picture_url(picture: np.ndarray, quality: int) -> str:
    """uint8 RGB (h, w, 3) as the address of a JPEG."""
    return data_url(jpeg(picture, quality), "image/jpeg")
