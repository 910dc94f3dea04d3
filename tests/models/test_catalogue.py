"""The catalogue names nothing that does not exist, and its settings are those of the equation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import diffflow as df
from diffflow.cli import COMMANDS
from diffflow.equation.papers import BIBTEX
from diffflow.models.catalogue import MODELS, landmarks, landmarks_js, markdown
from diffflow.models.flows import FLOWS
from diffflow.models.presets import BY_MODEL as PRESETS
from diffflow.models.row import Model
from diffflow.networks.games import GAMES

DOCS = Path(__file__).parents[2] / "docs"
EACH = pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)


@EACH
def test_commands_pages_and_papers_exist(model: Model) -> None:
    for line in model.commands:
        program, command, *rest = shlex.split(line)
        assert program == "diffflow"
        assert command in COMMANDS
        if "--preset" in rest:
            assert rest[rest.index("--preset") + 1] in PRESETS
        if "--model" in rest:
            flow = FLOWS[rest[rest.index("--model") + 1]]
            assert set(flow.papers) <= set(model.papers)
            assert flow.needs_score == (model.needs == "score")
    assert (DOCS / model.page).is_file()
    assert set(model.papers) <= set(BIBTEX)
    entries = re.findall(r"^@\w+\{(\w+),", model.cite(), flags=re.M)
    assert len(entries) == len(set(entries)) == 1 + len(model.papers)
    assert entries[0] == "zhang2023diffflow"


GENERATORS = set(
    "gan-saturating gan lsgan hinge ipm fgan-kl fgan-pearson relativistic score-gan drifting-generator mmd-generator "
    "sw-generator".split()
)
OTHERS = set(
    "score-sde score-ode edm-churn langevin ncsn improved-gan-independent improved-gan discriminator-flow "
    "diffusion-gan slcd continuation mmd svgd ksd sliced-wasserstein score-difference drifting monoflow".split()
)


def test_every_model_of_the_papers_has_a_row() -> None:
    """The tables of the papers, and the presets beside them: what is trained by a name is found by it."""
    assert MODELS.keys() >= GENERATORS | OTHERS  # and there may be more
    assert {m.name for m in MODELS.values() if m.generator} & (GENERATORS | OTHERS) == GENERATORS
    trained = {w[w.index("--preset") + 1] for m in MODELS.values() for w in [m.commands[-1].split()] if "--preset" in w}
    games = {game.preset for game in GAMES.values() if game.preset}
    assert PRESETS.keys() - trained == games - trained  # another speed of a GAN, whose row is gan
    # a generator is one evaluation, a cloud's own field none, a discriminator's gradient two
    assert all(m.evaluations == "1" for m in MODELS.values() if m.generator)


S, LAW = df.EDM(), df.GaussianMixture([[0.0, 0.0], [1.0, 0.0]], 0.5)
SCORE, RATIO = S.score(LAW), df.LawRatio(lambda t: LAW, lambda t: df.Gaussian([0.0, 0.0], 1.0))
HALF = df.Speed(lambda d: d.sigmoid())
BUILT: dict[str, Callable[[], df.DiffFlow]] = {
    "score-sde": lambda: df.reverse_sde(S, SCORE),
    "score-ode": lambda: df.probability_flow(S, SCORE),
    "edm-churn": lambda: df.edm_churn(S, SCORE, rate=0.5),
    "slcd": lambda: df.slcd(S, SCORE, g2=lambda t: 1.5 * S.lam2(t)),
    "langevin": lambda: df.langevin(LAW),
    "ncsn": lambda: df.annealed_langevin(levels := df.Levels.geometric(1.0, 0.1, 3, 2), levels.score(LAW)),
    "gan-saturating": lambda: df.gan_flow(RATIO, HALF),
    "improved-gan": lambda: df.improved_gan(df.VE(0.01, 1.0), RATIO),
    "discriminator-flow": lambda: df.discriminator_flow(RATIO, HALF, 2.0),
    "diffusion-gan": lambda: df.diffusion_gan(S, SCORE, RATIO, gan=1.0, churn=1.0),
    "continuation": lambda: df.continued(df.langevin(LAW), -0.5),
}


@pytest.mark.parametrize("name", BUILT)
def test_the_table_says_what_the_spectrum_does(name: str) -> None:
    model, sde, t = MODELS[name], BUILT[name](), 0.3
    needs = sde.needs(t)
    assert needs.score == ("score" in model.needs)
    assert needs.ratio == ("ratio" in model.needs)
    assert set(sde.papers) <= {*model.papers, "roberts1996"}
    zero = {"g2": sde.g2, "lam2": sde.lam2}
    for key, value in zero.items():
        number = float(value(t)) if callable(value) else float(value)
        assert (number == 0) == (getattr(model, key) == "0")
        assert (number < 0) == (getattr(model, key) == "< 0")
    if model.beta == "G²":
        assert float(sde.beta(t)) == float(S.lam2(t))
    if model.beta == "G²/2":
        assert float(sde.beta(t)) == 0.5 * float(S.lam2(t))
    if model.g2 in ("2β", "2G²"):
        twice = sde.beta(t) if callable(sde.beta) else sde.beta
        assert float(sde.g2(t) if callable(sde.g2) else sde.g2) == pytest.approx(2 * float(twice), rel=1e-12)


def test_readme_and_the_explorer_have_the_rows_of_the_catalogue() -> None:
    root = DOCS.parent
    assert markdown() in (root / "README.md").read_text()
    static = root / "src" / "diffflow" / "explorer" / "static"
    assert (static / "landmarks.js").read_text() == landmarks_js(), "python -m diffflow.models.catalogue writes it anew"
    assert all(hasattr(df, place.name) or place.name == "discriminator_guidance" for place in landmarks())
