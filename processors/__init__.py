"""Processors: what stands between receivers and exporters. One file a kind."""
