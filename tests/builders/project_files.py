"""Where the project's configurations and examples are."""

from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted((CONFIGS / "recipes").glob("*.yaml"))
EXAMPLES = CONFIGS.parent / "examples"
