"""What the user sees while it runs: lines, progress bars and the live picture. All of it goes to standard error."""

import os
import sys
import time
from contextlib import contextmanager

LIVE_PICTURE_SECONDS = 0.5


class Screen:
    """What the user sees while it runs, by the level of -v. All of it goes to standard error."""

    def __init__(self, level):
        self.level = level
        self._bar = None

    def tell(self, line):
        """A line for the user, above the bar."""
        if self.level < 1:
            return
        if self._bar is None:
            print(one_line(line), file=sys.stderr)
        else:
            self._bar.write(one_line(line), file=sys.stderr)

    def detail(self, line):
        """A line that only -v 2 shows."""
        if self.level >= 2:
            self.tell(line)

    @contextmanager
    def bar(self, total, what):
        """A progress bar with the time that is left."""
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
        with tqdm(total=total, desc=what, bar_format=layout, disable=self.level < 1, file=sys.stderr) as self._bar:
            yield self._bar
        self._bar = None

    @contextmanager
    def counter(self, what):
        """A bar over frames, as a function of (done, total)."""
        with self.bar(None, what) as bar:

            def on_progress(done, total):
                bar.total = total
                bar.update(done - bar.n)

            yield on_progress


class LivePicture:
    """The picture as it grows: in a window where there is a display, else rewritten in place in a file."""

    def __init__(self, path):
        self._path = path
        self._shown = 0.0
        self._window = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

    def show(self, report):
        """Show the picture of an `ascent.StepReport`, at most twice a second."""
        if time.monotonic() - self._shown < LIVE_PICTURE_SECONDS:
            return
        picture = report.picture()
        self._window = self._window and self._show_window(picture)
        if not self._window:
            from deepdream.files.frames import write_frame

            write_frame(self._path, picture, "jpg")
        self._shown = time.monotonic()

    @staticmethod
    def _show_window(picture):
        import cv2

        try:
            cv2.imshow("dream", picture[:, :, ::-1])
            cv2.waitKey(1)
        except cv2.error:
            return False  # an OpenCV without windows, or a display that does not answer: the file serves
        return True


def one_line(text):
    """``text`` without line breaks and control characters, which names of files and layers may hold."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))
