"""`python -m leadre` is `leadre`: launchers such as `accelerate launch -m leadre train …` start modules."""

from leadre.cli import main

if __name__ == "__main__":
    main()
