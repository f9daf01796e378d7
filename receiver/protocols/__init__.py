"""Protocol parsers: sans-io, one file each, named once in :mod:`.registry`."""
