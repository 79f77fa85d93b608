"""Shapes, sizes, types, errors and the noise of the networks and models."""

import math
import re

import pytest
import torch
from torch import nn

from gencourse.models import GAN, VAE, Autoencoder
from gencourse.nets import Decoder, Encoder, MinibatchStd

MODELS = [Autoencoder, VAE, GAN]


@pytest.mark.parametrize("size", [*range(16, 65, 4), 92, 124, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_goes_down_to_a_vector_and_back_up(size, channels):
    x = torch.rand(2, channels, size, size)
    encoder = Encoder(5, size, channels, width=4)
    decoder = Decoder(5, size, channels, width=4)
    assert encoder(x).shape == (2, 5)
    assert decoder(encoder(x)).shape == x.shape


@pytest.mark.parametrize("network", [Encoder, Decoder])
@pytest.mark.parametrize(
    "wrong",
    [
        dict(size=8),
        dict(size=30),
        dict(size=132),
        dict(size=32.0),
        dict(channels=2),
        dict(width=0),
        dict(width=2.5),
        dict(width=True),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(network, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} must be .*got {value!r}"):
        network(4, **wrong)


def test_impossible_vectors_are_refused():
    with pytest.raises(ValueError, match="outputs must be .*got 0"):
        Encoder(0)
    with pytest.raises(ValueError, match="latent_dim must be .*got -3"):
        Decoder(-3)


@pytest.mark.parametrize("s2", [0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf")])
def test_a_variance_that_single_precision_cannot_hold_is_refused(s2):
    with pytest.raises(ValueError, match=re.escape(f"got {s2}")):
        VAE(s2=s2)
    assert 0 < VAE(size=16, width=4, s2=1e-30).s2 < 1e-29


@pytest.mark.parametrize("model_class", MODELS)
def test_wrong_images_and_codes_are_named_with_what_was_expected(model_class):
    model = model_class(4, size=16, channels=1, width=4)
    read = model.discriminate if model_class is GAN else model.encode
    draw = model.generate if model_class is GAN else model.decode
    for wrong in [(2, 3, 16, 16), (2, 1, 28, 28), (1, 16, 16), (2, 256)]:
        with pytest.raises(ValueError) as error:
            read(torch.zeros(wrong))
        assert "(B, 1, 16, 16)" in str(error.value) and str(wrong) in str(error.value)
    for wrong in [(2, 5), (4,), (2, 4, 1)]:
        with pytest.raises(ValueError) as error:
            draw(torch.zeros(wrong))
        assert "(B, 4)" in str(error.value) and str(wrong) in str(error.value)


def test_the_four_models_are_made_of_the_same_two_networks():
    decoders = [Autoencoder(6).decoder, VAE(6).decoder, GAN(6).generator]
    shapes = [{n: p.shape for n, p in d.named_parameters()} for d in decoders]
    assert shapes[0] == shapes[1] == shapes[2]
    judge = {n: p.shape for n, p in GAN(6).discriminator.named_parameters()}
    assert judge == {n: p.shape for n, p in Encoder(1, stem=True).named_parameters()}


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_models_work_in_both_precisions(model_class, dtype):
    model = model_class(4, size=16, channels=1, width=4).to(dtype)
    x = torch.rand(3, 1, 16, 16, dtype=dtype)
    if model_class is Autoencoder:
        images = model(x)
        assert model.encode(x).shape == (3, 4)
    elif model_class is VAE:
        images, mu, logvar = model(x)
        assert mu.shape == logvar.shape == (3, 4)
        assert model.sample(2).dtype == dtype
    else:
        images = model.generate(model.prior(3))
        assert model.discriminate(x).shape == (3,)
        assert model.discriminate(x).dtype == dtype
    assert images.shape == x.shape and images.dtype == dtype
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("model_class", MODELS)
def test_a_batch_of_one_gives_what_it_gives_in_a_larger_batch(model_class):
    model = model_class(4, size=28, channels=1, width=4).double()
    network = model.discriminator if model_class is GAN else model.encoder
    x = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    together = network(x)
    alone = torch.cat([network(one[None]) for one in x])
    torch.testing.assert_close(alone, together)


def test_memory_format_changes_no_number():
    encoder, x = Encoder(3).double(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    plain = Encoder(3).double()
    plain.load_state_dict(encoder.state_dict())
    plain.to(memory_format=torch.contiguous_format)
    inner = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(inner), plain(x))


def test_initialization_keeps_the_size_of_the_signal():
    # The variance of what reaches the last layer is neither lost nor blown up.
    torch.manual_seed(0)
    for size in (16, 32, 128):
        codes = Encoder(64, size)(torch.rand(32, 3, size, size))
        logits = Decoder(64, size)(torch.randn(32, 64))
        assert 0.1 < codes.std() < 3
        assert 0.1 < logits.std() < 3


def test_reparameterized_draws_have_the_mean_and_deviation_asked_for():
    mu = torch.tensor([[0.0, -2.0, 5.0]]).expand(40_000, 3)
    sigma = torch.tensor([[1.0, 0.1, 3.0]]).expand(40_000, 3)
    z = VAE(3, size=16, width=4).reparameterize(mu, 2 * sigma.log())
    # Five standard errors of a mean and of a deviation.
    assert ((z.mean(0) - mu[0]).abs() < 5 * sigma[0] / 200).all()
    assert ((z.std(0) / sigma[0] - 1).abs() < 5 / math.sqrt(80_000)).all()


def test_reparameterization_passes_gradients():
    model = VAE(2, size=16, width=4).double()
    mu = torch.tensor([[0.3, -1.0]], dtype=torch.float64, requires_grad=True)
    logvar = torch.tensor([[0.5, -0.4]], dtype=torch.float64, requires_grad=True)
    rng = torch.Generator().manual_seed(3)
    z = model.reparameterize(mu, logvar, rng)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))
    torch.testing.assert_close(logvar.grad, ((z - mu) / 2).detach())


@pytest.mark.parametrize("model_class", [VAE, GAN])
def test_samples_follow_the_seed_and_are_new_without_one(model_class):
    model = model_class(4, size=16, channels=1, width=4)

    def draw(seed):
        return model.sample(3, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(model.sample(3), model.sample(3))
    assert not model.sample(1).requires_grad
    assert model.prior(7).shape == (7, 4)


def test_minibatch_std_adds_the_spread_of_the_batch():
    h = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    out = MinibatchStd()(h)
    expected = h.numpy().std(axis=0).mean()
    assert out.shape == (6, 3, 3, 3)
    assert torch.equal(out[:, :2], h)
    torch.testing.assert_close(
        out[:, 2],
        torch.full((6, 3, 3), expected, dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )
    same = h[:1].repeat(6, 1, 1, 1).requires_grad_()
    out = MinibatchStd()(same)
    out.sum().backward()
    assert out[:, 2].max() < 1e-3 and same.grad.isfinite().all()


def test_spectral_norm_bounds_every_weight():
    torch.manual_seed(0)
    critic = Encoder(1, size=16, channels=1, width=4, spectral_norm=True)
    x = torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        for layer in critic.layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.parametrizations.weight.original.mul_(7)
        for _ in range(50):  # each pass refines the estimate of the singular value
            critic(x)
    weights = [m.weight for m in critic.layers if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weights) >= 3
    for weight in weights:
        largest = torch.linalg.svdvals(weight.detach().flatten(1))[0]
        assert largest.item() == pytest.approx(1, abs=0.02)


def test_gan_passes_its_remedies_to_the_discriminator():
    model = GAN(4, size=16, channels=1, width=4, spectral_norm=True, minibatch_std=True)
    assert any(isinstance(m, MinibatchStd) for m in model.discriminator.modules())
    assert any("parametrizations" in k for k in model.discriminator.state_dict())
    assert not any("parametrizations" in k for k in model.generator.state_dict())


def test_a_stem_reads_the_image_at_its_full_size():
    plain, stem = (Encoder(1, size=16, width=4, stem=s) for s in (False, True))
    assert len(stem.layers) == len(plain.layers) + 2
    first = stem.layers[0]
    assert first.weight.shape == (2, 3, 3, 3) and first.stride == (1, 1)
    assert stem(torch.rand(5, 3, 16, 16)).shape == (5, 1)
    assert GAN(4, size=16, width=1).discriminator.layers[0].stride == (1, 1)


def test_a_new_decoder_starts_at_the_brightness_of_the_images():
    decoder = Decoder(4, size=16)
    x = torch.tensor([0.1, 0.5, 0.8]).view(1, 3, 1, 1).expand(5, 3, 16, 16)
    decoder.layers[-1].weight.data.zero_()
    decoder.start_at(x)
    torch.testing.assert_close(torch.sigmoid(decoder(torch.randn(5, 4))), x)
    for wrong in (x[:, :1], x[0], x[:, :, :8, :8]):
        with pytest.raises(ValueError, match=r"expected images .*\(B, 3, 16, 16\)"):
            decoder.start_at(wrong)
    decoder.start_at(1 - x)  # it is no longer new, so nothing changes
    torch.testing.assert_close(torch.sigmoid(decoder(torch.randn(5, 4))), x)
