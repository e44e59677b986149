"""A window that shows pictures: a program of its own, so that it answers at once and takes nothing down with it.

Standard input: for each picture a line of JSON, {"title": …, "size": [height, width]}, and its bytes, BGR, row by row.
It ends with status 0 at the end of the input and when the window is closed (also by Q or Esc), and with another one
where no window can be shown: where there is no display, Qt ends the whole process.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread

import cv2
import numpy as np

NAME = "dreamer.py"
REDRAW_MILLISECONDS = 30
CLOSING_KEYS = (27, ord("q"))


def read_pictures(pictures: "Queue[tuple[str, np.ndarray] | None]") -> None:
    """Put each picture of the input into a queue, and None at its end."""
    with suppress(ValueError, OSError):  # the program that sends them was killed amid one
        while line := sys.stdin.buffer.readline():
            about = json.loads(line)
            height, width = about["size"]
            data = np.frombuffer(sys.stdin.buffer.read(3 * height * width), np.uint8)
            pictures.put((about["title"], data.reshape(height, width, 3)))
    pictures.put(None)


def main() -> None:
    """Show pictures until the input ends or the window is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that sends the pictures
    pictures: Queue[tuple[str, np.ndarray] | None] = Queue()
    Thread(target=read_pictures, args=(pictures,), daemon=True).start()
    cv2.namedWindow(NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    is_shown = False
    while cv2.waitKey(REDRAW_MILLISECONDS) not in CLOSING_KEYS and not (is_shown and is_closed()):
        with suppress(Empty):
            picture = pictures.get_nowait()
            if picture is None:
                return
            if not is_shown:
                cv2.resizeWindow(NAME, picture[1].shape[1], picture[1].shape[0])
                is_shown = True
            cv2.setWindowTitle(NAME, picture[0])
            cv2.imshow(NAME, picture[1])


def is_closed() -> bool:
    """Whether the user has closed the window. Some of OpenCV's window systems do not know it any more then."""
    try:
        return cv2.getWindowProperty(NAME, cv2.WND_PROP_VISIBLE) < 1
    except cv2.error:
        return True


if __name__ == "__main__":
    main()
    os._exit(0)  # a thread still reads the input: Python's own exit would abort
