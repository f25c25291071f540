"""What pyproject.toml cannot say: the package has a copy of the recipes, whose one place is examples/recipes."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """Puts them into mdp/recipes; an editable installation reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copy = Path(self.build_lib, "mdp", "recipes")
            shutil.rmtree(copy, ignore_errors=True)  # of an older build
            shutil.copytree("examples/recipes", copy)


setup(cmdclass={"build_py": WithRecipes})
