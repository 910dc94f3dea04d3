"""Networks keep shapes, see their condition, resolve the noise level, and cost nothing at import."""

import math
import subprocess
import sys

import pytest
import torch

from diffflow.models.diffusion import ModelConfig
from diffflow.models.distill import UNetDiscriminatorConfig
from diffflow.models.settings.networks import MLPConfig, UNetConfig
from diffflow.models.settings.serialise import ConfigError
from diffflow.networks.backbones.mlp import MLP, sines
from diffflow.networks.backbones.unet import UNet, UNetDiscriminator, frequency_shift, unet2d
from diffflow.networks.denoiser import FORMS, Denoiser, quarter_log
from diffflow.networks.discriminator import Discriminator


def unet(shape=(1, 8, 8), classes=3, widths=(8, 16), **settings) -> UNet:
    torch.manual_seed(0)
    net = UNet(shape, classes, widths, head=8, groups=4, **settings)
    torch.nn.init.normal_(net.unet.conv_out.weight, std=0.1)
    return net.eval()


@pytest.mark.parametrize(
    ("shape", "widths"),
    [((1, 8, 8), (8, 16)), ((1, 28, 28), (8, 8, 16)), ((3, 32, 32), (8, 8, 8, 8)), ((2, 13, 9), (8, 8, 8))]
    + [((1, *size), (8, 8, 8)) for size in ((2, 2), (1, 1), (1, 7), (8, 3))],  # too small to reflect
)
def test_images_of_any_size_keep_their_shape_and_gradients_reach_every_pixel(shape, widths):
    net = unet(shape, widths=widths)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = net(x, torch.zeros(2), torch.tensor([0, -1]))
    assert out.shape == x.shape
    (grad,) = torch.autograd.grad(out[0].square().sum(), x)
    assert (grad[0] != 0).all()
    assert (grad[1] == 0).all()  # samples do not see each other


def test_a_float_time_is_cast_to_an_integer_by_the_backbone_and_ours_never_is():
    net = unet().unet
    x = torch.randn(1, 1, 8, 8)
    labels = torch.tensor([0])
    whole, float_, tensor = (net(x, t, class_labels=labels).sample for t in (0, 0.9, torch.tensor([0.9])))
    assert torch.equal(whole, float_)  # the trap
    assert not torch.allclose(whole, tensor)
    D = Denoiser(unet(), 0.5)
    near, far = D(x, torch.tensor(0.50)), D(x, torch.tensor(0.55))
    assert not torch.allclose(near, far, rtol=1e-4)


def test_the_backbone_is_native_and_takes_a_quarter_log_sigma():
    net = unet()
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.01, 5.0])
    native = net.unet(x, quarter_log(sigma), class_labels=torch.tensor([3, 1])).sample  # 3 = the row of "no class"
    torch.testing.assert_close(net(x, quarter_log(sigma), torch.tensor([-1, 1])), native)
    assert type(net.unet) is unet2d()
    assert net.unet.config.dropout == 0.0


# -- the way down of a denoiser's net, as a critic ---------------------------------------------------------------------
META = {"shape": (1, 7, 8), "classes": ("a", "b", "c"), "std": 0.5}


def seen(module, call):
    """What the middle block gives while `call` runs."""
    found = []
    handle = module.unet.mid_block.register_forward_hook(lambda _, __, out: found.append(out))
    call()
    handle.remove()
    return found[0]


@pytest.mark.parametrize("octaves", [(), (0, 1)])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_critic_begins_by_seeing_what_the_denoiser_sees(octaves, form):
    """At the level that it is told, without the sines of x: the same features, through the same preconditioning, as the
    denoiser has of pictures of no class, whatever class the critic is asked about."""
    model = ModelConfig(UNetConfig((8, 16), head=8, groups=4, octaves=octaves), form)
    denoiser = model.build({**META, "principal_std": 1.0})
    discriminator = UNetDiscriminatorConfig(level=0.4).build(model, META)
    discriminator.net.begin({k.removeprefix("net."): v for k, v in denoiser.state_dict().items()})
    with torch.no_grad():
        denoiser.net.unet.conv_in.weight[:, 1:] = 0
    x, cond = torch.randn(3, 1, 7, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, -1])
    theirs = seen(denoiser.net, lambda: denoiser(x, torch.tensor(0.4 * 0.5)))
    for t in (0.0, 0.7):  # whatever the time
        mine = seen(discriminator.net, lambda t=t: discriminator(x, t, cond))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_where_no_class_was_never_learned_a_critic_is_told_the_mean_class():
    torch.manual_seed(0)
    denoiser, discriminator = (
        make(UNet((1, 8, 8), 3, (8, 16), head=8, groups=4)) for make in (lambda net: net, UNetDiscriminator)
    )
    discriminator.begin(denoiser.state_dict(), classless=False)
    mine, theirs = discriminator.unet.class_embedding.weight, denoiser.unet.class_embedding.weight
    assert torch.equal(mine[:3], theirs[:3])
    torch.testing.assert_close(mine[3], theirs[:3].mean(0))
    discriminator.begin(denoiser.state_dict())
    assert torch.equal(discriminator.unet.class_embedding.weight, theirs)


