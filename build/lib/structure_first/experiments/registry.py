"""Every experiment by name. A new one is a file beside this one and a line here."""

from structure_first.experiments import additive, haystack, skills, substitutive

EXPERIMENTS = {
    each.name: each
    for each in (
        haystack.EXPERIMENT,
        haystack.SEARCH,
        haystack.TUNING,
        skills.EXPERIMENT,
        skills.TUNED,
        skills.TUNING,
        additive.EXPERIMENT,
        additive.FORMER,
        additive.TUNING,
        additive.UNTUNED,
        substitutive.EXPERIMENT,
        substitutive.FORMER,
    )
}
