"""Telling players that a video is a 360-degree panorama: Google's Spherical Video V1, a box in an MP4 or MOV file.

The box holds a few lines of XML and lies in the track of the picture. ffmpeg reads it and writes none.
https://github.com/google/spatial-media/blob/master/docs/spherical-video-rfc.md
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MUXERS = ("mp4", "mov")  # ffmpeg's names of those whose files take the box
_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
_XML = (
    '<?xml version="1.0"?><rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/"><GSpherical:Spherical>true</GSpherical:Spherical>'
    "<GSpherical:Stitched>true</GSpherical:Stitched>"
    "<GSpherical:StitchingSoftware>deepdream</GSpherical:StitchingSoftware>"
    "<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType>"
    "<GSpherical:StereoMode>{}</GSpherical:StereoMode></rdf:SphericalVideo>"
)
_HEADER = 8  # bytes of a box: its size and its type
_OFFSETS = {b"stco": ">u4", b"co64": ">u8"}  # the tables of where in the file samples lie


def mark_spherical(path: Path, stereo: str) -> None:
    """Mark the MP4 or MOV file ``path``, made by ffmpeg with faststart, as equirectangular.

    ``stereo``: see `Clip`.
    """
    xml = _XML.format(stereo).encode()
    box = (_HEADER + len(_UUID) + len(xml)).to_bytes(4) + b"uuid" + _UUID + xml
    marked = path.with_name(f"{path.name}.marked")
    with open(path, "rb") as file, open(marked, "wb") as target:
        kind = b""
        while kind != b"moov":  # with faststart it comes before the samples
            header = file.read(_HEADER)
            size, kind = int.from_bytes(header[:4]), header[4:]
            data = header + file.read(size - _HEADER)
            target.write(_with_box(bytearray(data), box) if kind == b"moov" else data)
        shutil.copyfileobj(file, target)
    marked.replace(path)


def _with_box(moov: bytearray, box: bytes) -> bytes:
    """The box ``moov`` with ``box`` at the end of the picture's track; so the samples, which follow, lie later."""
    for kind, dtype in _OFFSETS.items():
        for start, _ in _inside(moov, 0, len(moov), b"trak", b"mdia", b"minf", b"stbl", kind):
            count = int.from_bytes(moov[start + 12 : start + 16])
            offsets = np.frombuffer(moov, dtype, count, start + 16)
            offsets += len(box)
    tracks = list(_inside(moov, 0, len(moov), b"trak"))
    handlers = list(_inside(moov, 0, len(moov), b"trak", b"mdia", b"hdlr"))
    start, end = next(
        track for track, (handler, _) in zip(tracks, handlers) if moov[handler + 16 : handler + 20] == b"vide"
    )
    for place in (0, start):
        size = int.from_bytes(moov[place : place + 4]) + len(box)
        struct.pack_into(">I", moov, place, size)
    return bytes(moov[:end]) + box + moov[end:]


def _inside(data: bytearray, start: int, end: int, kind: bytes, *kinds: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each box of a ``kind`` in that from ``start`` to ``end``; with ``kinds``, one inside another."""
    place = start + _HEADER
    while place < end:
        size = int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] == kind:
            yield from _inside(data, place, place + size, *kinds) if kinds else [(place, place + size)]
        place += size