def test_slopes_of_such_a_critic_can_be_penalised(check_penalty_slopes):
    """The penalty is differentiated twice, which fused attention cannot be: against finite differences. diffusers'
    attention works in float32 within, 1e-7 of a penalty of order 1: with steps of 1e-3 both errors stay below 1e-3."""
    torch.manual_seed(0)
    discriminator = Discriminator(UNetDiscriminator(UNet((1, 8, 8), 3, (8, 16), head=8, groups=4))).double()
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    names = ("net.unet.mid_block.attentions.0.to_q.weight", "net.unet.conv_in.weight", "net.dense.weight")
    check_penalty_slopes(discriminator, x, torch.tensor([0, 1, 2, -1]), names, step=1e-3, rel=1e-3)


def test_a_logit_belongs_to_its_own_picture_and_class():
    torch.manual_seed(0)
    net = UNetDiscriminator(UNet((1, 7, 8), 3, (8, 16), head=8, groups=4)).eval()
    x, cond = torch.randn(4, 1, 7, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, -1])

    def logit(*args):
        return net(*args).logit

    whole = logit(x, torch.zeros(4), cond)
    torch.testing.assert_close(logit(x[1:2], torch.zeros(1), cond[1:2]), whole[1:2], rtol=1e-4, atol=1e-5)
    assert (logit(x, torch.zeros(4), cond.roll(1)) != whole).all()
    assert torch.equal(logit(x[3:], torch.zeros(1)), logit(x[3:], torch.zeros(1), torch.tensor([-1])))
    assert UNetDiscriminator(UNet((2, 9, 9), 0, (8, 8), attention=False, groups=4))(
        torch.zeros(2, 2, 9, 9), torch.zeros(2)
    ).shape == (2,)


def test_twin_classifiers_move_the_logit_of_a_class_by_what_bayes_says():
    """log r(x|c)/p(x|c) = log r(x)/p(x) + log r(c|x) - log p(c|x): a class that both think as likely says nothing, and
    of no class nothing is said."""
    torch.manual_seed(0)
    net = UNetDiscriminator(UNet((1, 8, 8), 3, (8, 16), head=8, groups=4)).eval()
    x, t = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(4)
    cond = torch.tensor([0, 1, 2, -1])
    before = net(x, t, cond)
    for law in (before.real, before.made):  # undecided
        torch.testing.assert_close(law.exp(), torch.full((4, 3), 1 / 3))
    torch.nn.init.normal_(net.twins.real.weight)
    torch.nn.init.normal_(net.twins.made.bias)
    after = net(x, t, cond)
    for law in (after.real, after.made):
        torch.testing.assert_close(law.exp().sum(1), torch.ones(4))
    more = (after.real - after.made)[torch.arange(3), cond[:3]]
    assert more.abs().min() > 0
    torch.testing.assert_close(after.logit - before.logit, torch.cat([more, torch.zeros(1)]), rtol=1e-4, atol=1e-5)


