"""``python -m tailorbird``."""

from tailorbird.cli.main import main

if __name__ == "__main__":
    main()
