"""What a video's ending decides about it. Light, so that the command line can ask."""

MUXERS: dict[str, tuple[str, dict[str, str]]] = {  # by the ending: ffmpeg's name of the container, and its options
    ".mp4": ("mp4", {"movflags": "+faststart"}),
    ".m4v": ("mp4", {"movflags": "+faststart"}),
    ".mov": ("mov", {"movflags": "+faststart"}),
    ".mkv": ("matroska", {}),
}
