"""DiT and UNetND: shapes, conditions, positions and borders, and that they learn; MLP and UNet with any condition."""

import pytest
import torch

import diffflow as df
from diffflow.data.conditions import Condition, null
from diffflow.models.settings.serialise import ConfigError
from diffflow.networks.backbones.dit import DiT, sincos_positions
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.backbones.unet import UNet, cropped, padded
from diffflow.networks.backbones.unet_nd import UNetND
from diffflow.networks.denoiser import Denoiser, quarter_log
from diffflow.objectives.base import Batch
from diffflow.objectives.score_matching import ScoreMatching


def dit(shape=(1, 8, 8), classes=0, conditions=None, **settings) -> DiT:
    return DiT(shape, classes, conditions, **{"patch": 2, "width": 16, "depth": 2, "heads": 2} | settings)


def unet_nd(shape=(1, 8), classes=0, conditions=None, **settings) -> UNetND:
    return UNetND(shape, classes, conditions, **{"widths": (8, 16), "head": 8, "groups": 4} | settings)


def unet(shape=(1, 8, 8), classes=0, conditions=None) -> UNet:
    return UNet(shape, classes, (8, 16), head=8, groups=4, conditions=conditions)


def mlp(shape=(5,), classes=0, conditions=None) -> MLP:
    return MLP(*shape, classes, width=16, depth=2, embed=16, conditions=conditions)


NETS = [
    pytest.param(dit, (3, 8, 8), id="dit"),
    pytest.param(unet_nd, (2, 12), id="signal"),
    pytest.param(unet_nd, (2, 6, 7), id="image"),
    pytest.param(unet_nd, (1, 4, 5, 6), id="volume"),
]
OTHERS = [pytest.param(unet, (1, 8, 8), id="unet"), pytest.param(mlp, (5,), id="mlp")]


def awake(make, *args, dtype=torch.float64, **settings):
    """A net all of whose parts do something: none of its weights at the zeros that it begins with."""
    torch.manual_seed(0)
    net = make(*args, **settings).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    return net.eval()


