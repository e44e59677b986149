"""Measure how fast dreamer.py is on this machine's CPU, all in one run.

steps    A step: forward to a layer, objective, gradient of the picture. dreamer.py in float32 and bfloat16 against
         plain PyTorch (one function a layer, as the prototxt lists them), real Caffe where it is installed
         (scripts/build_caffe.sh), and neural-dream with --peer-python, the Python of an environment of its own:
         pip install neural-dream==0.0.4 torch==2.14.1 torchvision==0.29.1 numpy
         "convolutions alone" bounds what is possible. Engines take turns, so that whatever else the machine does hits
         all alike, and the ratios of the medians hold where the times do not. Activations and gradients are compared
         first: an engine that computes something else ends the run. "of sgemm" is what the convolutions' arithmetic
         reaches of the rate of a large matrix product.
frames   Whole frames by the command line with the old suite's settings: seconds a frame, and peak memory.
share    The part of a frame's time that is not the network's: octaves, jitter, flow, reading, saving. Once as the time
         in which no gradient is computed, and once with gradients counted at their undisturbed speed.
looks    How much longer a step takes that is smoothed, or has natural colours.
workers  A real render in one process and in as many workers as there are cores, side by side.
many     Renders on up to 256 workers that sleep in place of dreaming, in shots of real lengths and frame by frame, set
         against the time that no order of frames can beat; and what a frame costs the client, the scheduler and all
         workers, which share this machine.
clips    A whole clip of 640x480 by our command, and with --peer-python by neural-dream's own and by torch-dreams 4.0.0
         (pip install torch-dreams==4.0.0 in the same environment), frame by frame as people use them.
start    The seconds until --help answers, and until the first step is made.

Networks have random weights, the default network its own.
"""