def test_a_critic_that_cannot_begin_as_the_denoiser_says_why():
    with pytest.raises(ConfigError, match="has an MLPConfig"):
        UNetDiscriminatorConfig().build(ModelConfig(MLPConfig()), META)
    with pytest.raises(ConfigError, match=r"discriminator_net.level = 0"):
        UNetDiscriminatorConfig(level=0.0)
    with pytest.raises(ValueError, match=r"takes \(n, 1, 8, 8\)"):
        UNetDiscriminator(UNet((1, 8, 8), 0, (8, 8), head=8, groups=4))(torch.zeros(2, 1, 8, 9), torch.zeros(2))
    with pytest.raises(ValueError, match=r"octaves = \(1,\)"):
        UNetDiscriminator(unet(octaves=(1,)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        UNetDiscriminator(UNet((1, 8, 8), 3, (8, 16), head=8, groups=4)).begin(unet(widths=(8, 24)).state_dict())


@pytest.mark.parametrize("width", [8, 16, 32, 64, 128])
def test_the_time_embedding_resolves_a_tenth_of_sigma_everywhere(width):
    """|e(1.1 sigma) - e(sigma)| / |e|: frequencies up to 64 turn by 64 * 0.25 ln 1.1 = 1.5 radians; diffusers'
    default ones, at most 1, by 0.024.
    """
    sigma = torch.logspace(-2.7, 1.9, 40)
    net = unet(widths=(width, width)).unet
    assert net.config.freq_shift == frequency_shift(width)

    def change(project) -> torch.Tensor:
        here, there = project(quarter_log(sigma)), project(quarter_log(1.1 * sigma))
        return (there - here).norm(dim=1) / here.norm(dim=1)

    assert change(net.time_proj).min() > 0.2
    net.time_proj.downscale_freq_shift = 0
    assert change(net.time_proj).max() <= 0.25 * math.log(1.1) * 1.001


@pytest.mark.parametrize("build", [lambda k: unet(classes=k), lambda k: MLP(64, k, width=16, depth=2)])
def test_no_class_is_a_class_of_its_own(build):
    net = build(3).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(4, *getattr(net, "shape", (64,)))
    out = [net(x, torch.zeros(4), c) for c in (None, torch.full((4,), -1), *(torch.full((4,), k) for k in range(3)))]
    torch.testing.assert_close(out[0], out[1])
    for i in range(1, 5):
        for j in range(1, i):
            assert not torch.allclose(out[i], out[j])
    plain = build(0)
    assert plain(x, torch.zeros(4), None).shape == x.shape


@pytest.mark.parametrize("shape", [(5,), (2, 6, 6)])
def test_sines_of_octaves_stand_beside_x_and_repeat_by_octave(shape):
    """Of period 2^(1-k) in every coordinate, and x itself first; a net made with them takes the same x."""
    x = torch.rand(3, *shape, dtype=torch.float64)
    seen, c = sines(x, (1, 3)), shape[0]
    assert seen.shape == (3, 5 * c, *shape[1:])
    torch.testing.assert_close(seen[:, :c], x)
    moved = sines(x + 1.0, (1, 3))  # the period of k = 1, and four of k = 3
    torch.testing.assert_close(moved[:, c:], seen[:, c:])
    torch.testing.assert_close(sines(x + 0.25, (3,))[:, c:], sines(x, (3,))[:, c:])
    assert not torch.allclose(sines(x + 0.25, (1,))[:, c:], sines(x, (1,))[:, c:])
    net = MLP(5, width=8, depth=1, octaves=(1, 3)) if len(shape) == 1 else unet((2, 6, 6), octaves=(1, 3))
    assert net(x.float(), torch.zeros(3)).shape == x.shape


def test_mlp_reads_its_noise_level():
    net = MLP(2, width=32, depth=2)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(1, 2).expand(2, 2)
    near = net(x, quarter_log(torch.tensor([0.5, 0.55])))
    assert (near[0] - near[1]).norm() > 0.01 * near.norm()


def test_sizes_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match=r"widths = \(9,\)"):
        UNet((1, 8, 8), widths=(9,))
    with pytest.raises(ValueError, match="multiple of head = 32"):
        UNet((1, 8, 8), widths=(8, 16))
    with pytest.raises(ValueError, match=r"takes \(n, 1, 8, 8\)"):
        unet()(torch.zeros(1, 1, 9, 9), torch.zeros(1))
    with pytest.raises(ValueError, match=r"takes \(n, 3\)"):
        MLP(3)(torch.zeros(1, 2), torch.zeros(1))


def test_importing_the_library_imports_no_backbone():
    heavy = ("diffusers", "accelerate", "torchvision", "tensorboard")
    code = (
        "import sys, diffflow.runs.run, diffflow.networks.backbones.unet; "
        f"sys.exit(any(m in sys.modules for m in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