def normal(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("make", "shape", "settings"),
    [(dit, (2, h, w), {"patch": patch}) for h, w in ((8, 8), (7, 5), (1, 2)) for patch in (1, 2, 3)]
    + [(dit, (1, 9, 6), {"learned_positions": True})]
    + [(unet_nd, (2, *sides), {"widths": (8, 8, 16)}) for sides in ((16,), (13,), (1,), (6, 9), (1, 7), (5, 4, 3))]
    + [(unet_nd, (1, 6), {"attention": False}), (unet_nd, (3, 5), {"layers": 2}), (unet_nd, (1, 5), {"widths": (16,)})],
)
def test_samples_of_any_size_keep_their_shape_and_alone_are_what_they_are_in_a_batch(make, shape, settings):
    """Gradients reach every place of a sample's own, and no other sample's; nothing is predicted before training."""
    torch.manual_seed(0)
    begun = make(shape, 3, **settings)
    x, time, cond = normal(3, *shape), torch.tensor([-1.0, 0.2, 0.9]).double(), torch.tensor([2, -1, 0])
    assert torch.equal(begun(x.float(), time.float(), cond), torch.zeros(3, *shape))  # so that D = c_skip y at first
    net = awake(make, shape, 3, **settings)
    x.requires_grad_()
    out = net(x, time, cond)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    for i in range(3):  # double precision: sums of some thousand terms, each rounded by 1e-16
        alone = net(x[i : i + 1], time[i : i + 1], cond[i : i + 1])
        torch.testing.assert_close(alone, out[i : i + 1], rtol=1e-9, atol=1e-9)
    (grad,) = torch.autograd.grad(out[1].square().sum(), x)
    assert (grad[1] != 0).all()
    assert (grad[[0, 2]] == 0).all()


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_a_gradient_reaches_every_weight_and_the_first_step_makes_time_and_class_matter(make, shape):
    net = awake(make, shape, 3)
    x, time, cond = normal(3, *shape), torch.tensor([-1.0, 0.2, 0.9]).double(), torch.tensor([2, -1, 0])
    net(x, time, cond).square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]

    torch.manual_seed(0)
    net = make(shape, 3).double()
    for _ in range(3):  # what begins at zero wakes in turn: the last layer, what gates the blocks, what the gates admit
        out = net(x, time, cond)
        weights = list(net.parameters())
        for p, grad in zip(weights, torch.autograd.grad((out - x).square().sum(), weights), strict=True):
            p.data -= 1e-2 * grad / (grad.norm() + 1e-12)
    out = net(x, time, cond)
    assert ((net(x, time + 0.05, cond) - out).flatten(1).norm(dim=1) > 0).all()
    assert ((net(x, time, torch.tensor([1, 1, 1])) - out).flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_a_tenth_of_sigma_is_resolved(make, shape):
    """Fourier features of frequencies up to 64 turn by up to 64 * 0.25 ln 1.1 = 1.5 radians."""
    net = awake(make, shape)
    x = normal(1, *shape).expand(2, *shape)
    near = net(x, quarter_log(torch.tensor([0.5, 0.55]).double()))
    assert (near[0] - near[1]).norm() > 1e-3 * near[0].norm()


CONDITIONS = [
    ("labels", Condition.labels(3), torch.tensor([2, 0, 1])),
    ("vector", Condition("vector", (2,)), normal(3, 2)),
    ("sequence", Condition("sequence", (4, 3)), normal(3, 4, 3)),
]


@pytest.mark.parametrize(("make", "shape"), NETS + OTHERS)
def test_any_condition_is_told_alone_and_among_others_and_nothing_is_a_condition_of_its_own(make, shape):
    """None is null for all; a null row is the same as another null row, and no row is told the condition of another."""
    x, time = normal(3, *shape), torch.zeros(3).double()
    kinds = [*CONDITIONS]
    if len(shape) > 1:  # one of x's own size, laid beside it, and one that is not
        kind = {2: "signal", 3: "image", 4: "volume"}[len(shape)]
        for sides in (shape[1:], [side + 3 for side in shape[1:]]):
            kinds.append((f"map{sides[0]}", Condition(kind, (2, *sides)), normal(3, 2, *sides)))
    trees = [(condition, cond) for _, condition, cond in kinds]
    trees.append(({name: condition for name, condition, _ in kinds}, {name: cond for name, _, cond in kinds}))
    for conditions, cond in trees:
        net = awake(make, shape, conditions=conditions)
        assert getattr(net, "classes", 0) == 0
        told, nothing, missing = net(x, time, cond), net(x, time), net(x, time, null(conditions, 3))
        assert told.shape == x.shape
        torch.testing.assert_close(nothing, missing, rtol=0, atol=0)
        assert ((told - nothing).flatten(1).norm(dim=1) > 1e-6).all()
        several = isinstance(cond, dict)
        for name in cond if several else [""]:  # another condition of row 1 changes row 1, and no other
            swapped = (cond[name] if several else cond).clone()
            swapped[1] = swapped[2]
            moved = net(x, time, cond | {name: swapped} if several else swapped) - told
            assert moved[1].norm() > 1e-6
            assert moved[[0, 2]].abs().max() < 1e-9
    with pytest.raises(ValueError, match="classes = 3 and conditions"):
        make(shape, 3, conditions=Condition.labels(3))


@pytest.mark.parametrize("learned", [False, True])
def test_a_dit_knows_where_its_patches_are_and_without_positions_would_not(learned):
    """Attention and perceptron treat tokens alike: patches in another order come out in that order, unless each is told
    its place."""
    net = awake(dit, (1, 6, 6), learned_positions=learned)
    x, order = normal(2, 1, 6, 6), torch.randperm(9, generator=torch.Generator().manual_seed(3))

    def shuffled(x):
        patches = torch.nn.functional.pixel_unshuffle(x, 2).flatten(2)[..., order]
        return torch.nn.functional.pixel_shuffle(patches.unflatten(2, (3, 3)), 2)

    def gap():
        return (net(shuffled(x), torch.zeros(2).double()) - shuffled(net(x, torch.zeros(2).double()))).abs().max()

    assert gap() > 1e-3
    with torch.no_grad():
        net.positions.zero_()
    assert gap() < 1e-12
    assert isinstance(dit(learned_positions=learned).positions, torch.nn.Parameter) == learned


def test_places_of_patches_differ_and_a_step_turns_all_alike():
    """<p(i), p(j)> depends on i - j alone, since cos a cos b + sin a sin b = cos(a - b); and is largest for i = j."""
    p = sincos_positions(5, 7, 32).double().reshape(5, 7, 32)
    products = (p[:-1, :-2] * p[1:, 2:]).sum(-1)
    torch.testing.assert_close(products, products[0, 0].expand(4, 5), rtol=1e-5, atol=0)
    torch.testing.assert_close(p.square().sum(-1), torch.full((5, 7), 16.0).double(), rtol=1e-5, atol=0)
    flat = p.flatten(0, 1)
    product = flat @ flat.T
    assert (product.argmax(1) == torch.arange(35)).all()


@pytest.mark.parametrize("sides", [(7,), (5, 6), (2, 3, 5), (1, 9)])
def test_padding_reflects_what_is_there_and_cropping_takes_it_off(sides):
    x = normal(2, 3, *sides)
    grown = padded(x, 4)
    assert all(side % 4 == 0 and side - old < 4 for side, old in zip(grown.shape[2:], sides, strict=True))
    assert torch.equal(cropped(grown, sides), x)
    reflects = all(-side % 4 < side for side in sides)
    for axis, side in enumerate(sides):  # place side - 1 + k shows place side - 1 - k, or the border
        for k in range(1, -side % 4 + 1):
            rest = tuple(s for i, s in enumerate(sides) if i != axis)
            beyond = cropped(grown.movedim(axis + 2, 0)[side - 1 + k], rest)
            mirror = x.movedim(axis + 2, 0)[side - 1 - k if reflects else side - 1]
            assert torch.equal(beyond, mirror)


def test_a_signal_has_ends():
    """Nothing is taken for periodic: a signal moved round its end is another signal; away from the ends it moves along.
    Without attention, what is at one place is seen within the reach of the convolutions only."""
    net = awake(unet_nd, (1, 64), widths=(8,), attention=False)
    x, time = normal(1, 1, 64), torch.zeros(1).double()
    with torch.no_grad():
        for module in net.modules():  # statistics of the whole signal tell every place of every other
            if isinstance(module, torch.nn.GroupNorm):
                module.forward = lambda h: h
    out, moved = net(x, time), net(x.roll(2, -1), time)
    gap = (moved.roll(-2, -1) - out)[0, 0].abs()
    reach = 1 + 2 + 4 + 4 + 1  # of 12 convolutions of 3: the first, a block down, two in the middle, two up, the last
    assert gap[reach + 2 : -reach - 2].max() < 1e-12
    assert gap[:2].min() > 1e-9
    changed = x.clone()
    changed[..., 0] += 1
    far = (net(changed, time) - out)[0, 0].abs()
    assert far[reach] > 0
    assert far[reach + 1 :].max() == 0


@pytest.mark.parametrize(
    ("make", "shape"),
    [(dit, (1, 4, 4)), (unet_nd, (1, 16)), (unet_nd, (1, 4, 4, 4))],
)
def test_a_few_steps_learn_a_denoiser(make, shape):
    """Data Y = +-u with entries +-1: what all places say together is nearly certain, while from its own place alone the
    best denoiser, E[Y | y] = tanh(y/sigma^2) for u = 1, has mean square error .45 at sigma = 1, a loss of .90."""
    torch.manual_seed(0)
    denoiser = Denoiser(make(shape), 1.0)
    u = torch.ones(shape)
    u.flatten()[::2] = -1
    optimiser = torch.optim.Adam(denoiser.parameters(), 1e-2)
    objective = ScoreMatching(denoiser, df.EDMWeighting(0.0, 0.3))
    errors = []
    for k in range(40):
        signs = torch.where(torch.rand(16, generator=torch.Generator().manual_seed(k)) < 0.5, -1.0, 1.0)
        batch = Batch(signs.reshape(-1, *[1] * len(shape)) * u, None, torch.arange(16))
        (turn,) = objective.turns(batch, df.Noise(k))
        optimiser.zero_grad()
        turn.loss.mean().backward()
        optimiser.step()
        errors.append(turn.loss.mean().item())
    assert errors[0] == pytest.approx(1.0, rel=0.2)  # EDM: the loss of F = 0 is 1 at every level
    assert sum(errors[-5:]) / 5 < 0.6


def test_networks_that_cannot_be_meant_are_refused():
    for make, shape in ((dit, (1, 8, 8)), (unet_nd, (1, 8))):
        with pytest.raises(ValueError, match=r"takes \(n, 1, 8"):
            make(shape)(torch.zeros(1, *shape[:-1], 9), torch.zeros(1))
    with pytest.raises(ValueError, match=r"width=18.*a multiple of 4 and of heads"):
        DiT((1, 8, 8), width=18)
    with pytest.raises(ValueError, match=r"heads=3"):
        DiT((1, 8, 8), width=16, heads=3)
    with pytest.raises(ValueError, match=r"patch=0"):
        DiT((1, 8, 8), patch=0)
    for make, shape in ((DiT, (8, 8)), (DiT, (0, 8, 8)), (UNetND, (8,)), (UNetND, (1, 2, 3, 4, 5)), (UNetND, (1, 0))):
        with pytest.raises(ValueError, match=r"shape = \(.*must be \(channels"):
            make(shape)
    for widths in ((9, 16), (8,), ()):
        with pytest.raises(ValueError, match=r"widths = .* multiples of groups = 8"):
            UNetND((1, 8), widths=widths)
    with pytest.raises(ValueError, match="layers = 0"):
        UNetND((1, 8), layers=0)
    with pytest.raises(ValueError, match="multiple of head = 32"):
        UNetND((1, 8), widths=(16, 48))


# -- settings ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "shape", "other", "remedy"),
    [
        (df.DiTConfig(width=16, depth=1), (1, 8, 8), (2, 16), "a UNetNDConfig"),
        (df.UNetNDConfig((16,), head=8), (2, 16), (5,), "an MLPConfig"),
        (df.UNetNDConfig((16,), head=8), (1, 4, 4, 4), (1, 2, 2, 2, 2), "there is no network of a denoiser"),
        (df.UNetConfig((8,), head=8), (1, 8, 8), (1, 4, 4, 4), "a UNetNDConfig"),
        (df.MLPConfig(16, 1), (5,), (2, 16), "a UNetNDConfig"),
    ],
)
def test_settings_build_their_network_with_any_condition_and_refuse_other_data(config, shape, other, remedy):
    x = torch.zeros(2, *shape)
    assert config.build(shape, 0)(x, torch.zeros(2)).shape == x.shape
    assert config.build(shape, 3).classes == 3
    net = config.build(shape, 0, {"age": Condition("vector", (1,)), "kind": Condition.labels(2)})
    cond = {"age": torch.ones(2, 1), "kind": torch.tensor([0, -1])}
    assert net(x, torch.zeros(2), cond).shape == x.shape
    with pytest.raises(ConfigError, match=rf"{type(config).__name__} is for .*{remedy}"):
        config.build(other, 0)


