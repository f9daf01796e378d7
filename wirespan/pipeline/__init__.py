"""What flows through every pipeline: columnar span batches, their OTLP encoding, and the component contract.

Receivers, processors and exporters import this package and know nothing of each other.
"""
