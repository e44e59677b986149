"""What stands in the way of Windows and macOS, as far as Linux can tell.

Modules that only POSIX has are hidden, and so are the names in `os` and `signal` that Windows lacks.
"""

import ast
import sys

from clips import make_clip
from helpers import ROOT, read_dreams, run_python

# Runs each of several command lines, which are divided by "then", in one process without these modules.
WITHOUT_POSIX = """
import sys
import psutil  # on Linux it cannot do without

HIDDEN = "fcntl", "grp", "pwd", "resource", "termios"


class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


for name in HIDDEN:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hide())

import dreamer

words = []
for word in [*sys.argv[1:], "then"]:
    if word != "then":
        words.append(word)
    elif dreamer.main(words):
        sys.exit(f"failed: {words}")
    else:
        words = []
"""
NOT_ON_WINDOWS = {
    "os": "chown fchmod fchown fork forkpty geteuid getgid getgroups getloadavg getpgid getpriority getuid killpg "
    "lchown mkfifo mknod nice O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC openpty pathconf posix_fadvise "
    "posix_fallocate posix_spawn pread pwrite register_at_fork sched_getaffinity sched_setaffinity sendfile setpgid "
    "setpriority setsid setuid statvfs sync sysconf tcgetpgrp uname wait wait3 wait4 WEXITSTATUS WIFSIGNALED WNOHANG",
    "signal": "alarm pause pthread_kill pthread_sigmask setitimer SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE "
    "SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 sigtimedwait sigwait",
    "time": "clock_gettime clock_gettime_ns tzset",
}
LINUX_ONLY = ROOT / "deepdream" / "networks" / "caffe"  # the engine caffe says so itself


def test_a_video_is_dreamed_without_the_modules_of_posix(tmp_path, small_folder):
    make_clip(tmp_path / "clip.mp4", frames=2)
    dream = ["-t", small_folder, "-l", "mixed", "-gpu", 0, "-oct", 1, "-itr", 1]
    commands = [
        ["-e", 1, "-i", "clip.mp4", "-o", "Input"],
        ["then", "-i", "Input", "-o", "Output", "-flow", 2, *dream],
        ["then", "-c", 1, "-i", "Output", "-o", "Video.mp4"],
        ["then", "-i", "clip.mp4", "-o", "Whole.mp4", "-flow", 2, *dream],
    ]
    # Files without a stated encoding are read in another one on Windows.
    python = ["-X", "warn_default_encoding", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WITHOUT_POSIX}"]
    done = run_python(*python, *sum(commands, []), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and str(ROOT / "deepdream") in line]
    assert not ours
    assert len(read_dreams(tmp_path / "Output")) == 2
    assert read_dreams(tmp_path / "Output") == read_dreams(tmp_path / "Whole.frames" / "Output")


def test_no_name_that_windows_lacks_is_taken_for_granted():
    """Such a name is asked for by `getattr`, or stands in the module of an engine that needs Linux."""
    for path in [ROOT / "dreamer.py", *(ROOT / "deepdream").rglob("*.py")]:
        if LINUX_ONLY in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.attr not in NOT_ON_WINDOWS.get(node.value.id, "").split(), f"{path}:{node.lineno}"


def test_the_names_are_those_of_this_system():
    """So that none of them is misspelt."""
    for module, names in NOT_ON_WINDOWS.items():
        missing = [name for name in names.split() if not hasattr(__import__(module), name)]
        assert not missing or sys.platform != "linux", missing
