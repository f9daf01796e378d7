"""``file_storage``: the persistent sending queues of exporters, in files."""
