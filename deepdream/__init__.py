"""DeepDream videos: extract frames, dream over them with optical flow, create the video."""

__version__ = "1.0.0"
