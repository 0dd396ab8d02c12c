"""``python -m ooc_diffusion`` is the command ``ooc-diffusion``."""

from .cli import main

main()
