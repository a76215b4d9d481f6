"""Every experiment by name. A new one is a file beside this one and a line here."""

from structure_first.experiments import haystack

EXPERIMENTS = {experiment.name: experiment for experiment in (haystack.EXPERIMENT,)}
