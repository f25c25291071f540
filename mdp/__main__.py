"""`python -m mdp` is the command `mdp`."""

from mdp.cli import main

if __name__ == "__main__":
    main()
