"""The receiver ``otlp``: traces, metrics and logs that others send by OTLP, over gRPC and HTTP.

One thread has an event loop for all connections, so that a client that is slow holds no thread; a few more take requests
apart and hand them on. A request is checked and counted by a scan, not decoded, and goes on as the bytes that came.
"""
