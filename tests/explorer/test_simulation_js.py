"""The page's own particles: every exact family ends at its target, the law is what the theory says, seeds mean the same
noise, and every lesson shows what its text claims."""

import math

import pytest

RUN = """const run = (s, toy = given.toy) => { const sim = new S.Simulation(s, T.TOYS[toy].make()); while (sim.step()); return sim; };
    const spreads = (x) => { // of every particle about its nearest mode of the eight
        let total = 0; const n = x.length / 2;
        for (let i = 0; i < n; i++) { let best = 9; for (let j = 0; j < 8; j++) { const a = j * Math.PI / 4; best = Math.min(best, (x[2 * i] - Math.SQRT2 * Math.cos(a)) ** 2 + (x[2 * i + 1] - Math.SQRT2 * Math.sin(a)) ** 2); } total += best / (2 * n); }
        return Math.sqrt(total); };
    const shares = (x) => { const c = new Array(8).fill(0); for (let i = 0; i < x.length / 2; i++) c[(Math.round(Math.atan2(x[2 * i + 1], x[2 * i]) / (Math.PI / 4)) + 8) % 8] += 2 / x.length; return c; };"""

EXACT = [
    ("8gaussians", {"churn": 0}),
    ("8gaussians", {"churn": 1}),
    ("8gaussians", {"churn": 3}),
    ("8gaussians", {"churn": 0, "gan": 1}),
    ("8gaussians", {"churn": 1, "gan": 4}),
    ("moons", {"churn": 1, "gan": 1}),
    ("spirals", {"churn": 0.5, "gan": 0}),
    ("moons", {"churn": 1, "schedule": "EDM"}),
    ("moons", {"churn": 0, "schedule": "RectifiedFlow"}),
    ("8gaussians", {"family": "static", "churn": 0}),
    ("8gaussians", {"family": "static", "churn": 0.5}),
    ("8gaussians", {"family": "static", "churn": 1}),
    ("moons", {"family": "static", "churn": 0}),
    ("moons", {"family": "static", "churn": 1}),
]


@pytest.mark.parametrize(("toy", "setting"), EXACT, ids=str)
def test_exact_families_end_at_the_target(ask, toy: str, setting: dict) -> None:
    """Sliced W2 to a sample of the target, within twice the mean of what two samples of it have (five seeds each, 24
    directions)."""
    code = (
        RUN
        + """const own = [], floor = [];
        for (let seed = 0; seed < 5; seed++) {
            const sim = run({ ...given.setting, seed, particles: 1000, steps: given.steps }), d = sim.distance();
            own.push(d.distance); floor.push(d.floor);
        }
        return [own, floor];"""
    )
    kernels = setting.get("gan", 0) > 0 or (setting.get("family") == "static" and setting["churn"] < 1)  # slow
    own, floor = ask(code, {"toy": toy, "setting": setting, "steps": 80 if kernels else 160})
    assert sum(own) <= 2 * sum(floor)


def test_equal_seeds_are_equal_starts_and_equal_noise(ask) -> None:
    """Across settings: the start of every particle, and what is drawn at the same step."""
    code = (
        RUN
        + """const make = (s) => new S.Simulation({ particles: 50, ...s }, T.TOYS.moons.make());
        const a = make({ churn: 0 }), b = make({ churn: 1 }), c = make({ churn: 1, seed: 1 }), d = make({ churn: 1 }), e = make({ churn: 1, particles: 20 });
        const same = [[...a.x].every((v, i) => v === b.x[i]), [...a.x].every((v, i) => v === c.x[i])];
        for (let k = 0; k < 30; k++) { b.step(); d.step(); e.step(); }
        return [...same, [...b.x].every((v, i) => v === d.x[i]), [...e.x].every((v, i) => v === d.x[i])];"""
    )
    assert ask(code) == [True, False, True, True]