def test_a_network_of_vectors_or_images_has_no_false_remedy_for_signals():
    for config in (df.MLPDiscriminatorConfig(), df.ConvDiscriminatorConfig()):
        with pytest.raises(ConfigError, match="there is no network of a discriminator for such data"):
            config.build((2, 16), 0, timed=False)
    with pytest.raises(ConfigError, match="there is no network of a generator for such data"):
        df.ConvGeneratorConfig().build((2, 16), 0)
    with pytest.raises(ConfigError, match="use a ConvGeneratorConfig"):
        df.MLPGeneratorConfig().build((1, 8, 8), 0)


@pytest.mark.parametrize(("kind", "shape"), [("signal", (2, 24)), ("volume", (1, 6, 5, 4))])
def test_signals_and_volumes_have_a_diffusion_preset_that_builds_and_no_game(kind, shape):
    preset = df.presets.preset(kind)
    denoiser = preset.config.model.build({"shape": shape, "classes": None, "std": 1.0, "principal_std": 2.0})
    y = normal(2, *shape).float()
    torch.testing.assert_close(denoiser(y, torch.tensor(1.0)), y / 2)  # c_skip y: F = 0
    for name in ("gan", "score-gan", "discriminator-flow", "drifting"):
        with pytest.raises(ConfigError, match=rf"the preset '{name}' is for vectors and images.*preset '{kind}'"):
            df.presets.BY_MODEL[name](kind)


