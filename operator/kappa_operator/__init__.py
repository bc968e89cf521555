"""Kappa's operator: reconciles Functions into pods and scales them."""
