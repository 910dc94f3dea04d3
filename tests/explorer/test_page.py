"""The page does what its controls say: by number, not by looks alone; tests/explorer/test_pictures.py has the looks."""

import base64
import contextlib
import io
import json
import math
import re
import time
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

import diffflow as df
from diffflow.cli import COMMANDS, main
from diffflow.training.lock import Lock

SMALL = "particles=200&steps=40"


def state(page: Page) -> dict:
    return page.evaluate("explorer.state")


def now(page: Page) -> dict:
    return page.evaluate("explorer.now")


def until(page: Page, what: str, limit: float = 30.0) -> None:
    """Wait until an expression is true; the page forbids playwright's own way, which evaluates strings within it."""
    end = time.monotonic() + limit
    while not page.evaluate(what):
        assert time.monotonic() < end, f"not in {limit} s: {what}"
        page.wait_for_timeout(15)


def ended(page: Page) -> dict:
    """The end of the way, and there it stays: a page that plays begins anew after a while."""
    page.locator("#scrub").evaluate("e => { e.value = 1000; e.dispatchEvent(new Event('input')); }")
    until(page, "explorer.now.k > 0 && explorer.now.k === explorer.now.last && !explorer.now.playing")
    return now(page)


def slide(page: Page, dial: str, value: float) -> None:
    page.locator(f"#dial-{dial}").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value)


def size(page: Page, term: str) -> float:
    return float(page.locator(f'[data-term="{term}"]').get_attribute("data-size") or "nan")


# -- moving ------------------------------------------------------------------------------------------------------------
def test_the_first_frames_move_by_themselves(opened) -> None:
    page = opened()
    until(page, "explorer.now.k > 0")
    a = now(page)
    until(page, f"explorer.now.k > {a['k'] + 3}")
    b = now(page)
    assert len(a["sides"][0]["x"]) == 4000
    moved = [abs(u - v) for u, v in zip(a["sides"][0]["x"], b["sides"][0]["x"], strict=True)]
    assert sum(moved) / len(moved) > 1e-3
    before = page.locator("canvas").screenshot()
    page.wait_for_timeout(300)
    assert page.locator("canvas").screenshot() != before


def test_play_pause_step_scrub_and_the_end(opened) -> None:
    page = opened(SMALL)
    until(page, "explorer.now.k > 1")
    page.click("#play")
    until(page, "!explorer.now.playing")
    k = now(page)["k"]
    page.wait_for_timeout(200)
    assert now(page)["k"] == k
    page.click("#step")
    until(page, f"explorer.now.k === {k + 1}")
    forward = now(page)["sides"][0]["x"]
    page.click("#back")
    until(page, f"explorer.now.k === {k}")
    page.click("#step")
    until(page, f"explorer.now.k === {k + 1}")
    assert now(page)["sides"][0]["x"] == forward  # the same way again
    page.locator("#scrub").evaluate("e => { e.value = 1000; e.dispatchEvent(new Event('input')); }")
    until(page, "explorer.now.k === explorer.now.last")
    page.click("#restart")
    until(page, "explorer.now.k === 0")
    page.evaluate("document.activeElement.blur()")  # where space would press the button again
    page.keyboard.press("Space")
    until(page, "explorer.now.playing && explorer.now.k > 2")
    page.locator("#speed").evaluate("e => { e.value = 100; e.dispatchEvent(new Event('input')); }")
    assert state(page)["pace"] == 600


def test_keys_move_particles_and_puck(opened) -> None:
    page = opened(SMALL)
    until(page, "explorer.now.k > 0")
    page.keyboard.press("Space")
    until(page, "!explorer.now.playing")
    page.keyboard.press("Home")
    until(page, "explorer.now.k === 0")
    page.keyboard.press(".")
    until(page, "explorer.now.k === 1")
    page.keyboard.press(",")
    until(page, "explorer.now.k === 0")
    page.focus("#map")
    page.keyboard.press("ArrowLeft")
    assert state(page)["a"]["gan"] > 0  # left of the score edge there is a discriminator
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    assert state(page)["a"]["family"] == "static"
    assert state(page)["a"]["extra"] > 0


def test_every_model_is_in_reach_of_the_keyboard(opened) -> None:
    page = opened(SMALL)
    page.focus("#map")
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    assert state(page)["a"]["family"] == "static"  # over the gap, from the right edge too
    for name, family in (("annealed_langevin", "annealed"), ("improved_gan", "cooled"), ("reverse_sde", "at")):
        page.focus(f'.mark[data-name="{name}"]')
        page.keyboard.press("Enter")
        assert state(page)["a"]["family"] == family


