"""What is asked and dreams nothing: the settings of a file, the layers of a network, the values of each frame."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deepdream.files.frames import open_frames, read_note
from deepdream.files.note import commands
from deepdream.modes.job import Job
from deepdream.networks import load_network
from deepdream.options import image_type_of
from deepdream.schedule import values_of
from deepdream.video.encode import NOTE_KEY
from deepdream.video.part import open_part
from deepdream.video.probe import read_metadata


def settings(job: Job) -> list[str]:
    """The commands that made a dreamed frame or a created video."""
    path = Path(job.arguments.run.settings)
    note = read_note(path) if image_type_of(path.suffix) else read_metadata(path).get(NOTE_KEY)
    return commands(note or "", path)


def layers(job: Job) -> Iterator[str]:
    """The layers of the network, each with the shape of what it puts out at its own input size."""
    network = load_network(**vars(replace(job.arguments.network, gpu=0)), on_message=job.screen.tell)
    classes = network.class_layers()
    for name, shape in network.layer_shapes():
        note = "  classes" if name in classes else ""
        yield f"{name:40} {shape}{note}"
    for number, label in enumerate(network.labels if classes else ()):
        yield f"  class {number}: {label}"


def schedule(job: Job) -> Iterator[str]:
    """The values of each frame: of the input's frames, else up to the last keyframe."""
    from deepdream.show.table import schedule_lines  # which takes seconds to load

    run, options = job.arguments.run, job.options(job.source)
    count = run.frames
    if not run.input:
        count = None
    elif not count and job.source.is_dir():
        count = len(open_frames(job.source, run.image_type, filter(None, values_of(options.guide))).paths)
    elif not count:
        count = open_part(job.source, job.arguments.part).frame_count
    return schedule_lines(options, count)