def test_data_find_the_preset_of_their_kind():
    shapes = {"signal": (2, 8), "volume": (1, 3, 4, 2), "vector": (3,), "image": (1, 4, 4)}
    found = {kind: df.presets.fitting(df.data.of(normal(20, *shape), kind=kind)) for kind, shape in shapes.items()}
    assert found == {"signal": "signal", "volume": "volume", "vector": "table", "image": "mnist"}


@pytest.mark.parametrize(("kind", "shape"), [("signal", (2, 9)), ("volume", (1, 3, 4, 5))])
def test_signals_and_volumes_train_and_are_sampled_by_the_preset_of_their_kind(tmp_path, kind, shape):
    """After two small steps F is still nearly 0, and the flow of D = y/(1 + sigma^2) makes white noise of the data's
    mean 3 and standard deviation 2, in their units: N numbers tell a mean within 2/sqrt(N), a deviation 2/sqrt(2 N)."""
    data = df.data.of(3 + 2 * normal(200, *shape), kind=kind, split="all")
    small = {"model.net.widths": (8, 16), "model.net.groups": 4, "model.net.head": 8, "fit.tensorboard": False}
    run = df.train(data, tmp_path / "run", steps=2, settings=small | {"fit.batch": 8})
    assert type(run.config.model.net) is df.UNetNDConfig
    made = run.sample(60, noise=0).last
    assert made.shape == (60, *shape)
    count = min(made.numel(), data.x.numel())
    assert made.mean().item() == pytest.approx(3, abs=4.5 * 2 * (2 / count) ** 0.5)
    assert made.std().item() == pytest.approx(2, abs=4.5 * 2 * (1 / count) ** 0.5)
    assert torch.equal(df.load(tmp_path / "run").sample(60, noise=0).last, made)