def test_trails_last_through_a_pause_and_not_through_a_leap(opened) -> None:
    page = opened("particles=200&steps=80&trails=1&contours=0&pace=300")
    ink = lambda: page.evaluate("document.querySelector('#views canvas').toDataURL().length")
    until(page, "explorer.now.k > 30")
    page.click("#play")
    until(page, "!explorer.now.playing")
    page.wait_for_timeout(100)
    with_trails = ink()
    page.uncheck("#trails")
    assert ink() < with_trails
    page.check("#trails")
    assert ink() == with_trails
    page.click("#restart")
    until(page, "explorer.now.k === 0")
    page.wait_for_timeout(100)
    first = ink()
    page.uncheck("#trails")
    assert ink() == first


# -- every control, by number ------------------------------------------------------------------------------------------
def test_the_dials_are_the_equation_s(opened) -> None:
    """Sizes of terms are roots of their weights in lam2: (1 + churn)/2 for the score, gan/2, churn for the noise squared."""
    page = opened(SMALL)
    for churn, gan in ((0.0, 0.0), (1.0, 0.0), (0.5, 0.7), (0.0, 1.5)):
        slide(page, "churn", churn)
        slide(page, "gan", gan)
        assert (state(page)["a"]["churn"], state(page)["a"]["gan"]) == (churn, gan)
        for term, weight in (("score", (1 + churn) / 2), ("ratio", gan / 2), ("noise", churn)):
            assert size(page, term) == pytest.approx(min(1, math.sqrt(weight)), abs=1e-3)
        total = 1 + churn + gan
        across, up = page.evaluate("import('/map.js').then((m) => Object.values(m.place(explorer.state.a)))")
        assert (across, up) == pytest.approx(((1 + churn) / total, 2 / total))
    page.locator('.mark[data-name="langevin"]').dispatch_event("pointerdown")
    assert (state(page)["a"]["family"], state(page)["a"]["churn"]) == ("static", 1)
    assert size(page, "ratio") == 0
    slide(page, "extra", 0.5)
    assert state(page)["a"]["extra"] == 0.5
    assert page.locator('[data-term="noise"] small').inner_text() == "√(2.5 β)"


def test_every_other_control_changes_what_the_particles_do(opened) -> None:
    page = opened(SMALL + "&churn=0")
    until(page, "explorer.now.k > 0")
    page.click("#play")
    page.click("#restart")

    def begun(change) -> list[float]:
        """The cloud at step 12 after a change of the controls."""
        change()
        page.wait_for_timeout(150)
        page.locator("#scrub").evaluate("e => { e.value = 300; e.dispatchEvent(new Event('input')); }")
        until(page, "explorer.now.k === Math.round(0.3 * explorer.now.last) && explorer.now.sides.length > 0")
        page.wait_for_timeout(100)
        return now(page)["sides"][0]["x"]

    seen = [begun(lambda: None)]
    assert begun(lambda: None) == seen[0]
    for key, value in (("target", "moons"), ("schedule", "RectifiedFlow"), ("start", "narrow")):
        seen.append(begun(lambda key=key, value=value: page.select_option(f"#choose-{key}", value)))
    seen.append(begun(lambda: slide(page, "wrong", 0.5)))
    for key, value in (("seed", 5), ("particles", 300), ("steps", 80)):
        seen.append(
            begun(
                lambda key=key, value=value: (
                    page.fill(f"#number-{key}", str(value)),
                    page.press(f"#number-{key}", "Enter"),
                )
            )
        )
    assert all(a != b for i, a in enumerate(seen) for b in seen[:i])
    assert len(seen[-1]) == 600
    assert now(page)["last"] == 80
    page.locator('.mark[data-name="gan_flow"]').dispatch_event("pointerdown")
    first = begun(lambda: None)
    assert begun(lambda: page.select_option("#choose-speed", "saturating")) != first
    page.fill("#number-particles", "1e9")
    page.press("#number-particles", "Enter")
    assert state(page)["a"]["particles"] == 20000  # what is too many is as many as there may be


