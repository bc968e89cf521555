"""Starts the whole platform on the embedded cluster: `make up`, `make down`, and the ground that the demo stands on."""
