"""Quantities as Kubernetes writes them (`256Mi`, `1G`, `1e9`), in whole units."""

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}


def parse_quantity(text: str) -> int:
    """The number that a quantity stands for, rounded down; 0 for what is none."""
    for unit in sorted(_UNITS, key=len, reverse=True):
        if text.endswith(unit):
            try:
                return int(float(text.removesuffix(unit)) * _UNITS[unit])
            except (ValueError, OverflowError):
                continue
    return 0
