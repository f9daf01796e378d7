"""A pytest plugin: the kernels of wirespan/native are those of the shared object that WIRESPAN_NATIVE names."""

from __future__ import annotations

import os

from wirespan.native import library

library.NAME = os.environ["WIRESPAN_NATIVE"]  # an absolute path, so it stays one behind the folder's