def test_dragging_the_puck(opened) -> None:
    page = opened(SMALL)
    box = page.locator("#map .puck").bounding_box()
    gan = page.locator('#map .mark[data-name="diffusion_gan"] circle').bounding_box()
    assert box is not None
    assert gan is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(gan["x"] + gan["width"] / 2, gan["y"] + gan["height"] / 2, steps=6)
    page.mouse.up()
    s = state(page)["a"]
    assert (s["family"], s["churn"], s["gan"]) == ("at", pytest.approx(1, abs=0.06), pytest.approx(1, abs=0.06))


def test_every_place_of_the_map_is_a_setting_that_exists(opened) -> None:
    """Real noise everywhere, dials within their ranges, and a puck that stays where it was put, within the map."""
    page = opened(SMALL)
    found = page.evaluate("""async () => {
        const { settingAt, place } = await import("/map.js"), { equation, DEFAULTS } = await import("/simulate.js"), out = [];
        for (let i = -2; i <= 24; i++) for (let j = -24; j <= 44; j++) {
            const at = { across: i / 20, up: j / 20 }, s = settingAt(at, DEFAULTS), sde = equation(s), t = 0.5 * sde.horizon, g2 = sde.g2(t), back = place(s);
            out.push([at.across, at.up, back.across, back.up, sde.noise(t), sde.lam2(t), g2, s.gan, s.churn, s.extra]);
        }
        return out;
    }""")
    for across, up, x, y, noise, lam2, g2, gan, churn, extra in found:
        assert noise**2 == pytest.approx(g2 - lam2, abs=1e-9)
        assert g2 >= lam2 - 1e-12
        assert 0 <= gan <= 4
        assert 0 <= churn <= 3
        assert 0 <= extra <= 1
        inside = (
            0.3 < up < 1.9
            and up / 2 + 0.02 < across < 0.98
            and 2 * (1 - across) / up < 3.9
            and 2 * across / up - 1 < 2.9
        )
        if inside or (-0.9 < up < -0.1 and 0 <= across <= 1):
            assert (x, y) == (pytest.approx(across, abs=0.02), pytest.approx(up, abs=0.03))


# -- two sides ---------------------------------------------------------------------------------------------------------
def test_split_screen_keeps_seed_and_start(opened) -> None:
    page = opened(SMALL + "&churn=0")
    page.check("#split")
    until(page, "explorer.now.sides.length === 2")
    page.click("#play")
    page.click("#restart")
    until(page, "explorer.now.k === 0")
    a, b = (side["x"] for side in now(page)["sides"])
    assert a == b
    assert state(page)["b"]["churn"] == 1
    page.locator("#scrub").evaluate("e => { e.value = 1000; e.dispatchEvent(new Event('input')); }")
    until(page, "explorer.now.k === explorer.now.last")
    a, b = (side["x"] for side in now(page)["sides"])
    assert a != b
    slide(page, "gan", 1)  # the dials set the side that is chosen
    assert (state(page)["a"]["gan"], state(page)["b"]["gan"]) == (0, 1)
    page.locator("#views button.side").first.click()
    slide(page, "gan", 2)
    assert (state(page)["a"]["gan"], state(page)["b"]["gan"]) == (2, 1)
    page.fill("#number-seed", "9")
    page.press("#number-seed", "Enter")
    assert (state(page)["a"]["seed"], state(page)["b"]["seed"]) == (9, 9)
    page.uncheck("#split")
    assert state(page)["b"] is None


def test_charts_grow_and_end_near_the_floor(opened) -> None:
    page = opened("particles=500&steps=60&pace=400&churn=1")
    until(page, "explorer.now.k > 0")
    ended(page)
    until(page, "explorer.charts.every((c) => c.points[0] > 6)")
    found = {c["key"]: c["values"][0] for c in page.evaluate("explorer.charts")}
    assert 0 <= found["kl"] < 0.2
    assert 0 < found["distance"] < 0.4
    assert found["fisher"] < 5


def test_a_particle_s_terms_add_up(opened) -> None:
    page = opened(SMALL + "&gan=1&churn=1&schedule=VP")
    until(page, "explorer.now.k > 15")
    page.locator("canvas").click()
    table = page.locator("#particle table")
    expect(table).to_contain_text("whole drift")
    assert [r.split("\t")[0][:5] for r in table.inner_text().splitlines()] == [
        "f: th",
        "discr",
        "score",
        "whole",
        "noise",
    ]
    assert not now(page)["playing"]
    page.locator('.mark[data-name="langevin"]').dispatch_event("pointerdown")
    page.click("#play")
    until(page, "explorer.now.k > 3")
    page.locator("canvas").click()
    expect(page.locator("#particle table")).not_to_contain_text("discriminator")  # at Langevin p cancels


