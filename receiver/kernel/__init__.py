"""The way into the kernel: loading BPF programs, their maps and rings, and the layout of their records."""
