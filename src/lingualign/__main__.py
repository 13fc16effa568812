"""`python -m lingualign` is the `lingualign` program."""

from lingualign.cli.main import run_cli

if __name__ == "__main__":
    run_cli()