# -- lessons, drawing, addresses ---------------------------------------------------------------------------------------
def test_every_lesson_sets_up_two_sides_and_says_what_to_see(opened) -> None:
    page, other = opened(SMALL), None
    for button in page.locator("#lessons button").all():
        button.click()
        until(page, "explorer.now.sides.length === 2 && explorer.now.k > 0")
        assert len(page.locator("#lesson").inner_text()) > 100
        s = state(page)
        assert s["a"] != s["b"]
        assert s["a"]["seed"] == s["b"]["seed"]
        other = opened(page.evaluate("location.hash.slice(1)"), on=other)  # or an animation for every lesson would run
        again = state(other)
        assert {k: again[k] for k in ("a", "b", "target")} == {k: s[k] for k in ("a", "b", "target")}
    slide(page, "churn", 0)
    assert page.locator("#lesson").inner_text() == ""  # what it said is no longer what is shown


def test_a_cloud_that_begins_beside_the_target_is_in_the_picture(opened) -> None:
    page = opened(SMALL)
    page.click('[data-lesson="vanishing"]')
    until(page, "explorer.now.sides.length === 2 && explorer.now.k > 0")
    page.click("#play")
    page.click("#restart")
    until(page, "explorer.now.k === 0")
    page.wait_for_timeout(100)
    for side in (0, 1):
        code = """(i) => { const c = document.querySelectorAll("#views canvas")[i], d = c.getContext("2d").getImageData(0, 0, c.width / 3, c.height).data;
            return d.filter((v, j) => j % 4 === 0 && v < 60).length; }"""
        assert page.evaluate(code, side) > 50  # the left third, where 200 dots begin


@pytest.mark.parametrize("family", ["family=annealed", "family=cooled&churn=0", "family=static&churn=0.5", "churn=0.5"])
def test_a_split_shows_two_models_that_exist(opened, family: str) -> None:
    page = opened(f"{SMALL}&{family}")
    until(page, "explorer.now.k > 0")
    page.check("#split")
    s = state(page)
    assert s["a"] != s["b"]
    again = state(opened(page.evaluate("location.hash.slice(1)")))
    assert (again["a"], again["b"]) == (s["a"], s["b"])


def test_a_page_that_nobody_sees_rests_and_goes_on(opened) -> None:
    page = opened("particles=100&steps=2000")
    until(page, "explorer.now.k > 0")
    hide = "(v) => { Object.defineProperty(document, 'hidden', { value: v, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    until(page, "!explorer.now.playing")
    page.evaluate(hide, False)
    page.evaluate(hide, True)
    page.evaluate(hide, False)
    until(page, "explorer.now.playing")
    page.click("#play")
    until(page, "!explorer.now.playing")
    page.evaluate(hide, True)
    page.evaluate(hide, False)
    page.wait_for_timeout(200)
    assert not now(page)["playing"]  # as it was


def test_a_recording_of_what_changes_is_not_saved(opened) -> None:
    page = opened("particles=100&steps=2000&pace=60")
    until(page, "explorer.now.k > 0")
    page.click('[data-save="gif"]')
    page.wait_for_timeout(100)
    slide(page, "gan", 1)
    until(page, "document.getElementById('said').textContent.includes('nothing was saved')")
    until(page, "explorer.now.playing")


