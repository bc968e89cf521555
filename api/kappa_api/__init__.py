"""What every part of Kappa agrees on: resources, names, and the messages between processes.

Standard library only, so that any component (and any image) can hold it at no cost. Nothing here does I/O.
"""
