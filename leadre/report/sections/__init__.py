"""The parts of the page: a module makes what a template of the same name shows."""

from leadre.report.sections.benchmarks import benchmarks
from leadre.report.sections.comparison import comparison
from leadre.report.sections.features import features
from leadre.report.sections.health import health
from leadre.report.sections.index import index
from leadre.report.sections.learning import learning
from leadre.report.sections.llm_alone import llm_alone
from leadre.report.sections.paper import paper
from leadre.report.sections.quality import quality
from leadre.report.sections.simulation import simulation
from leadre.report.sections.story import story

SECTIONS = (quality, llm_alone, comparison, simulation, story, learning, index, paper, features, benchmarks, health)
"""In the page's order: what it brings, how it comes about, whether all is well."""

__all__ = ["SECTIONS"]
