"""The hot kernels, in C: what a span costs is spent here. Everything around them is Python.

``scripts/build-native`` compiles the sources of this folder into one shared object. It knows arrays, and nothing of
Python; :mod:`.library` has the prototypes. docs/decisions/native-kernels.md says why.
"""