def test_the_continuation_flattens_as_theory_says(ask) -> None:
    """On a fixed target with lam2 = -e beta the law tends to q^(1/(1 + e/2)): each mode as wide as std sqrt(1 + e/2)
    (derivations.md section 1). Well separated modes, 2000 particles: 3 %."""
    for extra in (0.0, 0.4, 1.0):
        code = (
            RUN + "return spreads(run({ family: 'static', churn: 1, extra: given.extra, horizon: 1, steps: 400 }).x);"
        )
        found = ask(code, {"toy": "8gaussians", "extra": extra})
        assert found == pytest.approx(0.1 * math.sqrt(1 + extra / 2), rel=0.03)


@pytest.fixture(scope="module")
def lessons(ask) -> dict:
    """Both sides of every lesson, run to their end: in half of the steps where it is not about their number."""
    code = (
        RUN
        + """const { LESSONS } = await import("/lessons.js"), out = {};
        for (const l of LESSONS) {
            const ends = [l.a, { ...l.a, ...l.b }].map((s) => {
                const steps = s.family === "annealed" ? s.steps : s.steps / 2, sim = run({ ...s, steps, particles: 1000 }, l.target), d = sim.distance(), x = sim.x, n = x.length / 2, [mx, my] = sim.law.mean;
                let dx = 0; for (let i = 0; i < n; i++) dx += (x[2 * i] - mx) / n;
                const floors = [0, 1, 2, 3, 4].map((k) => S.slicedW2(sim.law.sample(n, new E.Random(k, 1)), sim.law.sample(n, new E.Random(k, 2)), 24));
                return { ...d, floor: floors.reduce((s, v) => s + v, 0) / 5, ...sim.divergences(), width: spreads(x), most: Math.max(...shares(x)), shift: dx, spread: sim.spread, needs: sim.sde.needs(0.5 * sim.sde.horizon), x: [...x].slice(0, 400) };
            });
            out[l.name] = ends;
        }
        return out;"""
    )
    return ask(code, {})


def test_lesson_the_law_does_not_depend_on_g(lessons: dict) -> None:
    a, b = lessons["gauge"]
    assert max(a["distance"], b["distance"]) < 2 * a["floor"]
    moved = [math.dist(a["x"][2 * i : 2 * i + 2], b["x"][2 * i : 2 * i + 2]) for i in range(200)]
    assert sum(d > 0.5 for d in moved) > 60  # the paths are other ones: many end in another mode


def test_lesson_lam2_changes_the_law(lessons: dict) -> None:
    a, b = lessons["lam2"]
    assert b["width"] == pytest.approx(math.sqrt(1.5) * a["width"], rel=0.06)  # 1000 particles


def test_lesson_p_cancels_at_langevin(lessons: dict) -> None:
    a, b = lessons["cancels"]
    assert (a["needs"], b["needs"]) == ({"score": False, "ratio": True}, {"score": True, "ratio": False})
    assert max(a["distance"], b["distance"]) < 2 * a["floor"]


def test_lesson_langevin_does_not_balance_modes(lessons: dict) -> None:
    a, b = lessons["imbalance"]
    assert a["most"] > 2 * b["most"]
    assert b["most"] < 1 / 8 + 4.5 * math.sqrt(1 / 8 * 7 / 8 / 1000)


def test_lesson_annealing_lags(lessons: dict) -> None:
    a, b = lessons["lag"]
    assert a["width"] > 1.3 * b["width"]


def test_lesson_the_saturating_loss_stands_still(lessons: dict) -> None:
    """They begin 3 spreads beside the middle; one stays there, the other goes to the modes it meets."""
    a, b = lessons["vanishing"]
    assert a["shift"] / a["spread"] < -2.9
    assert b["shift"] / b["spread"] > -1.6


def test_lesson_a_discriminator_repairs_a_wrong_score(lessons: dict) -> None:
    a, b = lessons["repair"]
    assert a["shift"] > 0.25
    assert abs(b["shift"]) < 0.4 * a["shift"]
