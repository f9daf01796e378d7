"""``python -m wirespan`` is ``wirespan``."""

from .service.cli import main

main(prog_name="wirespan")
