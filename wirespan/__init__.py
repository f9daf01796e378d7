"""wirespan: an OpenTelemetry-native eBPF receiver for every exchange on every socket."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("wirespan")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
