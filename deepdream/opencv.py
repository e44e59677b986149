"""OpenCV, where it is needed."""

from types import ModuleType

from deepdream.errors import DreamError


def opencv() -> ModuleType:
    """OpenCV, imported where it is first needed. Raises `DreamError` where it does not load.

    It computes on one thread: its dense inverse search cuts a frame into as many stripes as there are threads, so that
    the flow would depend on their number, and other work runs beside it.
    """
    try:
        import cv2
    except ImportError as error:
        raise DreamError(
            f"OpenCV does not load ({error}); where libGL is missing: apt-get install libgl1 libglib2.0-0, "
            "or pip install opencv-python-headless in place of opencv-python"
        ) from error
    cv2.setNumThreads(1)
    return cv2
