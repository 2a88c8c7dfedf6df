"""``python -m lit_dense`` is ``lit-dense``; torchrun starts modules this way."""

from .cli import main

if __name__ == "__main__":
    main()
