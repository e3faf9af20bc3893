"""A sequence model: its folder, and views that are sampled from what it remembers."""

import math
from dataclasses import replace

import pytest
import torch
from model_samples import sequence_model

from come_nav.core.errors import CheckpointError, ConfigError
from come_nav.experts.sequence.settings import SequenceSettings
from come_nav.memory.recurrent import RecurrentMemory
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings
from come_nav.world_model.sequence.model import SequenceModel, SequenceModelSettings

SHAPE = SequenceSettings(
    input_size=4, in_channels=6, patch_size=2, hidden_size=8, depth=1, num_heads=2, state_size=4, block_sizes=(1,)
)
AUTOENCODER = AutoencoderSettings(image_size=32, latent_channels=6, kind="lapped", block_size=8, scaling_factor=1.3)


def model(memory="ssm"):
    return sequence_model(replace(SHAPE, memory=memory), AUTOENCODER, sampler_steps=3)


def remembered(made, frames=4):
    memory = RecurrentMemory(made.network)
    generator = torch.Generator().manual_seed(1)
    for _ in range(frames):
        memory.observe(torch.randn(6, 4, 4, generator=generator), torch.randn(3, generator=generator))
    return memory


@pytest.mark.parametrize("memory", ["ssm", "full"])
def test_a_model_is_written_and_read_back(tmp_path, memory):
    first = model(memory)
    first.save(tmp_path / "kept")
    second = SequenceModel.load(tmp_path / "kept")
    assert replace(second.settings, weights_sha256=None) == first.settings
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(second.encode(images), first.encode(images), rtol=0, atol=0)
    answers = []
    for own in (first, second):
        state = remembered(own).state
        answers.append(own.imagine(state, torch.ones(1, 3), torch.ones(1, 3), torch.Generator().manual_seed(2)))
    torch.testing.assert_close(*answers, rtol=0, atol=0)
    assert second.decode(answers[0]).shape == (1, 3, 32, 32)


def test_one_step_is_what_the_network_says_of_pure_noise():
    made = model()
    state = remembered(made).state
    pose, action = torch.randn(1, 3), torch.randn(1, 3)
    answer = made.imagine(state, pose, action, torch.Generator().manual_seed(5), steps=1)
    noise = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(5))
    t = torch.tensor([[999]])
    with torch.no_grad():
        velocity, _ = made.network.velocity(noise[:, None], t, pose[:, None], action[:, None], state)
    abar = float(made.schedule.alphas_cumprod[999])
    wanted = math.sqrt(abar) * noise - math.sqrt(1 - abar) * velocity[:, 0]
    torch.testing.assert_close(answer, wanted, rtol=1e-4, atol=1e-4)


class Oracle(torch.nn.Module):
    """Knows the clean latents, and says the noise that leads to them."""

    def __init__(self, x_0, schedule):
        super().__init__()
        self.x_0, self.schedule = x_0, schedule
        self.register_buffer("abar", torch.as_tensor(schedule.alphas_cumprod))

    def noise(self, x_t, t, poses, actions, state):
        signal, sigma = self.schedule.signal_and_sigma(t, x_t)
        return (x_t - signal * self.x_0) / sigma


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_sampling_ends_at_what_the_network_knows(steps):
    made = model()
    x_0 = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(8))
    made.network = Oracle(x_0, made.schedule)
    answer = made.imagine(None, torch.zeros(2, 3), torch.zeros(2, 3), torch.Generator().manual_seed(0), steps)
    torch.testing.assert_close(answer, x_0, rtol=1e-3, atol=1e-3)


def test_asking_does_not_change_what_is_remembered():
    made = model("full")
    memory = remembered(made)
    before = [kept["key"].clone() for layer in memory.state.layers for kept in layer]
    made.imagine(memory.state, torch.zeros(1, 3), torch.zeros(1, 3), torch.Generator().manual_seed(0))
    after = [kept["key"] for layer in memory.state.layers for kept in layer]
    assert memory.frames == 4
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_what_does_not_fit_is_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"network.in_channels must be 6"):
        SequenceModelSettings(network=replace(SHAPE, in_channels=4), autoencoder=AUTOENCODER)
    with pytest.raises(CheckpointError, match="no model folder"):
        SequenceModel.load(tmp_path)
    folder = tmp_path / "kept"
    model().save(folder)
    config = folder / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("hidden_size: 8", "hidden_size: 16"))
    with pytest.raises(CheckpointError, match="must have shape"):
        SequenceModel.load(folder)
    config.write_text(text.replace("come_nav sequence model 1", "come_nav world model 1"))
    with pytest.raises(CheckpointError, match="holds no sequence model"):
        SequenceModel.load(folder)
