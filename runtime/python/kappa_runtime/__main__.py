"""`python -m kappa_runtime`: serves on $POD_IP:$PORT."""

from kappa_runtime.main import main

if __name__ == "__main__":  # a child of multiprocessing imports this module, too
    main()
