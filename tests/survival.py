"""Renders that are killed at random moments and started again must end with the bytes of one that is not killed."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

from clips import make_clip
from helpers import moving_ramps, save_frames
from nets import SMALL, SMALL_SIZE, random_blobs, write_model
from PIL import Image

import dreamer
from deepdream.options import DivideMode, FlowMode

DREAM = "-t ../model -gpu 0 -l mixed conv1 -oct 2 -itr 3 -j 4".split()


def cases():
    """The arguments of each command by name; its input lies beside the folder in which it runs."""
    commands = {}
    for flow in FlowMode:
        for divide in DivideMode:
            kind = ("png", "jpg")[(flow + divide) % 2]
            more = [[], ["-z", "1.1"], ["-g", "../guide.png"]][(flow + 2 * divide) % 3]
            commands[f"flow {flow:d} divide {divide:d} {kind} {' '.join(more[:1])}".strip()] = [
                *("-i", f"../{kind}", "-o", "Output", "-flow", f"{flow:d}", "-d", f"{divide:d}", "-mw", "24"),
                *("-mh", "24", *more, *DREAM),
            ]
    commands["independent"] = ["-i", "../png", "-o", "Output", "-bs", "0", *DREAM]
    commands["extract"] = ["-e", "-i", "../clip.mp4", "-o", "Output"]
    commands["create"] = ["-c", "-i", "../png", "-o", "Video.mp4"]
    commands["all three"] = ["-i", "../clip.mp4", "-o", "Video.mp4", "-flow", "1", *DREAM]
    return commands


def prepare(folder):
    """Make what the commands take as input."""
    write_model(folder / "model", SMALL, random_blobs(SMALL))
    pictures = moving_ramps(4, SMALL_SIZE)
    for kind in ("png", "jpg"):
        save_frames(pictures, folder / kind, pattern=f"image-{{:06d}}.{kind}", first=1)
    Image.fromarray(pictures[0][..., 0]).save(folder / "guide.png")
    make_clip(folder / "clip.mp4", frames=4, size="48x40")


def start(arguments, folder):
    """Start dreamer.py in ``folder``, in a fork of a process that has loaded everything and computed nothing.

    Not in a fork of this one: OpenMP does not work in those of a process that has used it.
    """
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["survival"])
    process = context.Process(target=_dream, args=(arguments, folder))
    process.start()
    return process


def _dream(arguments, folder):
    status = 70
    try:
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115 - until the process ends
        signal.signal(signal.SIGINT, signal.default_int_handler)
        multiprocessing.set_start_method("fork", force=True)  # as in a run: other locks would outlive a kill
        status = dreamer.main([*arguments, "-v", "0"])
    finally:
        os._exit(status)


def finish(process):
    """Wait for a run; its exit status, negative for a signal."""
    process.join()
    return process.exitcode


def run(arguments, folder):
    """Run a command to its end, which must be a good one; the seconds it took."""
    started = time.monotonic()
    status = finish(start(arguments, folder))
    assert status == 0, (folder / "log.txt").read_text()
    return time.monotonic() - started


def results(folder):
    """The bytes of what a command made, by name; fails where a file is left half made."""
    made = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    assert not [path for path in made if path.name.endswith(".part") or ".extract.part" in path.parts], made
    notes = ("log.txt", "render.json", "frames.jsonl", ".lock")
    return {str(name): path.read_bytes() for name, path in made.items() if name.name not in notes}


def survive(arguments, folder, kills, seed):
    """Run a command once whole, then again under ``kills`` SIGKILLs; returns how many renders the kills fell on.

    A killed render is started again until it is done. Fails where one of them ends with other bytes than the first.
    """
    rng = random.Random(seed)
    seconds = run(arguments, folder / "whole")
    wanted = results(folder / "whole")
    done = renders = 0
    while done < kills:
        renders += 1
        killed = folder / f"killed-{renders}"
        for _ in range(kills - done):
            process = start(arguments, killed)
            time.sleep(rng.uniform(0, seconds))
            process.kill()
            if finish(process) == 0:
                break  # was done before
            done += 1
        run(arguments, killed)
        assert results(killed) == wanted, f"{killed} differs from {folder / 'whole'}"
    return renders


def survive_all(folder, kills, names=None, tell=lambda line: None):
    """`survive` for each command, or those named; ``kills`` each."""
    folder = Path(folder)
    prepare(folder)
    for number, (name, arguments) in enumerate(cases().items()):
        if names is None or name in names:
            place = folder / f"case-{number}"
            place.mkdir()
            command = [argument.replace("../", "../../") for argument in arguments]
            renders = survive(command, place, kills, number)
            tell(f"{name}: {kills} kills over {renders} renders, each with the bytes of an unkilled one")