def test_a_drawing_stays_until_it_is_used_or_left(opened) -> None:
    page = opened(SMALL)
    until(page, "explorer.now.k > 0")
    page.click("#draw")
    box = page.locator("#views canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 90)
    page.mouse.up()
    picture = "document.querySelector('#views canvas').toDataURL()"
    drawn = page.evaluate(picture)
    page.click("#trails")
    slide(page, "gan", 1)
    page.wait_for_timeout(300)
    assert page.evaluate(picture) == drawn
    page.click('[data-lesson="gauge"]')
    assert page.locator("#draw").get_attribute("aria-pressed") == "false"
    until(page, "explorer.now.playing && explorer.now.sides.length === 2")
    assert state(page)["target"] == "8gaussians"


def test_what_cannot_be_kept_is_refused_and_the_next_setting_plays(opened) -> None:
    page = opened("particles=20000&steps=2000")
    until(page, "document.getElementById('said').textContent.includes('more than can be kept')")
    page.fill("#number-steps", "30")
    page.press("#number-steps", "Enter")
    until(page, "explorer.now.k > 0", 60)


def test_sides_of_different_length_end_together(opened) -> None:
    page = opened("particles=100&family=annealed&steps=36&split=1&b.steps=120&pace=600")
    until(page, "explorer.now.k > 0")
    sides = ended(page)["sides"]
    assert [side["t"] for side in sides] == [36, 120]
    assert all(point > 3 for chart in page.evaluate("explorer.charts") for point in chart["points"])


def test_a_drawn_target_is_reached(opened) -> None:
    page = opened("particles=300&steps=80&pace=400")
    until(page, "explorer.now.k > 0")
    page.click("#draw")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    at = lambda u, v: page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"], steps=5)
    for x in (0.3, 0.7):  # two vertical strokes
        at(x, 0.25)
        page.mouse.down()
        at(x, 0.75)
        page.mouse.up()
    page.click("#draw")
    until(page, "explorer.state.target === 'drawn'")
    page.wait_for_timeout(500)  # until it has begun anew
    points = state(page)["points"]
    x = ended(page)["sides"][0]["x"]
    near = [min(math.dist(x[i : i + 2], points[j : j + 2]) for j in range(0, len(points), 2)) for i in range(0, 200, 2)]
    assert sum(d < 0.25 for d in near) > 90
    assert abs(sum(v > 0 for v in x[::2]) / 300 - 0.5) < 4.5 * 0.5 / math.sqrt(300)  # each stroke has half of them
    words = page.evaluate("location.hash")
    again = opened(words[1:])
    until(again, "explorer.now.k > 0")
    kept = state(again)["points"]
    assert len(kept) == len(points)
    assert max(abs(a - b) for a, b in zip(kept, points, strict=True)) < 6 / 255
    page.click("#clear")
    assert state(page)["target"] == "8gaussians"


ADDRESSES = [
    "",
    "target=moons&churn=0.35&gan=1.5&schedule=Cosine&seed=7",
    "family=static&churn=0.5&extra=0.3&target=spirals",
    "family=static&churn=0&speed=saturating&start=away",
    "split=1&b.churn=0&editing=b&trails=0&cloud=1",
    "family=annealed&steps=36&pace=200",
    "family=cooled&churn=0&wrong=0",
]


@pytest.mark.parametrize("words", ADDRESSES)
def test_the_address_is_the_state(opened, words: str) -> None:
    page = opened(words)
    first = state(page)
    again = opened(page.evaluate("location.hash.slice(1)"))
    assert state(again) == first
    for word in filter(None, words.split("&")):
        key, value = word.split("=")
        side = first["b"] if key.startswith("b.") else first["a"]
        found = side.get(key.removeprefix("b."), first.get(key, first["looks"].get(key)))
        if key not in ("split",):
            assert str(found) in (value, {"1": "True", "0": "False"}.get(value))


@pytest.mark.parametrize(
    "words",
    [
        "churn=-5&gan=x&seed=1e99&steps=nan",
        "target=../../etc&family=evil&schedule=__proto__",
        "points=%%%&target=drawn",
        "target=constructor",
        "target=__proto__",
        "split=1&b.particles=99999999",
        "%00=%ff&<script>=1",
    ],
)
def test_a_broken_address_is_mended(opened, words: str) -> None:
    page = opened(words)
    until(page, "explorer.now.k > 0")
    s = state(page)
    assert s["target"] == "8gaussians"
    assert 0 <= s["a"]["churn"] <= 3
    assert s["a"]["particles"] == (s["b"] or s["a"])["particles"] <= 20000


# -- out of the page ---------------------------------------------------------------------------------------------------
def test_pictures_can_be_saved(opened, tmp_path: Path) -> None:
    page = opened(SMALL)
    until(page, "explorer.now.k > 3")
    for kind in ("png", "svg", "gif"):
        with page.expect_download(timeout=60000) as waiting:
            page.click(f'[data-save="{kind}"]')
        where = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(where)
        if kind == "svg":
            text = where.read_text()
            assert 180 <= text.count("<circle") <= 200  # a few of 200 may be beyond the picture's edge
            continue
        picture = Image.open(where)
        assert getattr(picture, "n_frames", 1) == (41 if kind == "gif" else 1)
        assert len(set(picture.convert("L").getdata())) > 2
        if kind == "gif":  # the last frame is not the first
            first = picture.convert("L").tobytes()
            picture.seek(40)
            assert picture.convert("L").tobytes() != first


@pytest.mark.parametrize(
    "what",
    [
        "probability_flow",
        "reverse_sde",
        "edm_churn",
        "slcd",
        "discriminator_guidance",
        "diffusion_gan",
        "langevin",
        "gan_flow",
        "static",
        "continued",
        "annealed_langevin",
        "improved_gan",
        "saturating",
        "wrong",
        "drawn",
    ],
)
def test_what_is_copied_runs(ask, what: str) -> None:
    """As Python: the program runs, and its samples are near the target. As a command: one that exists, with its flags."""
    code = """const { LANDMARKS } = await import("/landmarks.js"), { DEFAULTS } = S, copy = await import("/copy.js");
        const mark = LANDMARKS.find((m) => m.name === given), a = { ...DEFAULTS, ...(mark ? mark.set : {}), particles: 200, steps: 30 };
        if (given === "saturating") Object.assign(a, { family: "static", churn: 0, speed: "saturating", start: "away" });
        if (given === "wrong") Object.assign(a, { wrong: 0.3, gan: 1 });
        const state = { a, b: null, editing: "a", target: given === "drawn" ? "drawn" : "8gaussians", points: [0, 0, 0.5, 0.25, 1, 0.5] };
        return [copy.python(state), copy.command(state)];"""
    program, command = ask(code, what)
    space: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(program, space)
    mine, real = (
        float(v)
        for v in re.findall(r"tensor\\((-?[\\d.]+)\\)", out.getvalue()) or re.findall(r"-?\d+\.\d+", out.getvalue())
    )
    assert len(space["x"]) == 200
    assert math.isfinite(mine)
    if what not in ("continued", "annealed_langevin", "improved_gan", "saturating", "wrong"):
        assert mine > real - 3
    for line in command.splitlines():
        if line.startswith("#"):
            continue
        program_, name, *flags = line.split()
        assert program_ == "diffflow"
        assert name in COMMANDS
        if name == "train":
            with contextlib.redirect_stdout(io.StringIO()):
                assert main(["train", *flags, "--print-config"]) == 0
        if name == "flow":
            assert flags[flags.index("--model") + 1] in df.models.MODELS


@pytest.mark.parametrize("family", ["at", "static", "annealed", "cooled"])
def test_what_is_copied_has_every_control(ask, family: str) -> None:
    """Another start and another score are in the program, and a command says what it leaves out."""
    code = """const copy = await import("/copy.js"), { tidied } = await import("/state.js");
        const a = tidied({ ...S.DEFAULTS, family: given, particles: 100, steps: 24, wrong: 0.4, start: "away" });
        const state = { a, b: null, editing: "a", target: "moons" };
        return [copy.python(state), copy.command(state)];"""
    program, command = ask(code, family)
    space: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program, space)
    assert space["start"].mean[0] < -2
    assert ("believed" in program) == (family != "cooled")
    assert "# without" in command
    assert "the start" in command


