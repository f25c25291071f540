"""`python -m mdp` is the command `mdp`, which begins here: signals are taken before anything else is imported."""

from mdp.io.processes.early import take_signals


def main() -> None:
    """The command `mdp`; see `mdp.cli.main`."""
    take_signals()
    from mdp.cli import main as command  # noqa: PLC0415 - see above

    command()


if __name__ == "__main__":
    main()
