"""The door for people: click commands without computation. Each calls one stage of the same name and prints its record."""

from .main import main

__all__ = ["main"]