def test_links_and_programs_are_copied(opened) -> None:
    page = opened(SMALL + "&churn=0.5")
    for button, said in (
        ("#share", "churn=0.5"),
        ('[data-copy="python"]', "df.at("),
        ('[data-copy="command"]', "diffflow sample"),
    ):
        page.click(button)
        text = page.evaluate("document.body.dataset.copied")
        assert said in text
        assert "token" not in text


# -- without a server, and small ---------------------------------------------------------------------------------------
def test_the_folder_alone_is_the_exact_part(opened) -> None:
    """Without a token, as on any web host: no runs, and everything else."""
    page = opened(SMALL, token=False)
    until(page, "explorer.now.k > 0")
    assert page.locator("#tab-runs").is_hidden()


@pytest.mark.parametrize("width", [1440, 1024, 768, 390])
@pytest.mark.parametrize("words", [SMALL, SMALL + "&split=1&family=static&churn=0&b.churn=1", "run=digits"])
def test_nothing_is_wider_than_the_window(opened, width: int, words: str) -> None:
    page = opened(words, width=width, height=844)
    sampled = "document.getElementById('ask-status')?.textContent.includes('evaluation')"
    until(page, sampled if "run=" in words else "explorer.charts.every((c) => c.points[0] > 1)")
    page.wait_for_timeout(50)  # until that is drawn
    wide, cut = page.evaluate("""() => [document.documentElement.scrollWidth - innerWidth,
        [...document.querySelectorAll("body *")].filter((e) => { const b = e.getBoundingClientRect(); return b.width && b.right > innerWidth + 1; }).map((e) => e.outerHTML.slice(0, 80))]""")
    assert wide <= 0
    assert cut == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read(opened, theme: str) -> None:
    """The contrast of text is at least 4.5 : 1 (WCAG AA), in both themes."""
    page = opened(SMALL)
    page.evaluate("(t) => { document.documentElement.dataset.theme = t; }", theme)
    until(page, "explorer.now.k > 0 && document.getAnimations().length === 0")  # sizes of terms take a moment
    poor = page.evaluate("""() => {
        const parse = (c) => { const v = c.match(/[\\d.]+/g).map(Number); return [v[0], v[1], v[2], v[3] ?? 1]; };
        const lum = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
        const out = [];
        for (const e of document.querySelectorAll("h1, h2, p, span, b, small, button, label, output, option, figcaption, td")) {
            if (!e.offsetParent || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
            let opacity = 1; for (let p = e; p; p = p.parentElement) opacity *= Number(getComputedStyle(p).opacity);
            const g = ground(e), c = parse(getComputedStyle(e).color).slice(0, 3).map((v, i) => opacity * v + (1 - opacity) * g[i]), [a, b] = [lum(c), lum(g)].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5 && !e.closest(".gone")) out.push([e.textContent.trim().slice(0, 30), ((a + 0.05) / (b + 0.05)).toFixed(2)]);
        }
        return out;
    }""")
    assert poor == []


