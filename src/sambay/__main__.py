"""`python -m sambay` is the command `sambay`."""

from sambay.cli import main

if __name__ == "__main__":
    main()
