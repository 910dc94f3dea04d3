"""What a run's settings say of the equation, in words: the players, the coefficients (as HTML), and the dials to turn.

Read from plain settings (config.yaml), so that a report needs nothing but files: no networks are built, and no data are
looked for. That is why families are told apart here by the names of their classes, which is all that the file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

ONE_EVALUATION = (
    "New examples are drawn in one evaluation: the generator has learned where the particles of the equation below go."
)

# What each family of models is, and how new examples come about.
FAMILIES = {
    "ScoreConfig": (
        "A denoiser",
        "New examples are drawn by moving noise along the equation below; one dial sets how much of the path is "
        "random.",
    ),
    "DiscriminatorFlowConfig": (
        "A discriminator",
        "New examples are particles that start as noise and climb what the discriminator tells them at each time: the "
        "equation below without score, without noise and without a generator.",
    ),
    "DiffusionGANConfig": (
        "A denoiser and a discriminator",
        "New examples are drawn by moving noise along the equation below; dials set how much of the path is random, "
        "and how much the discriminator corrects it.",
    ),
    "LikelihoodConfig": (
        "A denoiser and a discriminator, one composite",
        "New examples are drawn by moving noise along the equation below; both were trained on one likelihood bound.",
    ),
    "GANConfig": ("A generator and a discriminator", ONE_EVALUATION),
    "ScoreGANConfig": ("A generator and the denoiser of its own samples", ONE_EVALUATION),
    "DistillConfig": (
        "The sampler of a few steps, as a generator",
        "New examples are drawn by a fixed number of steps, whose weights have learned where the particles of the "
        "equation below go.",
    ),
    "FieldConfig": ("A generator", ONE_EVALUATION),
}
RATIO = "∇log(<i>r</i>/<i>p</i>)"


def _schedule(sampling: Mapping) -> list[tuple[str, str]]:
    low, high, churn = sampling.get("sigma_min", 0.002), sampling.get("sigma_max", 80.0), sampling.get("churn", 0.0)
    return [
        (
            "<i>r</i>",
            "the data, noised; ∇log <i>r</i> = (<i>D</i> − <i>x</i>)/<i>σ</i>² with the trained denoiser <i>D</i>",
        ),
        ("<i>σ</i>", f"from {high:g} down to {low:g}, linear in time (the EDM schedule); <i>f</i> = 0"),
        ("<i>λ</i>²", "<i>G</i>² = 2<i>σ</i>|d<i>σ</i>/d<i>t</i>|: the entropy that noising the data took away"),
        (
            "<i>g</i>²",
            f"(1 + churn) <i>G</i>²: the dial. 0 is the probability flow, 1 the reverse SDE; here {churn:g}",
        ),
    ]


def rows(config: Mapping) -> list[tuple[str, str]]:
    """The run's setting of the equation: symbols and what they are here, by the family of models."""
    family, game = config.get("type", "ScoreConfig"), escape(str(config.get("game", {}).get("loss", "")))
    if family == "ScoreConfig":
        rest = f"<i>g</i>²/2, so that {RATIO} has no weight and no discriminator is needed"
        return [*_schedule(config.get("sampling", {})), ("<i>β</i>", rest)]
    if family == "LikelihoodConfig":
        s = config["sampling"]
        levels = f"from {s['sigma_max']:g} down to {s['sigma_min']:g} on the schedule “{s['schedule']}”"
        return [
            (
                "<i>r</i>",
                "the data, noised and scaled by <i>s</i>; ∇log <i>r</i> = (<i>D</i>(<i>x</i>/<i>s</i>) − "
                "<i>x</i>/<i>s</i>)/(<i>sσ</i>²) with the denoiser <i>D</i>",
            ),
            ("<i>σ</i>", levels),
            ("<i>g</i>², <i>λ</i>²", f"(1 + churn) <i>G</i>² and the schedule's own <i>G</i>²; churn = {s['churn']:g}"),
            ("<i>β</i>", f"<i>g</i>²/2 + gan <i>G</i>²/2, the weight of ∇<i>d</i>; gan = {s['gan']:g}"),
        ]
    if family == "DiffusionGANConfig":
        sampling, ranges = config["sampling"], config["ranges"]
        steps = "–".join(map(str, ranges["steps"]))
        return [
            *_schedule(sampling),
            (
                "<i>β</i>",
                f"<i>g</i>²/2 + gan <i>G</i>²/2 / (1 + <i>σ</i>²/std²), the weight of the discriminator's {RATIO}: it "
                f"fades where the noise is wider than the data, of standard deviation std; here gan = "
                f"{sampling['gan']:g}",
            ),
            (
                "trained for",
                f"gan up to {ranges['gan']:g}, churn up to {ranges['churn']:g}, {steps} steps; game {game}",
            ),
        ]
    still = ("<i>f</i>, <i>g</i>²", "0: no drift of its own, no score")
    if family == "DiscriminatorFlowConfig":
        path = config["path"]
        noised = f"noised less and less, from {path['noise']:g} to {path['noise_end']:g} of its standard deviation"
        size = f"{path['eta']:g} × entries of a sample × the data’s variance"
        speed = size if path["noise"] else f"−<i>η</i> <i>l</i>′(<i>d</i>), <i>η</i> = {size}"
        entropy = (
            f"−{path['entropy']:g} × the data’s variance: noise that flattens the law"
            if path["entropy"]
            else "0: no noise"
        )
        shrinking = " that shrink toward the data" if path.get("slowing", 1) > 1 else ""
        stages = config["model"]["stages"]
        which = "one discriminator" if stages is None else f"{stages} independent discriminators, one per interval,"
        return [
            ("<i>r</i>", f"the data, {noised}" if path["noise"] else "the data itself, at all times"),
            (
                RATIO,
                f"the gradient of {which} <i>d</i>(<i>x</i>, <i>t</i>), trained along the particles’ own path; "
                f"game {game}",
            ),
            ("<i>β</i>", f"{speed}, in {path['steps']} steps{shrinking}"),
            still,
            ("<i>λ</i>²", entropy),
        ]
    move, target = config["move"], "the data itself"
    follow = f"the generator follows by {move['steps']} regression step{'s' if move['steps'] > 1 else ''} for each move"
    if family == "GANConfig":
        rows = [
            (RATIO, f"the gradient of the discriminator <i>d</i>(<i>x</i>); game {game}"),
            ("<i>β</i>", "−<i>l</i>′(<i>d</i>), the slope of the generator’s loss"),
        ]
    elif family == "ScoreGANConfig":
        target = "the data noised by <i>σ</i>, drawn at random"
        rows = [(RATIO, "the difference of two denoisers at random noise levels: the data’s, and that of the samples")]
    elif family == "DistillConfig":
        target = "the data, noised by <i>σ</i> for the scores" if config["score"] else target
        rows = [
            ("velocity" if config["teacher_first_steps"] is None else f"<i>β</i> {RATIO}", escape(moved_by(config)))
        ]
    else:
        kind = escape(str(config["mover"].get("type", "")).removesuffix("Config"))
        rows = [(f"<i>β</i> {RATIO}", f"a field of samples and data alone: {kind}")]
    return [("<i>r</i>", target), *rows, still, ("<i>λ</i>²", "0: no noise"), ("generator", follow)]


