"""DeepDream videos: extract frames, dream over them with optical flow, create the video."""
