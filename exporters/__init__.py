"""Exporters: where batches go. One file a kind; what they share (queue, retry) is in :mod:`.sending`."""