# -- real runs ---------------------------------------------------------------------------------------------------------
def test_a_run_is_sampled_by_class(opened, home: Path) -> None:
    """The last moment of the canvas is what the library draws for that class, seed and dials."""
    page = opened("run=digits&n=4&class=7&steps=5&seed=3&churn=0.5")
    until(
        page,
        "document.getElementById('samples')?.dataset.moments && document.getElementById('ask-status').textContent.includes('5 evaluations')",
    )
    until(page, "document.getElementById('moment').value === document.getElementById('moment').max")
    page.wait_for_timeout(200)
    coded = page.evaluate("document.getElementById('samples').toDataURL()")
    shown = Image.open(io.BytesIO(base64.b64decode(coded.partition(",")[2]))).convert("L")
    side = (shown.width - 2) // 4 - 2  # four in a row, with gaps of 2
    pixels = [
        shown.getpixel((2 + i * (side + 2) + int((c + 0.5) * side / 8), 2 + int((r + 0.5) * side / 8)))
        for i in range(4) for r in range(8) for c in range(8)
    ]  # fmt: skip
    x = df.load(home / "digits", device="cpu").sample(4, 7, steps=5, churn=0.5, noise=df.Noise(3)).last
    expected = (x[:, 0] * 255).round().flatten().tolist()
    assert max(abs(a - b) for a, b in zip(pixels, expected, strict=True)) <= 1
    assert "class=7" in page.url
    program, command = (page.get_by_role("button", name=name) for name in ("Copy as Python", "Copy as command"))
    program.last.click()
    assert "cond=7, steps=5, churn=0.5" in page.evaluate("document.body.dataset.copied")
    command.last.click()
    assert "--class 7 --steps 5 --churn 0.5" in page.evaluate("document.body.dataset.copied")


def test_addresses_lead_to_both_pages(opened) -> None:
    page = opened(SMALL)
    until(page, "explorer.now.k > 0")
    page.evaluate("location.hash = 'run=moons&n=9&steps=3'")
    until(page, "document.getElementById('ask-status')?.textContent.includes('3 evaluations')")
    playing = now(page)["playing"]
    page.keyboard.press("Space")
    assert now(page)["playing"] == playing  # of the particles, which are not shown
    page.click("#tab-equation")
    until(page, "explorer.now.k > 0")
    page.wait_for_timeout(300)
    assert "run=" not in page.url


def test_quick_clicks_leave_no_request_behind(opened, server) -> None:
    sent = []
    page = opened("run=digits&n=64&steps=400")
    page.on("request", lambda r: sent.append((r.method, r.url)))
    until(page, "document.querySelector('progress')?.value > 0")
    for _ in range(4):
        page.click("#ask")
    page.fill("#ask-steps", "2")
    page.press("#ask-steps", "Enter")
    until(page, "document.getElementById('ask-status').textContent.includes('2 evaluations')")
    assert sum(method == "POST" for method, _ in sent) <= 3