def moved_by(config: Mapping) -> str:
    """What moves the samples of a distilled sampler."""
    parts = [
        f"{config[key]:g} × {what}"
        for key, what in (
            ("score", "the difference of two denoisers at random noise levels: the data’s, and that of the samples"),
            ("ratio", f"the gradient of a discriminator of samples and data; game {config['game']['loss']}"),
        )
        if config[key]
    ]
    ends = f"to the ends of fine solutions ({config['teacher_steps']} evaluations) from the same noise"
    if not parts:
        return ends
    return " + ".join(parts) + (
        f"; in the first {config['teacher_first_steps']} steps {ends}" if config["teacher_first_steps"] else ""
    )


def dials(family: str) -> tuple[str, str, str]:
    """What a family of models can be told when sampling: flags, keywords, and the line about its equation."""
    sde = "\nsde = run.sde({})   # the equation, with what was trained in it"
    if family == "ScoreConfig":
        return " --steps 20 --churn 0", ", steps=20, churn=0.5", sde.format("churn=1.0")
    if family == "LikelihoodConfig":
        return " --steps 20", ", steps=20", ""
    if family == "DiffusionGANConfig":
        return " --steps 20 --gan 1 --churn 0", ", steps=20, gan=1.0, churn=0.5", sde.format("gan=1.0, churn=1.0")
    return ("", "", sde.format("gan=1.0")) if family == "DiscriminatorFlowConfig" else ("", "", "")
