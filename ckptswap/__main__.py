"""`python -m ckptswap` is `ckptswap`."""

from ckptswap.cli.main import main

if __name__ == "__main__":
    main()