def test_what_a_frontier_s_hollow_point_shows_can_be_copied(opened, home: Path) -> None:
    """The default solver where the run has a plan, too: in the address, the program and the command."""
    page = opened("run=digits&n=2&steps=3&plans=false")
    until(page, "document.getElementById('ask-status')?.textContent.includes('3 evaluations')")
    assert "plans=false" in page.url
    page.get_by_role("button", name="Copy as Python").last.click()
    assert "plans=False" in page.evaluate("document.body.dataset.copied")
    page.get_by_role("button", name="Copy as command").last.click()
    assert "--solver exponential" in page.evaluate("document.body.dataset.copied")
    page.fill("#ask-seed", "")
    page.press("#ask-seed", "Enter")
    until(page, "!location.hash.includes('plans')")
    page.get_by_role("button", name="Copy as command").last.click()
    assert page.evaluate("document.body.dataset.copied").endswith("--seed 0")


def test_of_two_ways_that_are_played_the_last_goes_on(opened) -> None:
    page = opened("run=moons&n=20&steps=12")
    until(page, "document.getElementById('ask-status')?.textContent.includes('12 evaluations')")
    page.fill("#ask-steps", "1")
    page.press("#ask-steps", "Enter")
    until(page, "document.getElementById('ask-status').textContent.includes('1 evaluation ')")
    page.wait_for_timeout(1300)  # as long as thirteen moments take
    code = "document.getElementById('samples').getContext('2d').getImageData(0, 0, 560, 560).data.some((v) => v > 0)"
    assert page.evaluate(code)


@pytest.mark.parametrize(("name", "cost"), [("gan", "1 evaluation "), ("few", "2 evaluations ")])
def test_a_generator_is_sampled_too(opened, name: str, cost: str) -> None:
    page = opened(f"run={name}&n=6")
    until(page, f"document.getElementById('ask-status')?.textContent.includes('{cost}')")
    assert page.locator("#ask-steps").count() == 0


def test_rows_of_a_table_are_particles_too(opened) -> None:
    """Two columns of three; a row more than was asked for would be a dot more."""
    page = opened("run=table&n=3&steps=4")
    until(page, "document.getElementById('ask-status')?.textContent.includes('3 samples, 4 evaluations')")
    until(page, "document.getElementById('moment').value === document.getElementById('moment').max")
    page.wait_for_timeout(200)
    code = """() => {
        const { width, height } = document.getElementById('samples'), ink = document.getElementById('samples').getContext('2d');
        const { data } = ink.getImageData(22, 0, width - 22, height - 26);
        return data.filter((v, i) => i % 4 === 3 && v > 200).length;
    }"""
    assert 16 <= page.evaluate(code) <= 3 * 16  # squares of 4 pixels, which may overlap
    page.get_by_role("button", name="Copy as command").last.click()
    assert "-n 3" in page.evaluate("document.body.dataset.copied")


def test_sampling_can_be_stopped(opened) -> None:
    page = opened("run=digits&n=64&steps=1000")
    expect(page.locator("#cancel")).to_be_visible(timeout=15000)
    until(page, "document.querySelector('progress').value > 0")
    page.click("#cancel")
    until(page, "document.getElementById('ask-status').textContent === 'stopped'")
    page.fill("#ask-steps", "3")
    page.press("#ask-steps", "Enter")
    until(page, "document.getElementById('ask-status').textContent.includes('3 evaluations')")


def test_a_frontier_s_point_shows_its_samples_and_training_is_live(opened, home: Path) -> None:
    point = {"dials": {"steps": 4, "gan": 0.0, "churn": 1.0, "guidance": 1.0}, "plan": False, "distance": 3.0, "stderr": 0.1, "evaluations": 4, "seconds": 1.0, "name": ""}  # fmt: skip
    swept = home / "digits" / "frontier.json"
    swept.write_text(
        json.dumps(
            {
                "distance": "Frechet distance@100 (own)",
                "points": [point, point | {"evaluations": 8, "distance": 2.0, "dials": point["dials"] | {"steps": 8}}],
            }
        )
    )
    with contextlib.ExitStack() as after:
        after.callback(swept.unlink)
        after.enter_context(Lock(home / "digits")).take()  # as while it trains
        page = opened("run=digits&n=2&steps=2")
        until(page, "document.getElementById('ask-status')?.textContent.includes('2 evaluations')")
        page.locator("#front circle").nth(1).click()
        until(page, "document.getElementById('ask-status').textContent.includes('8 evaluations')")
        assert "steps=8&churn=1" in page.url
        until(page, "Number(document.getElementById('training').dataset.polls ?? 0) >= 1")
