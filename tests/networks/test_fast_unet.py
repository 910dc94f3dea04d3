"""Fast UNets: any size, the zero at the start, what each part may see, conditions, gradients, and their way down."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.data.conditions import Condition
from diffflow.models.diffusion import ModelConfig
from diffflow.models.distill import UNetDiscriminatorConfig
from diffflow.models.settings.networks import FastUNetConfig
from diffflow.networks.backbones.fast_unet import FastUNet, FastUNetDiscriminator
from diffflow.networks.discriminator import Discriminator


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(shape=(3, 16, 16), seed=0, **arguments) -> FastUNet:
    torch.manual_seed(seed)
    made = FastUNet(shape, **{"widths": (8, 16), "layers": 1, "refine": 8} | arguments)
    for p in made.parameters():  # what begins at zero would hide the rest
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return made


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 21), st.integers(1, 21), st.sampled_from([1, 2, 4]), st.sampled_from([0, 8]))
def test_pictures_of_any_size_come_back_in_their_size(channels, height, width, stem, refine):
    made = net((channels, height, width), stem=stem, refine=refine)
    x = drawn(2, channels, height, width)
    assert made(x, torch.zeros(2)).shape == x.shape


def test_it_begins_as_the_best_guess_that_ignores_the_picture():
    """F = 0, so that D = c_skip y."""
    made = FastUNet((3, 16, 16), widths=(8, 16), layers=1)
    assert not made(drawn(2, 3, 16, 16), torch.zeros(2)).any()


def test_every_weight_has_a_part_in_the_loss():
    made = net(classes=3, attention=True, head=8, augment=9)
    x = drawn(4, 3, 16, 16)
    made(x, drawn(4), torch.tensor([0, 1, 2, -1]), drawn(4, 9)).square().mean().backward()
    silent = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_a_picture_is_told_by_itself():
    """Batches change nothing: example i depends on its own picture, time, class and augmentation."""
    made = net(classes=3, augment=2).eval()
    x, time, cond, how = drawn(5, 3, 16, 16), drawn(5), torch.tensor([0, 1, 2, -1, 0]), drawn(5, 2)
    alone = torch.cat([made(x[i : i + 1], time[i : i + 1], cond[i : i + 1], how[i : i + 1]) for i in range(5)])
    assert torch.allclose(made(x, time, cond, how), alone, atol=1e-5)
    for changed in (
        made(x, time + 0.3, cond, how), made(x, time, (cond + 1) % 3, how), made(x, time, cond, how + 1),
    ):  # fmt: skip
        assert not torch.allclose(changed, alone, atol=1e-4)
    assert torch.equal(made(x, time, None, None), made(x, time, torch.full((5,), -1), torch.zeros(5, 2)))


def test_only_the_refinement_tells_pixels_of_a_place_apart_beyond_the_last_layer():
    """A shift of the picture by whole places shifts the prediction: the stem sees to that."""
    made = net((1, 32, 32), widths=(8,), refine=8).eval()
    x = torch.zeros(1, 1, 32, 32)
    x[0, 0, 12:16, 12:16] = drawn(4, 4)
    one = made(x, torch.zeros(1))
    # group statistics are those of the whole picture, which a shift leaves alone while the border stays empty
    two = made(x.roll((2, 4), (2, 3)), torch.zeros(1)).roll((-2, -4), (2, 3))
    assert torch.allclose(one[..., 10:18, 10:18], two[..., 10:18, 10:18], atol=1e-4)


def test_conditions_of_every_kind_come_in():
    conditions = {"label": Condition.labels(4), "upper": Condition("image", (1, 16, 16), mean=0.0, std=1.0)}
    made = net((1, 16, 16), conditions=conditions).eval()
    x, time = drawn(2, 1, 16, 16), torch.zeros(2)
    told = {"label": torch.tensor([1, 2]), "upper": drawn(2, 1, 16, 16, seed=1)}
    one = made(x, time, told)
    for name, other in (("label", torch.tensor([1, 3])), ("upper", told["upper"] + 1)):
        two = made(x, time, told | {name: other})
        assert not torch.allclose(one[1], two[1], atol=1e-5)
    assert made(x, time, None).shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"widths": (8, 12)}, "multiples of groups"),
        ({"widths": ()}, "multiples of groups"),
        ({"stem": 0}, "stem = 0"),
        ({"layers": 0}, "layers = 0"),
        ({"attention": True, "head": 32}, "multiple of head"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        net(**arguments)


def test_settings_build_it_and_learn(tmp_path):
    """Its loss on digits falls in forty steps by Muon, and the rate to zero."""
    net_settings = FastUNetConfig((8, 16), 1, stem=1, refine=0)
    settings_ = {"model.net": net_settings, "denoiser.optimizer": "muon", "denoiser.anneal": 0.1, "denoiser.lr": 5e-3}
    more = {"fit.batch": 32, "fit.log_every": 5, "fit.tensorboard": False, "fit.sample_minutes": 1e6}
    run = df.train("digits", tmp_path / "run", steps=40, settings=settings_ | more)
    losses = [line["loss"]["denoiser"] for line in run.metrics()]
    assert losses[-1] < 0.92 * losses[0]
    assert [round(line["lr"]["denoiser"], 6) for line in run.metrics()][-1] < 1e-4


# -- the way down as a discriminator -----------------------------------------------------------------------------------
def way_down(shape=(3, 16, 16), classes=3, **arguments) -> FastUNetDiscriminator:
    return FastUNetDiscriminator(net(shape, classes=classes, **{"attention": True, "head": 8} | arguments)).eval()


def seen(module, call):
    """What the middle block gives while `call` runs."""
    found = []
    handle = module.middle.register_forward_hook(lambda _, __, out: found.append(out))
    call()
    handle.remove()
    return found[0]


@pytest.mark.parametrize("form", ["edm", "v"])
def test_a_discriminator_begins_by_seeing_what_the_denoiser_sees(form):
    """At its level, whatever the time and the class it is asked about: pictures of no class, preconditioned alike."""
    meta = {"shape": (3, 9, 10), "classes": ("a", "b", "c"), "std": 0.5, "principal_std": 1.0}
    model = ModelConfig(FastUNetConfig((8, 16), 1, refine=0, attention=True, head=8), form)
    denoiser, discriminator = model.build(meta), UNetDiscriminatorConfig(level=0.4).build(model, meta)
    for p in denoiser.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    discriminator.net.begin({k.removeprefix("net."): v for k, v in denoiser.state_dict().items()})
    x, cond = drawn(3, 3, 9, 10), torch.tensor([0, 2, -1])
    theirs = seen(denoiser.net, lambda: denoiser(x, torch.tensor(0.4 * 0.5)))
    for t in (0.0, 0.7):
        mine = seen(discriminator.net, lambda t=t: discriminator(x, t, cond))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_where_no_class_was_never_learned_it_is_told_the_mean_class():
    source, made = net(classes=3, seed=1), way_down(attention=False)
    made.begin(source.state_dict(), classless=False)
    mine, theirs = (m.embedding.condition.parts["condition_"].table.weight for m in (made, source))
    assert torch.equal(mine[:3], theirs[:3])
    torch.testing.assert_close(mine[3], theirs[:3].mean(0))
    with pytest.raises(RuntimeError, match="size mismatch"):
        made.begin(net(classes=3, widths=(8, 24)).state_dict())
    with pytest.raises(KeyError):
        made.begin({"enter.weight": source.enter.weight})


def test_slopes_of_such_a_discriminator_can_be_penalised(check_penalty_slopes):
    """The penalty is differentiated twice, which fused attention cannot be: against finite differences in float64."""
    discriminator = Discriminator(way_down((2, 8, 8))).double()
    names = ("net.attention.attention.enter.weight", "net.enter.weight", "net.dense.weight")
    cond = torch.tensor([0, 1, 2, -1])
    check_penalty_slopes(discriminator, drawn(4, 2, 8, 8).double(), cond, names, step=1e-5, rel=1e-5)


def test_plain_attention_is_the_fused_one():
    made, x = net(attention=True, head=8).attention, drawn(2, 16, 4, 4)
    fused = made(x)
    made.attention.plain = True
    torch.testing.assert_close(made(x), fused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "stem"), [((1, 7, 8), 1), ((3, 9, 5), 2), ((2, 1, 1), 4)])
def test_a_logit_belongs_to_its_own_picture_and_class(shape, stem):
    made = way_down(shape, stem=stem)
    x, time, cond = drawn(4, *shape), torch.zeros(4), torch.tensor([0, 1, 2, -1])
    whole = made(x, time, cond).logit
    torch.testing.assert_close(made(x[1:2], time[:1], cond[1:2]).logit, whole[1:2], rtol=1e-4, atol=1e-5)
    assert (made(x, time, cond.roll(1)).logit != whole).all()
    assert way_down(shape, 0, stem=stem)(x, time).shape == (4,)
    with pytest.raises(ValueError, match="this discriminator takes"):
        made(drawn(2, 4, 3, 3), time[:2])


def test_a_net_that_is_told_more_than_classes_begins_no_discriminator():
    with pytest.raises(ValueError, match="knows classes alone"):
        FastUNetDiscriminator(net(conditions=Condition("vector", (3,), mean=[0.0] * 3, std=[1.0] * 3)))
