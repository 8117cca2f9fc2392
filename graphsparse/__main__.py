"""``python -m graphsparse`` is the command ``graphsparse``."""

from graphsparse.cli import main

if __name__ == "__main__":
    main()
