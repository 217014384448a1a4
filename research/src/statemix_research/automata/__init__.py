"""Many small runs on automata at once: words drawn on the device, hard rows, what makes a run stall and what helps."""

from statemix_research.automata.population import Population
from statemix_research.automata.recipes import REMEDIES, Recipe, get_recipe
from statemix_research.automata.words import LANGUAGES, Words, group_words

__all__ = ["LANGUAGES", "REMEDIES", "Population", "Recipe", "Words", "get_recipe", "group_words"]
