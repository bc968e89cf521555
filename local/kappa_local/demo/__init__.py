"""`make demo`: the main job of Kappa, step by step, each with its result; it fails if a single step is not right."""
