"""Receivers: where exchanges come from."""
