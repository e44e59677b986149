"""Networks to dream with: found, loaded, and offered through one interface whatever engine runs them.

`load_network` gives a network: see `network.Network` for what it has and does. `resolve_layers` turns the names that
a user gives into the names of its layers.
"""

from deepdream.networks.load import load_network
from deepdream.networks.names import resolve_layers

__all__ = ["load_network", "resolve_layers"]
